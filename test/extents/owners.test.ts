/** Whose an extent is: what the kernel may answer, and what a real btrfs answers. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { dataContainer, OWNER_BYTES, OWNERS_MEMORY_BYTES, Owners } from '../../src/extents/owners.ts';
import * as libc from '../../src/sys/libc.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import { makeSubvolume, reflink, unlink } from '../support/posix.ts';
import { BLOCK, cloneRange, compressibleBlocks, syncFilesystem, writeAt } from './files.ts';
import { fakeMemory, identifyFile, realMemory, withFile } from './support.ts';

const CONTAINER_AT = 64;

function answering(roots: readonly number[], counted: number, missed: number): Owners {
  const memory = fakeMemory(OWNERS_MEMORY_BYTES);
  const kernel = {
    ioctl(): number {
      dataContainer.elem_cnt.set(memory.view, CONTAINER_AT, counted);
      dataContainer.elem_missed.set(memory.view, CONTAINER_AT, missed);
      roots.forEach((root, i) => {
        const at = CONTAINER_AT + dataContainer.structBytes + i * OWNER_BYTES + 16;
        if (at + 8 <= memory.bytes.length) memory.view.setBigUint64(at, BigInt(root), true);
      });
      return 0;
    },
  };
  return new Owners(kernel, memory);
}

test("an extent is a subvolume's own when all its owners are told and all are of it", () => {
  assert.equal(answering([7, 7, 7], 9, 0).onlyOf(3, 0, 7), 1);
  assert.equal(answering([7, 8, 7], 9, 0).onlyOf(3, 0, 7), 0);
  assert.equal(answering([7, 7], 6, 3).onlyOf(3, 0, 7), 0);
  assert.equal(answering([], 0, 0).onlyOf(3, 0, 7), 0);
  const failing = new Owners({ ioctl: () => -2 }, fakeMemory(OWNERS_MEMORY_BYTES));
  assert.equal(failing.onlyOf(3, 0, 7), -2);
});

test('whatever the kernel counts, the answer is one of those', () => {
  const root = fc.integer({ min: 0, max: 9 });
  fc.assert(
    fc.property(fc.array(root, { maxLength: 300 }), fc.nat(0xffff_ffff), fc.nat(3), (roots, counted, missed) => {
      assert.ok([0, 1].includes(answering(roots, counted, missed).onlyOf(3, 4096, 7)));
    }),
    { seed: 1, numRuns: 500 },
  );
});

test('on btrfs, an extent of which one file has two parts is its own when the others are gone, shared as FIEMAP calls it', () => {
  const filesystem = makeLoopFilesystem('btrfs');
  try {
    const store = join(filesystem.dir, 'store');
    makeSubvolume(store);
    mkdirSync(join(filesystem.dir, 'home'));
    const original = join(filesystem.dir, 'home', 'original');
    const pack = join(store, 'pack');
    writeAt(original, 0, compressibleBlocks(64));
    cloneRange(original, 0, 10 * BLOCK, pack, 0);
    cloneRange(original, 20 * BLOCK, 30 * BLOCK, pack, 10 * BLOCK);
    reflink(original, join(store, 'clone'));
    syncFilesystem(filesystem.dir);
    const owners = new Owners(libc, realMemory());
    // The subvolume's number is its root's: the first of a new filesystem has 256.
    const onlyStore = (): number =>
      withFile(pack, (fd) => {
        const identity = identifyFile(pack, 'btrfs');
        assert.ok(identity.map !== null && identity.allShared);
        return owners.onlyOf(fd, identity.map.address(1), 256);
      });
    assert.equal(onlyStore(), 0);
    unlink(original);
    syncFilesystem(filesystem.dir);
    assert.equal(onlyStore(), 1);
    unlink(join(store, 'clone'));
    syncFilesystem(filesystem.dir);
    assert.equal(onlyStore(), 1);
  } finally {
    filesystem.dispose();
  }
});
