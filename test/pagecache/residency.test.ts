import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { EACCES, EBADF, ENOSYS } from '../../src/base/errno.ts';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../src/base/linux.ts';
import { type Memory, memoryAt } from '../../src/base/memory.ts';
import { noPages, Residency, type ResidencyCalls } from '../../src/pagecache/residency.ts';
import * as libc from '../../src/sys/libc.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import { map, poke, reflink, unmap } from '../support/posix.ts';

const PAGE = 4096;
const PAGES = 256;
const POSIX_FADV_RANDOM = 1;

function realMemory(length: number): Memory {
  const address = libc.mmap(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address < 0) throw new Error(`Cannot map ${length} bytes: errno ${-address}`);
  return memoryAt(address, libc.viewOf(address, length));
}

const residency = new Residency(libc, realMemory(64 * 1024));

function bitsOf(bitmap: Uint8Array): number[] {
  return Array.from({ length: bitmap.length * 8 }, (_, page) => page).filter(
    (page) => (bitmap[page >> 3] ?? 0) & (1 << (page & 7)),
  );
}

for (const kind of ['btrfs', 'xfs'] satisfies FilesystemKind[]) {
  describe(kind, () => {
    let filesystem: LoopFilesystem;
    before(() => {
      filesystem = makeLoopFilesystem(kind);
    });
    after(() => filesystem.dispose());

    /** A file on disk, of which nothing is cached, and which is read without readahead. */
    function withUncached(name: string, size: number, body: (fd: number) => void): void {
      const fd = openSync(join(filesystem.dir, name), 'w+');
      try {
        writeSync(fd, randomBytes(size));
        fsyncSync(fd);
        assert.equal(residency.drop(fd), 0);
        assert.equal(libc.posixFadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
        body(fd);
      } finally {
        closeSync(fd);
      }
    }

    function readPage(fd: number, page: number): void {
      assert.ok(readSync(fd, Buffer.alloc(PAGE), 0, PAGE, page * PAGE) > 0);
    }

    test('a range is clean when nothing of it has still to be written', () => {
      withUncached('written', 8 * PAGE, (fd) => {
        assert.ok(residency.isClean(fd));
        readPage(fd, 2);
        assert.ok(residency.isClean(fd));
        writeSync(fd, Buffer.alloc(PAGE, 1), 0, PAGE, 3 * PAGE);
        assert.ok(!residency.isClean(fd));
        assert.ok(!residency.isClean(fd, 3 * PAGE, PAGE));
        assert.ok(residency.isClean(fd, 5 * PAGE, PAGE));
        fsyncSync(fd);
        assert.ok(residency.isClean(fd));
      });
      assert.ok(!residency.isClean(-1), 'what can not be looked at is not called clean');
    });

    test('exactly the pages that were read are counted and marked', () => {
      withUncached('partly read', PAGES * PAGE, (fd) => {
        const counts = noPages();
        assert.equal(residency.count(fd, counts), 0);
        assert.equal(counts.cached, 0);
        const wanted = [0, 3, 7, 8, 100, 255];
        for (const page of wanted) readPage(fd, page);
        assert.equal(residency.count(fd, counts), 0);
        assert.equal(counts.cached, wanted.length);
        assert.equal(counts.dirty, 0);
        assert.equal(residency.cachedPages(fd, 3 * PAGE, 5 * PAGE), 2);
        assert.equal(residency.cachedPages(fd, 101 * PAGE), 1);
        const bitmap = new Uint8Array(residency.bitmapBytes(PAGES * PAGE));
        assert.equal(bitmap.length, PAGES / 8);
        assert.equal(residency.residentPages(fd, 0, PAGES * PAGE, bitmap), wanted.length);
        assert.deepEqual(bitsOf(bitmap), wanted);
      });
    });

    test('a file that is larger than a window is looked at window by window', () => {
      withUncached('windows', PAGES * PAGE - 100, (fd) => {
        // Room for 10 pages beside what cachestat needs.
        const narrow = new Residency(libc, realMemory(16 + 40 + 10));
        const wanted = [0, 9, 10, 19, 20, 199, 255];
        for (const page of wanted) readPage(fd, page);
        const bitmap = new Uint8Array(narrow.bitmapBytes(PAGES * PAGE - 100)).fill(0xff);
        assert.equal(narrow.residentPages(fd, 0, PAGES * PAGE - 100, bitmap), wanted.length);
        assert.deepEqual(bitsOf(bitmap), wanted);
        const part = new Uint8Array(2);
        assert.equal(narrow.residentPages(fd, 8 * PAGE, 24 * PAGE, part), 4);
        assert.deepEqual(bitsOf(part), [1, 2, 11, 12]);
      });
    });

    test('dropping leaves no clean page', () => {
      withUncached('dropped', PAGES * PAGE, (fd) => {
        readFileSync(join(filesystem.dir, 'dropped'));
        assert.equal(residency.cachedPages(fd), PAGES);
        assert.equal(residency.drop(fd), 0);
        assert.equal(residency.cachedPages(fd), 0);
      });
    });

    test('dirty pages are counted, and dropping never loses what they hold', () => {
      withUncached('dirty', PAGES * PAGE, (fd) => {
        const bytes = randomBytes(3 * PAGE);
        writeSync(fd, bytes, 0, bytes.length, 5 * PAGE);
        const counts = noPages();
        assert.equal(residency.count(fd, counts), 0);
        assert.equal(counts.cached, 3);
        assert.equal(counts.dirty, 3);
        assert.equal(residency.drop(fd), 0);
        fsyncSync(fd);
        assert.equal(residency.drop(fd), 0);
        assert.equal(residency.count(fd, counts), 0);
        assert.deepEqual([counts.cached, counts.dirty, counts.writeback], [0, 0, 0]);
        const back = Buffer.alloc(bytes.length);
        readSync(fd, back, 0, back.length, 5 * PAGE);
        assert.ok(back.equals(bytes));
      });
    });

    test('pages that are mapped stay, and can be dropped once they are not', () => {
      withUncached('mapped', PAGES * PAGE, (fd) => {
        const address = map(fd, 4 * PAGE);
        poke(address, 2 * PAGE, 'written through the mapping');
        fsyncSync(fd);
        assert.equal(residency.drop(fd), 0);
        assert.ok(residency.cachedPages(fd, 2 * PAGE, PAGE) === 1);
        unmap(address);
        fsyncSync(fd);
        assert.equal(residency.drop(fd), 0);
        assert.equal(residency.cachedPages(fd), 0);
      });
    });

    test('a clone that is read is cached a second time: what one has cached says nothing of the other', () => {
      withUncached('original', PAGES * PAGE, (fd) => {
        reflink(join(filesystem.dir, 'original'), join(filesystem.dir, 'clone'));
        readFileSync(join(filesystem.dir, 'clone'));
        assert.equal(residency.cachedPages(fd), 0);
        const clone = openSync(join(filesystem.dir, 'clone'), 'r');
        assert.equal(residency.cachedPages(clone), PAGES);
        assert.equal(residency.drop(clone), 0);
        assert.equal(residency.cachedPages(clone), 0);
        closeSync(clone);
      });
    });

    test('a hole of a tebibyte is skipped', () => {
      withUncached('sparse', PAGES * PAGE, (fd) => {
        const size = 2 ** 40;
        ftruncateSync(fd, size);
        readPage(fd, 17);
        let mappings = 0;
        const counting: ResidencyCalls = {
          ...libc,
          mmap(...args) {
            mappings++;
            return libc.mmap(...args);
          },
        };
        const wide = new Residency(counting, realMemory(1024 * 1024));
        const bitmap = new Uint8Array(wide.bitmapBytes(size));
        assert.equal(wide.residentPages(fd, 0, size, bitmap), 1);
        assert.equal(bitmap[2], 1 << 1);
        assert.equal(mappings, 1);
      });
    });
  });
}

test('errors come back as negated errnos, and a window that was mapped is unmapped', () => {
  const bitmap = new Uint8Array(1);
  assert.equal(residency.count(-1, noPages()), -EBADF);
  assert.equal(residency.cachedPages(-1), -EBADF);
  assert.equal(residency.residentPages(-1, 0, PAGE, bitmap), -EBADF);
  assert.equal(residency.drop(-1), -EBADF);

  const memory = memoryAt(0, new ArrayBuffer(4096));
  const log: string[] = [];
  const failing = (at: string): ResidencyCalls => ({
    cachestat() {
      memory.view.setBigUint64(16, 1n, true);
      return at === 'cachestat' ? -ENOSYS : 0;
    },
    posixFadvise: () => 0,
    mmap: () => (at === 'mmap' ? -EACCES : 4096),
    munmap: () => log.push('munmap'),
    mincore: () => (at === 'mincore' ? -EBADF : 0),
  });
  assert.equal(new Residency(failing('cachestat'), memory).residentPages(3, 0, PAGE, bitmap), -ENOSYS);
  assert.equal(new Residency(failing('mmap'), memory).residentPages(3, 0, PAGE, bitmap), -EACCES);
  assert.deepEqual(log, []);
  assert.equal(new Residency(failing('mincore'), memory).residentPages(3, 0, PAGE, bitmap), -EBADF);
  assert.deepEqual(log, ['munmap']);
  assert.ok(Object.is(new Residency(failing('nothing'), memory).drop(3), 0));
});
