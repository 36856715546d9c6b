/**
 * Which route each open file gets, and when it must leave it.
 *
 *     closed ──open for writing─────────────────────────► own
 *     closed ──open for reading, bytes proven shared────► shared(mapping)
 *     closed ──open of a large file with shared extents─► composed (`composing.ts`)
 *     closed ──open for reading, otherwise──────────────► own, counted with its reason
 *     own, shared, composed ──last release──────────────► closed
 *     shared ──opened for writing, truncated, or found changed──► the node is detached: its readers keep the mapping, the
 *              kernel is told ESTALE, looks the name up again and gets a new node for the same file, which is closed
 *
 * Invariants: 1. A file that is open for writing through the mount isn't on the shared route. 2. A clone is never a
 * writable open's backing file. 3. While an inode is open its route and backing id don't change (a rule of the kernel).
 * 4. A detached node is never opened again.
 */

import { ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import type { KeptBackings } from '../fuse/server/backing.ts';
import { statx } from '../fuse/wire/structs.ts';
import type { SharedFile } from '../mappings/content.ts';
import type { SourceCalls } from './calls.ts';
import type { ComposedOpen, ComposedRefusal, Composing } from './composing.ts';
import type { NodeDescriptors } from './descriptors.ts';
import { type Domains, NO_DOMAIN } from './domains.ts';
import { SCRATCH } from './mount.ts';
import { NO_NODE, type NodeTable } from './nodes.ts';
import { type OpenTable, ROUTE_SHARED } from './opens.ts';

/** Why a file that is opened for reading takes its own route, before its extents are looked at. */
export type OwnReason =
  /** The mount was asked not to share. */
  | 'nosharedext'
  /** Opened for writing. */
  | 'writing'
  /** It has no data. */
  | 'empty'
  /** Its content changed a moment ago: someone may be following it. */
  | 'recent'
  /** It changed while it was being looked at. */
  | 'changing'
  /** A clone's backing file could not be registered. */
  | 'backing'
  /** It belongs to no domain: there are too many. */
  | 'domain'
  /** It did so when it was closed a moment ago. */
  | 'kept';

/** What is needed of the store of shared mappings: see `mappings/store.ts`. A mapping is named by its row. */
export interface SharedMappings {
  share(file: SharedFile, dropPages: (node: number) => boolean): number | string | Promise<number | string>;
  size(mapping: number): number;
  generation(mapping: number): number;
  isAlive(mapping: number, generation: number): boolean;
  acquire(mapping: number): number;
  release(mapping: number): void;
  openClone(mapping: number): number;
  suspect(mapping: number): void;
}

export interface RoutesOptions {
  readonly calls: SourceCalls;
  readonly nodes: NodeTable;
  readonly opens: OpenTable;
  readonly descriptors: NodeDescriptors;
  /** Backing files of nodes. */
  readonly backing: Pick<KeptBackings, 'drop'>;
  readonly mountFd: number;
  readonly scratch: Memory;
  /** Absent when sharing is off. */
  readonly mappings: SharedMappings | undefined;
  /** Absent when no file is to be composed. */
  readonly composing: Composing | undefined;
  readonly domains: Pick<Domains, 'of'>;
  /** How long ago a file's content must have changed before it is shared. */
  readonly settleMs: number;
  /** The wall clock, in milliseconds since 1970. */
  readonly now: () => number;
  readonly invalidateAttributes: (nodeid: number) => void;
}

/** The route is the file itself. */
export const OWN = -1;
/** The same, for a reason that will hold for a moment: the file needn't be looked at again if it is opened again at once. */
export const OWN_FOR_NOW = -2;

/** Reasons that are of the mount or of the file's extents, and not of the time of the look or of the room that there is. */
const LASTING: ReadonlySet<string> = new Set([
  'nosharedext',
  'unshared',
  'inline',
  'nocow',
  'encrypted',
  'tail',
  'unknown',
  'unsupported-encoding',
  'realtime',
  'too-many-extents',
]);

/** What an open goes on with: a mapping of the store, OWN, OWN_FOR_NOW, or a file composed of extents. */
export type Choice = number | ComposedOpen;

/**
 * How much younger than the clock a ctime must not be for an unchanged ctime to prove unchanged bytes: two ticks of the
 * slowest kernel clock (10 ms each), with room. Git calls a younger one racy.
 */
const CTIME_GRANULARITY_MS = 50;

export class Routes {
  readonly reasons = new Map<string, number>();
  /** Times that a file left the shared route because someone wrote to it, or because it had changed. */
  broken = 0;
  readonly #options: RoutesOptions;
  /** Files whose clone is being made, or that are being flushed: other opens of the node wait for the outcome. */
  readonly #pending = new Map<number, Promise<Choice>>();

  constructor(options: RoutesOptions) {
    this.#options = options;
  }

  get sharing(): boolean {
    return this.#options.mappings !== undefined;
  }

  pending(slot: number): Promise<Choice> | undefined {
    return this.#pending.size === 0 ? undefined : this.#pending.get(slot);
  }

  countOwn(reason: OwnReason): void {
    this.#count(reason);
  }

  /** Whether the node may be written to; if not, it has just left the shared route for good, and the answer is ESTALE. */
  mayWrite(slot: number): boolean {
    const { nodes, opens } = this.#options;
    if (nodes.isDetached(slot)) {
      this.elsewhere(slot, true);
      return false;
    }
    const row = nodes.openRow(slot);
    if (row < 0 || opens.route(row) !== ROUTE_SHARED) return true;
    this.#breakSharing(slot);
    return false;
  }

  /**
   * A detached node was asked for, by a name that still leads to it. The answer is ESTALE, on which the kernel looks the name
   * up again, but only once: the node that it then finds must not have to leave the shared route in its turn.
   */
  elsewhere(slot: number, writing: boolean): number {
    const { nodes, opens } = this.#options;
    const successor = nodes.successor(slot);
    if (successor !== NO_NODE) {
      const row = nodes.openRow(successor);
      if (row >= 0 && opens.route(row) === ROUTE_SHARED) {
        if (writing) this.#breakSharing(successor);
        else this.stillShared(successor);
      }
    }
    return -ESTALE;
  }

  /** Whether a file that is open on the shared route still has the mapping's bytes; if not, sharing is broken. */
  stillShared(slot: number): boolean {
    const { calls, nodes, mountFd, scratch } = this.#options;
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC);
    if (fd >= 0) {
      const empty = scratch.address + SCRATCH.empty;
      const at = scratch.address + SCRATCH.statx;
      const read = calls.statx(fd, empty, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, at);
      calls.close(fd);
      if (read >= 0 && this.#verdict(slot) >= 0) return true;
    }
    this.#breakSharing(slot);
    return false;
  }

  /**
   * Where a file that is to be opened for reading is read from. `fd` is open for reading. The answer comes later when a
   * clone of many extents has to be made; the descriptor stays the caller's all the time.
   */
  choose(slot: number, fd: number): Choice | Promise<Choice> {
    const { calls, mappings, scratch, settleMs, now } = this.#options;
    if (mappings === undefined) return this.#own('nosharedext');
    const empty = scratch.address + SCRATCH.empty;
    const at = SCRATCH.statx;
    const read = calls.statx(fd, empty, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, scratch.address + at);
    if (read < 0) return this.#own('changing');
    const { view } = scratch;
    const size = statx.size.get(view, at);
    if (size === 0) return this.#own('empty');
    const known = this.#verdict(slot);
    if (known >= 0) return known;
    const modifiedMs = statx.mtime.get(view, at) * 1000 + statx.mtimensec.get(view, at) / 1e6;
    const sinceModifiedMs = now() - modifiedMs;
    // A time in the future says nothing.
    if (sinceModifiedMs >= 0 && sinceModifiedMs < settleMs) return this.#compose(slot, fd, size, 'recent');
    const seconds = statx.ctime.get(view, at);
    const nanoseconds = statx.ctimensec.get(view, at);
    // The age counts from before the look, which may take long: a change right after it could leave the ctime the same.
    const age = now() - (seconds * 1000 + nanoseconds / 1e6);
    if (age >= 0 && age < CTIME_GRANULARITY_MS) return this.#compose(slot, fd, size, 'recent');
    const domain = this.#options.domains.of(slot, scratch);
    if (domain === NO_DOMAIN) return this.#own('domain');
    const [inode, uid] = [statx.ino.get(view, at), statx.uid.get(view, at)];
    const file = { fd, size, inode, domain, uid, node: slot, sinceModifiedMs };
    const found = mappings.share(file, (other) => this.#dropPages(other));
    if (!(found instanceof Promise)) {
      if (typeof found === 'string') return this.#compose(slot, fd, size, found);
      return this.#settle(slot, fd, found, seconds, nanoseconds);
    }
    return this.#wait(
      slot,
      found.then((outcome) => {
        if (typeof outcome === 'string') return this.#own(outcome);
        return this.#settle(slot, fd, outcome, seconds, nanoseconds);
      }),
    );
  }

  /** Where a large file that is to be opened for writing is read from. `fd` is as in `choose`. */
  chooseForWriting(slot: number, fd: number): Choice | Promise<Choice> {
    return this.#compose(slot, fd, Number.POSITIVE_INFINITY, 'writing');
  }

  /** The composed route if the file may take it, and otherwise its own, for the reason that kept it from being shared. */
  #compose(slot: number, fd: number, size: number, reason: string): Choice | Promise<Choice> {
    const { composing, domains, scratch } = this.#options;
    if (composing === undefined || !composing.fits(size)) return this.#own(reason);
    const domain = domains.of(slot, scratch);
    if (domain === NO_DOMAIN) return this.#own('domain');
    const decided = (outcome: ComposedOpen | ComposedRefusal): Choice => {
      if (typeof outcome !== 'string') return outcome;
      return this.#own(outcome === 'unshared' ? reason : outcome);
    };
    // A file that is shared as a whole needn't be composed only because it is young.
    const outcome = composing.decide(fd, reason !== 'recent', domain);
    return outcome instanceof Promise ? this.#wait(slot, outcome.then(decided)) : decided(outcome);
  }

  #wait(slot: number, choice: Promise<Choice>): Promise<Choice> {
    const settled = choice.finally(() => this.#pending.delete(slot));
    this.#pending.set(slot, settled);
    return settled;
  }

  /** The size that callers see: a detached node's readers read the mapping, and its end is where their reads end. */
  visibleSize(slot: number, size: number): number {
    const { nodes, opens, mappings } = this.#options;
    if (mappings === undefined || !nodes.isDetached(slot)) return size;
    const row = nodes.openRow(slot);
    return row < 0 || opens.route(row) !== ROUTE_SHARED ? size : mappings.size(opens.mapping(row));
  }

  /**
   * A descriptor for reading what the node's openers read: the clone on the shared route, even if the file was changed
   * around the mount since, and the file itself otherwise. To be closed by the caller.
   */
  openForReading(slot: number): number {
    const { calls, nodes, opens, mappings, mountFd } = this.#options;
    const row = nodes.openRow(slot);
    if (mappings !== undefined && row >= 0 && opens.route(row) === ROUTE_SHARED) {
      return mappings.openClone(opens.mapping(row));
    }
    return calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_RDONLY | c.O_NONBLOCK | c.O_CLOEXEC);
  }

  /** The backing id of the mapping that was chosen for the node, for one more inode, or a negated errno. */
  acquire(slot: number, mapping: number): number {
    const { mappings, nodes } = this.#options;
    // Room may have been made since it was chosen: the row may be another mapping's by now.
    if (mappings === undefined || !mappings.isAlive(mapping, nodes.verdictGeneration(slot))) return -ESTALE;
    return mappings.acquire(mapping);
  }

  release(mapping: number): void {
    this.#options.mappings?.release(mapping);
  }

  /** A name went away or content was replaced, and with it perhaps the last use of a mapping's extents by a file. */
  referencesDropped(slot: number): void {
    const { mappings, composing, nodes } = this.#options;
    if (mappings === undefined) return;
    composing?.packs.suspect();
    const mapping = slot < 0 ? -1 : nodes.lastVerdict(slot);
    mappings.suspect(mapping);
  }

  /** Drops what the page cache has of a node's own file, whose next open is looked at anew; false when there is no such file. */
  #dropPages(slot: number): boolean {
    const { calls, nodes, backing, mountFd } = this.#options;
    if (!nodes.has(slot) || nodes.type(slot) !== c.S_IFREG) return false;
    const flags = c.O_RDONLY | c.O_NONBLOCK | c.O_NOFOLLOW | c.O_CLOEXEC;
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), flags);
    if (fd < 0) return false;
    calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
    calls.close(fd);
    backing.drop(slot, nodes.generation(slot));
    return true;
  }

  /** Takes the own route, for a reason of ours or one that the store gives. */
  #own(reason: string): number {
    this.#count(reason);
    return LASTING.has(reason) ? OWN_FOR_NOW : OWN;
  }

  #count(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }

  #breakSharing(slot: number): void {
    const { calls, nodes, descriptors, mountFd, invalidateAttributes } = this.#options;
    if (nodes.isDetached(slot)) return;
    this.broken++;
    nodes.detach(slot);
    // Nothing finds the node when its file is deleted later, and its readers go on asking for its attributes.
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC);
    if (fd >= 0) descriptors.pin(slot, fd);
    invalidateAttributes(slot + 1);
  }

  /** The mapping that is known to hold the file's bytes, given the scratch memory's struct statx, or -1. */
  #verdict(slot: number): number {
    const { nodes, mappings, scratch } = this.#options;
    const at = SCRATCH.statx;
    const mapping = nodes.verdict(slot, statx.ctime.get(scratch.view, at), statx.ctimensec.get(scratch.view, at));
    if (mapping < 0 || mappings === undefined) return -1;
    if (!mappings.isAlive(mapping, nodes.verdictGeneration(slot))) return -1;
    return mappings.size(mapping) === statx.size.get(scratch.view, at) ? mapping : -1;
  }

  /**
   * A mapping holds the bytes that the file had a moment ago. They still are the file's if its ctime hasn't changed since
   * before the look, when it was old enough that any further change would have changed it.
   */
  #settle(slot: number, fd: number, mapping: number, seconds: number, nanoseconds: number): number {
    const { calls, mappings, nodes, scratch } = this.#options;
    if (mappings === undefined || !nodes.has(slot)) return this.#own('changing');
    const empty = scratch.address + SCRATCH.empty;
    const at = SCRATCH.statx;
    const read = calls.statx(fd, empty, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, scratch.address + at);
    const same =
      read >= 0 &&
      statx.ctime.get(scratch.view, at) === seconds &&
      statx.ctimensec.get(scratch.view, at) === nanoseconds &&
      statx.size.get(scratch.view, at) === mappings.size(mapping);
    if (!same) return this.#own('changing');
    nodes.setVerdict(slot, mapping, mappings.generation(mapping), seconds, nanoseconds);
    return mapping;
  }
}
