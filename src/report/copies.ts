/**
 * Which blocks of a filesystem are in memory how often: ranges of blocks, each with the file whose page cache holds them. A
 * sweep over all of them, in the order of their addresses, tells how many bytes are held more than once, by which files.
 *
 * A range takes 20 bytes. Blocks of different filesystems are kept apart by spaces (`space`), which are far from one another.
 */

/** The distance between two spaces, in blocks: no filesystem's addresses reach so far. */
const SPACE_BLOCKS = 2 ** 44;
const FIRST_ROWS = 1024;
/** A group remembers so many of its files by number. */
export const FILES_NAMED = 16;

/** Bytes that the same files hold at the same time. */
export interface Group {
  /** How many files hold them, and the first of them. */
  copies: number;
  readonly files: readonly number[];
  /** What one copy takes, and what the others take beside it. */
  bytes: number;
  duplicateBytes: number;
}

export interface Duplicates {
  readonly duplicateBytes: number;
  /** Files that hold something that another one holds as well. */
  readonly files: number;
  /** The worst groups first. */
  readonly groups: readonly Group[];
}

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

  /**
   * What is held more than once. `share` is told of each file's part of it: a block that n files hold counts (n - 1) / n for
   * each. At most `top` groups are returned.
   */
  duplicates(top: number, share: (file: number, bytes: number) => void): Duplicates {
    const order = new Uint32Array(this.#count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    order.sort((a, b) => (this.#starts[a] ?? 0) - (this.#starts[b] ?? 0));
    const sweep = new Sweep(this.#blockBytes, share);
    for (const row of order) {
      const start = this.#starts[row] ?? 0;
      sweep.open(start, start + (this.#lengths[row] ?? 0), this.#files[row] ?? 0);
    }
    sweep.closeUntil(Number.POSITIVE_INFINITY);
    return sweep.result(top);
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
  readonly #blockBytes: number;
  readonly #share: (file: number, bytes: number) => void;
  readonly #open: { end: number; readonly file: number }[] = [];
  readonly #groups = new Map<string, { copies: number; files: number[]; bytes: number; duplicateBytes: number }>();
  readonly #files = new Set<number>();
  #at = 0;
  #duplicateBytes = 0;

  constructor(blockBytes: number, share: (file: number, bytes: number) => void) {
    this.#blockBytes = blockBytes;
    this.#share = share;
  }

  open(start: number, end: number, file: number): void {
    this.closeUntil(start);
    this.#count(start);
    // A file that has a block at two places holds it twice, too.
    this.#open.push({ end, file });
  }

  closeUntil(position: number): void {
    for (;;) {
      let end = Number.POSITIVE_INFINITY;
      for (const one of this.#open) end = Math.min(end, one.end);
      if (end > position || end === Number.POSITIVE_INFINITY) return;
      this.#count(end);
      for (let i = this.#open.length - 1; i >= 0; i--) if (this.#open[i]?.end === end) this.#open.splice(i, 1);
    }
  }

  /** Counts what lies between the last position and this one. */
  #count(position: number): void {
    const copies = this.#open.length;
    const bytes = (position - this.#at) * this.#blockBytes;
    this.#at = position;
    if (copies < 2 || bytes === 0) return;
    const duplicateBytes = bytes * (copies - 1);
    this.#duplicateBytes += duplicateBytes;
    const files = this.#open.map(({ file }) => file).sort((a, b) => a - b);
    for (const file of files) {
      this.#files.add(file);
      this.#share(file, duplicateBytes / copies);
    }
    const key = files.join();
    const group = this.#groups.get(key);
    if (group === undefined) {
      this.#groups.set(key, { copies, files: files.slice(0, FILES_NAMED), bytes, duplicateBytes });
    } else {
      group.bytes += bytes;
      group.duplicateBytes += duplicateBytes;
    }
  }

  result(top: number): Duplicates {
    const groups = [...this.#groups.values()].sort((a, b) => b.duplicateBytes - a.duplicateBytes).slice(0, top);
    return { duplicateBytes: this.#duplicateBytes, files: this.#files.size, groups };
  }
}
