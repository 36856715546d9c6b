/**
 * FS_IOC_FIEMAP: the extents of a file, as its filesystem maps them (Documentation/filesystems/fiemap.rst,
 * include/uapi/linux/fiemap.h). A file may have any number of them; they are read through a buffer of fixed size.
 */

import type { Memory } from '../base/memory.ts';
import { struct } from '../base/struct.ts';
import { type ExtentCalls, INCONSISTENT, TOO_MANY_EXTENTS } from './calls.ts';

export const FS_IOC_FIEMAP = 0xc020660b;

/** Write dirty pages back first. */
export const FIEMAP_FLAG_SYNC = 0x1;

export const FIEMAP_EXTENT_LAST = 0x1;
export const FIEMAP_EXTENT_UNKNOWN = 0x2;
export const FIEMAP_EXTENT_DELALLOC = 0x4;
export const FIEMAP_EXTENT_ENCODED = 0x8;
export const FIEMAP_EXTENT_DATA_ENCRYPTED = 0x80;
export const FIEMAP_EXTENT_NOT_ALIGNED = 0x100;
export const FIEMAP_EXTENT_DATA_INLINE = 0x200;
export const FIEMAP_EXTENT_DATA_TAIL = 0x400;
export const FIEMAP_EXTENT_UNWRITTEN = 0x800;
export const FIEMAP_EXTENT_MERGED = 0x1000;
export const FIEMAP_EXTENT_SHARED = 0x2000;

export const fiemap = struct('fiemap', 32, [
  ['fm_start', 'u64'],
  ['fm_length', 'u64'],
  ['fm_flags', 'u32'],
  ['fm_mapped_extents', 'u32'],
  ['fm_extent_count', 'u32'],
  ['_fm_reserved', 'u32'],
]);

export const fiemapExtent = struct('fiemap_extent', 56, [
  ['fe_logical', 'u64'],
  ['fe_physical', 'u64'],
  ['fe_length', 'u64'],
  ['_fe_reserved64_0', 'u64'],
  ['_fe_reserved64_1', 'u64'],
  ['fe_flags', 'u32'],
  ['_fe_reserved_0', 'u32'],
  ['_fe_reserved_1', 'u32'],
  ['_fe_reserved_2', 'u32'],
]);

export interface FiemapRequest {
  /** Where to begin, 0 if absent. The extent that holds this offset may be reported as a whole (btrfs) or from it on (XFS). */
  readonly from?: number;
  /** Extents that start at this offset or behind it aren't reported. */
  readonly end: number;
  /** Write dirty pages back first. */
  readonly sync: boolean;
  /** The number of extents beyond which reading ends with TOO_MANY_EXTENTS. */
  readonly limit: number;
  /**
   * How many extents the first ioctl asks for; each next one asks for four times as many. The kernel's work is
   * proportional to the extents that it reports (btrfs walks back references to say SHARED), so who is likely to stop
   * early asks for few. The default is as many as the memory holds.
   */
  readonly room?: number;
}

/**
 * Walks over a file's extents: `start`, then `next` until it is false, then `error` tells whether that was the end. After
 * `next` was true the fields describe one extent: not empty, behind the one before, and with exact numbers (ends below
 * 2^53). Every extent advances and their number is limited, so a walk always ends, whatever the kernel answers.
 */
export class FiemapCursor {
  logical = 0;
  length = 0;
  physical = 0;
  flags = 0;
  /** 0, a negated errno, INCONSISTENT or TOO_MANY_EXTENTS. */
  error = 0;

  readonly #calls: ExtentCalls;
  readonly #scratch: Memory;
  readonly #capacity: number;
  #fd = -1;
  #end = 0;
  #remaining = 0;
  #flags = 0;
  /** How many extents the next ioctl asks for. */
  #room = 0;
  /** Where the last extent ended: the next one can't start before it. */
  #position = 0;
  /** Only the first extent may begin before the position that was asked for. */
  #first = true;
  /** The part of the last answer that wasn't walked over: extents #index to #mapped. */
  #index = 0;
  #mapped = 0;
  /** The last answer left room, so there is nothing behind it. */
  #complete = false;

  constructor(calls: ExtentCalls, scratch: Memory) {
    this.#calls = calls;
    this.#scratch = scratch;
    this.#capacity = Math.floor((scratch.bytes.length - fiemap.structBytes) / fiemapExtent.structBytes);
    if (this.#capacity < 1) throw new Error(`${scratch.bytes.length} bytes hold no extent`);
  }

  start(fd: number, request: FiemapRequest): void {
    this.error = 0;
    this.#fd = fd;
    this.#end = request.end;
    this.#remaining = request.limit;
    this.#flags = request.sync ? FIEMAP_FLAG_SYNC : 0;
    this.#room = Math.max(1, Math.min(request.room ?? this.#capacity, this.#capacity));
    this.#position = request.from ?? 0;
    this.#first = this.#position > 0;
    this.#index = 0;
    this.#mapped = 0;
    this.#complete = false;
  }

  next(): boolean {
    if (this.error !== 0) return false;
    if (this.#index === this.#mapped && !this.#fetch()) return false;
    const view = this.#scratch.view;
    const at = fiemap.structBytes + this.#index * fiemapExtent.structBytes;
    this.#index++;
    const logical = fiemapExtent.fe_logical.get(view, at);
    const length = fiemapExtent.fe_length.get(view, at);
    const physical = fiemapExtent.fe_physical.get(view, at);
    // What lies beyond the range that was asked for isn't looked at, since nothing behind it can matter either.
    if (logical >= this.#end) return this.#finish(0);
    const end = logical + length;
    const exact = end <= Number.MAX_SAFE_INTEGER && physical + length <= Number.MAX_SAFE_INTEGER;
    if (length === 0 || !exact) return this.#finish(INCONSISTENT);
    if (logical < this.#position && !(this.#first && end > this.#position)) return this.#finish(INCONSISTENT);
    this.#first = false;
    if (this.#remaining === 0) return this.#finish(TOO_MANY_EXTENTS);
    this.#remaining--;
    this.#position = end;
    this.logical = logical;
    this.length = length;
    this.physical = physical;
    this.flags = fiemapExtent.fe_flags.get(view, at);
    return true;
  }

  #finish(error: number): false {
    this.error = error;
    this.#complete = true;
    this.#index = this.#mapped;
    return false;
  }

  /** Asks for the extents from #position on. False when there are none, or when it failed. */
  #fetch(): boolean {
    if (this.#complete || this.#position >= this.#end) return false;
    const view = this.#scratch.view;
    const room = this.#room;
    fiemap.fm_start.set(view, 0, this.#position);
    fiemap.fm_length.set(view, 0, this.#end - this.#position);
    fiemap.fm_flags.set(view, 0, this.#flags);
    fiemap.fm_mapped_extents.set(view, 0, 0);
    fiemap.fm_extent_count.set(view, 0, room);
    fiemap._fm_reserved.set(view, 0, 0);
    const result = this.#calls.ioctl(this.#fd, FS_IOC_FIEMAP, this.#scratch.address);
    if (result < 0) return this.#finish(result);
    const mapped = fiemap.fm_mapped_extents.get(view, 0);
    if (mapped > room) return this.#finish(INCONSISTENT);
    this.#index = 0;
    this.#mapped = mapped;
    // FIEMAP_EXTENT_LAST isn't asked: iomap_fiemap sets it on the last extent of the range, btrfs on that of the file.
    this.#complete = mapped < room;
    this.#room = Math.min(room * 4, this.#capacity);
    // What was dirty at the start has been written; a page that is dirtied meanwhile is a race with or without a flush.
    this.#flags = 0;
    return mapped > 0;
  }
}
