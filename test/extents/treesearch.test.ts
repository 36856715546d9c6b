import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EPERM } from '../../src/base/errno.ts';
import { type ExtentCalls, INCONSISTENT, TOO_MANY_EXTENTS } from '../../src/extents/calls.ts';
import {
  BTRFS_FILE_EXTENT_INLINE,
  BTRFS_FILE_EXTENT_PREALLOC,
  BTRFS_FILE_EXTENT_REG,
  ExtentItemCursor,
  searchArgs,
  searchHeader,
  TREE_SEARCH_MEMORY_BYTES,
} from '../../src/extents/treesearch.ts';
import { FAKE_INODE, type FakeItem, FakeKernel, fakeMemory, putItem } from './support.ts';

function walk(cursor: ExtentItemCursor): FakeItem[] {
  const items: FakeItem[] = [];
  while (cursor.next()) {
    items.push({
      offset: cursor.offset,
      type: cursor.type,
      compression: cursor.compression,
      encryption: cursor.encryption,
      otherEncoding: cursor.otherEncoding,
      diskBytenr: cursor.diskBytenr,
      diskNumBytes: cursor.diskNumBytes,
      offsetInExtent: cursor.offsetInExtent,
      numBytes: cursor.length,
    });
  }
  return items;
}

/** One item of each kind, with values that show a mistaken field. */
const items: readonly FakeItem[] = [
  {
    offset: 0,
    type: BTRFS_FILE_EXTENT_REG,
    compression: 3,
    encryption: 0,
    otherEncoding: 0,
    diskBytenr: 0x12_3456_7000,
    diskNumBytes: 4096,
    offsetInExtent: 0x1_3000,
    numBytes: 0x1_1000,
  },
  {
    offset: 0x1_1000,
    type: BTRFS_FILE_EXTENT_PREALLOC,
    compression: 0,
    encryption: 1,
    otherEncoding: 0x203,
    diskBytenr: 0x9876_5000,
    diskNumBytes: 0x8_0000,
    offsetInExtent: 0x2000,
    numBytes: 0x4000,
  },
];

const inline: FakeItem = {
  offset: 0,
  type: BTRFS_FILE_EXTENT_INLINE,
  compression: 1,
  encryption: 0,
  otherEncoding: 0,
  diskBytenr: 0,
  diskNumBytes: 0,
  offsetInExtent: 0,
  numBytes: 1234,
};

function regular(offset: number, changes: Partial<FakeItem> = {}): FakeItem {
  return {
    offset,
    type: BTRFS_FILE_EXTENT_REG,
    diskBytenr: 0x10_0000 + offset,
    diskNumBytes: 4096,
    offsetInExtent: 0,
    numBytes: 4096,
    ...changes,
  };
}

function cursorOver(list: readonly FakeItem[]): { cursor: ExtentItemCursor; kernel: FakeKernel } {
  const memory = fakeMemory(TREE_SEARCH_MEMORY_BYTES);
  const kernel = new FakeKernel(memory, [], list);
  return { cursor: new ExtentItemCursor(kernel, memory), kernel };
}

test('every field of an item is read from its place', () => {
  const { cursor } = cursorOver(items);
  cursor.start(3, FAKE_INODE, 2 ** 40, 100);
  assert.deepEqual(walk(cursor), items);
  assert.equal(cursor.error, 0);
});

test('an inline item has the length of its data', () => {
  const { cursor } = cursorOver([inline]);
  cursor.start(3, FAKE_INODE, 2 ** 40, 100);
  assert.deepEqual(walk(cursor), [inline]);
});

test('a file with more items than the memory holds is read in several searches', () => {
  const { cursor, kernel } = cursorOver(Array.from({ length: 3000 }, (_, i) => regular(i * 4096)));
  cursor.start(3, FAKE_INODE, 3000 * 4096, 3000);
  assert.equal(walk(cursor).length, 3000);
  assert.equal(cursor.error, 0);
  // 771 items of 85 bytes fit 64 KiB; where the last one ends the file ends, so nothing is asked behind it.
  assert.equal(kernel.searchCalls, 4);
  cursor.start(3, FAKE_INODE, 3000 * 4096, 2999);
  walk(cursor);
  assert.equal(cursor.error, TOO_MANY_EXTENTS);
});

test('items from the given end on are not reported', () => {
  const { cursor } = cursorOver([regular(0), regular(4096), regular(8192)]);
  cursor.start(3, FAKE_INODE, 8192, 100);
  assert.equal(walk(cursor).length, 2);
  assert.equal(cursor.error, 0);
});

test('an errno ends the walk', () => {
  const cursor = new ExtentItemCursor({ ioctl: () => -EPERM }, fakeMemory(TREE_SEARCH_MEMORY_BYTES));
  cursor.start(3, FAKE_INODE, 8192, 100);
  assert.equal(cursor.next(), false);
  assert.equal(cursor.error, -EPERM);
});

const impossible: readonly (readonly [string, readonly FakeItem[]])[] = [
  ['an empty extent', [regular(0, { numBytes: 0 })]],
  ['an unknown type', [regular(0, { type: 3 })]],
  ['extents that overlap', [regular(0, { numBytes: 8192, diskNumBytes: 8192 }), regular(4096)]],
  ['a key that comes twice', [regular(0), regular(0)]],
  ['a plain extent that reaches beyond what is on disk', [regular(0, { offsetInExtent: 4096 })]],
  ['an address that wraps around', [regular(0, { diskBytenr: 2n ** 64n - 4096n })]],
  ['a length that wraps around', [regular(4096, { numBytes: 2n ** 64n - 4096n, diskBytenr: 0 })]],
  ['a slice that is no exact number', [regular(0, { offsetInExtent: 2n ** 63n, compression: 1 })]],
];

for (const [what, list] of impossible) {
  test(`${what} is an inconsistent answer`, () => {
    const { cursor } = cursorOver(list);
    cursor.start(3, FAKE_INODE, 2 ** 40, 100);
    walk(cursor);
    assert.equal(cursor.error, INCONSISTENT);
  });
}

test('an item that begins at the end that was asked for is an inconsistent answer', () => {
  const memory = fakeMemory(TREE_SEARCH_MEMORY_BYTES);
  const calls: ExtentCalls = {
    ioctl() {
      putItem(memory.view, searchArgs.structBytes, regular(8192));
      searchArgs.nr_items.set(memory.view, 0, 1);
      return 0;
    },
  };
  const cursor = new ExtentItemCursor(calls, memory);
  cursor.start(3, FAKE_INODE, 8192, 100);
  assert.equal(cursor.next(), false);
  assert.equal(cursor.error, INCONSISTENT);
});

test('items of another file, of another type, cut off or too many are inconsistent answers', () => {
  const memory = fakeMemory(TREE_SEARCH_MEMORY_BYTES);
  const spoil: readonly (readonly [string, () => void])[] = [
    ['another file', () => searchHeader.objectid.set(memory.view, searchArgs.structBytes, FAKE_INODE + 1)],
    ['another type', () => searchHeader.type.set(memory.view, searchArgs.structBytes, 1)],
    ['cut off', () => searchHeader.len.set(memory.view, searchArgs.structBytes, 52)],
    ['longer than the buffer', () => searchHeader.len.set(memory.view, searchArgs.structBytes, 0xffff_ffff)],
    ['more than there are', () => searchArgs.nr_items.set(memory.view, 0, 0xffff_ffff)],
  ];
  for (const [what, change] of spoil) {
    const kernel = new FakeKernel(memory, [], [regular(0)]);
    const calls: ExtentCalls = {
      ioctl(fd, request) {
        memory.bytes.fill(0, searchArgs.structBytes);
        const result = kernel.ioctl(fd, request);
        change();
        return result;
      },
    };
    const cursor = new ExtentItemCursor(calls, memory);
    cursor.start(3, FAKE_INODE, 2 ** 40, 100);
    walk(cursor);
    assert.equal(cursor.error, INCONSISTENT, what);
  }
});

test('whatever the kernel answers, a walk ends, and what it reports is in order', () => {
  const u64 = fc.oneof(
    fc.bigInt({ min: 0n, max: 40n }),
    fc.bigInt({ min: 0n, max: 10n }).map((n) => n * 4096n),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  );
  const item = fc.record({
    offset: u64,
    type: fc.integer({ min: 0, max: 3 }),
    compression: fc.integer({ min: 0, max: 2 }),
    diskBytenr: u64,
    diskNumBytes: u64,
    offsetInExtent: u64,
    numBytes: u64,
  });
  const page = fc.record({
    items: fc.array(item, { maxLength: 5 }),
    count: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.nat()),
    noise: fc.array(fc.tuple(fc.nat({ max: 600 }), fc.nat({ max: 255 })), { maxLength: 2 }),
  });
  fc.assert(
    fc.property(fc.array(page, { minLength: 1, maxLength: 6 }), (pages) => {
      const memory = fakeMemory(TREE_SEARCH_MEMORY_BYTES);
      let calls = 0;
      const kernel: ExtentCalls = {
        ioctl() {
          const answer = pages[calls++ % pages.length];
          if (answer === undefined) throw new Error('no page');
          let at = searchArgs.structBytes;
          for (const one of answer.items) at = putItem(memory.view, at, one);
          for (const [offset, value] of answer.noise) memory.view.setUint8(searchArgs.structBytes + offset, value);
          searchArgs.nr_items.set(memory.view, 0, answer.count);
          return 0;
        },
      };
      const cursor = new ExtentItemCursor(kernel, memory);
      cursor.start(3, FAKE_INODE, 2 ** 53 - 1, 20);
      let end = 0;
      for (const one of walk(cursor)) {
        assert.ok(Number(one.offset) >= end && Number(one.numBytes) > 0);
        end = Number(one.offset) + Number(one.numBytes);
        assert.ok(Number.isSafeInteger(end));
      }
      assert.ok(calls <= 21);
    }),
    { numRuns: 1000 },
  );
});
