/**
 * Diverged clones hold each extent in memory once, proven by counts of pages. SHAREDEXT_COMPOSED_MB sets the size of the
 * image that is cloned; 1024 is that of a small disk.
 */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { FilesystemKind } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { dropPages, onFilesystem, PAGE_BYTES, residentPages, run, settled, storeFiles, writeData } from './clones.ts';
import { Random } from './random.ts';

const MIB = 1 << 20;
const IMAGE_MIB = Number(process.env['SHAREDEXT_COMPOSED_MB'] ?? 64);
const CLONES = 8;
const CHANGED = 0.02;
const SEED = 11;
const KINDS: readonly FilesystemKind[] = ['btrfs', 'btrfs-zstd', 'xfs', 'xfs-1k'];

interface Disks {
  readonly names: readonly string[];
  readonly hashes: readonly string[];
  /** Pages of different content in all of them. */
  readonly uniquePages: number;
}

/** An image and its clones, each changed at random and different places; the image itself is deleted. */
function makeDisks(source: string, bytes: number, kind: FilesystemKind): Disks {
  const random = new Random(SEED);
  const image = join(source, 'image');
  writeData(image, bytes, kind === 'btrfs-zstd');
  const pages = bytes / PAGE_BYTES;
  const kept = new Uint8Array(pages);
  let changed = 0;
  const names: string[] = [];
  for (let clone = 0; clone < CLONES; clone++) {
    const name = `disk${clone}`;
    names.push(name);
    posix.reflink(image, join(source, name));
    const fd = posix.open(join(source, name), posix.O_RDWR);
    const places = new Set<number>();
    while (places.size < pages * CHANGED) places.add(random.below(pages));
    for (let page = 0; page < pages; page++) {
      if (places.has(page)) posix.write(fd, random.bytes(PAGE_BYTES), page * PAGE_BYTES);
      else kept[page] = 1;
    }
    changed += places.size;
    posix.fsync(fd);
    posix.close(fd);
  }
  posix.unlink(image);
  const hashes = names.map((name) => hashOf(join(source, name), MIB / 8));
  return { names, hashes, uniquePages: changed + kept.reduce((sum, one) => sum + one, 0) };
}

function hashOf(file: string, size: number): string {
  const hash = createHash('sha1');
  const fd = posix.open(file, posix.O_RDONLY);
  for (let data = posix.read(fd, size); data.length > 0; data = posix.read(fd, size)) hash.update(data);
  posix.close(fd);
  return hash.digest('hex');
}

/** Reads all disks from beginning to end with one size of read, in a child. */
async function readAll(server: MountedServer, names: readonly string[], size: string): Promise<void> {
  for (const name of names) {
    await run('dd', `if=${join(server.mountpoint, name)}`, 'of=/dev/null', `bs=${size}`, 'status=none');
  }
}

function pagesEverywhere(source: string): number {
  const files = readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isFile());
  return residentPages([...files.map(({ name }) => join(source, name)), ...storeFiles(source)]);
}

for (const kind of KINDS) {
  test(`on ${kind}, ${CLONES} clones of ${IMAGE_MIB} MiB that differ in 2% hold each block in memory once`, (t) =>
    onFilesystem(kind, 4 * IMAGE_MIB + 512, async (filesystem) => {
      const source = filesystem.dir;
      const disks = makeDisks(source, IMAGE_MIB * MIB, kind);
      const originals = disks.names.map((name) => join(source, name));
      const mountpoint = join(filesystem.folder, 'shared');
      for (const size of ['1M', '4k']) {
        dropPages(originals);
        await settled();
        const server = await mountSharedext(source, mountpoint);
        await readAll(server, disks.names, size);
        const pages = pagesEverywhere(source);
        const ratio = pages / disks.uniquePages;
        t.diagnostic(`${kind}, read by ${size}: ${pages} pages, unique ${disks.uniquePages}: ${ratio.toFixed(4)}`);
        assert.ok(ratio <= 1.02, `${pages} pages, ${disks.uniquePages} are different`);
        const { composed } = await server.status();
        assert.ok((composed?.mappingBytes ?? 0) > 0.95 * CLONES * IMAGE_MIB * MIB, JSON.stringify(composed));
        disks.names.forEach((name, clone) => {
          assert.equal(hashOf(join(mountpoint, name), 100_000), disks.hashes[clone], name);
        });
        await server.umount();
      }
      // The control: the same mount without sharing.
      const server = await mountSharedext(source, mountpoint, 'nosharedext');
      await readAll(server, disks.names, '1M');
      const without = pagesEverywhere(source);
      t.diagnostic(`${kind}, without sharing: ${without} pages`);
      assert.ok(without > 4 * disks.uniquePages, `${without} pages, ${disks.uniquePages} are different`);
      await server.umount();
    }));
}

test('every file that has an extent finds it, at whatever offset, and private parts are never held by the store', () =>
  onFilesystem('xfs', 512, async (filesystem) => {
    const source = filesystem.dir;
    const at = (name: string): string => join(source, name);
    writeData(at('base'), 16 * MIB, false);
    // A clone of a clone, changed in the middle.
    posix.reflink(at('base'), at('first'));
    posix.reflink(at('first'), at('second'));
    change(at('first'), 3 * MIB);
    change(at('second'), 9 * MIB);
    // Pieces at other offsets, between private parts.
    writeData(at('pieces'), 12 * MIB, false);
    const from = posix.open(at('base'), posix.O_RDONLY);
    const to = posix.open(at('pieces'), posix.O_RDWR);
    posix.reflinkRange(from, 4 * MIB, 2 * MIB, to, 64 * 1024);
    posix.reflinkRange(from, 12 * MIB, 3 * MIB, to, 8 * MIB + 4096);
    posix.fsync(to);
    posix.close(from);
    posix.close(to);
    const names = ['first', 'second', 'pieces'];
    const hashes = names.map((name) => hashOf(at(name), MIB / 8));
    dropPages(names.map(at));
    dropPages([at('base')]);
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
    names.forEach((name, i) => {
      assert.equal(hashOf(join(server.mountpoint, name), MIB / 8), hashes[i], name);
    });
    const { composed } = await server.status();
    // What is private: two changed pages, and what of the pieces wasn't replaced.
    const privatePages = 2 + (12 - 5) * (MIB / PAGE_BYTES);
    const shared = (16 * MIB) / PAGE_BYTES;
    assert.equal(composed?.ownBytes, privatePages * PAGE_BYTES);
    assert.ok(residentPages(storeFiles(source)) <= shared);
    assert.ok(pagesEverywhere(source) <= privatePages + shared);
    const held = storeFiles(source).reduce((sum, file) => sum + posix.stat(file).size, 0);
    assert.ok(held <= 16 * MIB, `the store holds ${held} bytes`);
    await server.umount();
  }));

test('holes and preallocated extents read as zeros and take no memory', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    const source = filesystem.dir;
    const at = (name: string): string => join(source, name);
    writeData(at('base'), 8 * MIB, false);
    const fd = posix.open(at('base'), posix.O_RDWR);
    posix.fallocate(fd, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE, MIB, 2 * MIB);
    posix.ftruncate(fd, 64 * MIB);
    posix.fallocate(fd, 0, 32 * MIB, 8 * MIB);
    posix.fsync(fd);
    posix.close(fd);
    posix.reflink(at('base'), at('disk'));
    change(at('disk'), 5 * MIB);
    const hash = hashOf(at('disk'), MIB / 8);
    dropPages([at('base'), at('disk')]);
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
    assert.equal(hashOf(join(server.mountpoint, 'disk'), MIB / 8), hash);
    const { composed } = await server.status();
    assert.equal(composed?.zeroBytes, 58 * MIB);
    assert.ok(pagesEverywhere(source) <= (6 * MIB) / PAGE_BYTES);
    await server.umount();
  }));

test('a large clone that is shared as a whole and a diverged copy of it have their pages in common', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    const source = filesystem.dir;
    const at = (name: string): string => join(source, name);
    writeData(at('base'), 16 * MIB, false);
    posix.reflink(at('base'), at('disk'));
    change(at('disk'), 5 * MIB);
    posix.reflink(at('base'), at('copy'));
    const hash = hashOf(at('disk'), MIB / 8);
    dropPages(['base', 'disk', 'copy'].map(at));
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
    const whole = posix.open(join(server.mountpoint, 'copy'), posix.O_RDONLY);
    await readAll(server, ['copy'], '1M');
    assert.equal(hashOf(join(server.mountpoint, 'disk'), MIB / 8), hash);
    const pages = (16 * MIB) / PAGE_BYTES + 1;
    assert.ok(pagesEverywhere(source) <= pages, `${pagesEverywhere(source)} pages, ${pages} are different`);
    const { open, mappings, composed } = await server.status();
    assert.equal(open.shared, 1);
    assert.equal(mappings?.count, 1);
    assert.equal(composed?.packs, 0);
    posix.close(whole);

    // A clone made through the mount and changed there is composed at its next open.
    await run('cp', join(server.mountpoint, 'base'), join(server.mountpoint, 'made'));
    change(join(server.mountpoint, 'made'), 7 * MIB);
    await settled();
    const before = (await server.status()).composed?.mappingBytes ?? 0;
    await readAll(server, ['made'], '1M');
    const after = (await server.status()).composed?.mappingBytes ?? 0;
    assert.ok(after - before >= 16 * MIB - 2 * PAGE_BYTES, `${after - before} bytes came from shared mappings`);
    assert.ok(pagesEverywhere(source) <= pages + 1);
    await run('cmp', join(server.mountpoint, 'made'), at('made'));
    await server.umount();
  }));

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, a pack whose extents are nobody else's any more is deleted`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const at = (name: string): string => join(source, name);
      writeData(at('base'), 16 * MIB, false);
      posix.reflink(at('base'), at('disk'));
      change(at('disk'), 5 * MIB);
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      await readAll(server, ['disk'], '1M');
      assert.equal((await server.status()).composed?.packs, 1);
      for (const name of ['disk', 'base']) posix.unlink(join(server.mountpoint, name));
      // The filesystem frees a deleted file's extents some time later, and idle packs are looked at every ten seconds.
      const deadline = Date.now() + 60_000;
      while (storeFiles(source).length > 0 && Date.now() < deadline) await pause(100);
      assert.deepEqual(storeFiles(source), []);
      assert.equal((await server.status()).composed?.packs, 0);
      await server.umount();
    }));
}

/** Makes one page private. */
function change(file: string, offset: number): void {
  const fd = posix.open(file, posix.O_RDWR);
  posix.write(fd, new Random(offset).bytes(PAGE_BYTES), offset);
  posix.fsync(fd);
  posix.close(fd);
}
