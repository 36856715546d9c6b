/** The node table against a model: handles, lookup counts, detaching, and rows that are given away again. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';
import { FILEID_BTRFS_WITHOUT_PARENT, HANDLE_BYTES } from '../../src/filesystem/handles.ts';
import { NO_NODE, NodeTable, nodeTableWords } from '../../src/filesystem/nodes.ts';

const CAPACITY = 300;
const PAIRS = 100_000;
const REGULAR = 0o100644;

function makeTable(): NodeTable {
  const bytes = journalBytes(PAIRS) + 4 * nodeTableWords(CAPACITY) + 16;
  return new NodeTable(new Journal(memoryAt(0, new ArrayBuffer(bytes)), PAIRS), CAPACITY);
}

/** A handle whose inode is `inode`, in memory of its own. */
function handle(inode: number): ReturnType<typeof memoryAt> {
  const memory = memoryAt(0, new ArrayBuffer(64));
  memory.view.setUint32(0, HANDLE_BYTES - 8, true);
  memory.view.setInt32(4, FILEID_BTRFS_WITHOUT_PARENT, true);
  memory.view.setUint32(8, inode, true);
  memory.view.setUint32(16, 256, true);
  return memory;
}

test('the table agrees with a model over random lookups, forgets and detachings', () => {
  type Step = { readonly kind: 'lookUp' | 'forget' | 'detach'; readonly inode: number };
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom('lookUp' as const, 'lookUp' as const, 'forget' as const, 'detach' as const),
    inode: fc.integer({ min: 0, max: 60 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const table = makeTable();
      assert.equal(table.lookUp(handle(100_000), 0, 0o040755), 0);
      /** Attached nodes by inode, and the lookups of every node in use. */
      const attached = new Map<number, number>();
      const lookups = new Map<number, number>();
      const inodes = new Map<number, number>();
      for (const { kind, inode } of steps) {
        const known = attached.get(inode);
        if (kind === 'lookUp') {
          const slot = table.lookUp(handle(inode), 0, REGULAR);
          if (known !== undefined) assert.equal(slot, known);
          else assert.equal(lookups.has(slot), false, 'a new node has a row that nobody uses');
          attached.set(inode, slot);
          inodes.set(slot, inode);
          lookups.set(slot, (lookups.get(slot) ?? 0) + 1);
        } else if (known !== undefined && kind === 'detach') {
          table.detach(known);
          attached.delete(inode);
          assert.equal(table.find(handle(inode), 0), NO_NODE);
        } else if (kind === 'forget' && lookups.size > 0) {
          const slots = [...lookups.keys()];
          const slot = slots[inode % slots.length] ?? 0;
          const left = (lookups.get(slot) ?? 0) - 1;
          assert.equal(table.forget(slot, 1), left === 0);
          if (left > 0) lookups.set(slot, left);
          else {
            lookups.delete(slot);
            const owner = inodes.get(slot) ?? -1;
            if (attached.get(owner) === slot) attached.delete(owner);
            assert.equal(table.has(slot), false);
          }
        }
        assert.equal(table.count, lookups.size + 1);
        assert.equal(table.detachedCount, lookups.size - attached.size);
      }
      for (const [inode, slot] of attached) assert.equal(table.find(handle(inode), 0), slot);
    }),
    { numRuns: 60 },
  );
});

test('a row that is given away again has another generation', () => {
  const table = makeTable();
  table.lookUp(handle(1), 0, 0o040755);
  const slot = table.lookUp(handle(2), 0, REGULAR);
  const generation = table.generation(slot);
  assert.equal(table.forget(slot, 1), true);
  assert.equal(table.lookUp(handle(3), 0, REGULAR), slot);
  assert.equal(table.generation(slot), generation + 1);
});

test('a full table says so, and takes nodes again when one is forgotten', () => {
  const table = makeTable();
  for (let inode = 0; inode < CAPACITY; inode++) assert.equal(table.lookUp(handle(inode), 0, REGULAR), inode);
  assert.equal(table.lookUp(handle(5000), 0, REGULAR), NO_NODE);
  assert.equal(table.forget(17, 1), true);
  assert.equal(table.lookUp(handle(5000), 0, REGULAR), 17);
});

test('the root stays, however often it is forgotten', () => {
  const table = makeTable();
  assert.equal(table.lookUp(handle(1), 0, 0o040755), 0);
  assert.equal(table.forget(0, 1000), false);
  assert.equal(table.has(0), true);
});

test('a verdict holds for one ctime only', () => {
  const table = makeTable();
  const slot = table.lookUp(handle(1), 0, REGULAR);
  assert.equal(table.verdict(slot, 0, 0), -1);
  table.setVerdict(slot, 0, 7, 1_800_000_000, 999_999_999);
  assert.equal(table.verdict(slot, 1_800_000_000, 999_999_999), 0);
  assert.equal(table.verdictGeneration(slot), 7);
  assert.equal(table.verdict(slot, 1_800_000_000, 999_999_998), -1);
  assert.equal(table.verdict(slot, 1_800_000_001, 999_999_999), -1);
});
