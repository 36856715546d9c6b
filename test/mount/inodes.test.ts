/** Inode numbers over btrfs subvolumes, where many files have equal ones, and the programs that rely on them. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { onFilesystem, run, settled } from './clones.ts';

const FILES = 60;

/** A subvolume with another inside, files and hard links, and two snapshots of it. */
function makeSubvolumes(source: string): void {
  const home = join(source, 'home');
  posix.makeSubvolume(home);
  mkdirSync(join(home, 'dir'));
  for (let index = 0; index < FILES; index++) writeFileSync(join(home, `dir/file${index}`), `${index}`.repeat(3000));
  posix.link(join(home, 'dir/file0'), join(home, 'linked'));
  posix.makeSubvolume(join(home, 'nested'));
  writeFileSync(join(home, 'nested/inner'), 'inner');
  posix.snapshot(home, join(source, 'snapshot1'), { readOnly: true });
  posix.snapshot(home, join(source, 'snapshot2'));
  execFileSync('sync', ['-f', source]);
}

/** Every path below `dir` with its inode number, as a walk of it shows them. */
function inodesBelow(dir: string): Map<string, bigint> {
  const inodes = new Map<string, bigint>();
  const visit = (relative: string) => {
    for (const name of readdirSync(join(dir, relative)).sort()) {
      const path = join(relative, name);
      if (path === '.sharedext') continue;
      const { ino, mode } = posix.lstat(join(dir, path));
      inodes.set(path, ino);
      if ((mode & posix.S_IFMT) === posix.S_IFDIR) visit(path);
    }
  };
  visit('.');
  return inodes;
}

test('inode numbers are unique over subvolumes and snapshots, also for placeholders of nested ones, and stay the same', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    makeSubvolumes(filesystem.dir);
    const shared = join(filesystem.folder, 'shared');
    const server = await mountSharedext(filesystem.dir, shared, 'settle=0');
    const inodes = inodesBelow(shared);
    const bare = inodesBelow(filesystem.dir);
    assert.deepEqual([...inodes.keys()], [...bare.keys()]);
    // The only names of one inode are the hard links, one pair in each of the three subvolumes.
    assert.equal(inodes.size - new Set(inodes.values()).size, 3);
    assert.ok(bare.size - new Set(bare.values()).size > 2 * FILES, 'the control has no equal inode numbers');
    for (const home of ['home', 'snapshot1', 'snapshot2']) {
      assert.equal(inodes.get(`${home}/linked`), inodes.get(`${home}/dir/file0`));
    }
    // In a snapshot, a nested subvolume is an empty directory with inode number 2, which has no file handle.
    assert.equal(posix.stat(join(filesystem.dir, 'snapshot1/nested')).ino, 2n);
    assert.deepEqual(readdirSync(join(shared, 'snapshot1/nested')), []);
    assert.deepEqual(readdirSync(join(shared, 'home/nested')), ['inner']);
    const listed = new Map(posix.entriesOf(shared).map(({ name, ino }) => [name.toString(), ino]));
    assert.equal(listed.get('snapshot1'), inodes.get('snapshot1'));
    await server.umount();

    const again = await mountSharedext(filesystem.dir, shared, 'settle=0');
    assert.deepEqual(inodesBelow(shared), inodes);
    await again.umount();
  }));

test('find, tar and rsync see every snapshot as files of its own, and only real hard links as such', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    makeSubvolumes(filesystem.dir);
    const shared = join(filesystem.folder, 'shared');
    await settled();
    const server = await mountSharedext(filesystem.dir, shared, 'settle=0');
    const links = (await run('find', shared, '-samefile', join(shared, 'snapshot2/dir/file0'))).trim().split('\n');
    assert.deepEqual(links.sort(), [join(shared, 'snapshot2/dir/file0'), join(shared, 'snapshot2/linked')]);

    const archive = join(filesystem.folder, 'archive.tar');
    await run('tar', '-C', shared, '-cf', archive, 'home', 'snapshot1', 'snapshot2');
    const listing = await run('tar', '-tvf', archive);
    assert.equal(listing.split('\n').filter((line) => line.startsWith('h')).length, 3);

    const copy = join(filesystem.folder, 'copy');
    mkdirSync(copy);
    const homes = ['home', 'snapshot1', 'snapshot2'];
    await run('rsync', '-aH', ...homes.map((name) => join(shared, name)), `${copy}/`);
    assert.equal(await run('diff', '-r', '--exclude=.sharedext', filesystem.dir, copy), '');
    assert.equal(await run('diff', '-r', shared, copy), '');
    for (const home of homes) {
      assert.equal(posix.stat(join(copy, home, 'linked')).nlink, 2);
      assert.equal(posix.stat(join(copy, home, 'dir/file1')).nlink, 1);
    }
    await server.umount();
  }));

test('a mount of a subvolume shows its own inode numbers, and other ones for what is in a subvolume below', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    makeSubvolumes(filesystem.dir);
    const home = join(filesystem.dir, 'home');
    const shared = join(filesystem.folder, 'shared');
    const server = await mountSharedext(home, shared, 'settle=0');
    const inodes = inodesBelow(shared);
    for (const [path, ino] of inodesBelow(home)) {
      if (path.startsWith('nested')) assert.notEqual(inodes.get(path), ino, path);
      else assert.equal(inodes.get(path), ino, path);
    }
    await server.umount();
  }));
