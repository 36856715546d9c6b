/** Facts of real filesystems that the meaning of maps rests on: when maps are equal, when not, and what SHARED says. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ExtentMap } from '../../src/extents/extentmap.ts';
import type { IdentifyOptions, Identity } from '../../src/extents/identify.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import { copyFileRange, makeSubvolume, reflink, snapshot } from '../support/posix.ts';
import {
  BLOCK,
  cloneRange,
  compressibleBlocks,
  dedupe,
  dirtyAt,
  preallocate,
  punch,
  resize,
  sameBytes,
  syncFilesystem,
  withFileForWriting,
  writeAt,
} from './files.ts';
import { identifyFile, MIB, reader, rowsOf, withFile } from './support.ts';

const kinds: readonly FilesystemKind[] = ['btrfs', 'btrfs-zstd', 'btrfs-raid1', 'btrfs-nodatacow', 'xfs', 'xfs-1k'];

/** Not a whole number of blocks, and more than one compressed extent. */
const SIZE = 1_000_003;

for (const kind of kinds) {
  describe(kind, () => {
    const family = kind.startsWith('btrfs') ? 'btrfs' : 'xfs';
    let filesystem: LoopFilesystem;
    let count = 0;
    /** A folder for each test. */
    let dir = '';

    before(() => {
      filesystem = makeLoopFilesystem(kind);
    });
    after(() => filesystem.dispose());

    const path = (name: string): string => join(dir, name);

    function inFolder(name: string, body: () => void): void {
      test(name, () => {
        dir = join(filesystem.dir, `${count++}`);
        mkdirSync(dir);
        body();
      });
    }

    function identity(name: string, options: Partial<IdentifyOptions> = {}): Identity {
      const found = identifyFile(path(name), family, options);
      if (found.map === null) throw new Error(`${name} refused: ${found.reason} ${found.errno}`);
      return found;
    }

    const mapOf = (name: string): ExtentMap => identity(name).map;

    function reason(name: string, options: Partial<IdentifyOptions> = {}): string | null {
      const found = identifyFile(path(name), family, options);
      return found.map === null ? found.reason : null;
    }

    function assertEqualMaps(one: string, other: string): void {
      const a = mapOf(one);
      const b = mapOf(other);
      assert.ok(a.count > 0);
      assert.deepEqual(rowsOf(a), rowsOf(b));
      assert.ok(a.equals(b));
      assert.equal(a.hash(), b.hash());
    }

    function assertDifferentMaps(one: string, other: string): void {
      const a = mapOf(one);
      const b = mapOf(other);
      assert.ok(!a.equals(b));
      assert.notEqual(a.hash(), b.hash());
    }

    inFolder('a clone has the map of its original, and both are shared', () => {
      writeAt(path('a'), 0, compressibleBlocks(300).subarray(0, SIZE));
      assert.equal(identity('a').allShared, false);
      assert.equal(identity('a').anyShared, false);
      reflink(path('a'), path('b'));
      assertEqualMaps('a', 'b');
      assert.equal(mapOf('a').dataBytes, SIZE);
      for (const name of ['a', 'b']) {
        assert.equal(identity(name).allShared, true);
        assert.equal(identity(name).anyShared, true);
      }
      assert.equal(identity('a').encoded, kind === 'btrfs-zstd');
    });

    if (family === 'btrfs') {
      inFolder('a snapshot has the maps of its subvolume, until one of the two is written', () => {
        makeSubvolume(path('one'));
        writeAt(path('one/file'), 0, compressibleBlocks(300).subarray(0, SIZE));
        snapshot(path('one'), path('two'));
        snapshot(path('two'), path('three'), { readOnly: true });
        assertEqualMaps('one/file', 'two/file');
        assertEqualMaps('one/file', 'three/file');
        assert.equal(identity('one/file').allShared, true);
        writeAt(path('two/file'), BLOCK, compressibleBlocks(1));
        assertDifferentMaps('one/file', 'two/file');
        assertEqualMaps('one/file', 'three/file');
      });

      inFolder('a file whose data is inline is refused', () => {
        writeAt(path('a'), 0, Buffer.from('a few bytes'));
        // Data that isn't copied on write is never put into the metadata.
        if (kind === 'btrfs-nodatacow') return assert.equal(mapOf('a').dataBytes, 11);
        assert.equal(reason('a'), 'inline');
        assert.equal(reason('a', { stopAtUnshared: true }), 'inline');
        withFile(path('a'), (fd, size) => assert.equal(reader.firstExtentShared(fd, size), 0));
      });
    }

    inFolder('equal bytes that were written twice have different maps, and equal ones after a dedupe', () => {
      const bytes = compressibleBlocks(300).subarray(0, SIZE);
      writeAt(path('a'), 0, bytes);
      writeAt(path('b'), 0, bytes);
      assertDifferentMaps('a', 'b');
      dedupe(path('a'), path('b'), SIZE);
      assertEqualMaps('a', 'b');
      assert.equal(identity('b').allShared, true);
    });

    inFolder('copy_file_range to the same offset makes equal maps', () => {
      writeAt(path('a'), 0, compressibleBlocks(256));
      withFile(path('a'), (from) =>
        withFileForWriting(path('b'), (to) => assert.equal(copyFileRange(from, 0, to, 0, MIB), MIB)),
      );
      assertEqualMaps('a', 'b');
    });

    inFolder('a clone at another offset has another map', () => {
      writeAt(path('a'), 0, compressibleBlocks(64));
      cloneRange(path('a'), 0, 32 * BLOCK, path('b'), 0);
      cloneRange(path('a'), 0, 32 * BLOCK, path('c'), 32 * BLOCK);
      assertDifferentMaps('b', 'c');
    });

    inFolder('a page that is dirty over a shared extent is found when synced, and only then', () => {
      writeAt(path('a'), 0, compressibleBlocks(64));
      reflink(path('a'), path('b'));
      const before = mapOf('a');
      dirtyAt(path('b'), 3 * BLOCK, compressibleBlocks(1));
      // This is why there is `sync`: what is on disk is still what the clone shares.
      assert.ok(identity('b', { sync: false }).map.equals(before));
      const synced = identity('b');
      assert.ok(!synced.map.equals(before));
      assert.equal(synced.allShared, false);
      assert.equal(synced.anyShared, true);
      assert.ok(mapOf('a').equals(before));
    });

    inFolder('new data that was never written back is refused, and has a map once synced', () => {
      dirtyAt(path('a'), 0, compressibleBlocks(64));
      assert.equal(reason('a', { sync: false }), 'delalloc');
      assert.equal(mapOf('a').dataBytes, 64 * BLOCK);
    });

    inFolder('a dirty page behind a thousand clean extents is found when synced', () => {
      const bytes = compressibleBlocks(1);
      withFileForWriting(path('a'), (fd) => {
        for (let i = 0; i < 1000; i++) writeSync(fd, bytes, 0, BLOCK, i * 3 * BLOCK);
      });
      identity('a');
      reflink(path('a'), path('b'));
      dirtyAt(path('b'), 999 * 3 * BLOCK, bytes);
      assertDifferentMaps('a', 'b');
    });

    inFolder('SHARED goes away with the last other owner', () => {
      writeAt(path('a'), 0, compressibleBlocks(64));
      reflink(path('a'), path('b'));
      reflink(path('a'), path('c'));
      rmSync(path('b'));
      syncFilesystem(dir);
      assert.equal(identity('a').allShared, true);
      withFile(path('a'), (fd, size) => {
        assert.equal(reader.anyUnshared(fd, 1000), 0);
        assert.equal(reader.firstExtentShared(fd, size), 1);
      });
      rmSync(path('c'));
      syncFilesystem(dir);
      // XFS gives up what a deleted file held a moment later, in the background.
      waitFor(() => !identity('a').anyShared);
      withFile(path('a'), (fd, size) => {
        assert.equal(reader.anyUnshared(fd, 1000), 1);
        assert.equal(reader.firstExtentShared(fd, size), 0);
      });
      assert.equal(reason('a', { stopAtUnshared: true }), 'unshared');
    });

    inFolder('blocks that were shared with the file itself count as shared', () => {
      writeAt(path('a'), 0, compressibleBlocks(64));
      cloneRange(path('a'), 0, 64 * BLOCK, path('a'), 64 * BLOCK);
      assert.equal(identity('a').allShared, true);
    });

    inFolder('a written part is private, the rest stays shared with the same addresses', () => {
      writeAt(path('a'), 0, compressibleBlocks(96));
      reflink(path('a'), path('b'));
      const original = blocksOf(mapOf('a'));
      writeAt(path('b'), 40 * BLOCK, compressibleBlocks(2));
      const found = identity('b');
      assert.deepEqual([found.allShared, found.anyShared], [false, true]);
      const now = blocksOf(found.map);
      const changed = [...original.keys()].filter((block) => original.get(block) !== now.get(block));
      assert.deepEqual(changed, [40, 41]);
      withFile(path('b'), (fd) => assert.equal(reader.anyUnshared(fd, 1000), 1));
    });

    inFolder('holes and preallocated blocks read as zeros and are not told apart', () => {
      writeAt(path('a'), 0, compressibleBlocks(32));
      writeAt(path('a'), 96 * BLOCK, compressibleBlocks(32));
      reflink(path('a'), path('b'));
      preallocate(path('b'), 32 * BLOCK, 64 * BLOCK);
      assertEqualMaps('a', 'b');
      assert.equal(identity('b').allShared, true);
      assert.ok(sameBytes(path('a'), path('b')));
      assert.equal(mapOf('a').dataBytes, 64 * BLOCK);
    });

    inFolder('preallocated blocks that were written to are data', () => {
      writeAt(path('a'), 0, compressibleBlocks(32));
      preallocate(path('a'), 32 * BLOCK, 64 * BLOCK);
      resize(path('a'), 96 * BLOCK);
      reflink(path('a'), path('b'));
      assertEqualMaps('a', 'b');
      dirtyAt(path('a'), 50 * BLOCK, compressibleBlocks(1));
      assertDifferentMaps('a', 'b');
      assert.equal(mapOf('a').dataBytes, 33 * BLOCK);
    });

    inFolder('a punched hole makes a map unequal', () => {
      writeAt(path('a'), 0, compressibleBlocks(96));
      reflink(path('a'), path('b'));
      punch(path('b'), 40 * BLOCK, 2 * BLOCK);
      assertDifferentMaps('a', 'b');
      assert.equal(mapOf('b').dataBytes, 94 * BLOCK);
      assert.equal(identity('b').allShared, true);
    });

    inFolder('blocks that are allocated beyond the end of the file change nothing', () => {
      // The file ends with a block: btrfs writes a last block that isn't full anew when it preallocates behind it.
      writeAt(path('a'), 0, compressibleBlocks(256));
      reflink(path('a'), path('b'));
      preallocate(path('b'), 0, 4 * MIB);
      assertEqualMaps('a', 'b');
      assert.equal(identity('b').allShared, true);
    });

    inFolder('a file that was cut in its last block has that block with the new length', () => {
      writeAt(path('a'), 0, compressibleBlocks(64));
      reflink(path('a'), path('b'));
      resize(path('b'), 62 * BLOCK);
      resize(path('a'), 62 * BLOCK);
      assertEqualMaps('a', 'b');
      assert.equal(mapOf('a').dataBytes, 62 * BLOCK);
    });

    inFolder('an empty file and a file of nothing but a hole have the empty map', () => {
      writeFileSync(path('empty'), '');
      writeFileSync(path('hole'), '');
      resize(path('hole'), 10 * MIB);
      for (const name of ['empty', 'hole']) {
        assert.equal(mapOf(name).count, 0);
        assert.equal(identity(name).allShared, false);
      }
    });

    inFolder('a file of thousands of extents is read whole, and its limit is kept', () => {
      const extents = 5000;
      const bytes = randomBytes(BLOCK);
      withFileForWriting(path('a'), (fd) => {
        for (let i = 0; i < extents; i++) writeSync(fd, bytes, 0, BLOCK, i * 2 * BLOCK);
      });
      identity('a');
      reflink(path('a'), path('b'));
      assertEqualMaps('a', 'b');
      assert.equal(mapOf('a').dataBytes, extents * BLOCK);
      assert.ok(mapOf('a').count > 4660, 'more than the reader takes from one call');
      assert.equal(reason('a', { limit: 4000 }), 'too-many-extents');
    });
  });
}

/** Asks again every 10 ms, for 5 s at most. */
function waitFor(condition: () => boolean): void {
  for (let attempt = 0; attempt < 500; attempt++) {
    if (condition()) return;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
  assert.fail('waited 5 s in vain');
}

/** What each block of the file is, by its number. */
function blocksOf(map: ExtentMap): Map<number, string> {
  const blocks = new Map<number, string>();
  for (const [offset, length, address, slice] of rowsOf(map)) {
    for (let into = 0; into < length; into += BLOCK) {
      const identity = slice < 0 ? `${address + into}` : `${address} slice ${slice + into}`;
      blocks.set((offset + into) / BLOCK, identity);
    }
  }
  return blocks;
}
