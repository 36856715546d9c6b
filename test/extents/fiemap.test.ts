import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EIO } from '../../src/base/errno.ts';
import type { Memory } from '../../src/base/memory.ts';
import { type ExtentCalls, INCONSISTENT, TOO_MANY_EXTENTS } from '../../src/extents/calls.ts';
import { FIEMAP_FLAG_SYNC, FiemapCursor, fiemap, fiemapExtent } from '../../src/extents/fiemap.ts';
import { type FakeExtent, FakeKernel, fakeMemory, putExtent } from './support.ts';

/** Memory for `room` extents. */
const memoryFor = (room: number): Memory => fakeMemory(fiemap.structBytes + room * fiemapExtent.structBytes);

function walk(cursor: FiemapCursor): FakeExtent[] {
  const extents: FakeExtent[] = [];
  while (cursor.next()) {
    extents.push({ logical: cursor.logical, length: cursor.length, physical: cursor.physical, flags: cursor.flags });
  }
  return extents;
}

const extentList = (count: number): FakeExtent[] =>
  Array.from({ length: count }, (_, i) => ({ logical: i * 8192, length: 4096, physical: i * 4096, flags: 0x2000 }));

test('all extents are read in order, however few fit the memory', () => {
  for (const room of [1, 2, 7, 64, 1000]) {
    for (const count of [0, 1, 2, 6, 7, 8, 64, 200]) {
      const memory = memoryFor(room);
      const cursor = new FiemapCursor(new FakeKernel(memory, extentList(count)), memory);
      cursor.start(3, { end: 2 ** 40, sync: false, limit: 1000 });
      const found = walk(cursor);
      assert.equal(cursor.error, 0);
      assert.deepEqual(
        found.map((extent) => extent.logical),
        extentList(count).map((extent) => extent.logical),
      );
    }
  }
});

test('dirty pages are written back once, at the start', () => {
  const memory = memoryFor(4);
  const kernel = new FakeKernel(memory, extentList(10));
  const cursor = new FiemapCursor(kernel, memory);
  cursor.start(3, { end: 2 ** 40, sync: true, limit: 1000 });
  walk(cursor);
  assert.deepEqual(kernel.fiemapFlags, [FIEMAP_FLAG_SYNC, 0, 0]);
});

test('a walk that asks for little room at first asks for more each time', () => {
  const memory = memoryFor(100);
  const kernel = new FakeKernel(memory, extentList(150));
  const cursor = new FiemapCursor(kernel, memory);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 1000, room: 2 });
  assert.equal(walk(cursor).length, 150);
  assert.deepEqual(kernel.fiemapRooms, [2, 8, 32, 100, 100]);
});

test('extents from the given end on are neither reported nor asked for', () => {
  const memory = memoryFor(2);
  const kernel = new FakeKernel(memory, extentList(100));
  const cursor = new FiemapCursor(kernel, memory);
  cursor.start(3, { end: 3 * 8192 + 1, sync: false, limit: 1000 });
  assert.equal(walk(cursor).length, 4);
  assert.equal(kernel.fiemapCalls, 2);
});

test('an empty range costs no call', () => {
  const memory = memoryFor(2);
  const kernel = new FakeKernel(memory, extentList(1));
  const cursor = new FiemapCursor(kernel, memory);
  cursor.start(3, { end: 0, sync: true, limit: 1000 });
  assert.deepEqual(walk(cursor), []);
  assert.equal(kernel.fiemapCalls, 0);
});

test('as many extents as the limit are read, and one more is too many', () => {
  const memory = memoryFor(4);
  const cursor = new FiemapCursor(new FakeKernel(memory, extentList(10)), memory);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 10 });
  assert.equal(walk(cursor).length, 10);
  assert.equal(cursor.error, 0);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 9 });
  assert.equal(walk(cursor).length, 9);
  assert.equal(cursor.error, TOO_MANY_EXTENTS);
});

test('an errno ends the walk, and the cursor can be used again', () => {
  const memory = memoryFor(4);
  const kernel = new FakeKernel(memory, extentList(10));
  let failing = true;
  const calls: ExtentCalls = { ioctl: (fd, request) => (failing ? -EIO : kernel.ioctl(fd, request)) };
  const cursor = new FiemapCursor(calls, memory);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 100 });
  assert.equal(cursor.next(), false);
  assert.equal(cursor.error, -EIO);
  assert.equal(cursor.next(), false);
  failing = false;
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 100 });
  assert.equal(walk(cursor).length, 10);
  assert.equal(cursor.error, 0);
});

const impossible: readonly (readonly [string, readonly FakeExtent[]])[] = [
  ['an empty extent', [{ logical: 0, length: 0, physical: 0, flags: 0 }]],
  [
    'extents that overlap',
    [
      { logical: 0, length: 8192, physical: 0, flags: 0 },
      { logical: 4096, length: 8192, physical: 0, flags: 0 },
    ],
  ],
  [
    'extents that go backwards',
    [
      { logical: 8192, length: 4096, physical: 0, flags: 0 },
      { logical: 0, length: 4096, physical: 0, flags: 0 },
    ],
  ],
  ['an extent that wraps around in the file', [{ logical: 4096, length: 2n ** 64n - 4096n, physical: 0, flags: 0 }]],
  ['an extent that wraps around on the device', [{ logical: 0, length: 4096, physical: 2n ** 64n - 1n, flags: 0 }]],
  ['an address that is no exact number', [{ logical: 0, length: 4096, physical: 2n ** 53n, flags: 0 }]],
];

for (const [what, extents] of impossible) {
  test(`${what} is an inconsistent answer`, () => {
    const memory = memoryFor(4);
    const calls: ExtentCalls = {
      ioctl() {
        for (const [index, extent] of extents.entries()) putExtent(memory.view, index, extent);
        fiemap.fm_mapped_extents.set(memory.view, 0, extents.length);
        return 0;
      },
    };
    const cursor = new FiemapCursor(calls, memory);
    cursor.start(3, { end: 2 ** 40, sync: false, limit: 100 });
    walk(cursor);
    assert.equal(cursor.error, INCONSISTENT);
  });
}

test('an answer with more extents than there is room for is inconsistent from its first extent on', () => {
  const memory = memoryFor(4);
  const calls: ExtentCalls = {
    ioctl() {
      for (const [index, extent] of extentList(4).entries()) putExtent(memory.view, index, extent);
      fiemap.fm_mapped_extents.set(memory.view, 0, 5);
      return 0;
    },
  };
  const cursor = new FiemapCursor(calls, memory);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 100 });
  assert.equal(cursor.next(), false);
  assert.equal(cursor.error, INCONSISTENT);
});

test('what is reported beyond the end that was asked for is left out, be it possible or not', () => {
  const memory = memoryFor(4);
  const calls: ExtentCalls = {
    ioctl() {
      putExtent(memory.view, 0, { logical: 0, length: 4096, physical: 4096, flags: 0 });
      putExtent(memory.view, 1, { logical: 8192, length: 0, physical: 2n ** 64n - 1n, flags: 0 });
      fiemap.fm_mapped_extents.set(memory.view, 0, 2);
      return 0;
    },
  };
  const cursor = new FiemapCursor(calls, memory);
  cursor.start(3, { end: 8192, sync: false, limit: 100 });
  assert.equal(walk(cursor).length, 1);
  assert.equal(cursor.error, 0);
});

test('a kernel that gives the same full answer for ever is left after the second', () => {
  const memory = memoryFor(2);
  let calls = 0;
  const kernel: ExtentCalls = {
    ioctl() {
      calls++;
      for (const index of [0, 1])
        putExtent(memory.view, index, { logical: index * 4096, length: 4096, physical: 0, flags: 0 });
      fiemap.fm_mapped_extents.set(memory.view, 0, 2);
      return 0;
    },
  };
  const cursor = new FiemapCursor(kernel, memory);
  cursor.start(3, { end: 2 ** 40, sync: false, limit: 100 });
  assert.equal(walk(cursor).length, 2);
  assert.equal(cursor.error, INCONSISTENT);
  assert.equal(calls, 2);
});

test('whatever the kernel answers, a walk ends, and what it reports is in order', () => {
  const u64 = fc.oneof(fc.bigInt({ min: 0n, max: 40n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
  const extent = fc.record({ logical: u64, length: u64, physical: u64, flags: fc.nat() });
  const page = fc.record({
    extents: fc.array(extent, { maxLength: 5 }),
    mapped: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.nat()),
    result: fc.oneof(
      { arbitrary: fc.constant(0), weight: 9 },
      { arbitrary: fc.integer({ min: -200, max: 5 }), weight: 1 },
    ),
  });
  fc.assert(
    fc.property(fc.array(page, { minLength: 1, maxLength: 6 }), (pages) => {
      const memory = memoryFor(4);
      let calls = 0;
      const kernel: ExtentCalls = {
        ioctl() {
          const answer = pages[calls++ % pages.length];
          if (answer === undefined) throw new Error('no page');
          for (const [index, one] of answer.extents.entries()) putExtent(memory.view, index, one);
          fiemap.fm_mapped_extents.set(memory.view, 0, answer.mapped);
          return answer.result;
        },
      };
      const cursor = new FiemapCursor(kernel, memory);
      cursor.start(3, { end: 2 ** 53 - 1, sync: false, limit: 20 });
      let end = 0;
      for (const one of walk(cursor)) {
        assert.ok(Number(one.logical) >= end && Number(one.length) > 0);
        end = Number(one.logical) + Number(one.length);
        assert.ok(Number.isSafeInteger(end) && Number.isSafeInteger(Number(one.physical) + Number(one.length)));
      }
      assert.ok(calls <= 21);
    }),
    { numRuns: 3000 },
  );
});
