/** The locks of a mount, without a mount: nodes, rows and what is known of processes are all that they need. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EAGAIN, EDEADLK, EINTR, ENOLCK } from '../../../src/base/errno.ts';
import { Journal, journalBytes } from '../../../src/base/journal.ts';
import { F_RDLCK, F_UNLCK, F_WRLCK } from '../../../src/base/linux.ts';
import { memoryAt } from '../../../src/base/memory.ts';
import { FILEID_BTRFS_WITHOUT_PARENT, HANDLE_BYTES } from '../../../src/filesystem/handles.ts';
import { isQuietSerial, type LockRequest, Locks } from '../../../src/filesystem/locks/locks.ts';
import type { LockType } from '../../../src/filesystem/locks/ranges.ts';
import { LockRows, lockTableWords } from '../../../src/filesystem/locks/rows.ts';
import { NodeTable, nodeTableWords } from '../../../src/filesystem/nodes.ts';
import { Parked } from '../../../src/fuse/server/parked.ts';
import { FakeProcesses } from '../fakeprocesses.ts';

const PAIRS = 10_000;
const NODES = 16;
const INODE = 300;

/** Two nodes of one file, the first of them detached, and a node of another file. */
function setUp(capacity = 64) {
  const bytes = journalBytes(PAIRS) + 4 * (nodeTableWords(NODES) + lockTableWords(capacity)) + 64;
  const memory = memoryAt(0, new ArrayBuffer(bytes));
  const handle = memoryAt(0, new ArrayBuffer(64));
  handle.view.setUint32(0, HANDLE_BYTES - 8, true);
  handle.view.setInt32(4, FILEID_BTRFS_WITHOUT_PARENT, true);
  const processes = new FakeProcesses();
  const open = () => {
    const journal = new Journal(memory, PAIRS);
    const nodes = new NodeTable(journal, NODES);
    const rows = new LockRows(journal, capacity);
    return { journal, nodes, rows, locks: new Locks({ nodes, rows, processes, ownSubvolume: 0 }) };
  };
  const { journal, nodes, rows, locks } = open();
  const lookUp = (inode: number): number => {
    handle.view.setUint32(8, inode, true);
    return nodes.lookUp(handle, 0, 0o100644);
  };
  lookUp(1);
  const detached = lookUp(INODE);
  nodes.detach(detached);
  const current = lookUp(INODE);
  const other = lookUp(INODE + 1);
  journal.commit();
  return { journal, nodes, rows, locks, processes, detached, current, other, takeOver: () => open() };
}

function wanted(
  slot: number,
  process: number,
  type: LockRequest['type'],
  more: Partial<LockRequest> = {},
): LockRequest {
  const base = { slot, handle: process, owner: BigInt(process), start: 0n, end: 9n, pid: process, thread: process };
  return { ...base, type, flock: false, waits: false, ...more };
}

/** What a wait ends with, or `waits`. */
function outcomeOf(result: number | Parked): { value: number | 'waits' } {
  const outcome: { value: number | 'waits' } = { value: 'waits' };
  if (typeof result === 'number') outcome.value = result;
  else {
    result.onAnswer((value) => {
      outcome.value = value;
    });
  }
  return outcome;
}

test('both nodes of a file have one set of locks, and another file has others', () => {
  const { locks, detached, current, other } = setUp();
  assert.equal(locks.set(wanted(detached, 1, F_RDLCK)), 0);
  assert.equal(locks.set(wanted(current, 2, F_WRLCK)), -EAGAIN);
  assert.equal(locks.set(wanted(other, 2, F_WRLCK)), 0);
  assert.equal(locks.set(wanted(detached, 1, F_WRLCK)), 0);
  assert.equal(locks.test({ ...wanted(current, 2, F_RDLCK), type: F_RDLCK })?.owner.pid, 1);
  locks.released(detached, 1, false);
  assert.equal(locks.set(wanted(current, 2, F_WRLCK)), 0);
});

test('an open is quiet as long as the file has no lock, through whatever node', () => {
  const { locks, nodes, detached, current, other } = setUp();
  assert.equal(locks.opensQuietly(detached), true);
  assert.equal(locks.set(wanted(detached, 1, F_RDLCK)), 0);
  assert.equal(locks.opensQuietly(detached), false);
  assert.equal(locks.opensQuietly(current), false, 'the other node');
  assert.equal(locks.opensQuietly(other), true, 'another file');
  assert.equal(nodes.hasQuiet(current), true, 'by its other node');
  locks.released(detached, 1, true);
  assert.equal(nodes.hasQuiet(current), false);
  assert.equal(locks.opensQuietly(current), false, 'it had a lock once');
  const [quiet, loud, next] = [locks.nameOpen(true), locks.nameOpen(false), locks.nameOpen(true)];
  assert.deepEqual([quiet, loud, next].map(isQuietSerial), [true, false, true]);
  assert.equal(new Set([quiet, loud, next]).size, 3);
});

test('the locks of a process with quiet opens end when it closes one, and with its end', () => {
  for (const ended of ['closed', 'gone', 'reopened'] as const) {
    const { locks, processes, detached, current } = setUp();
    locks.opensQuietly(detached);
    const fds = new Map([
      [3, INODE],
      [4, INODE],
      [5, 77],
    ]);
    processes.open.set(1, fds);
    assert.equal(locks.set(wanted(detached, 1, F_RDLCK)), 0);
    assert.equal(locks.count, 3, 'one range and two descriptors');
    assert.equal(locks.set(wanted(current, 2, F_WRLCK)), -EAGAIN);
    const waiting = outcomeOf(locks.set(wanted(current, 3, F_WRLCK, { waits: true })));
    locks.tick();
    assert.equal(waiting.value, 'waits');
    fds.delete(5);
    locks.tick();
    assert.equal(waiting.value, 'waits', 'a descriptor of another file');
    if (ended === 'gone') processes.open.delete(1);
    else fds.delete(4);
    if (ended === 'reopened') {
      // While it is being opened it has no number yet.
      assert.equal(locks.opensQuietly(current), false);
      fds.set(4, INODE);
    }
    locks.tick();
    assert.equal(waiting.value, 0);
    assert.equal(locks.count, 1);
  }
});

test("an open file description isn't watched: its locks end with its RELEASE", () => {
  const { locks, processes, detached, current } = setUp();
  locks.opensQuietly(detached);
  processes.open.set(1, new Map([[3, INODE]]));
  processes.descriptions.add(1);
  assert.equal(locks.set(wanted(detached, 1, F_WRLCK)), 0);
  processes.open.delete(1);
  assert.equal(locks.set(wanted(current, 2, F_WRLCK)), -EAGAIN);
  assert.notEqual(locks.test({ ...wanted(current, 2, F_WRLCK), type: F_WRLCK })?.owner.kind, 'process');
  locks.released(detached, 1, true);
  assert.equal(locks.set(wanted(current, 2, F_WRLCK)), 0);
});

test('a thread that is found running is asked again, and may be interrupted meanwhile', async () => {
  const { locks, processes, current } = setUp();
  processes.running = 20;
  const first = outcomeOf(locks.set(wanted(current, 1, F_WRLCK)));
  assert.equal(first.value, 'waits');
  const interrupted = locks.set(wanted(current, 2, F_WRLCK, { waits: true }));
  assert.ok(interrupted instanceof Parked);
  const second = outcomeOf(interrupted);
  interrupted.interrupted();
  assert.equal(second.value, -EINTR);
  while (first.value === 'waits') await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(first.value, 0);
  assert.equal(locks.waiters, 0);
});

test('waits end in their order, with a signal, or with the news that they would never end', () => {
  const { locks, current, other } = setUp();
  assert.equal(locks.set(wanted(current, 1, F_WRLCK)), 0);
  const [reader, writer, last] = ([F_RDLCK, F_WRLCK, F_RDLCK] as const).map((type, index) =>
    locks.set(wanted(current, index + 2, type, { waits: true })),
  );
  assert.ok(reader !== undefined && writer instanceof Parked && last !== undefined);
  const [a, b, d] = [reader, writer, last].map(outcomeOf);
  assert.equal(locks.set(wanted(other, 3, F_WRLCK)), 0);
  assert.equal(locks.set(wanted(other, 1, F_WRLCK, { waits: true })), -EDEADLK);
  assert.equal(locks.set(wanted(current, 1, F_UNLCK)), 0);
  assert.deepEqual([a?.value, b?.value, d?.value], [0, 'waits', 0]);
  writer.interrupted();
  assert.equal(b?.value, -EINTR);
  assert.equal(locks.waiters, 0);
});

test('a table that is full refuses what needs a row, and changes nothing', () => {
  const { locks, current } = setUp(4);
  for (let at = 0n; at < 8n; at += 2n) assert.equal(locks.set(wanted(current, 1, F_WRLCK, { start: at, end: at })), 0);
  assert.equal(locks.set(wanted(current, 1, F_WRLCK, { start: 20n, end: 20n })), -ENOLCK);
  assert.equal(locks.set(wanted(current, 2, F_WRLCK, { start: 20n, end: 20n })), -ENOLCK);
  assert.equal(locks.set(wanted(current, 1, F_WRLCK, { start: 0n, end: 6n })), 0, 'one instead of four');
  assert.equal(locks.count, 1);
  assert.equal(locks.set(wanted(current, 2, F_RDLCK, { start: 3n, end: 3n })), -EAGAIN);
});

const step = fc.record({
  process: fc.integer({ min: 1, max: 4 }),
  node: fc.nat(2),
  flock: fc.boolean(),
  start: fc.nat(9),
  length: fc.integer({ min: 1, max: 10 }),
  type: fc.constantFrom<LockType | typeof F_UNLCK>(F_RDLCK, F_WRLCK, F_UNLCK),
  ends: fc.integer({ min: 0, max: 9 }),
});

test('a later server has the same locks, wherever the one before was killed', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.nat(29), (list, killedAt) => {
      const world = setUp();
      let { journal, locks } = world;
      const slots = [world.detached, world.current, world.other];
      const all = (from: Locks): unknown[] =>
        slots.flatMap((slot) =>
          Array.from({ length: 10 }, (_, at) => {
            const found = from.test({
              ...wanted(slot, 9, F_WRLCK, { start: BigInt(at), end: BigInt(at) }),
              type: F_WRLCK,
            });
            // Which of several comes first isn't kept.
            return found === undefined
              ? undefined
              : from.test({ ...wanted(slot, 9, F_RDLCK), type: F_RDLCK }) !== undefined;
          }),
        );
      for (const [index, { process, node, flock, start, length, type, ends }] of list.entries()) {
        const slot = slots[node] ?? 0;
        const range = flock ? { start: 0n, end: 9n } : { start: BigInt(start), end: BigInt(start + length - 1) };
        const before = all(locks);
        if (ends === 0) locks.released(slot, process, false);
        else if (ends === 1) locks.closed(slot, BigInt(process));
        else locks.set(wanted(slot, process, type, { ...range, flock }));
        if (index === killedAt) {
          journal.rollback();
          ({ journal, locks } = world.takeOver());
          assert.deepEqual(all(locks), before);
          continue;
        }
        journal.commit();
        const later = world.takeOver();
        assert.deepEqual(all(later.locks), all(locks));
        assert.equal(later.rows.flaw(world.nodes), undefined);
      }
      for (const slot of slots) for (let process = 1; process <= 4; process++) locks.released(slot, process, false);
      assert.equal(locks.count, 0);
    }),
  );
});
