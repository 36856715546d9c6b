/** The test of Mann and Whitney, against values that can be told without it. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compare } from '../../bench/ranks.ts';

const samples = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 30 });

test('the area under the curve is the share of pairs whose first value is larger, ties counting half', () => {
  fc.assert(
    fc.property(samples, samples, (first, second) => {
      let larger = 0;
      for (const a of first) for (const b of second) larger += a > b ? 1 : a === b ? 0.5 : 0;
      const { auc, low, high, p } = compare(first, second);
      assert.ok(Math.abs(auc - larger / (first.length * second.length)) < 1e-9);
      assert.ok(low <= auc + 1e-9 && high >= auc - 1e-9 && low >= 0 && high <= 1 && p >= 0 && p <= 1);
      const reversed = compare(second, first);
      assert.ok(Math.abs(auc + reversed.auc - 1) < 1e-9 && Math.abs(p - reversed.p) < 1e-9);
    }),
  );
});

test('samples that lie apart are told apart, equal ones are not', () => {
  const numbers = Array.from({ length: 100 }, (_, i) => i);
  const apart = compare(
    numbers.map((n) => n + 1000),
    numbers,
  );
  assert.ok(apart.auc === 1 && apart.p < 1e-10);
  const equal = compare(numbers, numbers);
  assert.ok(equal.auc === 0.5 && equal.p > 0.99 && equal.low < 0.45 && equal.high > 0.55);
});

test('a p-value is that of the tables', () => {
  // Of 400 pairs 264 have the larger value in the second sample: z = 0.16 / sqrt(41 / 4800) = 1.732.
  const first = Array.from({ length: 20 }, (_, i) => i);
  const { auc, p } = compare(
    first.map((n) => n + 3.65),
    first,
  );
  assert.equal(auc, 0.66);
  assert.ok(Math.abs(p - 0.0833) < 0.0005, `${p}`);
});
