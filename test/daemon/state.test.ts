/**
 * A server's state under a fuzzer: whatever somebody writes into it, a later server refuses it in words or takes it over, and never
 * hangs, throws anything else, or reads outside of it.
 *
 * SHAREDEXT_FUZZ_RUNS, SHAREDEXT_FUZZ_SEED: more states, and others.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { journalBytes } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';
import { parseOptions } from '../../src/daemon/options.ts';
import { flawOf, makeState, openState, type State } from '../../src/daemon/state.ts';
import { HANDLE_BYTES } from '../../src/filesystem/handles.ts';
import { ROUTES } from '../../src/filesystem/routes/route.ts';
import { close, ftruncate } from '../../src/sys/libc.ts';

const RUNS = Number(process.env['SHAREDEXT_FUZZ_RUNS'] ?? 150);
const SEED = Number(process.env['SHAREDEXT_FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const options = parseOptions(['nodes=1024,mappings=64,domain=dir']);
const PAIRS = 1 << 21;

/** A state in the middle of a mount's life: nodes, open files, mappings, and a step that was not completed. */
function live(): State {
  const state = makeState(options);
  const { nodes, opens, mappings, journal } = state;
  const handle = memoryAt(0, new ArrayBuffer(64));
  handle.view.setUint32(0, HANDLE_BYTES - 8, true);
  for (let inode = 0; inode < 40; inode++) {
    handle.view.setUint32(8, inode, true);
    const slot = nodes.lookUp(handle, 0, inode === 0 ? 0o40755 : 0o100644);
    if (inode % 4 !== 1) continue;
    const mapping = mappings.take();
    mappings.publish(mapping, { size: inode * 100, hash: inode, inode, domain: 0, owner: 0 });
    if (inode % 8 === 1) continue;
    mappings.leaveIdle(mapping);
    mappings.setUsers(mapping, 1);
    nodes.setOpenRow(slot, opens.add(slot, ROUTES.shared, false, inode, mapping));
    opens.addHandle(5, slot, 1, 0);
  }
  journal.commit();
  nodes.lookUp(handle, 0, 0o100644);
  opens.add(3, ROUTES.own, false, 7, -1);
  return state;
}

/** What a later server makes of it: the reason why it refuses, or undefined. */
function outcomeOf(fd: number): string | undefined {
  let state: State;
  try {
    state = openState(fd, options);
  } catch (error) {
    assert.ok(error instanceof Error && error.name === 'Error', String(error));
    return error.message;
  }
  state.journal.rollback();
  return flawOf(state);
}

test('an interrupted state is rolled back, and sound', () => {
  const { fd, nodes } = live();
  assert.equal(outcomeOf(fd), undefined);
  assert.equal(nodes.lookups(39), 1, 'the lookup that was not answered is taken back');
  close(fd);
});

test('a state that is cut short is refused', () => {
  for (const bytes of [0, 4, 4096, journalBytes(PAIRS), journalBytes(PAIRS) + 4096]) {
    const { fd } = live();
    ftruncate(fd, bytes);
    assert.match(outcomeOf(fd) ?? '', /bytes only|not made by sharedext|other mount options/);
    close(fd);
  }
});

test('a state with random words in it is refused, or taken over', (t) => {
  let refused = 0;
  let runs = 0;
  const word = fc.oneof(fc.nat(40), fc.nat(3000), fc.integer({ min: 0, max: 200_000 }));
  const value = fc.oneof(fc.nat(3), fc.integer({ min: 0, max: 0xffff_ffff }), fc.constant(0xffff_ffff));
  fc.assert(
    fc.property(
      fc.array(fc.record({ front: fc.boolean(), word, value }), { minLength: 1, maxLength: 12 }),
      (changes) => {
        const { fd, journal } = live();
        const behind = journalBytes(PAIRS) / 4;
        for (const change of changes) journal.words[(change.front ? 0 : behind) + change.word] = change.value;
        runs++;
        if (outcomeOf(fd) !== undefined) refused++;
        close(fd);
      },
    ),
    { numRuns: RUNS, seed: SEED },
  );
  t.diagnostic(`${runs} states with seed ${SEED}: ${refused} refused`);
  assert.ok(refused > 0);
});
