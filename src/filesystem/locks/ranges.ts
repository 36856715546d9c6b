/** The ranges of a file that one owner has locked: sorted, apart from one another, and merged where they touch (fs/locks.c). */

import { F_RDLCK, F_UNLCK, type F_WRLCK } from '../../base/linux.ts';

/** What a lock that reaches to the end of the file, however far that moves, ends at: OFFSET_MAX. */
export const TO_THE_END = 2n ** 63n - 1n;

export type LockType = typeof F_RDLCK | typeof F_WRLCK;

/** Bytes from `start` to `end`, both included. */
export class Range {
  readonly start: bigint;
  readonly end: bigint;
  readonly type: LockType;
  /** Where it is written down for a later server; -1 while it isn't. */
  row = -1;

  constructor(start: bigint, end: bigint, type: LockType) {
    this.start = start;
    this.end = end;
    this.type = type;
  }
}

/** The ranges with the bytes from `start` to `end` locked anew, or unlocked. What doesn't change stays the same object. */
export function withRange(
  ranges: readonly Range[],
  start: bigint,
  end: bigint,
  type: LockType | typeof F_UNLCK,
): Range[] {
  const kept: Range[] = [];
  let from = start;
  let to = end;
  let same: Range | undefined;
  for (const range of ranges) {
    if (range.type === type) {
      if (range.end < start - 1n || range.start > end + 1n) {
        kept.push(range);
        continue;
      }
      if (range.start <= from && range.end >= to) same = range;
      if (range.start < from) from = range.start;
      if (range.end > to) to = range.end;
      continue;
    }
    if (range.end < start || range.start > end) {
      kept.push(range);
      continue;
    }
    if (range.start < start) kept.push(new Range(range.start, start - 1n, range.type));
    if (range.end > end) kept.push(new Range(end + 1n, range.end, range.type));
  }
  if (type !== F_UNLCK) kept.push(same?.start === from && same.end === to ? same : new Range(from, to, type));
  return kept.sort((one, other) => (one.start < other.start ? -1 : 1));
}

/** The first of the ranges that keeps another owner from locking these bytes. */
export function conflictIn(ranges: readonly Range[], start: bigint, end: bigint, type: LockType): Range | undefined {
  return ranges.find(
    (range) => range.start <= end && range.end >= start && (type !== F_RDLCK || range.type !== F_RDLCK),
  );
}
