/** Declared structures: layout, checks, and numbers at their limits. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addExact, copyWords, getExact, getI64, getU64, setExact, setU64, struct } from '../../src/base/struct.ts';

const pair = struct('pair', 16, [
  ['low', 'u32'],
  ['flag', 'u16'],
  ['byte', 'u8'],
  ['_pad', 'u8'],
  ['high', 'i64'],
]);

test('fields lie where a C compiler would put them', () => {
  assert.deepEqual([pair.low.offset, pair.flag.offset, pair.byte.offset, pair.high.offset], [0, 4, 6, 8]);
  const view = new DataView(new ArrayBuffer(32));
  pair.low.set(view, 8, 0x01020304);
  pair.high.set(view, 8, -2);
  assert.deepEqual([...new Uint8Array(view.buffer, 8, 4)], [4, 3, 2, 1]);
  assert.equal(view.getBigInt64(16, true), -2n);
  assert.equal(pair.high.get(view, 8), -2);
});

test('a declaration that does not add up is refused', () => {
  assert.throws(() => struct('short', 8, [['a', 'u32']]), /take 4 bytes/);
  assert.throws(
    () =>
      struct('crooked', 12, [
        ['a', 'u32'],
        ['b', 'u64'],
      ]),
    /misaligned/,
  );
});

test('every integer that a number holds exactly survives 64 bits', () => {
  const view = new DataView(new ArrayBuffer(8));
  fc.assert(
    fc.property(fc.maxSafeInteger(), (value) => {
      setU64(view, 0, value);
      assert.equal(view.getBigInt64(0, true), BigInt(value));
      assert.equal(getI64(view, 0), value);
      if (value >= 0) assert.equal(getU64(view, 0), value);
    }),
  );
});

test('every 64 bits pass through exactly, and sums with what a request holds are exact', () => {
  const [from, to] = [new DataView(new ArrayBuffer(8)), new DataView(new ArrayBuffer(8))];
  const edges = fc.constantFrom(
    0n,
    -1n,
    2n ** 52n - 1n,
    2n ** 52n,
    2n ** 53n,
    2n ** 53n + 1n,
    2n ** 63n - 1n,
    -(2n ** 63n),
  );
  fc.assert(
    fc.property(fc.oneof(edges, fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)), fc.nat(1 << 20), (value, bytes) => {
      from.setBigInt64(0, value, true);
      const exact = getExact(from, 0);
      assert.equal(BigInt(exact), value);
      assert.equal(BigInt(addExact(exact, bytes)), value + BigInt(bytes));
      setExact(to, 0, exact);
      assert.equal(to.getBigInt64(0, true), value);
      to.setBigInt64(0, 0n, true);
      copyWords(to, 0, from, 0);
      assert.equal(to.getBigInt64(0, true), value);
    }),
  );
});
