/**
 * What concerns a file's extents: holes, preallocation, clones and copies that share, inode flags, btrfs snapshots, and
 * how much of a file is in the page cache.
 */

import { execFileSync } from 'node:child_process';
import {
  AT_FDCWD,
  FICLONE,
  FICLONERANGE,
  FS_IOC_GETFLAGS,
  FS_IOC_SETFLAGS,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
  POSIX_FADV_DONTNEED,
} from '../../src/base/linux.ts';
import type { Exact } from '../../src/base/struct.ts';
import { struct } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, type Name, nameAddress, scratch, structAddress, structAt } from './scratch.ts';

/** linux/falloc.h */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_COLLAPSE_RANGE = 0x08;
export const FALLOC_FL_ZERO_RANGE = 0x10;
export const FALLOC_FL_INSERT_RANGE = 0x20;
export const FALLOC_FL_UNSHARE_RANGE = 0x40;

/** linux/fs.h: flags of an inode, as lsattr(1) shows them. */
export const FS_SYNC_FL = 0x8;
export const FS_IMMUTABLE_FL = 0x10;
export const FS_APPEND_FL = 0x20;
export const FS_NODUMP_FL = 0x40;
export const FS_NOATIME_FL = 0x80;
export const FS_NOCOW_FL = 0x800000;

export function fallocate(fd: number, mode: number, offset: Exact, length: Exact): void {
  check(libc.fallocate(fd, mode, offset, length), 'fallocate', fd);
}

/** Returns how many bytes were copied; both offsets are given, so neither descriptor's own position moves. */
export function copyFileRange(
  fromFd: number,
  fromOffset: Exact,
  toFd: number,
  toOffset: Exact,
  length: number,
): number {
  scratch.view.setBigInt64(structAt, BigInt(fromOffset), true);
  scratch.view.setBigInt64(structAt + 8, BigInt(toOffset), true);
  const count = libc.copyFileRange(fromFd, structAddress, toFd, structAddress + 8, length, 0);
  return check(count, 'copy_file_range', toFd);
}

/** sendfile(2): returns how many bytes were sent to whatever `toFd` is, from an offset of a file. */
export function sendFile(toFd: number, fromFd: number, fromOffset: number, length: number): number {
  scratch.view.setBigInt64(structAt, BigInt(fromOffset), true);
  return check(libc.sendfile(toFd, fromFd, structAddress, length), 'sendfile', toFd);
}

/** splice(2) from a file into a pipe. */
export function spliceOut(fromFd: number, fromOffset: number, pipeFd: number, length: number): number {
  scratch.view.setBigInt64(structAt, BigInt(fromOffset), true);
  return check(libc.splice(fromFd, structAddress, pipeFd, 0, length, 0), 'splice', fromFd);
}

/** splice(2) from a pipe into a file. */
export function spliceIn(pipeFd: number, toFd: number, toOffset: number, length: number): number {
  scratch.view.setBigInt64(structAt, BigInt(toOffset), true);
  return check(libc.splice(pipeFd, 0, toFd, structAddress, length, 0), 'splice', toFd);
}

function withOpen<T>(name: Name, flags: number, mode: number, use: (fd: number) => T): T {
  const fd = check(libc.openat(AT_FDCWD, nameAddress(name), flags | O_CLOEXEC, mode), 'open', name);
  try {
    return use(fd);
  } finally {
    libc.close(fd);
  }
}

/** Makes a new file that shares all extents of another: FICLONE. */
export function reflink(from: Name, to: Name, mode = 0o644): void {
  withOpen(from, O_RDONLY, 0, (fromFd) => {
    withOpen(to, O_WRONLY | O_CREAT | O_EXCL, mode, (toFd) => {
      reflinkDescriptor(fromFd, toFd);
    });
  });
}

export function reflinkDescriptor(fromFd: number, toFd: number): void {
  check(libc.ioctl(toFd, FICLONE, fromFd), 'ioctl(FICLONE)', toFd);
}

/** linux/fs.h */
const cloneRange = struct('file_clone_range', 32, [
  ['src_fd', 'i64'],
  ['src_offset', 'u64'],
  ['src_length', 'u64'],
  ['dest_offset', 'u64'],
]);

/** Shares a range of whole blocks: FICLONERANGE. */
export function reflinkRange(fromFd: number, fromOffset: number, length: number, toFd: number, toOffset: number): void {
  cloneRange.src_fd.set(scratch.view, structAt, fromFd);
  cloneRange.src_offset.set(scratch.view, structAt, fromOffset);
  cloneRange.src_length.set(scratch.view, structAt, length);
  cloneRange.dest_offset.set(scratch.view, structAt, toOffset);
  check(libc.ioctl(toFd, FICLONERANGE, structAddress), 'ioctl(FICLONERANGE)', toFd);
}

/** linux/fs.h */
const FIDEDUPERANGE = 0xc018_9436;

/** linux/fs.h, with one struct file_dedupe_range_info behind it */
const dedupeRangeArgs = struct('file_dedupe_range', 56, [
  ['src_offset', 'u64'],
  ['src_length', 'u64'],
  ['dest_count', 'u16'],
  ['reserved1', 'u16'],
  ['reserved2', 'u32'],
  ['dest_fd', 'i64'],
  ['dest_offset', 'u64'],
  ['bytes_deduped', 'u64'],
  ['status', 'i32'],
  ['reserved', 'u32'],
]);

/** Shares a range of whole blocks that is equal already: FIDEDUPERANGE. Returns how many bytes are shared now. */
export function dedupeRange(
  fromFd: number,
  fromOffset: number,
  length: number,
  toFd: number,
  toOffset: number,
): number {
  const { view } = scratch;
  const args = dedupeRangeArgs;
  args.src_offset.set(view, structAt, fromOffset);
  args.src_length.set(view, structAt, length);
  args.dest_count.set(view, structAt, 1);
  args.reserved1.set(view, structAt, 0);
  args.reserved2.set(view, structAt, 0);
  args.dest_fd.set(view, structAt, toFd);
  args.dest_offset.set(view, structAt, toOffset);
  args.bytes_deduped.set(view, structAt, 0);
  args.status.set(view, structAt, 0);
  args.reserved.set(view, structAt, 0);
  check(libc.ioctl(fromFd, FIDEDUPERANGE, structAddress), 'ioctl(FIDEDUPERANGE)', fromFd);
  check(Math.min(0, args.status.get(view, structAt)), 'dedupe', toFd);
  return args.bytes_deduped.get(view, structAt);
}

export function makeSubvolume(dir: string): void {
  execFileSync('btrfs', ['-q', 'subvolume', 'create', dir]);
}

export function snapshot(subvolume: string, dir: string, options: { readOnly?: boolean } = {}): void {
  execFileSync('btrfs', ['-q', 'subvolume', 'snapshot', ...(options.readOnly ? ['-r'] : []), subvolume, dir]);
}

/** FS_*_FL bits of a regular file or a directory. */
export function getFlags(name: Name): number {
  return withOpen(name, O_RDONLY, 0, (fd) => {
    scratch.view.setUint32(structAt, 0, true);
    check(libc.ioctl(fd, FS_IOC_GETFLAGS, structAddress), 'ioctl(FS_IOC_GETFLAGS)', name);
    return scratch.view.getUint32(structAt, true);
  });
}

export function setFlags(name: Name, flags: number): void {
  withOpen(name, O_RDONLY, 0, (fd) => {
    scratch.view.setUint32(structAt, flags, true);
    check(libc.ioctl(fd, FS_IOC_SETFLAGS, structAddress), 'ioctl(FS_IOC_SETFLAGS)', name);
  });
}

/** linux/mman.h; the range that cachestat(2) takes lies in front of its result here. */
const cachestatRange = struct('cachestat_range', 16, [
  ['off', 'u64'],
  ['len', 'u64'],
]);
const cachestat = struct('cachestat', 40, [
  ['nr_cache', 'u64'],
  ['nr_dirty', 'u64'],
  ['nr_writeback', 'u64'],
  ['nr_evicted', 'u64'],
  ['nr_recently_evicted', 'u64'],
]);

/** How many pages of the file are in its inode's page cache. */
export function residentPages(name: Name): number {
  return withOpen(name, O_RDONLY, 0, (fd) => {
    cachestatRange.off.set(scratch.view, structAt, 0);
    // 0 means: to the end of the file.
    cachestatRange.len.set(scratch.view, structAt, 0);
    const resultAt = structAt + cachestatRange.structBytes;
    check(libc.cachestat(fd, structAddress, structAddress + cachestatRange.structBytes), 'cachestat', name);
    return cachestat.nr_cache.get(scratch.view, resultAt);
  });
}

/** Writes the file back and drops its clean pages from the page cache. */
export function dropPages(name: Name): void {
  withOpen(name, O_RDONLY, 0, (fd) => {
    check(libc.fsync(fd), 'fsync', name);
    check(-libc.posixFadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 'posix_fadvise', name);
  });
}
