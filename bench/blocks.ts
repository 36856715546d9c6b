/**
 * The timed loops on one large file that has diverged from others, in a process of their own: `blocks.js QUESTION FILE COUNT
 * ROUNDS SOURCE` prints the microseconds per step of each round as JSON. SOURCE is the folder that the bare filesystem has, in
 * which pages are dropped for cold rounds: those of the file alone, after another clone of it was read at the same place.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { basename, dirname, join } from 'node:path';
import * as c from '../src/base/linux.ts';
import { putString } from '../src/base/memory.ts';
import * as libc from '../src/sys/libc.ts';
import { allocate } from '../src/sys/memory.ts';

const BLOCK = 4096;
const LARGE = 1 << 20;
const AT_A_TIME = 16;

const [question = '', file = '', countText = '0', roundsText = '1', source = ''] = process.argv.slice(2);
const count = Number(countText);
const rounds = Number(roundsText);
const buffer = allocate('buffer', LARGE);
const name = allocate('name', 4096);

function good(value: number): number {
  if (value < 0) throw new Error(`${question} on ${file}: error ${-value}`);
  return value;
}

function open(path: string, flags: number): number {
  putString(name, 0, path);
  return good(libc.openat(c.AT_FDCWD, name.address, flags, 0));
}

let state = 12_345;
/** The offset of some block of `bytes` bytes in the file. */
function somewhere(size: number, bytes: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * Math.floor(size / bytes)) * bytes;
}

function sizeOf(fd: number): number {
  return good(libc.lseek(fd, 0, c.SEEK_END));
}

/** Reads a file in order; returns how many reads it took. */
function readInOrder(path: string, bytes: number): number {
  const fd = open(path, c.O_RDONLY);
  let reads = 0;
  for (let at = 0; ; reads++) {
    const got = good(libc.pread(fd, buffer.address, bytes, at));
    if (got === 0) break;
    at += got;
  }
  libc.close(fd);
  return reads;
}

function readAtRandom(bytes: number): number {
  const fd = open(file, c.O_RDONLY);
  const size = sizeOf(fd);
  for (let i = 0; i < count; i++) good(libc.pread(fd, buffer.address, bytes, somewhere(size, bytes)));
  libc.close(fd);
  return count;
}

function writeAtRandom(bytes: number, writes: number, sync: boolean): number {
  const fd = open(file, c.O_RDWR);
  const size = sizeOf(fd);
  for (let i = 0; i < count; i++) {
    const at = somewhere(size, bytes);
    if (somewhere(1000, 1) < writes * 1000) good(libc.pwrite(fd, buffer.address, bytes, at));
    else good(libc.pread(fd, buffer.address, bytes, at));
    if (sync) good(libc.fdatasync(fd));
  }
  libc.close(fd);
  return count;
}

/** Drops the file's own pages, those of the mount as well, and has the other clone's read. */
function makeCold(): void {
  readInOrder(join(dirname(file), 'other-disk'), LARGE);
  for (const path of [join(source, basename(file)), file]) {
    const fd = open(path, c.O_RDONLY);
    good(libc.fsync(fd));
    libc.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
    libc.close(fd);
  }
}

interface Loop {
  /** Before each round. */
  readonly before: () => void;
  readonly timed: () => number;
}

function loop(): Loop {
  const warm = (): void => void readInOrder(file, LARGE);
  switch (question) {
    case 'random':
      return { before: warm, timed: () => readAtRandom(BLOCK) };
    case 'order-128k':
      return { before: warm, timed: () => readInOrder(file, LARGE / 8) };
    case 'order-1m':
      return { before: warm, timed: () => readInOrder(file, LARGE) };
    case 'cold-random':
      return { before: makeCold, timed: () => readAtRandom(BLOCK) };
    case 'cold-order':
      return { before: makeCold, timed: () => readInOrder(file, LARGE) };
    case 'write-sync':
      return { before: warm, timed: () => writeAtRandom(2 * BLOCK, 1, true) };
    case 'mixed':
      return { before: warm, timed: () => writeAtRandom(BLOCK, 0.3, false) };
    default:
      throw new Error(`unknown question ${question}`);
  }
}

function heard(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('message', () => resolve());
    child.once('exit', (code) => reject(new Error(`a reader ended with ${code}`)));
  });
}

/** Many readers at once: each has its file open and waits for the word; a round ends when the last has ended. */
async function manyAtOnce(): Promise<{ times: number[]; steps: number }> {
  readInOrder(file, LARGE);
  const each = Math.ceil(count / AT_A_TIME);
  const words = ['random', file, String(each), String(rounds), source];
  const readers = Array.from({ length: AT_A_TIME }, () => fork(import.meta.filename, words));
  const times: number[] = [];
  await Promise.all(readers.map(heard));
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    const done = Promise.all(readers.map(heard));
    for (const reader of readers) reader.send('go');
    await done;
    times.push(((performance.now() - start) * 1000) / (each * AT_A_TIME));
  }
  for (const reader of readers) reader.disconnect();
  return { times, steps: each * AT_A_TIME * rounds };
}

if (process.send !== undefined) {
  process.on('message', () => {
    readAtRandom(BLOCK);
    process.send?.('done');
  });
  process.send('ready');
} else if (question === 'random-16') {
  console.log(JSON.stringify(await manyAtOnce()));
} else {
  const { before, timed } = loop();
  const times: number[] = [];
  let steps = 0;
  for (let round = 0; round < rounds; round++) {
    before();
    const start = performance.now();
    const taken = timed();
    times.push(((performance.now() - start) * 1000) / taken);
    steps += taken;
  }
  console.log(JSON.stringify({ times, steps }));
}
