/** Files that share their extents, made in all the ways there are, and the pages that they and the store's clones hold. */

import { type ChildProcessWithoutNullStreams, execFile, execFileSync, spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readdirSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { assertNothingLeft } from '../support/leaks.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem, sectorsRead } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { pause } from '../support/wait.ts';

export const PAGE_BYTES = 4096;
const COMMAND_TIMEOUT_MS = 120_000;
/** A ctime younger than this proves nothing (routes/choose.ts), so nothing is shared before. */
const CTIME_MS = 70;

/** Runs a command in a child, while the event loop goes on. */
export function run(command: string, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: COMMAND_TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: 1 << 26 } as const;
    execFile(command, args, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${command} ${args.slice(0, 4).join(' ')}: ${stderr.trim() || error.message}`));
      else resolve(stdout);
    });
  });
}

/** Reads files one after the other, in a child. */
export async function readFiles(files: readonly string[]): Promise<void> {
  await run('sh', '-c', 'cat "$@" > /dev/null', 'sh', ...files);
}

/** Runs on a filesystem of its own, which is taken away again whatever happens, and asserts that nothing is left. */
export async function onFilesystem(
  kind: FilesystemKind,
  sizeMb: number,
  body: (filesystem: LoopFilesystem) => Promise<void>,
): Promise<void> {
  const filesystem = makeLoopFilesystem(kind, { sizeMb });
  try {
    await body(filesystem);
  } finally {
    filesystem.dispose();
  }
  await assertNothingLeft();
}

/** Random bytes; with `compressible`, every second half page is zeros. On disk when it returns. */
export function writeData(file: string, bytes: number, compressible: boolean): void {
  const chunk = Buffer.alloc(1 << 20);
  const fd = openSync(file, 'wx', 0o755);
  for (let written = 0; written < bytes; ) {
    randomFillSync(chunk);
    if (compressible) for (let at = 0; at < chunk.length; at += PAGE_BYTES) chunk.fill(0, at, at + PAGE_BYTES / 2);
    written += writeSync(fd, chunk, 0, Math.min(chunk.length, bytes - written));
  }
  posix.fsync(fd);
  closeSync(fd);
}

/** Makes a copy's extents those of the original, as deduplication daemons do: FIDEDUPERANGE. */
function dedupe(from: string, to: string): void {
  copyFileSync(from, to);
  execFileSync('sync', [to]);
  const { size } = posix.stat(from);
  execFileSync('xfs_io', ['-c', `dedupe ${from} 0 0 ${size}`, to], { timeout: COMMAND_TIMEOUT_MS, stdio: 'pipe' });
}

/**
 * Eight files of equal content and shared extents below `root`: an original, one that was deduplicated, reflinks, and on
 * btrfs the files of two snapshots. Returns their paths relative to `root`.
 */
export function makeClones(root: string, bytes: number, kind: string): string[] {
  const btrfs = kind.startsWith('btrfs');
  const home = join(root, 'a');
  if (btrfs) posix.makeSubvolume(home);
  else mkdirSync(home);
  const original = join(home, 'original');
  writeData(original, bytes, kind === 'btrfs-zstd');
  dedupe(original, join(root, 'deduplicated'));
  const files = ['a/original', 'deduplicated'];
  if (btrfs) {
    for (const name of ['snapshot1', 'snapshot2']) {
      posix.snapshot(home, join(root, name), { readOnly: name === 'snapshot1' });
      files.push(`${name}/original`);
    }
  }
  while (files.length < 8) {
    const name = `a/reflink${files.length}`;
    execFileSync('cp', ['--reflink=always', original, join(root, name)]);
    files.push(name);
  }
  execFileSync('sync', ['-f', root]);
  return files;
}

/** Waits until everything that was made a moment ago may be shared. */
export function settled(): Promise<void> {
  return pause(CTIME_MS);
}

/** The paths of the store's clones, of one mount or of several. */
export function storeFiles(source: string): string[] {
  const store = join(source, '.sharedext');
  if (!existsSync(store)) return [];
  const places = readdirSync(store).filter((name) => name !== 'CACHEDIR.TAG');
  return places.flatMap((place) => readdirSync(join(store, place)).map((name) => join(store, place, name)));
}

export function residentPages(files: readonly string[]): number {
  return files.reduce((sum, file) => sum + posix.residentPages(file), 0);
}

export function dropPages(files: readonly string[]): void {
  for (const file of files) posix.dropPages(file);
}

/** Over all devices of a filesystem, in sectors of 512 bytes. */
export function allSectorsRead(filesystem: LoopFilesystem): number {
  return filesystem.devices.reduce((sum, device) => sum + sectorsRead(device), 0);
}

/** A program that has said that it is ready, and waits for the end of its input. */
export interface Waiting {
  end(): Promise<void>;
}

export function startWaiting(command: string, args: readonly string[]): Promise<Waiting> {
  const child: ChildProcessWithoutNullStreams = spawn('timeout', ['120', command, ...args]);
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data.toString();
  });
  return new Promise((resolve, reject) => {
    child.stdout.once('data', () => {
      resolve({
        async end() {
          child.stdin.end();
          const code = await ended;
          if (code !== 0) throw new Error(`${command} ended with ${code}: ${stderr}`);
        },
      });
    });
    void ended.then((code) => reject(new Error(`${command} ended with ${code}: ${stderr}`)));
  });
}
