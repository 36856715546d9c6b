/**
 * Which content was seen lately in which file. An inline file has nothing that tells whether others have the same, and most have no
 * copy: a clone is made of it only when a second file with the same content is opened.
 *
 * A table with a line for each of some hashes, in which a later one replaces an earlier. A server that takes over begins with none.
 */

const LINES = 32_768;
/** Words of a line: the hash, and the number of the file's node plus one. */
const HASH = 0;
const NODE = 1;
const WORDS = 2;

export const NOBODY = -1;

export class Sightings {
  readonly #words = new Uint32Array(LINES * WORDS);

  /**
   * A node's file has content of this hash, below 2^32, and is shared within a domain and with an owner's files alone. Returns the
   * other node that was the last with all this, or NOBODY.
   */
  meet(content: number, domain: number, owner: number, node: number): number {
    const hash = (content ^ Math.imul(domain, 0x9e3779b1) ^ Math.imul(owner, 0x85ebca77)) >>> 0;
    const line = (hash % LINES) * WORDS;
    const before = this.#words[line + HASH] === hash ? (this.#words[line + NODE] ?? 0) - 1 : NOBODY;
    this.#words[line + HASH] = hash;
    this.#words[line + NODE] = node + 1;
    return before === node ? NOBODY : before;
  }
}
