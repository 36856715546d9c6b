/**
 * Looks at what targets hold, window by window: what is near in files is near in packs, so a few windows answer for all pieces of
 * a file. A window is what the target held at some moment since `forget`.
 */

import { PLAIN, RowTable } from '../extents/extentmap.ts';
import { PRIVATE, type RangeReader } from '../extents/ranges.ts';
import type { Packs } from './packs.ts';

/** Extents that a window has, if it isn't for a piece that has more. */
const WINDOW_EXTENTS = 64;
/** The most extents that one piece of a target may have. */
const PIECE_EXTENTS = 1024;
/** How many windows of targets are kept at a time. */
const HELD_WINDOWS = 8;

/** Columns of looks: byte offset and length, address and slice. */
export const LOOK_AT = 0;
export const LOOK_BYTES = 1;
export const LOOK_ADDRESS = 2;
export const LOOK_SLICE = 3;

/** What a part of a target was found to hold. */
export interface HeldWindow {
  target: number;
  from: number;
  to: number;
  readonly rows: RowTable;
}

interface TargetWindowsOptions {
  readonly ranges: RangeReader;
  readonly packs: Packs;
  readonly filesystem: 'btrfs' | 'xfs';
  readonly blockBytes: number;
}

export class TargetWindows {
  readonly #o: TargetWindowsOptions;
  /** By turns. */
  readonly #held = Array.from({ length: HELD_WINDOWS }, () => ({ target: 0, from: 0, to: 0, rows: new RowTable() }));
  #nextHeld = 0;

  constructor(options: TargetWindowsOptions) {
    this.#o = options;
  }

  forget(): void {
    for (const held of this.#held) held.target = 0;
  }

  /** Whether a target holds exactly these bytes at the position, now. */
  holds(position: number, blocks: number, address: number, slice: number): boolean {
    const { packs, blockBytes } = this.#o;
    const held = this.at(position, blocks);
    if (held === undefined) return false;
    const { rows } = held;
    const from = packs.offset(position);
    const row = rowAt(rows, from);
    if (row < 0 || from + blocks * blockBytes > rows.get(row, LOOK_AT) + rows.get(row, LOOK_BYTES)) return false;
    const into = from - rows.get(row, LOOK_AT);
    return isPartOf(rows.get(row, LOOK_ADDRESS), rows.get(row, LOOK_SLICE), into, address, slice);
  }

  /**
   * A window of a target that has the blocks from a position on, or undefined. What is near in files is near in packs, so a few
   * windows answer for all pieces of a file's window. Each is what the target held at some moment since `resolve` began.
   */
  at(position: number, blocks: number): HeldWindow | undefined {
    const { packs, ranges, filesystem, blockBytes } = this.#o;
    const target = packs.target(position);
    const from = packs.offset(position);
    const to = from + blocks * blockBytes;
    for (const held of this.#held) {
      if (held.target === target && from >= held.from && to <= held.to) return held;
    }
    const fd = packs.descriptor(target);
    if (fd < 0) return;
    const look = {
      filesystem,
      inode: packs.inode(target),
      from,
      to: packs.bytes(target),
      sync: false,
      any: true,
    } as const;
    let read = ranges.read(fd, { ...look, limit: WINDOW_EXTENTS });
    // A piece may have been put together from small ones.
    if (read === 0 && ranges.end < to) read = ranges.read(fd, { ...look, limit: PIECE_EXTENTS });
    if (read < 0 || ranges.end < to) return;
    const held = this.#held[this.#nextHeld++ % HELD_WINDOWS];
    if (held === undefined) return;
    copyRows(ranges, held.rows);
    held.target = target;
    held.from = from;
    held.to = ranges.end;
    return held;
  }
}

export function copyRows(from: RangeReader, to: RowTable): void {
  to.clear();
  for (let row = 0; row < from.count; row++) {
    to.push(from.offset(row), from.length(row), from.address(row), from.slice(row));
  }
}

/** Whether a row's bytes from `into` on are those of an identity. */
export function isPartOf(rowAddress: number, rowSlice: number, into: number, address: number, slice: number): boolean {
  if (rowAddress === PRIVATE) return false;
  if (slice === PLAIN) return rowSlice === PLAIN && rowAddress + into === address;
  return rowSlice !== PLAIN && rowAddress === address && rowSlice + into === slice;
}

/** The row that a byte offset lies in, or -1. */
export function rowAt(rows: RowTable, offset: number): number {
  let low = 0;
  let high = rows.count - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const start = rows.get(middle, LOOK_AT);
    if (start > offset) high = middle - 1;
    else if (start + rows.get(middle, LOOK_BYTES) <= offset) low = middle + 1;
    else return middle;
  }
  return -1;
}
