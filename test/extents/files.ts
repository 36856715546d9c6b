/** How the tests of this folder make files on real filesystems. */

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { struct } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate, reflinkRange } from '../support/posix.ts';
import { realMemory, withFile } from './support.ts';

export const BLOCK = 4096;

/** Blocks that compress to a fraction, each unlike any other block there is. */
export function compressibleBlocks(count: number): Buffer {
  const bytes = Buffer.alloc(count * BLOCK, 'all work and no play ');
  for (let i = 0; i < count; i++) randomBytes(16).copy(bytes, i * BLOCK);
  return bytes;
}

/** Writes bytes at an offset of a file, which need not exist, and has them on disk when it returns. */
export function writeAt(path: string, offset: number, bytes: Buffer): void {
  withFileForWriting(path, (fd) => {
    writeSync(fd, bytes, 0, bytes.length, offset);
    fsyncSync(fd);
  });
}

/** The same, without waiting for the disk: the pages are dirty afterwards. */
export function dirtyAt(path: string, offset: number, bytes: Buffer): void {
  withFileForWriting(path, (fd) => writeSync(fd, bytes, 0, bytes.length, offset));
}

export function withFileForWriting<T>(path: string, use: (fd: number) => T): T {
  const fd = openSync(path, 'a');
  closeSync(fd);
  return withFile(path, use, 'r+');
}

export function resize(path: string, size: number): void {
  withFileForWriting(path, (fd) => ftruncateSync(fd, size));
}

export function punch(path: string, offset: number, length: number): void {
  withFileForWriting(path, (fd) => fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}

export function preallocate(path: string, offset: number, length: number): void {
  withFileForWriting(path, (fd) => {
    fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length);
    fsyncSync(fd);
  });
}

export function cloneRange(from: string, fromOffset: number, length: number, to: string, toOffset: number): void {
  withFile(from, (fromFd) =>
    withFileForWriting(to, (toFd) => reflinkRange(fromFd, fromOffset, length, toFd, toOffset)),
  );
}

export function sameBytes(one: string, other: string): boolean {
  return readFileSync(one).equals(readFileSync(other));
}

/** Commits the filesystem's transaction, after which a deleted file holds nothing any more. */
export function syncFilesystem(dir: string): void {
  execFileSync('sync', ['--file-system', dir]);
}

const FIDEDUPERANGE = 0xc0189436;
const FILE_DEDUPE_RANGE_SAME = 0;

/** linux/fs.h: the request, and behind it one of these per destination. */
const dedupeRange = struct('file_dedupe_range', 24, [
  ['src_offset', 'u64'],
  ['src_length', 'u64'],
  ['dest_count', 'u16'],
  ['_reserved1', 'u16'],
  ['_reserved2', 'u32'],
]);
const dedupeInfo = struct('file_dedupe_range_info', 32, [
  ['dest_fd', 'i64'],
  ['dest_offset', 'u64'],
  ['bytes_deduped', 'u64'],
  ['status', 'i32'],
  ['_reserved', 'u32'],
]);

const memory = realMemory(4096);

/** Lets a file share the blocks of another file with the same content. */
export function dedupe(from: string, to: string, length: number): void {
  withFile(from, (fromFd) =>
    withFileForWriting(to, (toFd) => {
      memory.bytes.fill(0);
      dedupeRange.src_length.set(memory.view, 0, length);
      dedupeRange.dest_count.set(memory.view, 0, 1);
      dedupeInfo.dest_fd.set(memory.view, dedupeRange.structBytes, toFd);
      const result = libc.ioctl(fromFd, FIDEDUPERANGE, memory.address);
      const status = dedupeInfo.status.get(memory.view, dedupeRange.structBytes);
      const done = dedupeInfo.bytes_deduped.get(memory.view, dedupeRange.structBytes);
      if (result < 0 || status !== FILE_DEDUPE_RANGE_SAME || done !== length) {
        throw new Error(`FIDEDUPERANGE: result ${result}, status ${status}, ${done} of ${length} bytes`);
      }
    }),
  );
}
