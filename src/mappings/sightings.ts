/**
 * Which content was seen lately in which file. An inline file has nothing that tells whether others have the same, and most have no
 * copy: a clone is made of it only when a second file with the same content is opened.
 *
 * A table of sets of four lines, by hash; in a set the latest comes first, and the fifth goes. A server that takes over begins with none.
 */

const SETS = 8192;
const WAYS = 4;
/** Words of a line: the hash, and the number of the file's node plus one. */
const HASH = 0;
const NODE = 1;
const WORDS = 2;
const SET_WORDS = WAYS * WORDS;

export const NOBODY = -1;

export class Sightings {
  readonly #words = new Uint32Array(SETS * SET_WORDS);

  /**
   * A node's file has content of this hash, below 2^32, and is shared within a domain and with an owner's files alone. Returns the
   * other node that was the last with all this, or NOBODY.
   */
  meet(content: number, domain: number, owner: number, node: number): number {
    const hash = (content ^ Math.imul(domain, 0x9e3779b1) ^ Math.imul(owner, 0x85ebca77)) >>> 0;
    const set = (hash % SETS) * SET_WORDS;
    const words = this.#words;
    let line = set;
    const last = set + SET_WORDS - WORDS;
    while (line < last && words[line + HASH] !== hash) line += WORDS;
    const before = words[line + HASH] === hash ? (words[line + NODE] ?? 0) - 1 : NOBODY;
    words.copyWithin(set + WORDS, set, line);
    words[set + HASH] = hash;
    words[set + NODE] = node + 1;
    return before === node ? NOBODY : before;
  }
}
