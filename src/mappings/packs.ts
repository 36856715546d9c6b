/**
 * Targets: the files of the store in which the composed route finds shared extents. Two kinds:
 *
 *     pack    `pN`, made for this route: shared extents of any files, one behind the other, each by FICLONERANGE. What was
 *             put into a pack never changes; only its end moves, as long as it is the current one.
 *     clone   a large file's whole clone, made for the shared route (`store.ts`), so that a diverged copy of it finds its pages
 *
 * A position names a block of a target. Positions are dealt out by regions: a target's first block is at the start of a
 * region, so a position's target is found by a shift, and one 32-bit number names any block of 16 TiB of targets (with
 * blocks of 4 KiB).
 *
 * Life of a pack:  current (filled) ──full──► kept ──nobody has a file open that uses it, and: much of it is nobody else's, or
 *                  it was idle for long, or room is needed──► buried: deleted on another thread, its positions free again
 */

import { EFBIG, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { setU64 } from '../base/struct.ts';
import { PLAIN } from '../extents/extentmap.ts';
import type { Owners } from '../extents/owners.ts';
import { PRIVATE, type RangeReader } from '../extents/ranges.ts';
import type { StoreCalls } from './calls.ts';

/** Blocks of a region, as a power of two. */
const REGION_SHIFT = 18;
const REGION_BLOCKS = 1 << REGION_SHIFT;
const REGIONS = 1 << (32 - REGION_SHIFT);
/** A pack is full when it has so many extents: deleting one costs some 40 µs per extent. */
const MAX_PACK_EXTENTS = 8192;
/** An idle pack of which so large a part is nobody else's is buried. */
const WASTE = 0.25;
const MAX_IDLE_MS = 600_000;
/** Idle packs that are buried at a time when room is needed: with each, an index of up to 262,144 rows is gone through. */
const BURIED_AT_ONCE = 8;
/** Extents looked at per step of the search for waste, steps at a time after a deletion, and the rest after a whole search. */
const STEP_EXTENTS = 32;
const BUSY_STEPS = 2;
const REST_MS = 10_000;

const NOTHING = -1;

/** Scratch memory of the packs, in bytes: a name, and a struct file_clone_range. */
export const PACKS_SCRATCH_BYTES = 128;
const RANGE_AT = 64;

export interface PackCalls extends StoreCalls {
  close: {
    (fd: number): number;
    later(fd: number): Promise<number>;
  };
}

interface Target {
  /** Its first region, and how many it has. */
  readonly region: number;
  readonly regions: number;
  /** The row of a clone in the table of mappings, or -1 for a pack. */
  readonly clone: number;
  readonly name: string;
  readonly inode: number;
  /** Open for reading, or -1: a clone that no open file uses. */
  fd: number;
  blocks: number;
  extents: number;
  /** Open files that use it. */
  users: number;
  idleSinceMs: number;
  /** Deleted in the store; it goes when its last user does. */
  dead: boolean;
}

export interface PacksOptions {
  readonly calls: PackCalls;
  readonly ranges: RangeReader;
  readonly filesystem: 'btrfs' | 'xfs';
  /** Tells whose extents are, where SHARED doesn't: btrfs, with the store in a subvolume of its own. */
  readonly owners: { readonly of: Owners; readonly storeRoot: number } | undefined;
  readonly blockBytes: number;
  readonly directoryFd: number;
  readonly readOnlyFd: number;
  readonly scratch: Memory;
  /** A clone of the shared route, open for reading, or a negated errno. */
  readonly openClone: (row: number) => number;
  /** Inode number of an open file, or a negated errno. */
  readonly inodeOf: (fd: number) => number;
  /** The number of the first pack: an earlier server's may still be there. */
  readonly firstName: number;
  readonly monotonicMs: () => number;
  /** The positions from..to mean nothing any more. */
  readonly onFree: (from: number, to: number) => void;
}

export class Packs {
  made = 0;
  dropped = 0;
  /** Packs that exist, and clones that are targets. */
  packs = 0;
  clones = 0;
  /** Set by `append`: how many blocks it took. */
  appended = 0;
  readonly #o: PacksOptions;
  readonly #targets = new Map<number, Target>();
  readonly #byClone = new Map<number, Target>();
  /** The target of each region, by its first region; 0 where there is none: region 0 is never dealt out. */
  readonly #owner = new Uint16Array(REGIONS);
  /** The pack that takes extents now, by domain. */
  readonly #current = new Map<number, { readonly target: Target; readonly fd: number }>();
  #domain = 0;
  #names: number;
  #nextRegion = 1;
  /** The idle pack that is searched for waste, how far, and what was found. */
  #searched = 0;
  #searchedTo = 0;
  #waste = 0;
  #restUntilMs = 0;
  /** Packs that are to be searched at once. */
  #hurry = 0;
  #burying = 0;
  #buried: Promise<unknown> = Promise.resolve();

  constructor(options: PacksOptions) {
    this.#o = options;
    this.#names = options.firstName;
  }

  /** What is put into packs until the next call belongs to this domain. */
  use(domain: number): void {
    this.#domain = domain;
  }

  /** The target that a position lies in; 0 for a position that means nothing. */
  target(position: number): number {
    return this.#owner[position >>> REGION_SHIFT] ?? 0;
  }

  /** A descriptor of the target, for reading, or a negated errno. It stays open while the target is retained. */
  descriptor(id: number): number {
    const target = this.#targets.get(id);
    if (target === undefined) return -ESTALE;
    if (target.fd < 0 && target.clone >= 0) target.fd = this.#o.openClone(target.clone);
    return target.fd;
  }

  get blockBytes(): number {
    return this.#o.blockBytes;
  }

  inode(id: number): number {
    return this.#targets.get(id)?.inode ?? 0;
  }

  /** How long the target is. */
  bytes(id: number): number {
    return (this.#targets.get(id)?.blocks ?? 0) * this.#o.blockBytes;
  }

  /** The byte offset of a position in its target. */
  offset(position: number): number {
    const first = (this.#owner[position >>> REGION_SHIFT] ?? 0) * REGION_BLOCKS;
    return (position - first) * this.#o.blockBytes;
  }

  /** How many blocks from a position on lie in the same target. */
  room(position: number): number {
    const target = this.#targets.get(this.target(position));
    return target === undefined ? 0 : (target.region + target.regions) * REGION_BLOCKS - position;
  }

  retain(id: number): void {
    const target = this.#targets.get(id);
    if (target !== undefined) target.users++;
  }

  release(id: number): void {
    const target = this.#targets.get(id);
    if (target === undefined || --target.users > 0) return;
    target.idleSinceMs = this.#o.monotonicMs();
    if (target.dead) this.#free(target);
    else if (target.clone >= 0) this.#closeClone(target);
  }

  /** Closes the descriptor of a clone that was opened for a look and that nobody uses. */
  settle(id: number): void {
    const target = this.#targets.get(id);
    if (target !== undefined && target.users === 0 && target.clone >= 0) this.#closeClone(target);
  }

  /**
   * Puts `blocks` blocks of an open file, from `offset` on, behind what the current pack holds; they are about so many extents.
   * Returns the position of the first, or a negated errno.
   */
  append(fd: number, offset: number, blocks: number, extents: number): number {
    const { calls, scratch, blockBytes } = this.#o;
    const current = this.#open();
    if (typeof current === 'number') return current;
    const { target } = current;
    const fitting = Math.min(blocks, REGION_BLOCKS - target.blocks);
    // struct file_clone_range: src_fd i64, src_offset, src_length, dest_offset u64.
    setU64(scratch.view, RANGE_AT, fd);
    setU64(scratch.view, RANGE_AT + 8, offset);
    setU64(scratch.view, RANGE_AT + 16, fitting * blockBytes);
    setU64(scratch.view, RANGE_AT + 24, target.blocks * blockBytes);
    const cloned = calls.ioctl(current.fd, c.FICLONERANGE, scratch.address + RANGE_AT);
    if (cloned < 0) return cloned;
    const position = target.region * REGION_BLOCKS + target.blocks;
    target.blocks += fitting;
    target.extents += extents;
    this.appended = fitting;
    return position;
  }

  /** Takes a clone of the shared route for a target; returns the position of its first block, or 0 when there is no room. */
  addClone(row: number, size: number, inode: number): number {
    const blocks = Math.floor(size / this.#o.blockBytes);
    const regions = Math.ceil(blocks / REGION_BLOCKS);
    const region = this.#takeRegions(regions);
    if (region === 0) return 0;
    const target = this.#add({ region, regions, clone: row, name: '', inode, fd: -1, blocks });
    this.#byClone.set(row, target);
    this.clones++;
    return region * REGION_BLOCKS;
  }

  /** The store has deleted the clone. */
  dropClone(row: number): void {
    const target = this.#byClone.get(row);
    if (target === undefined) return;
    this.#byClone.delete(row);
    this.clones--;
    target.dead = true;
    if (target.users === 0) this.#free(target);
  }

  /** A name went away or content was replaced: packs may hold what nobody else does. */
  suspect(): void {
    this.#hurry = this.packs;
  }

  /** Does a little of the work that can wait. */
  tidy(): void {
    if (this.#hurry === 0 && this.#o.monotonicMs() < this.#restUntilMs) return;
    const steps = this.#hurry > 0 ? BUSY_STEPS : 1;
    for (let step = 0; step < steps && this.packs > 0; step++) this.#search();
  }

  /** Buries some packs that no open file uses, a few at a time; returns how many. */
  dropIdle(): number {
    let count = 0;
    for (const target of this.#targets.values()) {
      if (count === BURIED_AT_ONCE) break;
      if (target.clone >= 0 || target.users > 0 || target.dead) continue;
      this.#bury(target);
      count++;
    }
    return count;
  }

  /** Closes what is open, for the end of the mount. Packs are deleted with the mount's folder. */
  close(): void {
    for (const { fd } of this.#current.values()) this.#o.calls.close(fd);
    this.#current.clear();
    for (const { fd } of this.#targets.values()) if (fd >= 0) this.#o.calls.close(fd);
    this.#targets.clear();
  }

  /** Whether packs are being deleted on another thread: the space isn't free yet. */
  get burying(): boolean {
    return this.#burying > 0;
  }

  /** Settles when what is being deleted now is gone. */
  async buried(): Promise<void> {
    await this.#buried;
  }

  #add(given: Pick<Target, 'region' | 'regions' | 'clone' | 'name' | 'inode' | 'fd' | 'blocks'>): Target {
    const target: Target = { ...given, extents: 0, users: 0, idleSinceMs: this.#o.monotonicMs(), dead: false };
    this.#owner.fill(target.region, target.region, target.region + target.regions);
    this.#targets.set(target.region, target);
    return target;
  }

  /** The pack that takes extents now. */
  #open(): { readonly target: Target; readonly fd: number } | number {
    const { calls, scratch, directoryFd, readOnlyFd, inodeOf } = this.#o;
    const current = this.#current.get(this.#domain);
    if (current !== undefined) {
      const { target, fd } = current;
      if (target.blocks < REGION_BLOCKS && target.extents < MAX_PACK_EXTENTS) return current;
      this.#current.delete(this.#domain);
      calls.close(fd);
    }
    const region = this.#takeRegions(1);
    if (region === 0) return -EFBIG;
    const name = `p${(this.#names++).toString(16)}`;
    putString(scratch, 0, name);
    const flags = c.O_RDWR | c.O_CREAT | c.O_EXCL | c.O_NOFOLLOW | c.O_CLOEXEC;
    const fd = calls.openat(directoryFd, scratch.address, flags, 0o400);
    if (fd < 0) return fd;
    const readFd = calls.openat(readOnlyFd, scratch.address, c.O_RDONLY | c.O_NOFOLLOW | c.O_CLOEXEC, 0);
    const inode = readFd < 0 ? readFd : inodeOf(readFd);
    if (inode < 0) {
      calls.close(fd);
      if (readFd >= 0) calls.close(readFd);
      calls.unlinkat(directoryFd, scratch.address, 0);
      return inode;
    }
    const target = this.#add({ region, regions: 1, clone: NOTHING, name, inode, fd: readFd, blocks: 0 });
    this.made++;
    this.packs++;
    const made = { target, fd };
    this.#current.set(this.#domain, made);
    return made;
  }

  /** The first of so many free regions in a row, or 0. */
  #takeRegions(count: number): number {
    for (let tries = 0, region = this.#nextRegion; tries < REGIONS; tries++, region++) {
      if (region + count > REGIONS) region = 1;
      let free = 0;
      while (free < count && this.#owner[region + free] === 0) free++;
      if (free === count) {
        this.#nextRegion = region + count;
        return region;
      }
    }
    return 0;
  }

  #closeClone(target: Target): void {
    if (target.fd >= 0) this.#o.calls.close(target.fd);
    target.fd = NOTHING;
  }

  /** Deletes a pack. Its inode goes, which takes long, when its descriptors are closed on another thread. */
  #bury(target: Target): void {
    const { calls, scratch, directoryFd } = this.#o;
    for (const [domain, current] of this.#current) {
      if (current.target !== target) continue;
      calls.close(current.fd);
      this.#current.delete(domain);
    }
    putString(scratch, 0, target.name);
    calls.unlinkat(directoryFd, scratch.address, 0);
    target.dead = true;
    this.packs--;
    this.dropped++;
    if (target.users === 0) this.#free(target);
  }

  #free(target: Target): void {
    this.#targets.delete(target.region);
    this.#owner.fill(0, target.region, target.region + target.regions);
    this.#o.onFree(target.region * REGION_BLOCKS, (target.region + target.regions) * REGION_BLOCKS);
    if (target.fd < 0) return;
    this.#burying++;
    const gone = this.#o.calls.close.later(target.fd).then(() => {
      this.#burying--;
    });
    this.#buried = Promise.all([this.#buried, gone]);
  }

  /** Goes on with the search for waste in one idle pack. */
  #search(): void {
    const target = this.#targets.get(this.#searched);
    if (target === undefined || target.clone >= 0 || target.dead || target.users > 0) {
      this.#searchNext();
      return;
    }
    if (this.#o.monotonicMs() - target.idleSinceMs > MAX_IDLE_MS) {
      this.#bury(target);
      return;
    }
    const { ranges, filesystem, blockBytes } = this.#o;
    const to = target.blocks * blockBytes;
    const look = {
      filesystem,
      inode: target.inode,
      from: this.#searchedTo,
      to,
      limit: STEP_EXTENTS,
      sync: false,
      any: false,
    };
    const failed = this.#searchedTo < to ? ranges.read(target.fd, look) : 0;
    if (failed < 0) {
      this.#searchNext();
      return;
    }
    if (this.#searchedTo < to) {
      for (let row = 0; row < ranges.count; row++) {
        if (this.#isOurs(target.fd, row)) this.#waste += ranges.length(row);
      }
      this.#searchedTo = ranges.end;
      return;
    }
    if (this.#waste > to * WASTE || to === 0) this.#bury(target);
    this.#searchNext();
  }

  /** Whether a row of a pack is nobody else's, by a look at its first block and its last. */
  #isOurs(fd: number, row: number): boolean {
    const { ranges, owners, blockBytes } = this.#o;
    const address = ranges.address(row);
    if (address === PRIVATE) return true;
    if (owners === undefined || owners.of.onlyOf(fd, address, owners.storeRoot) !== 1) return false;
    if (ranges.slice(row) !== PLAIN) return true;
    return owners.of.onlyOf(fd, address + ranges.length(row) - blockBytes, owners.storeRoot) === 1;
  }

  #searchNext(): void {
    this.#searchedTo = 0;
    this.#waste = 0;
    this.#hurry = Math.max(0, this.#hurry - 1);
    let first = 0;
    let next = 0;
    for (const region of this.#targets.keys()) {
      if (first === 0 || region < first) first = region;
      if (region > this.#searched && (next === 0 || region < next)) next = region;
    }
    if (next === 0) this.#restUntilMs = this.#o.monotonicMs() + REST_MS;
    this.#searched = next === 0 ? first : next;
  }
}
