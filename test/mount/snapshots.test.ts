/**
 * Snapshots of a source on btrfs, which have an empty directory where the store is: it can't be seen through the mount, and is in
 * nobody's way.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { SystemCallError } from '../support/scratch.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { onFilesystem, run } from './clones.ts';

const STORE = '.sharedext';

interface Scene {
  readonly filesystem: LoopFilesystem;
  readonly source: string;
  readonly mnt: string;
  readonly server: MountedServer;
}

/** A source that is a subvolume with a file in it, mounted. */
function onMount(body: (scene: Scene) => Promise<void>): Promise<void> {
  return onFilesystem('btrfs', 512, async (filesystem) => {
    const source = join(filesystem.dir, 'source');
    const mnt = join(filesystem.folder, 'mount');
    posix.makeSubvolume(source);
    writeFileSync(join(source, 'file'), 'content');
    const server = await mountSharedext(source, mnt, 'settle=0');
    await body({ filesystem, source, mnt, server });
    await server.umount();
  });
}

/** A snapshot inside the source. That it has a placeholder is what these tests are about. */
function snapshotIn({ source }: Scene, name: string): void {
  posix.snapshot(source, join(source, name));
  assert.equal(posix.stat(join(source, name, STORE)).ino, 2n);
}

test('rm -r removes a snapshot of the source through the mount, and whole trees with snapshots in them', () =>
  onMount(async (scene) => {
    const { source, mnt } = scene;
    snapshotIn(scene, 'snapshot');
    await run('rm', '-r', join(mnt, 'snapshot'));
    assert.ok(!existsSync(join(source, 'snapshot')));

    mkdirSync(join(mnt, 'backups/monday'), { recursive: true });
    for (const name of ['backups/first', 'backups/monday/second']) snapshotIn(scene, name);
    await run('rm', '-r', join(mnt, 'backups'));
    assert.deepEqual(readdirSync(source).sort(), [STORE, 'file']);
    // By find, which asks for each directory that shows empty to be removed.
    snapshotIn(scene, 'snapshot');
    posix.unlink(join(mnt, 'snapshot/file'));
    await run('find', mnt, '-mindepth', '1', '-empty', '-delete');
    assert.deepEqual(readdirSync(source).sort(), [STORE, 'file']);
  }));

test('a snapshot of which anything is left is not removed, and keeps its placeholder', () =>
  onMount(async (scene) => {
    const { source, mnt } = scene;
    snapshotIn(scene, 'snapshot');
    mkdirSync(join(mnt, 'empty'));
    assert.throws(() => posix.rmdir(join(mnt, 'snapshot')), { code: 'ENOTEMPTY' });
    assert.throws(() => posix.rename(join(mnt, 'empty'), join(mnt, 'snapshot')), { code: 'ENOTEMPTY' });
    assert.deepEqual(readdirSync(join(source, 'snapshot')).sort(), [STORE, 'file']);
    // What is in the place of another subvolume is shown, and is a thing that is left.
    posix.unlink(join(mnt, 'snapshot/file'));
    posix.makeSubvolume(join(source, 'other'));
    snapshotIn(scene, 'second');
    posix.unlink(join(mnt, 'second/file'));
    for (const name of ['snapshot', 'other']) posix.rmdir(join(mnt, 'second', name));
    mkdirSync(join(mnt, 'second/left'));
    assert.throws(() => posix.rmdir(join(mnt, 'second')), { code: 'ENOTEMPTY' });
    assert.deepEqual(readdirSync(join(source, 'second')).sort(), [STORE, 'empty', 'left']);
    for (const name of ['left', 'empty']) posix.rmdir(join(mnt, 'second', name));
    posix.rmdir(join(mnt, 'second'));
    posix.rmdir(join(mnt, 'snapshot'));
    for (const name of ['empty', 'other']) posix.rmdir(join(mnt, name));
    assert.deepEqual(readdirSync(source).sort(), [STORE, 'file']);
  }));

test("a store in use is never taken for a placeholder: the directory that holds it can't be removed", () =>
  onFilesystem('btrfs', 512, async ({ dir, folder }) => {
    const mnt = join(folder, 'mount');
    mkdirSync(join(dir, 'stores'));
    mkdirSync(join(dir, 'empty'));
    const server = await mountSharedext(dir, mnt, `store=${dir}/stores`);
    assert.deepEqual(readdirSync(join(mnt, 'stores')), []);
    assert.throws(() => posix.rmdir(join(mnt, 'stores')), { code: 'ENOTEMPTY' });
    assert.throws(() => posix.rename(join(mnt, 'empty'), join(mnt, 'stores')), { code: 'ENOTEMPTY' });
    assert.deepEqual(readdirSync(join(dir, 'stores')), [STORE]);
    await server.umount();
  }));

test('a directory moves over a snapshot that shows empty, a snapshot moves, and two are exchanged', () =>
  onMount(async (scene) => {
    const { source, mnt } = scene;
    snapshotIn(scene, 'snapshot');
    posix.rename(join(mnt, 'snapshot'), join(mnt, 'moved'));
    assert.equal(posix.stat(join(source, 'moved', STORE)).ino, 2n);
    mkdirSync(join(mnt, 'folder/in'), { recursive: true });
    posix.rename(join(mnt, 'moved'), join(mnt, 'folder'), posix.RENAME_EXCHANGE);
    assert.deepEqual(readdirSync(join(mnt, 'folder')), ['file']);
    assert.deepEqual(readdirSync(join(mnt, 'moved')), ['in']);
    assert.equal(posix.stat(join(source, 'folder', STORE)).ino, 2n);
    posix.unlink(join(mnt, 'folder/file'));
    // btrfs takes no subvolume's name by rename(2), empty or not (btrfs_rename): the control, without a placeholder.
    posix.makeSubvolume(join(source, 'control'));
    const overControl = errorOf(() => posix.rename(join(mnt, 'moved'), join(mnt, 'control')));
    assert.equal(
      errorOf(() => posix.rename(join(mnt, 'moved'), join(mnt, 'folder'))),
      overControl,
    );
  }));

function errorOf(act: () => void): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return error instanceof SystemCallError ? error.code : String(error);
  }
}

test('a directory of a snapshot that had a store of its own can be removed, and be moved over', () =>
  onFilesystem('btrfs', 512, async ({ dir, folder }) => {
    const home = join(dir, 'home');
    posix.makeSubvolume(home);
    mkdirSync(join(home, 'served'));
    const inner = await mountSharedext(join(home, 'served'), join(folder, 'inner'));
    for (const name of ['first', 'second']) posix.snapshot(home, join(dir, name));
    const outer = await mountSharedext(dir, join(folder, 'outer'));
    posix.rmdir(join(folder, 'outer/first/served'));
    assert.deepEqual(readdirSync(join(dir, 'first')), []);
    mkdirSync(join(folder, 'outer/second/new'));
    posix.rename(join(folder, 'outer/second/new'), join(folder, 'outer/second/served'));
    assert.deepEqual(readdirSync(join(dir, 'second')), ['served']);
    assert.deepEqual(readdirSync(join(dir, 'second/served')), []);
    await outer.umount();
    await inner.umount();
  }));

test('rsync, tar, cp -a and du see no placeholder', () =>
  onMount(async (scene) => {
    const { filesystem, mnt } = scene;
    snapshotIn(scene, 'snapshot');
    const copies = join(filesystem.folder, 'copies');
    mkdirSync(copies);
    await run('rsync', '-a', `${mnt}/snapshot/`, join(copies, 'rsync'));
    await run('cp', '-a', join(mnt, 'snapshot'), join(copies, 'cp'));
    assert.deepEqual(readdirSync(join(copies, 'rsync')), ['file']);
    assert.deepEqual(readdirSync(join(copies, 'cp')), ['file']);
    const archive = join(copies, 'archive.tar');
    await run('tar', '-C', mnt, '-cf', archive, 'snapshot');
    assert.deepEqual((await run('tar', '-tf', archive)).trim().split('\n'), ['snapshot/', 'snapshot/file']);
    assert.ok(!(await run('du', '-a', mnt)).includes(STORE));
  }));

test('a read-only snapshot is a source with a store elsewhere, and says so without', () =>
  onMount(async (scene) => {
    const { filesystem, source } = scene;
    const snapshot = join(filesystem.dir, 'snapshot');
    posix.snapshot(source, snapshot, { readOnly: true });
    assert.equal(posix.stat(join(snapshot, STORE)).ino, 2n);
    const second = join(filesystem.folder, 'second');
    await assert.rejects(mountSharedext(snapshot, second), /source .*snapshot is read-only, mount with store=DIR/);
    await assert.rejects(
      mountSharedext(source, second, `store=${snapshot}`),
      /Cannot make the store .*snapshot\/\.sharedext: EROFS .*, mount with store=DIR/,
    );
    const store = join(filesystem.dir, 'stores');
    mkdirSync(store);
    const server = await mountSharedext(snapshot, second, `store=${store}`);
    assert.deepEqual(readdirSync(second), ['file']);
    assert.throws(() => posix.unlink(join(second, 'file')), { code: 'EROFS' });
    await server.umount();
    const without = await mountSharedext(snapshot, second, 'nosharedext');
    assert.deepEqual(readdirSync(second), ['file']);
    // Not by the server's own umount, which would take the placeholder for a store that was left.
    await run('umount', second);
    assert.deepEqual(await without.ended, { code: 0, signal: null });
  }));

test('a snapshot that takes the place of the source, or arrives by btrfs send, is a source like any other', () =>
  onFilesystem('btrfs', 512, async ({ dir, folder }) => {
    const [source, mnt] = [join(dir, 'source'), join(folder, 'mount')];
    posix.makeSubvolume(source);
    writeFileSync(join(source, 'file'), 'old');
    const before = await mountSharedext(source, mnt);
    posix.snapshot(source, join(dir, 'snapshot'));
    posix.snapshot(source, join(dir, 'sent'), { readOnly: true });
    // The store is a subvolume in it: btrfs deletes no subvolume that holds another.
    assert.throws(() => execFileSync('btrfs', ['subvolume', 'delete', source], { stdio: 'pipe' }), /not empty/);
    writeFileSync(join(mnt, 'file'), 'new');
    await before.umount();

    execFileSync('btrfs', ['subvolume', 'delete', source], { stdio: 'pipe' });
    posix.rename(join(dir, 'snapshot'), source);
    const after = await mountSharedext(source, mnt);
    assert.equal(readFileSync(join(mnt, 'file'), 'utf8'), 'old');
    assert.equal(posix.stat(join(source, STORE)).ino, 256n, 'a store took the place of the placeholder');
    await after.umount();
    assert.deepEqual(readdirSync(source), ['file']);

    const stream = join(folder, 'stream');
    const received = join(dir, 'received');
    mkdirSync(received);
    execFileSync('btrfs', ['send', '-q', '-f', stream, join(dir, 'sent')], { stdio: 'pipe' });
    execFileSync('btrfs', ['receive', '-q', '-f', stream, received], { stdio: 'pipe' });
    assert.deepEqual(readdirSync(join(received, 'sent')), ['file']);
  }));

test('a store that cannot be removed is told, and goes with the next mount', () =>
  onFilesystem('btrfs', 512, async ({ dir, folder }) => {
    const [source, mnt] = [join(dir, 'source'), join(folder, 'mount')];
    posix.makeSubvolume(source);
    const server = await mountSharedext(source, mnt);
    execFileSync('btrfs', ['property', 'set', source, 'ro', 'true'], { stdio: 'pipe' });
    await run('umount', mnt);
    await server.ended;
    assert.match(server.stderr(), /^sharedext: warning: unmount: the store .*\.sharedext is left: EROFS .*\n$/);
    assert.deepEqual(readdirSync(source), [STORE]);
    execFileSync('btrfs', ['property', 'set', source, 'ro', 'false'], { stdio: 'pipe' });
    await (await mountSharedext(source, mnt)).umount();
    assert.deepEqual(readdirSync(source), []);
  }));
