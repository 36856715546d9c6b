/**
 * What is open: one row per inode that is open anywhere (its route, which the kernel wants to be one at a time, and its
 * backing id), and one row per open that needs a descriptor of ours (writable, relayed, composed and directory opens). An open that
 * reads by passthrough, the usual case, costs its inode's row only, and no descriptor.
 *
 *     open file row, 48 bytes:  node slot plus one, route, opens, opens that may map for writing, backing id, mapping plus one,
 *                               the last append: request (two words) and offset (two words), whether its backing id is worth
 *                               keeping, next
 *     handle row,    20 bytes:  descriptor plus one, node slot plus one, flags, flags of open(2), next
 *
 * The rows live in journaled memory, which a later server takes over; the descriptors in it are this process's.
 *
 * Life of an inode's row:  first OPEN or CREATE ──► opens > 0 ──► last RELEASE ──► free
 */

import type { Journal, WordIndex } from '../base/journal.ts';
import { ROUTES } from './routes/route.ts';

/**
 * Flags of a handle: the open is for writing; the file can be mapped for writing through it (O_RDWR, mmap(2)); O_SYNC; no FLUSH
 * tells that a descriptor of it is closed.
 */
export const HANDLE_WRITES = 1;
export const HANDLE_MAPS = 2;
export const HANDLE_SYNCS = 4;
export const HANDLE_QUIET = 8;

const OPEN_WORDS = 12;
const HANDLE_WORDS = 5;

/** The most inodes, and the most handles, that can be open at a time: beyond it OPEN answers ENFILE. */
export const MAX_OPEN = 1 << 20;

/** Columns of the two kinds of rows. */
const OPEN = {
  slot: 0,
  route: 1,
  opens: 2,
  maps: 3,
  backing: 4,
  mapping: 5,
  append: 6,
  appendAt: 8,
  keeps: 10,
} as const;
const HANDLE = { descriptor: 0, slot: 1, flags: 2, openFlags: 3 } as const;

const HEADER_WORDS = 4;

/** Words that the table reserves. Only what is touched costs memory. */
export function openTableWords(capacity: number): number {
  return 2 * HEADER_WORDS + capacity * (OPEN_WORDS + HANDLE_WORDS) + 2;
}

/** Rows of words with a free list that runs through the last word of each; three words in front: touched, free, count. */
export class Rows {
  readonly #journal: Journal;
  readonly #header: WordIndex;
  readonly #rows: WordIndex;
  readonly #width: number;
  readonly #capacity: number;

  constructor(journal: Journal, capacity: number, width: number) {
    this.#journal = journal;
    this.#capacity = capacity;
    this.#header = journal.take(HEADER_WORDS + capacity * width);
    this.#rows = this.#header + HEADER_WORDS;
    this.#width = width;
  }

  get touched(): number {
    return this.#journal.get(this.#header);
  }

  get count(): number {
    return this.#journal.get(this.#header + 2);
  }

  get fits(): boolean {
    return this.touched <= this.#capacity;
  }

  take(): number {
    const journal = this.#journal;
    const free = journal.get(this.#header + 1);
    const row = free === 0 ? this.touched : free - 1;
    if (row >= this.#capacity) return -1;
    if (free === 0) journal.set(this.#header, row + 1);
    else journal.set(this.#header + 1, this.get(row, this.#width - 1));
    this.#clear(row);
    journal.set(this.#header + 2, this.count + 1);
    return row;
  }

  give(row: number): void {
    this.#clear(row);
    this.set(row, this.#width - 1, this.#journal.get(this.#header + 1));
    this.#journal.set(this.#header + 1, row + 1);
    this.#journal.set(this.#header + 2, this.count - 1);
  }

  get(row: number, column: number): number {
    return this.#journal.get(this.#rows + row * this.#width + column);
  }

  set(row: number, column: number, value: number): void {
    this.#journal.set(this.#rows + row * this.#width + column, value);
  }

  /** Where a cell is, for what isn't to be journaled. */
  at(row: number, column: number): WordIndex {
    return this.#rows + row * this.#width + column;
  }

  #clear(row: number): void {
    for (let column = 0; column < this.#width; column++) this.set(row, column, 0);
  }
}

export class OpenTable {
  readonly #journal: Journal;
  readonly #opens: Rows;
  readonly #handles: Rows;
  /** Inodes open on each route, by route. */
  readonly byRoute = new Float64Array(5);

  constructor(journal: Journal, capacity: number) {
    this.#journal = journal;
    this.#opens = new Rows(journal, capacity, OPEN_WORDS);
    this.#handles = new Rows(journal, capacity, HANDLE_WORDS);
    for (const row of this.rows()) this.#countRoute(row, 1);
  }

  /** Inodes that are open. */
  get inodes(): number {
    return this.#opens.count;
  }

  /** Descriptors that opens hold. */
  get descriptors(): number {
    return this.#handles.count;
  }

  /** A row with one open, on a route by its number (`ROUTES`), or -1 when the table is full. */
  add(slot: number, route: number, maps: boolean, backingId: number, mapping: number): number {
    const row = this.#opens.take();
    if (row < 0) return -1;
    this.#opens.set(row, OPEN.slot, slot + 1);
    this.#opens.set(row, OPEN.route, route);
    this.#opens.set(row, OPEN.opens, 1);
    this.#opens.set(row, OPEN.maps, maps ? 1 : 0);
    this.#opens.set(row, OPEN.backing, backingId);
    this.#opens.set(row, OPEN.mapping, mapping + 1);
    this.#countRoute(row, 1);
    return row;
  }

  addOpen(row: number, maps: boolean): void {
    this.#opens.set(row, OPEN.opens, this.#opens.get(row, OPEN.opens) + 1);
    if (maps) this.#opens.set(row, OPEN.maps, this.#opens.get(row, OPEN.maps) + 1);
  }

  /** Takes one open back; returns how many are left. The row stays until `free`. */
  dropOpen(row: number, maps: boolean): number {
    const left = this.#opens.get(row, OPEN.opens) - 1;
    this.#opens.set(row, OPEN.opens, left);
    if (maps) this.#opens.set(row, OPEN.maps, this.#opens.get(row, OPEN.maps) - 1);
    return left;
  }

  free(row: number): void {
    this.#countRoute(row, -1);
    this.#opens.give(row);
  }

  route(row: number): number {
    return this.#opens.get(row, OPEN.route);
  }

  /** Opens through which the file may be mapped for writing. */
  writableMaps(row: number): number {
    return this.#opens.get(row, OPEN.maps);
  }

  backingId(row: number): number {
    return this.#opens.get(row, OPEN.backing);
  }

  /** Whether the backing id may be kept for the file's next open: one that was decided on anew would get the same. */
  keeps(row: number): boolean {
    return this.#opens.get(row, OPEN.keeps) !== 0;
  }

  setKeeps(row: number, keeps: boolean): void {
    this.#opens.set(row, OPEN.keeps, keeps ? 1 : 0);
  }

  /** The mapping of a row on the shared route, or -1. */
  mapping(row: number): number {
    return this.#opens.get(row, OPEN.mapping) - 1;
  }

  /** The node of a row. */
  slot(row: number): number {
    return this.#opens.get(row, OPEN.slot) - 1;
  }

  /** All rows in use. */
  *rows(): Generator<number> {
    for (let row = 0; row < this.#opens.touched; row++) if (this.slot(row) >= 0) yield row;
  }

  /**
   * Where a request that appends writes: at `end`, or, if the request comes again because its server was killed, where it wrote
   * before. Not journaled: the kernel lets one request append to an inode at a time. The request is named by two words.
   */
  appendAt(row: number, uniqueLow: number, uniqueHigh: number, end: number): number {
    const { words } = this.#journal;
    const at = this.#opens.at(row, OPEN.append);
    const offset = this.#opens.at(row, OPEN.appendAt);
    if (words[at] === uniqueLow && words[at + 1] === uniqueHigh) return this.#journal.getLarge(offset);
    words[at] = 0;
    words[at + 1] = 0;
    words[offset] = end % 0x1_0000_0000;
    words[offset + 1] = Math.floor(end / 0x1_0000_0000);
    words[at + 1] = uniqueHigh;
    words[at] = uniqueLow;
    return end;
  }

  /**
   * A handle (the `fh` of the protocol, never 0) for a descriptor, or -1 when the table is full. `openFlags` are those of open(2),
   * with which a later server opens it again.
   */
  addHandle(fd: number, slot: number, flags: number, openFlags: number): number {
    const row = this.#handles.take();
    if (row < 0) return -1;
    this.#handles.set(row, HANDLE.descriptor, fd + 1);
    this.#handles.set(row, HANDLE.slot, slot + 1);
    this.#handles.set(row, HANDLE.flags, flags);
    this.#handles.set(row, HANDLE.openFlags, openFlags);
    return row + 1;
  }

  /** The descriptor of a handle, or -1 for handle 0 and for one that isn't open. */
  descriptor(handle: number): number {
    return this.#isOpen(handle) ? this.#handles.get(handle - 1, HANDLE.descriptor) - 1 : -1;
  }

  /** The flags that the handle was made with; 0 for one that isn't open. */
  handleFlags(handle: number): number {
    return this.#isOpen(handle) ? this.#handles.get(handle - 1, HANDLE.flags) : 0;
  }

  setQuiet(handle: number): void {
    this.#handles.set(handle - 1, HANDLE.flags, this.handleFlags(handle) | HANDLE_QUIET);
  }

  handleSlot(handle: number): number {
    return this.#handles.get(handle - 1, HANDLE.slot) - 1;
  }

  handleOpenFlags(handle: number): number {
    return this.#handles.get(handle - 1, HANDLE.openFlags);
  }

  /** Frees the handle and returns its descriptor, which the caller closes, or -1. */
  dropHandle(handle: number): number {
    const fd = this.descriptor(handle);
    if (this.#isOpen(handle)) this.#handles.give(handle - 1);
    return fd;
  }

  /**
   * The handle has another descriptor in this process; -1 says that it has none. Not journaled: every server that takes over sets all of
   * them anew, and there may be more than a step can change.
   */
  setDescriptor(handle: number, fd: number): void {
    this.#journal.words[this.#handles.at(handle - 1, HANDLE.descriptor)] = fd + 1;
  }

  /** All handles that are open. */
  *handles(): Generator<number> {
    for (let row = 0; row < this.#handles.touched; row++) if (this.#isOpen(row + 1)) yield row + 1;
  }

  /** Whether a node is open for writing by anybody. Looks at all handles. */
  isWritten(slot: number): boolean {
    for (const handle of this.handles()) {
      if (this.handleSlot(handle) === slot && (this.handleFlags(handle) & HANDLE_WRITES) !== 0) return true;
    }
    return false;
  }

  /** All descriptors, for the end of the mount. */
  *descriptorsOpen(): Generator<number> {
    for (const handle of this.handles()) {
      const fd = this.descriptor(handle);
      if (fd >= 0) yield fd;
    }
  }

  /** What is wrong with the table, if it was not made by this code or was written to by others; looks at every row. */
  flaw(nodes: { has(slot: number): boolean; openRow(slot: number): number }): string | undefined {
    if (!this.#opens.fits || !this.#handles.fits) return 'it has too many rows';
    let opens = 0;
    for (const row of this.rows()) {
      opens++;
      const slot = this.slot(row);
      if (!nodes.has(slot) || nodes.openRow(slot) !== row) return `open file ${row} belongs to no node`;
      if (this.route(row) < ROUTES.own || this.route(row) > ROUTES.composed) return `open file ${row} has no route`;
    }
    if (opens !== this.#opens.count) return `${opens} files are open, not ${this.#opens.count}`;
    let handles = 0;
    for (const handle of this.handles()) {
      handles++;
      if (!nodes.has(this.handleSlot(handle))) return `handle ${handle} belongs to no node`;
    }
    return handles === this.#handles.count ? undefined : `${handles} handles are open, not ${this.#handles.count}`;
  }

  #isOpen(handle: number): boolean {
    return handle > 0 && handle <= this.#handles.touched && this.#handles.get(handle - 1, HANDLE.slot) > 0;
  }

  #countRoute(row: number, by: 1 | -1): void {
    const route = this.route(row);
    this.byRoute[route] = (this.byRoute[route] ?? 0) + by;
  }
}
