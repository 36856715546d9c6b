/**
 * Memory for requests that wait for a device, while the input and output memory serve others. A bounded number of buffers, made
 * when they are first needed: who gets none does its work at once, on the loop.
 */

import type { Memory } from '../../base/memory.ts';

const SMALL_BYTES = 16_384;
const SMALL_COUNT = 256;
const LARGE_COUNT = 48;

export class Buffers {
  readonly #allocate: (bytes: number) => Memory;
  readonly #largeBytes: number;
  readonly #small: Memory[] = [];
  readonly #large: Memory[] = [];
  #smallMade = 0;
  #largeMade = 0;

  /** The largest buffer that is ever asked for has `largeBytes`. */
  constructor(allocate: (bytes: number) => Memory, largeBytes: number) {
    this.#allocate = allocate;
    this.#largeBytes = largeBytes;
  }

  /** A buffer of at least so many bytes, or undefined when all are in use. */
  take(bytes: number): Memory | undefined {
    if (bytes <= SMALL_BYTES) {
      const free = this.#small.pop();
      if (free !== undefined) return free;
      if (this.#smallMade < SMALL_COUNT) {
        this.#smallMade++;
        return this.#allocate(SMALL_BYTES);
      }
    }
    const free = this.#large.pop();
    if (free !== undefined) return free;
    if (this.#largeMade === LARGE_COUNT || bytes > this.#largeBytes) return undefined;
    this.#largeMade++;
    return this.#allocate(this.#largeBytes);
  }

  give(buffer: Memory): void {
    if (buffer.bytes.length === SMALL_BYTES) this.#small.push(buffer);
    else this.#large.push(buffer);
  }
}
