/** Locks: flock(2), the record locks of fcntl(2), of a process or of an open file description, and leases. */

import { struct } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, scratch, structAddress, structAt } from './scratch.ts';

export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;

const F_GETLK = 5;
const F_SETLK = 6;
const F_SETLKW = 7;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_SETLEASE = 1024;
const F_GETLEASE = 1025;

/** asm-generic/fcntl.h: struct flock of a 64-bit kernel. */
const layout = struct('flock', 32, [
  ['l_type', 'u16'],
  ['l_whence', 'u16'],
  ['_4', 'u32'],
  ['l_start', 'i64'],
  ['l_len', 'i64'],
  ['l_pid', 'i32'],
  ['_28', 'u32'],
]);

/** Waits unless `operation` has LOCK_NB. */
export function flock(fd: number, operation: number): void {
  check(libc.flock(fd, operation), 'flock', fd);
}

function putLock(type: number, start: number, length: number): void {
  layout.l_type.set(scratch.view, structAt, type);
  layout.l_whence.set(scratch.view, structAt, 0);
  layout.l_start.set(scratch.view, structAt, start);
  layout.l_len.set(scratch.view, structAt, length);
  // Locks of an open file description demand 0 here.
  layout.l_pid.set(scratch.view, structAt, 0);
}

/** Sets or removes a process's lock; `length` 0 reaches to the end of the file, however far that moves. */
export function lockRecord(fd: number, type: number, start: number, length: number): void {
  putLock(type, start, length);
  check(libc.fcntl(fd, F_SETLK, structAddress), 'fcntl(F_SETLK)', fd);
}

/** The same, but waits until it can be had. */
export function lockRecordWaiting(fd: number, type: number, start: number, length: number): void {
  putLock(type, start, length);
  check(libc.fcntl(fd, F_SETLKW, structAddress), 'fcntl(F_SETLKW)', fd);
}

/** The same, for a lock that belongs to the open file description and not to the process. */
export function lockDescription(fd: number, type: number, start: number, length: number): void {
  putLock(type, start, length);
  check(libc.fcntl(fd, F_OFD_SETLK, structAddress), 'fcntl(F_OFD_SETLK)', fd);
}

export interface RecordLock {
  readonly type: number;
  readonly start: number;
  readonly length: number;
  /** -1 for a lock of an open file description. */
  readonly pid: number;
}

function conflicting(fd: number, command: number, type: number, start: number, length: number): RecordLock | undefined {
  putLock(type, start, length);
  check(libc.fcntl(fd, command, structAddress), 'fcntl(F_GETLK)', fd);
  if (layout.l_type.get(scratch.view, structAt) === F_UNLCK) return undefined;
  return {
    type: layout.l_type.get(scratch.view, structAt),
    start: layout.l_start.get(scratch.view, structAt),
    length: layout.l_len.get(scratch.view, structAt),
    pid: layout.l_pid.get(scratch.view, structAt),
  };
}

/** The lock that stands in the way of the one described, if any. */
export function conflictingRecord(fd: number, type: number, start: number, length: number): RecordLock | undefined {
  return conflicting(fd, F_GETLK, type, start, length);
}

export function conflictingDescription(
  fd: number,
  type: number,
  start: number,
  length: number,
): RecordLock | undefined {
  return conflicting(fd, F_OFD_GETLK, type, start, length);
}

/** Takes a lease, or gives it back or down (fcntl(2), F_SETLEASE); EAGAIN when others have the file open in the way of it. */
export function setLease(fd: number, type: number): void {
  check(libc.fcntl(fd, F_SETLEASE, type), 'fcntl(F_SETLEASE)', fd);
}

/** Which lease there is; while it is being broken, what it is to become. */
export function leaseOf(fd: number): number {
  return check(libc.fcntl(fd, F_GETLEASE, 0), 'fcntl(F_GETLEASE)', fd);
}

/** Whether a request for a lock that doesn't wait is granted; rejects when it fails for another reason than somebody's lock. */
export async function isGranted(request: () => unknown): Promise<boolean> {
  try {
    await request();
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return false;
    throw error;
  }
}
