/**
 * The timed loops, in a process of their own: `probe.js QUESTION FOLDER COUNT ROUNDS` prints the microseconds per step of
 * each round as JSON. They call the C library through the FFI, on paths that are prepared before the clock starts, so
 * that a step costs its system calls and 0.12 µs for each call; nothing is subtracted.
 */

import { readdirSync, writeFileSync } from 'node:fs';
import * as c from '../src/base/linux.ts';
import { putString } from '../src/base/memory.ts';
import * as libc from '../src/sys/libc.ts';
import { allocate } from '../src/sys/memory.ts';

const READ_BYTES = 1 << 20;
const PAGE_BYTES = 4096;
const PATH_BYTES = 256;
/** linux/fcntl.h: ask the filesystem, whatever is cached. */
const AT_STATX_FORCE_SYNC = 0x2000;

const [question = '', folder = '', countText = '0', roundsText = '1'] = process.argv.slice(2);
const count = Number(countText);
const rounds = Number(roundsText);
const buffer = allocate('buffer', READ_BYTES);
const result = allocate('statx', 512);

function good(value: number): number {
  if (value < 0) throw new Error(`${question} in ${folder}: error ${-value}`);
  return value;
}

/** Puts NUL-terminated paths into memory, and returns the addresses. */
function placed(paths: readonly string[]): readonly number[] {
  const memory = allocate('paths', Math.max(paths.length, 1) * PATH_BYTES);
  return paths.map((path, index) => {
    putString(memory, index * PATH_BYTES, path);
    return memory.address + index * PATH_BYTES;
  });
}

function entries(): string[] {
  return readdirSync(folder)
    .slice(0, count)
    .map((name) => `${folder}/${name}`);
}

/** Unused inodes and names are forgotten; pages, hence the filesystem's metadata, stay. */
function forgetNames(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '2');
}

function statAt(address: number, flags: number): void {
  good(libc.statx(c.AT_FDCWD, address, flags, c.STATX_BASIC_STATS, result.address));
}

interface Probe {
  readonly before?: () => void;
  /** Returns how many steps it took. */
  readonly timed: () => number;
}

function readAll(path: number): void {
  const fd = good(libc.openat(c.AT_FDCWD, path, c.O_RDONLY, 0));
  while (good(libc.read(fd, buffer.address, READ_BYTES)) > 0);
  libc.close(fd);
}

function mapAll(path: number): number {
  const fd = good(libc.openat(c.AT_FDCWD, path, c.O_RDONLY, 0));
  const address = good(libc.mmap(count, c.PROT_READ, c.MAP_SHARED, fd, 0));
  const bytes = new Uint8Array(libc.viewOf(address, count));
  let sum = 0;
  for (let at = 0; at < count; at += PAGE_BYTES) sum += bytes[at] ?? 0;
  good(libc.munmap(address, count));
  libc.close(fd);
  return sum;
}

/** Lists a folder and stats what it lists, below one level of folders too: what `ls -lR` does. */
function walk(path: string, depth: number): number {
  const memory = allocate('walk', READ_BYTES);
  const name = allocate('name', PATH_BYTES);
  putString(name, 0, path);
  const fd = good(libc.openat(c.AT_FDCWD, name.address, c.O_RDONLY | c.O_DIRECTORY, 0));
  const folders: string[] = [];
  let found = 0;
  for (let length = 1; length > 0; ) {
    length = good(libc.getdents64(fd, memory.address, READ_BYTES));
    for (let at = 0; at < length; at += memory.view.getUint16(at + 16, true)) {
      good(libc.statx(fd, memory.address + at + 19, c.AT_SYMLINK_NOFOLLOW, c.STATX_BASIC_STATS, result.address));
      found++;
      if (depth === 0 || memory.bytes[at + 18] !== 4 || memory.bytes[at + 19] === 46) continue;
      const end = memory.bytes.indexOf(0, at + 19);
      folders.push(`${path}/${Buffer.from(memory.bytes.subarray(at + 19, end)).toString()}`);
    }
  }
  libc.close(fd);
  good(libc.munmap(memory.address, READ_BYTES));
  return folders.reduce((sum, below) => sum + walk(below, depth - 1), found);
}

function make(): Probe {
  switch (question) {
    case 'read': {
      const [path = 0] = placed([folder]);
      readAll(path);
      const timed = (): number => {
        readAll(path);
        return 1;
      };
      return { timed };
    }
    case 'mmap': {
      const [path = 0] = placed([folder]);
      mapAll(path);
      const timed = (): number => {
        mapAll(path);
        return 1;
      };
      return { timed };
    }
    case 'open': {
      const paths = placed(entries());
      const timed = (): number => {
        for (const path of paths) {
          const fd = good(libc.openat(c.AT_FDCWD, path, c.O_RDONLY, 0));
          good(libc.read(fd, buffer.address, READ_BYTES));
          libc.close(fd);
        }
        return paths.length;
      };
      // Names are known; the first round may still have to find out what the files share.
      const before = (): void => {
        for (const path of paths) statAt(path, 0);
      };
      return { before, timed };
    }
    case 'lookup': {
      const paths = placed(entries());
      return {
        before: forgetNames,
        timed: () => {
          for (const path of paths) statAt(path, 0);
          return paths.length;
        },
      };
    }
    case 'getattr': {
      const [path = 0] = placed([folder]);
      return {
        timed: () => {
          for (let i = 0; i < count; i++) statAt(path, AT_STATX_FORCE_SYNC);
          return count;
        },
      };
    }
    case 'list':
      return { before: forgetNames, timed: () => walk(folder, 0) };
    case 'walk':
      return { timed: () => walk(folder, 1) };
    case 'create': {
      const paths = placed(Array.from({ length: count }, (_, index) => `${folder}/new-${index}`));
      return {
        timed: () => {
          for (const path of paths) {
            libc.close(good(libc.openat(c.AT_FDCWD, path, c.O_WRONLY | c.O_CREAT | c.O_EXCL, 0o644)));
            good(libc.unlinkat(c.AT_FDCWD, path, 0));
          }
          return paths.length;
        },
      };
    }
    default:
      throw new Error(`unknown question ${question}`);
  }
}

const probe = make();
const times: number[] = [];
let steps = 0;
for (let round = 0; round < rounds; round++) {
  probe.before?.();
  const start = performance.now();
  const taken = probe.timed();
  times.push(((performance.now() - start) * 1000) / taken);
  steps += taken;
}
console.log(JSON.stringify({ times, steps }));
