/** Files that btrfs keeps in its trees: shared by their items, between those of one user, and by nothing else. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, chownSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { dropPages, onFilesystem, readFiles, residentPages, settled, storeFiles, writeData } from './clones.ts';

const FILES = 60;
const SNAPSHOTS = 4;

function names(folder: string): string[] {
  return Array.from({ length: FILES }, (_, index) => join(folder, `file${index}`));
}

/** A subvolume with small files, snapshots of it, and a folder with reflinks. Returns the folders. */
function makeSmall(source: string, compressible: boolean): string[] {
  const home = join(source, 'home');
  posix.makeSubvolume(home);
  for (const [index, file] of names(home).entries()) writeData(file, 1 + ((index * 131) % 2000), compressible);
  const folders = ['home'];
  for (let index = 0; index < SNAPSHOTS; index++) {
    posix.snapshot(home, join(source, `snapshot${index}`), { readOnly: index % 2 === 0 });
    folders.push(`snapshot${index}`);
  }
  mkdirSync(join(source, 'reflinks'));
  for (const file of names(home)) execFileSync('cp', ['--reflink=always', file, join(source, 'reflinks')]);
  folders.push('reflinks');
  execFileSync('sync', ['-f', source]);
  return folders;
}

function mountOf(filesystem: LoopFilesystem, options: string): Promise<MountedServer> {
  return mountSharedext(filesystem.dir, join(filesystem.folder, 'shared'), options);
}

for (const kind of ['btrfs', 'btrfs-zstd'] as const) {
  test(`on ${kind}, inline files of snapshots and reflinks hold one copy in memory`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const folders = makeSmall(source, kind === 'btrfs-zstd');
      const originals = folders.flatMap((folder) => names(join(source, folder)));
      const contents = names(join(source, 'home')).map((file) => readFileSync(file));
      await settled();

      // The control: a mount that doesn't share.
      dropPages(originals);
      const control = await mountOf(filesystem, 'nosharedext');
      for (const folder of folders) await readFiles(names(join(control.mountpoint, folder)));
      assert.equal(residentPages(originals), FILES * folders.length);
      await control.umount();

      dropPages(originals);
      const server = await mountOf(filesystem, 'settle=0');
      const everywhere = () => residentPages([...originals, ...storeFiles(source)]);
      for (const folder of folders) await readFiles(names(join(server.mountpoint, folder)));
      assert.equal(storeFiles(source).length, FILES);
      assert.equal(everywhere(), FILES);
      // The first one, which was read when it was the only one, goes over to what the others have.
      await readFiles(names(join(server.mountpoint, 'home')));
      assert.equal(everywhere(), FILES);
      for (const folder of folders) {
        const read = names(join(server.mountpoint, folder)).map((file) => readFileSync(file));
        assert.ok(
          read.every((bytes, index) => contents[index]?.equals(bytes)),
          `${folder} shows other bytes`,
        );
      }
      await server.umount();
      assert.deepEqual(storeFiles(source), []);
    }));
}

test('inline files of equal bytes that were written apart, or belong to two users, are not shared', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    const source = filesystem.dir;
    const write = (name: string, text: string): void => {
      writeFileSync(join(source, name), text);
      // A transaction of its own.
      execFileSync('sync', ['-f', source]);
    };
    write('apart1', 'the same text');
    write('apart2', 'the same text');
    write('mine', 'my secret');
    execFileSync('cp', ['--reflink=always', join(source, 'mine'), join(source, 'theirs')]);
    chownSync(join(source, 'theirs'), 1234, 1234);
    execFileSync('sync', ['-f', source]);
    await settled();
    const server = await mountOf(filesystem, 'settle=0');
    const files = ['apart1', 'apart2', 'mine', 'theirs'];
    for (let round = 0; round < 2; round++) await readFiles(files.map((name) => join(server.mountpoint, name)));
    assert.deepEqual(storeFiles(source), []);
    assert.equal(residentPages(files.map((name) => join(source, name))), files.length);
    await server.umount();
  }));

/** What happens to one of many inline files that share a mapping, by a path of it. */
const changes: Readonly<Record<string, (file: string) => void>> = {
  overwrite(file) {
    const fd = posix.open(file, posix.O_WRONLY);
    posix.write(fd, 'X', 3);
    posix.close(fd);
  },
  append: (file) => appendFileSync(file, 'more'),
  'grow out of the tree': (file) => appendFileSync(file, Buffer.alloc(10_000, 'g')),
  shorten: (file) => truncateSync(file, 5),
  lengthen: (file) => truncateSync(file, 1900),
  'shorten and lengthen': (file) => {
    truncateSync(file, 5);
    truncateSync(file, 1000);
  },
  replace: (file) => writeFileSync(file, Buffer.alloc(1000, 'r')),
};

for (const where of ['through the mount', 'around it']) {
  test(`a change of an inline file ${where} is its alone`, () =>
    onFilesystem('btrfs', 512, async (filesystem) => {
      const source = filesystem.dir;
      const home = join(source, 'home');
      posix.makeSubvolume(home);
      const kinds = Object.keys(changes);
      const contents = new Map(kinds.map((name) => [name, Buffer.alloc(1000, `${name}, `)]));
      for (const [name, content] of contents) writeFileSync(join(home, name), content);
      execFileSync('sync', ['-f', source]);
      for (const name of ['one', 'two', 'three']) posix.snapshot(home, join(source, name), { readOnly: false });
      await settled();
      const server = await mountOf(filesystem, 'settle=0,cache=0');
      const folders = ['home', 'one', 'two', 'three'];
      const shown = (folder: string, name: string) => readFileSync(join(server.mountpoint, folder, name));
      for (const folder of folders) {
        for (const [name, content] of contents) assert.ok(shown(folder, name).equals(content));
      }
      assert.equal(storeFiles(source).length, kinds.length);
      for (const [name, change] of Object.entries(changes)) {
        change(join(where === 'through the mount' ? server.mountpoint : source, 'two', name));
        const now = readFileSync(join(source, 'two', name));
        // At once, and when it is old enough to be shared again.
        for (let round = 0; round < 2; round++) {
          assert.ok(shown('two', name).equals(now), `${name}: the mount shows other bytes`);
          for (const folder of ['home', 'one', 'three'])
            assert.deepEqual(shown(folder, name), contents.get(name), name);
          execFileSync('sync', ['-f', source]);
          await settled();
        }
      }
      await server.umount();
    }));
}
