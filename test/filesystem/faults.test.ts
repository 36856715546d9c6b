/**
 * Every system call of every operation fails in turn, with each of seven errors: the caller gets that error, unless the
 * operation can do without the call, and nothing is left open, pinned or counted.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EDQUOT, EINTR, EIO, EMFILE, ENOMEM, ENOSPC, ESTALE, errnoText } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import type { OperationName } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack, type Reply } from '../fuse/device.ts';
import { type Mounted, makeMounted, type Opened } from './mounted.ts';

const REGULAR = c.S_IFREG | 0o644;

/** What every scenario starts from: node ids, by name, of a small tree; `shared` and `twin` are reflinks. */
interface Tree {
  readonly m: Mounted;
  readonly node: (name: string) => number;
}

function makeTree(): Tree {
  const m = makeMounted();
  const shared = m.kernel.add(m.root, 'shared', REGULAR, 'shared bytes');
  m.kernel.reflink(m.root, 'twin', shared);
  m.kernel.add(m.root, 'own', c.S_IFREG | 0o6755, 'own bytes').xattrs.set('user.x', Buffer.from('value'));
  m.kernel.add(m.root, 'link', 0o120777, 'target');
  for (const name of ['dir', 'other']) {
    const directory = m.kernel.add(m.root, name, c.S_IFDIR | 0o755);
    directory.nlink = 2;
    if (name === 'dir') m.kernel.add(directory, 'child', REGULAR, 'x');
  }
  m.settle();
  const nodes = new Map<string, number>();
  for (const name of m.root.entries.keys()) nodes.set(name, m.lookup(name).nodeid);
  nodes.set('root', 1);
  return { m, node: (name) => nodes.get(name) ?? 0 };
}

interface Scenario {
  readonly name: string;
  readonly operation: OperationName;
  readonly node: string;
  readonly prepare?: (tree: Tree) => Opened;
  readonly parts: (tree: Tree, opened: Opened | undefined) => readonly Uint8Array[];
  readonly gives?: 'entry' | 'opened' | 'created' | 'stream';
  readonly flags?: number;
  /** Calls that the operation does without when they fail. */
  readonly without?: readonly string[];
  /** What the operation answers when nothing fails. */
  readonly error?: number;
}

const openedFor =
  (name: string, flags: number) =>
  (tree: Tree): Opened =>
    tree.m.open(tree.node(name), flags);

/** No backing file can be registered: reads and writes come to us. */
const relayed =
  (name: string, flags: number) =>
  (tree: Tree): Opened => {
    tree.m.backing.limit = 0;
    return tree.m.open(tree.node(name), flags);
  };

const handle = (opened: Opened | undefined): { readonly fh: number } => ({ fh: opened?.fh ?? 0 });
/** Sharing is an improvement, which an open does without. */
const SHARING = ['statx', 'clone', 'openClone', 'backing.open'] as const;

const scenarios: readonly Scenario[] = [
  { name: 'LOOKUP', operation: 'LOOKUP', node: 'dir', parts: () => [names('child')], gives: 'entry' },
  { name: 'GETATTR', operation: 'GETATTR', node: 'own', parts: () => [pack(s.fuse_getattr_in)] },
  { name: 'STATX', operation: 'STATX', node: 'own', parts: () => [pack(s.fuse_statx_in)] },
  {
    name: 'SETATTR of everything',
    operation: 'SETATTR',
    node: 'own',
    parts: () => [pack(s.fuse_setattr_in, { valid: 0x83f, size: 3, uid: 7, mode: 0o6711 })],
  },
  {
    name: 'OPEN on the shared route',
    operation: 'OPEN',
    node: 'shared',
    parts: () => [pack(s.fuse_open_in)],
    gives: 'opened',
    without: SHARING,
  },
  {
    name: 'OPEN on the own route',
    operation: 'OPEN',
    node: 'own',
    parts: () => [pack(s.fuse_open_in)],
    gives: 'opened',
    without: SHARING,
  },
  {
    name: 'OPEN again on the shared route',
    operation: 'OPEN',
    node: 'shared',
    prepare: openedFor('shared', 0),
    parts: () => [pack(s.fuse_open_in)],
    gives: 'opened',
    // What can't be told by its attributes is told by its extents.
    without: ['openByHandleAt', 'statx'],
  },
  {
    name: 'OPEN for writing',
    operation: 'OPEN',
    node: 'own',
    parts: () => [pack(s.fuse_open_in, { flags: c.O_RDWR, open_flags: 1 })],
    gives: 'opened',
    flags: c.O_RDWR,
    without: ['backing.open', 'statx'],
  },
  {
    name: 'OPEN that breaks sharing',
    operation: 'OPEN',
    node: 'shared',
    prepare: openedFor('shared', 0),
    parts: () => [pack(s.fuse_open_in, { flags: c.O_RDWR })],
    error: -ESTALE,
    without: ['openByHandleAt', 'statx'],
  },
  {
    name: 'CREATE',
    operation: 'CREATE',
    node: 'dir',
    parts: () => [pack(s.fuse_create_in, { flags: c.O_RDWR, mode: REGULAR }), names('new')],
    gives: 'created',
    flags: c.O_RDWR,
    without: ['backing.open', 'statx'],
  },
  {
    name: 'TMPFILE',
    operation: 'TMPFILE',
    node: 'dir',
    parts: () => [pack(s.fuse_create_in, { flags: c.O_RDWR, mode: REGULAR }), names('/')],
    gives: 'created',
    flags: c.O_RDWR,
    without: ['backing.open', 'statx'],
  },
  {
    name: 'MKDIR',
    operation: 'MKDIR',
    node: 'dir',
    parts: () => [pack(s.fuse_mkdir_in, { mode: 0o755 }), names('new')],
    gives: 'entry',
  },
  {
    name: 'MKNOD',
    operation: 'MKNOD',
    node: 'dir',
    parts: () => [pack(s.fuse_mknod_in, { mode: 0o10644 }), names('new')],
    gives: 'entry',
  },
  { name: 'SYMLINK', operation: 'SYMLINK', node: 'dir', parts: () => [names('new', 'to')], gives: 'entry' },
  {
    name: 'LINK',
    operation: 'LINK',
    node: 'dir',
    parts: (t) => [pack(s.fuse_link_in, { oldnodeid: t.node('own') }), names('new')],
    gives: 'entry',
  },
  { name: 'READLINK', operation: 'READLINK', node: 'link', parts: () => [] },
  {
    name: 'UNLINK of a shared file',
    operation: 'UNLINK',
    node: 'root',
    prepare: openedFor('shared', 0),
    parts: () => [names('shared')],
    without: ['nameToHandleAt', 'openByHandleAt', 'statx'],
  },
  {
    name: 'RMDIR',
    operation: 'RMDIR',
    node: 'root',
    parts: () => [names('other')],
    without: ['nameToHandleAt', 'openByHandleAt'],
  },
  {
    name: 'RENAME over a file',
    operation: 'RENAME',
    node: 'root',
    parts: () => [pack(s.fuse_rename_in, { newdir: 1 }), names('own', 'link')],
    without: ['nameToHandleAt', 'openByHandleAt', 'statx'],
  },
  {
    name: 'RENAME2 to another directory',
    operation: 'RENAME2',
    node: 'dir',
    parts: (t) => [pack(s.fuse_rename2_in, { newdir: t.node('other') }), names('child', 'moved')],
    without: ['nameToHandleAt', 'openByHandleAt'],
  },
  { name: 'OPENDIR', operation: 'OPENDIR', node: 'dir', parts: () => [pack(s.fuse_open_in)], gives: 'stream' },
  {
    name: 'GETXATTR',
    operation: 'GETXATTR',
    node: 'own',
    parts: () => [pack(s.fuse_getxattr_in, { size: 100 }), names('user.x')],
  },
  { name: 'LISTXATTR', operation: 'LISTXATTR', node: 'own', parts: () => [pack(s.fuse_getxattr_in, { size: 100 })] },
  {
    name: 'SETXATTR',
    operation: 'SETXATTR',
    node: 'own',
    parts: () => [pack(s.fuse_setxattr_in, { size: 1 }), names('user.y'), Buffer.from('v')],
  },
  { name: 'REMOVEXATTR', operation: 'REMOVEXATTR', node: 'own', parts: () => [names('user.x')] },
  {
    name: 'IOCTL',
    operation: 'IOCTL',
    node: 'own',
    parts: () => [pack(s.fuse_ioctl_in, { cmd: 0x80086601, out_size: 8 })],
  },
  { name: 'STATFS', operation: 'STATFS', node: 'root', parts: () => [] },
  { name: 'SYNCFS', operation: 'SYNCFS', node: 'root', parts: () => [pack(s.fuse_syncfs_in)] },
  {
    name: 'FSYNC of a reader',
    operation: 'FSYNC',
    node: 'own',
    prepare: openedFor('own', 0),
    parts: () => [pack(s.fuse_fsync_in)],
  },
  {
    name: 'FSYNC of a writer',
    operation: 'FSYNC',
    node: 'own',
    prepare: openedFor('own', c.O_RDWR),
    parts: (_, o) => [pack(s.fuse_fsync_in, { ...handle(o), fsync_flags: 1 })],
  },
  {
    name: 'FALLOCATE',
    operation: 'FALLOCATE',
    node: 'own',
    prepare: openedFor('own', c.O_RDWR),
    parts: (_, o) => [pack(s.fuse_fallocate_in, { ...handle(o), length: 5 })],
    // Of whom nothing is known, the file loses its set-user-ID.
    without: ['openat', 'pread', 'readlinkat'],
  },
  {
    name: 'LSEEK',
    operation: 'LSEEK',
    node: 'own',
    prepare: openedFor('own', 0),
    parts: () => [pack(s.fuse_lseek_in, { whence: 3 })],
  },
  {
    name: 'COPY_FILE_RANGE',
    operation: 'COPY_FILE_RANGE',
    node: 'shared',
    prepare: openedFor('own', c.O_RDWR),
    parts: (t, o) => [pack(s.fuse_copy_file_range_in, { nodeid_out: t.node('own'), fh_out: handle(o).fh, len: 5 })],
    // Of whom nothing is known, the file loses its set-user-ID.
    without: ['openat', 'pread', 'readlinkat'],
  },
  {
    name: 'COPY_FILE_RANGE of what is on the disk',
    operation: 'COPY_FILE_RANGE',
    node: 'shared',
    prepare: (t) => {
      t.m.clean = true;
      return openedFor('own', c.O_RDWR)(t);
    },
    parts: (t, o) => [pack(s.fuse_copy_file_range_in, { nodeid_out: t.node('own'), fh_out: handle(o).fh, len: 5 })],
    // Of whom nothing is known, the file loses its set-user-ID.
    without: ['openat', 'pread', 'readlinkat'],
  },
  {
    name: 'READ',
    operation: 'READ',
    node: 'own',
    prepare: relayed('own', 0),
    parts: (_, o) => [pack(s.fuse_read_in, { ...handle(o), size: 5 })],
  },
  {
    name: 'WRITE',
    operation: 'WRITE',
    node: 'own',
    prepare: relayed('own', c.O_RDWR),
    parts: (_, o) => [pack(s.fuse_write_in, { ...handle(o), size: 1, write_flags: 4 }), Buffer.from('w')],
  },
];

/** What the kernel makes of a reply that succeeded. */
function take(m: Mounted, scenario: Scenario, nodeid: number, reply: Reply): void {
  const flags = scenario.flags ?? c.O_RDONLY;
  if (scenario.gives === 'opened') m.opened(reply, nodeid, flags, 0);
  if (scenario.gives === 'entry' || scenario.gives === 'created') {
    const entry = m.entry(reply);
    if (scenario.gives === 'created') m.opened(reply, entry.nodeid, flags, s.SIZE_OF_ENTRY);
  }
  if (scenario.gives === 'stream') {
    const released = m.call(
      'RELEASEDIR',
      nodeid,
      pack(s.fuse_release_in, { fh: s.fuse_open_out.fh.get(reply.view, 0) }),
    );
    assert.equal(released.error, 0);
  }
}

/** Runs a scenario with its `index`th call failing; returns false when it makes fewer calls. */
async function run(scenario: Scenario, index: number, errno: number): Promise<boolean> {
  const tree = makeTree();
  const { m } = tree;
  const opened = scenario.prepare?.(tree);
  const nodeid = tree.node(scenario.node);
  m.kernel.failAfter = index;
  m.kernel.failWith = errno;
  const reply = await m.later(scenario.operation, nodeid, ...scenario.parts(tree, opened));
  const { failed } = m.kernel;
  m.kernel.failAfter = Number.POSITIVE_INFINITY;
  const usual = scenario.error ?? 0;
  const where = `call ${index}, ${failed}, with ${errnoText(errno)}`;
  if (reply.error === 0) take(m, scenario, nodeid, reply);
  // Without a descriptor to spare the cached directories are given back, and the call is made again.
  const retried = errno === EMFILE && failed === 'openByHandleAt' && reply.error === usual;
  // A shared file that can't be looked at any more is looked up again.
  const lookedUpAgain = scenario.name === 'OPEN again on the shared route' && reply.error === -ESTALE;
  if (failed === undefined || scenario.without?.includes(failed))
    assert.ok([usual, -errno].includes(reply.error), where);
  else assert.ok(reply.error === -errno || retried || lookedUpAgain, `${where}: ${reply.error}`);
  if (failed === undefined) assert.equal(reply.error, usual);
  m.checkOpens();
  m.end();
  return failed !== undefined;
}

for (const scenario of scenarios) {
  test(`${scenario.name} survives the failure of each of its calls`, async () => {
    let calls = 0;
    for (const errno of [EIO, ENOSPC, EDQUOT, EMFILE, ENOMEM, EINTR, ESTALE]) {
      let index = 0;
      while (await run(scenario, index, errno)) index++;
      calls = index;
    }
    assert.ok(calls > 0, 'it makes calls at all');
  });
}

test('a listing survives the failure of each of its calls, and names without a node stay names', () => {
  for (const plus of [false, true]) {
    for (let index = 0; ; index++) {
      const { m } = makeTree();
      const stream = m.call('OPENDIR', 1, pack(s.fuse_open_in));
      const fh = s.fuse_open_out.fh.get(stream.view, 0);
      m.kernel.failAfter = index;
      m.kernel.failWith = EIO;
      const reply = m.call(plus ? 'READDIRPLUS' : 'READDIR', 1, pack(s.fuse_read_in, { fh, size: 4096 }));
      const { failed } = m.kernel;
      m.kernel.failAfter = Number.POSITIVE_INFINITY;
      if (failed === 'lseek' || failed === 'getdents64') assert.equal(reply.error, -EIO);
      else assert.equal(reply.error, 0);
      for (let at = 0; plus && at < reply.payload.length; ) {
        const nodeid = s.fuse_entry_out.nodeid.get(reply.view, at);
        if (nodeid !== 0) m.lookups.set(nodeid, (m.lookups.get(nodeid) ?? 0) + 1);
        const length = s.fuse_dirent.namelen.get(reply.view, at + s.SIZE_OF_ENTRY);
        const nameAt = at + s.SIZE_OF_ENTRY + s.fuse_dirent.structBytes;
        const name = Buffer.from(reply.payload.subarray(nameAt, nameAt + length)).toString();
        assert.notEqual(name, '.sharedext', `shown after ${failed} failed at ${index}`);
        at = nameAt + ((length + 7) & ~7);
      }
      assert.equal(m.call('RELEASEDIR', 1, pack(s.fuse_release_in, { fh })).error, 0);
      m.end();
      if (failed === undefined) break;
    }
  }
});
