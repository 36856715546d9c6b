/**
 * A server that is killed before any of its system calls, before its reply left, or right after: its successor gets the request
 * again, and the caller, the tree and the tables are as if nothing had happened.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as c from '../../src/base/linux.ts';
import type { OperationName } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { names, pack, type Reply } from '../fuse/device.ts';
import { type Inode, Killed } from './fake.ts';
import { type Entry, type Mounted, makeMounted, REGULAR } from './mounted.ts';

const OPTIONS = { share: false, entrySeconds: 0 } as const;
const RENAME_EXCHANGE = 2;
const XATTR_CREATE = 1;

/**
 * What every case finds: files `a`, `b` (also named `d/linked`), directories `d` and `e`, known to the kernel, and `snapshot` and
 * `fuller`, which hold the placeholder of a store.
 */
interface World {
  readonly m: Mounted;
  readonly a: Entry;
  readonly d: Entry;
  readonly e: Entry;
}

function makeWorld(): World {
  const m = makeMounted(OPTIONS);
  m.kernel.add(m.root, 'a', REGULAR, 'bytes of a').xattrs.set('user.old', Buffer.from('1'));
  const b = m.kernel.add(m.root, 'b', REGULAR, 'bytes of b');
  const d = m.kernel.add(m.root, 'd', c.S_IFDIR | 0o755);
  const e = m.kernel.add(m.root, 'e', c.S_IFDIR | 0o755);
  const snapshot = m.kernel.add(m.root, 'snapshot', c.S_IFDIR | 0o755);
  const fuller = m.kernel.add(m.root, 'fuller', c.S_IFDIR | 0o755);
  for (const directory of [d, e, snapshot, fuller]) directory.nlink = 2;
  for (const directory of [snapshot, fuller]) m.kernel.addPlaceholder(directory, '.sharedext');
  m.kernel.add(fuller, 'file', REGULAR);
  d.entries.set('linked', b);
  b.nlink = 2;
  m.lookup('b');
  // What is there was there before, and clocks tell.
  m.settle();
  return { m, a: m.lookup('a'), d: m.lookup('d'), e: m.lookup('e') };
}

interface Case {
  readonly name: string;
  readonly operation: OperationName;
  readonly nodeid: (world: World) => number;
  readonly parts: (world: World) => readonly Uint8Array[];
  /** What the kernel takes from a good reply. */
  readonly taken?: (m: Mounted, reply: Reply, world: World) => void;
}

const root = (): number => 1;
const entry = (m: Mounted, reply: Reply): void => void m.entry(reply);
const created = (m: Mounted, reply: Reply): void => {
  const { nodeid } = m.entry(reply);
  m.opened(reply, nodeid, c.O_RDWR, s.SIZE_OF_ENTRY);
};

function move(from: string, to: string, flags: number, newParent: (world: World) => number = root): Case {
  return {
    name: `RENAME2 of ${from} to ${to} with flags ${flags}`,
    operation: 'RENAME2',
    nodeid: root,
    parts: (world) => [pack(s.fuse_rename2_in, { newdir: newParent(world), flags }), names(from, to)],
  };
}

const cases: readonly Case[] = [
  { name: 'LOOKUP', operation: 'LOOKUP', nodeid: root, parts: () => [names('a')], taken: entry },
  { name: 'LOOKUP of nothing', operation: 'LOOKUP', nodeid: root, parts: () => [names('nothing')] },
  {
    name: 'MKDIR',
    operation: 'MKDIR',
    nodeid: root,
    parts: () => [pack(s.fuse_mkdir_in, { mode: 0o755 }), names('new')],
    taken: entry,
  },
  {
    name: 'MKDIR of a name that is taken',
    operation: 'MKDIR',
    nodeid: root,
    parts: () => [pack(s.fuse_mkdir_in, { mode: 0o755 }), names('d')],
  },
  {
    name: 'MKNOD',
    operation: 'MKNOD',
    nodeid: root,
    parts: () => [pack(s.fuse_mknod_in, { mode: REGULAR }), names('new')],
    taken: entry,
  },
  { name: 'SYMLINK', operation: 'SYMLINK', nodeid: root, parts: () => [names('new', 'a')], taken: entry },
  {
    name: 'LINK',
    operation: 'LINK',
    nodeid: (world) => world.d.nodeid,
    parts: (world) => [pack(s.fuse_link_in, { oldnodeid: world.a.nodeid }), names('new')],
    taken: entry,
  },
  {
    name: 'LINK to a name that is taken',
    operation: 'LINK',
    nodeid: root,
    parts: (world) => [pack(s.fuse_link_in, { oldnodeid: world.a.nodeid }), names('b')],
  },
  { name: 'UNLINK', operation: 'UNLINK', nodeid: root, parts: () => [names('a')] },
  { name: 'UNLINK of one of two names', operation: 'UNLINK', nodeid: root, parts: () => [names('b')] },
  { name: 'UNLINK of nothing', operation: 'UNLINK', nodeid: root, parts: () => [names('nothing')] },
  { name: 'RMDIR', operation: 'RMDIR', nodeid: root, parts: () => [names('e')] },
  { name: 'RMDIR of a directory that is full', operation: 'RMDIR', nodeid: root, parts: () => [names('d')] },
  {
    name: "RMDIR of a directory that holds a store's placeholder",
    operation: 'RMDIR',
    nodeid: root,
    parts: () => [names('snapshot')],
  },
  {
    name: "RMDIR of a directory that holds more than a store's placeholder",
    operation: 'RMDIR',
    nodeid: root,
    parts: () => [names('fuller')],
  },
  move('e', 'snapshot', 0),
  move('e', 'fuller', 0),
  move('e', 'snapshot', RENAME_EXCHANGE),
  move('a', 'moved', 0),
  move('a', 'b', 0),
  move('a', 'moved', 0, (world) => world.d.nodeid),
  move('b', 'linked', 0, (world) => world.d.nodeid),
  move('a', 'b', RENAME_EXCHANGE),
  move('nothing', 'b', 0),
  {
    name: 'CREATE',
    operation: 'CREATE',
    nodeid: root,
    parts: () => [pack(s.fuse_create_in, { flags: c.O_RDWR | c.O_CREAT, mode: REGULAR }), names('new')],
    taken: created,
  },
  {
    name: 'CREATE with O_EXCL',
    operation: 'CREATE',
    nodeid: root,
    parts: () => [pack(s.fuse_create_in, { flags: c.O_RDWR | c.O_CREAT | c.O_EXCL, mode: REGULAR }), names('new')],
    taken: created,
  },
  {
    name: 'CREATE with O_EXCL of a name that is taken',
    operation: 'CREATE',
    nodeid: root,
    parts: () => [pack(s.fuse_create_in, { flags: c.O_RDWR | c.O_CREAT | c.O_EXCL, mode: REGULAR }), names('a')],
  },
  {
    name: 'OPEN for reading',
    operation: 'OPEN',
    nodeid: (world) => world.a.nodeid,
    parts: () => [pack(s.fuse_open_in, { flags: c.O_RDONLY })],
    taken: (m, reply, world) => void m.opened(reply, world.a.nodeid, c.O_RDONLY, 0),
  },
  {
    name: 'OPEN for writing',
    operation: 'OPEN',
    nodeid: (world) => world.a.nodeid,
    parts: () => [pack(s.fuse_open_in, { flags: c.O_RDWR | c.O_TRUNC })],
    taken: (m, reply, world) => void m.opened(reply, world.a.nodeid, c.O_RDWR, 0),
  },
  {
    name: 'SETATTR of the size',
    operation: 'SETATTR',
    nodeid: (world) => world.a.nodeid,
    parts: () => [pack(s.fuse_setattr_in, { valid: 8, size: 3 })],
  },
  {
    name: 'SETXATTR',
    operation: 'SETXATTR',
    nodeid: (world) => world.a.nodeid,
    parts: () => [pack(s.fuse_setxattr_in, { size: 1, flags: XATTR_CREATE }), names('user.new'), Buffer.from('2')],
  },
  {
    name: 'SETXATTR of a name that is taken',
    operation: 'SETXATTR',
    nodeid: (world) => world.a.nodeid,
    parts: () => [pack(s.fuse_setxattr_in, { size: 1, flags: XATTR_CREATE }), names('user.old'), Buffer.from('2')],
  },
  {
    name: 'REMOVEXATTR',
    operation: 'REMOVEXATTR',
    nodeid: (world) => world.a.nodeid,
    parts: () => [names('user.old')],
  },
  {
    name: 'REMOVEXATTR of nothing',
    operation: 'REMOVEXATTR',
    nodeid: (world) => world.a.nodeid,
    parts: () => [names('user.nothing')],
  },
];

/** The tree with what it holds, without numbers that depend on how often something was tried. */
function treeOf(inode: Inode): unknown {
  return {
    mode: inode.mode,
    nlink: inode.nlink,
    data: inode.data.toString(),
    xattrs: [...inode.xattrs].map(([name, value]) => `${name}=${value.toString()}`),
    entries: [...inode.entries].sort().map(([name, child]) => [name, treeOf(child)]),
  };
}

interface Result {
  readonly error: number;
  readonly tree: unknown;
}

/** Ends as an unmount does, and finds nothing left. */
function finish(m: Mounted, taken: Case['taken'], reply: Reply, world: World): Result {
  if (reply.error === 0) taken?.(m, reply, world);
  const tree = treeOf(m.root);
  m.checkOpens();
  m.end();
  return { error: reply.error, tree };
}

function run({ operation, nodeid, parts, taken }: Case): Result & { readonly calls: number } {
  const world = makeWorld();
  const before = world.m.kernel.log.length;
  const reply = world.m.call(operation, nodeid(world), ...parts(world));
  const calls = world.m.kernel.log.length - before;
  return { ...finish(world.m, taken, reply, world), calls };
}

/** The same, with a server that is killed before the call of this number; its successor may be killed in its turn. */
function runKilled({ operation, nodeid, parts, taken }: Case, ...kills: readonly number[]): Result {
  const world = makeWorld();
  let { m } = world;
  const [id, given] = [nodeid(world), parts(world)];
  let unique = 0;
  for (const [i, calls] of kills.entries()) {
    m.kernel.killAfter = calls;
    try {
      if (i === 0) unique = m.send(operation, id, given);
      else m.resend(operation, unique, id, ...given);
      // It was answered before it could be killed.
      m.kernel.killAfter = Number.POSITIVE_INFINITY;
      break;
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      unique = m.lastUnique;
    }
    m = m.successor(OPTIONS);
  }
  const [answered] = m.device.take();
  const reply = answered ?? m.resend(operation, unique, id, ...given);
  return finish(m, taken, reply, world);
}

test("a store's placeholder goes with the directory that shows empty, and stays with one that doesn't", () => {
  for (const { name, error, tree } of cases.map((one) => ({ ...run(one), name: one.name }))) {
    const text = JSON.stringify(tree);
    const gone = /(RMDIR of a directory that holds a store's|RENAME2 of e to snapshot with flags 0)/.test(name);
    if (gone) assert.equal(error, 0, name);
    // Three of them: the store itself, and the two placeholders.
    assert.equal(text.split('.sharedext').length - 1, gone ? 2 : 3, name);
  }
});

for (const one of cases) {
  test(`${one.name} is carried out once, wherever the server is killed`, () => {
    const { calls, ...expected } = run(one);
    assert.ok(calls > 0);
    for (let kill = 0; kill < calls; kill++) {
      assert.deepEqual(runKilled(one, kill), expected, `killed before call ${kill} of ${calls}`);
      for (let again = 0; again < calls; again++) {
        assert.deepEqual(
          runKilled(one, kill, again),
          expected,
          `killed before call ${kill}, then ${again} of ${calls}`,
        );
      }
    }
  });

  test(`the reply of ${one.name} that didn't leave is sent by the successor`, () => {
    const { calls: _, ...expected } = run(one);
    const world = makeWorld();
    world.m.device.beforeWrite = () => {
      throw new Killed();
    };
    assert.throws(() => world.m.send(one.operation, one.nodeid(world), one.parts(world)), Killed);
    const m = world.m.successor(OPTIONS);
    const [reply] = m.device.take();
    assert.ok(reply !== undefined && reply.unique === world.m.lastUnique);
    assert.deepEqual(finish(m, one.taken, reply, world), expected);
  });
}

test('FORGET, which has no reply, is carried out once', () => {
  for (const kill of [0, 1, 2, Number.POSITIVE_INFINITY]) {
    const { m, a } = makeWorld();
    m.kernel.killAfter = kill;
    try {
      m.send('FORGET', a.nodeid, [pack(s.fuse_forget_in, { nlookup: 1 })]);
    } catch (error) {
      assert.ok(error instanceof Killed);
    }
    m.lookups.delete(a.nodeid);
    const next = m.successor(OPTIONS);
    assert.equal(next.mount.nodes.has(a.nodeid - 1), false);
    next.end();
  }
});

for (const when of ['before', 'after'] as const) {
  test(`BATCH_FORGET of more than a step takes forgets nothing twice when its server is killed ${when} a step is completed`, () => {
    const count = 3000;
    for (let kill = 0; kill < 3; kill++) {
      const { m, a } = makeWorld();
      const forgotten = m.mount.nodes.lookups(a.nodeid - 1) + count - 1;
      for (let i = 0; i < count; i++) m.lookup('a');
      const { progress } = m.mount;
      const partsDone = progress.partsDone.bind(progress);
      let steps = 0;
      progress.partsDone = (...parts) => {
        const dies = steps++ === kill;
        if (dies && when === 'before') throw new Killed();
        partsDone(...parts);
        if (dies) throw new Killed();
      };
      const one = pack(s.fuse_forget_one, { nodeid: a.nodeid, nlookup: 1 });
      const parts = [
        pack(s.fuse_batch_forget_in, { count: forgotten }),
        ...Array.from({ length: forgotten }, () => one),
      ];
      assert.throws(() => m.send('BATCH_FORGET', 0, parts), Killed);
      assert.equal(steps, kill + 1);
      const next = m.successor(OPTIONS);
      assert.equal(next.mount.nodes.lookups(a.nodeid - 1), 1, `killed in step ${kill}`);
      next.lookups.set(a.nodeid, 1);
      next.end();
    }
  });
}

test('RELEASE gives everything back once', () => {
  for (let kill = 0; kill < 8; kill++) {
    const { m, a } = makeWorld();
    const opened = m.open(a.nodeid, c.O_RDWR);
    m.kernel.killAfter = kill;
    const parts = [pack(s.fuse_release_in, { fh: opened.fh })];
    let next = m;
    try {
      m.send('RELEASE', a.nodeid, parts);
      m.kernel.killAfter = Number.POSITIVE_INFINITY;
    } catch (error) {
      assert.ok(error instanceof Killed);
      next = m.successor(OPTIONS);
      assert.equal(next.resend('RELEASE', m.lastUnique, a.nodeid, ...parts).error, 0);
    }
    next.opens.delete(a.nodeid);
    // A backing id that was closed before the kill is closed again: the kernel says that there is none.
    next.kernel.violations.splice(0);
    next.end();
  }
});
