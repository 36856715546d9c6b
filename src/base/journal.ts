/**
 * Memory whose words change in steps that happen wholly or not at all, whenever the process is killed: what a later process
 * that maps the same memory finds is what was there after the last step that was completed, once it has rolled back.
 *
 *     words 0            how many words the step under way has changed
 *           1..2*pairs   (word, what it was before), one pair for each
 *           then         the tables, one behind the other in the order in which they are taken
 *
 * A word's old value is written down before the word is changed. Killing a process loses no store that it has done, and its
 * stores are seen in their order, so nothing has to be flushed.
 */

import type { Memory } from './memory.ts';

const COUNT = 0;
const PAIRS = 1;

/** Where a table lies in the words of its journal. */
export type WordIndex = number;

/** Bytes that a journal takes in front of its tables, for steps that change up to so many words. */
export function journalBytes(pairs: number): number {
  return (PAIRS + 2 * pairs + 1) * 4;
}

export class Journal {
  /** All words: to be read in place, and changed by `set`. */
  readonly words: Uint32Array;
  readonly memory: Memory;
  /** The most words that one step has changed, and that it may. */
  largest = 0;
  readonly limit: number;
  #taken: WordIndex;

  constructor(memory: Memory, pairs: number) {
    this.memory = memory;
    this.words = new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, Math.floor(memory.bytes.length / 4));
    this.limit = pairs;
    this.#taken = journalBytes(pairs) / 4;
    this.#taken += this.#taken % 2;
  }

  /** The next so many words, aligned to 8 bytes: who takes the same in the same order finds the same. */
  take(count: number): WordIndex {
    const at = this.#taken;
    this.#taken += count + (count % 2);
    if (this.#taken > this.words.length) throw new Error(`the shared memory has no room for ${count} words more`);
    return at;
  }

  /** The next so many bytes, outside of the journal's care. */
  takeBytes(count: number): Memory {
    const at = this.take(Math.ceil(count / 4)) * 4;
    const { address, bytes } = this.memory;
    return {
      address: address + at,
      bytes: new Uint8Array(bytes.buffer, bytes.byteOffset + at, count),
      view: new DataView(bytes.buffer, bytes.byteOffset + at, count),
    };
  }

  get(at: WordIndex): number {
    return this.words[at] ?? 0;
  }

  set(at: WordIndex, value: number): void {
    const { words } = this;
    const old = words[at] ?? 0;
    if (old === value >>> 0) return;
    const count = words[COUNT] ?? 0;
    if (count >= this.limit) throw new Error(`a step changes more than ${this.limit} words`);
    words[PAIRS + 2 * count] = at;
    words[PAIRS + 2 * count + 1] = old;
    words[COUNT] = count + 1;
    words[at] = value;
  }

  /** A whole number below 2^53, in two words. */
  getLarge(at: WordIndex): number {
    return (this.words[at] ?? 0) + (this.words[at + 1] ?? 0) * 0x1_0000_0000;
  }

  setLarge(at: WordIndex, value: number): void {
    this.set(at, value % 0x1_0000_0000);
    this.set(at + 1, Math.floor(value / 0x1_0000_0000));
  }

  /** How many words the step under way has changed. */
  get changed(): number {
    return this.words[COUNT] ?? 0;
  }

  /** The step is completed. */
  commit(): void {
    const { changed } = this;
    if (changed > this.largest) this.largest = changed;
    this.words[COUNT] = 0;
  }

  /** Takes the step under way back, last change first. Being killed meanwhile does no harm: it is begun again. */
  rollback(): void {
    const { words } = this;
    for (let count = Math.min(this.changed, this.limit); count > 0; count--) {
      const at = words[PAIRS + 2 * (count - 1)] ?? 0;
      words[at] = words[PAIRS + 2 * (count - 1) + 1] ?? 0;
      words[COUNT] = count - 1;
    }
  }
}
