import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ExtentCalls } from '../../src/extents/calls.ts';
import { PLAIN } from '../../src/extents/extentmap.ts';
import { FIEMAP_EXTENT_UNWRITTEN, FS_IOC_FIEMAP, fiemap } from '../../src/extents/fiemap.ts';
import { EXTENT_READER_MEMORY_BYTES, ExtentReader } from '../../src/extents/identify.ts';
import { BTRFS_FILE_EXTENT_PREALLOC, searchArgs } from '../../src/extents/treesearch.ts';
import { BLOCK, compressed, ENCODED, extent, identified, item, options, readerOver, SHARED } from './fakefile.ts';
import { type FakeExtent, type FakeItem, fakeMemory, putExtent, putItem, rowsOf } from './support.ts';

test('random files are identified through any number of pages exactly as they were laid out', () => {
  const piece = fc.record({
    gap: fc.integer({ min: 0, max: 2 }),
    length: fc.integer({ min: 1, max: 4 }),
    address: fc.integer({ min: 1, max: 1000 }),
    into: fc.integer({ min: 0, max: 40 }),
    kind: fc.constantFrom('plain', 'encoded', 'unwritten'),
    shared: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), fc.integer({ min: 1, max: 60 }), (pieces, repeat) => {
      const extents: FakeExtent[] = [];
      const items: FakeItem[] = [];
      /** What each block of the file is, or nothing. */
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
      const { reader } = readerOver(extents, items);
      const size = Math.max(1, at) * BLOCK;
      for (const sharedOnly of [false, true]) {
        const found = identified(reader.identify(3, options({ size, limit: 10_000, sharedOnly })));
        const blocks = new Map<number, string>();
        for (const [offset, length, address, slice] of rowsOf(found.map)) {
          for (let i = 0; i < length / BLOCK; i++) {
            const identity =
              slice === PLAIN ? `plain ${address / BLOCK + i}` : `${address / BLOCK} slice ${slice / BLOCK + i}`;
            blocks.set(offset / BLOCK + i, identity);
          }
        }
        const wanted = [...expected].filter(([index]) => !sharedOnly || expectedShared.has(index));
        assert.deepEqual([...blocks], wanted);
        assert.equal(found.anyShared, expectedShared.size > 0);
        assert.equal(found.allShared, expected.size > 0 && expectedShared.size === expected.size);
      }
    }),
    { numRuns: 200 },
  );
});

test('whatever the kernel answers, identify ends, and its rows are in order', () => {
  const u64 = fc.oneof(
    fc.bigInt({ min: 0n, max: 12n }).map((n) => n * 4096n),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  );
  const flags = fc.oneof(fc.constantFrom(0, SHARED, ENCODED, SHARED | ENCODED), fc.nat());
  const anyExtent = fc.record({ logical: u64, length: u64, physical: u64, flags });
  const anyItem = fc.record({
    offset: u64,
    type: fc.integer({ min: 0, max: 2 }),
    compression: fc.integer({ min: 0, max: 1 }),
    diskBytenr: u64,
    diskNumBytes: u64,
    offsetInExtent: u64,
    numBytes: u64,
  });
  const answers = fc.array(
    fc.record({
      extents: fc.array(anyExtent, { maxLength: 4 }),
      items: fc.array(anyItem, { maxLength: 4 }),
      more: fc.nat({ max: 1 }),
    }),
    { minLength: 1, maxLength: 4 },
  );
  fc.assert(
    fc.property(answers, fc.boolean(), fc.boolean(), (pages, sharedOnly, stopAtUnshared) => {
      const memory = fakeMemory(EXTENT_READER_MEMORY_BYTES);
      let calls = 0;
      const kernel: ExtentCalls = {
        ioctl(_fd, request) {
          const page = pages[calls++ % pages.length];
          if (page === undefined) throw new Error('no page');
          if (request === FS_IOC_FIEMAP) {
            for (const [index, one] of page.extents.entries()) putExtent(memory.view, index, one);
            fiemap.fm_mapped_extents.set(memory.view, 0, page.extents.length + page.more);
          } else {
            let at = searchArgs.structBytes;
            for (const one of page.items) at = putItem(memory.view, at, one);
            searchArgs.nr_items.set(memory.view, 0, page.items.length + page.more);
          }
          return 0;
        },
      };
      const reader = new ExtentReader(kernel, memory);
      const size = Number.MAX_SAFE_INTEGER;
      const found = reader.identify(3, options({ size, limit: 30, sharedOnly, stopAtUnshared }));
      assert.ok(calls <= 62);
      if (found.map === null) return;
      let end = 0;
      for (const [offset, length, address, slice] of rowsOf(found.map)) {
        assert.ok(offset >= end && length > 0 && address >= 0 && slice >= PLAIN);
        end = offset + length;
        assert.ok(Number.isSafeInteger(end) && Number.isSafeInteger(address + length));
      }
    }),
    { numRuns: 3000 },
  );
});
