/** Random sequences of operations, against the rules of the routes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ESTALE } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack } from '../fuse/device.ts';
import { type Mounted, makeMounted, REGULAR, withClones } from './mounted.ts';

const FILES = ['a', 'b', 'c', 'd', 'e'] as const;
type Step = { readonly kind: string; readonly name: string; readonly other: string; readonly pick: number };

/** What the kernel does for a user's open: look up, open, and once more if that was stale. */
function openByName(m: Mounted, name: string, flags: number): void {
  for (let attempt = 0; attempt < 2; attempt++) {
    const entry = m.lookup(name);
    if (entry.error !== 0 || entry.nodeid === 0) return;
    if (m.open(entry.nodeid, flags).error !== -ESTALE) return;
    assert.equal(attempt, 0, 'what was just looked up is not stale again');
  }
}

function act(m: Mounted, step: Step): void {
  const { kernel, root } = m;
  const file = root.entries.get(step.name);
  const nodes = [...m.lookups.keys()];
  const node = nodes[step.pick % Math.max(nodes.length, 1)];
  const opens = [...m.opens.values()].flat();
  const opened = opens[step.pick % Math.max(opens.length, 1)];
  switch (step.kind) {
    case 'read':
      openByName(m, step.name, c.O_RDONLY);
      return;
    case 'write':
      openByName(m, step.name, c.O_RDWR);
      return;
    case 'truncate':
      openByName(m, step.name, c.O_WRONLY | c.O_TRUNC);
      return;
    case 'reopen':
      if (node !== undefined) m.open(node, step.pick % 2 === 0 ? c.O_RDONLY : c.O_RDWR);
      return;
    case 'release':
      if (opened !== undefined) m.release(opened);
      return;
    case 'forget':
      if (node !== undefined && !m.opens.has(node)) m.forget(node);
      return;
    case 'lookup':
      m.lookup(step.name);
      return;
    case 'unlink':
      m.call('UNLINK', 1, names(step.name));
      return;
    case 'rename':
      m.call('RENAME2', 1, pack(s.fuse_rename2_in, { newdir: 1, flags: step.pick % 3 }), names(step.name, step.other));
      return;
    case 'size':
      if (node !== undefined) m.setSize(node, step.pick);
      return;
    case 'mode':
      if (node !== undefined) m.call('SETATTR', node, pack(s.fuse_setattr_in, { valid: 1, mode: 0o600 }));
      return;
    case 'around':
      if (file !== undefined) kernel.modify(file, Buffer.from(`around ${step.pick}`));
      return;
    case 'reflink':
      if (file !== undefined && !root.entries.has(step.other)) kernel.reflink(root, step.other, file);
      return;
    case 'add':
      if (file === undefined) kernel.add(root, step.name, REGULAR, `bytes ${step.pick}`);
      return;
    case 'drop':
      m.mappings.dropIdle();
      return;
    case 'settle':
      m.settle();
      return;
    default:
      m.backing.limit = step.pick % 4 === 0 ? 1 : Number.POSITIVE_INFINITY;
  }
}

test('no sequence of operations breaks the rules of the routes, or leaves anything behind', () => {
  const name = fc.constantFrom(...FILES);
  const common = ['read', 'read', 'read', 'write', 'release', 'settle', 'reflink'];
  const rare = [
    'truncate',
    'reopen',
    'forget',
    'lookup',
    'unlink',
    'rename',
    'size',
    'mode',
    'around',
    'add',
    'drop',
    'limit',
  ];
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom(...common, ...rare),
    name,
    other: name,
    pick: fc.nat(50),
  });
  let mappings = 0;
  let broken = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 120, size: 'max' }), (steps) => {
      const m = makeMounted();
      withClones(m);
      for (const one of steps) {
        act(m, one);
        m.kernel.nowMs += 100;
        m.checkOpens();
      }
      mappings += m.mappings.rows.length;
      broken += m.mount.routes.leaving?.detached ?? 0;
      m.end();
    }),
    { numRuns: 300 },
  );
  assert.ok(mappings > 100 && broken > 100, `the sequences share (${mappings}) and break sharing (${broken})`);
});
