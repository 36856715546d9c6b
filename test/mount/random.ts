/** Random numbers that a seed determines: mulberry32, whose state is one 32-bit number. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 ≤ number < 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number: 0 ≤ number < limit. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  ofOrNone<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }

  of<T>(items: readonly T[]): T {
    const item = this.ofOrNone(items);
    if (item === undefined) throw new Error('Cannot choose from nothing');
    return item;
  }

  bytes(length: number): Buffer {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.next() * 2 ** 32;
    return Buffer.from(words.buffer, 0, length);
  }
}
