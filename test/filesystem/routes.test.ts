/** Which backing file each open gets, and when a file leaves the shared route. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ENFILE, ESTALE } from '../../src/base/errno.ts';
import * as c from '../../src/filesystem/constants.ts';
import { FOPEN_PASSTHROUGH } from '../../src/fuse/wire/constants.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack } from '../fuse/device.ts';
import type { Inode } from './fake.ts';
import { type Mounted, makeMounted } from './mounted.ts';

const REGULAR = c.S_IFREG | 0o644;

/** A file `a` and its reflinks `b` and `c`, all of them settled. */
function withClones(m: Mounted): { a: Inode; b: Inode; c: Inode } {
  const a = m.kernel.add(m.root, 'a', REGULAR, 'shared bytes');
  const b = m.kernel.reflink(m.root, 'b', a);
  const third = m.kernel.reflink(m.root, 'c', a);
  m.settle();
  return { a, b, c: third };
}

const reason = (m: Mounted, name: string): number => m.mount.routes.reasons.get(name) ?? 0;

test('reflinks that are opened for reading have one backing id in common', () => {
  const m = makeMounted();
  withClones(m);
  const opens = ['a', 'b', 'c'].map((name) => m.open(m.lookup(name).nodeid, c.O_RDONLY));
  assert.ok(opens.every((open) => m.isShared(open)));
  assert.equal(new Set(opens.map((open) => open.backingId)).size, 1);
  assert.equal(m.backing.ids.size, 1);
  assert.equal(m.mount.opens.descriptors, 0, 'a read-only passthrough open costs no descriptor');
  for (const open of opens) m.release(open);
  assert.equal(m.backing.closed, 1);
  m.end();
});

test('each decision for the own route is counted with its reason', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  m.kernel.add(m.root, 'private', REGULAR, 'private bytes');
  m.kernel.add(m.root, 'empty', REGULAR);
  m.settle();
  const fresh = m.kernel.add(m.root, 'fresh', REGULAR, 'x');
  m.kernel.reflink(m.root, 'fresh2', fresh);
  for (const [name, expected] of [['private', 'unshared'], ['empty', 'empty'], ['fresh', 'recent']] as const) {
    const before = reason(m, expected);
    const open = m.open(m.lookup(name).nodeid, c.O_RDONLY);
    assert.equal(m.isShared(open), false);
    assert.equal(open.openFlags, FOPEN_PASSTHROUGH);
    assert.equal(reason(m, expected), before + 1, expected);
    m.release(open);
  }
  m.open(m.lookup('b').nodeid, c.O_RDWR);
  assert.equal(reason(m, 'writing'), 1);
  // The content is old, but the ctime is not: another change could leave it the same.
  m.kernel.touch(a);
  m.kernel.nowMs += 20;
  m.open(m.lookup('a').nodeid, c.O_RDONLY);
  assert.equal(reason(m, 'recent'), 2);
  m.end();
  const off = makeMounted({ share: false });
  withClones(off);
  assert.equal(off.isShared(off.open(off.lookup('a').nodeid, c.O_RDONLY)), false);
  assert.equal(reason(off, 'nosharedext'), 1);
  off.end();
});

test('a shared file that is opened for writing gets a new node of the same inode number', () => {
  for (const flags of [c.O_RDWR, c.O_WRONLY, c.O_RDONLY | c.O_TRUNC]) {
    const m = makeMounted();
    const { a } = withClones(m);
    const old = m.lookup('a');
    const reader = m.open(old.nodeid, c.O_RDONLY);
    assert.equal(m.isShared(reader), true);
    assert.equal(m.open(old.nodeid, flags).error, -ESTALE);
    assert.equal(m.mount.routes.broken, 1);
    assert.ok(m.invalidated.includes(old.nodeid));
    const next = m.lookup('a');
    assert.notEqual(next.nodeid, old.nodeid);
    assert.equal(next.ino, old.ino);
    const writer = m.open(next.nodeid, flags);
    assert.equal(writer.error, 0);
    m.kernel.modify(a, Buffer.from('new'));
    assert.equal(m.content(reader), 'shared bytes', 'the reader keeps the mapping');
    assert.equal(m.content(writer), 'new');
    assert.equal(m.open(old.nodeid, c.O_RDONLY).error, -ESTALE, 'a detached node is not opened again');
    const visible = m.call('GETATTR', old.nodeid, pack(s.fuse_getattr_in));
    assert.equal(s.fuse_attr.size.get(visible.view, s.fuse_attr_out.structBytes), 'shared bytes'.length);
    assert.equal(s.fuse_attr_out.attr_valid.get(visible.view, 0), 0, 'attributes of a detached node are not kept');
    m.end();
  }
});

test('truncating a shared file by path breaks sharing first', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const old = m.lookup('a');
  const reader = m.open(old.nodeid, c.O_RDONLY);
  assert.equal(m.setSize(old.nodeid, 3).error, -ESTALE);
  assert.equal(a.data.toString(), 'shared bytes');
  assert.equal(m.setSize(m.lookup('a').nodeid, 3).error, 0);
  assert.equal(a.data.toString(), 'sha');
  assert.equal(m.content(reader), 'shared bytes');
  m.end();
});

test('a change of mode keeps readers, and the next open looks the file up again', () => {
  const m = makeMounted();
  withClones(m);
  const old = m.lookup('a');
  const reader = m.open(old.nodeid, c.O_RDONLY);
  m.settle();
  assert.equal(m.call('SETATTR', old.nodeid, pack(s.fuse_setattr_in, { valid: 1, mode: 0o600 })).error, 0);
  m.settle();
  assert.equal(m.open(old.nodeid, c.O_RDONLY).error, -ESTALE);
  const again = m.open(m.lookup('a').nodeid, c.O_RDONLY);
  assert.equal(again.backingId, reader.backingId, 'its bytes are the same, and so is its mapping');
  m.end();
});

test('a file that was changed around the mount is not read through the old mapping by a new open', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const old = m.lookup('a');
  m.open(old.nodeid, c.O_RDONLY);
  m.kernel.modify(a, Buffer.from('changed byte'));
  m.settle();
  assert.equal(m.open(old.nodeid, c.O_RDONLY).error, -ESTALE);
  const again = m.open(m.lookup('a').nodeid, c.O_RDONLY);
  assert.equal(m.content(again), 'changed byte');
  m.end();
});

test('a mapping that was dropped and whose row is another one now is not used for what it was found for', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const { nodeid } = m.lookup('a');
  m.release(m.open(nodeid, c.O_RDONLY));
  m.mappings.dropIdle();
  const other = m.kernel.add(m.root, 'other', REGULAR, 'twelve bytes');
  m.kernel.reflink(m.root, 'other2', other);
  m.settle();
  assert.equal(other.data.length, a.data.length);
  const opened = m.open(m.lookup('other').nodeid, c.O_RDONLY);
  assert.equal(m.content(opened), 'twelve bytes');
  const again = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.content(again), 'shared bytes');
  assert.equal(m.isShared(again), true);
  m.end();
});

test('a file whose backing cannot be registered is relayed, with its reads and writes', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  m.backing.limit = 0;
  const { nodeid } = m.lookup('a');
  const reader = m.open(nodeid, c.O_RDONLY);
  assert.equal(reader.openFlags, 0);
  assert.equal(reason(m, 'backing'), 1);
  const writer = m.open(nodeid, c.O_RDWR);
  assert.equal(writer.openFlags, 0);
  const written = m.call('WRITE', nodeid, pack(s.fuse_write_in, { fh: writer.fh, offset: 7, size: 5 }), Buffer.from('BYTES'));
  assert.equal(s.fuse_write_out.size.get(written.view, 0), 5);
  const read = m.call('READ', nodeid, pack(s.fuse_read_in, { fh: reader.fh, offset: 2, size: 100 }));
  assert.equal(Buffer.from(read.payload).toString(), 'ared BYTES');
  assert.equal(a.data.toString(), 'shared BYTES');
  m.backing.limit = 10;
  const more = m.open(nodeid, c.O_RDONLY);
  assert.equal(more.openFlags, 0, 'the route stays while the file is open');
  for (const open of [reader, writer, more]) m.release(open);
  assert.equal(m.open(nodeid, c.O_RDONLY).openFlags, FOPEN_PASSTHROUGH, 'and is decided again after that');
  m.end();
});

test('an unlinked file that is open on a shared mapping keeps its attributes until it is forgotten', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const { nodeid } = m.lookup('a');
  const reader = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.call('UNLINK', 1, names('a')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 1);
  assert.equal(m.call('GETATTR', nodeid, pack(s.fuse_getattr_in)).error, 0);
  assert.deepEqual(m.mappings.suspects, [0]);
  m.release(reader);
  m.forget(nodeid);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  assert.equal(m.kernel.inodes.has(a.ino), false);
  m.end();
});

test('readers of a detached node keep their attributes when its file is unlinked or replaced', () => {
  for (const way of ['UNLINK', 'RENAME'] as const) {
    const m = makeMounted();
    withClones(m);
    const old = m.lookup('a');
    const reader = m.open(old.nodeid, c.O_RDONLY);
    assert.equal(m.open(old.nodeid, c.O_RDWR).error, -ESTALE);
    const next = m.lookup('a');
    m.release(m.open(next.nodeid, c.O_RDWR));
    m.forget(next.nodeid);
    if (way === 'UNLINK') assert.equal(m.call('UNLINK', 1, names('a')).error, 0);
    else assert.equal(m.call('RENAME', 1, pack(s.fuse_rename_in, { newdir: 1 }), names('b', 'a')).error, 0);
    assert.equal(m.call('GETATTR', old.nodeid, pack(s.fuse_getattr_in)).error, 0);
    assert.equal(m.content(reader), 'shared bytes');
    m.end();
  }
});

test('opens that come while a clone is being made wait for it and share its outcome', async () => {
  const m = makeMounted();
  withClones(m);
  m.mappings.slow = true;
  const { nodeid } = m.lookup('a');
  const other = m.lookup('b').nodeid;
  const flags = [c.O_RDONLY, c.O_RDONLY];
  for (const flag of flags) m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: flag })]);
  m.send('OPEN', other, [pack(s.fuse_open_in, { flags: c.O_RDWR })]);
  assert.equal(m.session.waiting, 2, 'another file does not wait');
  const [immediate] = m.device.take();
  assert.ok(immediate !== undefined);
  m.opened(immediate, other, c.O_RDWR, 0);
  m.mappings.finish();
  await new Promise(setImmediate);
  const replies = m.device.take();
  assert.equal(replies.length, 2);
  const opens = replies.map((reply) => m.opened(reply, nodeid, c.O_RDONLY, 0));
  assert.ok(opens.every((open) => m.isShared(open)));
  m.checkOpens();
  m.end();
});

test('an open for writing that waited for a clone breaks sharing', async () => {
  const m = makeMounted();
  withClones(m);
  m.mappings.slow = true;
  const { nodeid } = m.lookup('a');
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDWR })]);
  m.mappings.finish();
  await new Promise(setImmediate);
  const [reading, writing] = m.device.take();
  assert.ok(reading !== undefined && writing !== undefined);
  assert.equal(m.isShared(m.opened(reading, nodeid, c.O_RDONLY, 0)), true);
  assert.equal(writing.error, -ESTALE);
  m.end();
});

test('a file that changes while its clone is made is not put on the shared route', async () => {
  const m = makeMounted();
  const { a } = withClones(m);
  m.mappings.slow = true;
  const { nodeid } = m.lookup('a');
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
  assert.equal(m.setSize(nodeid, 5).error, 0);
  a.shared = true;
  m.mappings.finish();
  await new Promise(setImmediate);
  const [reply] = m.device.take();
  assert.ok(reply !== undefined);
  assert.equal(m.isShared(m.opened(reply, nodeid, c.O_RDONLY, 0)), false);
  assert.equal(reason(m, 'changing'), 1);
  m.end();
});

test('a change in the same tick as the look is not missed, however long the clone takes', async () => {
  const m = makeMounted();
  const { a } = withClones(m);
  // Without multigrain timestamps all changes of one tick of the clock have the same ctime.
  m.kernel.touch(a);
  m.kernel.nowMs += 1;
  m.mappings.slow = true;
  const { nodeid } = m.lookup('a');
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
  m.mappings.finish();
  const { ctimeMs } = a;
  m.kernel.modify(a, Buffer.from('same tick!!!'));
  a.ctimeMs = ctimeMs;
  m.kernel.nowMs += 5000;
  await new Promise(setImmediate);
  const [reply] = m.device.take();
  assert.ok(reply !== undefined);
  m.inodeNumbers.set(nodeid, a.ino);
  const opened = m.opened(reply, nodeid, c.O_RDONLY, 0);
  assert.equal(m.content(opened), 'same tick!!!');
  m.end();
});

test('an open that waited is answered and leaks nothing when the one before it failed', async () => {
  const m = makeMounted();
  withClones(m);
  m.mappings.slow = true;
  const { nodeid } = m.lookup('a');
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
  m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
  const { opens } = m.mount;
  const add = opens.add.bind(opens);
  opens.add = () => {
    opens.add = add;
    return -1;
  };
  m.mappings.finish();
  await new Promise(setImmediate);
  m.mappings.slow = false;
  const [failed, second] = m.device.take();
  assert.ok(failed !== undefined && second !== undefined);
  assert.equal(failed.error, -ENFILE);
  m.opened(second, nodeid, c.O_RDONLY, 0);
  m.end();
});

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
      return openByName(m, step.name, c.O_RDONLY);
    case 'write':
      return openByName(m, step.name, c.O_RDWR);
    case 'truncate':
      return openByName(m, step.name, c.O_WRONLY | c.O_TRUNC);
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
      return m.mappings.dropIdle();
    case 'settle':
      return m.settle();
    default:
      m.backing.limit = step.pick % 4 === 0 ? 1 : Number.POSITIVE_INFINITY;
  }
}

test('no sequence of operations breaks the rules of the routes, or leaves anything behind', () => {
  const name = fc.constantFrom(...FILES);
  const common = ['read', 'read', 'read', 'write', 'release', 'settle', 'reflink'];
  const rare = ['truncate', 'reopen', 'forget', 'lookup', 'unlink', 'rename', 'size', 'mode', 'around', 'add', 'drop', 'limit'];
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom(...common, ...rare),
    name,
    other: name,
    pick: fc.nat(50),
  });
  let shared = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const m = makeMounted();
      withClones(m);
      for (const one of steps) {
        act(m, one);
        m.kernel.nowMs += 100;
        m.checkOpens();
      }
      shared += m.mappings.rows.length;
      m.end();
    }),
    { numRuns: 300 },
  );
  assert.ok(shared > 100, 'the sequences came to share files');
});
