/**
 * A map from positions (integers from 0 on, in blocks) to 32-bit values, kept as runs: a row is (start, value), and its run reaches
 * to the next row's start, the last one's to the end of all numbers. Before the first row everything is NONE.
 *
 * Values below FIRST_LINEAR are the same all over a run. A value from FIRST_LINEAR on is linear: at position p of a run that
 * starts at s with value v it is v + (p - s). So an extent of any length is one row.
 *
 * Rows lie in chunks of up to 512, 8 bytes each: starts are relative to the chunk's base. Where each chunk begins is kept once
 * more, side by side: a search that visited the chunks themselves would wait for memory at every step.
 *
 * Invariant: no run goes on where the one before it ends, and the first isn't NONE. So what was set determines the rows.
 */

export const NONE = 0;
/** The least linear value. */
export const FIRST_LINEAR = 16;

const MAX_ROWS = 512;
const FEW_ROWS = 64;
const FIRST_ROWS = 8;
const TWO_TO_32 = 0x1_0000_0000;
/** The end of all positions, where the last run of a map ends. */
export const END = Number.MAX_SAFE_INTEGER;

class Chunk {
  base: number;
  count = 0;
  starts: Uint32Array;
  values: Uint32Array;

  constructor(base: number, rows: number) {
    this.base = base;
    this.starts = new Uint32Array(rows);
    this.values = new Uint32Array(rows);
  }

  start(row: number): number {
    return this.base + (this.starts[row] ?? 0);
  }

  value(row: number): number {
    return this.values[row] ?? 0;
  }

  /** The number of rows that start at or before a position. */
  rowsUpTo(position: number): number {
    const relative = position - this.base;
    const { starts } = this;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((starts[middle] ?? 0) <= relative) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Removes the rows from..to (exclusive). */
  remove(from: number, to: number): void {
    this.starts.copyWithin(from, to, this.count);
    this.values.copyWithin(from, to, this.count);
    this.count -= to - from;
  }

  /** Whether a row that starts at a position has room: in the base's reach, which may have to move down. */
  reaches(position: number): boolean {
    if (position >= this.base) return position - this.base < TWO_TO_32;
    return this.count === 0 || this.start(this.count - 1) - position < TWO_TO_32;
  }

  /** Inserts a row, for which there must be room. */
  insert(row: number, position: number, value: number): void {
    if (this.count === this.starts.length) this.#resize(Math.min(MAX_ROWS, this.count * 2));
    if (position < this.base) this.#rebase(position);
    this.starts.copyWithin(row + 1, row, this.count);
    this.values.copyWithin(row + 1, row, this.count);
    this.starts[row] = position - this.base;
    this.values[row] = value;
    this.count++;
  }

  /** Moves the rows from `row` on to a new chunk. */
  split(row: number): Chunk {
    const upper = new Chunk(this.start(row), Math.max(FIRST_ROWS, this.count - row));
    upper.append(this, row);
    this.count = row;
    return upper;
  }

  /** Appends the rows of another chunk, from `row` on. */
  append(other: Chunk, row: number): void {
    const rows = other.count - row;
    if (this.count + rows > this.starts.length) this.#resize(Math.min(MAX_ROWS, this.count + rows));
    for (let i = 0; i < rows; i++) this.starts[this.count + i] = other.start(row + i) - this.base;
    this.values.set(other.values.subarray(row, other.count), this.count);
    this.count += rows;
  }

  #resize(rows: number): void {
    const { starts, values } = this;
    this.starts = new Uint32Array(rows);
    this.values = new Uint32Array(rows);
    this.starts.set(starts.subarray(0, this.count));
    this.values.set(values.subarray(0, this.count));
  }

  #rebase(base: number): void {
    const by = this.base - base;
    for (let row = 0; row < this.count; row++) this.starts[row] = (this.starts[row] ?? 0) + by;
    this.base = base;
  }
}

/** The value that a run of `value` has so far behind its start. */
function valueAfter(value: number, distance: number): number {
  return value >= FIRST_LINEAR ? value + distance : value;
}

export class IntervalMap {
  /** Set by `find`: the run that the position lies in, and the value at the position itself. */
  start = 0;
  end = END;
  value = NONE;
  /** In order; none is empty. */
  readonly #chunks: Chunk[] = [];
  /** Where the first row of each starts. */
  readonly #firsts: number[] = [];
  #rows = 0;
  /** The chunk found last. */
  #near = 0;

  get rows(): number {
    return this.#rows;
  }

  /** Bytes of the arrays that hold the rows, and of what an array object costs. */
  get heldBytes(): number {
    let sum = 0;
    for (const chunk of this.#chunks) sum += chunk.starts.byteLength + chunk.values.byteLength;
    return sum;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#firsts.length = 0;
    this.#rows = 0;
    this.#near = 0;
  }

  /** The value at a position; `start`, `end` and `value` describe its run. */
  find(position: number): number {
    const index = this.#chunkOf(position);
    const chunk = this.#chunks[index];
    if (chunk === undefined) {
      this.start = 0;
      this.end = this.#firsts[0] ?? END;
      this.value = NONE;
      return NONE;
    }
    const row = chunk.rowsUpTo(position) - 1;
    this.start = chunk.start(row);
    this.end = row + 1 < chunk.count ? chunk.start(row + 1) : (this.#firsts[index + 1] ?? END);
    this.value = valueAfter(chunk.value(row), position - this.start);
    return this.value;
  }

  /** Gives the positions start..end (exclusive) a value; a linear one is that of `start`. */
  set(start: number, end: number, value: number): void {
    if (end <= start) return;
    const before = start === 0 ? NONE : this.find(start - 1);
    const goesOn = start === 0 ? value === NONE : valueAfter(before, 1) === value;
    const behind = end >= END ? value : this.find(end);
    const endsHere = end < END && behind !== valueAfter(value, end - start);
    this.#removeRows(start, end);
    if (!goesOn) this.#insert(start, value);
    if (endsHere) this.#insert(end, behind);
  }

  /** Makes NONE of every position whose value is a linear one of from..to (exclusive); returns how many. Looks at every row. */
  dropTargets(from: number, to: number): number {
    const found: number[] = [];
    let dropped = 0;
    for (let index = 0; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index];
      if (chunk === undefined) break;
      for (let row = 0; row < chunk.count; row++) {
        const value = chunk.value(row);
        if (value < FIRST_LINEAR || value >= to) continue;
        const start = chunk.start(row);
        const end = row + 1 < chunk.count ? chunk.start(row + 1) : (this.#firsts[index + 1] ?? END);
        const first = Math.max(0, from - value);
        const last = Math.min(end - start, to - value);
        if (first < last) found.push(start + first, start + last);
      }
    }
    for (let i = 0; i < found.length; i += 2) {
      const start = found[i] ?? 0;
      const end = found[i + 1] ?? 0;
      dropped += end - start;
      this.set(start, end, NONE);
    }
    return dropped;
  }

  /** The chunk that a position's run starts in, or -1 before the first row. */
  #chunkOf(position: number): number {
    const firsts = this.#firsts;
    for (let index = this.#near; index <= this.#near + 1; index++) {
      if ((firsts[index] ?? END) > position || (firsts[index + 1] ?? END) <= position) continue;
      this.#near = index;
      return index;
    }
    let low = 0;
    let high = firsts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((firsts[middle] ?? END) <= position) low = middle + 1;
      else high = middle;
    }
    this.#near = Math.max(0, low - 1);
    return low - 1;
  }

  /** Removes the rows that start in start..end (both included). */
  #removeRows(start: number, end: number): void {
    const chunks = this.#chunks;
    let index = Math.max(0, start === 0 ? 0 : this.#chunkOf(start - 1));
    let emptied = 0;
    const firstIndex = index;
    for (; index < chunks.length; index++) {
      const chunk = chunks[index];
      if (chunk === undefined || chunk.start(0) > end) break;
      const from = start === 0 ? 0 : chunk.rowsUpTo(start - 1);
      const to = chunk.rowsUpTo(end);
      if (to > from) {
        this.#rows -= to - from;
        if (to - from === chunk.count) emptied++;
        chunk.remove(from, to);
        this.#firsts[index] = chunk.start(0);
      }
    }
    if (emptied > 0) this.#dropEmpty(firstIndex, index);
    else if (firstIndex < chunks.length) this.#joinSmall(firstIndex);
  }

  #dropEmpty(from: number, to: number): void {
    const chunks = this.#chunks;
    let kept = from;
    for (let index = from; index < to; index++) {
      const chunk = chunks[index];
      if (chunk === undefined || chunk.count === 0) continue;
      chunks[kept] = chunk;
      this.#firsts[kept++] = chunk.start(0);
    }
    chunks.splice(kept, to - kept);
    this.#firsts.splice(kept, to - kept);
    this.#near = 0;
  }

  /** Joins a chunk that has become small with the one behind it. */
  #joinSmall(index: number): void {
    const chunk = this.#chunks[index];
    const next = this.#chunks[index + 1];
    if (chunk === undefined || next === undefined || chunk.count + next.count > MAX_ROWS / 2) return;
    if (Math.min(chunk.count, next.count) > FEW_ROWS || !chunk.reaches(next.start(next.count - 1))) return;
    chunk.append(next, 0);
    this.#chunks.splice(index + 1, 1);
    this.#firsts.splice(index + 1, 1);
  }

  #insert(position: number, value: number): void {
    this.#rows++;
    const chunks = this.#chunks;
    const index = Math.max(0, this.#chunkOf(position));
    const chunk = chunks[index];
    if (chunk === undefined) {
      this.#add(0, position, value);
      return;
    }
    const row = chunk.rowsUpTo(position);
    if (chunk.count < MAX_ROWS && chunk.reaches(position)) {
      this.#insertIn(index, chunk, row, position, value);
      return;
    }
    if (row === chunk.count) {
      // Behind all of it: what is built in order has full chunks.
      const next = chunks[index + 1];
      if (next !== undefined && next.count < MAX_ROWS && next.reaches(position)) {
        this.#insertIn(index + 1, next, 0, position, value);
      } else {
        this.#add(index + 1, position, value);
      }
      return;
    }
    if (row === 0) {
      this.#add(index, position, value);
      return;
    }
    // What is built in order, be it before rows that are there already, has full chunks as well.
    const nearEnd = row > 0.75 * chunk.count || row < 0.25 * chunk.count;
    const upper = chunk.split(nearEnd || chunk.count < MAX_ROWS ? row : chunk.count >>> 1);
    chunks.splice(index + 1, 0, upper);
    this.#firsts.splice(index + 1, 0, upper.start(0));
    this.#rows--;
    this.#insert(position, value);
  }

  #add(index: number, position: number, value: number): void {
    const chunk = new Chunk(position, FIRST_ROWS);
    chunk.insert(0, position, value);
    this.#chunks.splice(index, 0, chunk);
    this.#firsts.splice(index, 0, position);
    this.#near = index;
  }

  #insertIn(index: number, chunk: Chunk, row: number, position: number, value: number): void {
    chunk.insert(row, position, value);
    if (row === 0) this.#firsts[index] = position;
  }
}
