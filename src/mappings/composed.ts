/**
 * The maps of composed files: where each block of an open file is read from.
 *
 *     UNKNOWN   not looked at yet
 *     OWN       the file itself: private, unprovable, or written through the mount since it was opened
 *     ZERO      a hole or an unwritten extent: reads as zeros
 *     position  a block of a target (`packs.ts`) that holds the same extent
 *
 *     UNKNOWN ──resolve──► OWN, ZERO or a position ──written, or the file was changed around the mount──► OWN (until it is closed)
 *
 * Why a position has the file's bytes: the target holds a reference on the extent, so it can't be freed or overwritten. The file's
 * map is read, then the target's, then the file's again. If all three name the same extent, target and file have the same
 * bytes, and what is written to the file later goes elsewhere on disk. Written through the mount, the range becomes OWN
 * first. The index only says where to look.
 *
 * Dirty pages aren't in any map: who makes a composed file sees to it that it has none, and that nobody else can make any
 * through a map of the file's own pages (`filesystem/composing.ts`).
 */

import { EDQUOT, ENOSPC, errnoName } from '../base/errno.ts';
import { END, FIRST_LINEAR, IntervalMap, NONE } from '../base/intervalmap.ts';
import { type ExtentMap, PLAIN, RowTable } from '../extents/extentmap.ts';
import { PRIVATE, type RangeOptions, type RangeReader } from '../extents/ranges.ts';
import type { ExtentIndex } from './extentindex.ts';
import type { Packs } from './packs.ts';
import {
  copyRows,
  isPartOf,
  LOOK_ADDRESS,
  LOOK_AT,
  LOOK_BYTES,
  LOOK_SLICE,
  rowAt,
  TargetWindows,
} from './targetwindows.ts';

export const UNKNOWN = NONE;
export const OWN_BLOCKS = 1;
export const ZERO_BLOCKS = 2;

/** A window begins at a multiple of so many blocks, so that reads in random order don't cut extents into small pieces. */
const WINDOW_ALIGNMENT = 64;
/** The most extents that one look resolves. */
const WINDOW_EXTENTS = 64;
/** How long a window is at most: FIEMAP of btrfs puts extents that touch together, and looks up who shares each of them. */
const WINDOW_BYTES = 4 << 20;
const PAGE_BYTES = 4096;

/** A file that is open on the composed route. */
export interface ComposedFile {
  readonly map: IntervalMap;
  readonly inode: number;
  /** The targets that the map names, retained until the file is closed. */
  readonly targets: Set<number>;
  /** It had pages of its own in memory when it was opened: those of shared extents would be second copies. */
  readonly hadPages: boolean;
  /** It is read from targets of this domain only. */
  readonly domain: number;
}

export interface ComposerOptions {
  readonly ranges: RangeReader;
  readonly packs: Packs;
  readonly index: ExtentIndex;
  readonly filesystem: 'btrfs' | 'xfs';
  readonly blockBytes: number;
  /** How many pages of its own a file has in memory in a range of bytes, or a negated errno. */
  readonly cachedPages: (fd: number, offset: number, length: number) => number;
  /** Drops a file's own clean pages of a range in bytes. */
  readonly dropPages: (fd: number, offset: number, length: number) => void;
  /** Whether free space is so low that no extent may be pinned anew. */
  readonly isSpaceLow: () => boolean;
}

/** Columns of the pieces that a window consists of. */
const AT = 0; // the file's block
const BLOCKS = 1;
const POSITION = 2;
const KEY = 3; // the row of its identity: address, slice
/** Column of what is missing, beside AT and BLOCKS. */
const EXTENTS = 2;

export class Composer {
  /** Extents of a window that were not what they had been a moment before, or entries of the index that had expired. */
  mismatched = 0;
  /** Shared extents that were left in the files' own mappings, by reason. */
  readonly refused = new Map<string, number>();
  readonly #o: ComposerOptions;
  readonly #windows: TargetWindows;
  /** What the window's blocks were at the first look: pieces, and their identities beside them. */
  readonly #pieces = new RowTable();
  readonly #keys = new RowTable();
  /** Blocks of the window that no target holds: block, count, and how many extents they are. */
  readonly #missing = new RowTable();
  /** What was put into packs: block, count, position. */
  readonly #appended = new RowTable();
  /** The second look at the file. */
  readonly #seen = new RowTable();

  constructor(options: ComposerOptions) {
    this.#o = options;
    this.#windows = new TargetWindows(options);
  }

  get blockBytes(): number {
    return this.#o.blockBytes;
  }

  /** The map of a file that nobody has open on this route: all of it unknown, but for what lies behind the last whole block. */
  create(size: number, inode: number, hadPages: boolean, domain: number): ComposedFile {
    const map = new IntervalMap();
    map.set(Math.floor(size / this.#o.blockBytes), END, OWN_BLOCKS);
    return { map, inode, targets: new Set(), hadPages, domain };
  }

  close(file: ComposedFile): void {
    for (const id of file.targets) this.#o.packs.release(id);
    file.targets.clear();
  }

  /** The bytes from..to of the file (exclusive) are the file's own from now on. */
  own(file: ComposedFile, from: number, to: number): void {
    const { blockBytes } = this.#o;
    const start = Math.floor(from / blockBytes);
    const end = Math.min(Math.ceil(to / blockBytes), END);
    if (end > start) file.map.set(start, end, OWN_BLOCKS);
  }

  /** All of the file is its own from now on, and what it used may go. */
  ownAll(file: ComposedFile): void {
    file.map.set(0, END, OWN_BLOCKS);
    this.close(file);
  }

  /**
   * Finds out where an unknown block, and others around it, are to be read from. `fd` is the file, open for reading. The block is
   * never unknown afterwards.
   */
  resolve(file: ComposedFile, fd: number, block: number): void {
    const { map } = file;
    const { blockBytes, ranges } = this.#o;
    this.#use(file.domain);
    map.find(block);
    const from = Math.max(map.start, block - (block % WINDOW_ALIGNMENT));
    const to = Math.min(map.end, from + Math.max(WINDOW_ALIGNMENT, WINDOW_BYTES / blockBytes));
    const window = { from: from * blockBytes, to: to * blockBytes, limit: WINDOW_EXTENTS };
    const looked = ranges.read(fd, this.#look(file.inode, window));
    if (looked < 0 || ranges.end <= block * blockBytes) {
      map.set(from, Math.max(block + 1, Math.floor(ranges.end / blockBytes)), OWN_BLOCKS);
      return;
    }
    const end = Math.floor(ranges.end / blockBytes);
    this.#windows.forget();
    this.#findPieces();
    this.#verifyPieces();
    this.#makeMissing(fd);
    const again = ranges.read(fd, { ...this.#look(file.inode, { ...window, to: end * blockBytes }), any: true });
    if (again < 0) map.set(from, end, OWN_BLOCKS);
    else this.#enter(file, from, Math.max(block + 1, Math.min(end, Math.floor(ranges.end / blockBytes))));
    if (file.hadPages) this.#dropShared(file, fd, from, end);
    const { packs } = this.#o;
    for (let i = 0; i < this.#pieces.count; i++) packs.settle(packs.target(this.#pieces.get(i, POSITION)));
  }

  /** How many bytes of a map's data targets hold already. */
  indexedBytes(map: ExtentMap, domain: number): number {
    const { index, blockBytes } = this.#o;
    this.#use(domain);
    let bytes = 0;
    for (let row = 0; row < map.count; row++) {
      const slice = map.slice(row);
      const blocks = Math.floor(map.length(row) / blockBytes);
      for (let at = 0; at < blocks; at += index.blocks) {
        const into = at * blockBytes;
        const [address, piece] = slice === PLAIN ? [map.address(row) + into, slice] : [map.address(row), slice + into];
        if (index.find(address, piece, blocks - at) !== NONE) bytes += index.blocks * blockBytes;
      }
    }
    return bytes;
  }

  /** Lets diverged copies find the extents of a whole-file clone. What targets hold already stays where it is. */
  addClone(row: number, size: number, inode: number, map: ExtentMap, domain: number): void {
    const { packs, blockBytes } = this.#o;
    this.#use(domain);
    const position = packs.addClone(row, size, inode);
    if (position === 0) return;
    for (let i = 0; i < map.count; i++) {
      const blocks = Math.floor(map.length(i) / blockBytes);
      this.#index(map.address(i), map.slice(i), blocks, position + map.offset(i) / blockBytes);
    }
  }

  #use(domain: number): void {
    this.#o.index.use(domain);
    this.#o.packs.use(domain);
  }

  #look(inode: number, window: { from: number; to: number; limit: number }): RangeOptions {
    return { filesystem: this.#o.filesystem, inode, ...window, sync: false, any: false };
  }

  /** Asks the index for every shared block of the window: pieces that some target seems to hold, and what is missing. */
  #findPieces(): void {
    const { ranges, blockBytes } = this.#o;
    this.#pieces.clear();
    this.#keys.clear();
    this.#missing.clear();
    for (let row = 0; row < ranges.count; row++) {
      const address = ranges.address(row);
      if (address === PRIVATE) continue;
      const slice = ranges.slice(row);
      // What isn't made of whole blocks isn't known to be cloned exactly.
      const offset = ranges.offset(row);
      if (offset % blockBytes !== 0) continue;
      this.#findBlocks(offset / blockBytes, Math.floor(ranges.length(row) / blockBytes), address, slice);
    }
  }

  #findBlocks(at: number, blocks: number, address: number, slice: number): void {
    const { index, packs, blockBytes } = this.#o;
    for (let done = 0; done < blocks; ) {
      const into = done * blockBytes;
      const from = slice === PLAIN ? address + into : address;
      const piece = slice === PLAIN ? slice : slice + into;
      const position = index.find(from, piece, blocks - done);
      let count = index.blocks;
      if (position === NONE) {
        this.#miss(at + done, count);
      } else {
        count = Math.min(count, packs.room(position));
        if (count <= 0) return; // the index names nothing that isn't a target
        this.#pieces.push(at + done, count, position, this.#keys.count);
        this.#keys.push(from, piece, 0, 0);
      }
      done += count;
    }
  }

  /** Reads the maps of the targets that pieces were found in. Pieces that aren't there become missing. */
  #verifyPieces(): void {
    const { index } = this.#o;
    for (let i = 0; i < this.#pieces.count; i++) {
      const position = this.#pieces.get(i, POSITION);
      const blocks = this.#pieces.get(i, BLOCKS);
      const key = this.#pieces.get(i, KEY);
      const address = this.#keys.get(key, 0);
      const slice = this.#keys.get(key, 1);
      if (this.#windows.holds(position, blocks, address, slice)) continue;
      this.mismatched++;
      index.set(address, slice, blocks, NONE);
      this.#miss(this.#pieces.get(i, AT), blocks);
      this.#pieces.set(i, BLOCKS, 0);
    }
  }

  #miss(at: number, blocks: number): void {
    const last = this.#missing.count - 1;
    if (last >= 0 && this.#missing.get(last, AT) + this.#missing.get(last, BLOCKS) === at) {
      this.#missing.set(last, BLOCKS, this.#missing.get(last, BLOCKS) + blocks);
      this.#missing.set(last, EXTENTS, this.#missing.get(last, EXTENTS) + 1);
    } else {
      this.#missing.push(at, blocks, 1, 0);
    }
  }

  /** Puts what is missing into packs, and reads from the packs what it was. */
  #makeMissing(fd: number): void {
    this.#appended.clear();
    this.#append(fd);
    for (let i = 0; i < this.#appended.count; i++) {
      this.#learn(this.#appended.get(i, AT), this.#appended.get(i, POSITION), this.#appended.get(i, BLOCKS));
    }
  }

  #append(fd: number): void {
    const { packs, isSpaceLow, blockBytes } = this.#o;
    if (this.#missing.count === 0) return;
    if (isSpaceLow()) {
      this.#refuse('no-space', this.#missing.count);
      return;
    }
    for (let i = 0; i < this.#missing.count; i++) {
      let at = this.#missing.get(i, AT);
      let left = this.#missing.get(i, BLOCKS);
      const extents = this.#missing.get(i, EXTENTS);
      while (left > 0) {
        const position = packs.append(fd, at * blockBytes, left, extents);
        if (position < 0) {
          this.#refuse(errnoName(position), extents);
          // Without room the others won't fit either.
          if (position === -ENOSPC || position === -EDQUOT) return;
          break;
        }
        const { appended } = packs;
        this.#appended.push(at, appended, position, 0);
        at += appended;
        left -= appended;
      }
    }
  }

  #refuse(reason: string, extents: number): void {
    this.refused.set(reason, (this.refused.get(reason) ?? 0) + extents);
  }

  /** Enters into the index, and among the pieces, what a pack holds from `position` on: the file's blocks from `at` on. */
  #learn(at: number, position: number, blocks: number): void {
    const { packs, blockBytes } = this.#o;
    for (let done = 0; done < blocks; ) {
      const held = this.#windows.at(position + done, 1);
      const from = packs.offset(position + done);
      const row = held === undefined ? -1 : rowAt(held.rows, from);
      if (held === undefined || row < 0) return;
      const into = from - held.rows.get(row, LOOK_AT);
      const count = Math.min(blocks - done, Math.floor((held.rows.get(row, LOOK_BYTES) - into) / blockBytes));
      if (count <= 0) return;
      const start = held.rows.get(row, LOOK_ADDRESS);
      const piece = held.rows.get(row, LOOK_SLICE);
      if (start !== PRIVATE) {
        const address = piece === PLAIN ? start + into : start;
        const slice = piece === PLAIN ? piece : piece + into;
        this.#index(address, slice, count, position + done);
        this.#pieces.push(at + done, count, position + done, this.#keys.count);
        this.#keys.push(address, slice, 0, 0);
      }
      done += count;
    }
  }

  /** Enters an extent into the index where nothing is yet. */
  #index(address: number, slice: number, blocks: number, position: number): void {
    const { index, blockBytes } = this.#o;
    for (let done = 0; done < blocks; ) {
      const into = done * blockBytes;
      const from = slice === PLAIN ? address + into : address;
      const piece = slice === PLAIN ? slice : slice + into;
      const found = index.find(from, piece, blocks - done);
      const count = index.blocks;
      if (found === NONE) index.set(from, piece, count, position + done);
      done += count;
    }
  }

  /**
   * Enters the window into the file's map: what the second look (in `ranges`) says, with the pieces that are still what they were.
   * Blocks that are known by now, because they were written, stay as they are.
   */
  #enter(file: ComposedFile, from: number, end: number): void {
    const { ranges, blockBytes } = this.#o;
    let at = from;
    copyRows(ranges, this.#seen);
    for (let row = 0; row < ranges.count; row++) {
      const start = Math.floor(ranges.offset(row) / blockBytes);
      const stop = Math.min(end, Math.ceil((ranges.offset(row) + ranges.length(row)) / blockBytes));
      if (start > at) file.map.set(at, Math.min(start, end), ZERO_BLOCKS);
      if (stop > start) file.map.set(start, stop, OWN_BLOCKS);
      at = Math.max(at, stop);
    }
    if (at < end) file.map.set(at, end, ZERO_BLOCKS);
    for (let i = 0; i < this.#pieces.count; i++) this.#enterPiece(file, i, from, end);
  }

  /** Drops pages of its own that the file has of shared extents. A window has none if it has no more pages than private ones. */
  #dropShared(file: ComposedFile, fd: number, from: number, end: number): void {
    const { blockBytes, cachedPages, dropPages } = this.#o;
    const { map } = file;
    let own = 0;
    for (let at = from; at < end; at = map.end) {
      if (map.find(at) === OWN_BLOCKS) own += Math.min(map.end, end) - at;
    }
    const cached = cachedPages(fd, from * blockBytes, (end - from) * blockBytes);
    if (cached * PAGE_BYTES <= own * blockBytes) return;
    for (let at = from; at < end; at = map.end) {
      if (isPosition(map.find(at))) dropPages(fd, at * blockBytes, (Math.min(map.end, end) - at) * blockBytes);
    }
  }

  /** A piece counts where the second look names the same extent for it. */
  #enterPiece(file: ComposedFile, piece: number, from: number, end: number): void {
    const { packs, blockBytes } = this.#o;
    const at = this.#pieces.get(piece, AT);
    const stop = Math.min(end, at + this.#pieces.get(piece, BLOCKS));
    if (at < from || stop <= at) return;
    const key = this.#pieces.get(piece, KEY);
    const address = this.#keys.get(key, 0);
    const slice = this.#keys.get(key, 1);
    const row = rowAt(this.#seen, at * blockBytes);
    if (row < 0 || stop * blockBytes > this.#seen.get(row, LOOK_AT) + this.#seen.get(row, LOOK_BYTES)) {
      this.mismatched++;
      return;
    }
    const into = at * blockBytes - this.#seen.get(row, LOOK_AT);
    if (!isPartOf(this.#seen.get(row, LOOK_ADDRESS), this.#seen.get(row, LOOK_SLICE), into, address, slice)) {
      this.mismatched++;
      return;
    }
    const position = this.#pieces.get(piece, POSITION);
    const id = packs.target(position);
    if (!file.targets.has(id)) {
      if (packs.descriptor(id) < 0) return;
      packs.retain(id);
      file.targets.add(id);
    }
    file.map.set(at, stop, position);
  }
}

/** Whether a value of a file's map is a position in a target. */
export function isPosition(value: number): boolean {
  return value >= FIRST_LINEAR;
}
