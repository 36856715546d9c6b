/**
 * Which blocks of a filesystem are in memory how often: ranges of blocks, each with the file whose page cache holds them. A
 * sweep over all of them, in the order of their addresses, tells how many bytes are held more than once, by which files.
 *
 * A range takes 20 bytes. Blocks of different filesystems are kept apart by spaces (`space`), which are far from one another.
 */

/** The distance between two spaces, in blocks: no filesystem's addresses reach so far. */
const SPACE_BLOCKS = 2 ** 44;
const FIRST_ROWS = 1024;

/** The files, in order, hold the same bytes, so many each. The array is the visitor's to read until it returns. */
export type CopyVisitor = (files: readonly number[], bytes: number) => void;

export class Copies {
  readonly #blockBytes: number;
  #starts = new Float64Array(FIRST_ROWS);
  #lengths = new Float64Array(FIRST_ROWS);
  #files = new Uint32Array(FIRST_ROWS);
  #count = 0;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  /** The file holds `blocks` blocks of a space from `block` on. */
  add(space: number, block: number, blocks: number, file: number): void {
    const start = space * SPACE_BLOCKS + block;
    const last = this.#count - 1;
    if (last >= 0 && this.#files[last] === file && (this.#starts[last] ?? 0) + (this.#lengths[last] ?? 0) === start) {
      this.#lengths[last] = (this.#lengths[last] ?? 0) + blocks;
      return;
    }
    if (this.#count === this.#starts.length) this.#grow();
    this.#starts[this.#count] = start;
    this.#lengths[this.#count] = blocks;
    this.#files[this.#count] = file;
    this.#count++;
  }

  /** How many ranges there are, to go back to by `forget`. */
  get count(): number {
    return this.#count;
  }

  /** Forgets the ranges that were added since there were `count`: those of one file, as a range may have grown. */
  forget(count: number): void {
    this.#count = count;
  }

  /** Tells of everything that is held more than once, by the order of addresses; returns how many bytes more than once. */
  duplicates(visit: CopyVisitor): number {
    const order = new Uint32Array(this.#count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    order.sort((a, b) => (this.#starts[a] ?? 0) - (this.#starts[b] ?? 0));
    const sweep = new Sweep(this.#blockBytes, visit);
    for (const row of order) {
      const start = this.#starts[row] ?? 0;
      sweep.open(start, start + (this.#lengths[row] ?? 0), this.#files[row] ?? 0);
    }
    sweep.closeUntil(Number.POSITIVE_INFINITY);
    return sweep.duplicateBytes;
  }

  #grow(): void {
    const rows = this.#starts.length * 2;
    const starts = new Float64Array(rows);
    const lengths = new Float64Array(rows);
    const files = new Uint32Array(rows);
    starts.set(this.#starts);
    lengths.set(this.#lengths);
    files.set(this.#files);
    this.#starts = starts;
    this.#lengths = lengths;
    this.#files = files;
  }
}

/** The ranges that the sweep is in: few at a time, as many as a block has holders. */
class Sweep {
  duplicateBytes = 0;
  readonly #blockBytes: number;
  readonly #visit: CopyVisitor;
  readonly #open: { readonly end: number; readonly file: number }[] = [];
  #at = 0;
  /** The least end of an open range. */
  #firstEnd = Number.POSITIVE_INFINITY;

  constructor(blockBytes: number, visit: CopyVisitor) {
    this.#blockBytes = blockBytes;
    this.#visit = visit;
  }

  open(start: number, end: number, file: number): void {
    this.closeUntil(start);
    this.#count(start);
    // A file that has a block at two places holds it twice, too.
    this.#open.push({ end, file });
    this.#firstEnd = Math.min(this.#firstEnd, end);
  }

  closeUntil(position: number): void {
    while (this.#firstEnd <= position && this.#open.length > 0) {
      const end = this.#firstEnd;
      this.#count(end);
      let kept = 0;
      this.#firstEnd = Number.POSITIVE_INFINITY;
      for (const one of this.#open) {
        if (one.end === end) continue;
        this.#open[kept++] = one;
        this.#firstEnd = Math.min(this.#firstEnd, one.end);
      }
      this.#open.length = kept;
    }
  }

  /** Counts what lies between the last position and this one. */
  #count(position: number): void {
    const copies = this.#open.length;
    const bytes = (position - this.#at) * this.#blockBytes;
    this.#at = position;
    if (copies < 2 || bytes === 0) return;
    this.duplicateBytes += bytes * (copies - 1);
    this.#visit(
      this.#open.map(({ file }) => file).sort((a, b) => a - b),
      bytes,
    );
  }
}
