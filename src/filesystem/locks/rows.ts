/**
 * Locks as a later server finds them: one row of 52 bytes for each range that is locked, and for each descriptor that is watched,
 * in journaled memory.
 *
 *     node slot plus one, kind, lock type, the owner's number (two words), the open's number (two words), start and end, or
 *     descriptor, and thread and mount (two words each), process, next
 *
 * In front of the rows lies the number of the last open that got one without a descriptor (two words).
 */

import type { Journal, WordIndex } from '../../base/journal.ts';
import { F_RDLCK, F_WRLCK } from '../../base/linux.ts';
import { Rows } from '../opens.ts';
import type { Owner, OwnerKind } from './filelocks.ts';
import { Range } from './ranges.ts';

/** The most ranges, and descriptors that are watched, of all files: beyond it a lock fails with ENOLCK. */
export const MAX_LOCKS = 1 << 16;

const SERIAL_WORDS = 2;
const HEADER_WORDS = 4;
const LOCK_WORDS = 13;
const COLUMN = { slot: 0, kind: 1, type: 2, owner: 3, handle: 5, start: 7, end: 9, pid: 11 } as const;

/** Words that the table reserves. Only what is touched costs memory. */
export function lockTableWords(capacity: number): number {
  return SERIAL_WORDS + HEADER_WORDS + capacity * LOCK_WORDS + 2;
}

const kinds: readonly (OwnerKind | 'watch')[] = ['flock', 'process', 'description', 'watch'];
const WATCH = kinds.indexOf('watch') + 1;

export const TWO_TO_32 = 0x1_0000_0000n;

/** A row as it was read. */
export interface LockRow {
  readonly slot: number;
  readonly kind: OwnerKind | 'watch';
  readonly owner: bigint;
  readonly handle: number;
  readonly pid: number;
  /** For a watched descriptor its number, and the thread and the mount. */
  readonly range: Range;
}

export class LockRows {
  readonly #journal: Journal;
  readonly #serial: WordIndex;
  readonly #rows: Rows;
  readonly capacity: number;

  constructor(journal: Journal, capacity: number) {
    this.#journal = journal;
    this.capacity = capacity;
    this.#serial = journal.take(SERIAL_WORDS);
    this.#rows = new Rows(journal, capacity, LOCK_WORDS);
  }

  get count(): number {
    return this.#rows.count;
  }

  /** Whether there is room for so many rows once so many are given back. */
  hasRoom(added: number, removed: number): boolean {
    return this.count - removed + added <= this.capacity;
  }

  /** A number that no open has had yet, counted from one. */
  nextSerial(): number {
    const serial = this.#journal.getLarge(this.#serial) + 1;
    this.#journal.setLarge(this.#serial, serial);
    return serial;
  }

  addRange(owner: Owner, range: Range): void {
    range.row = this.#add(owner, kinds.indexOf(owner.kind) + 1, range.start, range.end);
    this.#rows.set(range.row, COLUMN.type, range.type);
  }

  addWatch(owner: Owner, descriptor: number, thread: number, mount: number): number {
    return this.#add(owner, WATCH, BigInt(descriptor), BigInt(thread) + BigInt(mount) * TWO_TO_32);
  }

  give(row: number): void {
    this.#rows.give(row);
  }

  /** All rows in use. */
  *all(): Generator<readonly [row: number, content: LockRow]> {
    for (let row = 0; row < this.#rows.touched; row++) {
      if (this.#rows.get(row, COLUMN.slot) !== 0) yield [row, this.#read(row)];
    }
  }

  /** What is wrong with the table, if it was not made by this code or was written to by others; looks at every row. */
  flaw(nodes: { has(slot: number): boolean }): string | undefined {
    if (!this.#rows.fits) return 'it has too many rows';
    let used = 0;
    for (let row = 0; row < this.#rows.touched; row++) {
      const slot = this.#rows.get(row, COLUMN.slot);
      if (slot === 0) continue;
      used++;
      if (!nodes.has(slot - 1)) return `lock ${row} belongs to no node`;
      if (kinds[this.#rows.get(row, COLUMN.kind) - 1] === undefined) return `lock ${row} is of no kind`;
      if (this.#rows.get(row, COLUMN.type) > F_WRLCK) return `lock ${row} is of no type`;
    }
    return used === this.#rows.count ? undefined : `${used} locks are held, not ${this.#rows.count}`;
  }

  #add(owner: Owner, kind: number, start: bigint, end: bigint): number {
    const row = this.#rows.take();
    if (row < 0) throw new Error('the table of locks is full, and it was not looked whether there is room');
    this.#rows.set(row, COLUMN.slot, owner.slot + 1);
    this.#rows.set(row, COLUMN.kind, kind);
    this.#setLarge(row, COLUMN.owner, owner.id);
    this.#setLarge(row, COLUMN.handle, BigInt(owner.handle));
    this.#setLarge(row, COLUMN.start, start);
    this.#setLarge(row, COLUMN.end, end);
    this.#rows.set(row, COLUMN.pid, owner.pid);
    return row;
  }

  #read(row: number): LockRow {
    const type = this.#rows.get(row, COLUMN.type) === F_WRLCK ? F_WRLCK : F_RDLCK;
    const range = new Range(this.#getLarge(row, COLUMN.start), this.#getLarge(row, COLUMN.end), type);
    range.row = row;
    return {
      slot: this.#rows.get(row, COLUMN.slot) - 1,
      kind: kinds[this.#rows.get(row, COLUMN.kind) - 1] ?? 'watch',
      owner: this.#getLarge(row, COLUMN.owner),
      handle: Number(this.#getLarge(row, COLUMN.handle)),
      pid: this.#rows.get(row, COLUMN.pid),
      range,
    };
  }

  #getLarge(row: number, column: number): bigint {
    return BigInt(this.#rows.get(row, column)) + BigInt(this.#rows.get(row, column + 1)) * TWO_TO_32;
  }

  #setLarge(row: number, column: number, value: bigint): void {
    this.#rows.set(row, column, Number(value % TWO_TO_32));
    this.#rows.set(row, column + 1, Number(value / TWO_TO_32));
  }
}
