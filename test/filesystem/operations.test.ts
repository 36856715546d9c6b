/** Operations of the filesystem on a fake kernel: names, directories, what is hidden, and whose ids things are made with. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EACCES, EBADF, EEXIST, EINVAL, EMFILE, ENOENT, ESTALE } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import { type OperationName, operations } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { message, names, pack, type Reply } from '../fuse/device.ts';
import { type Mounted, makeMounted } from './mounted.ts';

const REGULAR = c.S_IFREG | 0o644;

interface Dirent {
  readonly name: string;
  readonly off: number;
  readonly nodeid: number;
}

function dirents(m: Mounted, reply: Reply, plus: boolean): Dirent[] {
  const found: Dirent[] = [];
  for (let at = 0; at < reply.payload.length; ) {
    const nodeid = plus ? s.fuse_entry_out.nodeid.get(reply.view, at) : 0;
    if (nodeid !== 0) m.lookups.set(nodeid, (m.lookups.get(nodeid) ?? 0) + 1);
    const from = plus ? at + s.SIZE_OF_ENTRY : at;
    const length = s.fuse_dirent.namelen.get(reply.view, from);
    const nameAt = from + s.fuse_dirent.structBytes;
    const name = Buffer.from(reply.payload.subarray(nameAt, nameAt + length)).toString();
    found.push({ name, off: s.fuse_dirent.off.get(reply.view, from), nodeid });
    at = nameAt + ((length + 7) & ~7);
  }
  return found;
}

function opendir(m: Mounted, nodeid: number): number {
  const reply = m.call('OPENDIR', nodeid, pack(s.fuse_open_in));
  assert.equal(reply.error, 0);
  return s.fuse_open_out.fh.get(reply.view, 0);
}

function readOnce(m: Mounted, fh: number, offset: number, size: number, plus = false): Reply {
  return m.call(plus ? 'READDIRPLUS' : 'READDIR', 1, pack(s.fuse_read_in, { fh, offset, size }));
}

/** Reads the whole root through buffers of `size` bytes. */
function list(m: Mounted, size: number, plus: boolean): Dirent[] {
  const fh = opendir(m, 1);
  const found: Dirent[] = [];
  for (;;) {
    const reply = readOnce(m, fh, found.at(-1)?.off ?? 0, size, plus);
    assert.equal(reply.error, 0);
    assert.ok(reply.payload.length <= size);
    if (reply.payload.length === 0) break;
    found.push(...dirents(m, reply, plus));
  }
  assert.equal(m.call('RELEASEDIR', 1, pack(s.fuse_release_in, { fh })).error, 0);
  return found;
}

test('a listing has names only while the kernel has the attributes of the last one, until it asks for an entry', () => {
  const m = makeMounted({ entrySeconds: 1 });
  for (const name of ['a', 'b', 'c']) m.kernel.add(m.root, name, REGULAR);
  const names = (): string[] => list(m, 4096, true).map(({ name }) => name);
  const withNodes = (): number => list(m, 4096, true).filter(({ nodeid }) => nodeid !== 0).length;
  assert.equal(withNodes(), 3);
  const calls = m.kernel.log.filter((name) => name === 'statx').length;
  assert.equal(withNodes(), 0);
  assert.deepEqual(names(), ['.', '..', 'a', 'b', 'c']);
  // The store's name is looked at each time, and it is what none of them has.
  assert.equal(m.kernel.log.filter((name) => name === 'statx').length, calls + 2);
  m.lookup('b');
  assert.equal(withNodes(), 3, 'the kernel had forgotten an entry');
  assert.equal(withNodes(), 0);
  m.kernel.add(m.root, 'd', REGULAR);
  assert.deepEqual(names(), ['.', '..', 'a', 'b', 'c', 'd']);
  m.kernel.nowMs += 1000;
  assert.equal(withNodes(), 4, 'they have run out');
  m.kernel.nowMs -= 5000;
  assert.equal(withNodes(), 4, 'the clock was set back');
  m.end();
});

test('a copy of little is made at once if all of it is on the disk, and on another thread otherwise', async () => {
  for (const clean of [true, false]) {
    const m = makeMounted();
    m.clean = clean;
    m.kernel.add(m.root, 'from', REGULAR, 'copied bytes');
    const to = m.kernel.add(m.root, 'to', REGULAR);
    m.settle();
    const from = m.lookup('from');
    const opened = m.open(m.lookup('to').nodeid, c.O_RDWR);
    const request = pack(s.fuse_copy_file_range_in, {
      nodeid_out: opened.nodeid,
      fh_out: opened.fh,
      off_in: 7,
      len: 5,
    });
    const unique = m.send('COPY_FILE_RANGE', from.nodeid, [request]);
    const atOnce = m.device.take();
    assert.equal(atOnce.length, clean ? 1 : 0);
    await new Promise(setImmediate);
    const [reply] = [...atOnce, ...m.device.take()];
    assert.equal(reply?.unique, unique);
    assert.equal(s.fuse_write_out.size.get(reply.view, 0), 5);
    assert.equal(to.data.toString(), 'bytes');
    m.release(opened);
    m.end();
  }
});

test('a directory is listed whole through buffers of any size, without the store', () => {
  for (const plus of [false, true]) {
    for (const size of [200, 233, 300, 512, 4096, 65_536]) {
      const m = makeMounted();
      const made = ['.', '..'];
      for (let i = 0; i < 40; i++) {
        const name = 'n'.repeat(1 + (i % 20)) + i;
        m.kernel.add(m.root, name, REGULAR);
        made.push(name);
      }
      const found = list(m, size, plus);
      assert.deepEqual(
        found.map(({ name }) => name),
        made,
      );
      for (const { name, nodeid } of found) assert.equal(nodeid !== 0, plus && !name.startsWith('.'));
      m.end();
    }
  }
});

test('a buffer too small for one entry is an error, never the end of the directory', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'x'.repeat(100), REGULAR);
  const fh = opendir(m, 1);
  assert.equal(readOnce(m, fh, 0, 16).error, -EINVAL);
  // Offset 2 is the store's entry, which isn't shown, and what follows it doesn't fit.
  assert.equal(readOnce(m, fh, 2, 64).error, -EINVAL);
  assert.deepEqual(
    dirents(m, readOnce(m, fh, 2, 4096), false).map(({ name }) => name),
    ['x'.repeat(100)],
  );
  assert.equal(readOnce(m, 99, 0, 100).error, -EBADF);
  m.call('RELEASEDIR', 1, pack(s.fuse_release_in, { fh }));
  m.end();
});

test('reading goes on at any offset that was given out, also backwards', () => {
  const m = makeMounted();
  for (let i = 0; i < 30; i++) m.kernel.add(m.root, `file${i}`, REGULAR);
  const fh = opendir(m, 1);
  const all: Dirent[] = [];
  for (
    let reply = readOnce(m, fh, 0, 4096);
    reply.payload.length > 0;
    reply = readOnce(m, fh, all.at(-1)?.off ?? 0, 4096)
  ) {
    all.push(...dirents(m, reply, false));
  }
  fc.assert(
    fc.property(fc.nat(all.length - 2), fc.integer({ min: 150, max: 500 }), (from, size) => {
      const [first] = dirents(m, readOnce(m, fh, all[from]?.off ?? 0, size), false);
      assert.equal(first?.name, all[from + 1]?.name);
    }),
  );
  m.call('RELEASEDIR', 1, pack(s.fuse_release_in, { fh }));
  m.end();
});

test('the store is nowhere to be found and nothing can take its place', () => {
  for (const entrySeconds of [0, 10]) {
    const m = makeMounted({ entrySeconds });
    m.kernel.add(m.root, 'file', REGULAR, 'x');
    const entry = m.lookup('.sharedext');
    assert.ok(entrySeconds > 0 ? entry.nodeid === 0 && entry.error === 0 : entry.error === -ENOENT);
    const rename = (flags: number): number =>
      m.call('RENAME2', 1, pack(s.fuse_rename2_in, { newdir: 1, flags }), names('file', '.sharedext')).error;
    assert.deepEqual([rename(0), rename(1), rename(2)], [-EACCES, -EACCES, -EACCES]);
    const create = (flags: number): number =>
      m.call('CREATE', 1, pack(s.fuse_create_in, { flags, mode: REGULAR }), names('.sharedext')).error;
    assert.equal(create(c.O_RDWR), -EACCES);
    assert.equal(create(c.O_RDWR | c.O_EXCL), -EEXIST);
    assert.equal(m.call('MKDIR', 1, pack(s.fuse_mkdir_in, { mode: 0o755 }), names('.sharedext')).error, -EEXIST);
    assert.equal(m.root.entries.get('.sharedext'), m.store);
    m.end();
  }
});

test('the store is neither moved nor removed, not even by a kernel that asks for it', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'file', REGULAR, 'x');
  const rename = (to: string, flags: number): number =>
    m.call('RENAME2', 1, pack(s.fuse_rename2_in, { newdir: 1, flags }), names('.sharedext', to)).error;
  assert.deepEqual([rename('new', 0), rename('new', 1), rename('file', 2)], [-ENOENT, -ENOENT, -ENOENT]);
  assert.equal(m.call('RMDIR', 1, names('.sharedext')).error, -ENOENT);
  assert.equal(m.call('UNLINK', 1, names('.sharedext')).error, -ENOENT);
  assert.equal(m.root.entries.get('.sharedext'), m.store);
  assert.deepEqual([...m.root.entries.keys()], ['.sharedext', 'file']);
  m.end();
});

test('a name that is no single component of a path reaches no system call, in any operation', async () => {
  const m = makeMounted();
  const calls = m.kernel.log.length;
  for (const name of Object.keys(operations)) {
    if (!isOperation(name)) continue;
    const row = operations[name];
    for (let wrong = 0; wrong < row.components; wrong++) {
      for (const text of ['', '.', '..', '/', 'a/b', '../a', '.sharedext/0', 'a/', '..\0', '/etc/passwd']) {
        const given = ['a', 'b'].slice(0, row.names);
        given[wrong] = text;
        const reply = await m.later(name, 1, new Uint8Array(row.argumentBytes), names(...given));
        assert.equal(reply.error, -EINVAL, `${name} of ${JSON.stringify(given)}`);
      }
    }
  }
  assert.equal(m.kernel.log.length, calls);
  // What has dots and is none of the two is a name like any other.
  for (const name of ['...', '.a', '..a', 'a..', 'x'.repeat(255)]) {
    m.kernel.add(m.root, name, REGULAR);
    assert.notEqual(m.lookup(name).nodeid, 0);
  }
  m.end();
});

test('things are made with the ids and the umask of who asks, and both ids are reset', () => {
  const m = makeMounted();
  const as = (operation: OperationName, ...parts: readonly Uint8Array[]): Reply => {
    m.send(operation, 1, parts, 1000, 1001);
    const [reply] = m.device.take();
    assert.ok(reply !== undefined);
    assert.equal(reply.error, 0, operation);
    assert.deepEqual([m.kernel.fsuid, m.kernel.fsgid], [0, 0]);
    m.entry(reply);
    return reply;
  };
  as('MKDIR', pack(s.fuse_mkdir_in, { mode: 0o777, umask: 0o27 }), names('dir'));
  as('MKNOD', pack(s.fuse_mknod_in, { mode: 0o010666, umask: 0o2 }), names('fifo'));
  as('SYMLINK', names('link', 'target'));
  const flags = c.O_RDWR;
  const created = as('CREATE', pack(s.fuse_create_in, { flags, mode: REGULAR | 0o666, umask: 0o77 }), names('file'));
  m.opened(created, s.fuse_entry_out.nodeid.get(created.view, 0), flags, s.SIZE_OF_ENTRY);
  const temporary = as('TMPFILE', pack(s.fuse_create_in, { flags, mode: REGULAR | 0o666 }), names('/'));
  m.opened(temporary, s.fuse_entry_out.nodeid.get(temporary.view, 0), flags, s.SIZE_OF_ENTRY);
  for (const [name, mode] of [
    ['dir', 0o750],
    ['fifo', 0o664],
    ['link', 0o777],
    ['file', 0o600],
  ] as const) {
    const inode = m.root.entries.get(name);
    assert.deepEqual([inode?.uid, inode?.gid, (inode?.mode ?? 0) & 0o777], [1000, 1001, mode], name);
  }
  assert.equal(m.root.entries.get('link')?.data.toString(), 'target');
  const root = m.call('MKDIR', 1, pack(s.fuse_mkdir_in, { mode: 0o777, umask: 0 }), names('byroot'));
  m.entry(root);
  assert.equal(m.root.entries.get('byroot')?.uid, 0);
  assert.equal((m.root.entries.get('byroot')?.mode ?? 0) & 0o777, 0o777);
  m.end();
});

test('ids are reset also when making fails, and when it throws', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'taken', c.S_IFDIR | 0o755);
  const args = [pack(s.fuse_mkdir_in, { mode: 0o777 }), names('taken')];
  m.send('MKDIR', 1, args, 1000, 1000);
  assert.equal(m.device.take()[0]?.error, -EEXIST);
  assert.deepEqual([m.kernel.fsuid, m.kernel.fsgid], [0, 0]);
  Object.assign(m.mount.calls, {
    mkdirat: () => {
      throw new Error('a bug');
    },
  });
  m.send('MKDIR', 1, args, 1000, 1000);
  assert.equal(m.bugs.splice(0).length, 1);
  assert.deepEqual([m.kernel.fsuid, m.kernel.fsgid], [0, 0]);
  m.end();
});

test('a removed directory can be used until the kernel forgets it', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'dir', c.S_IFDIR | 0o755).nlink = 2;
  const { nodeid } = m.lookup('dir');
  assert.equal(m.call('RMDIR', 1, names('dir')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 1);
  assert.equal(m.call('GETATTR', nodeid, pack(s.fuse_getattr_in)).error, 0);
  assert.equal(m.lookup('x', nodeid).error, -ENOENT);
  m.forget(nodeid);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  m.end();
});

test('a file that loses its last name is opened by who looked it up before, until the kernel forgets it or a minute has passed', () => {
  const m = makeMounted();
  for (const name of ['file', 'other']) m.kernel.add(m.root, name, REGULAR, 'content').nlink = 1;
  const { nodeid } = m.lookup('file');
  const other = m.lookup('other').nodeid;
  assert.equal(m.call('UNLINK', 1, names('file')).error, 0);
  assert.equal(m.call('UNLINK', 1, names('other')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 2);
  m.forget(other);
  assert.equal(m.mount.descriptors.pinnedCount, 1);
  m.kernel.nowMs += 59_000;
  m.mount.descriptors.expire(m.kernel.nowMs);
  m.release(m.open(nodeid, c.O_RDONLY));
  m.kernel.nowMs += 1000;
  m.mount.descriptors.expire(m.kernel.nowMs);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  assert.equal(m.call('OPEN', nodeid, pack(s.fuse_open_in)).error, -ESTALE);
  m.forget(nodeid);
  m.end();
});

test('a file that lost its last name before its open is kept until it is forgotten, where the kernel does not hold it open', () => {
  for (const relayed of [true, false]) {
    const m = makeMounted();
    m.kernel.add(m.root, 'file', REGULAR, 'content').nlink = 1;
    const { nodeid } = m.lookup('file');
    assert.equal(m.call('UNLINK', 1, names('file')).error, 0);
    if (relayed) m.backing.limit = 0;
    const open = m.open(nodeid, c.O_RDONLY);
    m.kernel.nowMs += 61_000;
    m.mount.descriptors.expire(m.kernel.nowMs);
    assert.deepEqual([m.mount.descriptors.pinnedCount, m.held.size], relayed ? [1, 1] : [0, 0]);
    assert.equal(m.call('GETATTR', nodeid, pack(s.fuse_getattr_in)).error, 0);
    m.release(open);
    m.forget(nodeid);
    assert.deepEqual([m.mount.descriptors.pinnedCount, m.held.size], [0, 0]);
    m.end();
  }
});

test('what is pinned briefly is given back when there is no descriptor left', () => {
  const m = makeMounted();
  for (const name of ['file', 'other']) m.kernel.add(m.root, name, REGULAR, 'content').nlink = 1;
  const nodes = ['file', 'other'].map((name) => m.lookup(name).nodeid);
  assert.equal(m.call('UNLINK', 1, names('file')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 1);
  m.kernel.failAfter = 0;
  m.kernel.failWith = EMFILE;
  assert.equal(m.call('GETATTR', nodes[1] ?? 0, pack(s.fuse_getattr_in)).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  for (const nodeid of nodes) m.forget(nodeid);
  m.end();
});

test('a file that keeps another name is not kept open for the one that it loses', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'file', REGULAR).nlink = 2;
  const { nodeid } = m.lookup('file');
  assert.equal(m.call('UNLINK', 1, names('file')).error, 0);
  assert.equal(m.mount.descriptors.pinnedCount, 0);
  m.forget(nodeid);
  m.end();
});

function withDirectories(count: number): { readonly m: Mounted; readonly nodes: readonly number[] } {
  const m = makeMounted();
  const nodes: number[] = [];
  for (let i = 0; i < count; i++) {
    m.kernel.add(m.root, `d${i}`, c.S_IFDIR | 0o755).nlink = 2;
    nodes.push(m.lookup(`d${i}`).nodeid);
  }
  return { m, nodes };
}

test('a bounded number of directories is kept open', () => {
  const { m, nodes } = withDirectories(1200);
  for (const nodeid of nodes) assert.equal(m.lookup('none', nodeid).error, -ENOENT);
  assert.ok(m.kernel.descriptors.size <= 513, `${m.kernel.descriptors.size} descriptors`);
  m.end();
});

test('a rename finds both of its directories, also where they take the same place in the cache', () => {
  const { m, nodes } = withDirectories(1030);
  for (const [from, to] of [
    [1, 513],
    [513, 1],
    [1, 1025],
    [2, 3],
  ] as const) {
    const source = m.root.entries.get(`d${from}`);
    const target = m.root.entries.get(`d${to}`);
    assert.ok(source !== undefined && target !== undefined);
    m.kernel.add(source, 'f', REGULAR, `${from}`);
    const rename = pack(s.fuse_rename_in, { newdir: nodes[to] ?? 0 });
    assert.equal(m.call('RENAME', nodes[from] ?? 0, rename, names('f', 'f')).error, 0);
    assert.equal(target.entries.get('f')?.data.toString(), `${from}`);
    assert.deepEqual(m.kernel.violations, []);
  }
  m.end();
});

test('a directory is opened all the same when only cached ones hold the last descriptors', () => {
  const { m, nodes } = withDirectories(20);
  for (const nodeid of nodes.slice(1)) m.lookup('none', nodeid);
  const before = m.kernel.descriptors.size;
  m.kernel.failAfter = 0;
  m.kernel.failWith = EMFILE;
  assert.equal(m.lookup('none', nodes[0]).error, -ENOENT);
  assert.equal(m.kernel.failed, 'openByHandleAt');
  assert.ok(m.kernel.descriptors.size < before);
  m.end();
});

test('BATCH_FORGET takes back what it names, and no more than it holds', () => {
  const m = makeMounted();
  for (const name of ['a', 'b', 'c']) m.kernel.add(m.root, name, REGULAR);
  const [a, b, third] = ['a', 'b', 'c'].map((name) => m.lookup(name).nodeid);
  m.lookup('b');
  const one = (nodeid: number | undefined, nlookup: number) =>
    pack(s.fuse_forget_one, { nodeid: nodeid ?? 0, nlookup });
  // It says that it has a hundred, and holds three, of which one is no node.
  m.send('BATCH_FORGET', 0, [pack(s.fuse_batch_forget_in, { count: 100 }), one(a, 1), one(5000, 9), one(b, 1)]);
  assert.equal(m.device.take().length, 0);
  assert.equal(m.mount.nodes.count, 3);
  m.lookups.delete(a ?? 0);
  m.lookups.set(b ?? 0, 1);
  assert.equal(m.call('GETATTR', a ?? 0, pack(s.fuse_getattr_in)).error, -ESTALE);
  assert.equal(m.call('GETATTR', third ?? 0, pack(s.fuse_getattr_in)).error, 0);
  m.end();
});

test('node ids that were never given out, or are over, are stale for every operation', async () => {
  const withoutNode = ['FORGET', 'BATCH_FORGET', 'STATFS', 'SYNCFS', 'INIT', 'DESTROY', 'INTERRUPT'];
  const byHandle = ['READ', 'WRITE', 'FALLOCATE', 'FSYNCDIR', 'RELEASEDIR'];
  const m = makeMounted();
  for (const name of Object.keys(operations)) {
    if (!isOperation(name) || withoutNode.includes(name)) continue;
    const row = operations[name];
    for (const nodeid of [0, 77, 2 ** 40]) {
      const parts = [new Uint8Array(row.argumentBytes), names(...['a', 'b'].slice(0, row.names))];
      const reply = await m.later(name, nodeid, ...parts);
      assert.equal(reply.error, byHandle.includes(name) ? -EBADF : -ESTALE, name);
    }
  }
  m.end();
});

function isOperation(name: string): name is OperationName {
  return name in operations;
}

test('a name that someone else made since the lookup has the kernel look again, unless it asked for O_EXCL', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'file', REGULAR);
  const create = (flags: number): number =>
    m.call('CREATE', 1, pack(s.fuse_create_in, { flags, mode: REGULAR }), names('file')).error;
  assert.equal(create(c.O_RDWR), -ESTALE);
  assert.equal(create(c.O_RDWR | c.O_EXCL), -EEXIST);
  m.end();
});

test('no request, however malformed, makes a handler throw', async () => {
  const opcode = fc.constantFrom(
    ...Object.values(operations)
      .map((row) => row.opcode)
      .filter((code) => code !== 26),
  );
  const bytes = fc.array(fc.oneof(fc.constantFrom(0, 0, 0, 1, 97, 255), fc.nat(255)), { maxLength: 120 });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(opcode, bytes, fc.nat(4)), { maxLength: 30 }), async (requests) => {
      const m = makeMounted();
      m.kernel.add(m.root, 'a', REGULAR, 'text');
      m.lookup('a');
      for (const [code, tail, nodeid] of requests) {
        m.device.queue.push(message(code, { unique: 7, nodeid }, Uint8Array.from(tail)));
        m.session.drain();
      }
      await new Promise(setImmediate);
      assert.ok(m.device.take().length <= requests.length);
      assert.deepEqual(m.bugs, []);
      assert.deepEqual(m.kernel.violations, []);
    }),
    { numRuns: 300 },
  );
});

test('a name that someone else gives to another file while it is removed does not confuse the two', () => {
  const m = makeMounted();
  m.kernel.add(m.root, 'fifo', 0o010600);
  const other = m.kernel.add(m.root, 'other', 0o010644);
  const { nodeid } = m.lookup('fifo');
  const { nameToHandleAt } = m.mount.calls;
  Object.assign(m.mount.calls, {
    nameToHandleAt(...args: Parameters<typeof nameToHandleAt>): number {
      const result = nameToHandleAt(...args);
      const fifo = m.root.entries.get('fifo');
      if (fifo !== undefined) m.root.entries.set('kept', fifo);
      m.root.entries.set('fifo', other);
      return result;
    },
  });
  assert.equal(m.call('UNLINK', 1, names('fifo')).error, 0);
  Object.assign(m.mount.calls, { nameToHandleAt });
  assert.equal(m.call('SETATTR', nodeid, pack(s.fuse_setattr_in, { valid: 1, mode: 0o777 })).error, 0);
  assert.equal(m.root.entries.get('kept')?.mode, 0o010777);
  assert.equal(other.mode, 0o010644);
  m.end();
});
