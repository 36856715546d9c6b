/**
 * Reads and writes of all bytes of a request. The kernel takes an answer that is short for the end of the file when it reads
 * pages, and for a success when it writes those of a map: so one call that does less than it is asked for must not end either.
 */

import type { Address } from '../../base/memory.ts';
import { addExact, type Exact } from '../../base/struct.ts';
import type { SourceCalls } from '../calls.ts';

/** Returns the number of bytes up to the end of the file, `size` at most, or a negated errno. */
export function readAll(calls: SourceCalls, fd: number, to: Address, size: number, at: Exact): number {
  let done = 0;
  while (done < size) {
    const result = calls.pread(fd, to + done, size - done, addExact(at, done));
    if (result < 0) return result;
    if (result === 0) break;
    done += result;
  }
  return done;
}

/** Returns the number of bytes written, or the error where there are none, or where all are wanted or an error: `whole`. */
export function writeAll(
  calls: SourceCalls,
  fd: number,
  from: Address,
  size: number,
  at: Exact,
  whole: boolean,
): number {
  let done = 0;
  while (done < size) {
    const result = calls.pwrite(fd, from + done, size - done, addExact(at, done));
    if (result <= 0) return done > 0 && !whole ? done : result;
    done += result;
  }
  return done;
}
