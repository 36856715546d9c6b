/**
 * Sets of files that hold the same bytes, and how many bytes: rows, found by a hash of the set. A row takes 40 bytes and 4 for
 * each file.
 */

const FIRST_ROWS = 1024;

export class Groups {
  count = 0;
  #bytes = new Float64Array(FIRST_ROWS);
  /** Where a row's files begin; they end where those of the next row begin. */
  #starts = new Float64Array(FIRST_ROWS + 1);
  #hashes = new Uint32Array(FIRST_ROWS);
  #files = new Uint32Array(FIRST_ROWS * 4);
  /** Row numbers plus one, by hash: twice as many as rows. */
  #buckets = new Uint32Array(FIRST_ROWS * 2);

  /** The files, in order, hold so many bytes each (once more than was known). */
  add(files: readonly number[], bytes: number): void {
    let hash = files.length;
    for (const file of files) hash = Math.imul(hash ^ file, 0x9e3779b1) ^ (hash >>> 15);
    hash >>>= 0;
    if (this.count === this.#bytes.length) this.#grow();
    const row = this.#find(hash, files);
    this.#bytes[row] = (this.#bytes[row] ?? 0) + bytes;
  }

  /** What one of the files holds of it. */
  bytes(row: number): number {
    return this.#bytes[row] ?? 0;
  }

  copies(row: number): number {
    return (this.#starts[row + 1] ?? 0) - (this.#starts[row] ?? 0);
  }

  duplicateBytes(row: number): number {
    return this.bytes(row) * (this.copies(row) - 1);
  }

  /** The first files of a row, at most `limit`. */
  files(row: number, limit: number): number[] {
    const start = this.#starts[row] ?? 0;
    return [...this.#files.subarray(start, start + Math.min(limit, this.copies(row)))];
  }

  /** The rows with most duplicate bytes, the worst first. */
  worst(top: number): number[] {
    const order = new Uint32Array(this.count);
    for (let row = 0; row < order.length; row++) order[row] = row;
    order.sort((a, b) => this.duplicateBytes(b) - this.duplicateBytes(a) || a - b);
    return [...order.subarray(0, top)];
  }

  #find(hash: number, files: readonly number[]): number {
    const mask = this.#buckets.length - 1;
    let bucket = hash & mask;
    for (;;) {
      const row = (this.#buckets[bucket] ?? 0) - 1;
      if (row < 0) break;
      if (this.#hashes[row] === hash && this.#has(row, files)) return row;
      bucket = (bucket + 1) & mask;
    }
    this.#buckets[bucket] = this.count + 1;
    return this.#append(hash, files);
  }

  #has(row: number, files: readonly number[]): boolean {
    if (this.copies(row) !== files.length) return false;
    const start = this.#starts[row] ?? 0;
    return files.every((file, i) => this.#files[start + i] === file);
  }

  #append(hash: number, files: readonly number[]): number {
    const row = this.count;
    const start = this.#starts[row] ?? 0;
    while (start + files.length > this.#files.length) {
      const larger = new Uint32Array(this.#files.length * 2);
      larger.set(this.#files);
      this.#files = larger;
    }
    this.#files.set(files, start);
    this.#starts[row + 1] = start + files.length;
    this.#hashes[row] = hash;
    this.count++;
    return row;
  }

  #grow(): void {
    const rows = this.#bytes.length * 2;
    const [bytes, starts, hashes] = [new Float64Array(rows), new Float64Array(rows + 1), new Uint32Array(rows)];
    bytes.set(this.#bytes);
    starts.set(this.#starts);
    hashes.set(this.#hashes);
    this.#bytes = bytes;
    this.#starts = starts;
    this.#hashes = hashes;
    this.#buckets = new Uint32Array(rows * 2);
    const mask = this.#buckets.length - 1;
    for (let row = 0; row < this.count; row++) {
      let bucket = (hashes[row] ?? 0) & mask;
      while (this.#buckets[bucket] !== 0) bucket = (bucket + 1) & mask;
      this.#buckets[bucket] = row + 1;
    }
  }
}
