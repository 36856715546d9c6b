/**
 * The locks of a mount. They are the source file's: a file that left the shared route has two nodes, one of its old readers and
 * one of everybody else, and what is locked through the one is locked through the other. So the kernel asks us for each lock
 * (FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS) and keeps none itself.
 *
 * When a lock ends:
 * - flocks and those of open file descriptions: with the RELEASE of the open that they were taken through. So every open has a
 *   handle: one that needs no descriptor gets a serial number from FIRST_SERIAL on.
 * - those of a process: when it closes any descriptor of the file. FLUSH tells of that, which would cost every open a round trip.
 *   So an open that is likely to see no lock is **quiet** (FOPEN_NOFLUSH): one for reading only, or of a file just made or
 *   emptied, as long as the file has no lock. Processes that lock a file that has quiet opens are **watched**: which of their
 *   descriptors lead to it is looked up once, and whether they still do before any lock of theirs is held against anyone, at each
 *   open and RELEASE of the file, and twenty times a second while somebody waits.
 *
 * What is locked lies in rows that a later server takes over. What waits comes again to it.
 */

import { EAGAIN, EDEADLK, EINTR, ENOLCK } from '../../base/errno.ts';
import { F_UNLCK } from '../../base/linux.ts';
import { Parked } from '../../fuse/server/parked.ts';
import { inodeName, shownInode } from '../handles.ts';
import type { NodeTable } from '../nodes.ts';
import { type Conflict, FileLocks, isCircle, Owner, type Wanted } from './filelocks.ts';
import type { Processes } from './processes.ts';
import type { LockType } from './ranges.ts';
import { type LockRows, TWO_TO_32 } from './rows.ts';

/** Handles from here on are serial numbers of opens without a descriptor: those of quiet opens are odd. */
export const FIRST_SERIAL = 2 ** 40;

/** Whether a handle is that of a quiet open without a descriptor. */
export function isQuietSerial(handle: number): boolean {
  return handle >= FIRST_SERIAL && handle % 2 === 1;
}

/** When it is looked again what a thread asks for that was found running. */
const LOOK_AGAIN_MS = 1;
/** How often that is done at once. */
const LOOKS = 4;

/** Owners of one file, and twice as many each time, at which those that are gone are looked for. */
const MANY_OWNERS = 64;

export interface LocksOptions {
  readonly nodes: NodeTable;
  readonly rows: LockRows;
  readonly processes: Processes;
  /** The subvolume of the source's root: see `foldInode`. */
  readonly ownSubvolume: number;
}

/** A request for a lock, as it came. */
export interface LockRequest {
  readonly slot: number;
  readonly handle: number;
  /** The kernel's number for whose the lock is. */
  readonly owner: bigint;
  readonly start: bigint;
  readonly end: bigint;
  readonly type: LockType | typeof F_UNLCK;
  readonly pid: number;
  readonly thread: number;
  readonly flock: boolean;
  readonly waits: boolean;
}

interface Waiter extends Wanted {
  readonly slot: number;
  readonly parked: Parked;
}

type File = FileLocks<Waiter>;

export class Locks {
  readonly #options: LocksOptions;
  /** Files with locks, waits, or owners that had a lock since they opened the file. */
  readonly #files = new Map<string, File>();
  /** The rows of each watched descriptor. */
  readonly #watchRows = new Map<Owner, readonly number[]>();

  constructor(options: LocksOptions) {
    this.#options = options;
    this.#takeUp();
  }

  /** Ranges that are locked, and descriptors that are watched. */
  get count(): number {
    return this.#options.rows.count;
  }

  /** Requests that wait for a lock. */
  get waiters(): number {
    let sum = 0;
    for (const file of this.#files.values()) sum += file.waiters.size;
    return sum;
  }

  /** The handle of an open that has no descriptor of ours. */
  nameOpen(quiet: boolean): number {
    return FIRST_SERIAL + this.#options.rows.nextSerial() * 2 + (quiet ? 1 : 0);
  }

  /** Whether an open of a sort that is likely to see no lock is quiet; it is counted then, until it is released. */
  opensQuietly(slot: number): boolean {
    const quiet = this.#mayBeQuiet(slot);
    if (quiet) this.#options.nodes.addQuiet(slot, 1);
    return quiet;
  }

  #mayBeQuiet(slot: number): boolean {
    const { nodes } = this.#options;
    const locked = nodes.isLocked(slot);
    if (!locked && this.#files.size === 0) return true;
    const file = this.#files.get(this.#keyOf(slot));
    if (file === undefined) return !locked;
    // A number that was closed would soon lead to the file again.
    if (this.#look(file)) this.#settle(file);
    if (!locked) nodes.setLocked(slot);
    return false;
  }

  /** An open of the file ended. */
  released(slot: number, handle: number, quiet: boolean): void {
    if (quiet) this.#options.nodes.addQuiet(slot, -1);
    if (this.#files.size === 0) return;
    const key = this.#keyOf(slot);
    const file = this.#files.get(key);
    if (file === undefined) return;
    for (const owner of file.owners()) if (owner.handle === handle) this.#drop(file, owner);
    this.#look(file);
    this.#settle(file);
    this.#tidy(key, file);
  }

  /** A process closed a descriptor of the file. */
  closed(slot: number, owner: bigint): void {
    if (this.#files.size === 0) return;
    const key = this.#keyOf(slot);
    const file = this.#files.get(key);
    const found = file?.records.get(owner);
    if (file === undefined || found === undefined) return;
    this.#drop(file, found);
    this.#settle(file);
    this.#tidy(key, file);
  }

  /** To be called some twenty times a second. */
  tick(): void {
    for (const [key, file] of this.#files) {
      if (file.waiters.size > 0 && this.#look(file)) this.#settle(file);
      this.#tidy(key, file);
    }
  }

  /** The lock that stands in the way of the one described, or undefined. */
  test(wanted: LockRequest & { readonly type: LockType }): Conflict | undefined {
    const file = this.#files.get(this.#keyOf(wanted.slot));
    if (file === undefined) return undefined;
    const owner = file.records.get(wanted.owner) ?? ownerOf(wanted, 'process');
    return this.#conflict(file, { ...wanted, owner });
  }

  /** Locks or unlocks. Zero, a negated errno, or a wait. */
  set(request: LockRequest): number | Parked {
    const { type } = request;
    return type === F_UNLCK ? this.#unlock(request) : this.#lock({ ...request, type });
  }

  #unlock({ slot, flock, owner: id, start, end }: LockRequest): number {
    const key = this.#keyOf(slot);
    const file = this.#files.get(key);
    const owner = file === undefined ? undefined : (flock ? file.flocks : file.records).get(id);
    if (file === undefined || owner === undefined) return 0;
    if (!this.#change(file, owner, start, end, F_UNLCK)) return -ENOLCK;
    this.#settle(file);
    return 0;
  }

  #lock(request: LockRequest & { readonly type: LockType }): number | Parked {
    const file = this.#fileOf(request.slot);
    let owner = (request.flock ? file.flocks : file.records).get(request.owner);
    if (owner?.watch !== undefined && !this.#isWatchedOpen(owner)) {
      // What it locked before ended with a descriptor.
      this.#drop(file, owner);
      this.#settle(file);
      owner = undefined;
    }
    if (owner !== undefined) return this.#acquire(file, owner, request);
    if (request.flock) return this.#acquireFirst(file, ownerOf(request, 'flock'), request);
    const { processes } = this.#options;
    let asked = processes.asksFor(request.thread);
    for (let look = 1; look < LOOKS && asked === 'running'; look++) asked = processes.asksFor(request.thread);
    if (asked === 'running') return this.#lockLater(request);
    // Processes that share one quiet open end without a word.
    const known = file.records.size;
    if (known >= MANY_OWNERS && (known & (known - 1)) === 0 && this.#look(file)) this.#settle(file);
    const made = ownerOf(request, asked?.kind ?? 'process');
    if (asked?.kind === 'process') this.#watch(made, request.thread, asked.mount);
    return this.#acquireFirst(file, made, request);
  }

  /** The caller is on its way into its wait: it is asked again when it is there. */
  #lockLater(request: LockRequest & { readonly type: LockType }): Parked {
    let inner: Parked | undefined;
    const timer = setTimeout(() => {
      const outcome = this.#lock(request);
      if (typeof outcome === 'number') parked.answer(outcome);
      else {
        inner = outcome;
        inner.onAnswer((result) => parked.answer(result));
      }
    }, LOOK_AGAIN_MS);
    const parked = new Parked(() => {
      clearTimeout(timer);
      if (inner === undefined) parked.answer(-EINTR);
      else inner.interrupted();
    });
    return parked;
  }

  #acquireFirst(file: File, owner: Owner, request: LockRequest & { readonly type: LockType }): number | Parked {
    file.add(owner);
    return this.#acquire(file, owner, request);
  }

  #acquire(file: File, owner: Owner, request: LockRequest & { readonly type: LockType }): number | Parked {
    const { slot, start, end, type, waits } = request;
    if (owner.kind === 'flock') {
      const [held] = owner.ranges;
      if (held?.type === type) return this.#given(slot);
      // A conversion lets go of the lock first, and may lose it (flock(2)).
      if (held !== undefined) this.#change(file, owner, start, end, F_UNLCK);
    }
    const wanted = { owner, start, end, type };
    if (this.#conflict(file, wanted) === undefined) {
      const outcome = this.#grant(file, wanted, slot);
      this.#settle(file);
      return outcome;
    }
    if (owner.kind === 'flock') this.#settle(file);
    if (!waits) return -EAGAIN;
    if (owner.kind === 'process' && isCircle(file, wanted, this.#files.values())) return -EDEADLK;
    const waiter: Waiter = {
      ...wanted,
      slot,
      parked: new Parked(() => {
        if (file.waiters.delete(waiter)) waiter.parked.answer(-EINTR);
      }),
    };
    file.waiters.add(waiter);
    return waiter.parked;
  }

  /** Gives a lock that nobody has one against. Zero, or a negated errno. */
  #grant(file: File, { owner, start, end, type }: Wanted, slot: number): number {
    return this.#change(file, owner, start, end, type) ? this.#given(slot) : -ENOLCK;
  }

  /** Learns of each lock that is given, with the node that it was asked for through. */
  #given(slot: number): number {
    this.#options.nodes.setLocked(slot);
    return 0;
  }

  /** What stands in the way, of which it is certain that its owner still has it. */
  #conflict(file: File, wanted: Wanted): Conflict | undefined {
    for (;;) {
      const found = file.conflict(wanted);
      if (found === undefined || this.#isWatchedOpen(found.owner)) return found;
      this.#drop(file, found.owner);
      this.#settle(file);
    }
  }

  /** Gives what is free to those that wait for it, first come, first served. */
  #settle(file: File): void {
    for (let granted = file.waiters.size > 0; granted; ) {
      granted = false;
      for (const waiter of file.waiters) {
        if (file.conflict(waiter) !== undefined) continue;
        file.waiters.delete(waiter);
        waiter.parked.answer(this.#grant(file, waiter, waiter.slot));
        // It may have let go of something: a lock for writing became one for reading.
        granted = true;
      }
    }
  }

  /** Takes the locks of those that are watched and have closed a descriptor; returns whether there were any. */
  #look(file: File): boolean {
    let found = false;
    for (const owner of file.records.values()) {
      if (this.#isWatchedOpen(owner)) continue;
      this.#drop(file, owner);
      found = true;
    }
    return found;
  }

  /** Whether an owner has closed no descriptor that it would have to be asked for. */
  #isWatchedOpen(owner: Owner): boolean {
    const { watch } = owner;
    return watch === undefined || this.#options.processes.areOn(watch, owner.pid, this.#inodeOf(owner.slot));
  }

  /** Has a process watched if it may close the file without a word. `asking` is a thread of it that is known to be there. */
  #watch(owner: Owner, asking: number, mount: number): void {
    const { nodes, processes } = this.#options;
    owner.watch = undefined;
    if (owner.pid === 0 || !nodes.hasQuiet(owner.slot)) return;
    const inode = this.#inodeOf(owner.slot);
    for (const thread of [asking, ...processes.threadsOf(owner.pid)]) {
      const descriptors = processes.descriptorsOn(thread, mount, inode);
      if (descriptors.length === 0) continue;
      owner.watch = { thread, mount, descriptors };
      return;
    }
  }

  /** Ends all that an owner has locked. */
  #drop(file: File, owner: Owner): void {
    for (const { row } of owner.ranges) this.#options.rows.give(row);
    file.apply(owner, { ranges: [], added: [], removed: owner.ranges });
    this.#unwatch(owner);
    // Who waits has a descriptor of the file, and what it gets is to last until another one is closed.
    if (!file.forget(owner) && owner.watch !== undefined) this.#watch(owner, owner.watch.thread, owner.watch.mount);
  }

  /** Changes what an owner has locked, and its rows; false, with nothing changed, when there is no room. */
  #change(file: File, owner: Owner, start: bigint, end: bigint, type: LockType | typeof F_UNLCK): boolean {
    const { rows } = this.#options;
    const change = file.change(owner, start, end, type);
    const watched = owner.ranges.length === 0 ? (owner.watch?.descriptors ?? []) : [];
    if (!rows.hasRoom(change.added.length + watched.length, change.removed.length)) return false;
    for (const { row } of change.removed) rows.give(row);
    for (const range of change.added) rows.addRange(owner, range);
    file.apply(owner, change);
    if (change.ranges.length === 0) this.#unwatch(owner);
    else if (owner.watch !== undefined && watched.length > 0) {
      const { thread, mount } = owner.watch;
      this.#watchRows.set(
        owner,
        watched.map((descriptor) => rows.addWatch(owner, descriptor, thread, mount)),
      );
    }
    return true;
  }

  #unwatch(owner: Owner): void {
    for (const row of this.#watchRows.get(owner) ?? []) this.#options.rows.give(row);
    this.#watchRows.delete(owner);
  }

  #tidy(key: string, file: File): void {
    if (file.flocks.size === 0 && file.records.size === 0) this.#files.delete(key);
  }

  #fileOf(slot: number): File {
    const key = this.#keyOf(slot);
    const known = this.#files.get(key);
    if (known !== undefined) return known;
    const file: File = new FileLocks();
    this.#files.set(key, file);
    return file;
  }

  /** Both nodes of a file have its handle. */
  #keyOf(slot: number): string {
    const { nodes } = this.#options;
    return inodeName(nodes.memory.view, nodes.handleOffset(slot));
  }

  #inodeOf(slot: number): bigint {
    const { nodes, ownSubvolume } = this.#options;
    return shownInode(nodes.memory.view, nodes.handleOffset(slot), ownSubvolume);
  }

  /** What an earlier server has left. */
  #takeUp(): void {
    const watched = new Map<Owner, { thread: number; mount: number; descriptors: number[]; rows: number[] }>();
    for (const [row, { slot, kind, owner: id, handle, pid, range }] of this.#options.rows.all()) {
      const file = this.#fileOf(slot);
      const sort = kind === 'flock' ? file.flocks : file.records;
      const owner = sort.get(id) ?? new Owner(id, kind === 'watch' ? 'process' : kind, handle, pid, slot);
      file.add(owner);
      if (kind !== 'watch') {
        const ranges = [...owner.ranges, range].sort((one, other) => (one.start < other.start ? -1 : 1));
        file.apply(owner, { ranges, added: [range], removed: [] });
        continue;
      }
      const known = watched.get(owner) ?? {
        thread: Number(range.end % TWO_TO_32),
        mount: Number(range.end / TWO_TO_32),
        descriptors: [],
        rows: [],
      };
      known.descriptors.push(Number(range.start));
      known.rows.push(row);
      watched.set(owner, known);
    }
    for (const [owner, { thread, mount, descriptors, rows }] of watched) {
      owner.watch = { thread, mount, descriptors };
      this.#watchRows.set(owner, rows);
    }
  }
}

function ownerOf({ owner, handle, pid, slot }: LockRequest, kind: Owner['kind']): Owner {
  return new Owner(owner, kind, handle, pid, slot);
}
