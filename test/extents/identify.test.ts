import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EFBIG, EIO, EPERM } from '../../src/base/errno.ts';
import { type ExtentCalls, INCONSISTENT } from '../../src/extents/calls.ts';
import { PLAIN } from '../../src/extents/extentmap.ts';
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DATA_TAIL,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
  fiemap,
} from '../../src/extents/fiemap.ts';
import { EXTENT_READER_MEMORY_BYTES, ExtentReader, type RefusalReason } from '../../src/extents/identify.ts';
import { BTRFS_FILE_EXTENT_PREALLOC } from '../../src/extents/treesearch.ts';
import {
  BLOCK,
  compressed,
  ENCODED,
  extent,
  identified,
  item,
  options,
  readerOver,
  reasonOf,
  SHARED,
} from './fakefile.ts';
import { FAKE_INODE, type FakeExtent, type FakeItem, fakeMemory, rowsOf } from './support.ts';

test('unwritten extents and holes have no rows, and extents that touch are one row', () => {
  const { reader } = readerOver([
    extent(0, 2, 10, SHARED),
    extent(2, 2, 12, SHARED),
    extent(4, 4, 14, FIEMAP_EXTENT_UNWRITTEN),
    extent(9, 1, 20, SHARED | FIEMAP_EXTENT_MERGED),
  ]);
  const found = identified(reader.identify(3, options()));
  assert.deepEqual(rowsOf(found.map), [
    [0, 4 * BLOCK, 10 * BLOCK, PLAIN],
    [9 * BLOCK, BLOCK, 20 * BLOCK, PLAIN],
  ]);
  assert.equal(found.allShared, true);
  assert.equal(found.encoded, false);
});

test('the last row ends at the end of the file, and what lies beyond changes nothing', () => {
  const within = [extent(0, 2, 10, SHARED)];
  const beyond = [extent(2, 1, 12), extent(3, 5, 80, FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN)];
  const size = 2 * BLOCK - 100;
  const one = identified(readerOver(within).reader.identify(3, options({ size })));
  const other = identified(readerOver([...within, ...beyond]).reader.identify(3, options({ size })));
  assert.deepEqual(rowsOf(one.map), [[0, size, 10 * BLOCK, PLAIN]]);
  assert.ok(one.map.equals(other.map));
  assert.equal(other.allShared, true);
});

test('an encoded last row ends at the end of the file, too', () => {
  const { reader } = readerOver([extent(0, 8, 100, SHARED | ENCODED)], [compressed(0, 8, 100, 3)]);
  const size = 7 * BLOCK + 1;
  assert.deepEqual(rowsOf(identified(reader.identify(3, options({ size }))).map), [[0, size, 100 * BLOCK, 3 * BLOCK]]);
});

test('facts say which of the data is shared', () => {
  const facts = (extents: readonly FakeExtent[]) => {
    const { allShared, anyShared } = identified(readerOver(extents).reader.identify(3, options()));
    return [allShared, anyShared];
  };
  assert.deepEqual(facts([]), [false, false]);
  assert.deepEqual(facts([extent(0, 1, 1, FIEMAP_EXTENT_UNWRITTEN | SHARED)]), [false, false]);
  assert.deepEqual(facts([extent(0, 1, 1), extent(2, 1, 3)]), [false, false]);
  assert.deepEqual(facts([extent(0, 1, 1), extent(2, 1, 3, SHARED)]), [false, true]);
  assert.deepEqual(facts([extent(0, 1, 1, SHARED), extent(2, 1, 3)]), [false, true]);
  assert.deepEqual(facts([extent(0, 1, 1, SHARED), extent(2, 1, 3, SHARED)]), [true, true]);
  assert.deepEqual(facts([extent(0, 1, 1, SHARED), extent(2, 1, 3, FIEMAP_EXTENT_UNWRITTEN)]), [true, true]);
});

test('stopAtUnshared needs one call with room for few extents to turn a fragmented private file away', () => {
  const { kernel, reader } = readerOver(Array.from({ length: 500 }, (_, i) => extent(2 * i, 1, i)));
  assert.equal(reasonOf(reader.identify(3, options({ size: 1000 * BLOCK, stopAtUnshared: true }))), 'unshared');
  assert.equal(kernel.fiemapCalls, 1);
  assert.deepEqual(kernel.fiemapRooms, [2]);
});

const objections: readonly (readonly [number, RefusalReason])[] = [
  [FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED, 'inline'],
  [FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | ENCODED, 'inline'],
  [FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN, 'delalloc'],
  [FIEMAP_EXTENT_UNKNOWN, 'unknown'],
  [FIEMAP_EXTENT_DATA_ENCRYPTED | ENCODED, 'encrypted'],
  [FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_NOT_ALIGNED, 'tail'],
  [FIEMAP_EXTENT_NOT_ALIGNED, 'tail'],
  // A flag that doesn't exist yet.
  [0x4000_0000, 'unknown'],
  [0x8000_0000 - 2 ** 32, 'unknown'],
];

test('each flag that makes an address meaningless is refused under its own name', () => {
  for (const [flags, reason] of objections) {
    const { reader } = readerOver([extent(0, 1, 1, SHARED), extent(1, 1, 2, SHARED | flags)]);
    assert.equal(reasonOf(reader.identify(3, options())), reason, flags.toString(16));
  }
});

test('encoded extents of XFS, which has none, are refused', () => {
  const { reader } = readerOver([extent(0, 1, 1, ENCODED)]);
  assert.equal(reasonOf(reader.identify(3, options({ filesystem: 'xfs' }))), 'unsupported-encoding');
});

test('files on the realtime device of XFS are refused', () => {
  const { kernel, reader } = readerOver([extent(0, 1, 1, SHARED)]);
  assert.equal(reasonOf(reader.identify(3, options({ filesystem: 'xfs' }))), null);
  kernel.xflags = 1;
  assert.equal(reasonOf(reader.identify(3, options({ filesystem: 'xfs' }))), 'realtime');
});

test('a file too large for exact numbers is refused', () => {
  const { reader } = readerOver([extent(0, 1, 1, SHARED)]);
  assert.equal(reasonOf(reader.identify(3, options({ size: 2 ** 53 }))), 'unknown');
});

test('more extents than the limit are refused', () => {
  const { reader } = readerOver(Array.from({ length: 20 }, (_, i) => extent(2 * i, 1, i)));
  assert.equal(reasonOf(reader.identify(3, options({ limit: 19 }))), 'too-many-extents');
  assert.equal(reasonOf(reader.identify(3, options({ limit: 20 }))), null);
});

test('an errno is passed on', () => {
  const reader = new ExtentReader({ ioctl: () => -EPERM }, fakeMemory(EXTENT_READER_MEMORY_BYTES));
  assert.deepEqual(reader.identify(3, options()), { map: null, reason: 'errno', errno: -EPERM });
  assert.equal(reader.firstExtentShared(3, BLOCK), -EPERM);
  assert.equal(reader.anyUnshared(3, 10), -EPERM);
});

test('slices of encoded extents come from the tree, the flags from FIEMAP', () => {
  const { kernel, reader } = readerOver(
    [
      extent(0, 8, 100, SHARED | ENCODED),
      extent(8, 4, 210, SHARED),
      extent(12, 8, 100, ENCODED),
      extent(30, 2, 900, FIEMAP_EXTENT_UNWRITTEN),
    ],
    [
      compressed(0, 8, 100, 16),
      item(8, 2, 200, 10),
      item(10, 2, 200, 12),
      compressed(12, 8, 100, 0),
      item(20, 10, 0, 0),
      item(30, 2, 900, 0, { type: BTRFS_FILE_EXTENT_PREALLOC }),
    ],
  );
  const found = identified(reader.identify(3, options()));
  assert.deepEqual(rowsOf(found.map), [
    [0, 8 * BLOCK, 100 * BLOCK, 16 * BLOCK],
    [8 * BLOCK, 4 * BLOCK, 210 * BLOCK, PLAIN],
    [12 * BLOCK, 8 * BLOCK, 100 * BLOCK, 0],
  ]);
  assert.deepEqual([found.allShared, found.anyShared, found.encoded], [false, true, true]);
  assert.equal(kernel.searchCalls, 2);
});

test('encoded extents that FIEMAP joined because their numbers go on are told apart', () => {
  // 8 blocks at address 100, 8 at 108: reported as one extent of 16, though the second has nothing to do with the first.
  const { reader } = readerOver(
    [extent(0, 16, 100, SHARED | ENCODED)],
    [compressed(0, 8, 100, 0), compressed(8, 8, 108, 0)],
  );
  assert.deepEqual(rowsOf(identified(reader.identify(3, options())).map), [
    [0, 8 * BLOCK, 100 * BLOCK, 0],
    [8 * BLOCK, 8 * BLOCK, 108 * BLOCK, 0],
  ]);
});

test('the tree is not searched when nothing is encoded', () => {
  const { kernel, reader } = readerOver([extent(0, 8, 100, SHARED)]);
  identified(reader.identify(3, options()));
  assert.equal(kernel.searchCalls, 0);
});

const disagreements: readonly (readonly [string, readonly FakeExtent[], readonly FakeItem[]])[] = [
  ['the tree lacks an extent', [extent(0, 8, 100, ENCODED), extent(8, 1, 5)], [compressed(0, 8, 100, 0)]],
  ['FIEMAP lacks an extent', [extent(0, 8, 100, ENCODED)], [compressed(0, 8, 100, 0), item(8, 1, 5, 0)]],
  ['an item begins before what was reported', [extent(1, 8, 100, ENCODED)], [compressed(0, 8, 100, 0)]],
  ['an item ends behind what was reported', [extent(0, 7, 100, ENCODED)], [compressed(0, 8, 100, 0)]],
  ['an item is shorter than what was reported', [extent(0, 9, 100, ENCODED)], [compressed(0, 8, 100, 0)]],
  [
    'an item ends behind what was reported, and another is missing',
    [extent(0, 7, 100, ENCODED), extent(20, 1, 5)],
    [compressed(0, 8, 100, 0)],
  ],
  [
    'an item begins before what was reported, at the address there',
    [extent(1, 8, 100, ENCODED)],
    [compressed(0, 8, 99, 0)],
  ],
  ['another encoded address', [extent(0, 8, 101, ENCODED)], [compressed(0, 8, 100, 0)]],
  [
    'another plain address',
    [extent(0, 8, 100, ENCODED), extent(8, 1, 6)],
    [compressed(0, 8, 100, 0), item(8, 1, 5, 0)],
  ],
  [
    'plain here, encoded there',
    [extent(0, 8, 100, ENCODED), extent(8, 1, 5, ENCODED)],
    [compressed(0, 8, 100, 0), item(8, 1, 5, 0)],
  ],
  [
    'written here, preallocated there',
    [extent(0, 8, 100, ENCODED), extent(8, 1, 5)],
    [compressed(0, 8, 100, 0), item(8, 1, 5, 0, { type: BTRFS_FILE_EXTENT_PREALLOC })],
  ],
];

for (const [what, extents, items] of disagreements) {
  test(`FIEMAP and the tree disagree: ${what}`, () => {
    assert.equal(reasonOf(readerOver(extents, items).reader.identify(3, options())), 'inconsistent');
  });
}

test('items with an encryption or an encoding that is unknown here are refused', () => {
  const extents = [extent(0, 8, 100, ENCODED)];
  const with_ = (changes: Partial<FakeItem>) =>
    readerOver(extents, [{ ...compressed(0, 8, 100, 0), ...changes }]).reader.identify(3, options());
  assert.equal(reasonOf(with_({ encryption: 1 })), 'encrypted');
  assert.equal(reasonOf(with_({ otherEncoding: 1 })), 'unsupported-encoding');
  assert.equal(reasonOf(with_({ type: 0 })), 'inline');
});

test('an inline item is the whole file, or none', () => {
  const inline: FakeItem = {
    offset: 0,
    type: 0,
    diskBytenr: 0,
    diskNumBytes: 0,
    offsetInExtent: 0,
    numBytes: 10,
  };
  const found = (changes: Partial<FakeItem>, size = 10) =>
    readerOver([], [{ ...inline, ...changes }]).reader.inlineItem(3, FAKE_INODE, size);
  const item = found({});
  assert.ok(item !== null);
  assert.ok(found({})?.equals(item));
  assert.equal(found({})?.hash(), item.hash());
  const compressed = found({ compression: 1 });
  assert.ok(compressed !== null && !compressed.equals(item) && compressed.hash() !== item.hash());
  // The file is longer than its data, or shorter.
  assert.equal(found({}, 11), null);
  assert.equal(found({}, 9), null);
  assert.equal(found({ encryption: 1 }), null);
  assert.equal(found({ otherEncoding: 1 }), null);
  assert.equal(found({ type: BTRFS_FILE_EXTENT_PREALLOC }), null);
  assert.equal(readerOver([], []).reader.inlineItem(3, FAKE_INODE, 10), null);
});

test('firstExtentShared looks at the first extent with data only', () => {
  const first = (extents: readonly FakeExtent[]) => readerOver(extents).reader.firstExtentShared(3, 100 * BLOCK);
  assert.equal(first([]), 0);
  assert.equal(first([extent(0, 1, 1)]), 0);
  assert.equal(first([extent(0, 1, 1, FIEMAP_EXTENT_UNWRITTEN), extent(1, 1, 2, SHARED), extent(2, 1, 9)]), 1);
  assert.equal(first([extent(0, 1, 1), extent(1, 1, 9, SHARED)]), 0);
});

test('anyUnshared finds a private extent anywhere, preallocated ones included, and ends at its limit', () => {
  const shared = Array.from({ length: 60 }, (_, i) => extent(2 * i, 1, 3 * i, SHARED));
  const any = (extents: readonly FakeExtent[]) => readerOver(extents).reader.anyUnshared(3, 61);
  assert.equal(any([]), 0);
  assert.equal(any(shared), 0);
  assert.equal(any([...shared, extent(1000, 1, 9000)]), 1);
  assert.equal(any([...shared, extent(1000, 1, 9000, FIEMAP_EXTENT_UNWRITTEN)]), 1);
  assert.equal(any([extent(0, 1, 0, FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED)]), 0);
  assert.equal(any([...shared, extent(1000, 1, 9000, SHARED), extent(1002, 1, 9002)]), -EFBIG);
});

test('nonsense is EIO where the answer is a number', () => {
  const memory = fakeMemory(EXTENT_READER_MEMORY_BYTES);
  const calls: ExtentCalls = {
    ioctl() {
      fiemap.fm_mapped_extents.set(memory.view, 0, 0xffff_ffff);
      return 0;
    },
  };
  const reader = new ExtentReader(calls, memory);
  assert.equal(reader.anyUnshared(3, 10), -EIO);
  assert.equal(reader.firstExtentShared(3, BLOCK), -EIO);
  assert.equal(reasonOf(reader.identify(3, options())), 'inconsistent');
  assert.ok(INCONSISTENT < -4095, 'no errno means this');
});
