/** What the store asks of the kernel, as functions that `sys` fits: zero or more, or a negated errno. */

import type { Address } from '../base/memory.ts';

export interface StoreCalls {
  openat(dirFd: number, path: Address, flags: number, mode: number): number;
  close(fd: number): number;
  pread(fd: number, buffer: Address, count: number, offset: number): number;
  unlinkat(dirFd: number, path: Address, flags: number): number;
  mkdirat(dirFd: number, path: Address, mode: number): number;
  getdents64(fd: number, buffer: Address, count: number): number;
  statx(dirFd: number, path: Address, flags: number, mask: number, result: Address): number;
  fstatfs(fd: number, result: Address): number;
  flock(fd: number, operation: number): number;
  /** Returns the error number itself: posix_fadvise(2). */
  posixFadvise(fd: number, offset: number, length: number, advice: number): number;
  ioctl: {
    (fd: number, request: number, argument: Address): number;
    later(fd: number, request: number, argument: Address): Promise<number>;
  };
}

/** What the folder of the store needs beside. */
export interface PlaceCalls extends StoreCalls {
  pwrite(fd: number, buffer: Address, count: number, offset: number): number;
  fsync(fd: number): number;
  linkat(oldDirFd: number, oldPath: Address, newDirFd: number, newPath: Address, flags: number): number;
}

/** Registration of clones for passthrough: an id, or a negated errno. */
export interface MappingBacking {
  open(fd: number): number;
  close(backingId: number): number;
  /** Closes a mapping's id a moment later, unless it is taken before. */
  keep(row: number, generation: number, backingId: number): void;
  /** The id that is kept for a mapping, or 0. */
  take(row: number, generation: number): number;
  /** Closes what is kept for a mapping. */
  drop(row: number, generation: number): void;
}

/** Offsets of fields of struct statx and struct statfs (statx(2), statfs(2)). */
export const STATX = { uid: 20, mode: 28, ino: 32, size: 40 } as const;
export const STATFS = { bsize: 8, blocks: 16, bavail: 32 } as const;
