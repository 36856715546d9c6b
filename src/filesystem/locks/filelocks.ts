/**
 * Who has locked which bytes of one file, and who waits for that: flock(2) locks, which reach over the whole file, and the record
 * locks of fcntl(2), of processes and of open file descriptions. The two don't see each other.
 *
 * Invariants: two owners never have bytes locked that conflict; an owner is in `holders` exactly as long as it has bytes locked.
 */

import type { F_UNLCK } from '../../base/linux.ts';
import { conflictIn, type LockType, type Range, withRange } from './ranges.ts';

/** `process` and `description` are record locks: they differ in when they end, and in whether a circle of waits is told. */
export type OwnerKind = 'flock' | 'process' | 'description';

/** Whose a lock is: a process, which the kernel names by its table of descriptors, or an open file description. */
export class Owner {
  /** The kernel's number for it. */
  readonly id: bigint;
  readonly kind: OwnerKind;
  /** The open that it first locked the file through: when that is released, it has no lock any more. */
  readonly handle: number;
  /** The process, or 0 when it can't be seen from here. */
  readonly pid: number;
  /** A node of the file. */
  readonly slot: number;
  ranges: readonly Range[] = [];
  /** Descriptors of a process, on this file, whose closing nobody tells; undefined when the kernel tells of each. */
  watch: Watch | undefined;

  constructor(id: bigint, kind: OwnerKind, handle: number, pid: number, slot: number) {
    this.id = id;
    this.kind = kind;
    this.handle = handle;
    this.pid = pid;
    this.slot = slot;
  }
}

/** Descriptors that are to be looked at, and the thread whose they are. */
export interface Watch {
  readonly thread: number;
  /** The mount that they were opened by. */
  readonly mount: number;
  readonly descriptors: readonly number[];
}

/** A lock that is asked for. */
export interface Wanted {
  readonly owner: Owner;
  readonly start: bigint;
  readonly end: bigint;
  readonly type: LockType;
}

export interface Conflict {
  readonly owner: Owner;
  readonly range: Range;
}

/** What a change of an owner's ranges does to the single ones. */
export interface Change {
  readonly ranges: readonly Range[];
  readonly added: readonly Range[];
  readonly removed: readonly Range[];
}

export class FileLocks<Waiter extends Wanted = Wanted> {
  /** Owners of either sort that are known, by the kernel's number: those that hold or wait, and those that did lately. */
  readonly flocks = new Map<bigint, Owner>();
  readonly records = new Map<bigint, Owner>();
  /** In the order in which they got their first lock, as in the kernel's list. */
  readonly holders = new Set<Owner>();
  /** In the order in which they came. */
  readonly waiters = new Set<Waiter>();

  *owners(): Generator<Owner> {
    yield* this.flocks.values();
    yield* this.records.values();
  }

  add(owner: Owner): void {
    (owner.kind === 'flock' ? this.flocks : this.records).set(owner.id, owner);
  }

  /** Forgets an owner that has nothing locked, unless it waits; returns whether it is forgotten. */
  forget(owner: Owner): boolean {
    for (const waiter of this.waiters) if (waiter.owner === owner) return false;
    return (owner.kind === 'flock' ? this.flocks : this.records).delete(owner.id);
  }

  /** What keeps a lock from being had: the first lock of another owner that it conflicts with. */
  conflict(wanted: Wanted): Conflict | undefined {
    for (const owner of this.holders) {
      const range = this.#between(owner, wanted);
      if (range !== undefined) return { owner, range };
    }
    return undefined;
  }

  /** What changes when the owner locks these bytes, or unlocks them. */
  change(owner: Owner, start: bigint, end: bigint, type: LockType | typeof F_UNLCK): Change {
    const ranges = withRange(owner.ranges, start, end, type);
    const before = new Set(owner.ranges);
    const after = new Set(ranges);
    return {
      ranges,
      added: ranges.filter((range) => !before.has(range)),
      removed: owner.ranges.filter((range) => !after.has(range)),
    };
  }

  /** Carries a change out. */
  apply(owner: Owner, { ranges }: Change): void {
    owner.ranges = ranges;
    if (ranges.length === 0) this.holders.delete(owner);
    else this.holders.add(owner);
  }

  /** All owners that keep a lock from being had. */
  *blockers(wanted: Wanted): Generator<Owner> {
    for (const owner of this.holders) if (this.#between(owner, wanted) !== undefined) yield owner;
  }

  #between(owner: Owner, wanted: Wanted): Range | undefined {
    if (owner === wanted.owner || (owner.kind === 'flock') !== (wanted.owner.kind === 'flock')) return undefined;
    return conflictIn(owner.ranges, wanted.start, wanted.end, wanted.type);
  }
}

/**
 * Whether waiting for a lock would never end: what it waits for is held by an owner that waits, directly or not, for the one that
 * wants it. Owners are told apart by the kernel's numbers, over all files; flocks take no part (fs/locks.c: posix_locks_deadlock).
 */
export function isCircle<Waiter extends Wanted>(
  file: FileLocks<Waiter>,
  wanted: Wanted,
  files: Iterable<FileLocks<Waiter>>,
): boolean {
  const waits = new Map<bigint, [FileLocks<Waiter>, Waiter][]>();
  for (const other of files) {
    for (const waiter of other.waiters) {
      if (waiter.owner.kind === 'flock') continue;
      const known = waits.get(waiter.owner.id);
      if (known === undefined) waits.set(waiter.owner.id, [[other, waiter]]);
      else known.push([other, waiter]);
    }
  }
  const reached = new Set<bigint>();
  const open = [...file.blockers(wanted)].map(({ id }) => id);
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    if (id === wanted.owner.id) return true;
    if (reached.has(id)) continue;
    reached.add(id);
    for (const [other, waiter] of waits.get(id) ?? []) for (const next of other.blockers(waiter)) open.push(next.id);
  }
  return false;
}
