/**
 * The table of shared mappings: what is known of each clone, an index by the hash of its map, and the list of those that
 * nobody uses, least recently used first. A row is 64 bytes of journaled memory, which a later server takes over.
 *
 * Life of a row:  take ──► publish (findable, idle) ⇄ in use ──► withdraw ──► give ──► take, with another generation
 */

import type { Journal, WordIndex } from '../base/journal.ts';

export const NONE = -1;
/** The owner of a mapping that is for everybody's files. */
export const ANYBODY = 0;

/** Words of a row. Links to rows are their numbers plus one, so that untouched memory is a table without rows. */
const SIZE = 0;
const HASH = 2;
const INODE = 4;
const GENERATION = 6;
const USERS = 7;
const BACKING = 8;
const ALIVE = 9;
const NEXT = 10; // of the bucket, or of the free list
const OLDER = 11;
const NEWER = 12;
const DOMAIN = 13;
const OWNER = 14;
const WORDS = 15;

/** Words in front of the rows. */
const COUNT = 0;
const IDLE = 1;
const TOUCHED = 2;
const OLDEST = 3;
const NEWEST = 4;
const FREE = 5;
const HEADER_WORDS = 8;

/** Words that a table of so many rows reserves. Only what is touched costs memory. */
export function mappingRowsWords(capacity: number): number {
  return HEADER_WORDS + capacity * (WORDS + 1);
}

/** What is known of a clone when its row becomes findable. */
export interface PublishedMapping {
  readonly size: number;
  /** Of its content: of the extent map, or of the item that it lies in. */
  readonly hash: number;
  /** The clone's number in the store. */
  readonly inode: number;
  readonly domain: number;
  readonly owner: number;
}

export class MappingRows {
  readonly capacity: number;
  readonly #journal: Journal;
  readonly #header: WordIndex;
  readonly #rows: WordIndex;
  readonly #buckets: WordIndex;

  constructor(journal: Journal, capacity: number) {
    this.capacity = capacity;
    this.#journal = journal;
    this.#header = journal.take(mappingRowsWords(capacity));
    this.#rows = this.#header + HEADER_WORDS;
    this.#buckets = this.#rows + capacity * WORDS;
  }

  /** Rows that are published. */
  get count(): number {
    return this.#journal.get(this.#header + COUNT);
  }

  /** Rows that are published and not in use. */
  get idle(): number {
    return this.#journal.get(this.#header + IDLE);
  }

  /** Rows that were ever taken; those beyond were never touched. */
  get touched(): number {
    return this.#journal.get(this.#header + TOUCHED);
  }

  /** The least recently used idle row. */
  get oldest(): number {
    return this.#journal.get(this.#header + OLDEST) - 1;
  }

  size(row: number): number {
    return this.#journal.getLarge(this.#at(row, SIZE));
  }

  inode(row: number): number {
    return this.#journal.getLarge(this.#at(row, INODE));
  }

  /** Of the content that its clone had when it was made. */
  hash(row: number): number {
    return this.#journal.getLarge(this.#at(row, HASH));
  }

  generation(row: number): number {
    return this.#get(row, GENERATION);
  }

  /** Inodes of the mount that are open on the mapping. */
  users(row: number): number {
    return this.#get(row, USERS);
  }

  setUsers(row: number, users: number): void {
    this.#set(row, USERS, users);
  }

  backingId(row: number): number {
    return this.#get(row, BACKING);
  }

  setBackingId(row: number, id: number): void {
    this.#set(row, BACKING, id);
  }

  domain(row: number): number {
    return this.#get(row, DOMAIN);
  }

  /** Whose files alone it is for: a user's number plus one, or ANYBODY. */
  owner(row: number): number {
    return this.#get(row, OWNER);
  }

  isAlive(row: number): boolean {
    return row >= 0 && row < this.touched && this.#get(row, ALIVE) === 1;
  }

  /** All published rows. */
  *alive(): Generator<number> {
    for (let row = 0; row < this.touched; row++) if (this.isAlive(row)) yield row;
  }

  /** A row that isn't findable yet, or NONE when there is none left. */
  take(): number {
    const free = this.#journal.get(this.#header + FREE);
    if (free !== 0) {
      this.#journal.set(this.#header + FREE, this.#get(free - 1, NEXT));
      return free - 1;
    }
    const { touched } = this;
    if (touched >= this.capacity) return NONE;
    this.#journal.set(this.#header + TOUCHED, touched + 1);
    return touched;
  }

  /** Gives a row back that is not, or no longer, findable. */
  give(row: number): void {
    this.#set(row, GENERATION, this.generation(row) + 1);
    this.#set(row, NEXT, this.#journal.get(this.#header + FREE));
    this.#journal.set(this.#header + FREE, row + 1);
  }

  /** Makes a row findable by its hash; it is idle at first. */
  publish(row: number, { size, hash, inode, domain, owner }: PublishedMapping): void {
    this.#journal.setLarge(this.#at(row, SIZE), size);
    this.#journal.setLarge(this.#at(row, HASH), hash);
    this.#journal.setLarge(this.#at(row, INODE), inode);
    this.#set(row, DOMAIN, domain);
    this.#set(row, OWNER, owner);
    this.#set(row, USERS, 0);
    this.#set(row, BACKING, 0);
    this.#set(row, ALIVE, 1);
    const bucket = this.#bucket(hash, domain);
    this.#set(row, NEXT, this.#journal.get(bucket));
    this.#journal.set(bucket, row + 1);
    this.#journal.set(this.#header + COUNT, this.count + 1);
    this.enterIdle(row);
  }

  /** Makes an idle row unfindable. */
  withdraw(row: number): void {
    const bucket = this.#bucket(this.hash(row), this.domain(row));
    const after = this.#get(row, NEXT);
    let previous = NONE;
    let found = this.#journal.get(bucket) - 1;
    while (found !== NONE && found !== row) {
      previous = found;
      found = this.#get(found, NEXT) - 1;
    }
    if (previous === NONE) this.#journal.set(bucket, after);
    else this.#set(previous, NEXT, after);
    this.leaveIdle(row);
    this.#set(row, ALIVE, 0);
    this.#journal.set(this.#header + COUNT, this.count - 1);
  }

  /** The published rows for a domain's and an owner's files whose content had this hash, and whose clone has this size. */
  *candidates({ hash, size, domain, owner }: Omit<PublishedMapping, 'inode'>): Generator<number> {
    let row = this.#journal.get(this.#bucket(hash, domain)) - 1;
    while (row !== NONE) {
      const next = this.#get(row, NEXT) - 1;
      const fits = this.hash(row) === hash && this.size(row) === size;
      if (fits && this.domain(row) === domain && this.owner(row) === owner) yield row;
      row = next;
    }
  }

  enterIdle(row: number): void {
    const newest = this.#journal.get(this.#header + NEWEST);
    this.#set(row, OLDER, newest);
    this.#set(row, NEWER, 0);
    if (newest === 0) this.#journal.set(this.#header + OLDEST, row + 1);
    else this.#set(newest - 1, NEWER, row + 1);
    this.#journal.set(this.#header + NEWEST, row + 1);
    this.#journal.set(this.#header + IDLE, this.idle + 1);
  }

  leaveIdle(row: number): void {
    const older = this.#get(row, OLDER);
    const newer = this.#get(row, NEWER);
    if (older === 0) this.#journal.set(this.#header + OLDEST, newer);
    else this.#set(older - 1, NEWER, newer);
    if (newer === 0) this.#journal.set(this.#header + NEWEST, older);
    else this.#set(newer - 1, OLDER, older);
    this.#journal.set(this.#header + IDLE, this.idle - 1);
  }

  /** What is wrong with the table, if it was not made by this code or was written to by others; looks at every row. */
  flaw(): string | undefined {
    if (this.touched > this.capacity) return `it has ${this.touched} rows`;
    let count = 0;
    let inUse = 0;
    for (const row of this.alive()) {
      count++;
      if (this.users(row) > 0) inUse++;
    }
    if (count !== this.count || count - inUse !== this.idle) {
      return `${count} mappings exist and ${inUse} are in use, not ${this.count} and ${this.count - this.idle}`;
    }
    let idle = 0;
    for (let row = this.oldest; row !== NONE && idle <= count; row = this.#get(row, NEWER) - 1) {
      if (!this.isAlive(row) || this.users(row) > 0) return `mapping ${row} is listed as idle`;
      idle++;
    }
    return idle === this.idle ? undefined : `${idle} mappings are listed as idle, not ${this.idle}`;
  }

  #bucket(hash: number, domain: number): WordIndex {
    return this.#buckets + ((hash + domain) % this.capacity);
  }

  #at(row: number, word: number): WordIndex {
    return this.#rows + row * WORDS + word;
  }

  #get(row: number, word: number): number {
    return this.#journal.get(this.#at(row, word));
  }

  #set(row: number, word: number, value: number): void {
    this.#journal.set(this.#at(row, word), value);
  }
}
