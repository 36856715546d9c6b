/**
 * The table of shared mappings: what is known of each clone, an index by the hash of its map, and the list of those that
 * nobody uses, least recently used first. Columns are typed arrays; a row costs 45 bytes.
 *
 * Life of a row:  take ──► publish (findable, idle) ⇄ in use ──► withdraw ──► give ──► take, with another generation
 */

export const NONE = -1;

export class MappingRows {
  readonly size: Float64Array;
  /** The hash of the clone's map when it was made: a hint where to look, no proof. */
  readonly hash: Float64Array;
  readonly inode: Float64Array;
  readonly generation: Uint32Array;
  /** Inodes of the mount that are open on the mapping. */
  readonly users: Uint32Array;
  readonly backingId: Int32Array;
  readonly capacity: number;
  /** Rows that are published. */
  count = 0;
  /** Rows that are published and not in use. */
  idle = 0;
  /** Rows that were ever taken; those beyond were never touched. */
  touched = 0;
  /** The least recently used idle row. */
  oldest = NONE;
  readonly #alive: Uint8Array;
  /** Next row of the bucket, or of the free list. */
  readonly #next: Int32Array;
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  readonly #buckets: Int32Array;
  #newest = NONE;
  #free = NONE;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.size = new Float64Array(capacity);
    this.hash = new Float64Array(capacity);
    this.inode = new Float64Array(capacity);
    this.generation = new Uint32Array(capacity);
    this.users = new Uint32Array(capacity);
    this.backingId = new Int32Array(capacity);
    this.#alive = new Uint8Array(capacity);
    this.#next = new Int32Array(capacity);
    this.#older = new Int32Array(capacity);
    this.#newer = new Int32Array(capacity);
    this.#buckets = new Int32Array(capacity).fill(NONE);
  }

  isAlive(row: number): boolean {
    return this.#alive[row] === 1;
  }

  /** A row that isn't findable yet, or NONE when there is none left. */
  take(): number {
    if (this.#free !== NONE) {
      const row = this.#free;
      this.#free = this.#next[row] ?? NONE;
      return row;
    }
    return this.touched < this.capacity ? this.touched++ : NONE;
  }

  /** Gives a row back that is not, or no longer, findable. */
  give(row: number): void {
    this.generation[row] = (this.generation[row] ?? 0) + 1;
    this.#next[row] = this.#free;
    this.#free = row;
  }

  /** Makes a row findable by its hash; it is idle at first. */
  publish(row: number, size: number, hash: number, inode: number): void {
    this.size[row] = size;
    this.hash[row] = hash;
    this.inode[row] = inode;
    this.#alive[row] = 1;
    const bucket = hash % this.capacity;
    this.#next[row] = this.#buckets[bucket] ?? NONE;
    this.#buckets[bucket] = row;
    this.count++;
    this.enterIdle(row);
  }

  /** Makes an idle row unfindable. */
  withdraw(row: number): void {
    const bucket = (this.hash[row] ?? 0) % this.capacity;
    const after = this.#next[row] ?? NONE;
    if (this.#buckets[bucket] === row) {
      this.#buckets[bucket] = after;
    } else {
      let previous = this.#buckets[bucket] ?? NONE;
      while (previous !== NONE && this.#next[previous] !== row) previous = this.#next[previous] ?? NONE;
      if (previous !== NONE) this.#next[previous] = after;
    }
    this.leaveIdle(row);
    this.#alive[row] = 0;
    this.count--;
  }

  /** The published rows whose map had this hash, and whose clone has this size. */
  *candidates(hash: number, size: number): Generator<number> {
    let row = this.#buckets[hash % this.capacity] ?? NONE;
    while (row !== NONE) {
      const next = this.#next[row] ?? NONE;
      if (this.hash[row] === hash && this.size[row] === size) yield row;
      row = next;
    }
  }

  enterIdle(row: number): void {
    this.#older[row] = this.#newest;
    this.#newer[row] = NONE;
    if (this.#newest === NONE) this.oldest = row;
    else this.#newer[this.#newest] = row;
    this.#newest = row;
    this.idle++;
  }

  leaveIdle(row: number): void {
    const older = this.#older[row] ?? NONE;
    const newer = this.#newer[row] ?? NONE;
    if (older === NONE) this.oldest = newer;
    else this.#newer[older] = newer;
    if (newer === NONE) this.#newest = older;
    else this.#older[newer] = older;
    this.idle--;
  }
}
