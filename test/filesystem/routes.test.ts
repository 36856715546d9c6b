/** Which backing file each open gets. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EIO, ENFILE, ESTALE } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import { KEPT_MS } from '../../src/fuse/server/backing.ts';
import { FOPEN_NOFLUSH, FOPEN_PASSTHROUGH, FUSE_WRITE_CACHE } from '../../src/fuse/wire/constants.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack } from '../fuse/device.ts';
import { type Mounted, makeMounted, REGULAR, withClones } from './mounted.ts';

const reason = (m: Mounted, name: string): number => m.mount.routes.chooser.reasons.get(name) ?? 0;

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
  for (const [name, expected] of [
    ['private', 'unshared'],
    ['empty', 'empty'],
    ['fresh', 'recent'],
  ] as const) {
    const before = reason(m, expected);
    const open = m.open(m.lookup(name).nodeid, c.O_RDONLY);
    assert.equal(m.isShared(open), false);
    assert.equal(open.openFlags, FOPEN_PASSTHROUGH | (open.writing ? 0 : FOPEN_NOFLUSH));
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
  assert.equal(reader.openFlags, FOPEN_NOFLUSH);
  assert.equal(reason(m, 'backing'), 1);
  const writer = m.open(nodeid, c.O_RDWR);
  assert.equal(writer.openFlags, 0);
  const written = m.call(
    'WRITE',
    nodeid,
    pack(s.fuse_write_in, { fh: writer.fh, offset: 7, size: 5 }),
    Buffer.from('BYTES'),
  );
  assert.equal(s.fuse_write_out.size.get(written.view, 0), 5);
  const read = m.call('READ', nodeid, pack(s.fuse_read_in, { fh: reader.fh, offset: 2, size: 100 }));
  assert.equal(Buffer.from(read.payload).toString(), 'ared BYTES');
  assert.equal(a.data.toString(), 'shared BYTES');
  m.backing.limit = 10;
  const more = m.open(nodeid, c.O_RDONLY);
  assert.equal(more.openFlags, FOPEN_NOFLUSH, 'the route stays while the file is open');
  for (const open of [reader, writer, more]) m.release(open);
  assert.equal(
    m.open(nodeid, c.O_RDONLY).openFlags,
    FOPEN_PASSTHROUGH | FOPEN_NOFLUSH,
    'and is decided again after that',
  );
  m.end();
});

test('a relayed request is carried out whole where the kernel does less at a time', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  m.backing.limit = 0;
  const { nodeid } = m.lookup('a');
  const open = m.open(nodeid, c.O_RDWR);
  m.kernel.transferLimit = 2;
  const read = m.call('READ', nodeid, pack(s.fuse_read_in, { fh: open.fh, offset: 2, size: 100 }));
  assert.equal(Buffer.from(read.payload).toString(), 'ared bytes');
  const failAfter = (calls: number) => {
    m.kernel.failAfter = calls;
    m.kernel.failWith = EIO;
  };
  const write = (flags: number) =>
    m.call(
      'WRITE',
      nodeid,
      pack(s.fuse_write_in, { fh: open.fh, offset: 7, size: 5, write_flags: flags }),
      Buffer.from('BYTES'),
    );
  assert.equal(s.fuse_write_out.size.get(write(0).view, 0), 5);
  assert.equal(a.data.toString(), 'shared BYTES');
  // It looks at the file's mode first.
  failAfter(2);
  assert.equal(s.fuse_write_out.size.get(write(0).view, 0), 2, 'what was written before the error');
  failAfter(1);
  assert.equal(write(FUSE_WRITE_CACHE).error, -EIO, 'pages of a map are written whole, or not');
  failAfter(1);
  const failed = m.call('READ', nodeid, pack(s.fuse_read_in, { fh: open.fh, size: 100 }));
  assert.equal(failed.error, -EIO, 'a short answer would be the end of the file');
  m.release(open);
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

test('an unlinked file that nobody has open is there until it is forgotten, and is pinned only if it has no other name', () => {
  const m = makeMounted();
  const inode = m.kernel.add(m.root, 'own', REGULAR, 'text');
  m.kernel.add(m.root, 'replacing', REGULAR, 'other');
  const { nodeid } = m.lookup('own');
  assert.equal(m.call('LINK', 1, pack(s.fuse_link_in, { oldnodeid: nodeid }), names('second')).error, 0);
  assert.equal(m.call('UNLINK', 1, names('own')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  assert.equal(m.call('RENAME', 1, pack(s.fuse_rename_in, { newdir: 1 }), names('replacing', 'second')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 1);
  assert.deepEqual([...m.held.keys()], [], 'a later server does without');
  assert.equal(m.call('GETATTR', nodeid, pack(s.fuse_getattr_in)).error, 0);
  m.forget(nodeid, m.lookups.get(nodeid) ?? 0);
  m.forget(nodeid, 1);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  assert.equal(m.kernel.inodes.has(inode.ino), false);
  m.end();
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

test('what is decided after a wait is decided by the file itself, whatever was looked at meanwhile', async () => {
  for (const uid of [0, 1000]) {
    const m = makeMounted();
    const { a } = withClones(m);
    a.uid = uid;
    const other = m.kernel.add(m.root, 'other', REGULAR, 'of somebody else');
    other.uid = 1000 - uid;
    m.settle();
    m.mappings.slow = true;
    const { nodeid } = m.lookup('a');
    m.send('OPEN', nodeid, [pack(s.fuse_open_in, { flags: c.O_RDONLY })]);
    m.open(m.lookup('other').nodeid, c.O_RDONLY);
    assert.equal(m.backing.guarded.get(other), uid === 0);
    m.kernel.failAfter = 0;
    m.mappings.finish();
    await new Promise(setImmediate);
    const [reply] = m.device.take();
    assert.ok(reply !== undefined);
    m.opened(reply, nodeid, c.O_RDONLY, 0);
    assert.equal(m.kernel.failed, 'clone');
    assert.equal(reason(m, 'clone-failed'), 1);
    assert.equal(m.backing.guarded.get(a), uid !== 0, 'users may write to it');
    m.end();
  }
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
  // Nothing is known of the file afterwards, so that the second open has to decide anew.
  m.kernel.failAfter = 0;
  m.kernel.failWith = EIO;
  m.mappings.finish();
  await new Promise(setImmediate);
  // The second open has decided anew, and waited.
  m.mappings.finish();
  await new Promise(setImmediate);
  m.mappings.slow = false;
  const [failed, second] = m.device.take();
  assert.ok(failed !== undefined && second !== undefined);
  assert.equal(failed.error, -ENFILE);
  m.opened(second, nodeid, c.O_RDONLY, 0);
  m.end();
});

test('an open that finds no room in the tables is refused, and leaves nothing', () => {
  const full = () => -1;
  for (const table of ['add', 'addHandle'] as const) {
    for (const flags of [c.O_RDONLY, c.O_RDWR]) {
      const m = makeMounted();
      withClones(m);
      const { nodeid } = m.lookup('a');
      Object.assign(m.mount.opens, { [table]: full });
      const needed = table === 'add' || flags !== c.O_RDONLY;
      assert.equal(m.open(nodeid, flags).error, needed ? -ENFILE : 0);
      const created = m.call('CREATE', 1, pack(s.fuse_create_in, { flags: c.O_RDWR, mode: REGULAR }), names('new'));
      assert.equal(created.error, -ENFILE);
      const stream = m.call('OPENDIR', 1, pack(s.fuse_open_in)).error;
      if (table === 'addHandle') assert.equal(stream, -ENFILE);
      else m.call('RELEASEDIR', 1, pack(s.fuse_release_in, { fh: 1 }));
      m.end();
    }
  }
});

test('a file of its own that is opened again at once has the same backing id, and no call is made for it', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'private', REGULAR, 'private bytes');
  m.settle();
  const { nodeid } = m.lookup('private');
  const first = m.open(nodeid, c.O_RDONLY);
  m.release(first);
  const calls = m.kernel.log.length;
  const second = m.open(nodeid, c.O_RDONLY);
  assert.equal(second.backingId, first.backingId);
  assert.equal(m.kernel.log.length, calls);
  assert.equal(reason(m, 'kept'), 1);
  m.release(second);
  m.kernel.nowMs += KEPT_MS;
  m.kept.tidy();
  assert.equal(m.backing.ids.size, 0);
  m.end();
});

test('a file that loses its name, or is open for writing, is not kept open once its last user has closed it', () => {
  const m = makeMounted();
  for (const name of ['unlinked', 'open', 'replaced', 'replacing', 'written'])
    m.kernel.add(m.root, name, REGULAR, `bytes of ${name}`);
  m.settle();
  const open = m.open(m.lookup('open').nodeid, c.O_RDONLY);
  for (const name of ['unlinked', 'replaced']) m.release(m.open(m.lookup(name).nodeid, c.O_RDONLY));
  assert.equal(m.backing.ids.size, 3);
  assert.equal(m.call('UNLINK', 1, ...[names('unlinked')]).error, 0);
  assert.equal(m.call('UNLINK', 1, ...[names('open')]).error, 0);
  assert.equal(
    m.call('RENAME', 1, ...[pack(s.fuse_rename_in, { newdir: 1 }), names('replacing', 'replaced')]).error,
    0,
  );
  assert.equal(m.backing.ids.size, 1, 'the one that is open');
  m.release(open);
  m.release(m.open(m.lookup('written').nodeid, c.O_RDWR));
  assert.equal(m.backing.ids.size, 0);
  m.end();
});

test('a file that was cloned since it was kept is shared a moment later', () => {
  const m = makeMounted();
  const file = m.kernel.add(m.root, 'file', REGULAR, 'bytes');
  m.settle();
  m.release(m.open(m.lookup('file').nodeid, c.O_RDONLY));
  m.kernel.reflink(m.root, 'clone', file);
  m.kernel.nowMs += KEPT_MS;
  m.kept.tidy();
  const opens = ['file', 'clone'].map((name) => m.open(m.lookup(name).nodeid, c.O_RDONLY));
  assert.ok(opens.every((open) => m.isShared(open)));
  for (const open of opens) m.release(open);
  m.end();
});

test('nothing is shared that somebody has open for writing, and nothing that was opened for writing a moment ago', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const { nodeid } = m.lookup('a');
  a.written = true;
  const other = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.isShared(other), false);
  assert.equal(reason(m, 'written-elsewhere'), 1);
  m.release(other);
  a.written = false;
  m.release(m.open(nodeid, c.O_WRONLY));
  const soon = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.isShared(soon), false);
  assert.equal(reason(m, 'recent'), 1);
  m.release(soon);
  m.settle();
  const later = m.open(nodeid, c.O_RDONLY);
  assert.equal(m.isShared(later), true);
  m.end();
});

test('a map that may be left of a writer keeps a file from being shared until nobody has it open for writing', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  const { nodeid } = m.lookup('a');
  const known = m.open(nodeid, c.O_RDONLY);
  m.release(known);
  m.release(m.open(nodeid, c.O_RDWR));
  m.settle();
  a.written = true;
  assert.equal(m.isShared(m.open(nodeid, c.O_RDONLY)), false, 'though its ctime is what it was');
  for (const open of [...(m.opens.get(nodeid) ?? [])]) m.release(open);
  a.written = false;
  m.settle();
  assert.equal(m.isShared(m.open(nodeid, c.O_RDONLY)), true);
  m.end();
});

test('logs and files that the mount was told of are live by their names, however they got them', () => {
  const m = makeMounted();
  const { a } = withClones(m);
  for (const name of ['app.log', 'data.told', 'messages']) {
    m.kernel.reflink(m.root, name, a);
    m.settle();
    assert.equal(m.isShared(m.open(m.lookup(name).nodeid, c.O_RDONLY)), false, name);
  }
  assert.equal(reason(m, 'live'), 3);
  const program = m.kernel.reflink(m.root, 'git-log', a);
  program.mode |= 0o111;
  m.settle();
  assert.equal(m.isShared(m.open(m.lookup('git-log').nodeid, c.O_RDONLY)), true, 'a program');
  const moved = m.lookup('b');
  assert.equal(m.call('RENAME', 1, pack(s.fuse_rename_in, { newdir: 1 }), names('b', 'b.log')).error, 0);
  assert.equal(m.isShared(m.open(moved.nodeid, c.O_RDONLY)), false, 'it was renamed');
  const linked = m.lookup('c');
  m.entry(m.call('LINK', 1, pack(s.fuse_link_in, { oldnodeid: linked.nodeid }), names('c.log')));
  assert.equal(m.isShared(m.open(linked.nodeid, c.O_RDONLY)), false, 'it got a second name');
  m.end();
});
