/**
 * BTRFS_IOC_TREE_SEARCH_V2: the EXTENT_DATA items of one file, straight from its subvolume's tree (btrfs_ioctl_search_*
 * in include/uapi/linux/btrfs.h, btrfs_file_extent_item in btrfs_tree.h). They tell what FIEMAP leaves out: which part
 * of a compressed extent a file's bytes are. Needs CAP_SYS_ADMIN.
 */

import type { Memory } from '../base/memory.ts';
import { getU64, struct } from '../base/struct.ts';
import { type ExtentCalls, INCONSISTENT, TOO_MANY_EXTENTS } from './calls.ts';

export const BTRFS_IOC_TREE_SEARCH_V2 = 0xc0709411;

export const BTRFS_EXTENT_DATA_KEY = 108;

export const BTRFS_FILE_EXTENT_INLINE = 0;
export const BTRFS_FILE_EXTENT_REG = 1;
export const BTRFS_FILE_EXTENT_PREALLOC = 2;

/** The search key and the size of the buffer behind it. */
export const searchArgs = struct('btrfs_ioctl_search_args_v2', 112, [
  ['tree_id', 'u64'],
  ['min_objectid', 'u64'],
  ['max_objectid', 'u64'],
  ['min_offset', 'u64'],
  ['max_offset', 'u64'],
  ['min_transid', 'u64'],
  ['max_transid', 'u64'],
  ['min_type', 'u32'],
  ['max_type', 'u32'],
  ['nr_items', 'u32'],
  ['_unused', 'u32'],
  ['_unused1', 'u64'],
  ['_unused2', 'u64'],
  ['_unused3', 'u64'],
  ['_unused4', 'u64'],
  ['buf_size', 'u64'],
]);

/** Stands before each item in the buffer. Items have any length, so headers behind the first aren't aligned. */
export const searchHeader = struct('btrfs_ioctl_search_header', 32, [
  ['transid', 'u64'],
  ['objectid', 'u64'],
  ['offset', 'u64'],
  ['type', 'u32'],
  ['len', 'u32'],
]);

/** Byte offsets in struct btrfs_file_extent_item, which is packed and hence can't be declared as a C structure. */
const RAM_BYTES = 8;
const COMPRESSION = 16;
const ENCRYPTION = 17;
const OTHER_ENCODING = 18;
const TYPE = 20;
const DISK_BYTENR = 21;
const DISK_NUM_BYTES = 29;
const OFFSET = 37;
const NUM_BYTES = 45;
/** The length of the item of a regular or preallocated extent. */
const ITEM_SIZE = 53;
/** An inline extent has its data where the others have DISK_BYTENR. */
const INLINE_HEAD_SIZE = 21;

/** A buffer holds at least one item of any size: a header and as much as a leaf of 64 KiB can hold. */
const MIN_BUFFER_SIZE = 65_536;

/** The scratch memory that a search needs at least. */
export const TREE_SEARCH_MEMORY_BYTES = searchArgs.structBytes + MIN_BUFFER_SIZE;

const MAX_U32 = 0xffff_ffff;
/** Written as 64 bits, all ones. */
const MAX_U64 = -1;

/**
 * Walks over the EXTENT_DATA items of a file: `start`, then `next` until it is false, then `error` tells whether that was
 * the end. After `next` was true the fields describe one item: not empty, behind the one before, and with exact numbers.
 * Every item advances and their number is limited, so a walk always ends, whatever the kernel answers.
 *
 * Holes may have items (diskBytenr 0) or none (the no_holes feature).
 */
export class ExtentItemCursor {
  /** The file offset, and how many bytes of the file the item is about. */
  offset = 0;
  length = 0;
  type = 0;
  /** 0 when not compressed (BTRFS_COMPRESS_NONE). */
  compression = 0;
  encryption = 0;
  otherEncoding = 0;
  /** The extent on disk, and where in it (in what it decodes to, when compressed) the file's bytes begin. */
  diskBytenr = 0;
  diskNumBytes = 0;
  offsetInExtent = 0;
  /** 0, a negated errno, INCONSISTENT or TOO_MANY_EXTENTS. */
  error = 0;
  /** Where the item is in the scratch memory, and its length; for as long as nothing else uses that. */
  #item = 0;
  #itemBytes = 0;

  readonly #calls: ExtentCalls;
  readonly #scratch: Memory;
  readonly #bufferSize: number;
  #fd = -1;
  #inode = 0;
  #end = 0;
  #remaining = 0;
  /**
   * Where the last item's part of the file ended, and the first key offset to ask for next: the one behind the last item's,
   * so that an item that overlaps the last one is seen.
   */
  #position = 0;
  #nextKey = 0;
  /** The part of the last answer that wasn't walked over: #items items at #at. */
  #at = 0;
  #items = 0;

  constructor(calls: ExtentCalls, scratch: Memory) {
    if (scratch.bytes.length < TREE_SEARCH_MEMORY_BYTES) {
      throw new Error(`a tree search needs ${TREE_SEARCH_MEMORY_BYTES} bytes, not ${scratch.bytes.length}`);
    }
    this.#calls = calls;
    this.#scratch = scratch;
    this.#bufferSize = scratch.bytes.length - searchArgs.structBytes;
  }

  /**
   * `fd` is any file of the subvolume, `inode` the number of the file there; items from `end` on aren't reported, nor those that
   * begin before `from`.
   */
  start(fd: number, inode: number, end: number, limit: number, from = 0): void {
    this.error = 0;
    this.#fd = fd;
    this.#inode = inode;
    this.#end = end;
    this.#remaining = limit;
    this.#position = from;
    this.#nextKey = from;
    this.#items = 0;
  }

  next(): boolean {
    if (this.error !== 0) return false;
    if (this.#items === 0 && !this.#fetch()) return false;
    if (this.#remaining === 0) return this.#fail(TOO_MANY_EXTENTS);
    this.#remaining--;
    this.#items--;
    return this.#read() || this.#fail(INCONSISTENT);
  }

  /** The item itself, with the data of an inline one; to be copied before the scratch memory is used again. */
  get item(): Uint8Array {
    return this.#scratch.bytes.subarray(this.#item, this.#item + this.#itemBytes);
  }

  #fail(error: number): false {
    this.error = error;
    this.#items = 0;
    return false;
  }

  /** Asks for the items from #nextKey on. False when there are none, or when it failed. */
  #fetch(): boolean {
    // The file ends where the last item ended: no search for what can't be there.
    if (this.#nextKey >= this.#end || this.#position >= this.#end) return false;
    const view = this.#scratch.view;
    searchArgs.tree_id.set(view, 0, 0);
    searchArgs.min_objectid.set(view, 0, this.#inode);
    searchArgs.max_objectid.set(view, 0, this.#inode);
    searchArgs.min_offset.set(view, 0, this.#nextKey);
    searchArgs.max_offset.set(view, 0, this.#end - 1);
    searchArgs.min_transid.set(view, 0, 0);
    searchArgs.max_transid.set(view, 0, MAX_U64);
    searchArgs.min_type.set(view, 0, BTRFS_EXTENT_DATA_KEY);
    searchArgs.max_type.set(view, 0, BTRFS_EXTENT_DATA_KEY);
    searchArgs.nr_items.set(view, 0, MAX_U32);
    searchArgs.buf_size.set(view, 0, this.#bufferSize);
    const result = this.#calls.ioctl(this.#fd, BTRFS_IOC_TREE_SEARCH_V2, this.#scratch.address);
    if (result < 0) return this.#fail(result);
    this.#at = searchArgs.structBytes;
    this.#items = searchArgs.nr_items.get(view, 0);
    return this.#items > 0;
  }

  /** Reads the item at #at. False when it is impossible. */
  #read(): boolean {
    const view = this.#scratch.view;
    const header = this.#at;
    const item = header + searchHeader.structBytes;
    const limit = this.#scratch.bytes.length;
    if (item + INLINE_HEAD_SIZE > limit) return false;
    const itemSize = searchHeader.len.get(view, header);
    const offset = searchHeader.offset.get(view, header);
    if (searchHeader.objectid.get(view, header) !== this.#inode) return false;
    if (searchHeader.type.get(view, header) !== BTRFS_EXTENT_DATA_KEY) return false;
    if (item + itemSize > limit || itemSize < INLINE_HEAD_SIZE) return false;
    if (offset < this.#position || offset >= this.#end) return false;
    this.#item = item;
    this.#itemBytes = itemSize;
    this.offset = offset;
    this.type = view.getUint8(item + TYPE);
    this.compression = view.getUint8(item + COMPRESSION);
    this.encryption = view.getUint8(item + ENCRYPTION);
    this.otherEncoding = view.getUint16(item + OTHER_ENCODING, true);
    if (this.type === BTRFS_FILE_EXTENT_INLINE) {
      this.length = getU64(view, item + RAM_BYTES);
      this.diskBytenr = 0;
      this.diskNumBytes = 0;
      this.offsetInExtent = 0;
    } else if (this.type === BTRFS_FILE_EXTENT_REG || this.type === BTRFS_FILE_EXTENT_PREALLOC) {
      if (itemSize < ITEM_SIZE) return false;
      this.length = getU64(view, item + NUM_BYTES);
      this.diskBytenr = getU64(view, item + DISK_BYTENR);
      this.diskNumBytes = getU64(view, item + DISK_NUM_BYTES);
      this.offsetInExtent = getU64(view, item + OFFSET);
    } else {
      return false;
    }
    if (!this.#plausible()) return false;
    this.#position = offset + this.length;
    this.#nextKey = offset + 1;
    this.#at = item + itemSize;
    return true;
  }

  #plausible(): boolean {
    const last = Number.MAX_SAFE_INTEGER;
    if (this.length === 0 || this.offset + this.length > last) return false;
    if (this.diskBytenr === 0) return true;
    if (this.diskBytenr + this.diskNumBytes > last || this.offsetInExtent + this.length > last) return false;
    // What an uncompressed extent holds is what it has on disk.
    return this.compression !== 0 || this.offsetInExtent + this.length <= this.diskNumBytes;
  }
}
