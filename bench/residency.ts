/**
 * The section `residency`: what one domain can find out by time about what another has read. In each trial A has read a file or, by chance, another one
 * that nobody else has a clone of; then B times its own first read of its clone. If A's reading shows, B's times tell the two
 * kinds of trials apart: an area under the curve (AUC) of 1. If it doesn't, they are as good as a coin: 0.5.
 *
 * Each trial has files of its own, so that nothing which one trial leaves in memory helps another. Before the first pass the
 * filesystem is unmounted and mounted again: B's time then holds whatever its first look at cold metadata takes, and the making of
 * its domain's clone. Before the second pass only the pages are dropped; names, nodes and clones are known by then.
 */

import { randomFillSync } from 'node:crypto';
import { closeSync, constants, copyFileSync, mkdirSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import * as c from '../src/base/linux.ts';
import { putString } from '../src/base/memory.ts';
import { programPath } from '../src/cli/package.ts';
import { run } from '../src/demo/commands.ts';
import { makeStage, type Stage } from '../src/demo/stage.ts';
import * as libc from '../src/sys/libc.ts';
import { allocate } from '../src/sys/memory.ts';
import { median } from './asking.ts';
import { type Comparison, compare } from './ranks.ts';
import type { Asked, Section, SectionResult } from './section.ts';

const SIZES = [16 << 10, 128 << 10, 512 << 10] as const;
const PASSES = ['first', 'again'] as const;
const KINDS = ['one', 'two'] as const;
/** A ctime younger than this proves nothing, so nothing is shared before (routes.ts). */
const CTIME_MS = 100;
const STORE = '.sharedext';

interface ResidencyRow {
  /** Whether A and B are in one domain or in two. */
  readonly domains: (typeof KINDS)[number];
  readonly pass: (typeof PASSES)[number];
  readonly bytes: number;
  /** Which of B's calls is timed. */
  readonly timed: 'open' | 'read';
  readonly trials: number;
  /** Medians of B's times. */
  readonly afterReadUs: number;
  readonly afterOtherUs: number;
  readonly comparison: Comparison;
}

interface Trial {
  readonly bytes: number;
  readonly domains: ResidencyRow['domains'];
  /** Paths below the mount: A's clone, B's clone, and what A reads where it doesn't read its clone. */
  readonly a: string;
  readonly b: string;
  readonly other: string;
}

/** Below `a` and `b` of the source, which are two domains. Each file has a clone, or it would not be shared at all. */
async function makeFiles(source: string, trials: number, signal: AbortSignal): Promise<readonly Trial[]> {
  const made: Trial[] = [];
  for (const domain of ['a', 'b']) mkdirSync(join(source, domain));
  for (const domains of KINDS) {
    for (const bytes of SIZES) {
      const folder = `${domains}-${bytes}`;
      for (const domain of ['a', 'b']) mkdirSync(join(source, domain, folder));
      for (let i = 0; i < trials; i++) {
        signal.throwIfAborted();
        const a = `a/${folder}/${i}`;
        const trial = {
          bytes,
          domains,
          a,
          b: domains === 'one' ? `${a}-clone` : `b/${folder}/${i}`,
          other: `${a}-other`,
        };
        for (const path of [trial.a, trial.other])
          writeFileSync(join(source, path), randomFillSync(Buffer.alloc(bytes)));
        made.push(trial);
      }
      await run('sync', ['-f', source]);
    }
  }
  const clone = (from: string, to: string): void =>
    copyFileSync(join(source, from), join(source, to), constants.COPYFILE_FICLONE_FORCE);
  for (const { a, b, other } of made) {
    clone(a, b);
    clone(other, `${other}-clone`);
  }
  await run('sync', ['-f', source]);
  return made;
}

const path = allocate('path', 4096);
const buffer = allocate('buffer', Math.max(...SIZES));

function good(result: number, what: string): number {
  if (result < 0) throw new Error(`Cannot read ${what}: error ${-result}`);
  return result;
}

/** Reads a whole file; microseconds of the open and of the read. */
function readTimed(file: string, bytes: number): { readonly open: number; readonly read: number } {
  putString(path, 0, file);
  const start = performance.now();
  const fd = good(libc.openat(c.AT_FDCWD, path.address, c.O_RDONLY | c.O_CLOEXEC, 0), file);
  const opened = performance.now();
  const got = libc.pread(fd, buffer.address, bytes, 0);
  const end = performance.now();
  libc.close(fd);
  if (good(got, file) !== bytes) throw new Error(`Cannot read ${file} whole: it has ${got} bytes`);
  return { open: (opened - start) * 1000, read: (end - opened) * 1000 };
}

/** Drops the pages of every file below a folder, those of the store's clones among them. */
function dropPages(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    const fd = openSync(join(entry.parentPath, entry.name), 'r');
    libc.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
    closeSync(fd);
  }
}

function shuffled<T>(values: readonly T[]): T[] {
  const result = [...values];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    const [one, two] = [result[i], result[j]];
    if (one === undefined || two === undefined) continue;
    result[i] = two;
    result[j] = one;
  }
  return result;
}

interface Times {
  readonly trial: Trial;
  readonly read: boolean;
  readonly us: { readonly open: number; readonly read: number };
}

async function onePass(trials: readonly Trial[], root: string, signal: AbortSignal): Promise<readonly Times[]> {
  const times: Times[] = [];
  // Of each kind one half, by chance.
  const chosen = new Set<Trial>();
  for (const domains of KINDS) {
    for (const bytes of SIZES) {
      const own = shuffled(trials.filter((trial) => trial.domains === domains && trial.bytes === bytes));
      for (const trial of own.slice(0, own.length / 2)) chosen.add(trial);
    }
  }
  for (const trial of shuffled(trials)) {
    signal.throwIfAborted();
    const read = chosen.has(trial);
    readTimed(join(root, read ? trial.a : trial.other), trial.bytes);
    // What A's read has set going, such as readahead, comes to its end.
    await pause(1);
    times.push({ trial, read, us: readTimed(join(root, trial.b), trial.bytes) });
  }
  return times;
}

function rowsOf(times: readonly Times[], pass: ResidencyRow['pass']): ResidencyRow[] {
  const rows: ResidencyRow[] = [];
  for (const domains of KINDS) {
    for (const bytes of SIZES) {
      const own = times.filter(({ trial }) => trial.domains === domains && trial.bytes === bytes);
      for (const timed of ['open', 'read'] as const) {
        const after = own.filter(({ read }) => read).map(({ us }) => us[timed]);
        const other = own.filter(({ read }) => !read).map(({ us }) => us[timed]);
        const medians = { afterReadUs: median(after), afterOtherUs: median(other) };
        rows.push({ domains, pass, bytes, timed, trials: own.length, ...medians, comparison: compare(other, after) });
      }
    }
  }
  return rows;
}

/** Measures on a mount of its own, with as many trials for each row. */
async function residencyByTime(stage: Stage, trials: number, signal: AbortSignal): Promise<ResidencyRow[]> {
  const files = await makeFiles(stage.source, trials, signal);
  await run('umount', [stage.source]);
  await run('mount', [stage.device, stage.source]);
  await pause(CTIME_MS);
  const mount = await stage.mount('settle=0,domain=dir');
  const rows: ResidencyRow[] = [];
  for (const pass of PASSES) {
    if (pass === 'again') {
      dropPages(join(stage.source, STORE));
      for (const domain of ['a', 'b']) dropPages(join(stage.source, domain));
    }
    rows.push(...rowsOf(await onePass(files, mount.mountpoint, signal), pass));
  }
  await mount.end();
  return rows;
}

function sizeText(bytes: number): string {
  return `${bytes >> 10} KiB`;
}

function residencyText(rows: readonly ResidencyRow[]): string {
  const lines = [
    '| domains | pass | size | timed | A read it | A read another | AUC | 95% | p |',
    '| ------- | ---- | ---- | ----- | --------- | -------------- | --- | --- | - |',
  ];
  for (const { domains, pass, bytes, timed, afterReadUs, afterOtherUs, comparison } of rows) {
    const { auc, low, high, p } = comparison;
    const cells = [
      domains,
      pass,
      sizeText(bytes),
      timed,
      `${afterReadUs.toFixed(0)} µs`,
      `${afterOtherUs.toFixed(0)} µs`,
      auc.toFixed(2),
      `${low.toFixed(2)} – ${high.toFixed(2)}`,
      p < 0.001 ? '< 0.001' : p.toFixed(3),
    ];
    lines.push(`| ${cells.join(' | ')} |`);
  }
  return lines.join('\n');
}

const IMAGE_BYTES = 16 * 1024 ** 3;
/** For each row, about half of them with a read by the other. */
const TRIALS = { short: 10, normal: 240, full: 480 } as const;

const METHOD = `What one domain can find out by time about what another has read ([security.md](security.md)). A reads a file or, by chance,
another one, and B times its own first open and read of its clone; each trial has files of its own. AUC is how probable it is that
B's time is longer when A has not read the file: 1 tells it every time, 0.5 is a coin; with its interval of 95%, and p by Mann and
Whitney.`;

async function answer({ filesystem, extent, signal, tell }: Asked): Promise<SectionResult> {
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('reading in two domains');
    const rows = await residencyByTime(stage, TRIALS[extent], signal);
    return { text: `${METHOD}\n\n${residencyText(rows)}`, plots: [], numbers: rows };
  } finally {
    await stage.dispose();
  }
}

export const residencySection: Section = {
  name: 'residency',
  title: 'What a time tells of the reads of others',
  run: answer,
};
