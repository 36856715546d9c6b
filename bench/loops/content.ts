/** The timed loops on what a file holds. */

import * as c from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import { BUFFER_BYTES, buffer, good, type Loop, type MakeLoop, openedPath } from './given.ts';

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

/** A loop on a file that is open before the clock starts. */
const onOpen =
  (flags: number, steps: (fd: number, size: number, count: number) => number): MakeLoop =>
  ({ path, count }): Loop => {
    let fd = -1;
    let size = 0;
    return {
      before() {
        fd = openedPath(path, flags);
        size = sizeOf(fd);
      },
      timed: () => steps(fd, size, count),
      after: () => libc.close(fd),
    };
  };

function readInOrder(fd: number, size: number): number {
  let steps = 0;
  for (let at = 0; at < size; steps++) at += good(libc.pread(fd, buffer.address, BUFFER_BYTES, at));
  return steps;
}

function readAtRandom(fd: number, size: number, count: number): number {
  for (let i = 0; i < count; i++) good(libc.pread(fd, buffer.address, BLOCK_BYTES, somewhere(size, BLOCK_BYTES)));
  return count;
}

function mapAll(fd: number, size: number): number {
  const address = good(libc.mmap(size, c.PROT_READ, c.MAP_SHARED, fd, 0));
  const bytes = new Uint8Array(libc.viewOf(address, size));
  let sum = 0;
  for (let at = 0; at < size; at += BLOCK_BYTES) sum += bytes[at] ?? 0;
  good(libc.munmap(address, size));
  return Number.isNaN(sum) ? 0 : Math.ceil(size / BLOCK_BYTES);
}

function writeInOrder(fd: number, size: number): number {
  let steps = 0;
  for (let at = 0; at + BUFFER_BYTES <= size; at += BUFFER_BYTES, steps++)
    good(libc.pwrite(fd, buffer.address, BUFFER_BYTES, at));
  return steps;
}

function readAndWrite(fd: number, size: number, count: number): number {
  for (let i = 0; i < count; i++) {
    const at = somewhere(size, BLOCK_BYTES);
    if (next() < WRITTEN) good(libc.pwrite(fd, buffer.address, BLOCK_BYTES, at));
    else good(libc.pread(fd, buffer.address, BLOCK_BYTES, at));
  }
  return count;
}

function writeAndFlush(fd: number, size: number, count: number): number {
  for (let i = 0; i < count; i++) {
    good(libc.pwrite(fd, buffer.address, RECORD_BYTES, somewhere(size, RECORD_BYTES)));
    good(libc.fdatasync(fd));
  }
  return count;
}

export const contentLoops = {
  'read-order': onOpen(c.O_RDONLY, readInOrder),
  'read-random': onOpen(c.O_RDONLY, readAtRandom),
  map: onOpen(c.O_RDONLY, mapAll),
  'write-order': onOpen(c.O_WRONLY, writeInOrder),
  'read-write': onOpen(c.O_RDWR, readAndWrite),
  'write-flush': onOpen(c.O_RDWR, writeAndFlush),
} as const satisfies Readonly<Record<string, MakeLoop>>;
