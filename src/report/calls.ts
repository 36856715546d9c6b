/** What a report asks of the kernel, as functions that `sys` fits: zero or more, or a negated errno. */

import type { Address } from '../base/memory.ts';
import type { ExtentCalls } from '../extents/calls.ts';
import type { ResidencyCalls } from '../pagecache/residency.ts';

export interface ReportCalls extends ExtentCalls, ResidencyCalls {
  openat(dirFd: number, path: Address, flags: number, mode: number): number;
  close(fd: number): number;
  getdents64(fd: number, buffer: Address, count: number): number;
  statx(dirFd: number, path: Address, flags: number, mask: number, result: Address): number;
  fstatfs(fd: number, result: Address): number;
}

/** Offsets of fields of struct statx and struct statfs (statx(2), statfs(2)). */
export const STATX = { mode: 28, ino: 32, size: 40, ctime: 96, mtime: 112, devMajor: 136, devMinor: 140 } as const;
export const STATX_BYTES = 256;
export const STATFS = { type: 0 } as const;

/** The device of a struct statx at an offset, as major * 2^32 + minor. */
export function deviceOf(view: DataView, at: number): number {
  return view.getUint32(at + STATX.devMajor, true) * 2 ** 32 + view.getUint32(at + STATX.devMinor, true);
}
