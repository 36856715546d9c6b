/**
 * Which route a file gets that is opened and that nobody has open.
 *
 *     for writing ─► large, with shared extents ─► composed
 *                 └► otherwise ──────────────────► own
 *     for reading ─► written in place while others read it (a database, a disk image, a log, or so it was learned), or
 *                    not to be shared for another reason ─► composed if it is large and has shared extents, else own
 *                 └► bytes proven to be a mapping's ─► shared
 *
 * Every file that takes the own route is counted with its reason.
 */

import * as c from '../../base/linux.ts';
import type { Memory } from '../../base/memory.ts';
import type { SharedFile } from '../../mappings/content.ts';
import { isProgram } from '../../mappings/kinds.ts';
import type { SourceCalls } from '../calls.ts';
import { type Domains, NO_DOMAIN } from '../domains.ts';
import { inodeName } from '../handles.ts';
import type { NodeTable } from '../nodes.ts';
import { WRITTEN_TICK_MS } from '../nodestate.ts';
import { SCRATCH } from '../scratch.ts';
import { Stat } from '../stat.ts';
import type { ComposedOpen, ComposedRefusal, Composing } from './composing.ts';
import { isWrittenElsewhere } from './lease.ts';

/** Why a file that is opened for reading takes its own route, before its extents are looked at. */
export type OwnReason =
  /** The mount was asked not to share. */
  | 'nosharedext'
  /** The mount was asked to share programs and libraries only (`share=text`), and it is none. */
  | 'not-text'
  /** The mount was asked to share only what can't be written (`share=readonly`). */
  | 'writable'
  /** Opened for writing. */
  | 'writing'
  /** It has no data. */
  | 'empty'
  /** Its content changed a moment ago, or it was open for writing: someone may be following it. */
  | 'recent'
  /** It is written in place while others read it. */
  | 'live'
  /** Someone has it open for writing around the mount, or left a map through which it is written. */
  | 'written-elsewhere'
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
  /** Whether a file has the mapping's bytes now, if nobody is writing to it. */
  holds(mapping: number, file: Pick<SharedFile, 'fd' | 'size' | 'inode'>): boolean;
  /** Files of the mapping's content are written in place while others read them: none is shared for some time. */
  learnLive(mapping: number): void;
  size(mapping: number): number;
  generation(mapping: number): number;
  isAlive(mapping: number, generation: number): boolean;
  acquire(mapping: number): number;
  release(mapping: number): void;
  openClone(mapping: number): number;
  suspect(mapping: number): void;
}

/** What is shared at all: everything, programs and libraries, or what can't be written through the mount. */
export type ShareRule = 'all' | 'text' | 'readonly';

/** What an open goes on with. */
export type Choice =
  | {
      readonly route: 'own';
      /** The reason lasts for a moment: the file needn't be looked at again if it is opened again at once. */
      readonly keep: boolean;
      /** Set-user-ID and set-group-ID that the file may get are taken by whoever writes to it. */
      readonly guarded: boolean;
    }
  | { readonly route: 'shared'; readonly mapping: number }
  | { readonly route: 'composed'; readonly open: ComposedOpen };

export interface ChooserOptions {
  readonly calls: SourceCalls;
  readonly nodes: NodeTable;
  readonly scratch: Memory;
  /** Absent when sharing is off. */
  readonly mappings: SharedMappings | undefined;
  /** Absent when no file is to be composed. */
  readonly composing: Composing | undefined;
  readonly domains: Pick<Domains, 'of'>;
  readonly share: ShareRule;
  /** Whether files may be written through the mount. */
  readonly writable: boolean;
  /** How long ago a file's content must have changed, and its last writer have closed it, before it is shared. */
  readonly settleMs: number;
  /** The wall clock, in milliseconds since 1970. */
  readonly now: () => number;
  /** A clock that only goes forward, also from one server to the next, in milliseconds. */
  readonly monotonicMs: () => number;
  /** Drops what the page cache has of a node's own file; false when there is no such file. */
  readonly dropPages: (slot: number) => boolean;
}

/** Reasons that are of the mount or of the file's extents, and not of the time of the look or of the room that there is. */
const LASTING: ReadonlySet<string> = new Set([
  'nosharedext',
  'not-text',
  'live',
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

/**
 * How much younger than the clock a ctime must not be for an unchanged ctime to prove that no write began since: two ticks of
 * the slowest kernel clock (10 ms each), with room. Git calls a younger one racy.
 */
const CTIME_GRANULARITY_MS = 50;

/** For how long a file isn't shared after a writer that left readers behind. */
const CONTENDED_MS = 600_000;

const HEAD_BYTES = 4;
/** So many files are remembered whose readers were left behind. */
const REMEMBERED = 1024;

export class Chooser {
  readonly reasons = new Map<string, number>();
  readonly #o: ChooserOptions;
  /** Of the file that is being decided on: read anew behind every wait. */
  readonly #stat: Stat;
  /** Files whose clone is being made, or that are being flushed: other opens of the node wait for the outcome. */
  readonly #pending = new Map<number, Promise<unknown>>();
  /** Files whose readers were left behind, the latest ones, and until when they aren't shared. */
  readonly #fought = new Map<string, number>();

  constructor(options: ChooserOptions) {
    this.#o = options;
    this.#stat = new Stat(options.scratch, SCRATCH.look);
  }

  /** Settles when a choice for the node has been made that is on its way. */
  pending(slot: number): Promise<unknown> | undefined {
    return this.#pending.size === 0 ? undefined : this.#pending.get(slot);
  }

  count(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }

  /**
   * Readers of the node's file were left behind. The file is remembered beside its node, which the kernel may forget before it looks
   * the name up again.
   */
  leftBehind(slot: number): void {
    this.written(slot, false);
    this.#o.nodes.setContended(slot, true);
    for (const oldest of this.#fought.keys()) {
      if (this.#fought.size < REMEMBERED) break;
      this.#fought.delete(oldest);
    }
    this.#fought.set(this.#nameOf(slot), this.#o.monotonicMs() + CONTENDED_MS);
  }

  /** Ticks of the clock by which nodes remember when they were written. */
  get tick(): number {
    return Math.floor(this.#o.monotonicMs() / WRITTEN_TICK_MS);
  }

  /** The node's file is, or was until now, open for writing; with `maps`, a map may be left that writes to it. */
  written(slot: number, maps: boolean): void {
    const { nodes } = this.#o;
    // What was fought for long ago begins anew.
    if (nodes.isContended(slot) && this.#sinceWrittenMs(slot) >= CONTENDED_MS) nodes.setContended(slot, false);
    nodes.setWritten(slot, this.tick);
    if (maps) nodes.setMapped(slot, true);
  }

  /** Whether the node's file is written in place while others read it, as far as that was said or learned. */
  isLive(slot: number): boolean {
    const { nodes } = this.#o;
    if (nodes.isLive(slot) || nodes.isLocked(slot)) return true;
    if (nodes.isContended(slot) && this.#sinceWrittenMs(slot) < CONTENDED_MS) return true;
    return this.#fought.size > 0 && (this.#fought.get(this.#nameOf(slot)) ?? 0) > this.#o.monotonicMs();
  }

  /**
   * Where a file that is to be opened for reading is read from. `fd` is open for reading. The answer comes later when a
   * clone of many extents has to be made; the descriptor stays the caller's all the time.
   */
  choose(slot: number, fd: number): Choice | Promise<Choice> {
    const { calls, nodes, mappings, settleMs, now, writable } = this.#o;
    const stat = this.#stat;
    if (stat.read(calls, fd) < 0) return this.#unknown();
    if (mappings === undefined) return this.#own('nosharedext');
    const { size } = stat;
    if (size === 0) return this.#own('empty');
    const forbidden = this.#forbidden(fd);
    if (forbidden !== undefined) return this.#own(forbidden);
    if (writable && this.isLive(slot)) return this.#compose(slot, fd, size, 'live');
    // A map that outlived its descriptor, and stores through which move no time while its pages are dirty.
    if (nodes.mayBeMapped(slot)) {
      if (isWrittenElsewhere(calls, fd)) return this.#own('written-elsewhere');
      nodes.setMapped(slot, false);
    }
    if (this.#sinceWrittenMs(slot) < settleMs) return this.#compose(slot, fd, size, 'recent');
    const known = this.known(slot, stat);
    if (known >= 0) return { route: 'shared', mapping: known };
    const sinceModifiedMs = now() - (stat.mtime * 1000 + stat.mtimensec / 1e6);
    // A time in the future says nothing.
    if (sinceModifiedMs >= 0 && sinceModifiedMs < settleMs) return this.#compose(slot, fd, size, 'recent');
    const { ctime, ctimensec } = stat;
    // The age counts from before the look, which may take long: a change right after it could leave the ctime the same.
    const age = now() - (ctime * 1000 + ctimensec / 1e6);
    if (age >= 0 && age < CTIME_GRANULARITY_MS) return this.#compose(slot, fd, size, 'recent');
    const domain = this.#o.domains.of(slot, stat.uid);
    if (domain === NO_DOMAIN) return this.#own('domain');
    // A direct write moves ctime when it begins and the extents when it ends: none may be on its way.
    if (isWrittenElsewhere(calls, fd)) return this.#own('written-elsewhere');
    const file = { fd, size, inode: stat.inode, domain, uid: stat.uid, node: slot, sinceModifiedMs };
    const found = mappings.share(file, this.#o.dropPages);
    const decided = (outcome: number | string): Choice | Promise<Choice> =>
      typeof outcome === 'number'
        ? this.#settle(slot, fd, outcome, ctime, ctimensec)
        : this.#refused(slot, fd, size, outcome);
    return found instanceof Promise ? this.#wait(slot, fd, found, decided) : decided(found);
  }

  /** Where a large file that is to be opened for writing is read from. `fd` is open for reading. */
  chooseForWriting(slot: number, fd: number): Choice | Promise<Choice> {
    if (this.#stat.read(this.#o.calls, fd) < 0) return this.#unknown();
    return this.#compose(slot, fd, Number.POSITIVE_INFINITY, 'writing');
  }

  /** The own route for a file that is open for writing by `fd`. */
  ownForWriting(fd: number): Choice {
    this.count('writing');
    return this.ownForCreated(fd);
  }

  /** The own route for a file that has just been made, which nobody expects to be shared. */
  ownForCreated(fd: number): Choice {
    const known = this.#stat.read(this.#o.calls, fd) >= 0;
    return ownChoice(false, !known || isGuarded(this.#stat));
  }

  /** Whether a file that is to be opened for writing by `fd` may take the composed route. */
  mayCompose(fd: number): boolean {
    const { composing, calls } = this.#o;
    return composing !== undefined && this.#stat.read(calls, fd) >= 0 && composing.fits(this.#stat.size);
  }

  /** The mapping that is known to hold the bytes of a node's file, which has these attributes, or -1. */
  known(slot: number, stat: Pick<Stat, 'ctime' | 'ctimensec' | 'size'>): number {
    const { nodes, mappings } = this.#o;
    const mapping = nodes.verdict(slot, stat.ctime, stat.ctimensec);
    if (mapping < 0 || mappings === undefined) return -1;
    if (!mappings.isAlive(mapping, nodes.verdictGeneration(slot))) return -1;
    return mappings.size(mapping) === stat.size ? mapping : -1;
  }

  /**
   * Whether a mapping holds a file's bytes now, by a look at its extents. `fd` is open for reading. What is found is remembered
   * where the ctime is old enough.
   */
  holds(slot: number, fd: number, mapping: number): boolean {
    const { calls, nodes, mappings, now } = this.#o;
    const stat = this.#stat;
    if (mappings === undefined || isWrittenElsewhere(calls, fd) || stat.read(calls, fd) < 0) return false;
    const { ctime, ctimensec, size, inode } = stat;
    if (size !== mappings.size(mapping) || !mappings.holds(mapping, { fd, size, inode })) return false;
    const age = now() - (ctime * 1000 + ctimensec / 1e6);
    if (stat.read(calls, fd) < 0 || stat.ctime !== ctime || stat.ctimensec !== ctimensec) return false;
    if (age >= CTIME_GRANULARITY_MS) {
      nodes.setVerdict(slot, mapping, mappings.generation(mapping), ctime, ctimensec);
    }
    return true;
  }

  /** The own route, for the reason that is given, for the file that `#stat` is of. */
  #own(reason: string): Choice {
    this.count(reason);
    return ownChoice(LASTING.has(reason), isGuarded(this.#stat));
  }

  /** Why the mount's rule keeps a file from being shared. */
  #forbidden(fd: number): OwnReason | undefined {
    const { calls, scratch, share } = this.#o;
    if (share === 'all') return undefined;
    const { address, bytes } = scratch;
    if (share === 'readonly') {
      const may = calls.faccessat2(fd, address + SCRATCH.empty, c.W_OK, c.AT_EMPTY_PATH);
      return may >= 0 ? 'writable' : undefined;
    }
    if ((this.#stat.mode & 0o111) !== 0) return undefined;
    const got = calls.pread(fd, address + SCRATCH.head, HEAD_BYTES, 0);
    return got > 0 && isProgram(bytes.subarray(SCRATCH.head, SCRATCH.head + got)) ? undefined : 'not-text';
  }

  /** A file isn't shared as a whole. */
  #refused(slot: number, fd: number, size: number, reason: string): Choice | Promise<Choice> {
    const { nodes, writable } = this.#o;
    if (reason === 'live' && writable && nodes.has(slot)) nodes.setLive(slot);
    return this.#compose(slot, fd, size, reason);
  }

  /** The composed route if the file may take it, and otherwise its own, for the reason that kept it from being shared. */
  #compose(slot: number, fd: number, size: number, reason: string): Choice | Promise<Choice> {
    const { composing, domains } = this.#o;
    if (composing === undefined || !composing.fits(size)) return this.#own(reason);
    const domain = domains.of(slot, this.#stat.uid);
    if (domain === NO_DOMAIN) return this.#own('domain');
    const decided = (outcome: ComposedOpen | ComposedRefusal): Choice => {
      if (typeof outcome !== 'string') return { route: 'composed', open: outcome };
      return this.#own(outcome === 'unshared' ? reason : outcome);
    };
    // A file that is shared as a whole needn't be composed only because it is young.
    const outcome = composing.decide(fd, reason !== 'recent', domain);
    return outcome instanceof Promise ? this.#wait(slot, fd, outcome, decided) : decided(outcome);
  }

  /** Goes on with a file when a wait is over: others were looked at meanwhile, and it may have changed. */
  #wait<T>(
    slot: number,
    fd: number,
    wait: Promise<T>,
    decided: (outcome: T) => Choice | Promise<Choice>,
  ): Promise<Choice> {
    const choice = wait.then((outcome) =>
      this.#stat.read(this.#o.calls, fd) < 0 ? this.#unknown() : decided(outcome),
    );
    const settled = choice.finally(() => {
      if (this.#pending.get(slot) === settled) this.#pending.delete(slot);
    });
    this.#pending.set(slot, settled);
    return settled;
  }

  /** The own route for a file whose attributes can't be had. */
  #unknown(): Choice {
    this.count('changing');
    return ownChoice(false, true);
  }

  /** A file's name here: both its nodes have its handle. */
  #nameOf(slot: number): string {
    const { nodes } = this.#o;
    return inodeName(nodes.memory.view, nodes.handleOffset(slot));
  }

  #sinceWrittenMs(slot: number): number {
    return this.#o.nodes.ticksSinceWritten(slot, this.tick) * WRITTEN_TICK_MS;
  }

  /**
   * A mapping holds the bytes that the file had a moment ago. They still are the file's if its ctime hasn't changed since
   * before the look, when nobody had it open for writing and it was old enough that any further change would have changed it.
   */
  #settle(slot: number, fd: number, mapping: number, ctime: number, ctimensec: number): Choice {
    const { calls, mappings, nodes } = this.#o;
    const stat = this.#stat;
    if (stat.read(calls, fd) < 0) return this.#unknown();
    if (mappings === undefined || !nodes.has(slot)) return this.#own('changing');
    const same = stat.ctime === ctime && stat.ctimensec === ctimensec && stat.size === mappings.size(mapping);
    if (!same) return this.#own('changing');
    nodes.setVerdict(slot, mapping, mappings.generation(mapping), ctime, ctimensec);
    return { route: 'shared', mapping };
  }
}

const ownChoices = [false, true].map((keep) =>
  [false, true].map((guarded): Choice => ({ route: 'own', keep, guarded })),
);

/**
 * Whether others than root may write to a file (an ACL's mask is shown as the group's mode) that has no set-user-ID and no
 * set-group-ID. Of those that it has the kernel knows, and asks for their loss; those that somebody sets around the mount later
 * must go with a user's write all the same.
 */
function isGuarded(stat: Stat): boolean {
  return (stat.uid !== 0 || (stat.mode & 0o022) !== 0) && (stat.mode & (c.S_ISUID | c.S_ISGID)) === 0;
}

function ownChoice(keep: boolean, guarded: boolean): Choice {
  return ownChoices[Number(keep)]?.[Number(guarded)] ?? { route: 'own', keep, guarded };
}
