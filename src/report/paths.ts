/** The names of what a report has found in memory: folders by number, and below them files by number, 12 bytes and the name each. */

const FIRST_FILES = 1024;

export class Paths {
  readonly #folders: Buffer[] = [];
  #folderOf = new Uint32Array(FIRST_FILES);
  #nameAt = new Float64Array(FIRST_FILES);
  #names = Buffer.alloc(65_536);
  #used = 0;
  #count = 0;

  get files(): number {
    return this.#count;
  }

  get folders(): number {
    return this.#folders.length;
  }

  addFolder(path: Buffer): number {
    return this.#folders.push(path) - 1;
  }

  /** `name` is without its NUL; an empty one names the folder itself, which is a file that was given by its path. */
  addFile(folder: number, name: Uint8Array): number {
    if (this.#count === this.#folderOf.length) this.#grow();
    while (this.#used + name.length > this.#names.length)
      this.#names = Buffer.concat([this.#names], this.#names.length * 2);
    this.#names.set(name, this.#used);
    this.#folderOf[this.#count] = folder;
    this.#nameAt[this.#count] = this.#used;
    this.#used += name.length;
    return this.#count++;
  }

  folderOf(file: number): number {
    return this.#folderOf[file] ?? 0;
  }

  folderPath(folder: number): Buffer {
    return this.#folders[folder] ?? Buffer.alloc(0);
  }

  /** The path for people and programs: bytes that aren't UTF-8 are written as \xNN. */
  text(file: number): string {
    const start = this.#nameAt[file] ?? 0;
    const end = file + 1 < this.#count ? (this.#nameAt[file + 1] ?? 0) : this.#used;
    const name = this.#names.subarray(start, end);
    const folder = this.folderPath(this.folderOf(file));
    if (name.length === 0) return readable(folder);
    const slash = folder[folder.length - 1] === 0x2f ? '' : '/';
    return `${readable(folder)}${slash}${readable(name)}`;
  }

  #grow(): void {
    const folders = new Uint32Array(this.#folderOf.length * 2);
    const names = new Float64Array(folders.length);
    folders.set(this.#folderOf);
    names.set(this.#nameAt);
    this.#folderOf = folders;
    this.#nameAt = names;
  }
}

/** Bytes as text: what isn't UTF-8 or would move a terminal's cursor is written as \xNN. */
export function readable(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf8');
  const exact = Buffer.from(text).equals(bytes);
  if (exact && !/\p{Cc}/u.test(text)) return text;
  let escaped = '';
  for (const byte of bytes) {
    escaped += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return escaped;
}
