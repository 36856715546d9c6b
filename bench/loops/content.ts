/** The timed loops on what a file holds. */

import * as c from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import { BUFFER_BYTES, buffer, type Given, good, type Loop, type MakeLoop, openedPath } from './given.ts';

const BLOCK_BYTES = 4096;
/** What a database writes at a time. */
const RECORD_BYTES = 8192;
/** How many of the accesses of the mixed loop write. */
const WRITTEN = 0.3;

let state = 12_345;
/** A number below 1. The same ones come in every process. */
function next(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

function sizeOf(fd: number): number {
  return good(libc.lseek(fd, 0, c.SEEK_END));
}

function somewhere(size: number, bytes: number): number {
  return Math.floor(next() * Math.floor(size / bytes)) * bytes;
}

/** Runs a loop on an open file. */
function on(path: string, flags: number, steps: (fd: number, size: number) => number): number {
  const fd = openedPath(path, flags);
  try {
    return steps(fd, sizeOf(fd));
  } finally {
    libc.close(fd);
  }
}

function readInOrder(path: string): number {
  return on(path, c.O_RDONLY, (fd, size) => {
    let steps = 0;
    for (let at = 0; at < size; steps++) at += good(libc.pread(fd, buffer.address, BUFFER_BYTES, at));
    return steps;
  });
}

export function readAtRandom({ path, count }: Given): number {
  return on(path, c.O_RDONLY, (fd, size) => {
    for (let i = 0; i < count; i++) good(libc.pread(fd, buffer.address, BLOCK_BYTES, somewhere(size, BLOCK_BYTES)));
    return count;
  });
}

function mapAll(path: string): number {
  return on(path, c.O_RDONLY, (fd, size) => {
    const address = good(libc.mmap(size, c.PROT_READ, c.MAP_SHARED, fd, 0));
    const bytes = new Uint8Array(libc.viewOf(address, size));
    let sum = 0;
    for (let at = 0; at < size; at += BLOCK_BYTES) sum += bytes[at] ?? 0;
    good(libc.munmap(address, size));
    return Number.isNaN(sum) ? 0 : Math.ceil(size / BLOCK_BYTES);
  });
}

function writeInOrder(path: string): number {
  return on(path, c.O_WRONLY, (fd, size) => {
    let steps = 0;
    for (let at = 0; at + BUFFER_BYTES <= size; at += BUFFER_BYTES, steps++)
      good(libc.pwrite(fd, buffer.address, BUFFER_BYTES, at));
    return steps;
  });
}

function readAndWrite({ path, count }: Given): number {
  return on(path, c.O_RDWR, (fd, size) => {
    for (let i = 0; i < count; i++) {
      const at = somewhere(size, BLOCK_BYTES);
      if (next() < WRITTEN) good(libc.pwrite(fd, buffer.address, BLOCK_BYTES, at));
      else good(libc.pread(fd, buffer.address, BLOCK_BYTES, at));
    }
    return count;
  });
}

export function writeAndFlush({ path, count }: Given): number {
  return on(path, c.O_RDWR, (fd, size) => {
    for (let i = 0; i < count; i++) {
      good(libc.pwrite(fd, buffer.address, RECORD_BYTES, somewhere(size, RECORD_BYTES)));
      good(libc.fdatasync(fd));
    }
    return count;
  });
}

const plain =
  (timed: (given: Given) => number): MakeLoop =>
  (given): Loop => ({ timed: () => timed(given) });

export const contentLoops = {
  'read-order': plain(({ path }) => readInOrder(path)),
  'read-random': plain(readAtRandom),
  map: plain(({ path }) => mapAll(path)),
  'write-order': plain(({ path }) => writeInOrder(path)),
  'read-write': plain(readAndWrite),
  'write-flush': plain(writeAndFlush),
} as const satisfies Readonly<Record<string, MakeLoop>>;
