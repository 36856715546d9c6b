/**
 * Which bytes a file is made of, exactly: its extent map, or the reason why there is none. This runs at each open of a
 * file, on the thread that serves the mount, so nothing is allocated per extent, and the question that most files end
 * with, "is this shared at all?", is one ioctl with room for few extents.
 *
 * What a map means in time: it is read by several ioctls, and says what the file was at some moment between them only if
 * the file didn't change meanwhile. The caller makes sure of that, by mapping a clone that nobody can write, or by
 * mapping the file before and after, and once it holds a reference on the extents (a clone) equal maps stay meaningful.
 */

import { EFBIG, EIO } from '../base/errno.ts';
import type { Address, Memory } from '../base/memory.ts';
import { struct } from '../base/struct.ts';
import { type ExtentCalls, INCONSISTENT, TOO_MANY_EXTENTS } from './calls.ts';
import { type ExtentMap, ExtentMapBuilder, PLAIN, RowTable } from './extentmap.ts';
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DATA_TAIL,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNWRITTEN,
  FiemapCursor,
} from './fiemap.ts';
import { InlineItem } from './inlineitem.ts';
import {
  BTRFS_FILE_EXTENT_INLINE,
  BTRFS_FILE_EXTENT_PREALLOC,
  ExtentItemCursor,
  TREE_SEARCH_MEMORY_BYTES,
} from './treesearch.ts';

export interface IdentifyOptions {
  readonly filesystem: 'btrfs' | 'xfs';
  /** The file's size in bytes. Allocation beyond it is ignored. */
  readonly size: number;
  /** The file's inode number in its subvolume, which the tree search of btrfs asks for. */
  readonly inode: number;
  /**
   * Write dirty pages back first. Without it, pages that are dirty over allocated extents go unseen: that is for files
   * that nobody can have written to, or for a first look that something exact follows.
   */
  readonly sync: boolean;
  /** The number of extents that the filesystem may report at most. */
  readonly limit: number;
  /** End with 'unshared' at the first data extent that isn't SHARED. */
  readonly stopAtUnshared?: boolean;
}

/**
 * Why a file has no map:
 * - `inline`: data is in the metadata, without blocks of its own.
 * - `delalloc`: data is in memory, and where it will be on disk isn't decided.
 * - `unknown`: the filesystem doesn't say where data is, or says something about it that isn't known here; or the file
 *   is larger than 8 PiB, where numbers aren't exact.
 * - `encrypted`: data is encrypted on disk, so equal blocks may decrypt to different bytes.
 * - `tail`: data doesn't fill blocks of its own (it is packed or unaligned).
 * - `unsupported-encoding`: data is encoded in a way for which there are no exact slices.
 * - `realtime`: data is on the realtime device of XFS, whose addresses collide with those of the data device.
 * - `too-many-extents`: more than the limit.
 * - `inconsistent`: the answers are impossible, or FIEMAP and the tree search disagree, as when the file just changed.
 * - `unshared`: only with `stopAtUnshared`.
 * - `errno`: a call failed; the error is in `errno`, negated.
 */
export type RefusalReason =
  | 'inline'
  | 'delalloc'
  | 'unknown'
  | 'encrypted'
  | 'tail'
  | 'unsupported-encoding'
  | 'realtime'
  | 'too-many-extents'
  | 'inconsistent'
  | 'unshared'
  | 'errno';

export interface Refusal {
  readonly map: null;
  readonly reason: RefusalReason;
  /** A negated errno for the reason `errno`, else 0. */
  readonly errno: number;
}

export interface Identity {
  readonly map: ExtentMap;
  /** The file has data, and each of its data extents is SHARED. */
  readonly allShared: boolean;
  readonly anyShared: boolean;
  /** Some data is compressed. */
  readonly encoded: boolean;
}

const refused = (reason: RefusalReason, errno = 0): Refusal => ({ map: null, reason, errno });

/** Made once: most opens end in one of these. */
const INLINE = refused('inline');
const DELALLOC = refused('delalloc');
const UNKNOWN = refused('unknown');
const ENCRYPTED = refused('encrypted');
const TAIL = refused('tail');
const UNSUPPORTED_ENCODING = refused('unsupported-encoding');
const REALTIME = refused('realtime');
const TOO_MANY = refused('too-many-extents');
const CONTRADICTION = refused('inconsistent');
const UNSHARED = refused('unshared');

function failure(error: number): Refusal {
  if (error === INCONSISTENT) return CONTRADICTION;
  if (error === TOO_MANY_EXTENTS) return TOO_MANY;
  return refused('errno', error);
}

/** The flags that leave an extent's bytes identified by its address. */
const HARMLESS =
  FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED | FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_ENCODED;

/** Why an extent with other flags than those identifies nothing. The order matters: inline data is also unaligned. */
function objection(flags: number): Refusal {
  if (flags & FIEMAP_EXTENT_DATA_INLINE) return INLINE;
  if (flags & FIEMAP_EXTENT_DELALLOC) return DELALLOC;
  if (flags & FIEMAP_EXTENT_DATA_ENCRYPTED) return ENCRYPTED;
  if (flags & (FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_NOT_ALIGNED)) return TAIL;
  return UNKNOWN;
}

/**
 * How many extents an early answer asks for at first. On a compressed private file of btrfs, two extents take 2.6 µs and
 * eight take 6.5, since each is looked up by its back references; a file with more extents that are shared costs further
 * calls, of 2.4 µs each, for 2, 8, 32, … extents.
 */
const FIRST_ROOM = 2;

const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_XFLAG_REALTIME = 0x1;

/** include/uapi/linux/fs.h */
const fsxattr = struct('fsxattr', 28, [
  ['fsx_xflags', 'u32'],
  ['fsx_extsize', 'u32'],
  ['fsx_nextents', 'u32'],
  ['fsx_projid', 'u32'],
  ['fsx_cowextsize', 'u32'],
  ['_fsx_pad_0', 'u32'],
  ['_fsx_pad_1', 'u32'],
]);

/** The scratch memory that an ExtentReader needs at least; more lets a call of the kernel report more extents. */
export const EXTENT_READER_MEMORY_BYTES = TREE_SEARCH_MEMORY_BYTES;

/** Columns of the table of what FIEMAP reported. */
const OFFSET = 0;
const LENGTH = 1;
const ADDRESS = 2;
const FLAGS = 3;

/** Reads the extents of files. It holds no state between calls but its scratch memory, which nothing else may use. */
export class ExtentReader {
  readonly #calls: ExtentCalls;
  readonly #view: DataView;
  readonly #address: Address;
  readonly #fiemap: FiemapCursor;
  readonly #items: ExtentItemCursor;
  /** The data extents that FIEMAP reported, clipped at the file's size, with their flags. */
  readonly #reported = new RowTable();
  readonly #builder = new ExtentMapBuilder();

  constructor(calls: ExtentCalls, scratch: Memory) {
    this.#calls = calls;
    this.#view = scratch.view;
    this.#address = scratch.address;
    this.#fiemap = new FiemapCursor(calls, scratch);
    this.#items = new ExtentItemCursor(calls, scratch);
  }

  /** The map of a file and what can be said of it. `fd` must be open for reading (not O_PATH). */
  identify(fd: number, options: IdentifyOptions): Identity | Refusal {
    if (!Number.isSafeInteger(options.size)) return UNKNOWN;
    if (options.filesystem === 'xfs') {
      const realtime = this.isRealtime(fd);
      if (realtime < 0) return failure(realtime);
      if (realtime > 0) return REALTIME;
    }
    const stopAtUnshared = options.stopAtUnshared === true;
    const reported = this.#reported;
    reported.clear();
    let all = 0;
    let any = 0;
    const cursor = this.#fiemap;
    const room = stopAtUnshared ? FIRST_ROOM : Number.MAX_SAFE_INTEGER;
    cursor.start(fd, { end: options.size, sync: options.sync, limit: options.limit, room });
    while (cursor.next()) {
      const flags = cursor.flags;
      if (flags & ~HARMLESS) return objection(flags);
      if (flags & FIEMAP_EXTENT_UNWRITTEN) continue;
      if (stopAtUnshared && !(flags & FIEMAP_EXTENT_SHARED)) return UNSHARED;
      all = reported.count === 0 ? flags : all & flags;
      any |= flags;
      const length = Math.min(cursor.length, options.size - cursor.logical);
      reported.push(cursor.logical, length, cursor.physical, flags);
    }
    if (cursor.error !== 0) return failure(cursor.error);
    const encoded = (any & FIEMAP_EXTENT_ENCODED) !== 0;
    this.#builder.clear();
    const refusal = encoded ? this.#addSlices(fd, options) : this.#addReported();
    if (refusal !== null) return refusal;
    return {
      map: this.#builder.finish(),
      allShared: (all & FIEMAP_EXTENT_SHARED) !== 0,
      anyShared: (any & FIEMAP_EXTENT_SHARED) !== 0,
      encoded,
    };
  }

  /**
   * The item of a file of btrfs that is `inline`; null when it isn't any more, or when not all of the file lies in the item. What is
   * only in memory goes unseen: that is for a file that `identify` wrote back a moment ago. `fd` is as there.
   */
  inlineItem(fd: number, inode: number, size: number): InlineItem | null {
    const items = this.#items;
    items.start(fd, inode, size, 1);
    if (!items.next() || items.type !== BTRFS_FILE_EXTENT_INLINE) return null;
    if (items.offset !== 0 || items.length !== size || items.encryption !== 0 || items.otherEncoding !== 0) return null;
    return new InlineItem(size, items.item);
  }

  /**
   * Whether the first data extent of a file is SHARED: 1 when it is, 0 when it isn't or there is none, or a negated errno.
   * Dirty pages aren't written, so this is a hint.
   */
  firstExtentShared(fd: number, size: number): number {
    const cursor = this.#fiemap;
    cursor.start(fd, { end: Math.min(size, Number.MAX_SAFE_INTEGER), sync: false, limit: 1024, room: FIRST_ROOM });
    while (cursor.next()) {
      if (cursor.flags & FIEMAP_EXTENT_UNWRITTEN) continue;
      return cursor.flags & FIEMAP_EXTENT_SHARED ? 1 : 0;
    }
    return asErrno(cursor.error);
  }

  /**
   * Whether a file has blocks that no other file shares, so that deleting it would free space: 1, 0, or a negated errno.
   * Blocks behind the end of the file and preallocated ones count. On btrfs an extent of which another file uses any part
   * is SHARED, so blocks of it that only this file uses go unseen.
   */
  anyUnshared(fd: number, limit: number): number {
    const cursor = this.#fiemap;
    cursor.start(fd, { end: Number.MAX_SAFE_INTEGER, sync: false, limit, room: FIRST_ROOM });
    while (cursor.next()) {
      if (cursor.flags & (FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_DATA_INLINE)) continue;
      return 1;
    }
    return asErrno(cursor.error);
  }

  /** Whether a file of XFS is on its realtime device: positive if so, 0 if not, or a negated errno. */
  isRealtime(fd: number): number {
    const result = this.#calls.ioctl(fd, FS_IOC_FSGETXATTR, this.#address);
    if (result < 0) return result;
    return fsxattr.fsx_xflags.get(this.#view, 0) & FS_XFLAG_REALTIME;
  }

  /** Builds the map from what FIEMAP reported, when nothing is encoded. */
  #addReported(): Refusal | null {
    const reported = this.#reported;
    for (let row = 0; row < reported.count; row++) {
      if (!this.#builder.append(reported.get(row, OFFSET), reported.get(row, LENGTH), reported.get(row, ADDRESS))) {
        return CONTRADICTION;
      }
    }
    return null;
  }

  /**
   * Builds the map from the items of the file's tree, when something is encoded. FIEMAP says of each encoded extent only
   * where the whole extent begins, and joins extents of which one seems to go on where the other ends (emit_fiemap_extent
   * in fs/btrfs/fiemap.c compares addresses and decoded lengths, which says nothing of encoded extents); items are what the
   * file was cut into. So each data item lies within one reported extent, at the address to be expected there, has its
   * flags, and all items together fill all of those.
   */
  #addSlices(fd: number, options: IdentifyOptions): Refusal | null {
    if (options.filesystem !== 'btrfs') return UNSUPPORTED_ENCODING;
    const reported = this.#reported;
    let row = 0;
    let filled = 0;
    const items = this.#items;
    items.start(fd, options.inode, options.size, options.limit);
    while (items.next()) {
      if (items.type === BTRFS_FILE_EXTENT_INLINE) return INLINE;
      if (items.type === BTRFS_FILE_EXTENT_PREALLOC || items.diskBytenr === 0) continue;
      if (items.encryption !== 0) return ENCRYPTED;
      if (items.otherEncoding !== 0) return UNSUPPORTED_ENCODING;
      const offset = items.offset;
      const length = Math.min(items.length, options.size - offset);
      while (row < reported.count && reported.get(row, OFFSET) + reported.get(row, LENGTH) <= offset) row++;
      if (row === reported.count) return CONTRADICTION;
      const into = offset - reported.get(row, OFFSET);
      if (into < 0 || into + length > reported.get(row, LENGTH)) return CONTRADICTION;
      filled += length;
      const flags = reported.get(row, FLAGS);
      const plain = items.compression === 0;
      const address = plain ? items.diskBytenr + items.offsetInExtent : items.diskBytenr;
      if (plain === ((flags & FIEMAP_EXTENT_ENCODED) !== 0)) return CONTRADICTION;
      if (address !== reported.get(row, ADDRESS) + into) return CONTRADICTION;
      if (!this.#builder.append(offset, length, address, plain ? PLAIN : items.offsetInExtent)) return CONTRADICTION;
    }
    if (items.error !== 0) return failure(items.error);
    let expected = 0;
    for (row = 0; row < reported.count; row++) expected += reported.get(row, LENGTH);
    return filled === expected ? null : CONTRADICTION;
  }
}

/** A cursor's error as an errno, where the answer is a number: EIO for nonsense, EFBIG for too many extents. */
function asErrno(error: number): number {
  if (error === INCONSISTENT) return -EIO;
  return error === TOO_MANY_EXTENTS ? -EFBIG : error;
}
