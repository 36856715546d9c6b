/**
 * The composed route: which files take it, and what is kept of each while it is open.
 *
 *     closed ──opened; large, not wholly shared or opened for writing, enough of it shared, clean, no other writer──► composed
 *     composed: READ and WRITE come to us (`composedio.ts`); pages of maps are the FUSE inode's, filled and written by READ and WRITE
 *     composed ──last release──► closed
 *
 * Invariants: 1. What was written through the mount since the file was opened is read from the file. 2. When a file takes the
 * route no page of it is dirty and nobody has it open for writing: a map of the file's own pages, left from the own route,
 * would dirty them unseen. 3. When a change of the file around the mount is noticed, at its next open at the latest, all
 * of it is read from the file until it is closed. It is noticed by the file's times, which are compared before each change through
 * the mount as well, since that moves them.
 */

import { END, FIRST_LINEAR } from '../../base/intervalmap.ts';
import * as c from '../../base/linux.ts';
import type { Memory } from '../../base/memory.ts';
import { RowTable } from '../../extents/extentmap.ts';
import { PRIVATE, type RangeReader } from '../../extents/ranges.ts';
import type { ComposedFile, Composer } from '../../mappings/composed.ts';
import type { Packs } from '../../mappings/packs.ts';
import { noPages, type Residency } from '../../pagecache/residency.ts';
import type { SourceCalls } from '../calls.ts';
import { NO_DOMAIN } from '../domains.ts';
import { SCRATCH } from '../scratch.ts';
import { Stat } from '../stat.ts';
import type { Buffers } from './buffers.ts';
import { isWrittenElsewhere } from './lease.ts';
import { type Change, NO_CHANGE } from './route.ts';

/** Why a large file doesn't take the composed route. */
export type ComposedRefusal =
  /** Too little of it is shared. */
  | 'unshared'
  /** It has data that isn't on disk yet, and is much or stays dirty. */
  | 'dirty'
  /** Someone has it open for writing, around the mount or by a map that outlived its open file. */
  | 'written-elsewhere'
  /** btrfs writes it in place (chattr +C). */
  | 'nocow'
  | 'realtime'
  /** It changed while it was being looked at. */
  | 'changing';

/** A file that is open on the composed route. */
export interface ComposedOpen {
  file: ComposedFile;
  /** What `file` is to be replaced by, while the file's dirty pages are being written after a takeover. */
  fresh: ComposedFile | undefined;
  /** What the file was when it was last looked at, which is after each change through the mount; NaN where that failed. */
  size: number;
  readonly times: Float64Array;
  /** Changes of it that are on their way. */
  changing: number;
  checkedMs: number;
  /** The look before which the file's access time was last moved. */
  accessedMs: number;
  /** Where the last read of its own pages ended, which had to wait: for readahead. */
  ownReadEnd: number;
}

export interface ComposingOptions {
  readonly calls: SourceCalls;
  readonly ranges: RangeReader;
  readonly residency: Residency;
  readonly composer: Composer;
  readonly packs: Packs;
  readonly buffers: Buffers;
  readonly filesystem: 'btrfs' | 'xfs';
  readonly scratch: Memory;
  /** Files smaller than this don't take the route. */
  readonly minBytes: number;
  /** How much of a file must be shared, in percent. */
  readonly minShare: number;
  /** Whether a file is on the realtime device of XFS: positive if so, or a negated errno. */
  readonly isRealtime: (fd: number) => number;
  readonly monotonicMs: () => number;
}

const FS_NOCOW_FL = 0x0080_0000;
/** A file with more dirty pages isn't flushed at its open. */
const MAX_DIRTY_PAGES = 4096;
/** Sums of a larger file's offsets would not be exact. */
const MAX_BYTES = 2 ** 52;
const PROBES = 8;
const PROBE_EXTENTS = 4;
const PROBE_BYTES = 1 << 20;
/** How often an open file's times are looked at while it is read. */
const LOOK_INTERVAL_MS = 50;

/** Scratch memory of this route, in bytes: a struct iovec. */
export const COMPOSING_SCRATCH_BYTES = 64;

export class Composing {
  /** Bytes answered from targets, from the files' own pages, and as zeros. */
  mappingBytes = 0;
  ownBytes = 0;
  zeroBytes = 0;
  /** Requests that had to wait for a device. */
  slowReads = 0;
  slowWrites = 0;
  /** Open files that left their targets because they had changed around the mount, or because room was needed. */
  resets = 0;
  readonly buffers: Buffers;
  readonly composer: Composer;
  readonly packs: Packs;
  /** The pieces of the request being served: see `composedio.ts`. */
  readonly pieces = new RowTable();
  readonly iovec: Memory;
  readonly #o: ComposingOptions;
  readonly #open = new Map<number, ComposedOpen>();
  readonly #counts = noPages();
  readonly #stat: Stat;

  constructor(options: ComposingOptions, iovec: Memory) {
    this.#o = options;
    this.#stat = new Stat(options.scratch, SCRATCH.look);
    this.buffers = options.buffers;
    this.composer = options.composer;
    this.packs = options.packs;
    this.iovec = iovec;
  }

  /** Bytes that the maps of open files take. */
  get heldBytes(): number {
    let sum = 0;
    for (const { file } of this.#open.values()) sum += file.map.heldBytes;
    return sum;
  }

  /**
   * Of how many blocks of each target the maps of open files say that they are read from it; a block counts for each file. Looks
   * at `limit` runs at most.
   */
  mappedBlocks(limit: number): Map<number, number> {
    const blocks = new Map<number, number>();
    let runs = 0;
    for (const { file } of this.#open.values()) {
      const { map } = file;
      for (let at = 0; at < END && runs < limit; at = map.end, runs++) {
        const position = map.find(at);
        if (position < FIRST_LINEAR) continue;
        const target = this.packs.target(position);
        blocks.set(target, (blocks.get(target) ?? 0) + map.end - at);
      }
    }
    return blocks;
  }

  /** The open file of a row of the open file table, if it is on this route. */
  of(row: number): ComposedOpen | undefined {
    return this.#open.get(row);
  }

  /** A file takes the route. */
  admit(row: number, open: ComposedOpen): void {
    this.#open.set(row, open);
  }

  /** A row's file was opened once more, through `fd`. */
  opened(row: number, fd: number): void {
    const open = this.#open.get(row);
    if (open !== undefined) this.lookAgain(open, fd, true);
  }

  closed(row: number): void {
    const open = this.#open.get(row);
    if (open === undefined) return;
    this.#open.delete(row);
    this.#o.composer.close(open.file);
    open.fresh = undefined;
  }

  /**
   * Takes over a file that an earlier server had open, whose map is gone. At first all of it is read from the file itself: what was
   * written to it may be in memory only, where its extents don't show it. When that is on the disk, its extents are looked at
   * anew, but for what was written meanwhile. `fd` is open for reading and taken over; negative where that failed.
   */
  adopt(row: number, fd: number, domain: number): void {
    const { calls, composer } = this.#o;
    const open = this.#unknown();
    if (fd >= 0) this.#readTimes(open, fd);
    composer.ownAll(open.file);
    this.#open.set(row, open);
    if (fd >= 0 && domain === NO_DOMAIN) calls.close(fd);
    if (fd < 0 || domain === NO_DOMAIN) return;
    const fresh = composer.create(open.size, this.#stat.inode, true, domain);
    open.fresh = fresh;
    void calls.fdatasync.later(fd).then((synced) => {
      calls.close(fd);
      if (synced < 0 || open.fresh !== fresh) return;
      open.fresh = undefined;
      open.file = fresh;
    });
  }

  /**
   * Whether a file, closed on the mount until now, takes the route. `fd` is open for reading, and the only descriptor that we have
   * of it. The answer comes later when dirty pages have to be written first; the descriptor stays the caller's. `whole` says
   * whether files of which every look shows shared extents only take it, too.
   */
  decide(
    fd: number,
    whole: boolean,
    domain: number,
  ): ComposedOpen | ComposedRefusal | Promise<ComposedOpen | ComposedRefusal> {
    const open = this.#candidate(fd, whole, domain);
    if (open !== 'dirty') return open;
    if (this.#dirtyPages > MAX_DIRTY_PAGES) return 'dirty';
    return this.#o.calls.fdatasync.later(fd).then(() => this.#candidate(fd, whole, domain));
  }

  /** Whether a file of this size may take the route. */
  fits(size: number): boolean {
    return size >= this.#o.minBytes;
  }

  /**
   * Looks whether the file was changed around the mount, if it is time to; with `now`, in any case. While a change through the mount
   * is on its way nothing can be told: the times move by it.
   */
  lookAgain(open: ComposedOpen, fd: number, now: boolean): void {
    const ms = this.#o.monotonicMs();
    if (open.changing > 0 || (!now && ms - open.checkedMs < LOOK_INTERVAL_MS)) return;
    open.checkedMs = ms;
    this.#compare(open, fd);
  }

  /**
   * The bytes from..to of a row's file are about to be changed through the mount, by means of `fd` or another descriptor. The times
   * are compared before, so that a change around the mount isn't hidden by ours, and read after.
   */
  change(row: number, fd: number, from: number, to: number): Change {
    const open = this.#open.get(row);
    if (open === undefined) return NO_CHANGE;
    if (open.changing === 0) this.#compare(open, fd);
    this.#o.composer.own(open.file, from, to);
    if (open.fresh !== undefined) this.#o.composer.own(open.fresh, from, to);
    open.changing++;
    return {
      done: () => {
        open.changing--;
        if (open.changing === 0) this.#readTimes(open, fd);
      },
    };
  }

  /** All of a file that isn't what it was is read from the file itself. */
  #compare(open: ComposedOpen, fd: number): void {
    if (this.#readTimes(open, fd)) return;
    this.resets++;
    open.fresh = undefined;
    this.#o.composer.ownAll(open.file);
  }

  /** Makes room on the disk: gives up what no open file uses, else all of it. Returns whether there was anything. */
  makeRoom(): boolean {
    const { packs, composer } = this.#o;
    if (packs.dropIdle() > 0 || packs.burying) return true;
    if (packs.packs === 0) return false;
    for (const open of this.#open.values()) {
      composer.ownAll(open.file);
      open.fresh = undefined;
      this.resets++;
    }
    return packs.dropIdle() > 0;
  }

  #candidate(fd: number, whole: boolean, domain: number): ComposedOpen | ComposedRefusal {
    const { calls, filesystem, scratch, isRealtime, composer } = this.#o;
    const open = this.#unknown();
    this.#readTimes(open, fd);
    if (!(open.size <= MAX_BYTES)) return 'changing';
    const { inode } = this.#stat;
    if (filesystem === 'btrfs') {
      if (calls.ioctl(fd, c.FS_IOC_GETFLAGS, scratch.address + SCRATCH.small) < 0) return 'nocow';
      if ((scratch.view.getUint32(SCRATCH.small, true) & FS_NOCOW_FL) !== 0) return 'nocow';
    } else if (isRealtime(fd) !== 0) {
      return 'realtime';
    }
    if (!this.#isShared(fd, open.size, inode, whole)) return 'unshared';
    if (isWrittenElsewhere(calls, fd)) return 'written-elsewhere';
    const counts = this.#counts;
    if (this.#o.residency.count(fd, counts) < 0 || this.#dirtyPages > 0) return 'dirty';
    return { ...open, file: composer.create(open.size, inode, counts.cached > 0, domain) };
  }

  /** A file of which nothing is known yet. */
  #unknown(): ComposedOpen {
    return {
      file: this.#o.composer.create(0, 0, false, 0),
      fresh: undefined,
      size: Number.NaN,
      times: new Float64Array(4),
      changing: 0,
      checkedMs: this.#o.monotonicMs(),
      accessedMs: Number.NEGATIVE_INFINITY,
      ownReadEnd: -1,
    };
  }

  /** Whether enough of the file is shared, by a look at some places of it. */
  #isShared(fd: number, size: number, inode: number, whole: boolean): boolean {
    const { ranges, filesystem, minShare, composer } = this.#o;
    const wanted = Math.ceil((PROBES * minShare) / 100);
    const { blockBytes } = composer;
    let found = 0;
    let diverged = whole;
    for (let probe = 0; probe < PROBES && (found < wanted || !diverged); probe++) {
      const at = (size / PROBES) * probe;
      const from = at - (at % blockBytes);
      const to = Math.min(size, from + PROBE_BYTES);
      const look = { filesystem, inode, from, to, limit: PROBE_EXTENTS, sync: false, any: false };
      if (ranges.read(fd, look) < 0) continue;
      let shared = false;
      for (let row = 0; row < ranges.count; row++) {
        if (ranges.address(row) === PRIVATE) diverged = true;
        else shared = true;
      }
      if (shared) found++;
    }
    return found >= wanted && diverged;
  }

  /** Dirty pages of the last candidate, and those being written. */
  get #dirtyPages(): number {
    return this.#counts.dirty + this.#counts.writeback;
  }

  /** Reads size and times of the file; returns whether they are what they were. */
  #readTimes(open: ComposedOpen, fd: number): boolean {
    const stat = this.#stat;
    if (stat.read(this.#o.calls, fd) < 0) {
      open.size = Number.NaN;
      return false;
    }
    const { times } = open;
    const same =
      open.size === stat.size &&
      times[0] === stat.mtime &&
      times[1] === stat.mtimensec &&
      times[2] === stat.ctime &&
      times[3] === stat.ctimensec;
    open.size = stat.size;
    times[0] = stat.mtime;
    times[1] = stat.mtimensec;
    times[2] = stat.ctime;
    times[3] = stat.ctimensec;
    return same;
  }
}
