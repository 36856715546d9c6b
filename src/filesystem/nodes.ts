/**
 * The node table: one row of 76 bytes per inode that the kernel knows, found by node id (the row's number plus one) or by
 * file handle (linear hashing, so that growing never stops the mount). Rows and the numbers that go with them live in journaled
 * memory, which a later server takes over; nothing of a node is kept anywhere else but its descriptor, if it is pinned.
 *
 *     word  0..6   struct file_handle: handle_bytes, handle_type, f_handle (20 bytes)
 *           7      next row of the same bucket, or of the free list, plus one
 *           8..9   lookup count: 2^32 lookups of one directory are a day's work
 *          10      generation: how often this row was given away, so that a node id with it is never used twice
 *          11      state: see the bits below; when the file was last open for writing
 *          12      row of the open file table, plus one
 *          13      shared mapping that held this file's bytes when it was looked at, plus one
 *          14      generation of that mapping
 *          15..16  the ctime that the file had then, seconds (low 32 bits) and nanoseconds
 *          17      domain, where that goes by the file's place (`domains.ts`)
 *          18      opens whose closing the kernel doesn't tell of (`locks/locks.ts`)
 *
 * Invariants: a row in use has a lookup count above zero, or is the root. At most one row in use that isn't detached has
 * a given handle. A detached row keeps its place in the chains, but is not found.
 */

import type { Journal, WordIndex } from '../base/journal.ts';
import type { Address, Memory } from '../base/memory.ts';
import { HANDLE_BYTES } from './handles.ts';
import {
  CONTENDED,
  DETACHED,
  FLAGS,
  INHERITED,
  LIVE,
  LOCKED,
  MAPPED,
  PINNED,
  TYPE_SHIFT,
  USED,
  WRITTEN_RANGE,
  WRITTEN_SHIFT,
} from './nodestate.ts';

export const NODE_BYTES = 76;
const WORDS = NODE_BYTES / 4;
const NEXT = 7;
const LOOKUPS = 8;
const GENERATION = 10;
const STATE = 11;
const OPEN = 12;
const VERDICT = 13;
const VERDICT_GENERATION = 14;
const VERDICT_SECONDS = 15;
const VERDICT_NANOSECONDS = 16;
const DOMAIN = 17;
const QUIET = 18;

export const ROOT = 0;
export const NO_NODE = -1;

/** Words in front of the rows. */
const TOUCHED = 0; // rows that were ever in use; rows beyond are untouched
const FREE = 1;
const SPLITS = 2; // buckets beside the first
const COUNT = 3;
const DETACHED_COUNT = 4;
const HEADER_WORDS = 8;

/** Words that a table for `capacity` nodes reserves. Only what is touched costs memory. */
export function nodeTableWords(capacity: number): number {
  return HEADER_WORDS + capacity * (WORDS + 1);
}

function hashOf(words: Uint32Array, at: number): number {
  let hash = 0x9e3779b1;
  for (let i = 2; i < 7; i++) {
    hash = Math.imul(hash ^ (words[at + i] ?? 0), 0x85ebca6b);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export class NodeTable {
  readonly #journal: Journal;
  readonly #words: Uint32Array;
  readonly #header: WordIndex;
  readonly #rows: WordIndex;
  readonly #buckets: WordIndex;
  readonly #capacity: number;

  constructor(journal: Journal, capacity: number) {
    this.#journal = journal;
    this.#words = journal.words;
    this.#capacity = capacity;
    this.#header = journal.take(nodeTableWords(capacity));
    this.#rows = this.#header + HEADER_WORDS;
    this.#buckets = this.#rows + capacity * WORDS;
  }

  get count(): number {
    return this.#number(COUNT);
  }

  get detachedCount(): number {
    return this.#number(DETACHED_COUNT);
  }

  /** Whether the kernel may use this node id. A request for another is answered with ESTALE. */
  has(slot: number): boolean {
    return slot >= 0 && slot < this.#number(TOUCHED) && (this.#state(slot) & USED) !== 0;
  }

  /**
   * The node of the handle at `at` in `source`, made if there is none, with one lookup more. Returns NO_NODE when the table
   * is full.
   */
  lookUp(source: Memory, at: number, mode: number): number {
    const found = this.find(source, at);
    if (found !== NO_NODE) {
      this.#addLookups(found, 1);
      return found;
    }
    const slot = this.#take();
    if (slot === NO_NODE) return NO_NODE;
    for (let word = 0; word < HANDLE_BYTES / 4; word++)
      this.#set(slot, word, source.view.getUint32(at + word * 4, true));
    this.#journal.setLarge(this.#rows + slot * WORDS + LOOKUPS, 1);
    this.#set(slot, GENERATION, this.#get(slot, GENERATION) + 1);
    this.#set(slot, STATE, USED | ((mode >>> 12) << TYPE_SHIFT) | this.#inherited(slot));
    this.#set(slot, OPEN, 0);
    this.#set(slot, VERDICT, 0);
    this.#set(slot, DOMAIN, 0);
    this.#set(slot, QUIET, 0);
    this.#setNumber(COUNT, this.count + 1);
    this.#insert(slot);
    return slot;
  }

  /** The node of the handle at `at` in `source`, without a lookup, or NO_NODE. */
  find(source: Memory, at: number): number {
    const { buffer, byteOffset } = source.bytes;
    const wanted = new Uint32Array(buffer, byteOffset + at, HANDLE_BYTES / 4);
    let next = this.#words[this.#buckets + this.#bucketOf(hashOf(wanted, 0))] ?? 0;
    while (next !== 0) {
      const slot = next - 1;
      if (this.#sameHandle(slot, wanted) && (this.#state(slot) & DETACHED) === 0) return slot;
      next = this.#get(slot, NEXT);
    }
    return NO_NODE;
  }

  /** The node that stands for the same inode now that `slot` is detached, or NO_NODE. */
  successor(slot: number): number {
    return this.find(this.memory, this.handleOffset(slot));
  }

  /** Takes back `count` lookups; returns whether the node is gone. */
  forget(slot: number, count: number): boolean {
    if (slot === ROOT) return false;
    if (this.#addLookups(slot, -count) > 0) return false;
    this.#remove(slot);
    return true;
  }

  /** Makes the node unfindable by its handle: the next lookup of the inode gets a new node. */
  detach(slot: number): void {
    if (this.isDetached(slot)) return;
    this.#set(slot, STATE, this.#state(slot) | DETACHED);
    this.#setNumber(DETACHED_COUNT, this.detachedCount + 1);
  }

  isDetached(slot: number): boolean {
    return (this.#state(slot) & DETACHED) !== 0;
  }

  /** Whether the file is one that is written in place while others read it, as long as the kernel knows it. */
  isLive(slot: number): boolean {
    return (this.#state(slot) & LIVE) !== 0;
  }

  setLive(slot: number): void {
    this.#set(slot, STATE, this.#state(slot) | LIVE);
  }

  /** Whether readers were left behind when the file was last opened for writing. */
  isContended(slot: number): boolean {
    return (this.#state(slot) & CONTENDED) !== 0;
  }

  /** Whether a map may be left through which the file is written, though nobody has it open. */
  mayBeMapped(slot: number): boolean {
    return (this.#state(slot) & MAPPED) !== 0;
  }

  setContended(slot: number, contended: boolean): void {
    const state = this.#state(slot);
    this.#set(slot, STATE, contended ? state | CONTENDED : state & ~CONTENDED);
  }

  setMapped(slot: number, mapped: boolean): void {
    const state = this.#state(slot);
    this.#set(slot, STATE, mapped ? state | MAPPED : state & ~MAPPED);
  }

  /** The file is, or was until now, open for writing. `tick` counts WRITTEN_TICK_MS of a clock that only goes forward. */
  setWritten(slot: number, tick: number): void {
    const stamp = ((tick % WRITTEN_RANGE) + 1) << WRITTEN_SHIFT;
    this.#set(slot, STATE, (this.#state(slot) & FLAGS) | stamp);
  }

  /** How many ticks ago the file was last open for writing; without end if that isn't known. */
  ticksSinceWritten(slot: number, tick: number): number {
    const stamp = this.#state(slot) >>> WRITTEN_SHIFT;
    if (stamp === 0) return Number.POSITIVE_INFINITY;
    return ((tick % WRITTEN_RANGE) - (stamp - 1) + WRITTEN_RANGE) % WRITTEN_RANGE;
  }

  /** Whether a server keeps the node alive by a descriptor of which later servers get a copy. */
  isPinned(slot: number): boolean {
    return (this.#state(slot) & PINNED) !== 0;
  }

  /** For a node that is in use, or was until this step. */
  setPinned(slot: number, pinned: boolean): void {
    const state = this.#state(slot);
    if ((state & USED) !== 0) this.#set(slot, STATE, pinned ? state | PINNED : state & ~PINNED);
  }

  /** The file type bits of st_mode (S_IFMT). */
  type(slot: number): number {
    return ((this.#state(slot) >>> TYPE_SHIFT) & 0xf) << 12;
  }

  /** Where the kernel finds the node's handle, for open_by_handle_at(2). */
  handleAddress(slot: number): Address {
    return this.memory.address + this.handleOffset(slot);
  }

  /** The handle's bytes: for `handles.ts`. */
  get memory(): Memory {
    return this.#journal.memory;
  }

  handleOffset(slot: number): number {
    return this.#rows * 4 + slot * NODE_BYTES;
  }

  generation(slot: number): number {
    return this.#get(slot, GENERATION);
  }

  lookups(slot: number): number {
    return this.#journal.getLarge(this.#rows + slot * WORDS + LOOKUPS);
  }

  domain(slot: number): number {
    return this.#get(slot, DOMAIN);
  }

  setDomain(slot: number, domain: number): void {
    this.#set(slot, DOMAIN, domain);
  }

  /** Whether a lock of the file was ever given through this node. */
  isLocked(slot: number): boolean {
    return (this.#state(slot) & LOCKED) !== 0;
  }

  setLocked(slot: number): void {
    this.#set(slot, STATE, this.#state(slot) | LOCKED);
  }

  /** Counts an open whose closing the kernel doesn't tell of, or the end of one. */
  addQuiet(slot: number, by: 1 | -1): void {
    this.#set(slot, QUIET, Math.max(0, this.#get(slot, QUIET) + by));
  }

  /** Whether the inode has such opens, be it through a node that is detached. */
  hasQuiet(slot: number): boolean {
    const base = this.#rows + slot * WORDS;
    const handle = this.#words.subarray(base, base + HANDLE_BYTES / 4);
    for (let next = this.#journal.get(this.#bucketOfSlot(slot)); next !== 0; next = this.#get(next - 1, NEXT)) {
      if (this.#get(next - 1, QUIET) > 0 && this.#sameHandle(next - 1, handle)) return true;
    }
    return false;
  }

  /** The row of the open file table, or -1. */
  openRow(slot: number): number {
    return this.#get(slot, OPEN) - 1;
  }

  setOpenRow(slot: number, row: number): void {
    this.#set(slot, OPEN, row + 1);
  }

  /** The mapping that held the file's bytes when its ctime was this one, or -1; it may be gone: compare generations. */
  verdict(slot: number, ctimeSeconds: number, ctimeNanoseconds: number): number {
    if (this.#get(slot, VERDICT_SECONDS) !== ctimeSeconds >>> 0) return -1;
    if (this.#get(slot, VERDICT_NANOSECONDS) !== ctimeNanoseconds) return -1;
    return this.#get(slot, VERDICT) - 1;
  }

  /** The mapping that the file was last found in, whatever has happened to either since, or -1. */
  lastVerdict(slot: number): number {
    return this.#get(slot, VERDICT) - 1;
  }

  verdictGeneration(slot: number): number {
    return this.#get(slot, VERDICT_GENERATION);
  }

  /** Tells of every node's last verdict: the mapping's row and generation. Looks at every row. */
  eachVerdict(visit: (mapping: number, generation: number) => void): void {
    const touched = this.#number(TOUCHED);
    for (let slot = 0; slot < touched; slot++) {
      const mapping = this.has(slot) ? this.lastVerdict(slot) : NO_NODE;
      if (mapping >= 0) visit(mapping, this.verdictGeneration(slot));
    }
  }

  setVerdict(slot: number, mapping: number, generation: number, ctimeSeconds: number, ctimeNanoseconds: number): void {
    this.#set(slot, VERDICT, mapping + 1);
    this.#set(slot, VERDICT_GENERATION, generation);
    this.#set(slot, VERDICT_SECONDS, ctimeSeconds >>> 0);
    this.#set(slot, VERDICT_NANOSECONDS, ctimeNanoseconds);
  }

  /** Tells of every node that the kernel knows. Looks at every row. */
  *slots(): Generator<number> {
    for (let slot = 0; slot < this.#number(TOUCHED); slot++) if (this.has(slot)) yield slot;
  }

  /** What is wrong with the table, if it was not made by this code or was written to by others; looks at every row. */
  flaw(): string | undefined {
    const touched = this.#number(TOUCHED);
    const buckets = this.#bucketCount;
    if (touched > this.#capacity || buckets > this.#capacity) return `it has ${touched} rows and ${buckets} buckets`;
    let used = 0;
    let detached = 0;
    for (let slot = 0; slot < touched; slot++) {
      if (!this.has(slot)) continue;
      used++;
      if (this.isDetached(slot)) detached++;
      if (slot !== ROOT && this.lookups(slot) < 1) return `node ${slot + 1} is in use without a lookup`;
    }
    if (used !== this.count || detached !== this.detachedCount) return `${used} nodes are in use, not ${this.count}`;
    let found = 0;
    for (let bucket = 0; bucket < buckets; bucket++) {
      let next = this.#words[this.#buckets + bucket] ?? 0;
      for (; next !== 0 && found <= used; next = this.#get(next - 1, NEXT)) {
        if (!this.has(next - 1)) return `bucket ${bucket} leads to row ${next - 1}, which is not in use`;
        found++;
      }
    }
    return found === used ? undefined : `its buckets hold ${found} of ${used} nodes`;
  }

  #number(word: number): number {
    return this.#words[this.#header + word] ?? 0;
  }

  #setNumber(word: number, value: number): void {
    this.#journal.set(this.#header + word, value);
  }

  #get(slot: number, word: number): number {
    return this.#words[this.#rows + slot * WORDS + word] ?? 0;
  }

  #set(slot: number, word: number, value: number): void {
    this.#journal.set(this.#rows + slot * WORDS + word, value);
  }

  get #bucketCount(): number {
    return this.#number(SPLITS) + 1;
  }

  /** What a new node has of a detached one of the same file, whose place it takes. */
  #inherited(slot: number): number {
    if (this.detachedCount === 0) return 0;
    const base = this.#rows + slot * WORDS;
    const wanted = this.#words.subarray(base, base + HANDLE_BYTES / 4);
    let flags = 0;
    let stamp = 0;
    let next = this.#words[this.#bucketOfSlot(slot)] ?? 0;
    while (next !== 0) {
      const other = next - 1;
      if (this.isDetached(other) && this.#sameHandle(other, wanted)) {
        flags |= this.#state(other) & INHERITED;
        stamp = Math.max(stamp, this.#state(other) >>> WRITTEN_SHIFT);
      }
      next = this.#get(other, NEXT);
    }
    return flags | (stamp << WRITTEN_SHIFT);
  }

  #state(slot: number): number {
    return this.#get(slot, STATE);
  }

  #addLookups(slot: number, count: number): number {
    const at = this.#rows + slot * WORDS + LOOKUPS;
    const sum = Math.max(0, this.#journal.getLarge(at) + count);
    this.#journal.setLarge(at, sum);
    return sum;
  }

  #sameHandle(slot: number, wanted: Uint32Array): boolean {
    const base = this.#rows + slot * WORDS;
    for (let i = 0; i < HANDLE_BYTES / 4; i++) if (this.#words[base + i] !== wanted[i]) return false;
    return true;
  }

  #take(): number {
    const free = this.#number(FREE);
    if (free !== 0) {
      this.#setNumber(FREE, this.#get(free - 1, NEXT));
      return free - 1;
    }
    const touched = this.#number(TOUCHED);
    if (touched >= this.#capacity) return NO_NODE;
    this.#setNumber(TOUCHED, touched + 1);
    return touched;
  }

  /** Linear hashing: buckets below the split point use one bit more of the hash than those above. */
  #bucketOf(hash: number): number {
    const count = this.#bucketCount;
    const bits = 31 - Math.clz32(count);
    const bucket = hash & ((2 << bits) - 1);
    return bucket < count ? bucket : bucket & ((1 << bits) - 1);
  }

  #bucketOfSlot(slot: number): WordIndex {
    return this.#buckets + this.#bucketOf(hashOf(this.#words, this.#rows + slot * WORDS));
  }

  #insert(slot: number): void {
    const bucket = this.#bucketOfSlot(slot);
    this.#set(slot, NEXT, this.#journal.get(bucket));
    this.#journal.set(bucket, slot + 1);
    if (this.count > this.#bucketCount && this.#bucketCount < this.#capacity) this.#split();
  }

  /** Adds one bucket, and moves to it what belongs there from the one bucket that it was split from. */
  #split(): void {
    const count = this.#bucketCount;
    const from = this.#buckets + count - (1 << (31 - Math.clz32(count)));
    this.#setNumber(SPLITS, count);
    let next = this.#journal.get(from);
    this.#journal.set(from, 0);
    this.#journal.set(this.#buckets + count, 0);
    while (next !== 0) {
      const slot = next - 1;
      next = this.#get(slot, NEXT);
      const bucket = this.#bucketOfSlot(slot);
      this.#set(slot, NEXT, this.#journal.get(bucket));
      this.#journal.set(bucket, slot + 1);
    }
  }

  #remove(slot: number): void {
    const bucket = this.#bucketOfSlot(slot);
    let previous = NO_NODE;
    let next = this.#journal.get(bucket);
    while (next !== 0 && next - 1 !== slot) {
      previous = next - 1;
      next = this.#get(previous, NEXT);
    }
    const after = this.#get(slot, NEXT);
    if (previous === NO_NODE) this.#journal.set(bucket, after);
    else this.#set(previous, NEXT, after);
    if (this.isDetached(slot)) this.#setNumber(DETACHED_COUNT, this.detachedCount - 1);
    this.#set(slot, STATE, 0);
    this.#set(slot, NEXT, this.#number(FREE));
    this.#setNumber(FREE, slot + 1);
    this.#setNumber(COUNT, this.count - 1);
  }
}
