/** Compressed extents of a real btrfs, where FIEMAP isn't enough to tell files apart. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { ExtentMap } from '../../src/extents/extentmap.ts';
import { FIEMAP_EXTENT_ENCODED, FIEMAP_EXTENT_LAST, FiemapCursor } from '../../src/extents/fiemap.ts';
import { ExtentItemCursor } from '../../src/extents/treesearch.ts';
import * as libc from '../../src/sys/libc.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import { makeSubvolume, reflink } from '../support/posix.ts';
import {
  BLOCK,
  cloneRange,
  compressibleBlocks,
  punch,
  resize,
  sameBytes,
  withFileForWriting,
  writeAt,
} from './files.ts';
import { identifyFile, KIB, reader, realMemory, rowsOf, withFile } from './support.ts';

let filesystem: LoopFilesystem;
before(() => {
  filesystem = makeLoopFilesystem('btrfs-zstd');
});
after(() => filesystem.dispose());

const path = (name: string): string => join(filesystem.dir, name);

/** btrfs compresses at most this much at once. */
const EXTENT = 128 * KIB;

function mapOf(name: string, family: 'btrfs' | 'xfs' = 'btrfs', where = path): ExtentMap {
  const found = identifyFile(where(name), family);
  if (found.map === null) throw new Error(`${name} refused: ${found.reason} ${found.errno}`);
  return found.map;
}

const fiemapCursor = new FiemapCursor(libc, realMemory());

/** What somebody would compare who has FIEMAP only: every field of every extent. */
function fiemapOf(name: string): string[] {
  return withFile(path(name), (fd, size) => {
    fiemapCursor.start(fd, { end: size, sync: true, limit: 10_000 });
    const extents: string[] = [];
    while (fiemapCursor.next()) {
      const { logical, length, physical, flags } = fiemapCursor;
      extents.push(`${logical} ${length} ${physical} ${flags.toString(16)}`);
    }
    assert.equal(fiemapCursor.error, 0);
    return extents;
  });
}

test('two slices of one compressed extent have one FIEMAP, other bytes, and different maps', () => {
  writeAt(path('pool'), 0, compressibleBlocks(32));
  cloneRange(path('pool'), 0, 64 * KIB, path('first half'), 0);
  cloneRange(path('pool'), 64 * KIB, 64 * KIB, path('second half'), 0);
  assert.ok(!sameBytes(path('first half'), path('second half')));
  assert.deepEqual(fiemapOf('first half'), fiemapOf('second half'));
  const first = mapOf('first half');
  const second = mapOf('second half');
  assert.ok(!first.equals(second));
  assert.notEqual(first.hash(), second.hash());
  const address = first.address(0);
  assert.deepEqual(rowsOf(first), [[0, 64 * KIB, address, 0]]);
  assert.deepEqual(rowsOf(second), [[0, 64 * KIB, address, 64 * KIB]]);
});

test('one slice that was cloned in pieces, in any order, has the map of the same slice cloned at once', () => {
  writeAt(path('whole'), 0, compressibleBlocks(64));
  cloneRange(path('whole'), 16 * KIB, 192 * KIB, path('at once'), 0);
  for (const into of [128, 0, 64]) {
    cloneRange(path('whole'), (16 + into) * KIB, 64 * KIB, path('in pieces'), into * KIB);
  }
  assert.ok(sameBytes(path('at once'), path('in pieces')));
  assert.ok(mapOf('at once').equals(mapOf('in pieces')));
  assert.equal(mapOf('at once').count, 2);
});

test('a file of compressed, plain, preallocated and missing parts has the map of its clone', () => {
  writeAt(path('mixed'), 0, compressibleBlocks(64));
  writeAt(path('mixed'), 64 * BLOCK, randomBytes(16 * BLOCK));
  writeAt(path('mixed'), 100 * BLOCK, compressibleBlocks(32));
  punch(path('mixed'), 8 * BLOCK, 2 * BLOCK);
  writeAt(path('mixed'), 70 * BLOCK, compressibleBlocks(1));
  reflink(path('mixed'), path('mixed clone'));
  const map = mapOf('mixed');
  assert.ok(map.equals(mapOf('mixed clone')));
  assert.equal(map.dataBytes, (64 + 16 + 32 - 2) * BLOCK);
  const kinds = new Set(rowsOf(map).map(([, , , slice]) => (slice < 0 ? 'plain' : slice === 0 ? 'start' : 'inside')));
  assert.deepEqual([...kinds].sort(), ['inside', 'plain', 'start']);
});

test('a compressed extent that was overwritten in the middle keeps its slices around the new part', () => {
  writeAt(path('before'), 0, compressibleBlocks(32));
  reflink(path('before'), path('after'));
  const [original] = rowsOf(mapOf('before'));
  assert.ok(original !== undefined);
  writeAt(path('after'), 10 * BLOCK, compressibleBlocks(4));
  const rows = rowsOf(mapOf('after'));
  assert.deepEqual(
    rows.filter(([, , address]) => address === original[2]),
    [
      [0, 10 * BLOCK, original[2], 0],
      [14 * BLOCK, 18 * BLOCK, original[2], 14 * BLOCK],
    ],
  );
});

test('extents that FIEMAP joins though they are compressed apart are two rows', () => {
  // On disk: 4 KiB that decode to 128, 124 KiB of something else, and 4 KiB again that decode to 128. The second begins
  // 128 KiB behind the first, so FIEMAP takes it for the first one's continuation.
  const fresh = makeLoopFilesystem('btrfs-zstd');
  try {
    const own = (name: string): string => join(fresh.dir, name);
    const zeros = Buffer.alloc(EXTENT, 'z');
    writeAt(own('one'), 0, zeros);
    writeAt(own('filler'), 0, randomBytes(EXTENT - 4 * KIB));
    writeAt(own('two'), 0, Buffer.alloc(EXTENT, 'y'));
    const at = (name: string): number => mapOf(name, 'btrfs', own).address(0);
    assert.equal(at('two') - at('one'), EXTENT, 'the allocator put the files side by side');
    cloneRange(own('one'), 0, EXTENT, own('both'), 0);
    cloneRange(own('two'), 0, EXTENT, own('both'), EXTENT);
    withFile(own('both'), (fd, size) => {
      fiemapCursor.start(fd, { end: size, sync: true, limit: 10 });
      assert.ok(fiemapCursor.next());
      assert.equal(fiemapCursor.length, 2 * EXTENT);
      assert.ok(fiemapCursor.flags & FIEMAP_EXTENT_ENCODED && fiemapCursor.flags & FIEMAP_EXTENT_LAST);
    });
    assert.deepEqual(rowsOf(mapOf('both', 'btrfs', own)), [
      [0, EXTENT, at('one'), 0],
      [EXTENT, EXTENT, at('two'), 0],
    ]);
  } finally {
    fresh.dispose();
  }
});

test('files with one inode number in two subvolumes are found in their own trees', () => {
  for (const subvolume of ['left', 'right']) {
    makeSubvolume(path(subvolume));
    writeAt(path(`${subvolume}/file`), 0, compressibleBlocks(32));
  }
  const inodeOf = (name: string): number => withFile(path(name), (_fd, _size, inode) => inode);
  assert.equal(inodeOf('left/file'), inodeOf('right/file'));
  const [left, right] = [mapOf('left/file'), mapOf('right/file')];
  assert.notEqual(left.address(0), right.address(0));
  reflink(path('left/file'), path('right/clone'));
  assert.ok(left.equals(mapOf('right/clone')));
});

test('an item tells the compression and both lengths of its extent', () => {
  const cursor = new ExtentItemCursor(libc, realMemory());
  writeAt(path('here'), 0, compressibleBlocks(32));
  withFile(path('here'), (fd, size, inode) => {
    cursor.start(fd, inode, size, 100);
    assert.ok(cursor.next());
    assert.equal(cursor.length, EXTENT);
    assert.equal(cursor.compression, 3, 'BTRFS_COMPRESS_ZSTD');
    assert.ok(cursor.diskNumBytes < EXTENT && cursor.diskBytenr > 0);
    assert.equal(cursor.next(), false);
    assert.equal(cursor.error, 0);
  });
});

test('a wrong inode number is found out, since FIEMAP has data and the tree none', () => {
  writeAt(path('there'), 0, compressibleBlocks(32));
  withFile(path('there'), (fd, size) => {
    const found = reader.identify(fd, { filesystem: 'btrfs', size, inode: 1_000_000, sync: true, limit: 100 });
    assert.equal(found.map === null && found.reason, 'inconsistent');
  });
});

/** A generator of numbers that is the same in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const kind of ['btrfs-zstd', 'btrfs', 'xfs'] satisfies FilesystemKind[]) {
  test(`files made of random clones have equal maps exactly when they have equal bytes, on ${kind}`, () => {
    const own = makeLoopFilesystem(kind);
    try {
      const family = kind === 'xfs' ? 'xfs' : 'btrfs';
      const where = (name: string): string => join(own.dir, name);
      const next = numbers(20_26);
      // No block of the pool is like another, so equal bytes come from equal blocks or from holes.
      const poolBlocks = 96;
      const fileBlocks = 24;
      writeAt(where('pool'), 0, Buffer.concat([compressibleBlocks(64), randomBytes(32 * BLOCK)]));
      const names = Array.from({ length: 80 }, (_, i) => `${i}`);
      for (const [i, name] of names.entries()) {
        // Every third file is one of the earlier ones, cut into other pieces, so that many pairs are equal.
        const template = i % 3 === 2 ? names[next(i)] : undefined;
        if (template === undefined) {
          withFileForWriting(where(name), () => {});
          resize(where(name), fileBlocks * BLOCK);
          for (let piece = 0; piece < 4; piece++) {
            const length = 1 + next(8);
            const from = 8 * next(poolBlocks / 8 - 1);
            cloneRange(where('pool'), from * BLOCK, length * BLOCK, where(name), 4 * next(4) * BLOCK);
          }
          if (next(2) === 0) punch(where(name), next(fileBlocks) * BLOCK, BLOCK);
        } else {
          withFileForWriting(where(name), () => {});
          resize(where(name), fileBlocks * BLOCK);
          for (let at = 0; at < fileBlocks; ) {
            const length = Math.min(1 + next(6), fileBlocks - at);
            cloneRange(where(template), at * BLOCK, length * BLOCK, where(name), at * BLOCK);
            at += length;
          }
        }
      }
      const maps = names.map((name) => mapOf(name, family, where));
      const contents = names.map((name) => readFileSync(where(name)));
      let equalPairs = 0;
      for (const [i, map] of maps.entries()) {
        for (const [j, other] of maps.entries()) {
          if (j <= i) continue;
          const sameContent = contents[i]?.equals(contents[j] ?? Buffer.alloc(0)) ?? false;
          if (sameContent) equalPairs++;
          assert.equal(map.equals(other), sameContent, `${i} and ${j}`);
          assert.equal(map.hash() === other.hash(), sameContent, `the hashes of ${i} and ${j}`);
        }
      }
      assert.ok(equalPairs >= 26, `${equalPairs} pairs of equal files`);
    } finally {
      own.dispose();
    }
  });
}
