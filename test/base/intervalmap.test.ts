import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FIRST_LINEAR, IntervalMap, NONE } from '../../src/base/intervalmap.ts';

const { SHAREDEXT_SEED } = process.env;
const seed = Number(SHAREDEXT_SEED ?? 1);

/** Positions near several places far apart, so that rows don't fit one base. */
const places = [0, 300, 2 ** 32 - 40, 2 ** 33 + 5, 2 ** 45] as const;
const SPAN = 100;

type Step =
  | { readonly do: 'set'; readonly start: number; readonly length: number; readonly value: number }
  | { readonly do: 'drop'; readonly from: number; readonly length: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 9,
    arbitrary: fc
      .record({
        do: fc.constant('set' as const),
        start: fc.tuple(fc.constantFrom(...places), fc.nat(SPAN - 1)).map(([place, at]) => place + at),
        length: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(2 ** 40)),
        value: fc.oneof(fc.constantFrom(NONE, 1, 2), fc.integer({ min: FIRST_LINEAR, max: FIRST_LINEAR + 60 })),
      })
      // A linear value ends below 2^32.
      .filter(({ length, value }) => value < FIRST_LINEAR || length < SPAN),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('drop' as const),
      from: fc.integer({ min: FIRST_LINEAR, max: FIRST_LINEAR + 60 }),
      length: fc.integer({ min: 1, max: 20 }),
    }),
  },
);

/** What the map should say of the positions near the places, and nowhere else. */
class Model {
  readonly values = new Map<number, number>();

  constructor() {
    for (const place of places) for (let at = 0; at < SPAN; at++) this.values.set(place + at, NONE);
  }

  apply(map: IntervalMap, step: Step): void {
    if (step.do === 'set') {
      map.set(step.start, step.start + step.length, step.value);
      for (const position of this.values.keys()) {
        if (position < step.start || position >= step.start + step.length) continue;
        const into = step.value >= FIRST_LINEAR ? position - step.start : 0;
        this.values.set(position, step.value + into);
      }
      return;
    }
    map.dropTargets(step.from, step.from + step.length);
    for (const [position, value] of this.values) {
      if (value >= step.from && value < step.from + step.length) this.values.set(position, NONE);
    }
  }
}

/** Walks over all runs: each must be as long as can be. Returns how many rows they take. */
function runs(map: IntervalMap): number {
  let rows = 0;
  let before: { value: number; length: number } | undefined;
  for (let at = 0; at < Number.MAX_SAFE_INTEGER; at = map.end) {
    const value = map.find(at);
    assert.equal(map.start, at);
    assert.ok(map.end > at);
    if (before === undefined) {
      if (value !== NONE) rows++;
    } else {
      rows++;
      const goesOn = before.value >= FIRST_LINEAR ? before.value + before.length === value : before.value === value;
      assert.equal(goesOn, false, `two runs at ${at} could be one`);
    }
    before = { value, length: map.end - at };
  }
  return rows;
}

describe('an interval map', () => {
  it('is NONE everywhere at first', () => {
    const map = new IntervalMap();
    assert.equal(map.find(0), NONE);
    assert.equal(map.find(2 ** 52), NONE);
    assert.equal(map.end, Number.MAX_SAFE_INTEGER);
    assert.equal(map.rows, 0);
  });

  it('says of every position what was last set, in as few rows as can be', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const map = new IntervalMap();
        const model = new Model();
        for (const one of steps) model.apply(map, one);
        for (const [position, value] of model.values) {
          assert.equal(map.find(position), value, `at ${position}`);
          assert.ok(map.start <= position && position < map.end);
        }
        assert.equal(map.rows, runs(map));
      }),
      { seed, numRuns: 400 },
    );
  });

  it('takes runs to the end of all positions', () => {
    const map = new IntervalMap();
    map.set(10, Number.MAX_SAFE_INTEGER, 1);
    map.set(3, 12, FIRST_LINEAR);
    assert.equal(map.find(11), FIRST_LINEAR + 8);
    assert.equal(map.find(12), 1);
    assert.equal(map.end, Number.MAX_SAFE_INTEGER);
    map.set(0, Number.MAX_SAFE_INTEGER, 1);
    assert.equal(map.rows, 1);
  });

  it('holds many isolated extents, set in random order, below 26 bytes each', () => {
    const count = 100_000;
    const order = shuffled(count);
    const map = new IntervalMap();
    for (const extent of order) map.set(extent * 8, extent * 8 + 3, FIRST_LINEAR + extent * 11);
    assert.equal(map.rows, 2 * count);
    for (let extent = 0; extent < count; extent++) {
      assert.equal(map.find(extent * 8 + 2), FIRST_LINEAR + extent * 11 + 2);
      assert.equal(map.find(extent * 8 + 3), NONE);
    }
    assert.ok(map.heldBytes < 26 * count, `${map.heldBytes / count} bytes each`);
    assert.equal(map.dropTargets(0, 2 ** 32), 3 * count);
    assert.equal(map.rows, 0);
    assert.equal(map.heldBytes, 0);
  });

  it('says of every position what was last set, over many chunks that are split, emptied and joined', () => {
    const span = 30_000;
    const long = { minLength: 2000, maxLength: 6000 };
    const piece = fc.record({
      start: fc.nat(span - 1),
      length: fc.oneof({ weight: 60, arbitrary: fc.integer({ min: 1, max: 3 }) }, fc.integer({ min: 100, max: 4000 })),
      linear: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(piece, { ...long, size: 'max' }), (pieces) => {
        const map = new IntervalMap();
        const model = new Uint32Array(span + 4000);
        for (const [turn, { start, length, linear }] of pieces.entries()) {
          const wanted = linear || length < 100 ? FIRST_LINEAR + turn * 5000 : NONE;
          map.set(start, start + length, wanted);
          for (let i = 0; i < length; i++) model[start + i] = wanted === NONE ? NONE : wanted + i;
        }
        for (let i = 0; i < span; i++) {
          const at = (i * 7919) % span;
          assert.equal(map.find(at), model[at], `at ${at}`);
          assert.ok(map.start <= at && at < map.end);
        }
        assert.equal(map.rows, runs(map));
      }),
      { seed, numRuns: 15 },
    );
  });

  it('holds a million rows, set in order, below 8.5 bytes each', () => {
    const count = 1_000_000;
    const map = new IntervalMap();
    for (let row = 0; row < count; row++) map.set(row, row + 1, FIRST_LINEAR + row * 2);
    assert.ok(map.rows >= count);
    assert.ok(map.heldBytes < 8.5 * count, `${map.heldBytes / count} bytes each`);
    map.clear();
    assert.equal(map.find(5), NONE);
  });

  it('is as small when it is built in order before, or behind, what is there already', () => {
    const count = 100_000;
    for (const backwards of [false, true]) {
      const map = new IntervalMap();
      map.set(0, 1, 1);
      map.set(10 * count, Number.MAX_SAFE_INTEGER, 1);
      for (let i = 1; i < count; i++) {
        const at = (backwards ? count - i : i) * 2;
        map.set(at, at + 1, FIRST_LINEAR + at * 3);
      }
      assert.ok(map.rows > 1.99 * count);
      assert.ok(map.heldBytes < 8.5 * map.rows, `${map.heldBytes / map.rows} bytes each`);
    }
  });
});

function shuffled(count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = seed >>> 0;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const other = state % (i + 1);
    const kept = order[i] ?? 0;
    order[i] = order[other] ?? 0;
    order[other] = kept;
  }
  return order;
}
