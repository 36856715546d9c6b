/** The store of shared mappings over a fake filesystem: what is matched, made, kept and dropped. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EINVAL, EIO, EMFILE, ENOSPC } from '../../src/base/errno.ts';
import { KEPT_MS } from '../../src/fuse/server/backing.ts';
import type { MappingStore } from '../../src/mappings/store.ts';
import { BLOCK, type FakeFile, FakeStorage } from './fake.ts';

/** Shares a file at once: its row, or the reason. */
function share(storage: FakeStorage, store: MappingStore, file: FakeFile): number | string {
  const given = storage.shared(file);
  const result = store.share(given, storage.dropPages);
  storage.calls.close(given.fd);
  assert.ok(!(result instanceof Promise), 'a small clone is made at once');
  return result;
}

function row(storage: FakeStorage, store: MappingStore, file: FakeFile): number {
  const result = share(storage, store, file);
  assert.ok(typeof result === 'number', `refused: ${result}`);
  return result;
}

function checkNothingOpen(storage: FakeStorage): void {
  assert.equal(storage.open.size, 0, 'no descriptor is left');
  assert.deepEqual(storage.violations, []);
}

test('files of the same extents get one mapping, and their own clean pages are dropped', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const [a, b] = [storage.file([10, 20]), storage.file([10, 20])];
  const first = row(storage, store, a);
  assert.equal(row(storage, store, b), first);
  assert.deepEqual([store.made, store.matched, store.count, store.idle], [1, 1, 1, 1]);
  assert.deepEqual(storage.dropped, [a.ino, b.ino]);
  assert.equal(storage.clones.size, 1);
  assert.equal(store.size(first), a.size);
  assert.equal(store.bytes, a.size);
  checkNothingOpen(storage);
});

test('a file of other extents or another size gets another mapping', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const first = row(storage, store, storage.file([10, 20]));
  assert.notEqual(row(storage, store, storage.file([10, 21])), first);
  assert.notEqual(row(storage, store, storage.file([10, 20], { size: 100 * BLOCK })), first);
  assert.equal(store.count, 3);
  checkNothingOpen(storage);
});

test('maps of equal hash that differ are not taken for each other', () => {
  const storage = new FakeStorage();
  storage.colliding = true;
  const store = storage.store();
  const rows = [
    [1, 2],
    [3, 4],
    [5, 6],
  ].map((blocks) => row(storage, store, storage.file(blocks)));
  assert.equal(new Set(rows).size, 3);
  assert.ok(store.mismatched >= 3);
  assert.equal(row(storage, store, storage.file([3, 4])), rows[1]);
  store.dropIdle(store.idle);
  assert.equal(store.count, 0);
  checkNothingOpen(storage);
});

test('a clone whose extents were moved is not matched by what its map once was', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const first = row(storage, store, storage.file([10, 20]));
  // Balance has moved the clone, and another file got the addresses.
  for (const clone of storage.clones.values()) clone.blocks = [70, 80];
  const second = row(storage, store, storage.file([10, 20]));
  assert.notEqual(second, first);
  assert.ok(store.mismatched >= 1);
});

test('a file that changes between two looks is not matched', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const first = row(storage, store, storage.file([10, 20]));
  const file = storage.file([10, 20]);
  storage.changing = { file, looks: 1 };
  const second = row(storage, store, file);
  assert.notEqual(second, first);
  assert.deepEqual(
    [...storage.clones.values()].map(({ blocks }) => blocks),
    [[10, 20], file.blocks],
  );
});

test('what has no extents to share, dirty pages or NOCOW is refused, and leaves nothing', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  assert.equal(share(storage, store, storage.file([1], { shared: false })), 'unshared');
  assert.equal(share(storage, store, storage.file([1], { nocow: true })), 'nocow');
  const dirty = storage.file([1], { dirty: 3 });
  assert.equal(store.share(storage.shared(dirty, 1000), storage.dropPages), 'dirty');
  assert.equal(
    typeof store.share(storage.shared(dirty, 100_000), storage.dropPages),
    'number',
    'old data is taken for clean, and flushed',
  );
  storage.cloneErrors.push(-EIO, -EINVAL);
  assert.equal(share(storage, store, storage.file([2])), 'clone-failed');
  assert.equal(share(storage, store, storage.file([3])), 'nocow');
  assert.equal(storage.clones.size, 1);
});

test('beyond the limit the least recently used mapping goes first', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 3 });
  const [a, b] = [1, 2, 3].map((block) => row(storage, store, storage.file([block])));
  assert.ok(a !== undefined && b !== undefined);
  store.acquire(a);
  store.release(a);
  row(storage, store, storage.file([4]));
  assert.deepEqual([...storage.clones.values()].map(({ blocks }) => blocks[0]).sort(), [1, 3, 4]);
  assert.equal(store.dropped, 1);
  assert.equal(store.count, 3);
  checkNothingOpen(storage);
});

test('a mapping in use is never dropped, and when all are there is room for none', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 2 });
  const rows = [1, 2].map((block) => row(storage, store, storage.file([block])));
  for (const one of rows) assert.ok(store.acquire(one) > 0);
  assert.equal(share(storage, store, storage.file([3])), 'too-many-mappings');
  assert.equal(store.dropIdle(store.idle), 0);
  for (const clone of storage.clones.values()) clone.shared = false;
  for (let i = 0; i < 10; i++) assert.equal(store.tidy(), 0);
  assert.equal(storage.clones.size, 2);
  store.release(rows[0] ?? -1);
  assert.equal(store.idle, 1);
  assert.equal(typeof share(storage, store, storage.file([3])), 'number');
  assert.equal(store.isAlive(rows[1] ?? -1, 0), true);
  checkNothingOpen(storage);
});

test('users of a mapping share its backing id, which is kept for a moment when the last one has closed it', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const one = row(storage, store, storage.file([1]));
  const id = store.acquire(one);
  assert.equal(store.acquire(one), id);
  store.release(one);
  assert.equal(storage.backing.size, 1);
  store.release(one);
  assert.equal(storage.backing.size, 1);
  assert.equal(store.acquire(one), id);
  store.release(one);
  storage.nowMs += KEPT_MS;
  storage.kept?.tidy();
  assert.equal(storage.backing.size, 0);
  storage.backingError = -EMFILE;
  assert.equal(store.acquire(one), -EMFILE);
  assert.equal(store.idle, 1);
  storage.backingError = 0;
  assert.ok(store.acquire(one) > 0);
  store.release(one);
  store.dropIdle(store.idle);
  assert.equal(storage.backing.size, 0, 'a clone that is dropped is not kept open');
  checkNothingOpen(storage);
});

test('a row that is given away again has another generation and another name', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1 });
  const first = row(storage, store, storage.file([1]));
  const generation = store.generation(first);
  const [name] = storage.clones.keys();
  const second = row(storage, store, storage.file([2]));
  assert.equal(second, first);
  assert.equal(store.isAlive(first, generation), false);
  assert.equal(store.isAlive(second, store.generation(second)), true);
  assert.notEqual([...storage.clones.keys()][0], name);
  assert.deepEqual(storage.unlinked, [name]);
});

test('a mapping whose file was deleted is dropped as soon as nobody else has its extents', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1000 });
  const rows = Array.from({ length: 300 }, (_, i) => row(storage, store, storage.file([i])));
  const last = rows.at(-1) ?? -1;
  store.suspect(last);
  assert.equal(store.tidy(), 0, 'its inode is not dead yet');
  for (const [name, clone] of storage.clones) if (name.startsWith(`c${last.toString(16)}-`)) clone.shared = false;
  storage.nowMs += 1000;
  assert.equal(store.tidy(), 1);
  assert.equal(store.isAlive(last, 0), false);
  checkNothingOpen(storage);
});

test('a mapping whose file was deleted while it was open is dropped soon after the last release', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1000 });
  const rows = Array.from({ length: 300 }, (_, i) => row(storage, store, storage.file([i])));
  const last = rows.at(-1) ?? -1;
  store.acquire(last);
  store.suspect(last);
  for (let i = 0; i < 20; i++) {
    storage.nowMs += 20_000;
    assert.equal(store.tidy(), 0);
  }
  for (const [name, clone] of storage.clones) if (name.startsWith(`c${last.toString(16)}-`)) clone.shared = false;
  store.release(last);
  storage.nowMs += 50;
  assert.equal(store.tidy(), 1);
});

test('a deletion of a file that was never looked at has every mapping looked at, also behind rows that are free', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1000 });
  const rows = Array.from({ length: 500 }, (_, i) => row(storage, store, storage.file([i])));
  for (const one of rows.slice(400)) store.acquire(one);
  store.dropIdle(store.idle);
  for (const one of rows.slice(400)) store.release(one);
  assert.equal(store.count, 100);
  for (const clone of storage.clones.values()) clone.shared = false;
  store.suspect(-1);
  let steps = 0;
  while (store.count > 0 && steps < 9) {
    store.tidy();
    steps++;
  }
  assert.equal(store.count, 0, 'a pass of 64 rows at a time is over after 8 steps');
  checkNothingOpen(storage);
});

test('when free space is low nothing is made, and idle mappings go', () => {
  const storage = new FakeStorage();
  const store = storage.store({ floorBytes: 1e9 });
  const used = row(storage, store, storage.file([1]));
  row(storage, store, storage.file([2]));
  store.acquire(used);
  storage.freeBytes = 1e8;
  storage.nowMs += 1000;
  assert.equal(share(storage, store, storage.file([3])), 'no-space');
  assert.equal(store.count, 1, 'what was idle is gone');
  assert.equal(row(storage, store, storage.file([1])), used, 'what is there is still matched');
  storage.freeBytes = 1e12;
  storage.nowMs += 1000;
  assert.equal(typeof share(storage, store, storage.file([3])), 'number');
  storage.freeBytes = 1e8;
  storage.nowMs += 1000;
  assert.equal(store.tidy(), 1);
  checkNothingOpen(storage);
});

test('a clone that does not fit is tried again once idle mappings are dropped', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  row(storage, store, storage.file([1]));
  storage.cloneErrors.push(-ENOSPC);
  const kept = row(storage, store, storage.file([2]));
  assert.deepEqual([store.count, store.dropped], [1, 1]);
  store.acquire(kept);
  storage.cloneErrors.push(-ENOSPC);
  assert.equal(share(storage, store, storage.file([3])), 'no-space', 'nothing can be dropped');
  assert.equal(storage.clones.size, 1, 'the discarded clone is deleted');
  checkNothingOpen(storage);
});

test('a clone that never fits drops a few idle mappings, and the others go in steps of their own', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1000 });
  for (let block = 0; block < 500; block++) row(storage, store, storage.file([block]));
  const full = (): void => void storage.cloneErrors.push(...Array.from({ length: 20 }, () => -ENOSPC));
  full();
  assert.equal(share(storage, store, storage.file([1000])), 'no-space');
  const dropped = store.dropped;
  assert.ok(dropped > 0 && dropped <= 32, `${dropped} at once`);
  let steps = 0;
  for (; store.idle > 0; steps++) assert.ok(store.tidy() <= 64 && steps < 100);
  assert.ok(steps >= 7);
  // When there is room again, nothing more goes.
  storage.cloneErrors.splice(0);
  for (let block = 0; block < 100; block++) row(storage, store, storage.file([block]));
  store.tidy();
  assert.equal(store.idle, 100);
  full();
  assert.equal(share(storage, store, storage.file([1001])), 'no-space');
  storage.cloneErrors.splice(0);
  row(storage, store, storage.file([1002]));
  const left = store.idle;
  store.tidy();
  assert.equal(store.idle, left);
  checkNothingOpen(storage);
});

test('a step looks at some of the suspects only, however many files were deleted', () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 1000 });
  for (let block = 0; block < 500; block++) store.suspect(row(storage, store, storage.file([block])));
  for (const clone of storage.clones.values()) clone.shared = false;
  storage.nowMs += 30;
  let steps = 0;
  for (; store.count > 0; steps++) assert.ok(store.tidy() <= 128 && steps < 100);
  assert.ok(steps >= 4);
  checkNothingOpen(storage);
});

const inlineFile = (storage: FakeStorage, item: string, uid = 0): FakeFile =>
  storage.file([], { item, size: item.length, uid });

test('an inline file is cloned when a second one with the same item is opened, and the first one gives up its pages', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const [a, b, d] = ['same', 'same', 'else'].map((item) => inlineFile(storage, item));
  assert.ok(a !== undefined && b !== undefined && d !== undefined);
  assert.equal(share(storage, store, a), 'inline');
  assert.equal(share(storage, store, a), 'inline', 'the same file again is no second one');
  assert.equal(share(storage, store, d), 'inline');
  assert.deepEqual([storage.clones.size, storage.dropped.length], [0, 0]);
  const first = row(storage, store, b);
  assert.deepEqual(storage.dropped, [a.ino, b.ino]);
  assert.equal(row(storage, store, a), first);
  assert.deepEqual([store.made, store.matched, store.mismatched], [1, 1, 0]);
  checkNothingOpen(storage);
});

test('inline files of two users are not shared, nor with one whose node is forgotten', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const mine = [1, 2].map(() => inlineFile(storage, 'secret', 1000));
  const theirs = [1, 2].map(() => inlineFile(storage, 'secret', 1001));
  const rows = mine.map((file) => share(storage, store, file));
  assert.deepEqual([rows[0], typeof rows[1]], ['inline', 'number']);
  const [first, second] = theirs.map((file) => share(storage, store, file));
  assert.equal(typeof second, 'number');
  assert.notEqual(second, rows[1], 'another user got the mapping of an inline file');
  assert.equal(first, 'inline');
  const [one, two] = [1, 2].map(() => inlineFile(storage, 'gone'));
  assert.ok(one !== undefined && two !== undefined);
  assert.equal(share(storage, store, one), 'inline');
  storage.forgotten.add(one.ino);
  assert.equal(share(storage, store, two), 'inline');
  checkNothingOpen(storage);
});

test('an inline file that changes between two looks is not matched, nor a clone that is not what it was', () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const [a, b, d, e] = [1, 2, 3, 4].map(() => inlineFile(storage, 'text'));
  assert.ok(a !== undefined && b !== undefined && d !== undefined && e !== undefined);
  share(storage, store, a);
  const first = row(storage, store, b);
  storage.changing = { file: d, looks: 1 };
  assert.notEqual(share(storage, store, d), first);
  for (const clone of storage.clones.values()) clone.item = 'next';
  assert.notEqual(share(storage, store, e), first);
  assert.ok(store.mismatched >= 2);
  checkNothingOpen(storage);
});

const LARGE = Array.from({ length: 200 }, (_, i) => i * 3 * BLOCK);

test('a clone of many extents is made on another thread, and of two that are made at once one stays', async () => {
  const storage = new FakeStorage();
  const store = storage.store();
  const [a, b] = [storage.shared(storage.file(LARGE)), storage.shared(storage.file(LARGE))];
  const results = [a, b].map((file) => store.share(file, storage.dropPages));
  assert.ok(results.every((result) => result instanceof Promise));
  assert.equal(store.count, 0, 'a clone that is being made is not to be found');
  assert.equal(store.dropIdle(store.idle), 0);
  for (const thread of storage.threads.splice(0)) thread();
  const [first, second] = await Promise.all(results);
  assert.equal(typeof first, 'number');
  assert.equal(second, first);
  assert.deepEqual([store.made, store.count, storage.clones.size, storage.unlinked.length], [1, 1, 1, 1]);
  storage.calls.close(a.fd);
  storage.calls.close(b.fd);
  checkNothingOpen(storage);
});

test('clones that are being made count for the limit', async () => {
  const storage = new FakeStorage();
  const store = storage.store({ maxMappings: 2 });
  const results = [1, 2, 3].map((i) =>
    store.share(storage.shared(storage.file(LARGE.map((at) => at + i * 4096 * 4096))), storage.dropPages),
  );
  assert.equal(results[2], 'too-many-mappings');
  for (const thread of storage.threads.splice(0)) thread();
  assert.deepEqual(
    (await Promise.all(results)).map((result) => typeof result),
    ['number', 'number', 'string'],
  );
  assert.equal(store.count, 2);
});

test('no sequence of operations drops what is in use, mixes bytes up, or leaks', () => {
  type Step = {
    readonly kind: 'share' | 'acquire' | 'release' | 'suspect' | 'tidy' | 'drop' | 'unshare';
    readonly pick: number;
  };
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom('share', 'share', 'acquire', 'acquire', 'release', 'suspect', 'tidy', 'drop', 'unshare'),
    pick: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 100, size: 'max' }), fc.boolean(), (steps, colliding) => {
      const storage = new FakeStorage();
      storage.colliding = colliding;
      const store = storage.store({ maxMappings: 4 });
      /** Verdicts: which row held a file's bytes, in which generation. */
      const verdicts = new Map<number, { readonly row: number; readonly generation: number }>();
      const used: { readonly row: number; readonly block: number; readonly id: number }[] = [];
      for (const { kind, pick } of steps) {
        storage.nowMs += 30;
        const verdict = verdicts.get(pick);
        if (kind === 'share') {
          const result = share(storage, store, storage.file([pick]));
          if (typeof result === 'number') verdicts.set(pick, { row: result, generation: store.generation(result) });
          else assert.equal(result, 'too-many-mappings');
        } else if (kind === 'acquire' && verdict !== undefined && store.isAlive(verdict.row, verdict.generation)) {
          used.push({ row: verdict.row, block: pick, id: store.acquire(verdict.row) });
        } else if (kind === 'release') {
          const [one] = used.splice(pick % Math.max(used.length, 1), 1);
          if (one !== undefined) store.release(one.row);
        } else if (kind === 'suspect') store.suspect(pick % 2 === 0 ? -1 : pick % 4);
        else if (kind === 'tidy') store.tidy();
        else if (kind === 'drop') store.dropIdle(store.idle);
        else if (kind === 'unshare')
          for (const clone of storage.clones.values()) clone.shared = clone.blocks[0] !== pick;
        for (const { id, block } of used) assert.deepEqual(storage.backing.get(id)?.blocks, [block]);
        assert.equal(store.count, storage.clones.size);
        assert.equal(store.count - store.idle, new Set(used.map((one) => one.row)).size);
        assert.equal(store.bytes, store.count * 2 * BLOCK);
        checkNothingOpen(storage);
      }
      for (const one of used) store.release(one.row);
      store.dropIdle(store.idle);
      assert.deepEqual(
        [store.count, store.idle, store.bytes, storage.clones.size, storage.backing.size],
        [0, 0, 0, 0, 0],
      );
    }),
    { numRuns: 300 },
  );
});
