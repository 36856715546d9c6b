/** Ranges of files: on a fake kernel for every window of random files, and on real filesystems beside whole maps. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { INCONSISTENT } from '../../src/extents/calls.ts';
import { PLAIN } from '../../src/extents/extentmap.ts';
import { FIEMAP_EXTENT_SHARED, FIEMAP_EXTENT_UNWRITTEN, FiemapCursor } from '../../src/extents/fiemap.ts';
import { PRIVATE, RANGE_READER_MEMORY_BYTES, type RangeOptions, RangeReader } from '../../src/extents/ranges.ts';
import * as libc from '../../src/sys/libc.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import { reflink } from '../support/posix.ts';
import { BLOCK, ENCODED, extent, SHARED } from './fakefile.ts';
import { cloneRange, compressibleBlocks, preallocate, punch, writeAt } from './files.ts';
import { randomFile } from './randomfile.ts';
import { FAKE_INODE, FakeKernel, fakeMemory, identifyFile, realMemory, rowsOf, withFile } from './support.ts';

const seed = 1;

interface Window {
  readonly filesystem: 'btrfs' | 'xfs';
  readonly inode: number;
  readonly from: number;
  readonly to: number;
  readonly limit: number;
  readonly any: boolean;
}

/** Reads a range part by part, and names each block of it: nothing for zeros. */
function blocksOf(reader: RangeReader, fd: number, window: Window): Map<number, string> {
  const blocks = new Map<number, string>();
  const options = (from: number): RangeOptions => ({ ...window, from, sync: false });
  for (let from = window.from; from < window.to; from = reader.end) {
    assert.equal(reader.read(fd, options(from)), 0);
    assert.ok(reader.end > from && reader.end <= window.to);
    let at = from;
    for (let row = 0; row < reader.count; row++) {
      assert.ok(reader.offset(row) >= at && reader.length(row) > 0);
      at = reader.offset(row) + reader.length(row);
      assert.ok(at <= reader.end);
      for (let into = 0; into < reader.length(row); into += BLOCK) {
        const name = nameOf(reader.address(row), reader.slice(row), into);
        blocks.set((reader.offset(row) + into) / BLOCK, name);
      }
    }
  }
  return blocks;
}

function nameOf(address: number, slice: number, into: number): string {
  if (address === PRIVATE) return 'private';
  return slice === PLAIN ? `plain ${(address + into) / BLOCK}` : `${address / BLOCK} slice ${(slice + into) / BLOCK}`;
}

test('every window of a random file says of each block what it is, however few extents are read at a time', () => {
  const windows = fc.array(
    fc.record({
      from: fc.nat(400),
      blocks: fc.integer({ min: 1, max: 400 }),
      limit: fc.integer({ min: 1, max: 70 }),
      any: fc.boolean(),
    }),
    { minLength: 1, maxLength: 6 },
  );
  fc.assert(
    fc.property(randomFile, windows, (file, looks) => {
      const memory = fakeMemory(RANGE_READER_MEMORY_BYTES);
      const reader = new RangeReader(new FakeKernel(memory, file.extents, file.items), memory);
      for (const { from, blocks, limit, any } of looks) {
        const to = (from + blocks) * BLOCK;
        const window = { filesystem: 'btrfs', inode: FAKE_INODE, from: from * BLOCK, to, limit, any } as const;
        const wanted = new Map<number, string>();
        for (const [block, name] of file.expected) {
          if (block < from || block >= from + blocks) continue;
          wanted.set(block, any || file.expectedShared.has(block) ? name : 'private');
        }
        assert.deepEqual([...blocksOf(reader, 3, window)], [...wanted]);
      }
    }),
    { seed, numRuns: 300 },
  );
});

test('whatever the kernel answers, a read ends, and its rows are in order and within the range', () => {
  const number = fc.oneof(
    fc.integer({ min: 0, max: 12 }).map((n) => BigInt(n) * 4096n),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  );
  const flags = fc.oneof(fc.constantFrom(0, SHARED, ENCODED, SHARED | ENCODED, FIEMAP_EXTENT_UNWRITTEN), fc.nat());
  const extents = fc.array(fc.record({ logical: number, length: number, physical: number, flags }), { maxLength: 5 });
  const items = fc.array(
    fc.record({
      offset: number,
      type: fc.integer({ min: 0, max: 2 }),
      compression: fc.integer({ min: 0, max: 1 }),
      diskBytenr: number,
      diskNumBytes: number,
      offsetInExtent: number,
      numBytes: number,
    }),
    { maxLength: 5 },
  );
  fc.assert(
    fc.property(extents, items, fc.boolean(), fc.boolean(), fc.nat(8), (reported, found, any, btrfs, from) => {
      const memory = fakeMemory(RANGE_READER_MEMORY_BYTES);
      const reader = new RangeReader(new FakeKernel(memory, reported, found), memory);
      const filesystem = btrfs ? 'btrfs' : 'xfs';
      const range = { from: from * BLOCK, to: 16 * BLOCK, limit: 3, sync: false, any };
      const result = reader.read(3, { filesystem, inode: FAKE_INODE, ...range });
      if (result !== 0) {
        assert.equal(reader.count, 0);
        assert.equal(reader.end, range.from);
        return;
      }
      assert.ok(reader.end > range.from && reader.end <= range.to);
      let end = range.from;
      for (let row = 0; row < reader.count; row++) {
        assert.ok(reader.offset(row) >= end && reader.length(row) > 0);
        end = reader.offset(row) + reader.length(row);
        assert.ok(end <= reader.end);
        assert.ok(reader.address(row) >= 0 || reader.address(row) === PRIVATE);
      }
    }),
    { seed, numRuns: 3000 },
  );
});

test('encoded extents on a filesystem without a tree to search are an inconsistent answer', () => {
  const memory = fakeMemory(RANGE_READER_MEMORY_BYTES);
  const reader = new RangeReader(new FakeKernel(memory, [extent(0, 4, 9, SHARED | ENCODED)]), memory);
  const range = { from: 0, to: 4 * BLOCK, limit: 3, sync: false, any: false };
  assert.equal(reader.read(3, { filesystem: 'xfs', inode: 1, ...range }), INCONSISTENT);
});

const kinds: readonly FilesystemKind[] = ['btrfs', 'btrfs-zstd', 'xfs', 'xfs-1k'];

for (const kind of kinds) {
  describe(kind, () => {
    const family = kind.startsWith('btrfs') ? 'btrfs' : 'xfs';
    let filesystem: LoopFilesystem;
    before(() => {
      filesystem = makeLoopFilesystem(kind);
    });
    after(() => filesystem.dispose());

    test('ranges of a file with shared and private parts, holes and preallocation agree with its whole map', () => {
      const path = (name: string): string => join(filesystem.dir, name);
      const blocks = 400;
      writeAt(path('other'), 0, compressibleBlocks(blocks));
      writeAt(path('file'), 0, Buffer.concat([compressibleBlocks(blocks / 2), randomBytes((blocks / 2) * BLOCK)]));
      reflink(path('file'), path('clone'));
      cloneRange(path('other'), 37 * BLOCK, 61 * BLOCK, path('file'), 13 * BLOCK);
      cloneRange(path('other'), 200 * BLOCK, 5 * BLOCK, path('file'), 300 * BLOCK);
      punch(path('file'), 90 * BLOCK, 22 * BLOCK);
      for (let at = 3; at < blocks; at += 29) writeAt(path('file'), at * BLOCK, compressibleBlocks(1 + (at % 3)));
      preallocate(path('file'), 95 * BLOCK, 4 * BLOCK);
      const identity = identifyFile(path('file'), family);
      if (identity.map === null) throw new Error(`refused: ${identity.reason}`);
      const whole = new Map<number, string>();
      for (const [offset, length, address, slice] of rowsOf(identity.map)) {
        for (let into = 0; into < length; into += BLOCK) {
          whole.set((offset + into) / BLOCK, nameOf(address, slice, into));
        }
      }
      withFile(path('file'), (fd, size, inode) => {
        const shared = sharedBlocks(fd, size);
        const reader = new RangeReader(libc, realMemory());
        for (const [from, to, limit] of [
          [0, blocks, 1000],
          [0, blocks, 1],
          [14, 15, 4],
          [15, 380, 7],
          [91, 99, 3],
          [50, 310, 64],
        ] as const) {
          for (const any of [false, true]) {
            const window = { filesystem: family, inode, from: from * BLOCK, to: to * BLOCK, limit, any } as const;
            const wanted = [...whole]
              .filter(([block]) => block >= from && block < to)
              .map(([block, name]) => [block, any || shared.has(block) ? name : 'private']);
            assert.deepEqual([...blocksOf(reader, fd, window)], wanted, `${from} to ${to}, ${limit} at a time, ${any}`);
          }
        }
      });
    });
  });
}

/** The blocks that FIEMAP says are shared. */
function sharedBlocks(fd: number, size: number): Set<number> {
  const cursor = new FiemapCursor(libc, realMemory());
  const shared = new Set<number>();
  cursor.start(fd, { end: size, sync: false, limit: 10_000 });
  while (cursor.next()) {
    if ((cursor.flags & FIEMAP_EXTENT_SHARED) === 0) continue;
    for (let at = cursor.logical; at < cursor.logical + cursor.length; at += BLOCK) shared.add(at / BLOCK);
  }
  assert.equal(cursor.error, 0);
  return shared;
}
