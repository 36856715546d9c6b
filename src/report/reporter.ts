/**
 * What the page cache holds of trees of files, and what of it it holds more than once.
 *
 * Each file is asked how many of its pages are in memory (cachestat, which rules most files out), then which (mincore on a
 * map that nobody touches), then which extents lie under them. Two pages are copies of one another when the same bytes of the
 * filesystem lie under both: by address, and for compressed extents by the slice of what the extent decodes to. Dirty
 * pages are copies of nothing, and what can't be identified is counted as such. Nothing is read into memory by looking.
 */

import { EACCES, EFBIG, ENOENT, ENOSYS, EPERM } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import type { RangeReader } from '../extents/ranges.ts';
import { noPages, type Residency } from '../pagecache/residency.ts';
import { Addresses, type DiskCounts, type Looked, STATX_AT, UNIT_BYTES } from './addresses.ts';
import { deviceOf, type ReportCalls, STATX, STATX_BYTES } from './calls.ts';
import { Copies } from './copies.ts';
import { InodeSet } from './inodes.ts';
import { Paths } from './paths.ts';
import type { Visitor } from './walk.ts';

export interface FileCounts {
  /** Regular files looked at, and those of them that have pages in memory. */
  seen: number;
  cached: number;
  /** Further names of files that were counted already. */
  links: number;
  /** The kernel doesn't tell this user about the pages of these. */
  outOfReach: number;
  denied: number;
  failed: number;
  vanished: number;
  /** Their extents changed while they were looked at: their pages count, but as copies of nothing. */
  changed: number;
  /** Their filesystem has no extents to tell of, or doesn't tell this user. */
  unidentified: number;
  /** Files of overlays whose layer was not found: their pages are counted by a map, and not identified. */
  layerless: number;
}

export interface ByteCounts {
  cached: number;
  dirty: number;
  writeback: number;
  /** Of the cached bytes, those whose extents aren't known: they may be copies, too. */
  unidentified: number;
}

/** Mappings of a mount of sharedext: how many files the pages of each are held for. */
export interface Held {
  /** By inode number; for those composed of extents an average. */
  readonly files: ReadonlyMap<number, number>;
  /** Set by the report: what of them is in memory, and what would be, beside it, if each file held its own. */
  cached: number;
  saved: number;
}

export interface ReporterOptions {
  readonly calls: ReportCalls;
  readonly residency: Residency;
  readonly ranges: RangeReader;
  /** The memory that the walker leaves names in. */
  readonly names: Memory;
  /** A struct statx and a struct statfs. */
  readonly scratch: Memory;
  readonly pageBytes: number;
  /** Look at what is on disk, too: at the extents of every file. */
  readonly disk: boolean;
}

const EMPTY_AT = 0;
/** Pages of a file that are mapped at a time, at most. */
const MAPPED_PAGES = 32_768;
/** Files of overlays that are larger aren't mapped. */
const MAX_MAPPED_BYTES = 2 ** 40;
/** A file that changed so lately may still be on its way to the disk. */
const RECENT_MS = 600_000;

/** Where in struct statx the size and the times of change are, and how long they are: stx_size, stx_ctime, stx_mtime. */
const SAME = [
  [STATX.size, 8],
  [STATX.ctime, 12],
  [STATX.mtime, 12],
] as const;

export class Reporter implements Visitor {
  readonly files: FileCounts = {
    seen: 0,
    cached: 0,
    links: 0,
    outOfReach: 0,
    denied: 0,
    failed: 0,
    vanished: 0,
    changed: 0,
    unidentified: 0,
    layerless: 0,
  };
  readonly bytes: ByteCounts = { cached: 0, dirty: 0, writeback: 0, unidentified: 0 };
  readonly disk: DiskCounts = { bytes: 0, shared: 0, unidentified: 0 };
  readonly paths = new Paths();
  /** The ranges that are in memory, and with `disk` those that are on disk, in files by number (`paths`). */
  readonly copies = new Copies(UNIT_BYTES);
  readonly diskCopies = new Copies(UNIT_BYTES);
  /** cachestat(2) isn't there: Linux older than 6.5. */
  tooOld = false;
  readonly #o: ReporterOptions;
  readonly #counts = noPages();
  readonly #part = noPages();
  readonly #inodes = new InodeSet();
  readonly #held = new Map<number, Held[]>();
  readonly #addresses: Addresses;
  #cachedOf = new Float64Array(1024);
  readonly #bitmap = new Uint8Array(MAPPED_PAGES / 8);

  constructor(options: ReporterOptions) {
    this.#o = options;
    this.#addresses = new Addresses(options.calls, options.ranges, options.scratch);
  }

  /** Tells which mappings a folder has; it is that of a store. Nothing comes of it when there is no such folder. */
  addHeld(folder: string, held: Held): void {
    const { calls, names } = this.#o;
    putString(names, 0, folder);
    const fd = calls.openat(c.AT_FDCWD, names.address, c.O_RDONLY | c.O_DIRECTORY | c.O_CLOEXEC, 0);
    if (fd < 0) return;
    if (this.#stat(fd)) {
      const device = this.#device();
      this.#held.set(device, [...(this.#held.get(device) ?? []), held]);
    }
    calls.close(fd);
  }

  folder(parent: number, name: Uint8Array): number {
    return this.paths.addFolder(parent, name);
  }

  file(dirFd: number, nameAt: number, folder: number, layers: readonly number[] | undefined): void {
    const { calls } = this.#o;
    this.files.seen++;
    const fd = this.#open(dirFd, nameAt);
    if (fd < 0) {
      if (fd === -ENOENT) this.files.vanished++;
      else if (fd === -EACCES) this.files.denied++;
      else this.files.failed++;
      return;
    }
    if (layers === undefined) {
      this.#look(fd, nameAt, folder);
    } else {
      const layer = this.#layerOf(fd, nameAt, layers);
      if (layer < 0) {
        this.#lookByMap(fd, nameAt, folder);
      } else {
        this.#look(layer, nameAt, folder);
        calls.close(layer);
      }
    }
    calls.close(fd);
  }

  #addFile(folder: number, nameAt: number): number {
    const { bytes } = this.#o.names;
    return this.paths.addFile(folder, bytes.subarray(nameAt, bytes.indexOf(0, nameAt)));
  }

  /** Bytes in memory of a file. */
  cachedBytes(file: number): number {
    return this.#cachedOf[file] ?? 0;
  }

  #open(dirFd: number, nameAt: number): number {
    const { calls, names } = this.#o;
    const flags = c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK | c.O_CLOEXEC;
    const fd = calls.openat(dirFd, names.address + nameAt, flags | c.O_NOATIME, 0);
    // Only a file's owner may ask that its access time be kept; nothing is read of it either way.
    return fd === -EPERM ? calls.openat(dirFd, names.address + nameAt, flags, 0) : fd;
  }

  /**
   * The file of a layer that an overlay shows under a name: the uppermost of that name. It is the one if it has the same size
   * and the same times of change, to the nanosecond; the overlay may have given the name to another one.
   */
  #layerOf(fd: number, nameAt: number, layers: readonly number[]): number {
    const { calls, scratch } = this.#o;
    if (!this.#stat(fd)) return -ENOENT;
    const wanted = Buffer.from(scratch.bytes.subarray(STATX_AT, STATX_AT + STATX_BYTES));
    for (const dirFd of layers) {
      const layer = this.#open(dirFd, nameAt);
      if (layer === -ENOENT) continue;
      if (layer < 0) return layer;
      if (this.#stat(layer) && SAME.every(([at, length]) => this.#isEqual(wanted, at, length))) return layer;
      calls.close(layer);
      return -ENOENT;
    }
    return -ENOENT;
  }

  #isEqual(wanted: Buffer, at: number, length: number): boolean {
    const { bytes } = this.#o.scratch;
    return wanted.compare(bytes, STATX_AT + at, STATX_AT + at + length, at, at + length) === 0;
  }

  #look(fd: number, nameAt: number, folder: number): void {
    const { residency, scratch, pageBytes, disk } = this.#o;
    const counts = this.#counts;
    const counted = residency.count(fd, counts);
    if (counted < 0) {
      if (counted === -ENOSYS) this.tooOld = true;
      if (counted === -EPERM) this.files.outOfReach++;
      else this.files.failed++;
      return;
    }
    if (counts.cached === 0 && !disk) return;
    if (!this.#statNew(fd)) return;
    const { view } = scratch;
    const seconds = getU64(view, STATX_AT + STATX.ctime);
    const nanoseconds = view.getUint32(STATX_AT + STATX.ctime + 8, true);
    // What may have been written since the pages were counted: they are counted again, with the time of change known.
    const isRecent = seconds * 1000 > Date.now() - RECENT_MS;
    if (isRecent && residency.count(fd, counts) < 0) {
      this.files.failed++;
      return;
    }
    const size = getU64(view, STATX_AT + STATX.size);
    const inode = getU64(view, STATX_AT + STATX.ino);
    const file = this.#addFile(folder, nameAt);
    const clean = counts.dirty + counts.writeback === 0;
    const on = this.#addresses.filesystem(fd, this.#device());
    const sync = isRecent && clean;
    const looked = on === undefined ? undefined : { fd, file, on, inode, sync };
    if (disk && looked === undefined) this.disk.unidentified++;
    if (disk && looked !== undefined) this.#addresses.addAll(this.diskCopies, looked, size, this.disk);
    if (counts.cached === 0) return;
    this.#countCached(file, counts.cached * pageBytes, inode);
    this.bytes.dirty += counts.dirty * pageBytes;
    this.bytes.writeback += counts.writeback * pageBytes;
    const before = this.copies.count;
    const pages = Math.ceil(size / pageBytes);
    // Readahead and large folios may leave pages behind the end of the file: these aren't looked at.
    const known =
      looked !== undefined &&
      (counts.cached === pages ? this.#run(looked, 0, pages, clean) : this.#runs(looked, 0, pages, clean));
    if (!known) {
      this.copies.forget(before);
      this.files.unidentified++;
      this.bytes.unidentified += counts.cached * pageBytes;
      return;
    }
    if (this.copies.count === before) return;
    const same =
      this.#stat(fd) &&
      getU64(view, STATX_AT + STATX.ctime) === seconds &&
      view.getUint32(STATX_AT + STATX.ctime + 8, true) === nanoseconds;
    if (same) return;
    this.copies.forget(before);
    this.files.changed++;
  }

  /** Counts the pages that a map of the file would find: those of whatever file is behind it. */
  #lookByMap(fd: number, nameAt: number, folder: number): void {
    const { residency, scratch, pageBytes } = this.#o;
    if (!this.#statNew(fd)) return;
    const size = getU64(scratch.view, STATX_AT + STATX.size);
    const inode = getU64(scratch.view, STATX_AT + STATX.ino);
    const pages = size > MAX_MAPPED_BYTES ? -EFBIG : residency.mappedPages(fd, size);
    if (pages < 0) {
      this.files.failed++;
      return;
    }
    this.files.layerless++;
    if (pages === 0) return;
    this.#countCached(this.#addFile(folder, nameAt), pages * pageBytes, inode);
    this.bytes.unidentified += pages * pageBytes;
  }

  #countCached(file: number, bytes: number, inode: number): void {
    this.files.cached++;
    this.bytes.cached += bytes;
    this.#setCached(file, bytes);
    if (this.#held.size === 0) return;
    for (const held of this.#held.get(this.#device()) ?? []) {
      const files = held.files.get(inode);
      if (files === undefined) continue;
      held.cached += bytes;
      held.saved += bytes * Math.max(0, files - 1);
    }
  }

  #stat(fd: number): boolean {
    const { calls, scratch } = this.#o;
    const { address } = scratch;
    scratch.bytes[EMPTY_AT] = 0;
    return calls.statx(fd, address + EMPTY_AT, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + STATX_AT) >= 0;
  }

  #device(): number {
    return deviceOf(this.#o.scratch.view, STATX_AT);
  }

  /** Reads the attributes of a file; false when it was counted already: it may have several names, or be shown by several mounts. */
  #statNew(fd: number): boolean {
    if (!this.#stat(fd)) {
      this.files.failed++;
      return false;
    }
    const isNew = this.#inodes.add(this.#o.scratch.view, STATX_AT);
    if (!isNew) this.files.links++;
    return isNew;
  }

  #setCached(file: number, bytes: number): void {
    while (file >= this.#cachedOf.length) {
      const larger = new Float64Array(this.#cachedOf.length * 2);
      larger.set(this.#cachedOf);
      this.#cachedOf = larger;
    }
    this.#cachedOf[file] = bytes;
  }

  /**
   * Goes over the runs of pages that are in memory, from page to page. What is in memory as a whole, or not at all, is told by
   * counting; the rest is halved until it is small enough to be mapped, so that the size of a sparse file doesn't matter.
   * False when the file can't be identified.
   */
  #runs(looked: Looked, from: number, to: number, clean: boolean): boolean {
    const { residency, pageBytes } = this.#o;
    const cached = residency.cachedPages(looked.fd, from * pageBytes, (to - from) * pageBytes);
    if (cached <= 0) return cached === 0;
    if (cached === to - from) return this.#run(looked, from, to, clean);
    if (to - from > MAPPED_PAGES) {
      const middle = Math.floor((from + to) / 2);
      return this.#runs(looked, from, middle, clean) && this.#runs(looked, middle, to, clean);
    }
    const bitmap = this.#bitmap;
    if (residency.residentPages(looked.fd, from * pageBytes, to * pageBytes, bitmap) < 0) return false;
    let first = -1;
    for (let page = 0; page <= to - from; page++) {
      const here = page < to - from && ((bitmap[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
      if (here && first < 0) first = page;
      if (here || first < 0) continue;
      if (!this.#run(looked, from + first, from + page, clean)) return false;
      first = -1;
    }
    return true;
  }

  /** A run of pages; dirty ones are left out, by halving it as often as need be. False when it can't be identified. */
  #run(looked: Looked, first: number, end: number, clean: boolean): boolean {
    const { residency, pageBytes } = this.#o;
    const [from, to] = [first * pageBytes, end * pageBytes];
    if (!clean) {
      residency.count(looked.fd, this.#part, from, to - from);
      if (this.#part.dirty + this.#part.writeback > 0) {
        if (end - first === 1) return true;
        const middle = Math.floor((first + end) / 2);
        return this.#run(looked, first, middle, false) && this.#run(looked, middle, end, false);
      }
    }
    return this.#addresses.add(this.copies, looked, from, to);
  }
}
