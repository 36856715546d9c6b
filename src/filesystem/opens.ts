/**
 * What is open: one row per inode that is open anywhere (its route, which the kernel wants to be one at a time, and its
 * backing id), and one row per open that needs a descriptor of ours (writable, relayed, composed and directory opens). An open that
 * reads by passthrough, the usual case, costs its inode's row only, and no descriptor.
 *
 *     open file row, 32 bytes:  node slot, route, opens, opens that may map for writing, backing id, mapping plus one, unused, next
 *     handle row,    16 bytes:  descriptor plus one, node slot, flags, next
 *
 * Life of an inode's row:  first OPEN or CREATE ──► opens > 0 ──► last RELEASE ──► free
 */

import type { Memory } from '../base/memory.ts';

/** Where the reads of an open inode go. */
export const ROUTE_OWN = 1; // passthrough to the file itself
export const ROUTE_SHARED = 2; // passthrough to a shared mapping's clone
export const ROUTE_RELAYED = 3; // READ and WRITE come to us: no backing file could be registered
export const ROUTE_COMPOSED = 4; // READ and WRITE come to us: extents are read from where they are shared
export type Route = typeof ROUTE_OWN | typeof ROUTE_SHARED | typeof ROUTE_RELAYED | typeof ROUTE_COMPOSED;

/** Flags of a handle: the open is for writing; the file can be mapped for writing through it (O_RDWR, mmap(2)); O_SYNC. */
export const HANDLE_WRITES = 1;
export const HANDLE_MAPS = 2;
export const HANDLE_SYNCS = 4;

const OPEN_WORDS = 8;
const HANDLE_WORDS = 4;

/** The most inodes, and the most handles, that can be open at a time: beyond it OPEN answers ENFILE. */
export const MAX_OPEN = 1 << 20;

export function openTableBytes(): number {
  return MAX_OPEN * 4 * (OPEN_WORDS + HANDLE_WORDS);
}

/** Rows of 32-bit words with a free list that runs through the last word of each. */
class Rows {
  readonly words: Uint32Array;
  readonly #width: number;
  #touched = 0;
  #free = 0;
  count = 0;

  constructor(words: Uint32Array, width: number) {
    this.words = words;
    this.#width = width;
  }

  take(): number {
    let row: number;
    if (this.#free !== 0) {
      row = this.#free - 1;
      this.#free = this.words[row * this.#width + this.#width - 1] ?? 0;
    } else if (this.#touched < MAX_OPEN) {
      row = this.#touched++;
    } else {
      return -1;
    }
    this.words.fill(0, row * this.#width, (row + 1) * this.#width);
    this.count++;
    return row;
  }

  give(row: number): void {
    this.words.fill(0, row * this.#width, (row + 1) * this.#width);
    this.words[row * this.#width + this.#width - 1] = this.#free;
    this.#free = row + 1;
    this.count--;
  }

  get(row: number, column: number): number {
    return this.words[row * this.#width + column] ?? 0;
  }

  set(row: number, column: number, value: number): void {
    this.words[row * this.#width + column] = value;
  }

  get touched(): number {
    return this.#touched;
  }
}

export class OpenTable {
  readonly #opens: Rows;
  readonly #handles: Rows;
  /** Inodes open on each route, by route. */
  readonly byRoute = new Float64Array(5);

  constructor(memory: Memory) {
    const { buffer, byteOffset } = memory.bytes;
    this.#opens = new Rows(new Uint32Array(buffer, byteOffset, MAX_OPEN * OPEN_WORDS), OPEN_WORDS);
    this.#handles = new Rows(
      new Uint32Array(buffer, byteOffset + MAX_OPEN * OPEN_WORDS * 4, MAX_OPEN * HANDLE_WORDS),
      HANDLE_WORDS,
    );
  }

  /** Inodes that are open. */
  get inodes(): number {
    return this.#opens.count;
  }

  /** Descriptors that opens hold. */
  get descriptors(): number {
    return this.#handles.count;
  }

  /** A row with one open, or -1 when the table is full. */
  add(slot: number, route: Route, maps: boolean, backingId: number, mapping: number): number {
    const row = this.#opens.take();
    if (row < 0) return -1;
    this.#opens.set(row, 0, slot);
    this.#opens.set(row, 1, route);
    this.#opens.set(row, 2, 1);
    this.#opens.set(row, 3, maps ? 1 : 0);
    this.#opens.set(row, 4, backingId);
    this.#opens.set(row, 5, mapping + 1);
    this.byRoute[route] = (this.byRoute[route] ?? 0) + 1;
    return row;
  }

  addOpen(row: number, maps: boolean): void {
    this.#opens.set(row, 2, this.#opens.get(row, 2) + 1);
    if (maps) this.#opens.set(row, 3, this.#opens.get(row, 3) + 1);
  }

  /** Takes one open back; returns how many are left. The row stays until `free`. */
  dropOpen(row: number, maps: boolean): number {
    const left = this.#opens.get(row, 2) - 1;
    this.#opens.set(row, 2, left);
    if (maps) this.#opens.set(row, 3, this.#opens.get(row, 3) - 1);
    return left;
  }

  free(row: number): void {
    const route = this.#opens.get(row, 1);
    this.byRoute[route] = (this.byRoute[route] ?? 0) - 1;
    this.#opens.give(row);
  }

  route(row: number): number {
    return this.#opens.get(row, 1);
  }

  /** Opens through which the file may be mapped for writing. */
  writableMaps(row: number): number {
    return this.#opens.get(row, 3);
  }

  backingId(row: number): number {
    return this.#opens.get(row, 4);
  }

  /** The mapping of a row on the shared route, or -1. */
  mapping(row: number): number {
    return this.#opens.get(row, 5) - 1;
  }

  /** A handle (the `fh` of the protocol, never 0) for a descriptor, or -1 when the table is full. */
  addHandle(fd: number, slot: number, flags: number): number {
    const row = this.#handles.take();
    if (row < 0) return -1;
    this.#handles.set(row, 0, fd + 1);
    this.#handles.set(row, 1, slot);
    this.#handles.set(row, 2, flags);
    return row + 1;
  }

  /** The descriptor of a handle, or -1 for handle 0 and for one that isn't open. */
  descriptor(handle: number): number {
    return handle > 0 && handle <= this.#handles.touched ? this.#handles.get(handle - 1, 0) - 1 : -1;
  }

  /** The flags that the handle was made with; 0 for one that isn't open. */
  handleFlags(handle: number): number {
    return this.descriptor(handle) < 0 ? 0 : this.#handles.get(handle - 1, 2);
  }

  /** Frees the handle and returns its descriptor, which the caller closes, or -1. */
  dropHandle(handle: number): number {
    const fd = this.descriptor(handle);
    if (fd >= 0) this.#handles.give(handle - 1);
    return fd;
  }

  /** All descriptors, for the end of the mount. */
  *descriptorsOpen(): Generator<number> {
    for (let row = 0; row < this.#handles.touched; row++) {
      const fd = this.#handles.get(row, 0) - 1;
      if (fd >= 0) yield fd;
    }
  }
}
