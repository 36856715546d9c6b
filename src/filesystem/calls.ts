/**
 * What the filesystem asks of the kernel, as functions that `sys` fits. Results are zero or more, or a negated errno;
 * addresses point into a `Memory`. The meaning of each is its man page's.
 */

import type { Address } from '../base/memory.ts';
import type { Exact } from '../base/struct.ts';

interface Call<A extends readonly unknown[]> {
  (...args: A): number;
  /** The same on another thread, for what may wait for a device. */
  later(...args: A): Promise<number>;
}

export interface SourceCalls {
  openat(dirFd: number, path: Address, flags: number, mode: number): number;
  openByHandleAt(mountFd: number, handle: Address, flags: number): number;
  nameToHandleAt(dirFd: number, path: Address, handle: Address, mountId: Address, flags: number): number;
  close(fd: number): number;
  pread: Call<[fd: number, buffer: Address, count: number, offset: Exact]>;
  pwrite: Call<[fd: number, buffer: Address, count: number, offset: Exact]>;
  preadv2(fd: number, vector: Address, count: number, offset: number, flags: number): number;
  pwritev2(fd: number, vector: Address, count: number, offset: number, flags: number): number;
  lseek(fd: number, offset: Exact, whence: number): number;
  /** The same with an exact result. */
  lseekExact(fd: number, offset: Exact, whence: number): Exact;
  fcntl(fd: number, command: number, argument: number): number;
  /** Returns the error number itself: posix_fadvise(2). */
  posixFadvise(fd: number, offset: number, length: number, advice: number): number;
  getdents64(fd: number, buffer: Address, count: number): number;
  statx(dirFd: number, path: Address, flags: number, mask: number, result: Address): number;
  fstatfs(fd: number, result: Address): number;
  mkdirat(dirFd: number, path: Address, mode: number): number;
  mknodat(dirFd: number, path: Address, mode: number, device: number): number;
  symlinkat(target: Address, dirFd: number, path: Address): number;
  readlinkat(dirFd: number, path: Address, buffer: Address, size: number): number;
  unlinkat(dirFd: number, path: Address, flags: number): number;
  linkat(oldDirFd: number, oldPath: Address, newDirFd: number, newPath: Address, flags: number): number;
  renameat2(oldDirFd: number, oldPath: Address, newDirFd: number, newPath: Address, flags: number): number;
  fchmodat2(dirFd: number, path: Address, mode: number, flags: number): number;
  /** faccessat2(2). */
  faccessat2(dirFd: number, path: Address, mode: number, flags: number): number;
  fchownat(dirFd: number, path: Address, uid: number, gid: number, flags: number): number;
  utimensat(dirFd: number, path: Address, times: Address, flags: number): number;
  ftruncate: Call<[fd: number, length: Exact]>;
  fallocate: Call<[fd: number, mode: number, offset: Exact, length: Exact]>;
  fsync: Call<[fd: number]>;
  fdatasync: Call<[fd: number]>;
  syncfs: Call<[fd: number]>;
  copyFileRange: Call<[fdIn: number, offIn: Address, fdOut: number, offOut: Address, length: number, flags: number]>;
  getxattr(path: Address, name: Address, value: Address, size: number): number;
  setxattr(path: Address, name: Address, value: Address, size: number, flags: number): number;
  listxattr(path: Address, list: Address, size: number): number;
  removexattr(path: Address, name: Address): number;
  ioctl: Call<[fd: number, request: number, argument: Address]>;
  umask(mask: number): number;
  /** For the calling thread alone, and without a change of capabilities: the daemon sets SECBIT_NO_SETUID_FIXUP. */
  setfsuid(uid: number): number;
  setfsgid(gid: number): number;
}

/** Registration of backing files with the mount's connection; a call fails with a negated errno: see `fuse/server/backing.ts`. */
export interface BackingFiles {
  /**
   * Returns the backing id, which holds the file open in the kernel until it is closed. What is written to a `guarded` file by
   * passthrough takes its set-user-ID and set-group-ID away.
   */
  open(fd: number, guarded: boolean): number;
  close(backingId: number): number;
  /** Closes an id a moment later, unless it is taken before: a node's next open may want it. */
  keep(slot: number, generation: number, backingId: number): void;
  /** The id that is kept for a node, or 0. */
  take(slot: number, generation: number): number;
  /** Closes what is kept for a node. */
  drop(slot: number, generation: number): void;
}
