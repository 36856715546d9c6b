/**
 * The node table: one row of 72 bytes per inode that the kernel knows, found by node id (the row's number plus one) or by
 * file handle (linear hashing, so that growing never stops the mount). Rows live in memory that may be a shared file, so
 * that a later server can take them over; nothing of a node is kept anywhere else.
 *
 *     word  0..6   struct file_handle: handle_bytes, handle_type, f_handle (20 bytes)
 *           7      next row of the same bucket, or of the free list, plus one
 *           8..9   lookup count, a Float64: 2^32 lookups of one directory are a day's work
 *          10      generation: how often this row was given away, so that a node id with it is never used twice
 *          11      state: see the bits below
 *          12      row of the open file table, plus one
 *          13      shared mapping that held this file's bytes when it was looked at, plus one
 *          14      generation of that mapping
 *          15..16  the ctime that the file had then, seconds (low 32 bits) and nanoseconds
 *          17      unused
 *
 * Invariants: a row in use has a lookup count above zero, or is the root. At most one row in use that isn't detached has
 * a given handle. A detached row keeps its place in the chains, but is not found.
 */

import type { Address, Memory } from '../base/memory.ts';
import { HANDLE_BYTES } from './handles.ts';

export const NODE_BYTES = 72;
const WORDS = NODE_BYTES / 4;
const NEXT = 7;
const LOOKUPS = 4; // in Float64
const GENERATION = 10;
const STATE = 11;
const OPEN = 12;
const VERDICT = 13;
const VERDICT_GENERATION = 14;
const VERDICT_SECONDS = 15;
const VERDICT_NANOSECONDS = 16;

const USED = 1;
const DETACHED = 2;
/** The file type, S_IFMT >> 12, in bits 4 to 7. */
const TYPE_SHIFT = 4;

export const ROOT = 0;
export const NO_NODE = -1;

/** Bytes that a table for `capacity` nodes reserves. Only what is touched costs memory. */
export function nodeTableBytes(capacity: number): number {
  return capacity * (NODE_BYTES + 4);
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
  readonly #memory: Memory;
  readonly #words: Uint32Array;
  readonly #lookups: Float64Array;
  readonly #buckets: Uint32Array;
  readonly #capacity: number;
  /** Rows that were ever in use; rows beyond are untouched. */
  #touched = 0;
  #free = 0;
  #bucketCount = 1;
  #used = 0;
  #detached = 0;

  constructor(memory: Memory, capacity: number) {
    const { buffer, byteOffset } = memory.bytes;
    this.#memory = memory;
    this.#capacity = capacity;
    this.#words = new Uint32Array(buffer, byteOffset, capacity * WORDS);
    this.#lookups = new Float64Array(buffer, byteOffset, capacity * (WORDS / 2));
    this.#buckets = new Uint32Array(buffer, byteOffset + capacity * NODE_BYTES, capacity);
  }

  get count(): number {
    return this.#used;
  }

  get detachedCount(): number {
    return this.#detached;
  }

  /** Whether the kernel may use this node id. A request for another is answered with ESTALE. */
  has(slot: number): boolean {
    return slot >= 0 && slot < this.#touched && (this.#state(slot) & USED) !== 0;
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
    const base = slot * WORDS;
    this.#memory.bytes.set(source.bytes.subarray(at, at + HANDLE_BYTES), slot * NODE_BYTES);
    this.#lookups[slot * (WORDS / 2) + LOOKUPS] = 1;
    this.#words[base + GENERATION] = (this.#words[base + GENERATION] ?? 0) + 1;
    this.#words[base + STATE] = USED | ((mode >>> 12) << TYPE_SHIFT);
    this.#words[base + OPEN] = 0;
    this.#words[base + VERDICT] = 0;
    this.#used++;
    this.#insert(slot);
    return slot;
  }

  /** The node of the handle at `at` in `source`, without a lookup, or NO_NODE. */
  find(source: Memory, at: number): number {
    const { buffer, byteOffset } = source.bytes;
    const wanted = new Uint32Array(buffer, byteOffset + at, HANDLE_BYTES / 4);
    let next = this.#buckets[this.#bucketOf(hashOf(wanted, 0))] ?? 0;
    while (next !== 0) {
      const slot = next - 1;
      if (this.#sameHandle(slot, wanted) && (this.#state(slot) & DETACHED) === 0) return slot;
      next = this.#words[slot * WORDS + NEXT] ?? 0;
    }
    return NO_NODE;
  }

  /** The node that stands for the same inode now that `slot` is detached, or NO_NODE. */
  successor(slot: number): number {
    return this.find(this.#memory, slot * NODE_BYTES);
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
    this.#words[slot * WORDS + STATE] = this.#state(slot) | DETACHED;
    this.#detached++;
  }

  isDetached(slot: number): boolean {
    return (this.#state(slot) & DETACHED) !== 0;
  }

  /** The file type bits of st_mode (S_IFMT). */
  type(slot: number): number {
    return ((this.#state(slot) >>> TYPE_SHIFT) & 0xf) << 12;
  }

  /** Where the kernel finds the node's handle, for open_by_handle_at(2). */
  handleAddress(slot: number): Address {
    return this.#memory.address + slot * NODE_BYTES;
  }

  /** The handle's bytes: for `handles.ts`. */
  get memory(): Memory {
    return this.#memory;
  }

  handleOffset(slot: number): number {
    return slot * NODE_BYTES;
  }

  generation(slot: number): number {
    return this.#words[slot * WORDS + GENERATION] ?? 0;
  }

  lookups(slot: number): number {
    return this.#lookups[slot * (WORDS / 2) + LOOKUPS] ?? 0;
  }

  /** The row of the open file table, or -1. */
  openRow(slot: number): number {
    return (this.#words[slot * WORDS + OPEN] ?? 0) - 1;
  }

  setOpenRow(slot: number, row: number): void {
    this.#words[slot * WORDS + OPEN] = row + 1;
  }

  /** The mapping that held the file's bytes when its ctime was this one, or -1; it may be gone: compare generations. */
  verdict(slot: number, ctimeSeconds: number, ctimeNanoseconds: number): number {
    const base = slot * WORDS;
    if (this.#words[base + VERDICT_SECONDS] !== ctimeSeconds >>> 0) return -1;
    if (this.#words[base + VERDICT_NANOSECONDS] !== ctimeNanoseconds) return -1;
    return (this.#words[base + VERDICT] ?? 0) - 1;
  }

  /** The mapping that the file was last found in, whatever has happened to either since, or -1. */
  lastVerdict(slot: number): number {
    return (this.#words[slot * WORDS + VERDICT] ?? 0) - 1;
  }

  verdictGeneration(slot: number): number {
    return this.#words[slot * WORDS + VERDICT_GENERATION] ?? 0;
  }

  /** Tells of every node's last verdict: the mapping's row and generation. Looks at every row. */
  eachVerdict(visit: (mapping: number, generation: number) => void): void {
    for (let slot = 0; slot < this.#touched; slot++) {
      const mapping = this.has(slot) ? this.lastVerdict(slot) : NO_NODE;
      if (mapping >= 0) visit(mapping, this.verdictGeneration(slot));
    }
  }

  setVerdict(slot: number, mapping: number, generation: number, ctimeSeconds: number, ctimeNanoseconds: number): void {
    const base = slot * WORDS;
    this.#words[base + VERDICT] = mapping + 1;
    this.#words[base + VERDICT_GENERATION] = generation;
    this.#words[base + VERDICT_SECONDS] = ctimeSeconds >>> 0;
    this.#words[base + VERDICT_NANOSECONDS] = ctimeNanoseconds;
  }

  #state(slot: number): number {
    return this.#words[slot * WORDS + STATE] ?? 0;
  }

  #addLookups(slot: number, count: number): number {
    const at = slot * (WORDS / 2) + LOOKUPS;
    const sum = (this.#lookups[at] ?? 0) + count;
    this.#lookups[at] = sum;
    return sum;
  }

  #sameHandle(slot: number, wanted: Uint32Array): boolean {
    const base = slot * WORDS;
    for (let i = 0; i < HANDLE_BYTES / 4; i++) if (this.#words[base + i] !== wanted[i]) return false;
    return true;
  }

  #take(): number {
    if (this.#free !== 0) {
      const slot = this.#free - 1;
      this.#free = this.#words[slot * WORDS + NEXT] ?? 0;
      return slot;
    }
    return this.#touched < this.#capacity ? this.#touched++ : NO_NODE;
  }

  /** Linear hashing: buckets below the split point use one bit more of the hash than those above. */
  #bucketOf(hash: number): number {
    const bits = 31 - Math.clz32(this.#bucketCount);
    const bucket = hash & ((2 << bits) - 1);
    return bucket < this.#bucketCount ? bucket : bucket & ((1 << bits) - 1);
  }

  #insert(slot: number): void {
    const base = slot * WORDS;
    const bucket = this.#bucketOf(hashOf(this.#words, base));
    this.#words[base + NEXT] = this.#buckets[bucket] ?? 0;
    this.#buckets[bucket] = slot + 1;
    if (this.#used > this.#bucketCount && this.#bucketCount < this.#capacity) this.#split();
  }

  /** Adds one bucket, and moves to it what belongs there from the one bucket that it was split from. */
  #split(): void {
    const bits = 31 - Math.clz32(this.#bucketCount);
    const from = this.#bucketCount - (1 << bits);
    const to = this.#bucketCount++;
    let next = this.#buckets[from] ?? 0;
    this.#buckets[from] = 0;
    this.#buckets[to] = 0;
    while (next !== 0) {
      const base = (next - 1) * WORDS;
      const after = this.#words[base + NEXT] ?? 0;
      const bucket = this.#bucketOf(hashOf(this.#words, base));
      this.#words[base + NEXT] = this.#buckets[bucket] ?? 0;
      this.#buckets[bucket] = next;
      next = after;
    }
  }

  #remove(slot: number): void {
    const base = slot * WORDS;
    const bucket = this.#bucketOf(hashOf(this.#words, base));
    let previous = -1;
    let next = this.#buckets[bucket] ?? 0;
    while (next !== 0 && next - 1 !== slot) {
      previous = next - 1;
      next = this.#words[previous * WORDS + NEXT] ?? 0;
    }
    const after = this.#words[base + NEXT] ?? 0;
    if (previous < 0) this.#buckets[bucket] = after;
    else this.#words[previous * WORDS + NEXT] = after;
    if (this.isDetached(slot)) this.#detached--;
    this.#words[base + STATE] = 0;
    this.#words[base + NEXT] = this.#free;
    this.#free = slot + 1;
    this.#used--;
  }
}
