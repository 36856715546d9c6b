/** When a file leaves the shared route, and what its readers, its writers and everybody else see then. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ESTALE } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack } from '../fuse/device.ts';
import { type Mounted, makeMounted, withClones } from './mounted.ts';

/** An OPEN whose answer may come later; `pid` is the thread that asks. */
async function openLater(m: Mounted, nodeid: number, flags: number, pid: number): Promise<() => number | undefined> {
  const unique = m.sendAs(pid, 'OPEN', nodeid, [pack(s.fuse_open_in, { flags })]);
  await new Promise(setImmediate);
  return () => m.device.replies.find((reply) => reply.unique === unique)?.error;
}

test('a shared file that is opened for writing gets a new node of the same inode number', () => {
  for (const flags of [c.O_RDWR, c.O_WRONLY, c.O_RDONLY | c.O_TRUNC]) {
    const m = makeMounted();
    const { a } = withClones(m);
    const old = m.lookup('a');
    const reader = m.open(old.nodeid, c.O_RDONLY);
    assert.equal(m.isShared(reader), true);
    assert.equal(m.open(old.nodeid, flags).error, -ESTALE);
    assert.equal(m.mount.routes.leaving?.detached, 1);
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

test('a change of mode keeps readers, and the file shared', () => {
  const m = makeMounted();
  withClones(m);
  const old = m.lookup('a');
  const reader = m.open(old.nodeid, c.O_RDONLY);
  m.settle();
  assert.equal(m.call('SETATTR', old.nodeid, pack(s.fuse_setattr_in, { valid: 1, mode: 0o600 })).error, 0);
  m.settle();
  const again = m.open(old.nodeid, c.O_RDONLY);
  assert.equal(again.backingId, reader.backingId, 'its bytes are the same, and so is its mapping');
  assert.equal(m.lookup('a').nodeid, old.nodeid);
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

test('each name of a file with several leads to the node that may be opened, once it was looked up again', () => {
  const m = makeMounted({ entrySeconds: 10 });
  const { a } = withClones(m);
  m.root.entries.set('second', a);
  a.nlink = 2;
  m.settle();
  const reply = m.call('LOOKUP', 1, names('second'));
  assert.equal(s.fuse_entry_out.entry_valid.get(reply.view, 0), 0, 'the kernel asks for such a name each time');
  const old = m.entry(reply);
  const reader = m.open(old.nodeid, c.O_RDONLY);
  assert.equal(m.open(old.nodeid, c.O_RDWR).error, -ESTALE);
  const next = m.lookup('a');
  assert.equal(m.lookup('second').nodeid, next.nodeid);
  m.release(m.open(next.nodeid, c.O_RDWR));
  assert.equal(
    m.isShared(m.open(next.nodeid, c.O_RDONLY)),
    false,
    'a file that was fought for is not shared for a while',
  );
  for (const open of [...(m.opens.get(next.nodeid) ?? [])]) m.release(open);
  for (let i = 0; i < 61; i++) m.settle();
  m.kept.tidy();
  assert.equal(m.isShared(m.open(next.nodeid, c.O_RDONLY)), true);
  // By the old node, which someone still has: the one behind it must be ready to be written.
  assert.equal(m.open(old.nodeid, c.O_RDWR).error, -ESTALE);
  assert.equal(m.open(m.lookup('second').nodeid, c.O_RDWR).error, 0);
  assert.equal(m.content(reader), 'shared bytes');
  m.end();
});

test('a writer waits for a reader that closes soon, and whoever comes meanwhile waits behind him', async () => {
  const m = makeMounted({ patienceMs: 60_000 });
  withClones(m);
  const { nodeid } = m.lookup('a');
  const reader = m.open(nodeid, c.O_RDONLY);
  const writer = await openLater(m, nodeid, c.O_RDWR, 1);
  const late = await openLater(m, nodeid, c.O_RDONLY, 2);
  assert.equal(writer(), undefined, 'the writer waits');
  assert.equal(late(), undefined, 'a reader that comes later waits, too');
  m.sendAs(3, 'RELEASE', nodeid, [pack(s.fuse_release_in, { fh: reader.fh })]);
  await new Promise(setImmediate);
  assert.equal(writer(), 0);
  assert.equal(late(), 0);
  const row = m.mount.nodes.openRow(nodeid - 1);
  assert.equal(m.mount.routes.of(row).name, 'own');
  assert.equal(m.mount.routes.leaving?.waited, 1);
  assert.equal(m.mount.routes.leaving?.detached, 0, 'nobody was left behind');
});

test('a writer waits no longer than a moment for a reader that stays', async () => {
  const m = makeMounted({ patienceMs: 1 });
  withClones(m);
  const { nodeid } = m.lookup('a');
  m.open(nodeid, c.O_RDONLY);
  const writer = await openLater(m, nodeid, c.O_RDWR, 1);
  while (writer() === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(writer(), -ESTALE);
  assert.equal(m.mount.routes.leaving?.detached, 1);
  assert.deepEqual(m.mappings.learned, [0], 'what happened is learned of the content');
  m.device.take();
  const next = m.lookup('a').nodeid;
  assert.notEqual(next, nodeid);
  assert.ok(m.mount.routes.chooser.isLive(next - 1), 'the new node is not shared for a while');
});

test('what a detached node has open can be opened again by a link to it, and by no name', async () => {
  const m = makeMounted();
  withClones(m);
  const { nodeid } = m.lookup('a');
  const reader = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.open(nodeid, c.O_RDWR).error, -ESTALE);
  // The kernel asks twice, and looks a name up in between (fs/namei.c: do_filp_open); a link of /proc leads to the node again.
  assert.equal((await openLater(m, nodeid, c.O_RDONLY, 7))(), -ESTALE);
  assert.equal((await openLater(m, nodeid, c.O_RDONLY, 8))(), -ESTALE, 'another thread');
  assert.equal((await openLater(m, nodeid, c.O_RDONLY, 7))(), 0);
  assert.equal((await openLater(m, nodeid, c.O_RDWR, 7))(), -ESTALE);
  assert.equal((await openLater(m, nodeid, c.O_RDWR, 7))(), -ESTALE, 'never for writing');
  assert.equal(m.content(reader), 'shared bytes');
});

test('attributes of a file that changed while it is open on the shared route are those of what its readers can read', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const old = m.lookup('a');
  m.open(old.nodeid, c.O_RDONLY);
  m.kernel.modify(a, Buffer.from('it has become much longer'));
  const seen = m.call('GETATTR', old.nodeid, pack(s.fuse_getattr_in));
  assert.equal(s.fuse_attr.size.get(seen.view, s.fuse_attr_out.structBytes), 'shared bytes'.length);
  const next = m.lookup('a');
  assert.notEqual(next.nodeid, old.nodeid);
  assert.equal(next.size, 'it has become much longer'.length);
});

test('a file that is looked up after it changed gets a new node while its readers keep the old one', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const old = m.lookup('a');
  const reader = m.open(old.nodeid, c.O_RDONLY);
  m.kernel.modify(a, Buffer.from('other bytes!'));
  const next = m.lookup('a');
  assert.notEqual(next.nodeid, old.nodeid);
  assert.equal(m.content(reader), 'shared bytes');
  m.end();
});
