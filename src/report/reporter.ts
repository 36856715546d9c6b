/**
 * What the page cache holds of trees of files, and what of it it holds more than once.
 *
 * Each file is asked how many of its pages are in memory (cachestat, which rules most files out), then which (mincore on a
 * map that nobody touches), then which extents lie under them. Two pages are copies of one another when the same bytes of the
 * filesystem lie under both: by address, and for compressed extents by the slice of what the extent decodes to. Dirty
 * pages are copies of nothing, and what can't be identified is counted as such. Nothing is read into memory by looking.
 */

import { EACCES, ENOENT, ENOSYS, EPERM } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import { PLAIN } from '../extents/extentmap.ts';
import { PRIVATE, type RangeReader } from '../extents/ranges.ts';
import { noPages, type Residency } from '../pagecache/residency.ts';
import { type ReportCalls, STATFS, STATX } from './calls.ts';
import { Copies, type Duplicates } from './copies.ts';
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
}

export interface ByteCounts {
  cached: number;
  dirty: number;
  writeback: number;
  /** Of the cached bytes, those whose extents aren't known: they may be copies, too. */
  unidentified: number;
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
}

export const REPORTER_SCRATCH_BYTES = 1536;
const EMPTY_AT = 0;
const STATX_AT = 64;
const STATFS_AT = 384;
const INFO_AT = 512;

/** struct btrfs_ioctl_fs_info_args, 1024 bytes: where the filesystem's id is, and its length. */
const FSID_AT = INFO_AT + 16;
const FSID_BYTES = 16;
/** Blocks are counted in the smallest that there are. */
const UNIT_BYTES = 512;
/** What a compressed extent decodes to at most, and the least that an extent begins at. */
const DECODED_BYTES = 131_072;
const SECTOR_BYTES = 4096;
const EXTENTS_AT_A_TIME = 512;

/** A filesystem that something was found on. */
interface Filesystem {
  /** Its number, for `Copies`: each has two spaces. */
  readonly number: number;
  readonly kind: 'btrfs' | 'xfs';
}

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
  };
  readonly bytes: ByteCounts = { cached: 0, dirty: 0, writeback: 0, unidentified: 0 };
  readonly paths = new Paths();
  /** cachestat(2) isn't there: Linux older than 6.5. */
  tooOld = false;
  readonly #o: ReporterOptions;
  readonly #copies = new Copies(UNIT_BYTES);
  readonly #counts = noPages();
  readonly #part = noPages();
  readonly #links = new Set<string>();
  readonly #filesystems = new Map<number, Filesystem>();
  readonly #byId = new Map<string, Filesystem>();
  #cachedOf = new Float64Array(1024);
  #bitmap = new Uint8Array(4096);

  constructor(options: ReporterOptions) {
    this.#o = options;
  }

  folder(path: Buffer): number {
    return this.paths.addFolder(path);
  }

  file(dirFd: number, nameAt: number, folder: number): void {
    const { calls, names } = this.#o;
    this.files.seen++;
    const flags = c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK | c.O_CLOEXEC;
    let fd = calls.openat(dirFd, names.address + nameAt, flags | c.O_NOATIME, 0);
    // Only a file's owner may ask that its access time be kept; nothing is read of it either way.
    if (fd === -EPERM) fd = calls.openat(dirFd, names.address + nameAt, flags, 0);
    if (fd < 0) {
      if (fd === -ENOENT) this.files.vanished++;
      else if (fd === -EACCES) this.files.denied++;
      else this.files.failed++;
      return;
    }
    const name = dirFd === c.AT_FDCWD ? 0 : names.bytes.indexOf(0, nameAt) - nameAt;
    this.#look(fd, nameAt, name, folder);
    calls.close(fd);
  }

  /** What is held more than once; `share` is told of each file's part (`copies.ts`). */
  duplicates(top: number, share: (file: number, bytes: number) => void): Duplicates {
    return this.#copies.duplicates(top, share);
  }

  /** Bytes in memory of a file. */
  cachedBytes(file: number): number {
    return this.#cachedOf[file] ?? 0;
  }

  #look(fd: number, nameAt: number, nameBytes: number, folder: number): void {
    const { residency, names, pageBytes } = this.#o;
    const counts = this.#counts;
    const counted = residency.count(fd, counts);
    if (counted < 0) {
      if (counted === -ENOSYS) this.tooOld = true;
      if (counted === -EPERM) this.files.outOfReach++;
      else this.files.failed++;
      return;
    }
    if (counts.cached === 0) return;
    const { view } = this.#o.scratch;
    if (!this.#stat(fd)) {
      this.files.failed++;
      return;
    }
    if (view.getUint32(STATX_AT + STATX.nlink, true) > 1 && this.#isKnownLink()) {
      this.files.links++;
      return;
    }
    this.files.cached++;
    this.bytes.cached += counts.cached * pageBytes;
    this.bytes.dirty += counts.dirty * pageBytes;
    this.bytes.writeback += counts.writeback * pageBytes;
    const file = this.paths.addFile(folder, names.bytes.subarray(nameAt, nameAt + nameBytes));
    this.#setCached(file, counts.cached * pageBytes);
    const filesystem = this.#filesystem(fd);
    const size = getU64(view, STATX_AT + STATX.size);
    const inode = getU64(view, STATX_AT + STATX.ino);
    if (filesystem === undefined) {
      this.files.unidentified++;
      this.bytes.unidentified += counts.cached * pageBytes;
      return;
    }
    this.#runs(fd, file, filesystem, inode, size);
  }

  #stat(fd: number): boolean {
    const { calls, scratch } = this.#o;
    const { address } = scratch;
    scratch.bytes[EMPTY_AT] = 0;
    return calls.statx(fd, address + EMPTY_AT, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + STATX_AT) >= 0;
  }

  #device(): number {
    const { view } = this.#o.scratch;
    return view.getUint32(STATX_AT + STATX.devMajor, true) * 2 ** 32 + view.getUint32(STATX_AT + STATX.devMinor, true);
  }

  #isKnownLink(): boolean {
    const key = `${this.#device()}:${getU64(this.#o.scratch.view, STATX_AT + STATX.ino)}`;
    if (this.#links.has(key)) return true;
    this.#links.add(key);
    return false;
  }

  #setCached(file: number, bytes: number): void {
    if (file >= this.#cachedOf.length) {
      const larger = new Float64Array(this.#cachedOf.length * 2);
      larger.set(this.#cachedOf);
      this.#cachedOf = larger;
    }
    this.#cachedOf[file] = bytes;
  }

  /** The filesystem of the file at hand, whose struct statx is in the scratch memory. btrfs has a device per subvolume. */
  #filesystem(fd: number): Filesystem | undefined {
    const device = this.#device();
    const known = this.#filesystems.get(device);
    if (known !== undefined) return known;
    const { calls, scratch } = this.#o;
    if (calls.fstatfs(fd, scratch.address + STATFS_AT) < 0) return undefined;
    const magic = scratch.view.getUint32(STATFS_AT + STATFS.type, true);
    const kind = magic === c.BTRFS_SUPER_MAGIC ? 'btrfs' : 'xfs';
    let id = `device ${device}`;
    if (kind === 'btrfs' && calls.ioctl(fd, c.BTRFS_IOC_FS_INFO, scratch.address + INFO_AT) >= 0) {
      id = Buffer.from(scratch.bytes.subarray(FSID_AT, FSID_AT + FSID_BYTES)).toString('hex');
    }
    let filesystem = this.#byId.get(id);
    if (filesystem === undefined) {
      filesystem = { number: this.#byId.size, kind };
      this.#byId.set(id, filesystem);
    }
    this.#filesystems.set(device, filesystem);
    return filesystem;
  }

  /** Goes over the runs of pages that are in memory. */
  #runs(fd: number, file: number, filesystem: Filesystem, inode: number, size: number): void {
    const { residency, pageBytes } = this.#o;
    const pages = Math.ceil(size / pageBytes);
    const { cached } = this.#counts;
    const clean = this.#counts.dirty + this.#counts.writeback === 0;
    if (cached >= pages) {
      this.#run(fd, file, filesystem, inode, 0, pages, clean);
      return;
    }
    const bytes = residency.bitmapBytes(size);
    if (bytes > this.#bitmap.length) this.#bitmap = new Uint8Array(2 ** Math.ceil(Math.log2(bytes)));
    const bitmap = this.#bitmap.subarray(0, bytes);
    if (residency.residentPages(fd, size, bitmap) < 0) {
      this.files.changed++;
      return;
    }
    let first = -1;
    for (let page = 0; page <= pages; page++) {
      const here = page < pages && ((bitmap[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
      if (here && first < 0) first = page;
      if (here || first < 0) continue;
      if (!this.#run(fd, file, filesystem, inode, first, page, clean)) return;
      first = -1;
    }
  }

  /** A run of pages; dirty ones are left out, by halving it as often as need be. False when the file can't be identified. */
  #run(
    fd: number,
    file: number,
    filesystem: Filesystem,
    inode: number,
    first: number,
    end: number,
    clean: boolean,
  ): boolean {
    if (!clean) {
      const { residency, pageBytes } = this.#o;
      residency.count(fd, this.#part, first * pageBytes, (end - first) * pageBytes);
      if (this.#part.dirty + this.#part.writeback > 0) {
        if (end - first === 1) return true;
        const middle = (first + end) >>> 1;
        return (
          this.#run(fd, file, filesystem, inode, first, middle, false) &&
          this.#run(fd, file, filesystem, inode, middle, end, false)
        );
      }
    }
    return this.#extents(fd, file, filesystem, inode, first, end);
  }

  #extents(fd: number, file: number, filesystem: Filesystem, inode: number, first: number, end: number): boolean {
    const { ranges, pageBytes } = this.#o;
    const { number, kind } = filesystem;
    const to = end * pageBytes;
    const look = { filesystem: kind, inode, to, limit: EXTENTS_AT_A_TIME, sync: false, any: false } as const;
    for (let from = first * pageBytes; from < to; from = ranges.end) {
      const read = ranges.read(fd, { ...look, from });
      if (read < 0 || ranges.end <= from) {
        // A run that ends behind the end of the file, or an extent that can't be told.
        this.files.unidentified++;
        this.bytes.unidentified += to - from;
        return false;
      }
      for (let row = 0; row < ranges.count; row++) {
        const address = ranges.address(row);
        if (address === PRIVATE) continue;
        const slice = ranges.slice(row);
        const space = 2 * number + (slice === PLAIN ? 0 : 1);
        const start = slice === PLAIN ? address : (address / SECTOR_BYTES) * DECODED_BYTES + slice;
        this.#copies.add(space, start / UNIT_BYTES, ranges.length(row) / UNIT_BYTES, file);
      }
    }
    return true;
  }
}
