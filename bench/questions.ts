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
  readonly rounds: number;
}

export const normal: Sizes = {
  bigBytes: 200_000_000,
  smallFiles: 4000,
  listedFiles: 20_000,
  attributeReads: 20_000,
  rounds: 5,
};
export const short: Sizes = {
  bigBytes: 20_000_000,
  smallFiles: 400,
  listedFiles: 1000,
  attributeReads: 1000,
  rounds: 3,
};

/** More than btrfs keeps inline. */
const SMALL_BYTES = 6000;

export interface Question {
  readonly name: string;
  /** A loop of probe.ts, or a command line that is timed as a whole. */
  readonly probe?: string;
  readonly command?: (at: string, scratch: string) => readonly [string, readonly string[]];
  readonly at: string;
  readonly count: number;
  /** Which rounds count: the first one alone, or the others. */
  readonly rounds: 'all' | 'first' | 'later';
}

export function questions(sizes: Sizes): readonly Question[] {
  const { bigBytes, smallFiles, listedFiles, attributeReads } = sizes;
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
  // These are copies of their own, so that `small` shares nothing.
  await run('cp', ['-a', '--reflink=never', join(source, 'small'), join(source, 'small-origin')], signal);
  await run('sync', ['-f', source]);
  await run('cp', ['-a', '--reflink=always', join(source, 'small-origin'), join(source, 'small-clone')], signal);
  await run('sync', ['-f', source]);
}
