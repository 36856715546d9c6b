/** Whether somebody has a file open for writing. */

import * as c from '../../base/linux.ts';
import type { SourceCalls } from '../calls.ts';

/**
 * Whether anybody has the file open for writing, or had it and left a map through which it is still written, or a direct write
 * that is on its way: then no read lease can be had of it (fcntl(2), F_SETLEASE; fs/locks.c: check_conflicting_open). `fd` is open
 * for reading. Who opens the file for writing in the moment that the lease is held waits, or gets EWOULDBLOCK if he asked for it.
 */
export function isWrittenElsewhere(calls: Pick<SourceCalls, 'fcntl'>, fd: number): boolean {
  if (calls.fcntl(fd, c.F_SETLEASE, c.F_RDLCK) < 0) return true;
  calls.fcntl(fd, c.F_SETLEASE, c.F_UNLCK);
  return false;
}
