import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExtentMap, ExtentMapBuilder, PLAIN } from '../../src/extents/extentmap.ts';
import { type Row, rowsOf } from './support.ts';

const BLOCK = 4096;

function mapOf(rows: readonly Row[]): ExtentMap {
  const builder = new ExtentMapBuilder();
  for (const row of rows) assert.ok(builder.append(...row), `refused: ${row.join(', ')}`);
  return builder.finish();
}

/** A block of a file: nothing, a block at an address, or a block of what an encoded extent decodes to. */
type Block = null | { readonly extent: number; readonly index: number; readonly encoded: boolean };

/** Few extents of few blocks, so that blocks often continue one another and files often are equal. */
const block: fc.Arbitrary<Block> = fc.oneof(
  { arbitrary: fc.constant(null), weight: 1 },
  {
    arbitrary: fc.record({
      extent: fc.integer({ min: 1, max: 3 }),
      index: fc.integer({ min: 0, max: 7 }),
      encoded: fc.boolean(),
    }),
    weight: 2,
  },
);

/** Runs of consecutive blocks, as real files have. */
const run: fc.Arbitrary<Block[]> = fc
  .tuple(block, fc.integer({ min: 1, max: 6 }))
  .map(([first, length]) =>
    Array.from({ length }, (_, i) => (first === null ? null : { ...first, index: first.index + i })),
  );

const file: fc.Arbitrary<Block[]> = fc.array(run, { maxLength: 8 }).map((runs) => runs.flat());

/** The rows of a file that is cut before each block whose cut is true, and wherever one block doesn't continue another. */
function rowsWithCuts(blocks: readonly Block[], cuts: readonly boolean[]): Row[] {
  const rows: [number, number, number, number][] = [];
  let previous: Block = null;
  for (const [i, current] of blocks.entries()) {
    const continues =
      current !== null &&
      previous !== null &&
      previous.extent === current.extent &&
      previous.encoded === current.encoded &&
      previous.index + 1 === current.index;
    const last = rows.at(-1);
    if (current !== null && continues && last !== undefined && !cuts[i]) {
      last[1] += BLOCK;
    } else if (current !== null) {
      const start = current.extent * 1024 * BLOCK;
      const into = current.index * BLOCK;
      rows.push([i * BLOCK, BLOCK, current.encoded ? start : start + into, current.encoded ? into : PLAIN]);
    }
    previous = current;
  }
  return rows;
}

const cutsOf = fc.array(fc.boolean(), { minLength: 48, maxLength: 48 });

test('the same blocks, cut in two ways, have equal maps and equal hashes', () => {
  fc.assert(
    fc.property(file, cutsOf, cutsOf, (blocks, cutsA, cutsB) => {
      const a = mapOf(rowsWithCuts(blocks, cutsA));
      const b = mapOf(rowsWithCuts(blocks, cutsB));
      assert.ok(a.equals(b) && b.equals(a));
      assert.equal(a.hash(), b.hash());
      assert.deepEqual(rowsOf(a), rowsOf(b));
      assert.equal(a.dataBytes, blocks.filter((one) => one !== null).length * BLOCK);
    }),
    { numRuns: 2000 },
  );
});

test('a change of one block, in its address, its encoding or its slice, makes maps unequal', () => {
  fc.assert(
    fc.property(file, fc.nat(), block, cutsOf, (blocks, where, other, cuts) => {
      fc.pre(blocks.length > 0);
      const at = where % blocks.length;
      fc.pre(JSON.stringify(blocks[at]) !== JSON.stringify(other));
      const a = mapOf(rowsWithCuts(blocks, cuts));
      const b = mapOf(rowsWithCuts(blocks.with(at, other), cuts));
      assert.ok(!a.equals(b) && !b.equals(a));
      assert.notEqual(a.hash(), b.hash());
    }),
    { numRuns: 5000 },
  );
});

test('two maps are equal exactly when every block is the same', () => {
  fc.assert(
    fc.property(file, file, cutsOf, cutsOf, (one, other, cutsA, cutsB) => {
      const length = Math.max(one.length, other.length);
      const padded = (blocks: readonly Block[]) => Array.from({ length }, (_, i) => blocks[i] ?? null);
      const same = JSON.stringify(padded(one)) === JSON.stringify(padded(other));
      assert.equal(mapOf(rowsWithCuts(one, cutsA)).equals(mapOf(rowsWithCuts(other, cutsB))), same);
    }),
    { numRuns: 5000 },
  );
});

test('a builder keeps its invariants whatever is appended, and never throws', () => {
  const number = fc.oneof(
    fc.integer({ min: -2, max: 20 }),
    fc.double(),
    fc.constantFrom(2 ** 53 - 1, 2 ** 53, 2 ** 64, -0, 0.5),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(number, number, number, number), { maxLength: 30 }), (rows) => {
      const builder = new ExtentMapBuilder();
      let bytes = 0;
      for (const row of rows) if (builder.append(...row)) bytes += row[1];
      const map = builder.finish();
      assert.equal(map.dataBytes, bytes);
      let end = 0;
      let last: Row | null = null;
      for (const row of rowsOf(map)) {
        const [offset, length, address, slice] = row;
        assert.ok(row.every((value) => Number.isSafeInteger(value) && !Object.is(value, -0)));
        assert.ok(offset >= end && length > 0 && address >= 0 && slice >= PLAIN);
        if (last !== null && offset === end) {
          const continued =
            slice === PLAIN
              ? last[3] === PLAIN && last[2] + last[1] === address
              : last[3] !== PLAIN && last[2] === address && last[3] + last[1] === slice;
          assert.ok(!continued, 'two rows should be one');
        }
        end = offset + length;
        last = row;
      }
    }),
    { numRuns: 3000 },
  );
});

test('slices of different encoded extents are never merged, even where addresses go on', () => {
  const map = mapOf([
    [0, BLOCK, 10 * BLOCK, 0],
    [BLOCK, BLOCK, 11 * BLOCK, BLOCK],
  ]);
  assert.equal(map.count, 2);
});

test('an encoded row never continues a plain one, even where its numbers go on', () => {
  const map = mapOf([
    [0, BLOCK, 10 * BLOCK, PLAIN],
    [BLOCK, BLOCK, 10 * BLOCK, PLAIN + BLOCK],
  ]);
  assert.equal(map.count, 2);
});

test('a plain row at an address differs from the first slice of an encoded extent there', () => {
  const plain = mapOf([[0, BLOCK, 10 * BLOCK, PLAIN]]);
  const encoded = mapOf([[0, BLOCK, 10 * BLOCK, 0]]);
  assert.ok(!plain.equals(encoded));
  assert.notEqual(plain.hash(), encoded.hash());
});

test('a builder starts anew after finish, and a finished map stays as it was', () => {
  const builder = new ExtentMapBuilder();
  builder.append(0, BLOCK, BLOCK);
  const first = builder.finish();
  builder.append(0, 2 * BLOCK, 7 * BLOCK);
  const second = builder.finish();
  assert.deepEqual(rowsOf(first), [[0, BLOCK, BLOCK, PLAIN]]);
  assert.deepEqual(rowsOf(second), [[0, 2 * BLOCK, 7 * BLOCK, PLAIN]]);
  assert.equal(builder.finish().count, 0);
});

test('hashes of 200,000 similar maps are spread evenly and collide nowhere', () => {
  const seen = new Set<number>();
  const buckets = new Uint32Array(64);
  for (let i = 0; i < 200_000; i++) {
    const rows = new Float64Array([
      0,
      BLOCK,
      BLOCK * (1 + (i >> 4)),
      PLAIN,
      BLOCK * (2 + (i & 15)),
      BLOCK,
      BLOCK,
      PLAIN,
    ]);
    const hash = new ExtentMap(rows, 2 * BLOCK).hash();
    assert.ok(Number.isSafeInteger(hash) && hash >= 0);
    seen.add(hash);
    buckets[hash % 64] = (buckets[hash % 64] ?? 0) + 1;
  }
  assert.equal(seen.size, 200_000);
  // The mean is 3125 with a deviation of 56; six deviations are no accident.
  for (const count of buckets) assert.ok(Math.abs(count - 3125) < 6 * 56, `a bucket has ${count}`);
});

test('a map of 100,000 rows takes 32 bytes for each', () => {
  const builder = new ExtentMapBuilder();
  for (let i = 0; i < 100_000; i++) builder.append(2 * i * BLOCK, BLOCK, i * 3 * BLOCK);
  const map = builder.finish();
  assert.equal(map.count, 100_000);
  assert.equal(map.heldBytes, 3_200_000);
});
