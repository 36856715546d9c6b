/**
 * Domains: files of one share their pages, files of two never do. What somebody could find out about another's residency is
 * counted: whether his own read takes its data from the disk.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, closeSync, linkSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import {
  allSectorsRead,
  dropPages,
  onFilesystem,
  PAGE_BYTES,
  readFiles,
  residentPages,
  settled,
  storeFiles,
  writeData,
} from './clones.ts';

const SMALL_BYTES = 2 << 20;
const LARGE_BYTES = 12 << 20;
/** What reading metadata may take, in bytes. */
const METADATA_BYTES = 512 << 10;

/** Two files, `one` and `two`, in each of two places that the rule keeps apart, all clones of one another. */
const layouts: Readonly<Record<'dir' | 'uid' | 'subvolume', (root: string) => void>> = {
  dir: (root) => {
    for (const place of ['a', 'b']) mkdirSync(join(root, place));
  },
  uid: (root) => {
    for (const place of ['a', 'b']) mkdirSync(join(root, place));
  },
  subvolume: (root) => {
    for (const place of ['a', 'b']) posix.makeSubvolume(join(root, place));
  },
};

function fill(root: string, rule: keyof typeof layouts, bytes: number, diverged: boolean): void {
  layouts[rule](root);
  const base = join(root, 'base');
  writeData(base, bytes, false);
  for (const [i, place] of ['a', 'b'].entries()) {
    for (const name of ['one', 'two']) {
      const file = join(root, place, name);
      execFileSync('cp', ['--reflink=always', base, file]);
      if (diverged) {
        execFileSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=4k', 'count=1', 'conv=notrunc,fsync'], {
          stdio: 'ignore',
        });
      }
      if (rule === 'uid') chownSync(file, 1000 + i, 1000);
    }
  }
  rmSync(base);
  execFileSync('sync', ['-f', root]);
}

for (const kind of ['btrfs', 'xfs'] as const) {
  for (const rule of ['dir', 'uid', 'subvolume'] as const) {
    if (kind === 'xfs' && rule === 'subvolume') continue;
    for (const diverged of [false, true]) {
      const what = diverged ? 'diverged files' : 'clones';
      test(`on ${kind} with domain=${rule}, ${what} of two domains share nothing, of one all`, async () => {
        await onFilesystem(kind, 400, async (filesystem) => {
          const root = join(filesystem.dir, 'source');
          mkdirSync(root);
          const bytes = diverged ? LARGE_BYTES : SMALL_BYTES;
          fill(root, rule, bytes, diverged);
          const paths = ['a', 'b'].flatMap((place) => ['one', 'two'].map((name) => join(root, place, name)));
          dropPages(paths);
          const server = await mountSharedext(root, join(filesystem.folder, 'mounted'), `settle=0,domain=${rule}`);
          await settled();
          const readFrom = async (path: string): Promise<number> => {
            const before = allSectorsRead(filesystem);
            await readFiles([join(server.mountpoint, path)]);
            return (allSectorsRead(filesystem) - before) * 512;
          };
          assert.ok((await readFrom('a/one')) >= bytes, 'the first read of all comes from the disk');
          assert.ok((await readFrom('b/one')) >= bytes, 'what another domain has read is on the disk for this one');
          assert.ok((await readFrom('a/two')) < METADATA_BYTES, 'what the same domain has read is in memory');
          assert.ok((await readFrom('b/two')) < METADATA_BYTES, 'what the same domain has read is in memory');
          const pages = residentPages(storeFiles(root));
          assert.ok(pages <= (2 * bytes) / PAGE_BYTES, `one copy for each domain, not ${pages} pages`);
          const { mappings, composed } = await server.status();
          assert.equal(diverged ? composed?.packs : mappings?.count, 2);
          await server.umount();
        });
      });
    }
  }
}

test('with domain=dir, names stay in their directory below the source, and a successor knows it', async () => {
  await onFilesystem('btrfs', 400, async (filesystem) => {
    const root = join(filesystem.dir, 'source');
    mkdirSync(root);
    fill(root, 'dir', SMALL_BYTES, false);
    const { mountpoint, status, umount } = await mountSharedext(
      root,
      join(filesystem.folder, 'mounted'),
      'settle=0,domain=dir',
    );
    const at = (path: string): string => join(mountpoint, path);
    writeFileSync(at('top'), 'x');
    mkdirSync(at('a/inner'));
    const moves = (): void => {
      for (const [from, to] of [
        ['a/one', 'b/moved'],
        ['a/one', 'moved'],
        ['top', 'a/top'],
        ['a/inner', 'b/inner'],
        ['a', 'b/a'],
      ] as const) {
        assert.throws(() => renameSync(at(from), at(to)), /EXDEV/, `${from} to ${to}`);
      }
      assert.throws(() => linkSync(at('a/one'), at('b/linked')), /EXDEV/);
      assert.throws(() => linkSync(at('a/one'), at('linked')), /EXDEV/);
    };
    moves();
    process.kill((await status()).pid, 'SIGKILL');
    moves();
    renameSync(at('a/one'), at('a/inner/one'));
    linkSync(at('a/inner/one'), at('a/linked'));
    renameSync(at('top'), at('other'));
    renameSync(at('a'), at('c'));
    // mv copies, as between filesystems.
    execFileSync('mv', [at('c/two'), at('b/moved')]);
    for (const path of ['b/one', 'c/linked', 'b/moved']) closeSync(openSync(at(path), 'r'));
    await umount();
  });
});
