/**
 * The extent index of a filesystem: which of its bytes a target of ours holds, and where. A key names bytes as an extent
 * map does (`extents/extentmap.ts`): by address, and for compressed extents by the extent's address and the slice of what it
 * decodes to. Positions in targets are those of `packs.ts`.
 *
 * An entry is a hint and no proof: balance moves extents, and their old addresses are given to other data. Who finds an
 * entry reads the target's own map before using it (`composed.ts`).
 *
 * Each domain has an index of its own: what one holds is never found by another.
 */

import { FIRST_LINEAR, IntervalMap, NONE } from '../base/intervalmap.ts';
import { PLAIN } from '../extents/extentmap.ts';

/** What a compressed extent of btrfs decodes to at most: BTRFS_MAX_UNCOMPRESSED, 128 KiB. */
const MAX_DECODED_BYTES = 131_072;

interface Domain {
  readonly plain: IntervalMap;
  readonly encoded: IntervalMap;
}

export class ExtentIndex {
  /** Set by `find`: how many blocks from the one that was asked for have the answer in common. */
  blocks = 0;
  readonly #blockBytes: number;
  readonly #slots: number;
  readonly #domains = new Map<number, Domain>();
  #domain: Domain;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
    this.#slots = MAX_DECODED_BYTES / blockBytes;
    this.#domain = this.#make(0);
  }

  /** Everything until the next call is asked and said of this domain. */
  use(domain: number): void {
    this.#domain = this.#domains.get(domain) ?? this.#make(domain);
  }

  #make(domain: number): Domain {
    const made = { plain: new IntervalMap(), encoded: new IntervalMap() };
    this.#domains.set(domain, made);
    return made;
  }

  get rows(): number {
    let sum = 0;
    for (const { plain, encoded } of this.#domains.values()) sum += plain.rows + encoded.rows;
    return sum;
  }

  get heldBytes(): number {
    let sum = 0;
    for (const { plain, encoded } of this.#domains.values()) sum += plain.heldBytes + encoded.heldBytes;
    return sum;
  }

  /** The position of the target that holds the block of this identity, or NONE; `blocks` says for how many it holds. */
  find(address: number, slice: number, limit: number): number {
    const map = slice === PLAIN ? this.#domain.plain : this.#domain.encoded;
    const key = this.#key(address, slice);
    const found = map.find(key);
    this.blocks = Math.min(limit, map.end - key);
    return found >= FIRST_LINEAR ? found : NONE;
  }

  /** Says that `blocks` blocks from this identity on are held at `position`, or, with NONE, that they aren't held. */
  set(address: number, slice: number, blocks: number, position: number): void {
    const key = this.#key(address, slice);
    (slice === PLAIN ? this.#domain.plain : this.#domain.encoded).set(key, key + blocks, position);
  }

  /** Forgets all that is held at the positions from..to (exclusive). Looks at every row. */
  dropTargets(from: number, to: number): void {
    for (const { plain, encoded } of this.#domains.values()) {
      plain.dropTargets(from, to);
      encoded.dropTargets(from, to);
    }
  }

  /** Each compressed extent has room for all that it may decode to. */
  #key(address: number, slice: number): number {
    const block = address / this.#blockBytes;
    return slice === PLAIN ? block : block * this.#slots + slice / this.#blockBytes;
  }
}
