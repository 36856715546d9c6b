/** Everything that `mount` must refuse: one clear line, exit status 1, and nothing left. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem, remount } from '../support/loopfs.ts';
import { directory, mountAt, PROGRAM, run, sharedext } from './command.ts';

const btrfs = makeLoopFilesystem('btrfs');
const source = directory(btrfs.dir, 'source');
const mountpoint = directory(btrfs.folder, 'mountpoint');
const logsBefore = readdirSync('/run').includes('sharedext') ? readdirSync('/run/sharedext') : [];

after(async () => {
  btrfs.dispose();
  await assertNothingLeft();
});

/** Mounts, in the background and then in the foreground, and expects the same refusal of both. */
async function refuses(expected: RegExp, from: string, to: string, ...more: readonly string[]): Promise<void> {
  for (const form of [[], ['-f']]) {
    const { status, stdout, stderr } = await sharedext('mount', ...form, from, to, ...more);
    assert.match(stderr, expected);
    assert.match(stderr, /^sharedext: Cannot [^\n]*\n$/, 'one line that says what cannot be done');
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' });
    assert.notEqual(mountAt(to)?.source, from, 'nothing is mounted');
  }
  const logs = readdirSync('/run/sharedext').filter((name) => name.startsWith('p') && !logsBefore.includes(name));
  assert.deepEqual(logs, [], 'no log is left');
}

test('a source that does not exist is refused', () => refuses(/does not exist/, `${source}/none`, mountpoint));

test('a file as the source is refused', async () => {
  writeFileSync(join(source, 'file'), 'x');
  await refuses(/not a directory/, join(source, 'file'), mountpoint);
});

test('a mountpoint that does not exist is refused', () =>
  refuses(/mountpoint .*does not exist/, source, `${mountpoint}/none`));

test('a file as the mountpoint is refused', () =>
  refuses(/mountpoint .*not a directory/, source, join(source, 'file')));

test('a mountpoint inside its own source is refused', async () => {
  await refuses(/lies inside the source/, source, directory(source, 'inside'));
});

test('a mountpoint with something in it is refused', async () => {
  const full = directory(btrfs.folder, 'full');
  writeFileSync(join(full, 'kept'), 'x');
  await refuses(/not empty/, source, full);
  assert.deepEqual(readdirSync(full), ['kept']);
});

test('a mountpoint with another filesystem on it is refused', async () => {
  const used = directory(btrfs.folder, 'used');
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', used]);
  await refuses(/tmpfs filesystem is mounted there/, source, used);
  execFileSync('umount', [used]);
});

test('a mountpoint that has the mount already is refused', async () => {
  assert.equal((await sharedext('mount', source, mountpoint)).status, 0);
  const { status, stderr } = await sharedext('mount', source, mountpoint);
  assert.equal(status, 1);
  assert.match(stderr, /is mounted there already, try "sharedext umount/);
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
});

test('sources on ext4 and on tmpfs are refused by name', async () => {
  for (const kind of ['ext4', 'tmpfs'] as const) {
    const other = makeLoopFilesystem(kind);
    await refuses(
      new RegExp(`it is on ${kind}, which makes no reflinks; use a directory on btrfs or XFS`),
      other.dir,
      mountpoint,
    );
    other.dispose();
  }
});

test('an XFS made without reflinks is refused, with the way to make one with them, unless sharing is off', async () => {
  const folder = directory(btrfs.folder, 'plain-xfs');
  const image = join(btrfs.folder, 'plain.img');
  writeFileSync(image, '');
  truncateSync(image, 512 * 2 ** 20);
  execFileSync('mkfs.xfs', ['-q', '-K', '-m', 'reflink=0', image]);
  execFileSync('mount', ['-o', 'loop', image, folder]);
  await refuses(/mkfs\.xfs -m reflink=1/, folder, mountpoint);
  assert.deepEqual(readdirSync(folder), [], 'no store is left');
  assert.equal((await sharedext('mount', folder, mountpoint, '-o', 'nosharedext')).status, 0);
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
  execFileSync('umount', [folder]);
});

test('an unknown option is refused, and the known ones are named', async () => {
  await refuses(
    /option sharedextt: unknown; known are sharedext, nosharedext, store=.*noatime/,
    source,
    mountpoint,
    '-o',
    'ro,sharedextt',
  );
  await refuses(/cache=soon: it wants auto, none, unlimited or a number/, source, mountpoint, '-o', 'cache=soon');
});

test('an unknown option is left out when mount(8) says that it may be', async () => {
  assert.equal((await sharedext(source, mountpoint, '-s', '-o', 'ro,sharedextt')).status, 0);
  assert.match(mountAt(mountpoint)?.options ?? '', /^ro,/);
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
});

test('a read-only source is refused without a store elsewhere', async () => {
  const other = makeLoopFilesystem('xfs');
  const inside = directory(other.dir, 'source');
  remount(other, 'ro');
  await refuses(/read-only, mount with store=DIR/, inside, mountpoint);
  remount(other, 'rw');
  other.dispose();
});

test('a store on another filesystem is refused', async () => {
  const other = makeLoopFilesystem('btrfs');
  await refuses(/not on the filesystem of the source/, source, mountpoint, '-o', `store=${other.dir}`);
  assert.deepEqual(readdirSync(other.dir), [], 'no store is left');
  other.dispose();
});

test('a store that does not exist is refused', () =>
  refuses(/store .*does not exist/, source, mountpoint, '-o', `store=${source}/none`));

test('a store that others may read is refused', async () => {
  const store = join(source, '.sharedext');
  mkdirSync(store);
  chmodSync(store, 0o755);
  await refuses(/open to others .*chmod 700/, source, mountpoint);
  execFileSync('rmdir', [store]);
});

test('a user who is not root is told so before anything else', async () => {
  // The program may lie where only root can read it; a capability that lets files be read makes no one root.
  const user = [
    '--reuid=61001',
    '--regid=61001',
    '--clear-groups',
    '--inh-caps=-all,+dac_read_search',
    '--ambient-caps=+dac_read_search',
  ];
  for (const words of [['mount', '/none', '/none'], ['umount', '/none'], ['status']]) {
    const { status, stderr } = await run('setpriv', [...user, process.execPath, PROGRAM, ...words]);
    assert.match(stderr, /^sharedext: Cannot .*: it needs root, try "sudo"\n$/);
    assert.equal(status, 1);
  }
});

test('root without CAP_SYS_ADMIN is told so', async () => {
  const words = ['--bounding-set=-sys_admin', process.execPath, PROGRAM, 'mount', source, mountpoint];
  const { status, stderr } = await run('setpriv', words);
  assert.match(stderr, /this root lacks CAP_SYS_ADMIN/);
  assert.equal(status, 1);
});

test('a machine without /dev/fuse is told what to load', async () => {
  const script = 'mount -t tmpfs tmpfs /dev && exec "$@"';
  const words = [process.execPath, PROGRAM, 'mount', '-f', source, mountpoint];
  const { status, stderr } = await run('unshare', ['-m', 'sh', '-c', script, 'sh', ...words]);
  assert.match(stderr, /Cannot open \/dev\/fuse: .*, try "modprobe fuse"/);
  assert.equal(status, 1);
});

test('a wrong call is told apart by its exit status', async () => {
  for (const words of [
    [],
    ['mount'],
    ['mount', source],
    ['mount', source, mountpoint, 'more'],
    ['stat'],
    ['umount', '--no-such'],
  ]) {
    const { status, stderr } = await sharedext(...words);
    assert.equal(status, 2, words.join(' '));
    assert.doesNotMatch(stderr, /^\s+at /m, 'no stack');
  }
});

test('help and version are to be had everywhere', async () => {
  for (const command of ['mount', 'umount', 'status', 'doctor', 'install']) {
    const { status, stdout } = await sharedext(command, '--help');
    assert.equal(status, 0);
    assert.match(stdout, /Example/, command);
  }
  const { status, stdout } = await sharedext('--version');
  assert.deepEqual({ status, lines: stdout.match(/^\d+\.\d+\.\d+\n$/)?.length }, { status: 0, lines: 1 });
});
