/** Backing files that are kept for a moment: who gets them again, and when they are closed. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EMFILE, ENOENT } from '../../src/base/errno.ts';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';
import { BackingFiles, KEPT_MS, KEPT_WORDS } from '../../src/fuse/server/backing.ts';

const PAIRS = 40_000;

class World {
  readonly registered = new Set<number>();
  limit = Number.POSITIVE_INFINITY;
  nowMs = 5000.5;
  readonly journal = new Journal(memoryAt(0, new ArrayBuffer(journalBytes(PAIRS) + 4 * KEPT_WORDS + 64)), PAIRS);
  readonly at = this.journal.take(KEPT_WORDS);
  #next = 1;
  files = this.make();

  make(): BackingFiles {
    const registration = {
      open: (): number => {
        if (this.registered.size >= this.limit) return -EMFILE;
        this.registered.add(this.#next);
        return this.#next++;
      },
      close: (id: number): number => (this.registered.delete(id) ? 0 : -ENOENT),
    };
    return new BackingFiles(registration, this.journal, this.at, () => this.nowMs);
  }
}

test('what is kept is given to the same use of the same row, and to nobody else', () => {
  const world = new World();
  const { ofNodes, ofMappings } = world.files;
  const id = ofNodes.open(3);
  ofNodes.keep(7, 2, id);
  assert.equal(ofMappings.take(7, 2), 0, 'of another table');
  assert.equal(ofNodes.take(7, 3), 0, 'of a row that was given away again');
  assert.equal(ofNodes.take(8, 2), 0, 'of another row');
  assert.equal(ofNodes.take(7, 2), id);
  assert.equal(ofNodes.take(7, 2), 0, 'a second time');
  assert.ok(world.registered.has(id), 'it is its new user who closes it');
});

test('what is kept is closed after a moment, when it is dropped, and when its place is taken', () => {
  const world = new World();
  const { ofNodes } = world.files;
  ofNodes.keep(1, 1, ofNodes.open(3));
  world.nowMs += KEPT_MS - 2;
  world.files.tidy();
  assert.equal(world.registered.size, 1);
  world.nowMs += 2;
  world.files.tidy();
  assert.deepEqual([world.registered.size, world.files.kept], [0, 0]);
  ofNodes.keep(1, 1, ofNodes.open(3));
  ofNodes.drop(1, 2);
  assert.equal(world.registered.size, 1, 'another use of the row is none of its business');
  ofNodes.drop(1, 1);
  assert.equal(world.registered.size, 0);
  const first = ofNodes.open(3);
  ofNodes.keep(1, 1, first);
  ofNodes.keep(1 + 2048, 1, ofNodes.open(3));
  assert.ok(!world.registered.has(first), 'the line has room for one');
  assert.equal(world.files.kept, 1);
});

test('a limit of registrations is no reason to refuse one while others are only kept', () => {
  const world = new World();
  world.limit = 1;
  const { ofNodes } = world.files;
  ofNodes.keep(1, 1, ofNodes.open(3));
  assert.ok(ofNodes.open(4) > 0);
  assert.equal(ofNodes.open(5), -EMFILE);
});

test('a later server finds what is kept, and closes it', () => {
  const world = new World();
  const id = world.files.ofNodes.open(3);
  world.files.ofNodes.keep(1, 1, id);
  world.journal.commit();
  const later = world.make();
  assert.deepEqual([...later.ids()], [id]);
  assert.equal(later.kept, 1);
  later.dropAll();
  assert.deepEqual([world.registered.size, later.kept], [0, 0]);
});

test('a table that keeps what is in use, or in the wrong place, is not trusted', () => {
  const world = new World();
  const id = world.files.ofNodes.open(3);
  world.files.ofNodes.keep(1, 1, id);
  assert.equal(world.files.flaw(new Set([id + 1])), undefined);
  assert.match(world.files.flaw(new Set([id])) ?? '', /in use/);
  world.journal.set(world.at + 4 * 2, 2);
  assert.match(world.make().flaw(new Set()) ?? '', /belongs to another/);
});

test('every registration is in use, or kept, or closed, whatever is done', () => {
  const step = fc.record({
    what: fc.constantFrom('open', 'keep', 'drop', 'again', 'wait', 'killed'),
    row: fc.nat(5000),
    mapping: fc.boolean(),
    ms: fc.nat(800),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const world = new World();
      world.limit = 40;
      /** By row of each table: its generation, and the id that it uses. */
      const rows = new Map<string, { generation: number; id: number }>();
      for (const { what, row, mapping, ms } of steps) {
        // Rows are few, and far apart: some share a line.
        const number = row % 7 === 0 ? 2048 + (row % 5) : row % 9;
        const name = `${mapping} ${number}`;
        const of = mapping ? world.files.ofMappings : world.files.ofNodes;
        const one = rows.get(name) ?? { generation: 1, id: 0 };
        rows.set(name, one);
        if (what === 'open' && one.id === 0) {
          const kept = of.take(number, one.generation);
          one.id = kept > 0 ? kept : Math.max(0, of.open(0));
        } else if (what === 'keep' && one.id > 0) {
          of.keep(number, one.generation, one.id);
          one.id = 0;
        } else if (what === 'drop') {
          of.drop(number, one.generation);
        } else if (what === 'again' && one.id === 0) {
          of.drop(number, one.generation);
          one.generation++;
          assert.equal(of.take(number, one.generation), 0);
        } else if (what === 'wait') {
          world.nowMs += ms;
          world.files.tidy();
        } else if (what === 'killed') {
          world.journal.commit();
          world.files = world.make();
          world.files.dropAll();
        }
        const used = [...rows.values()].filter(({ id }) => id > 0).map(({ id }) => id);
        const kept = [...world.files.ids()];
        assert.equal(kept.length, world.files.kept);
        assert.deepEqual([...used, ...kept].sort(), [...world.registered].sort());
      }
    }),
    { numRuns: 200 },
  );
});
