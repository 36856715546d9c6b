/** Files of a fake kernel whose extents are of all kinds, at random, and what is known of each block of them. */

import fc from 'fast-check';
import { FIEMAP_EXTENT_UNWRITTEN } from '../../src/extents/fiemap.ts';
import { BTRFS_FILE_EXTENT_PREALLOC } from '../../src/extents/treesearch.ts';
import { compressed, ENCODED, extent, item, SHARED } from './fakefile.ts';
import type { FakeExtent, FakeItem } from './support.ts';

interface Piece {
  readonly gap: number;
  readonly length: number;
  readonly address: number;
  readonly into: number;
  readonly kind: 'plain' | 'encoded' | 'unwritten';
  readonly shared: boolean;
}

export interface RandomFile {
  readonly extents: readonly FakeExtent[];
  readonly items: readonly FakeItem[];
  /** What each block of the file is, in order; nothing for those that read as zeros. */
  readonly expected: ReadonlyMap<number, string>;
  readonly expectedShared: ReadonlySet<number>;
  readonly blocks: number;
}

const piece: fc.Arbitrary<Piece> = fc.record({
  gap: fc.integer({ min: 0, max: 2 }),
  length: fc.integer({ min: 1, max: 4 }),
  address: fc.integer({ min: 1, max: 1000 }),
  into: fc.integer({ min: 0, max: 40 }),
  kind: fc.constantFrom('plain', 'encoded', 'unwritten'),
  shared: fc.boolean(),
});

/** The pieces come again and again, so that files of many extents shrink well. */
export const randomFile: fc.Arbitrary<RandomFile> = fc
  .tuple(fc.array(piece, { maxLength: 40 }), fc.integer({ min: 1, max: 60 }))
  .map(([pieces, repeat]) => layOut(pieces, repeat));

function layOut(pieces: readonly Piece[], repeat: number): RandomFile {
  const extents: FakeExtent[] = [];
  const items: FakeItem[] = [];
  const expected = new Map<number, string>();
  const expectedShared = new Set<number>();
  let at = 0;
  for (let round = 0; round < repeat; round++) {
    for (const { gap, length, address, into, kind, shared } of pieces) {
      at += gap;
      const flags = shared ? SHARED : 0;
      if (kind === 'plain') {
        extents.push(extent(at, length, address + into, flags));
        items.push(item(at, length, address, into));
      } else if (kind === 'encoded') {
        extents.push(extent(at, length, address, flags | ENCODED));
        items.push(compressed(at, length, address, into));
      } else {
        extents.push(extent(at, length, address + into, flags | FIEMAP_EXTENT_UNWRITTEN));
        items.push(item(at, length, address, into, { type: BTRFS_FILE_EXTENT_PREALLOC }));
      }
      for (let i = 0; i < length && kind !== 'unwritten'; i++) {
        expected.set(at + i, kind === 'plain' ? `plain ${address + into + i}` : `${address} slice ${into + i}`);
        if (shared) expectedShared.add(at + i);
      }
      at += length;
    }
  }
  return { extents, items, expected, expectedShared, blocks: at };
}
