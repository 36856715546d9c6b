/** statx(2) and utimensat(2), with times as nanoseconds, which node:fs rounds when it sets them. */

import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  STATX_BASIC_STATS,
  STATX_BTIME,
  STATX_SUBVOL,
} from '../../src/base/linux.ts';
import { struct } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, type Name, nameAddress, scratch, structAddress, structAt } from './scratch.ts';

/** linux/stat.h: struct statx, as far as it is read here; the rest is declared as padding. */
const layout = struct('statx', 256, [
  ['stx_mask', 'u32'],
  ['stx_blksize', 'u32'],
  ['stx_attributes', 'u64'],
  ['stx_nlink', 'u32'],
  ['stx_uid', 'u32'],
  ['stx_gid', 'u32'],
  ['stx_mode', 'u16'],
  ['_mode', 'u16'],
  ['stx_ino', 'u64'],
  ['stx_size', 'u64'],
  ['stx_blocks', 'u64'],
  ['stx_attributes_mask', 'u64'],
  ['stx_atime_sec', 'i64'],
  ['stx_atime_nsec', 'u32'],
  ['_atime', 'u32'],
  ['stx_btime_sec', 'i64'],
  ['stx_btime_nsec', 'u32'],
  ['_btime', 'u32'],
  ['stx_ctime_sec', 'i64'],
  ['stx_ctime_nsec', 'u32'],
  ['_ctime', 'u32'],
  ['stx_mtime_sec', 'i64'],
  ['stx_mtime_nsec', 'u32'],
  ['_mtime', 'u32'],
  ['stx_rdev_major', 'u32'],
  ['stx_rdev_minor', 'u32'],
  ['stx_dev_major', 'u32'],
  ['stx_dev_minor', 'u32'],
  ['stx_mnt_id', 'u64'],
  ['stx_dio_mem_align', 'u32'],
  ['stx_dio_offset_align', 'u32'],
  ['stx_subvol', 'u64'],
  ['_96', 'u64'],
  ['_104', 'u64'],
  ['_112', 'u64'],
  ['_120', 'u64'],
  ['_128', 'u64'],
  ['_136', 'u64'],
  ['_144', 'u64'],
  ['_152', 'u64'],
  ['_160', 'u64'],
  ['_168', 'u64'],
  ['_176', 'u64'],
]);

export const STATX_ATTR_IMMUTABLE = 0x10;
export const STATX_ATTR_APPEND = 0x20;

export interface Status {
  /** Which of the fields the filesystem filled in: STATX_* bits. */
  readonly mask: number;
  readonly attributes: number;
  /** Type and permission bits. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** A big integer: files may be larger than 2^53 bytes. */
  readonly exactSize: bigint;
  /** In units of 512 bytes. */
  readonly blocks: number;
  /** A big integer: numbers that are unique over subvolumes use all 64 bits. */
  readonly ino: bigint;
  readonly device: string;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** 0 where the filesystem has no birth time. */
  readonly btimeNs: bigint;
  readonly subvolume: bigint;
}

const NS_PER_SECOND = 1_000_000_000n;

function timeAt(kind: 'atime' | 'btime' | 'ctime' | 'mtime'): bigint {
  const seconds = scratch.view.getBigInt64(structAt + layout[`stx_${kind}_sec`].offset, true);
  const ns = layout[`stx_${kind}_nsec`].get(scratch.view, structAt);
  return seconds * NS_PER_SECOND + BigInt(ns);
}

function statxOf(dirFd: number, name: Name, flags: number): Status {
  const mask = STATX_BASIC_STATS | STATX_BTIME | STATX_SUBVOL;
  check(libc.statx(dirFd, nameAddress(name), flags, mask, structAddress), 'statx', name === '' ? dirFd : name);
  const { view } = scratch;
  return {
    mask: layout.stx_mask.get(view, structAt),
    attributes: layout.stx_attributes.get(view, structAt),
    mode: layout.stx_mode.get(view, structAt),
    nlink: layout.stx_nlink.get(view, structAt),
    uid: layout.stx_uid.get(view, structAt),
    gid: layout.stx_gid.get(view, structAt),
    size: layout.stx_size.get(view, structAt),
    exactSize: view.getBigUint64(structAt + layout.stx_size.offset, true),
    blocks: layout.stx_blocks.get(view, structAt),
    ino: view.getBigUint64(structAt + layout.stx_ino.offset, true),
    device: `${layout.stx_dev_major.get(view, structAt)}:${layout.stx_dev_minor.get(view, structAt)}`,
    rdevMajor: layout.stx_rdev_major.get(view, structAt),
    rdevMinor: layout.stx_rdev_minor.get(view, structAt),
    atimeNs: timeAt('atime'),
    mtimeNs: timeAt('mtime'),
    ctimeNs: timeAt('ctime'),
    btimeNs: timeAt('btime'),
    subvolume: view.getBigUint64(structAt + layout.stx_subvol.offset, true),
  };
}

/** Follows a symbolic link. */
export function stat(name: Name): Status {
  return statxOf(AT_FDCWD, name, 0);
}

export function lstat(name: Name): Status {
  return statxOf(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW);
}

export function fstat(fd: number): Status {
  return statxOf(fd, '', AT_EMPTY_PATH);
}

/** Nanoseconds since 1970, or what the two special values of utimensat(2) mean. */
export type FileTime = bigint | 'now' | 'omit';

const UTIME_NOW = 0x3fffffffn;
const UTIME_OMIT = 0x3ffffffen;

/** Times before 1970 have negative seconds and non-negative nanoseconds. */
function putTime(at: number, time: FileTime): void {
  const ns = typeof time === 'bigint' ? ((time % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND : 0n;
  const seconds = typeof time === 'bigint' ? (time - ns) / NS_PER_SECOND : 0n;
  const special = time === 'now' ? UTIME_NOW : time === 'omit' ? UTIME_OMIT : ns;
  scratch.view.setBigInt64(at, seconds, true);
  scratch.view.setBigInt64(at + 8, special, true);
}

export function setTimes(name: Name, atime: FileTime, mtime: FileTime, flags = 0): void {
  putTime(structAt, atime);
  putTime(structAt + 16, mtime);
  check(libc.utimensat(AT_FDCWD, nameAddress(name), structAddress, flags), 'utimensat', name);
}

/** futimens(3). The C library refuses a null name (EINVAL), so it is an empty one here. */
export function setTimesOfDescriptor(fd: number, atime: FileTime, mtime: FileTime): void {
  putTime(structAt, atime);
  putTime(structAt + 16, mtime);
  check(libc.utimensat(fd, nameAddress(''), structAddress, AT_EMPTY_PATH), 'futimens', fd);
}
