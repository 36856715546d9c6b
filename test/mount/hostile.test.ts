/**
 * Users who mean ill, on real mounts: the store is out of their reach by any name, link, descriptor or handle, also while
 * names change under them. Root shall not reach it through the mount either.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { alice, asUser, bob, carol, type OtherProcess, root, stopUsers, type User } from '../support/asuser.ts';
import type { Step } from '../support/operations.ts';
import * as posix from '../support/posix.ts';
import { SystemCallError } from '../support/scratch.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { onFilesystem, settled, storeFiles } from './clones.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_PATH, O_NOFOLLOW, O_TMPFILE } = posix;
const STORE = '.sharedext';
const SECRET = 'secret';
const SECRET_BYTES = 256 << 10;
const KINDS = ['btrfs', 'xfs'] as const;

interface Scene {
  readonly kind: (typeof KINDS)[number];
  readonly source: string;
  /** The mount's root, which everyone may write. */
  readonly mnt: string;
  readonly server: MountedServer;
}

/** The mount's folder in the store, which gets a clone when a file of a snapshot is read, and clones, which are root's alone. */
const ADDED = /^\.sharedext\/0(?: 40700|\/c[0-9a-f]+-[0-9a-f]+ 100400) 0 0 /;

/** All that was in the store is as it was, and nothing came to it but clones. */
function assertStoreKept(before: readonly string[], after: readonly string[]): void {
  const [lost, came] = [before.filter((line) => !after.includes(line)), after.filter((line) => !before.includes(line))];
  assert.deepEqual(
    lost.filter((line) => !line.startsWith('.sharedext/0 40700 0 0 ')),
    [],
    'what was in the store is as it was',
  );
  assert.deepEqual(
    came.filter((line) => !ADDED.test(line)),
    [],
    'nothing came to the store but clones',
  );
}

/**
 * A mount whose store holds a clone of root's secret. Everyone may write the root, the folder `deep/er` and the folders with the
 * users' numbers as names, which have a file, a folder and a link each.
 */
async function onScene(kind: (typeof KINDS)[number], body: (scene: Scene) => Promise<void>): Promise<void> {
  await onFilesystem(kind, 400, async (filesystem) => {
    const source = join(filesystem.dir, 'source');
    if (kind === 'btrfs') posix.makeSubvolume(source);
    else mkdirSync(source);
    chmodSync(source, 0o777);
    mkdirSync(join(source, 'vault'), { mode: 0o755 });
    for (const folder of ['deep', 'deep/er']) {
      mkdirSync(join(source, folder));
      chmodSync(join(source, folder), 0o777);
    }
    for (const { uid, gid } of [alice, bob, root]) {
      const home = join(source, `${uid}`);
      mkdirSync(join(home, 'folder'), { recursive: true });
      writeFileSync(join(home, 'file'), 'mine');
      symlinkSync('file', join(home, 'link'));
      for (const own of [home, join(home, 'folder'), join(home, 'file')]) chownSync(own, uid, gid);
    }
    const secret = join(source, 'vault', 'secret');
    writeFileSync(secret, SECRET.repeat(SECRET_BYTES / SECRET.length), { mode: 0o600 });
    writeFileSync(join(source, 'vault', 'readable'), 'for all to read', { mode: 0o644 });
    execFileSync('sync', ['-f', source]);
    execFileSync('cp', ['--reflink=always', secret, join(source, 'vault', 'copy')]);
    chmodSync(join(source, 'vault', 'copy'), 0o600);
    execFileSync('sync', ['-f', source]);
    await settled();
    const mnt = join(filesystem.folder, 'mounted');
    const server = await mountSharedext(source, mnt, 'settle=0');
    try {
      await asUser(root).call('readFile', join(mnt, 'vault', 'secret'));
      assert.equal(storeFiles(source).length, 1, 'the secret has a clone');
      if (kind === 'btrfs') posix.snapshot(source, join(source, 'snapshot'));
      const before = storeState(source);
      await body({ kind, source, mnt, server });
      assertStoreKept(before, storeState(source));
      assert.equal((await server.status()).bugs, 0);
    } finally {
      await stopUsers();
      await server.umount();
    }
  });
}

/** All that is in the store, with owners, modes, sizes and times of change. */
function storeState(source: string): string[] {
  const state: string[] = [];
  const walk = (path: string): void => {
    const { mode, uid, gid, size, ctimeNs } = posix.lstat(path);
    state.push(`${relative(source, path)} ${mode.toString(8)} ${uid} ${gid} ${size} ${ctimeNs}`);
    if ((mode & posix.S_IFMT) === posix.S_IFDIR) for (const name of readdirSync(path)) walk(join(path, name));
  };
  walk(join(source, STORE));
  return state.sort();
}

type Attempt = readonly [what: string, act: (user: OtherProcess, store: string, home: string) => Promise<unknown>];

/** What follows a symbolic link to its end. */
const following: readonly Attempt[] = [
  ['stat', (user, store) => user.call('stat', store)],
  ['access', (user, store) => user.call('access', store, 0)],
  ['open', (user, store) => user.call('open', store, O_RDONLY)],
  ['open as a path', (user, store) => user.call('open', store, O_PATH)],
  ['open as a directory', (user, store) => user.call('open', store, O_RDONLY | O_DIRECTORY)],
  ['open for writing', (user, store) => user.call('open', store, O_WRONLY | O_TRUNC)],
  ['create', (user, store) => user.call('open', store, O_RDWR | O_CREAT)],
  ['create exclusively', (user, store) => user.call('open', store, O_RDWR | O_CREAT | O_EXCL)],
  ['make a file without a name', (user, store) => user.call('open', store, O_RDWR | O_TMPFILE)],
  ['list', (user, store) => user.call('entriesOf', store)],
  ['enter', (user, store) => user.call('changeDirectory', store)],
  ['truncate', (user, store) => user.call('truncate', store, 0)],
  ['chmod', (user, store) => user.call('chmod', store, 0o777)],
  ['chown', (user, store) => user.call('chown', store, bob.uid, bob.gid)],
  ['set times', (user, store) => user.call('setTimes', store, 1n, 1n)],
  ['set an attribute', (user, store) => user.call('setXattr', store, 'user.x', 'x')],
  ['get an attribute', (user, store) => user.call('getXattr', store, 'user.x')],
  ['list attributes', (user, store) => user.call('listXattrs', store)],
  ['remove an attribute', (user, store) => user.call('removeXattr', store, 'user.x')],
  ['get flags', (user, store) => user.call('getFlags', store)],
  ['reach within', (user, store) => user.call('readFile', join(store, '0'))],
  ['create within', (user, store) => user.call('open', `${store}/new`, O_RDWR | O_CREAT)],
  ['make a folder within', (user, store) => user.call('mkdir', `${store}/new`)],
  ['link into it', (user, store, home) => user.call('link', join(home, 'file'), `${store}/new`)],
  ['move into it', (user, store, home) => user.call('rename', join(home, 'file'), `${store}/new`)],
  ['move out of it', (user, store, home) => user.call('rename', `${store}/0`, join(home, 'loot'))],
  ['leave it', (user, store) => user.call('stat', `${store}/..`)],
  [
    'bind it',
    async (user, store, home) => {
      const { status, error } = await user.call('exec', 'mount', '--bind', store, join(home, 'folder'));
      if (status !== 0 || error !== undefined) throw new SystemCallError('ENOENT', 'mount', store);
    },
  ],
];

/** What is about the name itself. */
const naming: readonly Attempt[] = [
  ['look at', (user, store) => user.call('lstat', store)],
  ['open without following', (user, store) => user.call('open', store, O_PATH | O_NOFOLLOW)],
  ['take a handle of', (user, store) => user.call('handleOf', store)],
  ['read as a link', (user, store) => user.call('readlink', store)],
  ['make a folder', (user, store) => user.call('mkdir', store)],
  ['make a file', (user, store) => user.call('mknod', store, posix.S_IFREG | 0o666)],
  ['make a fifo', (user, store) => user.call('mknod', store, posix.S_IFIFO | 0o666)],
  ['make a link', (user, store, home) => user.call('symlink', home, store)],
  ['link from', (user, store, home) => user.call('link', store, join(home, 'loot'))],
  ['link to', (user, store, home) => user.call('link', join(home, 'file'), store)],
  ['chown the name', (user, store) => user.call('chown', store, bob.uid, bob.gid, posix.AT_SYMLINK_NOFOLLOW)],
  ['unlink', (user, store) => user.call('unlink', store)],
  ['rmdir', (user, store) => user.call('rmdir', store)],
  ...([0, posix.RENAME_NOREPLACE, posix.RENAME_EXCHANGE, posix.RENAME_WHITEOUT] as const).flatMap(
    (flags): Attempt[] => [
      [`rename from, flags ${flags}`, (user, store, home) => user.call('rename', store, join(home, 'loot'), flags)],
      [
        `rename a file to, flags ${flags}`,
        (user, store, home) => user.call('rename', join(home, 'file'), store, flags),
      ],
      [
        `rename a folder to, flags ${flags}`,
        (user, store, home) => user.call('rename', join(home, 'folder'), store, flags),
      ],
      [
        `rename a link to, flags ${flags}`,
        (user, store, home) => user.call('rename', join(home, 'link'), store, flags),
      ],
      [
        `rename onto a folder, flags ${flags}`,
        (user, store, home) => user.call('rename', store, join(home, 'folder'), flags),
      ],
    ],
  ),
];

const REFUSALS = ['ENOENT', 'EEXIST', 'EACCES', 'EPERM', 'ENOTDIR', 'EISDIR', 'EINVAL', 'EXDEV', 'EBUSY'];

async function allRefused(attempts: readonly Attempt[], user: User, store: string, home: string): Promise<void> {
  for (const [what, act] of attempts) {
    const end = await act(asUser(user), store, home).then(
      () => 'worked',
      (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
    );
    assert.ok(REFUSALS.includes(end), `uid ${user.uid}: ${what} ${store}: ${end}`);
  }
}

async function noNameReachesTheStore({ kind, mnt }: Scene): Promise<void> {
  for (const user of [alice, root]) {
    const other = asUser(user);
    const home = join(mnt, `${user.uid}`);
    const top = await other.call('open', mnt, O_PATH);
    const below = await other.call('open', join(mnt, 'deep/er'), O_RDONLY | O_DIRECTORY);
    const names = [
      join(mnt, STORE),
      `${mnt}/deep/er/../../${STORE}`,
      `${home}/../${STORE}`,
      `${home}/folder/../.././${STORE}`,
      `/proc/self/fd/${top}/${STORE}`,
      `/proc/self/fd/${below}/../../${STORE}`,
      `/proc/self/cwd/../../${STORE}`,
      ...(kind === 'btrfs' ? [join(mnt, 'snapshot', STORE)] : []),
    ];
    await other.call('changeDirectory', join(mnt, 'deep/er'));
    for (const store of names) await allRefused([...following, ...naming], user, store, home);
    for (const name of [`../../${STORE}`, `./../../deep/../${STORE}`]) {
      await allRefused([...following, ...naming], user, name, home);
    }
    const targets = [`../../${STORE}`, join(mnt, STORE), `/proc/self/fd/${top}/${STORE}`];
    for (const [index, target] of targets.entries()) {
      const link = join(mnt, 'deep/er', `${user.uid}-${index}`);
      await other.call('symlink', target, link);
      await allRefused(following, user, link, home);
      await allRefused([...following, ...naming], user, `${link}/0`, home);
    }
    // Relative to a descriptor, which need not be open for reading.
    for (const [dirFd, name] of [
      [top, STORE],
      [below, `../../${STORE}`],
    ] as const) {
      for (const flags of [O_RDONLY, O_PATH, O_RDWR | O_CREAT, O_RDWR | O_TMPFILE]) {
        await assert.rejects(other.call('openAt', dirFd, name, flags), { code: /ENOENT|EACCES/ });
      }
    }
    await other.call('changeDirectory', '/');
    for (const fd of [top, below]) await other.call('close', fd);
    const left = await other.call('entriesOf', home);
    assert.deepEqual(left.map(({ name }) => name.toString()).sort(), ['file', 'folder', 'link']);
  }
}

async function noListingShowsTheStore({ kind, mnt, source }: Scene): Promise<void> {
  const ino = posix.stat(join(source, STORE)).ino;
  for (const dir of [mnt, ...(kind === 'btrfs' ? [join(mnt, 'snapshot')] : [])]) {
    const expected = readdirSync(source).filter((name) => name !== STORE && !(name === 'snapshot' && dir !== mnt));
    for (const user of [bob, root]) {
      const fd = await asUser(user).call('open', dir, O_RDONLY | O_DIRECTORY);
      for (const size of [300, 65536]) {
        await asUser(user).call('seekDirectory', fd, 0n);
        const all = await asUser(user).call('readAllEntries', fd, size);
        const names = all.map(({ name }) => name.toString()).filter((name) => name !== '.' && name !== '..');
        // What a snapshot of the source has where it was taken itself is another placeholder, which is shown.
        assert.deepEqual(names.filter((name) => name !== 'snapshot' || dir === mnt).sort(), expected.sort());
        if (kind === 'xfs') assert.ok(all.every((entry) => entry.ino !== ino));
        // From any position that the listing told.
        for (const { next } of all.slice(0, -1)) {
          await asUser(user).call('seekDirectory', fd, next);
          const rest = await asUser(user).call('readAllEntries', fd, size);
          assert.ok(rest.every(({ name }) => name.toString() !== STORE));
        }
      }
      await asUser(user).call('close', fd);
    }
  }
  assert.ok(!execFileSync('find', [mnt], { encoding: 'utf8' }).includes(STORE));
}

/** Handles as the kernel makes them for FUSE: fs/fuse/inode.c, fuse_encode_fh. */
function fuseHandle(nodeid: number, generation: number, parent = false): Buffer {
  const words = parent ? 6 : 3;
  const handle = Buffer.alloc(8 + 4 * words);
  handle.writeUInt32LE(4 * words, 0);
  handle.writeInt32LE(parent ? 0x82 : 0x81, 4);
  for (let at = 8; at < handle.length; at += 12) {
    handle.writeUInt32LE(Math.floor(nodeid / 2 ** 32), at);
    handle.writeUInt32LE(nodeid >>> 0, at + 4);
    handle.writeUInt32LE(generation, at + 8);
  }
  return handle;
}

async function noHandleOpensTheStore({ mnt, source }: Scene): Promise<void> {
  const inodesOf = (dir: string): Set<bigint> =>
    new Set(
      execFileSync('find', [dir, '-name', STORE, '-prune', '-o', '-printf', '%i\n'], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .map(BigInt),
    );
  const visible = inodesOf(mnt);
  const known = posix.handleOf(join(mnt, 'vault'));
  assert.equal(known.readInt32LE(4), 0x81, 'the form of the handles that are guessed here');
  const guessed: Buffer[] = [];
  for (const nodeid of [0, ...Array.from({ length: 60 }, (_, i) => i + 1), 2 ** 20, 2 ** 32, 2 ** 48]) {
    for (let generation = 0; generation < 3; generation++) {
      for (const parent of [false, true]) guessed.push(fuseHandle(nodeid, generation, parent));
    }
  }
  const inside = [join(source, STORE), join(source, STORE, '0'), ...storeFiles(source)];
  const foreign = inside.map((path) => posix.handleOf(path));
  const cases = [known, ...guessed, ...foreign];
  for (const user of [alice, bob]) {
    for (const [index, handle] of cases.entries()) {
      if (index % 16 > 0 && !foreign.includes(handle)) continue;
      await assert.rejects(asUser(user).call('inodeByHandle', mnt, handle), { code: 'EPERM' });
    }
  }
  const opened = new Set<bigint>();
  for (const handle of [known, ...guessed]) {
    try {
      opened.add(await asUser(root).call('inodeByHandle', mnt, handle));
    } catch (error) {
      assert.ok(error instanceof Error && 'code' in error && error.code === 'ESTALE', String(error));
    }
  }
  assert.ok(opened.size > 2, 'root finds again what the kernel knows');
  for (const ino of opened) assert.ok(visible.has(ino), `inode ${ino} can be found by its name`);
  for (const handle of foreign) {
    await assert.rejects(asUser(root).call('inodeByHandle', mnt, handle), { code: 'ESTALE' });
  }
  // Nor does a handle outlive its file, or come to be another's.
  await asUser(root).call('writeFile', join(mnt, 'short-lived'), 'x');
  const gone = posix.handleOf(join(mnt, 'short-lived'));
  posix.unlink(join(mnt, 'short-lived'));
  await asUser(root).call('writeFile', join(mnt, 'another'), 'y');
  await assert.rejects(asUser(root).call('inodeByHandle', mnt, gone), { code: 'ESTALE' });
}

for (const kind of KINDS) {
  test(`on ${kind}, the store is out of reach, whoever asks`, (t) =>
    onScene(kind, async (scene) => {
      await t.test('no operation reaches it by any way to its name', () => noNameReachesTheStore(scene));
      await t.test('no listing shows it', () => noListingShowsTheStore(scene));
      await t.test('handles that are guessed, or taken on the source, open nothing of it', () =>
        noHandleOpensTheStore(scene),
      );
    }));
}

/** How often the three take all their steps: about as long as one another. */
const MOVES = 200;
const RELINKS = 70;
const WALKS = 8;

/** Moves folders about, so that what `..` means changes all the time. */
function moving(arena: string): Step[] {
  const at = (path: string): string => join(arena, path);
  return [
    ['rename', at('a/b'), at('b')],
    ['rename', at('b'), at('a/b')],
    ['rename', at('a'), at('d'), posix.RENAME_EXCHANGE],
    ['rename', at('a/b'), at('d/e'), posix.RENAME_EXCHANGE],
    ['rename', at('a'), at('d'), posix.RENAME_EXCHANGE],
    ['rename', at('a/b'), at('../deep/er/b')],
    ['rename', at('../deep/er/b'), at('a/b')],
    ['mkdir', at('a/b')],
  ];
}

/** Has links lead to the store and to what isn't the walker's, and puts folders in their place. */
function relinking(arena: string, mnt: string): Step[] {
  const link = join(arena, 'link');
  const fresh = join(arena, 'fresh');
  const targets = [`../${STORE}`, join(mnt, 'vault'), '..', `a/b/../../../${STORE}`, 'a/b', join(mnt, STORE, '0')];
  return targets.flatMap((target): Step[] => [
    ['symlink', target, fresh],
    ['rename', fresh, link],
    ['rename', link, join(arena, 'folder'), posix.RENAME_EXCHANGE],
    ['rename', link, join(arena, 'folder'), posix.RENAME_EXCHANGE],
  ]);
}

/** Walks through what the others move, and tries whatever might change or show the store or another one's file. */
function walking(arena: string, clone: string): Step[] {
  const steps: Step[] = [];
  const own = join(arena, 'own');
  for (const up of ['a/b/..', 'a/b/../..', 'a/b/../../..', 'a/b/../../../..', 'link', 'link/..', 'folder']) {
    const dir = `${arena}/${up}`;
    for (const store of [`${dir}/${STORE}`, `${dir}/0`, dir]) {
      steps.push(
        ['writeFile', own, 'own'],
        ['readFile', `${store}/${clone}`],
        ['readFile', `${store}/0/${clone}`],
        ['touch', `${store}/${clone}`, O_PATH],
        ['link', own, `${store}/linked`],
        ['rename', own, `${store}/moved`],
        ['rename', `${store}/secret`, join(arena, 'loot')],
        ['unlink', `${store}/readable`],
        ['touch', `${store}/made`, O_RDWR | O_CREAT],
        ['mkdir', `${store}/folder-of-bob`],
        ['rename', own, `${store}/${clone}`, posix.RENAME_EXCHANGE],
      );
    }
    steps.push(
      ['readFile', `${dir}/secret`],
      ['writeFile', `${dir}/secret`, 'overwritten'],
      ['writeFile', `${dir}/readable`, 'overwritten'],
      ['touch', `${dir}/copy`, O_WRONLY | O_TRUNC],
      ['readFile', `${dir}/readable`],
    );
  }
  return steps;
}

/** Everything below a folder but what has the store's name: what it is, whose, and what it holds. */
function contentOf(top: string): string[] {
  const lines: string[] = [];
  const walk = (path: string): void => {
    for (const { name } of posix.entriesOf(path)) {
      const below = join(path, name.toString());
      if (name.toString() === STORE) continue;
      const { mode, uid, gid, nlink, size } = posix.lstat(below);
      const type = mode & posix.S_IFMT;
      let shown = '';
      if (type === posix.S_IFREG) shown = createHash('sha256').update(readFileSync(below)).digest('hex');
      if (type === posix.S_IFLNK) shown = posix.readlink(below).toString();
      const links = type === posix.S_IFDIR ? '' : `${nlink} ${size}`;
      lines.push(`${relative(top, below)} ${mode.toString(8)} ${uid}:${gid} ${links} ${shown}`);
      if (type === posix.S_IFDIR) walk(below);
    }
  };
  walk(top);
  return lines.sort();
}

for (const kind of KINDS) {
  test(`on ${kind}, who walks while folders and links change under him reaches nothing that isn't his`, (t) =>
    onScene(kind, async ({ mnt, source }) => {
      const arena = join(mnt, 'arena');
      for (const folder of ['', 'a', 'a/b', 'd', 'd/e', 'folder']) {
        posix.mkdir(join(arena, folder));
        posix.chmod(join(arena, folder), 0o777);
      }
      const vault = contentOf(join(mnt, 'vault'));
      const [clone = ''] = storeFiles(source).map((path) => relative(join(source, STORE, '0'), path));
      assert.match(clone, /^c[0-9a-f]+-[0-9a-f]+$/);
      const [moves, links, walks] = await Promise.all([
        asUser(alice).call('repeat', MOVES, moving(arena)),
        asUser(carol).call('repeat', RELINKS, relinking(arena, mnt)),
        asUser(bob).call('repeat', WALKS, walking(arena, clone)),
      ]);
      t.diagnostic(JSON.stringify({ moves, links, walks }));
      for (const [what, ends] of Object.entries({ moves, links, walks })) {
        assert.ok(
          Object.keys(ends).some((end) => end.startsWith('rename ok')),
          `${what}: some renames worked`,
        );
      }
      assert.ok((walks['touch ok'] ?? 0) > 0 && (walks['touch EACCES'] ?? 0) > 0, 'some walks ended here, some there');
      const read = Object.keys(walks).filter((end) => end.startsWith('readFile '));
      assert.deepEqual(
        read.filter((end) => end.includes(SECRET)),
        [],
        'the secret was read',
      );
      assert.deepEqual(contentOf(join(mnt, 'vault')), vault, 'what is another one’s is as it was');
      assert.deepEqual(contentOf(mnt), contentOf(source), 'the mount shows what the source has');
    }));
}
