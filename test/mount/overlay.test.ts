/** overlayfs on a mount of ours: with its lower directory there, and with its upper and work directories there. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { onFilesystem, readFiles, residentPages, settled, storeFiles, writeData } from './clones.ts';

const MIB = 1 << 20;

interface Overlay {
  readonly dir: string;
  umount(): void;
}

function mountOverlay(dir: string, lower: string, upper: string, work: string): Overlay {
  mkdirSync(dir, { recursive: true });
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work},redirect_dir=on`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, dir], { stdio: 'pipe', timeout: 10_000 });
  return { dir, umount: () => execFileSync('umount', [dir], { stdio: 'pipe', timeout: 10_000 }) };
}

/** A tree with a file of some size, directories and links. */
function makeTree(dir: string): void {
  mkdirSync(join(dir, 'sub/deep'), { recursive: true });
  writeData(join(dir, 'large'), 8 * MIB, false);
  for (const name of ['kept', 'changed', 'removed', 'sub/inner', 'sub/deep/leaf']) writeFileSync(join(dir, name), name);
  posix.symlink('kept', join(dir, 'link'));
}

/** What overlayfs does to its upper directory: copy-up, whiteouts, opaque directories, renames. */
function exercise(dir: string): void {
  const at = (name: string) => join(dir, name);
  writeFileSync(at('created'), 'created');
  writeFileSync(at('changed'), 'new content');
  posix.unlink(at('removed'));
  posix.rename(at('kept'), at('renamed'));
  posix.chmod(at('sub/inner'), 0o600);
  mkdirSync(at('fresh'));
  posix.rename(at('fresh'), at('fresh2'));
  writeFileSync(at('fresh2/in'), 'in');
  execFileSync('rm', ['-r', at('sub/deep')]);
  mkdirSync(at('sub/deep'));
  writeFileSync(at('sub/deep/other'), 'other');
  posix.link(at('created'), at('linked'));
  const fd = posix.open(at('large'), posix.O_RDWR);
  posix.write(fd, 'copied up', 4 * MIB);
  posix.fsync(fd);
  posix.close(fd);
  posix.rename(at('sub'), at('moved'));
}

function check(dir: string, large: Buffer): void {
  const at = (name: string) => join(dir, name);
  const names = ['changed', 'created', 'fresh2', 'large', 'link', 'linked', 'moved', 'renamed'];
  assert.deepEqual(readdirSync(dir).sort(), names);
  assert.equal(readFileSync(at('created'), 'utf8'), 'created');
  assert.equal(posix.stat(at('created')).nlink, 2);
  assert.equal(readFileSync(at('changed'), 'utf8'), 'new content');
  assert.equal(readFileSync(at('renamed'), 'utf8'), 'kept');
  assert.equal(readFileSync(at('fresh2/in'), 'utf8'), 'in');
  assert.equal(posix.stat(at('moved/inner')).mode & 0o777, 0o600);
  // The directory that was removed and made again doesn't show what the lower one of that name has.
  assert.deepEqual(readdirSync(at('moved/deep')), ['other']);
  assert.ok(!existsSync(at('removed')));
  const expected = Buffer.from(large);
  expected.write('copied up', 4 * MIB);
  assert.ok(readFileSync(at('large')).equals(expected));
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, overlays over cloned lower directories on the mount share their page cache`, (t) =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      mkdirSync(join(source, 'tree0'));
      makeTree(join(source, 'tree0'));
      const trees = Array.from({ length: 4 }, (_, index) => `tree${index}`);
      for (const tree of trees.slice(1)) {
        execFileSync('cp', ['-a', '--reflink=always', join(source, 'tree0'), join(source, tree)]);
      }
      const large = readFileSync(join(source, 'tree0/large'));
      for (const tree of trees) posix.dropPages(join(source, tree, 'large'));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      // The upper directories are on the bare filesystem of another kind, beside the mount.
      const scratch = join(filesystem.folder, 'scratch');
      mkdirSync(scratch);
      execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', scratch]);
      const overlays = trees.map((tree) => {
        for (const name of ['upper', 'work']) mkdirSync(join(scratch, tree, name), { recursive: true });
        const [upper, work] = [join(scratch, tree, 'upper'), join(scratch, tree, 'work')];
        return mountOverlay(join(filesystem.folder, 'merged', tree), join(server.mountpoint, tree), upper, work);
      });
      await readFiles(overlays.map(({ dir }) => join(dir, 'large')));
      const pages = residentPages([...trees.map((tree) => join(source, tree, 'large')), ...storeFiles(source)]);
      t.diagnostic(`${kind}: ${pages} pages for ${trees.length} overlays, one file has ${(8 * MIB) / 4096}`);
      assert.ok(pages <= (1.02 * (8 * MIB)) / 4096, `${pages} pages`);
      for (const { dir } of overlays) {
        exercise(dir);
        check(dir, large);
      }
      for (const tree of trees) assert.ok(readFileSync(join(source, tree, 'large')).equals(large));
      for (const overlay of overlays) overlay.umount();
      execFileSync('umount', [scratch]);
      assert.equal((await server.requests())['READ'] ?? 0, 0);
      await server.umount();
    }));

  test(`on ${kind}, an overlay with its upper and work directories on the mount works as on the source`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      mkdirSync(join(source, 'lower'));
      makeTree(join(source, 'lower'));
      const large = readFileSync(join(source, 'lower/large'));
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const merged = join(filesystem.folder, 'merged');
      const run = (root: string, name: string) => {
        const [upper, work] = [join(root, `${name}-upper`), join(root, `${name}-work`)];
        mkdirSync(upper);
        mkdirSync(work);
        const overlay = mountOverlay(merged, join(root, 'lower'), upper, work);
        exercise(overlay.dir);
        check(overlay.dir, large);
        overlay.umount();
        // Mounted again, it shows the same.
        const again = mountOverlay(merged, join(root, 'lower'), upper, work);
        check(again.dir, large);
        again.umount();
      };
      run(source, 'control');
      run(server.mountpoint, 'ours');
      assert.deepEqual(
        readdirSync(join(source, 'ours-upper')).sort(),
        readdirSync(join(source, 'control-upper')).sort(),
      );
      await server.umount();
    }));
}
