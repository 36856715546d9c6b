/**
 * The extent map of a file: which bytes of the filesystem its data are. Two files of one size whose maps are equal have
 * equal bytes, as long as something holds a reference on the extents of one of them.
 *
 * A row is four numbers: file offset, length, address, and slice. A plain row's byte i is the byte at `address + i`, and
 * its slice is PLAIN. An encoded (compressed) row's byte i is byte `slice + i` of what the extent that starts at
 * `address` decodes to. Hence a plain row never equals an encoded one, nor do two different slices of one extent.
 *
 * Invariants, kept by the builder, which is the only maker of maps:
 *  1. Rows are in order of their offset, don't overlap, and aren't empty. Every number is an exact integer (below 2^53).
 *  2. What reads as zeros, a hole or an unwritten extent, has no row.
 *  3. Rows are as long as can be. Two rows that touch in the file are one row when the second goes on where the first
 *     ends: at the next address for plain rows, at the next slice of the same extent for encoded ones. So each byte's
 *     identity determines the rows, however the filesystem cut the file, and maps are compared row by row.
 *  4. The last row ends at the end of the file, not at the end of its block: the map speaks of bytes that the file has,
 *     and blocks that were allocated beyond them change nothing. Files of different sizes may have equal maps if they
 *     end in holes, so sizes are compared beside maps.
 */

/** Numbers per row. One array with rows in it costs one allocation, which is most of the cost of a small map. */
const STRIDE = 4;

/** The slice of a row whose bytes are on disk as they are. */
export const PLAIN = -1;

export class ExtentMap {
  readonly count: number;
  /** The sum of all rows' lengths. */
  readonly dataBytes: number;
  readonly #rows: Float64Array<ArrayBuffer>;
  #hash = -1;

  /** For the builder: `rows` holds exactly the map's rows, and nothing else keeps it. */
  constructor(rows: Float64Array<ArrayBuffer>, dataBytes: number) {
    this.#rows = rows;
    this.count = rows.length / STRIDE;
    this.dataBytes = dataBytes;
  }

  offset(row: number): number {
    return this.#rows[row * STRIDE] ?? 0;
  }

  length(row: number): number {
    return this.#rows[row * STRIDE + 1] ?? 0;
  }

  address(row: number): number {
    return this.#rows[row * STRIDE + 2] ?? 0;
  }

  /** The offset inside the decoded extent, or PLAIN. */
  slice(row: number): number {
    return this.#rows[row * STRIDE + 3] ?? PLAIN;
  }

  /** How much memory the rows take. */
  get heldBytes(): number {
    return this.#rows.byteLength;
  }

  equals(other: ExtentMap): boolean {
    const mine = this.#rows;
    const theirs = other.#rows;
    if (mine.length !== theirs.length) return false;
    for (let i = 0; i < mine.length; i++) if (mine[i] !== theirs[i]) return false;
    return true;
  }

  /**
   * An integer below 2^53 that equal maps share, on every machine and in every process. Two 32-bit lanes run over the
   * bits of all rows (a Float64's bits are determined by its value here, since no -0 gets in).
   */
  hash(): number {
    if (this.#hash < 0) this.#hash = hashOf(this.#rows);
    return this.#hash;
  }
}

function hashOf(rows: Float64Array<ArrayBuffer>): number {
  const words = new Uint32Array(rows.buffer, rows.byteOffset, rows.length * 2);
  let low = 0x243f6a88;
  let high = 0x13198a2e;
  for (const word of words) {
    // Every step is a bijection of the lane for a given word and of the word for a given lane, so one changed word
    // always changes both lanes; the shifts carry the high bits, where a product gathers them, back down.
    low = Math.imul(low ^ word, 0x9e3779b1);
    low ^= low >>> 15;
    high = Math.imul((high + word) | 0, 0x85ebca77);
    high = (high << 13) | (high >>> 19);
    high ^= high >>> 11;
  }
  low = mixed(low ^ words.length);
  high = mixed(high ^ low);
  return (high & 0x1fffff) * 0x1_0000_0000 + (low >>> 0);
}

/** Spreads each bit of the lane over all of it. */
function mixed(lane: number): number {
  let value = Math.imul(lane ^ (lane >>> 16), 0xc2b2ae3d);
  value = Math.imul(value ^ (value >>> 13), 0x27d4eb2f);
  return value ^ (value >>> 16);
}

/** Rows of four numbers in one array that grows and is used again, so that reading a file's extents allocates nothing. */
export class RowTable {
  count = 0;
  #numbers = new Float64Array(64 * STRIDE);

  clear(): void {
    this.count = 0;
    // A table that one file with very many extents blew up (2 MiB and more) isn't kept for all the small ones.
    if (this.#numbers.length > 65_536 * STRIDE) this.#numbers = new Float64Array(64 * STRIDE);
  }

  push(first: number, second: number, third: number, fourth: number): void {
    const at = this.count * STRIDE;
    if (at === this.#numbers.length) {
      const larger = new Float64Array(at * 2);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[at] = first;
    this.#numbers[at + 1] = second;
    this.#numbers[at + 2] = third;
    this.#numbers[at + 3] = fourth;
    this.count++;
  }

  get(row: number, column: number): number {
    return this.#numbers[row * STRIDE + column] ?? 0;
  }

  set(row: number, column: number, value: number): void {
    this.#numbers[row * STRIDE + column] = value;
  }

  copy(): Float64Array<ArrayBuffer> {
    return this.#numbers.slice(0, this.count * STRIDE);
  }
}

/** Takes a file's data in order and makes its map. It may be used again for the next file. */
export class ExtentMapBuilder {
  readonly #table = new RowTable();
  #end = 0;
  #dataBytes = 0;

  /** The number of rows so far. */
  get count(): number {
    return this.#table.count;
  }

  /** The sum of the lengths so far. */
  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** Forgets what was appended. */
  clear(): void {
    this.#table.clear();
    this.#end = 0;
    this.#dataBytes = 0;
  }

  /**
   * Appends `length` bytes of data at `offset`; `slice` is PLAIN or the offset inside the decoded extent. Returns false,
   * and appends nothing, when that would break an invariant: the row is empty, lies before the end of the last one, or
   * has a number that isn't an exact integer of zero or more.
   */
  append(offset: number, length: number, address: number, slice: number = PLAIN): boolean {
    if (!(offset >= this.#end && length > 0 && address >= 0 && slice >= PLAIN)) return false;
    const exact =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      Number.isSafeInteger(address) &&
      Number.isSafeInteger(slice) &&
      Number.isSafeInteger(offset + length) &&
      Number.isSafeInteger(address + length) &&
      Number.isSafeInteger(slice + length);
    if (!exact) return false;
    const table = this.#table;
    const last = table.count - 1;
    if (last >= 0 && offset === this.#end && this.#continues(last, address, slice)) {
      table.set(last, 1, table.get(last, 1) + length);
    } else {
      // Adding zero turns -0, whose bits differ from those of 0, into 0.
      table.push(offset + 0, length, address + 0, slice + 0);
    }
    this.#end = offset + length;
    this.#dataBytes += length;
    return true;
  }

  #continues(row: number, address: number, slice: number): boolean {
    const length = this.#table.get(row, 1);
    const before = this.#table.get(row, 2);
    const sliceBefore = this.#table.get(row, 3);
    if (slice === PLAIN) return sliceBefore === PLAIN && before + length === address;
    return sliceBefore !== PLAIN && before === address && sliceBefore + length === slice;
  }

  /** The map of what was appended. The builder is empty afterwards. */
  finish(): ExtentMap {
    const map = new ExtentMap(this.#table.copy(), this.#dataBytes);
    this.clear();
    return map;
  }
}
