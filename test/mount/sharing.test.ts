/** Sharing on real filesystems, proven by counts: of pages in the page cache, of requests, of sectors read. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { FilesystemKind } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';
import {
  allSectorsRead,
  dropPages,
  makeClones,
  onFilesystem,
  PAGE_BYTES,
  readFiles,
  residentPages,
  run,
  settled,
  startWaiting,
  storeFiles,
} from './clones.ts';

const MIB = 1 << 20;
/** The end is not at a block's: the last page of a file is shared, too. */
const ODD_BYTES = 1234;
const MAP_CHILD = fileURLToPath(new URL('./map-child.js', import.meta.url));
const CLONES = 8;
/** The size of the file, and of the filesystem. */
const sizes: readonly (readonly [kind: FilesystemKind, fileMib: number])[] = [
  ['btrfs', 200],
  ['btrfs-zstd', 48],
  ['btrfs-raid1', 48],
  ['xfs', 200],
  ['xfs-1k', 48],
];

for (const [kind, fileMib] of sizes) {
  test(`on ${kind}, ${CLONES} clones of ${fileMib} MiB hold one copy in memory when read and when mapped`, (t) =>
    onFilesystem(kind, 4 * fileMib + 320, async (filesystem) => {
      const source = filesystem.dir;
      const bytes = fileMib * MIB + ODD_BYTES;
      const onePages = Math.ceil(bytes / PAGE_BYTES);
      const files = makeClones(source, bytes, kind);
      const originals = files.map((file) => join(source, file));

      // The control: the same files without us.
      dropPages(originals);
      // Pages may be reclaimed again while others are read.
      for (let round = 0; round < 5 && residentPages(originals) < 0.97 * CLONES * onePages; round++) {
        await readFiles(originals);
      }
      const without = residentPages(originals);
      assert.ok(without >= 0.97 * CLONES * onePages, `${without} pages, one copy has ${onePages}`);

      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const clones = files.map((file) => join(server.mountpoint, file));
      const everywhere = () => residentPages([...originals, ...storeFiles(source)]);

      await readFiles(clones);
      assert.equal(residentPages(originals), 0, 'the pages of a file that turned to a shared mapping were not dropped');
      assert.ok(everywhere() <= 1.02 * onePages, `${everywhere()} pages for ${onePages}`);
      assert.equal(storeFiles(source).length, 1);

      dropPages(storeFiles(source));
      const [first = '', ...others] = clones;
      await readFiles([first]);
      // Metadata may have to be read once, and what the machine reclaimed meanwhile; a copy for each would be seven times all.
      const sectors: number[] = [];
      while (sectors.length < 3 && sectors.at(-1) !== 0) {
        await run('sync', '-f', source);
        const before = allSectorsRead(filesystem);
        await readFiles(others);
        sectors.push(allSectorsRead(filesystem) - before);
      }
      assert.equal(sectors.at(-1), 0, `reading the other clones read from the disk: ${sectors} sectors`);
      assert.ok(
        (sectors[0] ?? 0) < (0.1 * bytes) / 512,
        `reading the other clones read from the disk: ${sectors} sectors`,
      );
      for (const clone of others) assert.equal(await run('cmp', '-n', '4M', first, clone), '');

      dropPages([...originals, ...storeFiles(source)]);
      const mapping = await Promise.all(clones.map((clone) => startWaiting(process.execPath, [MAP_CHILD, clone])));
      const mapped = everywhere();
      await Promise.all(mapping.map((one) => one.end()));
      assert.ok(mapped >= onePages && mapped <= 1.02 * onePages, `${mapped} pages for ${onePages}`);

      const requests = await server.requests();
      assert.equal(requests['READ'] ?? 0, 0);
      assert.equal(requests['WRITE'] ?? 0, 0);
      t.diagnostic(
        `${kind}: ${mapped} pages mapped by ${CLONES}, one copy has ${onePages}; without us ${CLONES * onePages}`,
      );
      await server.umount();
    }));
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, a program that runs from ${CLONES} cloned trees is in memory once`, (t) =>
    onFilesystem(kind, 1024, async (filesystem) => {
      const source = filesystem.dir;
      mkdirSync(join(source, 'tree0'));
      copyFileSync(process.execPath, join(source, 'tree0', 'program'));
      const script = `process.stdout.write('ready'); process.stdin.resume(); /* ${'x'.repeat(3 * PAGE_BYTES)} */\n`;
      writeFileSync(join(source, 'tree0', 'main.js'), script);
      execFileSync('sync', ['-f', source]);
      const trees = Array.from({ length: CLONES }, (_, index) => `tree${index}`);
      for (const tree of trees.slice(1)) {
        execFileSync('cp', ['-r', '--reflink=always', join(source, 'tree0'), join(source, tree)]);
      }
      execFileSync('sync', ['-f', source]);
      const originals = trees.flatMap((tree) => ['program', 'main.js'].map((name) => join(source, tree, name)));
      dropPages(originals);
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const start = (tree: string) => {
        const home = join(server.mountpoint, tree);
        return startWaiting(join(home, 'program'), [join(home, 'main.js')]);
      };

      const one = await start('tree0');
      const alone = residentPages(storeFiles(source));
      const running = await Promise.all(trees.slice(1).map(start));
      const together = residentPages([...originals, ...storeFiles(source)]);
      assert.ok(alone > 1000, `only ${alone} pages of one program are resident`);
      assert.ok(together <= 1.02 * alone, `${together} pages for ${CLONES} programs, ${alone} for one`);
      assert.equal(storeFiles(source).length, 2);
      t.diagnostic(`${kind}: ${together} pages for ${CLONES} programs, ${alone} for one`);
      await Promise.all([one, ...running].map((program) => program.end()));
      assert.equal((await server.requests())['READ'] ?? 0, 0);
      await server.umount();
    }));
}
