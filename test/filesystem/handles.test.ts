/** Handles and the inode numbers that the mount shows. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { foldInode } from '../../src/filesystem/handles.ts';

const inode = fc.integer({ min: 256, max: 2 ** 40 - 1 });
const subvolume = fc.integer({ min: 5, max: 2 ** 23 - 1 });

function shown(ino: number, subvol: number, own: number): bigint {
  const { low, high } = foldInode(ino, subvol, own);
  return (BigInt(high) << 32n) | BigInt(low);
}

test("the source's own subvolume keeps its inode numbers", () => {
  fc.assert(fc.property(inode, subvolume, (ino, own) => assert.equal(shown(ino, own, own), BigInt(ino))));
});

test('two inodes of any two subvolumes have different numbers', () => {
  fc.assert(
    fc.property(inode, subvolume, inode, subvolume, subvolume, (a, aSubvolume, b, bSubvolume, own) => {
      fc.pre(a !== b || aSubvolume !== bSubvolume);
      assert.notEqual(shown(a, aSubvolume, own), shown(b, bSubvolume, own));
    }),
  );
});

test('numbers too large to be folded are marked by the highest bit and stay what they are', () => {
  const large = shown(2 ** 45, 300, 5);
  assert.equal(large >> 63n, 1n);
  assert.equal(large, shown(2 ** 45, 300, 5));
  assert.notEqual(large, shown(2 ** 45, 301, 5));
});
