/** What was seen where: a model of the table, which forgets only what its set has no room for. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NOBODY, Sightings } from '../../src/mappings/sightings.ts';

/** Hashes that fall into the same set are this far apart. */
const SETS = 8192;

test('of four contents of one set none is forgotten, and each is told from the others', () => {
  const meeting = fc.record({ content: fc.nat(3), node: fc.nat(5) });
  fc.assert(
    fc.property(fc.array(meeting, { maxLength: 60 }), (meetings) => {
      const sightings = new Sightings();
      const last = new Map<number, number>();
      for (const { content, node } of meetings) {
        const before = last.get(content) ?? NOBODY;
        assert.equal(sightings.meet(content * SETS, 0, 0, node), before === node ? NOBODY : before);
        last.set(content, node);
      }
    }),
  );
});

test('the fifth content of a set displaces the one that was seen longest ago', () => {
  const sightings = new Sightings();
  for (const content of [0, 1, 2, 3, 0, 4]) sightings.meet(content * SETS, 0, 0, 10 + content);
  assert.equal(sightings.meet(0, 0, 0, 20), 10);
  assert.equal(sightings.meet(2 * SETS, 0, 0, 21), 12);
  assert.equal(sightings.meet(1 * SETS, 0, 0, 22), NOBODY);
});

test('contents of other domains and owners are others', () => {
  const sightings = new Sightings();
  sightings.meet(77, 1, 1001, 5);
  assert.equal(sightings.meet(77, 1, 1002, 6), NOBODY);
  assert.equal(sightings.meet(77, 2, 1001, 7), NOBODY);
  assert.equal(sightings.meet(77, 1, 1001, 8), 5);
});
