/** Journaled memory: a step that was cut off anywhere is undone wholly, and a step that was completed stays. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';

const PAIRS = 64;
const WORDS = 32;
const BYTES = journalBytes(PAIRS) + WORDS * 4 + 16;

interface Change {
  readonly word: number;
  readonly value: number;
}

const change: fc.Arbitrary<Change> = fc.record({
  word: fc.nat(WORDS - 1),
  value: fc.oneof(fc.nat(3), fc.integer({ min: 0, max: 0xffff_ffff })),
});

/** Memory whose every single store can be the last one: `cut` stores from now on are done, and no other. */
class Cut {
  readonly buffer = new ArrayBuffer(BYTES);
  readonly journal: Journal;
  readonly table: number;
  left = Number.POSITIVE_INFINITY;

  constructor() {
    this.journal = new Journal(memoryAt(0, this.buffer), PAIRS);
    this.table = this.journal.take(WORDS);
    const { words } = this.journal;
    const stored = new Proxy(words, {
      set: (target, key, value: number) => {
        if (this.left-- > 0) target[Number(key)] = value;
        return true;
      },
      get: (target, key) => Reflect.get(target, key, target) as unknown,
    });
    Object.assign(this.journal, { words: stored });
  }

  snapshot(): number[] {
    return Array.from(new Uint32Array(this.buffer, this.table * 4, WORDS));
  }
}

test('whatever store is the last, the step before is what a later process finds', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(change, { maxLength: 20 }), { minLength: 1, maxLength: 6 }),
      fc.nat(150),
      fc.nat(40),
      (steps, cut, again) => {
        const memory = new Cut();
        const { journal, table } = memory;
        const wanted = [memory.snapshot()];
        for (const step of steps.slice(0, -1)) {
          for (const { word, value } of step) journal.set(table + word, value);
          journal.commit();
          wanted.push(memory.snapshot());
        }
        const before = wanted.at(-1);
        memory.left = cut;
        for (const { word, value } of steps.at(-1) ?? []) journal.set(table + word, value);
        memory.left = again;
        // A process that rolls back may be killed as well.
        new Journal(memoryAt(0, memory.buffer), PAIRS);
        journal.rollback();
        memory.left = Number.POSITIVE_INFINITY;
        journal.rollback();
        assert.deepEqual(memory.snapshot(), before);
        assert.equal(journal.changed, 0);
      },
    ),
    { numRuns: 2000 },
  );
});

test('large numbers take two words, and both are journaled', () => {
  const journal = new Journal(memoryAt(0, new ArrayBuffer(BYTES)), PAIRS);
  const at = journal.take(2);
  journal.setLarge(at, 2 ** 40 + 5);
  journal.commit();
  journal.setLarge(at, 2 ** 52 + 1);
  assert.equal(journal.getLarge(at), 2 ** 52 + 1);
  journal.rollback();
  assert.equal(journal.getLarge(at), 2 ** 40 + 5);
});

test('a step that changes more words than fit is refused before it changes one more', () => {
  const journal = new Journal(memoryAt(0, new ArrayBuffer(BYTES)), 4);
  const at = journal.take(8);
  for (let word = 0; word < 4; word++) journal.set(at + word, 7);
  assert.throws(() => journal.set(at + 4, 7), /more than 4 words/);
  journal.rollback();
  assert.deepEqual([...journal.words.subarray(at, at + 8)], [0, 0, 0, 0, 0, 0, 0, 0]);
});
