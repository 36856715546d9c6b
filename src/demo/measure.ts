/**
 * One measurement: the caches are dropped, every clone is read and its programs are run, and the pages that this left in
 * the page cache are counted.
 */

import { closeSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { errnoText, UserError } from '../base/errno.ts';
import { Residency } from '../pagecache/residency.ts';
import * as libc from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { run } from './commands.ts';
import type { Tree } from './tree.ts';

const PAGE_BYTES = 4096;
/** The size in which cp and cat read. */
const READ_BYTES = 256 * 1024;
/** After so many files the event loop gets a turn, and an interrupt is seen. */
const FILES_PER_TURN = 64;

export interface Measurement {
  /** By what way the clones were read. */
  readonly name: string;
  /** Pages of the clones' own files and of the shared mappings, by cachestat(2), in bytes. */
  readonly pageCacheBytes: number;
  /** How much the machine's whole page cache grew meanwhile (/proc/meminfo: Cached), which others change as well. */
  readonly meminfoBytes: number;
  readonly firstCloneMs: number;
  /** The first read of the second clone, after the first was read. */
  readonly secondCloneMs: number;
  readonly secondCloneDiskBytes: number;
  readonly allClonesMs: number;
  readonly programs: number;
  /** READ requests that reached the daemon; null where there is no daemon. */
  readonly readRequests: number | null;
}

export interface Job {
  readonly name: string;
  /** Where the clones are read. */
  readonly clones: readonly string[];
  /** Folders of the source whose files are counted. */
  readonly counted: readonly string[];
  readonly tree: Tree;
  readonly device: string;
  readonly signal: AbortSignal;
  readonly requests?: () => Promise<Readonly<Record<string, number>>>;
  readonly step: (text: string) => void;
}

export async function dropCaches(): Promise<void> {
  await run('sync', []);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** /proc/meminfo counts in KiB. */
function cachedBytes(): number {
  return Number(/^Cached:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
}

/** Documentation/block/stat.rst: the third number counts the sectors of 512 bytes that were read. */
export function diskBytesRead(device: string): number {
  const text = readFileSync(`/sys/block/${device.replace('/dev/', '')}/stat`, 'utf8');
  return Number(text.trim().split(/\s+/)[2]) * 512;
}

export async function readTree(folder: string, { files }: Tree, signal: AbortSignal): Promise<void> {
  const buffer = new Uint8Array(READ_BYTES);
  let count = 0;
  for (const file of files) {
    if (++count % FILES_PER_TURN === 0) {
      await turn();
      signal.throwIfAborted();
    }
    const fd = openSync(`${folder}/${file}`, 'r');
    try {
      while (readSync(fd, buffer, 0, READ_BYTES, null) > 0);
    } finally {
      closeSync(fd);
    }
  }
}

/** All pages in the cache of the files below the folders. */
export async function residentBytes(folders: readonly string[], signal: AbortSignal): Promise<number> {
  const residency = new Residency(libc, allocate('residency', 65_536), PAGE_BYTES);
  let pages = 0;
  let count = 0;
  for (const folder of folders) {
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      if (++count % FILES_PER_TURN === 0) {
        await turn();
        signal.throwIfAborted();
      }
      const path = join(entry.parentPath, entry.name);
      const fd = openSync(path, 'r');
      const found = residency.cachedPages(fd);
      closeSync(fd);
      if (found < 0) throw new UserError(`Cannot count the cached pages of ${path}: ${errnoText(found)}`);
      pages += found;
    }
  }
  return pages * PAGE_BYTES;
}

/** A real program for bin/node: it hashes the interpreter that runs it, so that all of it is executed or read. */
const PROGRAM =
  "console.log(require('crypto').createHash('sha256').update(require('fs').readFileSync(process.execPath)).digest('hex'))";

/** Runs the interpreter of every clone, all at once. @throws UserError when one says something else than the others. */
async function runPrograms(clones: readonly string[], signal: AbortSignal): Promise<number> {
  const said = await Promise.all(clones.map((clone) => run(join(clone, 'bin/node'), ['-e', PROGRAM], signal)));
  if (new Set(said).size !== 1) throw new UserError('Cannot go on: the clones of one program differ');
  return said.length;
}

export async function measure(job: Job): Promise<Measurement> {
  const { name, clones, tree, signal, device, step } = job;
  await dropCaches();
  const cachedBefore = cachedBytes();
  const times: number[] = [];
  const start = performance.now();
  let secondCloneDiskBytes = 0;
  for (const [index, clone] of clones.entries()) {
    step(`${name}: reading clone ${index + 1} of ${clones.length}`);
    const diskBefore = diskBytesRead(device);
    const begun = performance.now();
    await readTree(clone, tree, signal);
    times.push(performance.now() - begun);
    if (index === 1) secondCloneDiskBytes = diskBytesRead(device) - diskBefore;
  }
  const allClonesMs = performance.now() - start;
  step(`${name}: running ${clones.length} programs at once`);
  const programs = await runPrograms(clones, signal);
  const meminfoBytes = cachedBytes() - cachedBefore;
  step(`${name}: counting cached pages`);
  const counts = await job.requests?.();
  const { READ: reads = 0 } = counts ?? {};
  return {
    name,
    pageCacheBytes: await residentBytes(job.counted, signal),
    meminfoBytes,
    firstCloneMs: times[0] ?? 0,
    secondCloneMs: times[1] ?? 0,
    secondCloneDiskBytes,
    allClonesMs,
    programs,
    readRequests: counts === undefined ? null : reads,
  };
}
