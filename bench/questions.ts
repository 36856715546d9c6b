/** What is asked at every place, and the content that it takes. */

import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../src/demo/commands.ts';

export interface Sizes {
  readonly bigBytes: number;
  readonly smallFiles: number;
  readonly listedFiles: number;
  readonly attributeReads: number;
  /** Blocks read or written at random in a large file, and written with a flush each. */
  readonly blocks: number;
  readonly flushes: number;
  readonly rounds: number;
}

export const normal: Sizes = {
  bigBytes: 200_000_000,
  smallFiles: 4000,
  listedFiles: 20_000,
  attributeReads: 20_000,
  blocks: 20_000,
  flushes: 200,
  rounds: 5,
};
export const short: Sizes = {
  bigBytes: 20_000_000,
  smallFiles: 400,
  listedFiles: 1000,
  attributeReads: 1000,
  blocks: 1000,
  flushes: 20,
  rounds: 3,
};

/** More than btrfs keeps inline. */
const SMALL_BYTES = 6000;

export interface Question {
  readonly name: string;
  /** A loop of probe.ts, or of blocks.ts, or a command line that is timed as a whole. */
  readonly probe?: string;
  readonly blocks?: string;
  readonly command?: (at: string, scratch: string) => readonly [string, readonly string[]];
  readonly at: string;
  readonly count: number;
  /** Which rounds count: the first one alone, or the others. */
  readonly rounds: 'all' | 'first' | 'later';
}

export function questions(sizes: Sizes): readonly Question[] {
  const { bigBytes, smallFiles, listedFiles, attributeReads, blocks, flushes } = sizes;
  const all = { rounds: 'all' } as const;
  return [
    { name: 'warm read, own', probe: 'read', at: 'own', count: bigBytes, ...all },
    { name: 'warm read, shared', probe: 'read', at: 'clone', count: bigBytes, ...all },
    { name: 'warm mmap, own', probe: 'mmap', at: 'own', count: bigBytes, ...all },
    { name: 'warm mmap, shared', probe: 'mmap', at: 'clone', count: bigBytes, ...all },
    { name: 'open+read+close, own', probe: 'open', at: 'small', count: smallFiles, ...all },
    { name: 'open+read+close, clone, first', probe: 'open', at: 'small-clone', count: smallFiles, rounds: 'first' },
    { name: 'open+read+close, clone, later', probe: 'open', at: 'small-clone', count: smallFiles, rounds: 'later' },
    { name: 'stat of an uncached name', probe: 'lookup', at: 'small', count: smallFiles, ...all },
    { name: 'statx, attributes not cached', probe: 'getattr', at: 'own', count: attributeReads, ...all },
    { name: 'ls -l, per entry', probe: 'list', at: 'listed', count: listedFiles, ...all },
    { name: 'create+close+unlink', probe: 'create', at: 'empty', count: smallFiles, ...all },
    { name: 'diverged, warm: 4 KiB at random', blocks: 'random', at: 'disk', count: blocks, ...all },
    { name: 'diverged, warm: 4 KiB at random, 16 at a time', blocks: 'random-16', at: 'disk', count: blocks, ...all },
    { name: 'diverged, warm: 128 KiB in order', blocks: 'order-128k', at: 'disk', count: 1, ...all },
    { name: 'diverged, warm: 1 MiB in order', blocks: 'order-1m', at: 'disk', count: 1, ...all },
    { name: 'diverged, cold: 4 KiB at random', blocks: 'cold-random', at: 'disk', count: blocks / 10, ...all },
    { name: 'diverged, cold: 1 MiB in order', blocks: 'cold-order', at: 'disk', count: 1, ...all },
    { name: 'diverged: 4 KiB, 30% written', blocks: 'mixed', at: 'written-disk', count: blocks / 4, ...all },
    { name: 'diverged: 8 KiB written, fdatasync', blocks: 'write-sync', at: 'written-disk', count: flushes, ...all },
    {
      name: 'find, whole tree',
      command: (at) => ['find', [at, '-type', 'f', '-newer', '/']],
      at: 'tree',
      count: 1,
      ...all,
    },
    { name: 'grep -r, whole tree', command: (at) => ['grep', ['-rc', 'import', at]], at: 'tree', count: 1, ...all },
    {
      name: 'tar, whole tree',
      command: (at) => ['sh', ['-c', 'tar -cf - -C "$0" . | wc -c', at]],
      at: 'tree',
      count: 1,
      ...all,
    },
    {
      name: 'cp -r, whole tree',
      command: (at, scratch) => ['sh', ['-c', 'cp -r "$0" "$1" && rm -r "$1"', at, scratch]],
      at: 'tree',
      count: 1,
      ...all,
    },
  ];
}

/** What part of a diverged file differs from its origin. */
const CHANGED = 0.02;
const BLOCK_BYTES = 4096;

/** Overwrites some blocks, others in each file. */
function diverge(path: string, bytes: number, seed: number): void {
  const fd = openSync(path, 'r+');
  const block = new Uint8Array(BLOCK_BYTES);
  const blocks = Math.floor(bytes / BLOCK_BYTES);
  let state = seed;
  for (let i = 0; i < blocks * CHANGED; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    writeSync(fd, randomFillSync(block), 0, BLOCK_BYTES, (state % blocks) * BLOCK_BYTES);
  }
  closeSync(fd);
}

function writeRandom(path: string, bytes: number): void {
  const block = new Uint8Array(1_000_000);
  const fd = openSync(path, 'w');
  for (let done = 0; done < bytes; done += block.length)
    writeSync(fd, randomFillSync(block), 0, Math.min(block.length, bytes - done));
  closeSync(fd);
}

/** Makes the content; `tree` is a real folder that is copied. */
export async function fillSource(source: string, sizes: Sizes, tree: string, signal: AbortSignal): Promise<void> {
  for (const name of ['small', 'listed', 'empty']) mkdirSync(join(source, name));
  writeRandom(join(source, 'own'), sizes.bigBytes);
  writeRandom(join(source, 'origin'), sizes.bigBytes);
  const content = randomFillSync(new Uint8Array(SMALL_BYTES));
  for (let i = 0; i < sizes.smallFiles; i++) writeFileSync(join(source, `small/file-${i}`), content);
  for (let i = 0; i < sizes.listedFiles; i++) writeFileSync(join(source, `listed/file-${i}`), '');
  await run('cp', ['-a', '--reflink=never', tree, join(source, 'tree')], signal);
  await run('sync', ['-f', source]);
  await run('cp', ['-a', '--reflink=always', join(source, 'origin'), join(source, 'clone')]);
  for (const [seed, name] of ['disk', 'other-disk', 'written-disk'].entries()) {
    await run('cp', ['-a', '--reflink=always', join(source, 'origin'), join(source, name)]);
    diverge(join(source, name), sizes.bigBytes, seed);
  }
  // These are copies of their own, so that `small` shares nothing.
  await run('cp', ['-a', '--reflink=never', join(source, 'small'), join(source, 'small-origin')], signal);
  await run('sync', ['-f', source]);
  await run('cp', ['-a', '--reflink=always', join(source, 'small-origin'), join(source, 'small-clone')], signal);
  await run('sync', ['-f', source]);
}
