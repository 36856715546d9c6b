/**
 * How much of a file is in the page cache of its inode, which pages these are, and dropping them. All of it is about the
 * pages of the file that a descriptor stands for: a FUSE file with passthrough has none of its own, its backing file has.
 */

import type { Address, Memory } from '../base/memory.ts';
import { struct } from '../base/struct.ts';

export interface ResidencyCalls {
  /** cachestat(2), since Linux 6.5: include/uapi/linux/mman.h. */
  cachestat(fd: number, range: Address, result: Address): number;
  /** Returns 0 or the error number, not negated: posix_fadvise(2). */
  posixFadvise(fd: number, offset: number, length: number, advice: number): number;
  mmap(length: number, protection: number, flags: number, fd: number, offset: number): number;
  munmap(address: Address, length: number): number;
  mincore(address: Address, length: number, vector: Address): number;
}

const cachestatRange = struct('cachestat_range', 16, [
  ['off', 'u64'],
  ['len', 'u64'],
]);

const cachestat = struct('cachestat', 40, [
  ['nr_cache', 'u64'],
  ['nr_dirty', 'u64'],
  ['nr_writeback', 'u64'],
  ['nr_evicted', 'u64'],
  ['nr_recently_evicted', 'u64'],
]);

const PROT_READ = 1;
const MAP_SHARED = 1;
const POSIX_FADV_DONTNEED = 4;

/** Where in the scratch memory the three things lie: what cachestat reads, what it writes, and what mincore writes. */
const RESULT = cachestatRange.structBytes;
const VECTOR = RESULT + cachestat.structBytes;

/** Numbers of pages. Dirty pages and those being written back are cached ones, too. */
export interface PageCounts {
  cached: number;
  dirty: number;
  writeback: number;
  /** Pages that were in the cache and were reclaimed, as far as the kernel remembers. */
  evicted: number;
  /** Those of them that would not have been reclaimed had the cache been a little larger. */
  recentlyEvicted: number;
}

export function noPages(): PageCounts {
  return { cached: 0, dirty: 0, writeback: 0, evicted: 0, recentlyEvicted: 0 };
}

/**
 * Asks about the residency of files. Results are zero or more, or a negated errno: EPERM for files that the caller neither
 * owns nor may write to (mm/filemap.c: can_do_cachestat), ENOSYS from kernels that are too old.
 */
export class Residency {
  readonly #calls: ResidencyCalls;
  readonly #scratch: Memory;
  readonly #pageSize: number;
  /** How much of a file is mapped at a time: as many pages as the scratch memory has bytes for mincore's answer. */
  readonly #windowBytes: number;

  /** The scratch memory takes a byte for each page of a window: 64 KiB let 256 MiB be looked at per step. */
  constructor(calls: ResidencyCalls, scratch: Memory, pageSize = 4096) {
    const pages = scratch.bytes.length - VECTOR;
    if (pages < 1) throw new Error(`${scratch.bytes.length} bytes hold no page's residency`);
    this.#calls = calls;
    this.#scratch = scratch;
    this.#pageSize = pageSize;
    this.#windowBytes = pages * pageSize;
  }

  /** Counts the pages of a range, or with length 0 those from the offset to the end of the file. Returns 0. */
  count(fd: number, counts: PageCounts, offset = 0, length = 0): number {
    const view = this.#scratch.view;
    const result = this.#cachestat(fd, offset, length);
    if (result < 0) return result;
    counts.cached = cachestat.nr_cache.get(view, RESULT);
    counts.dirty = cachestat.nr_dirty.get(view, RESULT);
    counts.writeback = cachestat.nr_writeback.get(view, RESULT);
    counts.evicted = cachestat.nr_evicted.get(view, RESULT);
    counts.recentlyEvicted = cachestat.nr_recently_evicted.get(view, RESULT);
    return 0;
  }

  /** How many pages of a range (as above) are in the cache. */
  cachedPages(fd: number, offset = 0, length = 0): number {
    const result = this.#cachestat(fd, offset, length);
    return result < 0 ? result : cachestat.nr_cache.get(this.#scratch.view, RESULT);
  }

  /** Whether no page of a range (as above) is dirty or being written; false where that can't be told. */
  isClean(fd: number, offset = 0, length = 0): boolean {
    const view = this.#scratch.view;
    if (this.#cachestat(fd, offset, length) < 0) return false;
    return cachestat.nr_dirty.get(view, RESULT) + cachestat.nr_writeback.get(view, RESULT) === 0;
  }

  /** How long a bitmap must be for a file of `size` bytes. */
  bitmapBytes(size: number): number {
    return Math.ceil(Math.ceil(size / this.#pageSize) / 8);
  }

  /**
   * Marks which pages of a range that begins with a page are in the cache: page n of the range is bit n % 8 of byte n / 8.
   * Returns how many there are. The file is mapped window by window, and a window without cached pages isn't mapped.
   */
  residentPages(fd: number, from: number, to: number, bitmap: Uint8Array): number {
    bitmap.fill(0);
    let resident = 0;
    for (let offset = from; offset < to; offset += this.#windowBytes) {
      const length = Math.min(this.#windowBytes, to - offset);
      const cached = this.cachedPages(fd, offset, length);
      if (cached < 0) return cached;
      if (cached === 0) continue;
      const found = this.#window(fd, offset, length, bitmap, (offset - from) / this.#pageSize);
      if (found < 0) return found;
      resident += found;
    }
    return resident;
  }

  /**
   * How many pages a map of the file would find in memory: for files of stacked filesystems, whose pages are those of another
   * inode that cachestat doesn't look at.
   */
  mappedPages(fd: number, size: number): number {
    let resident = 0;
    for (let offset = 0; offset < size; offset += this.#windowBytes) {
      const found = this.#window(fd, offset, Math.min(this.#windowBytes, size - offset), undefined, 0);
      if (found < 0) return found;
      resident += found;
    }
    return resident;
  }

  /**
   * Drops the file's clean pages (posix_fadvise(2), POSIX_FADV_DONTNEED): returns 0. What is dirty, mapped by a process or
   * being read stays; the kernel starts to write the dirty pages back, but doesn't wait for them.
   */
  drop(fd: number): number {
    return 0 - this.#calls.posixFadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  }

  #cachestat(fd: number, offset: number, length: number): number {
    cachestatRange.off.set(this.#scratch.view, 0, offset);
    cachestatRange.len.set(this.#scratch.view, 0, length);
    return this.#calls.cachestat(fd, this.#scratch.address, this.#scratch.address + RESULT);
  }

  #window(fd: number, offset: number, length: number, bitmap: Uint8Array | undefined, first: number): number {
    const mapping = this.#calls.mmap(length, PROT_READ, MAP_SHARED, fd, offset);
    if (mapping < 0) return mapping;
    const result = this.#calls.mincore(mapping, length, this.#scratch.address + VECTOR);
    this.#calls.munmap(mapping, length);
    if (result < 0) return result;
    const bytes = this.#scratch.bytes;
    const pages = Math.ceil(length / this.#pageSize);
    let found = 0;
    for (let i = 0; i < pages; i++) {
      // The other bits of mincore's bytes are undefined.
      if (((bytes[VECTOR + i] ?? 0) & 1) === 0) continue;
      found++;
      if (bitmap === undefined) continue;
      const page = first + i;
      bitmap[page >>> 3] = (bitmap[page >>> 3] ?? 0) | (1 << (page & 7));
    }
    return found;
  }
}
