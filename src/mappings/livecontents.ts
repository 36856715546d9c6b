/**
 * Contents of files that were found to be written in place while others read them: their other clones aren't shared for some time,
 * so that what happened to one doesn't happen to the next. A server that takes over begins with none.
 *
 * A direct-mapped table by hash: who meets another's line isn't shared for a while, which does no harm.
 */

const LINES = 4096;
/** How long a content is remembered, in milliseconds. */
const KEPT_MS = 600_000;

export class LiveContents {
  readonly #hashes = new Float64Array(LINES).fill(-1);
  readonly #untilMs = new Float64Array(LINES);
  readonly #monotonicMs: () => number;

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  learn(hash: number, domain: number): void {
    const key = keyOf(hash, domain);
    this.#hashes[key % LINES] = key;
    this.#untilMs[key % LINES] = this.#monotonicMs() + KEPT_MS;
  }

  has(hash: number, domain: number): boolean {
    const key = keyOf(hash, domain);
    return this.#hashes[key % LINES] === key && (this.#untilMs[key % LINES] ?? 0) > this.#monotonicMs();
  }
}

/** What one domain does to its files says nothing to another. */
function keyOf(hash: number, domain: number): number {
  return (hash ^ Math.imul(domain, 0x9e3779b1)) >>> 0;
}
