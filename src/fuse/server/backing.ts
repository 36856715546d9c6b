/**
 * The backing files of a mount, as those who open and close them see it. A file that its last user closes is often opened again at
 * once (a header that the next compiler reads, a script that the next sandbox runs): its registration is kept for a moment, and
 * the next open costs no system call.
 *
 *     registered, in use ──last user──► kept ──wanted again──► in use
 *                                        └──a moment later, its place is needed, or it mustn't be──► closed
 *
 * What is kept lies in journaled memory, so that a later server can close it. The table is direct-mapped: an id that comes to
 * a taken line displaces the other.
 *
 *     line, 16 bytes:  key plus one, generation, id, when it was kept
 *
 * Keys are made of rows of other tables, which are given away again: with its generation a key names one use of a row.
 */

import { EMFILE } from '../../base/errno.ts';
import type { Journal, WordIndex } from '../../base/journal.ts';

/** Registers and closes: an id or a negated errno. Writes to `guarded` files take set-user-ID and set-group-ID away. */
export interface Registration {
  open(fd: number, guarded?: boolean): number;
  close(backingId: number): number;
}

/**
 * An unlinked file that somebody removes around the mount goes on taking its room for so long, and a file that is cloned
 * around the mount goes on having pages of its own; longer as long as it is opened again within this time of each close.
 */
export const KEPT_MS = 1000;

const LINES = 4096;
/** How many are closed at a time when there is no room. */
const SOME = 64;
const LINE = { key: 0, generation: 1, id: 2, since: 3 } as const;
const LINE_WORDS = 4;

/** Words that the table takes. */
export const KEPT_WORDS = LINES * LINE_WORDS;

/** What one table's rows are registered by. */
export interface KeptBackings extends Registration {
  /** The last user of an id, which was registered for this row, has closed it. */
  keep(row: number, generation: number, backingId: number): void;
  /** The id that is kept for this row, for a new user, or 0. */
  take(row: number, generation: number): number;
  /** Nothing may be kept for this row any more. */
  drop(row: number, generation: number): void;
}

export class BackingFiles {
  /** For the nodes: files on their own route. */
  readonly ofNodes: KeptBackings = this.#of(0);
  readonly ofMappings: KeptBackings = this.#of(1);
  /** Registrations that are kept. */
  kept = 0;
  readonly #registration: Registration;
  readonly #journal: Journal;
  readonly #lines: WordIndex;
  readonly #now: () => number;

  /** `now` is a clock that only goes forward, in milliseconds. */
  constructor(registration: Registration, journal: Journal, lines: WordIndex, now: () => number) {
    this.#registration = registration;
    this.#journal = journal;
    this.#lines = lines;
    this.#now = now;
    for (let line = 0; line < LINES; line++) if (this.#key(line) !== 0) this.kept++;
  }

  /** Closes what was kept for long enough. */
  tidy(): void {
    if (this.kept === 0) return;
    const now = Math.floor(this.#now());
    for (let line = 0; line < LINES; line++) {
      // Words hold 49 days of milliseconds: the difference is right beyond them, too.
      const age = (now - this.#get(line, LINE.since)) >>> 0;
      if (this.#key(line) !== 0 && age >= KEPT_MS) this.#empty(line);
    }
  }

  /** Closes some of what is kept; a few at a time, since each is a system call. */
  dropSome(): void {
    let left = SOME;
    for (let line = 0; line < LINES && left > 0; line++) {
      if (this.#key(line) === 0) continue;
      this.#empty(line);
      left--;
    }
  }

  /** Closes all of it, before a server serves. */
  dropAll(): void {
    for (let line = 0; line < LINES; line++) this.#empty(line);
  }

  /** All ids that are kept. */
  *ids(): Generator<number> {
    for (let line = 0; line < LINES; line++) if (this.#key(line) !== 0) yield this.#get(line, LINE.id);
  }

  /** What is wrong with the table, if it was not made by this code or was written to by others. `used` are the ids in use. */
  flaw(used: ReadonlySet<number>): string | undefined {
    for (let line = 0; line < LINES; line++) {
      const key = this.#key(line);
      if (key === 0) continue;
      if (((key - 1) & (LINES - 1)) !== line) return `line ${line} keeps what belongs to another`;
      if (used.has(this.#get(line, LINE.id))) return `line ${line} keeps what is in use`;
    }
    return;
  }

  /** Rows of two tables, told apart by the lowest bit of their keys. */
  #of(table: 0 | 1): KeptBackings {
    const keyOf = (row: number): number => 2 * row + table;
    return {
      open: (fd, guarded = false) => this.#open(fd, guarded),
      close: (backingId) => this.#registration.close(backingId),
      keep: (row, generation, backingId) => this.#keep(keyOf(row), generation, backingId),
      take: (row, generation) => this.#take(keyOf(row), generation),
      drop: (row, generation) => {
        const line = this.#lineOf(keyOf(row), generation);
        if (line >= 0) this.#empty(line);
      },
    };
  }

  #open(fd: number, guarded: boolean): number {
    const id = this.#registration.open(fd, guarded);
    if (id !== -EMFILE || this.kept === 0) return id;
    this.dropSome();
    return this.#registration.open(fd, guarded);
  }

  #keep(key: number, generation: number, id: number): void {
    const line = key & (LINES - 1);
    this.#empty(line);
    this.#set(line, LINE.key, key + 1);
    this.#set(line, LINE.generation, generation);
    this.#set(line, LINE.id, id);
    this.#set(line, LINE.since, Math.floor(this.#now()));
    this.kept++;
  }

  #take(key: number, generation: number): number {
    const line = this.#lineOf(key, generation);
    if (line < 0) return 0;
    this.#clear(line);
    return this.#get(line, LINE.id);
  }

  /** The line that holds a key's id, or -1. */
  #lineOf(key: number, generation: number): number {
    const line = key & (LINES - 1);
    return this.#key(line) === key + 1 && this.#get(line, LINE.generation) === generation ? line : -1;
  }

  #empty(line: number): void {
    if (this.#key(line) === 0) return;
    this.#clear(line);
    this.#registration.close(this.#get(line, LINE.id));
  }

  #clear(line: number): void {
    this.#set(line, LINE.key, 0);
    this.kept--;
  }

  #key(line: number): number {
    return this.#get(line, LINE.key);
  }

  #get(line: number, word: number): number {
    return this.#journal.get(this.#lines + line * LINE_WORDS + word);
  }

  #set(line: number, word: number, value: number): void {
    this.#journal.set(this.#lines + line * LINE_WORDS + word, value);
  }
}
