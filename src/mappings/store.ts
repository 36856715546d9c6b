/**
 * The store of shared mappings. A shared mapping is the page cache of an immutable reflink clone in the mount's folder of
 * the store: a clone is made once, never opened for writing again, and holds a reference on its extents.
 *
 * Why a file whose extents equal a clone's has the clone's bytes: while the clone exists, its extents can't be freed, and a
 * write to another owner goes elsewhere. So if the file's flushed map equals the clone's map, both read the same blocks.
 * Addresses prove that only while they are current (balance moves extents and frees the old addresses), so nothing is
 * concluded from a map that was read before: the index finds candidates by hash, and then file, clone and file again are
 * read and compared. Files that have no extents are compared by their items, in the same order (`content.ts`).
 *
 *     share(file) ──► match an existing clone, or make one ──► row
 *     row:  idle (on the list of idle mappings, least recently used first) ◄──acquire, release──► in use (backing id)
 *     idle ──its extents are nobody else's, room is needed, or the mount ends──► dropped: the clone is deleted
 *
 * Invariants: 1. A clone's descriptor for writing is closed before its row can be found. 2. A row in use is never dropped.
 * 3. A row that is given away again has another generation. 4. Backing files come from a read-only mount of the folder, so
 * the kernel itself refuses a writable open of a clone.
 */

import { EINVAL } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import { ExtentMap } from '../extents/extentmap.ts';
import type { ExtentReader, RefusalReason } from '../extents/identify.ts';
import { InlineItem } from '../extents/inlineitem.ts';
import * as k from './calls.ts';
import { type Content, contentOf, isSame, ownerOf, type SharedFile } from './content.ts';
import { HEAD_BYTES, isProgram, kindOf } from './kinds.ts';
import { LiveContents } from './livecontents.ts';
import type { StoreRefusal } from './refusal.ts';
import { type MappingRows, NONE } from './rows.ts';
import { NOBODY, Sightings } from './sightings.ts';
import { hasNoRoom, Space } from './space.ts';
import { Suspects } from './suspects.ts';

/** A mapping's row, or why there is none. */
type Outcome = number | StoreRefusal;

/** The composed route's side of large clones: see `composed.ts`. */
export interface LargeClones {
  /** Files of at least so many bytes matter to it. */
  readonly minBytes: number;
  /** How many bytes of a map's data it has already. */
  indexedBytes(map: ExtentMap, domain: number): number;
  addClone(row: number, size: number, inode: number, map: ExtentMap, domain: number): void;
  dropClone(row: number): void;
}

export interface StoreOptions {
  /** The table of mappings: empty, or an earlier server's. */
  readonly rows: MappingRows;
  readonly calls: k.StoreCalls;
  readonly reader: Pick<ExtentReader, 'identify' | 'inlineItem' | 'anyUnshared'>;
  readonly filesystem: 'btrfs' | 'xfs';
  /** What the composed route knows of extents; absent when it is off. */
  readonly composer?: LargeClones;
  readonly backing: k.MappingBacking;
  /** The mount's folder, on a mount that can be written. */
  readonly directoryFd: number;
  /** The same folder on a mount that is read-only and keeps no access times. */
  readonly readOnlyFd: number;
  readonly scratch: Memory;
  /** Whether a file has nothing in memory that must still be written to the device. */
  readonly isClean: (fd: number) => boolean;
  /** Whether files may be written through the mount: then databases and their like aren't shared. */
  readonly writable: boolean;
  /** The most mappings that may exist. */
  readonly maxMappings: number;
  /** Free bytes of the filesystem below which idle mappings are dropped and none is made. */
  readonly floorBytes: number;
  /** A clock that only goes forward, in milliseconds. */
  readonly monotonicMs: () => number;
}

/** Room in the scratch memory: a name, then a struct statx or statfs, then the first bytes of a file. */
const NAME_AT = 0;
const EMPTY_AT = 64;
const RESULT_AT = 128;
const HEAD_AT = 1024;
export const STORE_SCRATCH_BYTES = HEAD_AT + HEAD_BYTES;

const FS_NOCOW_FL = 0x0080_0000;

/**
 * What a larger file is, is looked at before it is cloned: a clone of many extents takes long to make and to drop. The first bytes of a
 * smaller one are read from its clone, where its readers will want them.
 */
const LARGE_BYTES = 1 << 20;

/** Files of more extents aren't shared whole: reading and comparing their maps would hold the mount up. */
const MAX_EXTENTS = 16_384;
/** A clone of more extents is made on another thread: 1 µs or so each. */
const EXTENTS_AT_ONCE = 128;
/** Dirty pages are written back after 30 s (vm.dirty_expire_centisecs); a file older than this is taken for clean. */
const DIRTY_WINDOW_MS = 60_000;
/** The most idle mappings that are dropped in one step. */
const DROP_STEP = 64;
/** Idle mappings dropped at a time when a clone has no room, and how often it is tried again. */
const ROOM_STEP = 8;
const ROOM_TRIES = 4;

export class MappingStore {
  made = 0;
  matched = 0;
  dropped = 0;
  /** Candidates of equal hash whose maps differed, or files that changed between two looks. */
  mismatched = 0;
  readonly #o: StoreOptions;
  readonly #rows: MappingRows;
  readonly #sightings = new Sightings();
  readonly #live: LiveContents;
  #making = 0;
  #bytes = 0;
  readonly #space: Space;
  readonly #suspects: Suspects;
  /** Idle mappings that are still to be dropped since a clone had no room. */
  #excess = 0;

  constructor(options: StoreOptions) {
    this.#o = options;
    this.#live = new LiveContents(options.monotonicMs);
    this.#space = new Space(options, RESULT_AT);
    this.#rows = options.rows;
    for (const row of this.#rows.alive()) this.#bytes += this.#rows.size(row);
    this.#suspects = new Suspects(this.#rows, options.monotonicMs, (row) => this.#check(row));
  }

  /** Mappings that exist. */
  get count(): number {
    return this.#rows.count;
  }

  /** Mappings that nobody has open. */
  get idle(): number {
    return this.#rows.idle;
  }

  /** The sum of the clones' sizes. */
  get bytes(): number {
    return this.#bytes;
  }

  size(row: number): number {
    return this.#rows.size(row);
  }

  /** The inode number of the clone, in the store. */
  inode(row: number): number {
    return this.#rows.inode(row);
  }

  generation(row: number): number {
    return this.#rows.generation(row);
  }

  isAlive(row: number, generation: number): boolean {
    return this.#rows.isAlive(row) && this.#rows.generation(row) === generation;
  }

  /**
   * The mapping that holds a file's bytes, found or made, or why there is none; later when the clone takes long to make. The caller
   * makes sure that the file didn't change meanwhile. `dropPages` drops another node's clean pages; false when there is no such node.
   */
  share(file: SharedFile, dropPages: (node: number) => boolean): Outcome | Promise<Outcome> {
    const { fd, size, inode } = file;
    // What this misses, since it isn't flushed, the flushed map that a match or a new clone ends with doesn't.
    const content = this.#look(fd, size, inode, 'first');
    if (typeof content === 'string') return content;
    if (content instanceof ExtentMap && content.count === 0) return 'unshared';
    if (this.#live.has(content.hash(), file.domain)) return 'live';
    if (file.sinceModifiedMs < DIRTY_WINDOW_MS && !this.#o.isClean(fd)) return 'dirty';
    const found = this.#match(content, file, () => this.#look(fd, size, inode, 'exact'));
    if (found !== NONE) {
      this.matched++;
      // The file's own clean pages would be a second copy.
      this.#o.calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
      return found;
    }
    if (content instanceof InlineItem) {
      const other = this.#sightings.meet(content.hash(), file.domain, ownerOf(content, file.uid), file.node);
      return other === NOBODY || !dropPages(other) ? 'inline' : this.#make(file, 1);
    }
    const { composer } = this.#o;
    if (composer !== undefined && size >= composer.minBytes) {
      if (composer.indexedBytes(content, file.domain) > size / 2) return 'packed';
    }
    return this.#make(file, content.count);
  }

  /** Whether a file has the mapping's content now. The caller makes sure that nobody is writing to it. */
  holds(row: number, { fd, size, inode }: Pick<SharedFile, 'fd' | 'size' | 'inode'>): boolean {
    const content = this.#look(fd, size, inode, 'exact');
    return typeof content !== 'string' && isSame(content, this.#contentOf(row));
  }

  /**
   * A file of a mapping's content was opened for writing while others read it: other files of the content aren't shared for some
   * time. Programs are exempt: nobody writes to them in place who doesn't want to crash those who run them.
   */
  learnLive(row: number): void {
    const fd = this.openClone(row);
    if (fd < 0) return;
    const head = this.#head(fd);
    this.#o.calls.close(fd);
    if (!isProgram(head)) this.#live.learn(this.#rows.hash(row), this.#rows.domain(row));
  }

  /** One more inode uses the mapping: its backing id, or a negated errno. */
  acquire(row: number): number {
    const rows = this.#rows;
    if (rows.users(row) === 0) {
      const kept = this.#o.backing.take(row, this.generation(row));
      const registered = kept > 0 ? kept : this.#register(row);
      if (registered < 0) return registered;
      rows.setBackingId(row, registered);
      rows.leaveIdle(row);
    }
    rows.setUsers(row, rows.users(row) + 1);
    return rows.backingId(row);
  }

  release(row: number): void {
    const rows = this.#rows;
    const left = rows.users(row) - 1;
    rows.setUsers(row, left);
    if (left > 0) return;
    this.#o.backing.keep(row, this.generation(row), rows.backingId(row));
    rows.setBackingId(row, 0);
    rows.enterIdle(row);
  }

  #register(row: number): number {
    const fd = this.openClone(row);
    if (fd < 0) return fd;
    const registered = this.#o.backing.open(fd);
    this.#o.calls.close(fd);
    return registered;
  }

  /** A descriptor of the clone, through the read-only mount, or a negated errno. To be closed by the caller. */
  openClone(row: number): number {
    const { calls, readOnlyFd, scratch } = this.#o;
    putString(scratch, NAME_AT, this.#name(row));
    return calls.openat(readOnlyFd, scratch.address + NAME_AT, c.O_RDONLY | c.O_NOFOLLOW | c.O_CLOEXEC, 0);
  }

  /**
   * A file lost a name: `row` is the mapping that it was found in, or -1 when it was never looked at. Its mapping, or any,
   * may be the last that holds its extents.
   */
  suspect(row: number): void {
    if (this.count === 0) return;
    this.#suspects.add(row);
  }

  /** Does a little of the work that can wait; to be called some times a second. Returns the number of mappings dropped. */
  tidy(): number {
    const before = this.dropped;
    if (this.count === 0) return 0;
    this.#suspects.tidy();
    if (this.#excess > 0 || this.isSpaceLow()) this.#excess = Math.max(0, this.#excess - this.dropIdle(DROP_STEP));
    return this.dropped - before;
  }

  /** Whether a file of the store is the clone of a mapping. */
  isClone(name: string): boolean {
    const row = Number.parseInt(name.slice(1), 16);
    return this.#rows.isAlive(row) && this.#name(row) === name;
  }

  /**
   * Takes over an earlier server's mappings. Those whose clone is gone, since it was killed while it dropped them, are dropped;
   * large ones are told to the composed route. Each is a step of its own, which `commit` ends.
   */
  adopt(commit: () => void): void {
    const { calls, composer } = this.#o;
    for (const row of this.#rows.alive()) {
      const large = composer !== undefined && this.size(row) >= composer.minBytes;
      if (this.#rows.users(row) > 0 && !large) continue;
      const fd = this.openClone(row);
      if (fd < 0) {
        if (this.#rows.users(row) === 0) this.#drop(row);
        commit();
        continue;
      }
      const map = large ? this.#look(fd, this.size(row), this.inode(row), 'exact') : undefined;
      if (map instanceof ExtentMap)
        composer?.addClone(row, this.size(row), this.inode(row), map, this.#rows.domain(row));
      calls.close(fd);
    }
  }

  #name(row: number): string {
    return `c${row.toString(16)}-${this.generation(row).toString(16)}`;
  }

  /** The row whose clone has this content, now; `again` reads the file's once more, after the clone's. */
  #match(
    content: Content,
    { size, domain, uid }: Pick<SharedFile, 'size' | 'domain' | 'uid'>,
    again: () => Content | RefusalReason,
  ): number {
    const owner = ownerOf(content, uid);
    for (const row of this.#rows.candidates({ hash: content.hash(), size, domain, owner })) {
      const clone = this.#contentOf(row);
      if (isSame(content, clone) && isSame(content, again())) return row;
      this.mismatched++;
    }
    return NONE;
  }

  /** What a row's clone has now. */
  #contentOf(row: number): Content | RefusalReason {
    const fd = this.openClone(row);
    if (fd < 0) return 'errno';
    const content = this.#look(fd, this.size(row), this.inode(row), 'exact');
    this.#o.calls.close(fd);
    return content;
  }

  /** What a file has now; `first` doesn't write dirty pages back, and ends when something isn't shared. */
  #look(fd: number, size: number, inode: number, how: 'first' | 'exact'): Content | RefusalReason {
    const { reader, filesystem } = this.#o;
    const sync = how === 'exact';
    return contentOf(reader, fd, { filesystem, size, inode, limit: MAX_EXTENTS, sync, stopAtUnshared: !sync });
  }

  #make(file: SharedFile, extents: number): Outcome | Promise<Outcome> {
    const { calls, directoryFd, scratch, filesystem } = this.#o;
    if (this.isSpaceLow()) {
      this.dropIdle(DROP_STEP);
      return 'no-space';
    }
    if (filesystem === 'btrfs') {
      if (calls.ioctl(file.fd, c.FS_IOC_GETFLAGS, scratch.address + RESULT_AT) < 0) return 'clone-failed';
      if ((scratch.view.getUint32(RESULT_AT, true) & FS_NOCOW_FL) !== 0) return 'nocow';
    }
    if (file.size >= LARGE_BYTES && this.#isLive(file.fd, file.size)) return 'live';
    const row = this.#takeRow();
    if (row === NONE) return 'too-many-mappings';
    putString(scratch, NAME_AT, this.#name(row));
    const flags = c.O_RDWR | c.O_CREAT | c.O_EXCL | c.O_NOFOLLOW | c.O_CLOEXEC;
    const clone = calls.openat(directoryFd, scratch.address + NAME_AT, flags, 0o400);
    if (clone < 0) {
      this.#rows.give(row);
      return hasNoRoom(clone) ? 'no-space' : 'clone-failed';
    }
    if (extents <= EXTENTS_AT_ONCE) {
      return this.#finishMaking(row, clone, file, calls.ioctl(clone, c.FICLONE, file.fd));
    }
    this.#making++;
    return calls.ioctl.later(clone, c.FICLONE, file.fd).then((result) => {
      this.#making--;
      return this.#finishMaking(row, clone, file, result);
    });
  }

  #finishMaking(row: number, clone: number, file: SharedFile, cloned: number): Outcome {
    const { calls, scratch } = this.#o;
    let result = cloned;
    for (let tries = 0; hasNoRoom(result) && tries < ROOM_TRIES && this.dropIdle(ROOM_STEP) > 0; tries++) {
      result = calls.ioctl(clone, c.FICLONE, file.fd);
    }
    // It may be a quota's room, and take all of them: the rest goes in other steps.
    this.#excess = hasNoRoom(result) ? this.idle : 0;
    if (result < 0) {
      this.#discard(row, clone);
      if (hasNoRoom(result)) return 'no-space';
      // Files with and without checksums don't take each other's extents (btrfs_remap_file_range_prep).
      return result === -EINVAL && this.#o.filesystem === 'btrfs' ? 'nocow' : 'clone-failed';
    }
    putString(scratch, EMPTY_AT, '');
    const { address, view } = scratch;
    const empty = address + EMPTY_AT;
    if (calls.statx(clone, empty, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + RESULT_AT) < 0) {
      this.#discard(row, clone);
      return 'clone-failed';
    }
    const size = getU64(view, RESULT_AT + k.STATX.size);
    const inode = getU64(view, RESULT_AT + k.STATX.ino);
    if (size < LARGE_BYTES && this.#isLive(clone, size)) {
      this.#discard(row, clone);
      return 'live';
    }
    const content = this.#look(clone, size, inode, 'exact');
    if (typeof content === 'string') {
      this.#discard(row, clone);
      return content;
    }
    const { domain, uid } = file;
    // Another open may have made the same clone while this one was being made on its thread.
    const twin = this.#match(content, { size, domain, uid }, () => this.#look(clone, size, inode, 'exact'));
    if (twin !== NONE) {
      this.#discard(row, clone);
      return twin;
    }
    calls.close(clone);
    this.#rows.publish(row, { size, hash: content.hash(), inode, domain, owner: ownerOf(content, uid) });
    const { composer } = this.#o;
    if (composer !== undefined && content instanceof ExtentMap && size >= composer.minBytes) {
      composer.addClone(row, size, inode, content, domain);
    }
    this.#bytes += size;
    this.made++;
    calls.posixFadvise(file.fd, 0, 0, c.POSIX_FADV_DONTNEED);
    return row;
  }

  /** Whether a file is one that is written in place while others read it, by what it begins with. */
  #isLive(fd: number, size: number): boolean {
    return this.#o.writable && kindOf(this.#head(fd), size) === 'live';
  }

  /** The first bytes of a file, good until the next call. */
  #head(fd: number): Uint8Array {
    const { calls, scratch } = this.#o;
    const got = calls.pread(fd, scratch.address + HEAD_AT, HEAD_BYTES, 0);
    return scratch.bytes.subarray(HEAD_AT, HEAD_AT + Math.max(0, got));
  }

  /** Gives up a clone that was being made. */
  #discard(row: number, clone: number): void {
    this.#o.calls.close(clone);
    this.#unlink(row);
    this.#rows.give(row);
  }

  #unlink(row: number): void {
    const { calls, directoryFd, scratch } = this.#o;
    putString(scratch, NAME_AT, this.#name(row));
    calls.unlinkat(directoryFd, scratch.address + NAME_AT, 0);
  }

  #takeRow(): number {
    if (this.count + this.#making >= this.#o.maxMappings && this.dropIdle(1) === 0) return NONE;
    return this.#rows.take();
  }

  /** Drops up to `most` idle mappings, least recently used first; returns how many. Each changes some 10 words of the tables. */
  dropIdle(most: number): number {
    let count = 0;
    for (; count < most && this.#rows.oldest !== NONE; count++) this.#drop(this.#rows.oldest);
    return count;
  }

  /** Deletes an idle mapping's clone. Files that it was found for will be looked at anew: its generation is over. */
  #drop(row: number): void {
    this.#rows.withdraw(row);
    this.#o.backing.drop(row, this.generation(row));
    this.#o.composer?.dropClone(row);
    this.#unlink(row);
    this.#bytes -= this.size(row);
    this.dropped++;
    this.#suspects.delete(row);
    this.#rows.give(row);
  }

  /** Drops the mapping if it is idle and an extent of it is nobody else's: then no file can be equal to it any more. */
  #check(row: number): boolean {
    if (!this.#rows.isAlive(row) || this.#rows.users(row) > 0) return false;
    const fd = this.openClone(row);
    if (fd < 0) return false;
    const alone = this.#o.reader.anyUnshared(fd, MAX_EXTENTS);
    this.#o.calls.close(fd);
    if (alone !== 1) return false;
    this.#drop(row);
    return true;
  }

  /** Whether free space is, or soon will be, under the floor. */
  isSpaceLow(): boolean {
    return this.#space.isLow();
  }
}
