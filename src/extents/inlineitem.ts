/**
 * What a small file of btrfs is made of that lies in its subvolume's tree: its one item there, byte for byte. It has no address, so
 * that it can't be told whether two such files share anything on disk; but equal items are equal files: the item has the data, how
 * long it is and how it is encoded. It has also the transaction that wrote it, which snapshots and reflinks keep
 * (clone_copy_inline_extent in fs/btrfs/reflink.c copies whole items): files that were written at different times differ.
 */

export class InlineItem {
  /** How many bytes the file has. */
  readonly size: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #hash = -1;

  /** Keeps a copy of the item. */
  constructor(size: number, item: Uint8Array) {
    this.size = size;
    this.#bytes = Uint8Array.from(item);
  }

  equals(other: InlineItem): boolean {
    const [mine, theirs] = [this.#bytes, other.#bytes];
    if (this.size !== other.size || mine.length !== theirs.length) return false;
    for (let i = 0; i < mine.length; i++) if (mine[i] !== theirs[i]) return false;
    return true;
  }

  /** An integer below 2^32 that equal items share, on every machine and in every process: FNV-1a, stirred once more. */
  hash(): number {
    if (this.#hash < 0) this.#hash = hashOf(this.#bytes);
    return this.#hash;
  }
}

function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0xc2b2ae35);
  return (hash ^ (hash >>> 13)) >>> 0;
}
