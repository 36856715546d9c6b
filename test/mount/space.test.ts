/** Clones pin disk space: what the store gives back, and when. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem, readFiles, settled, storeFiles, writeData } from './clones.ts';

const MIB = 1 << 20;

function freeBytes(dir: string): number {
  execFileSync('sync', ['-f', dir]);
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}

/** Waits until something holds, and returns after how many milliseconds it did. */
async function waitFor(what: string, holds: () => boolean, limitMs: number): Promise<number> {
  const start = Date.now();
  while (!holds()) {
    assert.ok(Date.now() - start < limitMs, `${what}: not within ${limitMs} ms`);
    await pause(20);
  }
  return Date.now() - start;
}

/** Overwrites a file at the speed of a disk, 100 to 200 MB/s: docs/semantics.md says what a faster writer may see. */
async function overwrite(file: string, bytes: number): Promise<void> {
  const chunk = Buffer.alloc(256 * 1024, 'overwritten');
  const fd = posix.open(file, posix.O_WRONLY);
  try {
    for (let at = 0; at < bytes; at += chunk.length) {
      assert.equal(posix.write(fd, chunk, at), chunk.length);
      await pause(2);
    }
    // On btrfs, statfs(2) does not count what is only in memory so far.
    posix.fsync(fd);
  } finally {
    posix.close(fd);
  }
}

/** btrfs frees the space of deleted files and the like when it commits. */
function commit(dir: string, kind: string): void {
  if (kind === 'btrfs') execFileSync('btrfs', ['filesystem', 'sync', dir]);
  else execFileSync('sync', ['-f', dir]);
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, deleting the last user of an extent empties the store and gives the space back`, (t) =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const atFirst = freeBytes(source);
      writeData(join(source, 'a'), 64 * MIB, false);
      posix.reflink(join(source, 'a'), join(source, 'b'));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const [a, b] = [join(server.mountpoint, 'a'), join(server.mountpoint, 'b')];
      await readFiles([a, b]);
      assert.equal(storeFiles(source).length, 1);
      posix.unlink(a);
      await pause(300);
      assert.equal(storeFiles(source).length, 1, 'the clone of a file that still has a user was dropped');
      posix.unlink(b);
      commit(source, kind);
      const tookMs = await waitFor('an empty store', () => storeFiles(source).length === 0, 1500);
      commit(source, kind);
      await waitFor('the space', () => freeBytes(source) > atFirst - 8 * MIB, 5000);
      t.diagnostic(`${kind}: the store was empty ${tookMs} ms after the deletion`);
      await server.umount();
    }));

  test(`on ${kind}, a deleted file that is still open on a shared mapping keeps its bytes, and then the space comes back`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      writeData(join(source, 'a'), MIB, false);
      posix.reflink(join(source, 'a'), join(source, 'b'));
      const old = readFileSync(join(source, 'a'));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const fd = posix.open(join(server.mountpoint, 'a'), posix.O_RDONLY);
      posix.unlink(join(server.mountpoint, 'a'));
      posix.unlink(join(server.mountpoint, 'b'));
      await pause(500);
      assert.equal(posix.fstat(fd).size, MIB);
      assert.equal(posix.fstat(fd).nlink, 0);
      const tail = posix.read(fd, 1000, MIB - 1000);
      assert.ok(tail.equals(old.subarray(MIB - 1000)));
      posix.close(fd);
      commit(source, kind);
      await waitFor('an empty store', () => storeFiles(source).length === 0, 5000);
      await server.umount();
    }));

  test(`on ${kind}, mappings=4 is never exceeded, and the least recently used make room`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const names = Array.from({ length: 10 }, (_, index) => `file${index}`);
      for (const name of names) {
        writeData(join(source, name), 16 * 1024, false);
        posix.reflink(join(source, name), join(source, `${name}.twin`));
      }
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0,mappings=4');
      const on = (name: string) => join(server.mountpoint, name);
      const made = async () => (await server.status()).mappings?.made ?? 0;
      for (const name of names) {
        assert.ok(readFileSync(on(name)).equals(readFileSync(join(source, name))));
        assert.ok(storeFiles(source).length <= 4);
      }
      const before = await made();
      for (const name of names.slice(6)) readFileSync(on(`${name}.twin`));
      assert.equal(await made(), before, 'one of the last four was dropped');
      readFileSync(on('file0.twin'));
      assert.equal(await made(), before + 1);

      // Those in use stay; when all are, further files take their own route.
      const open = names.slice(0, 4).map((name) => posix.open(on(name), posix.O_RDONLY));
      const reasons = (await server.status()).reasons['too-many-mappings'] ?? 0;
      assert.ok(readFileSync(on('file9')).equals(readFileSync(join(source, 'file9'))));
      assert.equal((await server.status()).reasons['too-many-mappings'], reasons + 1);
      assert.equal(storeFiles(source).length, 4);
      for (const fd of open) posix.close(fd);
      await server.umount();
    }));

  test(`on ${kind}, nobody sees ENOSPC as long as idle clones could be dropped`, (t) =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const fileMib = 16;
      const names: string[] = [];
      for (let index = 0; index < 10; index++) names.push(`file${index}`);
      for (const name of names) {
        writeData(join(source, name), fileMib * MIB, false);
        posix.reflink(join(source, name), join(source, `${name}.twin`));
      }
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0,floor=48m');
      const on = (name: string) => join(server.mountpoint, name);
      await readFiles(names.map(on));
      assert.equal(storeFiles(source).length, names.length);
      // From here on, every pair that is overwritten needs room for one file more; the clones hold as much again.
      mkdirSync(on('filled'));
      let filled = 0;
      const needed = (names.length * fileMib + 56) * MIB;
      while (freeBytes(source) > needed + fileMib * MIB) {
        writeData(on(`filled/${filled++}`), fileMib * MIB, false);
        // Not so fast that the store must fear for the floor.
        await pause(150);
      }
      assert.equal(storeFiles(source).length, names.length, 'clones were dropped before they were in the way');
      for (const name of names) {
        await overwrite(on(name), fileMib * MIB);
        await overwrite(on(`${name}.twin`), fileMib * MIB);
      }
      t.diagnostic(`${kind}: ${filled} files filled it, ${storeFiles(source).length} clones are left`);
      await server.umount();
    }));
}
