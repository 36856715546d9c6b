/** The store is left out of backups of the source that root makes, and leaves nothing when the mount ends. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { onFilesystem, readFiles, run, settled, storeFiles, writeData } from './clones.ts';

const FS_NODUMP_FL = 0x40;
const TAG = 'CACHEDIR.TAG';

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, backups of the source leave the store out by its tag and its flag`, () =>
    onFilesystem(kind, 512, async ({ dir, folder }) => {
      const [source, mnt] = [join(dir, 'source'), join(folder, 'mountpoint')];
      mkdirSync(source);
      writeData(join(source, 'one'), 1 << 20, false);
      posix.reflink(join(source, 'one'), join(source, 'two'));
      await settled();
      const server = await mountSharedext(source, mnt, 'settle=0');
      await readFiles([join(mnt, 'one'), join(mnt, 'two')]);
      assert.equal(storeFiles(source).length, 1);
      const store = join(source, '.sharedext');
      assert.match(readFileSync(join(store, TAG), 'utf8'), /^Signature: 8a477f597d28d172789f06886806bc55\n/);
      assert.equal(posix.getFlags(store) & FS_NODUMP_FL, FS_NODUMP_FL);
      // XFS passes the flag on to what is made inside (fs.xfs.inherit_nodump).
      if (kind === 'xfs') assert.equal(posix.getFlags(storeFiles(source)[0] ?? '') & FS_NODUMP_FL, FS_NODUMP_FL);
      const archive = join(folder, 'archive.tar');
      const names = async (...options: string[]) => {
        await run('tar', '-C', source, ...options, '-cf', archive, '.');
        return (await run('tar', '-tf', archive)).trim().split('\n').sort();
      };
      assert.ok(
        (await names()).some((name) => /\/c[0-9a-f]+-[0-9a-f]+$/.test(name)),
        'the control has the clone',
      );
      assert.deepEqual(await names('--exclude-caches-all'), ['./', './one', './two']);
      assert.deepEqual(await names('--exclude-caches'), [
        './',
        './.sharedext/',
        `./.sharedext/${TAG}`,
        './one',
        './two',
      ]);
      const copy = join(folder, 'copy');
      await run('rsync', '-a', '--exclude=/.sharedext', `${source}/`, copy);
      assert.deepEqual(readdirSync(copy), ['one', 'two']);

      // A second mount keeps the store and its tag when the first one ends.
      const second = await mountSharedext(source, join(folder, 'second'));
      await server.umount();
      assert.ok(existsSync(join(store, TAG)));
      await second.umount();
      assert.deepEqual(readdirSync(source), ['one', 'two']);
    }));

  test(`on ${kind}, a tag that isn't ours is left, and the store with it`, () =>
    onFilesystem(kind, 512, async ({ dir, folder }) => {
      const [store, mnt] = [join(dir, '.sharedext'), join(folder, 'mountpoint')];
      mkdirSync(store, { mode: 0o700 });
      for (const content of ['', 'Signature: 8a477f597d28d172789f06886806bc55\n# by another program\n']) {
        writeFileSync(join(store, TAG), content);
        const server = await mountSharedext(dir, mnt);
        await run('umount', mnt);
        assert.deepEqual(await server.ended, { code: 0, signal: null });
        assert.equal(server.stderr(), '');
        assert.deepEqual(readdirSync(store), [TAG]);
        assert.equal(readFileSync(join(store, TAG), 'utf8'), content);
      }
      // Nor is the store removed while it holds anything else; what is ours in it stays with it.
      posix.unlink(join(store, TAG));
      writeFileSync(join(store, 'other'), '');
      const server = await mountSharedext(dir, mnt);
      await run('umount', mnt);
      await server.ended;
      assert.deepEqual(readdirSync(store).sort(), [TAG, 'other']);
      posix.unlink(join(store, 'other'));
      await (await mountSharedext(dir, mnt)).umount();
      assert.ok(!existsSync(store));
    }));
}
