import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ExtentCalls } from '../../src/extents/calls.ts';
import { PLAIN } from '../../src/extents/extentmap.ts';
import { FS_IOC_FIEMAP, fiemap } from '../../src/extents/fiemap.ts';
import { EXTENT_READER_MEMORY_BYTES, ExtentReader } from '../../src/extents/identify.ts';
import { searchArgs } from '../../src/extents/treesearch.ts';
import { BLOCK, ENCODED, identified, options, readerOver, SHARED } from './fakefile.ts';
import { randomFile } from './randomfile.ts';
import { fakeMemory, putExtent, putItem, rowsOf } from './support.ts';

test('random files are identified through any number of pages exactly as they were laid out', () => {
  fc.assert(
    fc.property(randomFile, ({ extents, items, expected, expectedShared, blocks: fileBlocks }) => {
      const { reader } = readerOver(extents, items);
      const size = Math.max(1, fileBlocks) * BLOCK;
      const found = identified(reader.identify(3, options({ size, limit: 10_000 })));
      const blocks = new Map<number, string>();
      for (const [offset, length, address, slice] of rowsOf(found.map)) {
        for (let i = 0; i < length / BLOCK; i++) {
          const identity =
            slice === PLAIN ? `plain ${address / BLOCK + i}` : `${address / BLOCK} slice ${slice / BLOCK + i}`;
          blocks.set(offset / BLOCK + i, identity);
        }
      }
      assert.deepEqual([...blocks], [...expected]);
      assert.equal(found.anyShared, expectedShared.size > 0);
      assert.equal(found.allShared, expected.size > 0 && expectedShared.size === expected.size);
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
    fc.property(answers, fc.boolean(), (pages, stopAtUnshared) => {
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
      const found = reader.identify(3, options({ size, limit: 30, stopAtUnshared }));
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
