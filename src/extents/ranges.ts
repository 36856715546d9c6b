/**
 * What a range of an open file is made of, a limited number of extents at a time: for large files, which are looked at window by
 * window. What can't be proven to be the bytes of a shared extent is PRIVATE, and the rest is identified as exactly as in
 * an extent map (`extentmap.ts`).
 */

import type { Memory } from '../base/memory.ts';
import { type ExtentCalls, INCONSISTENT } from './calls.ts';
import { PLAIN, RowTable } from './extentmap.ts';
import {
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNWRITTEN,
  FiemapCursor,
} from './fiemap.ts';
import {
  BTRFS_FILE_EXTENT_INLINE,
  BTRFS_FILE_EXTENT_PREALLOC,
  ExtentItemCursor,
  TREE_SEARCH_MEMORY_BYTES,
} from './treesearch.ts';

/** The address of bytes that aren't, or can't be proven to be, those of a shared extent. */
export const PRIVATE = -1;

export interface RangeOptions {
  readonly filesystem: 'btrfs' | 'xfs';
  /** The file's inode number in its subvolume. */
  readonly inode: number;
  /** The range in bytes, `to` exclusive. */
  readonly from: number;
  readonly to: number;
  /** How many extents are looked at at most, above 0. */
  readonly limit: number;
  /** Write dirty pages back first. */
  readonly sync: boolean;
  /** Extents that aren't shared are identified as well: for files of ours. */
  readonly any: boolean;
}

/** The scratch memory that a RangeReader needs at least. */
export const RANGE_READER_MEMORY_BYTES = TREE_SEARCH_MEMORY_BYTES;

/** The flags that leave an extent's bytes identified by its address. */
const HARMLESS =
  FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED | FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_ENCODED;
/** Items of compressed extents looked at for one answer of FIEMAP: none has more than 128 KiB. */
const MAX_ITEMS = 65_536;

/** Columns of what FIEMAP reported, and of the answer. */
const OFFSET = 0;
const LENGTH = 1;
const ADDRESS = 2;
const FLAGS = 3;
const SLICE = 3;

/**
 * Reads ranges: after `read` returned 0 the rows describe the bytes from..end. Rows are in order and don't overlap; what has no
 * row, a hole or an unwritten extent, reads as zeros. Rows that touch are one row when the second goes on where the first ends.
 */
export class RangeReader {
  /** Up to where the rows tell everything: the range's end, or less when there are more extents than the limit. */
  end = 0;
  readonly #fiemap: FiemapCursor;
  readonly #items: ExtentItemCursor;
  readonly #reported = new RowTable();
  readonly #rows = new RowTable();

  constructor(calls: ExtentCalls, scratch: Memory) {
    this.#fiemap = new FiemapCursor(calls, scratch);
    this.#items = new ExtentItemCursor(calls, scratch);
  }

  get count(): number {
    return this.#rows.count;
  }

  offset(row: number): number {
    return this.#rows.get(row, OFFSET);
  }

  length(row: number): number {
    return this.#rows.get(row, LENGTH);
  }

  /** The filesystem address of the row's first byte, that of the whole extent for compressed ones, or PRIVATE. */
  address(row: number): number {
    return this.#rows.get(row, ADDRESS);
  }

  /** Where in the decoded extent the row begins, or PLAIN. */
  slice(row: number): number {
    return this.#rows.get(row, SLICE);
  }

  /** Returns 0, or a negated errno or INCONSISTENT: then there are no rows, and `end` is the range's start. */
  read(fd: number, options: RangeOptions): number {
    const { from, to, limit } = options;
    const reported = this.#reported;
    const cursor = this.#fiemap;
    this.#rows.clear();
    reported.clear();
    this.end = from;
    if (options.any && options.filesystem === 'btrfs') return this.#readItems(fd, options);
    let encoded = false;
    let end = to;
    // One extent more than is used tells whether there is more.
    cursor.start(fd, { from, end: to, sync: options.sync, limit: limit + 1, room: limit + 1 });
    while (cursor.next()) {
      if (reported.count === limit) {
        end = Math.min(to, cursor.logical);
        break;
      }
      reported.push(cursor.logical, cursor.length, cursor.physical, cursor.flags);
      if (cursor.flags & FIEMAP_EXTENT_ENCODED) encoded = true;
    }
    if (cursor.error !== 0) return cursor.error;
    const failed = encoded ? this.#addItems(fd, options, end) : this.#addReported(options, end);
    if (failed !== 0) {
      this.#rows.clear();
      return failed;
    }
    this.end = end;
    return 0;
  }

  /**
   * Reads a range without asking what is shared, which on btrfs is most of FIEMAP's work: the items of the file's tree say the rest.
   * One look by FIEMAP, at the first block, tells where the item begins that the range begins in.
   */
  #readItems(fd: number, options: RangeOptions): number {
    const { from, to, limit } = options;
    const cursor = this.#fiemap;
    cursor.start(fd, { from, end: Math.min(to, from + 1), sync: options.sync, limit: 2, room: 2 });
    const start = cursor.next() ? Math.min(from, cursor.logical) : from;
    if (cursor.error !== 0) return cursor.error;
    const items = this.#items;
    let end = to;
    items.start(fd, options.inode, to, MAX_ITEMS, start);
    for (let seen = 0; items.next(); seen++) {
      if (seen === limit) {
        end = items.offset;
        break;
      }
      const inline = items.type === BTRFS_FILE_EXTENT_INLINE;
      if (items.type === BTRFS_FILE_EXTENT_PREALLOC || (!inline && items.diskBytenr === 0)) continue;
      const exact = !inline && items.encryption === 0 && items.otherEncoding === 0;
      const plain = items.compression === 0;
      const address = plain ? items.diskBytenr + items.offsetInExtent : items.diskBytenr;
      const slice = plain ? PLAIN : items.offsetInExtent;
      this.#add(from, to, items.offset, items.length, exact ? address : PRIVATE, slice);
    }
    if (items.error !== 0) {
      this.#rows.clear();
      return items.error;
    }
    this.end = end;
    return 0;
  }

  /** Builds the rows from what FIEMAP reported, when nothing is encoded. */
  #addReported(options: RangeOptions, end: number): number {
    const reported = this.#reported;
    for (let row = 0; row < reported.count; row++) {
      const flags = reported.get(row, FLAGS);
      if ((flags & ~HARMLESS) === 0 && (flags & FIEMAP_EXTENT_UNWRITTEN) !== 0) continue;
      const address = this.#isIdentified(flags, options.any) ? reported.get(row, ADDRESS) : PRIVATE;
      this.#add(options.from, end, reported.get(row, OFFSET), reported.get(row, LENGTH), address, PLAIN);
    }
    return 0;
  }

  /**
   * Builds the rows from the items of the file's tree, when something is encoded: see `identify.ts`, which explains how items
   * and FIEMAP's answer belong together. Data that they don't agree about is PRIVATE.
   */
  #addItems(fd: number, options: RangeOptions, end: number): number {
    if (options.filesystem !== 'btrfs') return INCONSISTENT;
    const reported = this.#reported;
    const items = this.#items;
    const start = Math.min(options.from, reported.get(0, OFFSET));
    let row = 0;
    let done = options.from;
    items.start(fd, options.inode, end, MAX_ITEMS, start);
    while (items.next()) {
      if (
        items.type === BTRFS_FILE_EXTENT_PREALLOC ||
        (items.type !== BTRFS_FILE_EXTENT_INLINE && items.diskBytenr === 0)
      ) {
        continue;
      }
      const { offset, length } = items;
      while (row < reported.count && reported.get(row, OFFSET) + reported.get(row, LENGTH) <= offset) {
        done = this.#addUnknown(options, end, row, done);
        row++;
      }
      if (row < reported.count && offset > done && reported.get(row, OFFSET) < offset) {
        this.#addPrivate(options, end, Math.max(done, reported.get(row, OFFSET)), offset);
      }
      const exact = row < reported.count && this.#agrees(row, options.any);
      const plain = items.compression === 0;
      const address = plain ? items.diskBytenr + items.offsetInExtent : items.diskBytenr;
      this.#add(options.from, end, offset, length, exact ? address : PRIVATE, plain ? PLAIN : items.offsetInExtent);
      done = Math.max(done, offset + length);
    }
    if (items.error !== 0) return items.error;
    for (; row < reported.count; row++) done = this.#addUnknown(options, end, row, done);
    return 0;
  }

  /** Whether the item at hand is what FIEMAP reported there, and identifies its bytes. */
  #agrees(row: number, any: boolean): boolean {
    const items = this.#items;
    const reported = this.#reported;
    const flags = reported.get(row, FLAGS);
    if (items.type === BTRFS_FILE_EXTENT_INLINE || items.encryption !== 0 || items.otherEncoding !== 0) return false;
    if (!this.#isIdentified(flags, any) || (flags & FIEMAP_EXTENT_UNWRITTEN) !== 0) return false;
    const into = items.offset - reported.get(row, OFFSET);
    if (into < 0 || into + items.length > reported.get(row, LENGTH)) return false;
    const plain = items.compression === 0;
    if (plain === ((flags & FIEMAP_EXTENT_ENCODED) !== 0)) return false;
    return (plain ? items.diskBytenr + items.offsetInExtent : items.diskBytenr) === reported.get(row, ADDRESS) + into;
  }

  /** What FIEMAP reported as data and no item was found for is PRIVATE: from `done` to the end of the reported row. */
  #addUnknown(options: RangeOptions, end: number, row: number, done: number): number {
    const offset = this.#reported.get(row, OFFSET);
    const stop = offset + this.#reported.get(row, LENGTH);
    if ((this.#reported.get(row, FLAGS) & FIEMAP_EXTENT_UNWRITTEN) === 0) {
      this.#addPrivate(options, end, Math.max(done, offset), stop);
    }
    return Math.max(done, stop);
  }

  #addPrivate(options: RangeOptions, end: number, from: number, to: number): void {
    if (to > from) this.#add(options.from, end, from, to - from, PRIVATE, PLAIN);
  }

  #isIdentified(flags: number, any: boolean): boolean {
    return (flags & ~HARMLESS) === 0 && (any || (flags & FIEMAP_EXTENT_SHARED) !== 0);
  }

  /** Appends the part of a row that lies in from..end. */
  #add(from: number, end: number, offset: number, length: number, address: number, slice: number): void {
    const start = Math.max(from, offset);
    const stop = Math.min(end, offset + length);
    if (stop <= start) return;
    const into = start - offset;
    const rows = this.#rows;
    const first = address !== PRIVATE && slice === PLAIN ? address + into : address;
    const piece = address !== PRIVATE && slice !== PLAIN ? slice + into : PLAIN;
    const last = rows.count - 1;
    if (last >= 0 && rows.get(last, OFFSET) + rows.get(last, LENGTH) === start && this.#goesOn(last, first, piece)) {
      rows.set(last, LENGTH, rows.get(last, LENGTH) + (stop - start));
    } else {
      rows.push(start, stop - start, first, piece);
    }
  }

  #goesOn(row: number, address: number, slice: number): boolean {
    const rows = this.#rows;
    const before = rows.get(row, ADDRESS);
    const length = rows.get(row, LENGTH);
    if (address === PRIVATE || before === PRIVATE) return address === before;
    const sliceBefore = rows.get(row, SLICE);
    if (slice === PLAIN) return sliceBefore === PLAIN && before + length === address;
    return sliceBefore !== PLAIN && before === address && sliceBefore + length === slice;
  }
}
