/**
 * A set of inodes, by device and number: 16 bytes a row, at most three quarters of the rows in use. A tree may show one file by several
 * names, bind mounts and overlays.
 */

import { STATX } from './calls.ts';

const FIRST_ROWS = 1024;
const WORDS = 4;
const FILLED = 0.75;

export class InodeSet {
  /** Major and minor of the device, and the two halves of the inode number. Number 0 is no inode's: the row is free. */
  #words = new Uint32Array(FIRST_ROWS * WORDS);
  #mask = FIRST_ROWS - 1;
  #count = 0;

  /** Adds the inode of a struct statx at an offset; false when it was there. */
  add(view: DataView, statxAt: number): boolean {
    const major = view.getUint32(statxAt + STATX.devMajor, true);
    const minor = view.getUint32(statxAt + STATX.devMinor, true);
    const low = view.getUint32(statxAt + STATX.ino, true);
    const high = view.getUint32(statxAt + STATX.ino + 4, true);
    const at = this.#find(major, minor, low, high);
    if (this.#isUsed(at)) return false;
    this.#put(at, major, minor, low, high);
    this.#count++;
    if (this.#count > (this.#mask + 1) * FILLED) this.#grow();
    return true;
  }

  /** Where the inode is, or the free row that it would get. */
  #find(major: number, minor: number, low: number, high: number): number {
    let hash = Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
    hash = Math.imul(hash ^ (hash >>> 15) ^ Math.imul(minor ^ (major << 20), 0xc2b2ae35), 0x85ebca6b);
    let row = (hash ^ (hash >>> 13)) & this.#mask;
    const words = this.#words;
    for (;;) {
      const at = row * WORDS;
      const same = words[at] === major && words[at + 1] === minor && words[at + 2] === low && words[at + 3] === high;
      if (same || !this.#isUsed(at)) return at;
      row = (row + 1) & this.#mask;
    }
  }

  #isUsed(at: number): boolean {
    return this.#words[at + 2] !== 0 || this.#words[at + 3] !== 0;
  }

  #put(at: number, major: number, minor: number, low: number, high: number): void {
    this.#words[at] = major;
    this.#words[at + 1] = minor;
    this.#words[at + 2] = low;
    this.#words[at + 3] = high;
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    this.#mask = this.#words.length / WORDS - 1;
    for (let at = 0; at < old.length; at += WORDS) {
      const [major = 0, minor = 0, low = 0, high = 0] = old.subarray(at, at + WORDS);
      if (low !== 0 || high !== 0) this.#put(this.#find(major, minor, low, high), major, minor, low, high);
    }
  }
}
