/**
 * The FFI: every C function that sharedext calls is declared here, and nothing outside this folder imports koffi.
 *
 * Pointers are numbers (user addresses are below 2^47), so that a call converts nothing. Measured on a 2-core machine
 * under Node 20: a call costs 0.12 µs beside the system call itself, a failed statx 0.29 µs in all.
 */

import koffi from 'koffi';
import type { Exact } from '../base/struct.ts';

const lib = koffi.load('libc.so.6');

type CType = 'int' | 'uint' | 'uintptr_t' | 'size_t' | 'int64_t' | 'uint64_t' | 'str';
/** What a number can't hold exactly is given as a bigint. */
type Argument<T extends CType> = T extends 'str' ? string : T extends 'int64_t' ? Exact : number;
type Arguments<T extends readonly CType[]> = { -readonly [K in keyof T]: Argument<T[K]> };

export interface NativeCall<A extends readonly unknown[]> {
  /** Calls it; the result is the function's own, or the negated errno where that is negative. */
  (...args: A): number;
  /** Calls it on a thread of libuv's pool: 50 to 90 µs, for calls that may wait for a device. Never rejects. */
  later(...args: A): Promise<number>;
}

/** Declares a function that returns a negative number and sets errno when it fails. Tests declare what only they call. */
export function declare<const T extends readonly CType[]>(
  name: string,
  result: 'int' | 'int64_t' | 'uintptr_t',
  types: T,
): NativeCall<Arguments<T>> {
  const raw = lib.func(name, result, [...types]);
  const call = (...args: Arguments<T>): number => {
    // koffi makes a BigInt of what a number can't hold exactly.
    const value: number | bigint = raw(...args);
    return value < 0 ? -koffi.errno() : Number(value);
  };
  const later = (...args: Arguments<T>): Promise<number> =>
    new Promise((resolve) => {
      raw.async(...args, (error: Error | null, value: number | bigint) => {
        // koffi keeps the thread's errno for the callback.
        if (error) resolve(-5);
        else resolve(value < 0 ? -koffi.errno() : Number(value));
      });
    });
  return Object.assign(call, { later });
}

export const openat = declare('openat', 'int', ['int', 'uintptr_t', 'int', 'uint']);
export const openByHandleAt = declare('open_by_handle_at', 'int', ['int', 'uintptr_t', 'int']);
export const nameToHandleAt = declare('name_to_handle_at', 'int', [
  'int',
  'uintptr_t',
  'uintptr_t',
  'uintptr_t',
  'int',
]);
export const dup = declare('dup', 'int', ['int']);
export const close = declare('close', 'int', ['int']);
export const read = declare('read', 'int64_t', ['int', 'uintptr_t', 'size_t']);
export const write = declare('write', 'int64_t', ['int', 'uintptr_t', 'size_t']);
export const poll = declare('poll', 'int', ['uintptr_t', 'uint64_t', 'int']);
export const pread = declare('pread', 'int64_t', ['int', 'uintptr_t', 'size_t', 'int64_t']);
export const pwrite = declare('pwrite', 'int64_t', ['int', 'uintptr_t', 'size_t', 'int64_t']);
export const preadv2 = declare('preadv2', 'int64_t', ['int', 'uintptr_t', 'int', 'int64_t', 'int']);
export const pwritev2 = declare('pwritev2', 'int64_t', ['int', 'uintptr_t', 'int', 'int64_t', 'int']);
export const lseek = declare('lseek', 'int64_t', ['int', 'int64_t', 'int']);
/** The same with an exact result: koffi makes a bigint of what a number can't hold. */
const rawLseek = lib.func('lseek', 'int64_t', ['int', 'int64_t', 'int']);
export function lseekExact(fd: number, offset: Exact, whence: number): Exact {
  const value: Exact = rawLseek(fd, offset, whence);
  return value < 0 ? -koffi.errno() : value;
}
export const getdents64 = declare('getdents64', 'int64_t', ['int', 'uintptr_t', 'size_t']);
export const statx = declare('statx', 'int', ['int', 'uintptr_t', 'int', 'uint', 'uintptr_t']);
export const fstatfs = declare('fstatfs', 'int', ['int', 'uintptr_t']);
export const mkdirat = declare('mkdirat', 'int', ['int', 'uintptr_t', 'uint']);
export const mknodat = declare('mknodat', 'int', ['int', 'uintptr_t', 'uint', 'uint64_t']);
export const symlinkat = declare('symlinkat', 'int', ['uintptr_t', 'int', 'uintptr_t']);
export const readlinkat = declare('readlinkat', 'int64_t', ['int', 'uintptr_t', 'uintptr_t', 'size_t']);
export const unlinkat = declare('unlinkat', 'int', ['int', 'uintptr_t', 'int']);
export const linkat = declare('linkat', 'int', ['int', 'uintptr_t', 'int', 'uintptr_t', 'int']);
export const renameat2 = declare('renameat2', 'int', ['int', 'uintptr_t', 'int', 'uintptr_t', 'uint']);
export const fchownat = declare('fchownat', 'int', ['int', 'uintptr_t', 'uint', 'uint', 'int']);
export const utimensat = declare('utimensat', 'int', ['int', 'uintptr_t', 'uintptr_t', 'int']);
export const truncate = declare('truncate', 'int', ['uintptr_t', 'int64_t']);
export const ftruncate = declare('ftruncate', 'int', ['int', 'int64_t']);
export const fallocate = declare('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']);
export const fsync = declare('fsync', 'int', ['int']);
export const fdatasync = declare('fdatasync', 'int', ['int']);
export const syncfs = declare('syncfs', 'int', ['int']);
export const copyFileRange = declare('copy_file_range', 'int64_t', [
  'int',
  'uintptr_t',
  'int',
  'uintptr_t',
  'size_t',
  'uint',
]);
export const sendfile = declare('sendfile', 'int64_t', ['int', 'int', 'uintptr_t', 'size_t']);
export const splice = declare('splice', 'int64_t', ['int', 'uintptr_t', 'int', 'uintptr_t', 'size_t', 'uint']);
export const getxattr = declare('getxattr', 'int64_t', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t']);
export const setxattr = declare('setxattr', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t', 'int']);
export const listxattr = declare('listxattr', 'int64_t', ['uintptr_t', 'uintptr_t', 'size_t']);
export const removexattr = declare('removexattr', 'int', ['uintptr_t', 'uintptr_t']);
export const flock = declare('flock', 'int', ['int', 'int']);
/** With the commands that take a pointer (F_SETLK and its relatives) or a number: both fit an address. */
export const fcntl = declare('fcntl', 'int', ['int', 'int', 'uintptr_t']);
export const ioctl = declare('ioctl', 'int', ['int', 'uint64_t', 'uintptr_t']);
export const mount = declare('mount', 'int', ['str', 'str', 'str', 'uint64_t', 'str']);
export const umount2 = declare('umount2', 'int', ['str', 'int']);
export const memfdCreate = declare('memfd_create', 'int', ['str', 'uint']);
/** Returns the mapping's address. A failure shows as -errno, since (void *)-1 is read as 2^64 - 1 and corrected here. */
const rawMmap = lib.func('mmap', 'int64_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']);
export function mmap(length: number, protection: number, flags: number, fd: number, offset: number): number {
  const address: number = rawMmap(0, length, protection, flags, fd, offset);
  return address === -1 ? -koffi.errno() : address;
}
export const munmap = declare('munmap', 'int', ['uintptr_t', 'size_t']);
export const msync = declare('msync', 'int', ['uintptr_t', 'size_t', 'int']);
export const mincore = declare('mincore', 'int', ['uintptr_t', 'size_t', 'uintptr_t']);
export const prctl = declare('prctl', 'int', ['int', 'uint64_t', 'uint64_t', 'uint64_t', 'uint64_t']);
export const capget = declare('capget', 'int', ['uintptr_t', 'uintptr_t']);
export const capset = declare('capset', 'int', ['uintptr_t', 'uintptr_t']);
export const umask = declare('umask', 'int', ['uint']);
export const socket = declare('socket', 'int', ['int', 'int', 'int']);
export const sendto = declare('sendto', 'int64_t', ['int', 'uintptr_t', 'size_t', 'int', 'uintptr_t', 'uint']);
export const socketpair = declare('socketpair', 'int', ['int', 'int', 'int', 'uintptr_t']);
export const sendmsg = declare('sendmsg', 'int64_t', ['int', 'uintptr_t', 'int']);
export const recvmsg = declare('recvmsg', 'int64_t', ['int', 'uintptr_t', 'int']);
/** Returns the error number itself, not -1: posix_fadvise(2). */
export const posixFadvise = declare('posix_fadvise', 'int', ['int', 'int64_t', 'int64_t', 'int']);
/** Return the previous id, whatever happens: setfsuid(2). They change this thread only. */
export const setfsuid = declare('setfsuid', 'int', ['uint']);
export const setfsgid = declare('setfsgid', 'int', ['uint']);

/** Calls that the C library of a supported distribution (glibc 2.36) has no function for. */
const syscall = declare('syscall', 'int64_t', ['int64_t', 'int64_t', 'int64_t', 'int64_t', 'int64_t', 'int64_t']);

/** The numbers are the same on every architecture: they were assigned after the tables were unified (Linux 5.1). */
const SYS_open_tree = 428;
const SYS_mount_setattr = 442;
const SYS_cachestat = 451;
const SYS_faccessat2 = 439;
const SYS_fchmodat2 = 452;

export function openTree(dirFd: number, path: number, flags: number): number {
  return syscall(SYS_open_tree, dirFd, path, flags, 0, 0);
}

export function mountSetattr(dirFd: number, path: number, flags: number, attr: number, size: number): number {
  return syscall(SYS_mount_setattr, dirFd, path, flags, attr, size);
}

export function cachestat(fd: number, range: number, result: number): number {
  return syscall(SYS_cachestat, fd, range, result, 0, 0);
}

export function faccessat2(dirFd: number, path: number, mode: number, flags: number): number {
  return syscall(SYS_faccessat2, dirFd, path, mode, flags, 0);
}

export const fchmodat2: NativeCall<[dirFd: number, path: number, mode: number, flags: number]> = Object.assign(
  (dirFd: number, path: number, mode: number, flags: number): number =>
    syscall(SYS_fchmodat2, dirFd, path, mode, flags, 0),
  {
    later: (dirFd: number, path: number, mode: number, flags: number): Promise<number> =>
      syscall.later(SYS_fchmodat2, dirFd, path, mode, flags, 0),
  },
);

/** An ArrayBuffer over memory that was mapped before and is never unmapped while the buffer is in use. */
export function viewOf(address: number, length: number): ArrayBuffer {
  return koffi.view(address, length);
}

/** Watches a descriptor on the event loop. Keep the handle: a collected one ends the watch. */
export interface Readiness {
  close(): void;
}

export function onReadable(fd: number, callback: () => void): Readiness {
  return koffi.node.poll(fd, { readable: true, disconnect: true }, callback);
}

/** The same for room to write. */
export function onWritable(fd: number, callback: () => void): Readiness {
  return koffi.node.poll(fd, { writable: true, disconnect: true }, callback);
}
