/**
 * The names of what a report has walked and found: folders and files by number, each a row with the number of the folder that it
 * is in, and its name in one buffer for all. A folder comes before what is in it.
 */

import { readable } from '../base/text.ts';

const FIRST_ROWS = 1024;
const SLASH = 0x2f;
/** The folder of what a walk began with, whose name is its whole path. */
export const NO_FOLDER = 0xffff_ffff;

/** Rows of names: 12 bytes and the name each. */
class Names {
  #parents = new Uint32Array(FIRST_ROWS);
  #starts = new Float64Array(FIRST_ROWS);
  #bytes = Buffer.alloc(65_536);
  #used = 0;
  count = 0;

  add(parent: number, name: Uint8Array): number {
    if (this.count === this.#parents.length) this.#grow();
    while (this.#used + name.length > this.#bytes.length)
      this.#bytes = Buffer.concat([this.#bytes], this.#bytes.length * 2);
    this.#bytes.set(name, this.#used);
    this.#parents[this.count] = parent;
    this.#starts[this.count] = this.#used;
    this.#used += name.length;
    return this.count++;
  }

  parent(row: number): number {
    return this.#parents[row] ?? NO_FOLDER;
  }

  name(row: number): Buffer {
    const end = row + 1 < this.count ? (this.#starts[row + 1] ?? 0) : this.#used;
    return this.#bytes.subarray(this.#starts[row] ?? 0, end);
  }

  #grow(): void {
    const parents = new Uint32Array(this.#parents.length * 2);
    const starts = new Float64Array(parents.length);
    parents.set(this.#parents);
    starts.set(this.#starts);
    this.#parents = parents;
    this.#starts = starts;
  }
}

export class Paths {
  readonly #folders = new Names();
  readonly #files = new Names();

  get files(): number {
    return this.#files.count;
  }

  get folders(): number {
    return this.#folders.count;
  }

  addFolder(parent: number, name: Uint8Array): number {
    return this.#folders.add(parent, name);
  }

  /** `name` is without its NUL; an empty one names the folder itself, which is a file that was given by its path. */
  addFile(folder: number, name: Uint8Array): number {
    return this.#files.add(folder, name);
  }

  folderOf(file: number): number {
    return this.#files.parent(file);
  }

  fileName(file: number): string {
    return readable(this.#files.name(file));
  }

  parentOf(folder: number): number {
    return this.#folders.parent(folder);
  }

  folderName(folder: number): string {
    return readable(this.#folders.name(folder));
  }

  folderPath(folder: number): Buffer {
    const parts: Buffer[] = [];
    for (let at = folder; at !== NO_FOLDER; at = this.#folders.parent(at)) parts.unshift(this.#folders.name(at));
    return joined(parts);
  }

  /** The path for people and programs: bytes that aren't UTF-8 are written as \xNN. */
  text(file: number): string {
    const name = this.#files.name(file);
    const folder = this.folderPath(this.folderOf(file));
    return readable(name.length === 0 ? folder : joined([folder, name]));
  }
}

function joined(parts: readonly Buffer[]): Buffer {
  const pieces: Buffer[] = [];
  for (const part of parts) {
    const last = pieces.at(-1);
    if (last !== undefined && last[last.length - 1] !== SLASH) pieces.push(Buffer.from('/'));
    pieces.push(part);
  }
  return Buffer.concat(pieces);
}
