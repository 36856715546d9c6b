/**
 * `node writer-child.js FOLDER SEED`: changes files in every durable way that there is, one step after the other, until its
 * standard input ends. A line of JSON (`Acknowledged`) tells of each step when it is done, which is when it must survive.
 */

import { constants } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../mount/random.ts';
import * as posix from '../support/posix.ts';
import { type Acknowledged, BLOCK, blocksOf, SMALL_BLOCKS, SMALL_FILES, stamped } from './stamps.ts';

const [, , folder = '.', seed = '1'] = process.argv;
const random = new Random(Number(seed));
let version = 0;

function write(fd: number, name: string, blocks: readonly number[]): void {
  for (const block of blocks) posix.write(fd, stamped(name, block, version), block * BLOCK);
}

function withFile(name: string, flags: number, act: (fd: number) => void): void {
  const fd = posix.open(join(folder, name), flags);
  try {
    act(fd);
  } finally {
    posix.close(fd);
  }
}

function syncFolder(): void {
  withFile('.', posix.O_RDONLY | posix.O_DIRECTORY, posix.fsync);
}

function someBlocks(name: string): number[] {
  const all = blocksOf(name);
  return [...new Set(Array.from({ length: 1 + random.below(4) }, () => random.below(all)))];
}

const everyBlock = Array.from({ length: SMALL_BLOCKS }, (_, block) => block);

/** Each returns which blocks it wrote. */
const ways: readonly ((name: string) => readonly number[])[] = [
  (name) => {
    const blocks = someBlocks(name);
    withFile(name, posix.O_RDWR, (fd) => {
      write(fd, name, blocks);
      posix.fsync(fd);
    });
    return blocks;
  },
  (name) => {
    const blocks = someBlocks(name);
    withFile(name, posix.O_WRONLY, (fd) => {
      write(fd, name, blocks);
      posix.fdatasync(fd);
    });
    return blocks;
  },
  (name) => {
    const blocks = someBlocks(name);
    withFile(name, posix.O_WRONLY | (random.chance(0.5) ? constants.O_SYNC : constants.O_DSYNC), (fd) =>
      write(fd, name, blocks),
    );
    return blocks;
  },
  (name) => {
    if (name === 'large') return [];
    withFile('new', posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, (fd) => {
      write(fd, name, everyBlock);
      posix.fsync(fd);
    });
    posix.rename(join(folder, 'new'), join(folder, name));
    syncFolder();
    return everyBlock;
  },
  () => [],
];

function step(): void {
  version++;
  const name = random.chance(0.3) ? 'large' : `small${random.below(SMALL_FILES)}`;
  const blocks = random.of(ways)(name);
  if (blocks.length === 0) {
    const made = `made${version}`;
    withFile(made, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, (fd) => {
      write(fd, made, [0]);
      posix.fsync(fd);
    });
    syncFolder();
    tell({ name: made, blocks: [0], version });
  } else {
    tell({ name, blocks, version });
  }
}

function tell(done: Acknowledged): void {
  process.stdout.write(`${JSON.stringify(done)}\n`);
}

const stepping = setInterval(step, 0);
process.stdin.on('end', () => clearInterval(stepping));
process.stdin.resume();
