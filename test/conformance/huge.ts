/**
 * Sizes, offsets and times beyond 2^53, where numbers of 64 bits begin to be rounded by whom computes with floating point. What a
 * filesystem allows differs: a case that needs more than there is holds by the refusal.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { namesIn, put, type Subject, withFile } from './case.ts';

const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND } = posix;

const MOST = 2n ** 63n - 1n;
const SIZES = [2n ** 52n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 62n + 12_345n, MOST - 4096n, MOST];

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Blocks, so that what is written there isn't rounded up into more than one. */
const FAR = [2n ** 52n - 4096n, 2n ** 53n + 4096n, 2n ** 60n + 3n * 4096n];

export const huge: Subject = {
  subject: 'huge files',
  cases: [
    {
      name: 'a file is made as large as can be, by name and by descriptor, is seen in its size, and is removed',
      run(dir) {
        const name = join(dir, 'file');
        put(name, 'content');
        for (const size of SIZES) {
          posix.truncate(name, size);
          assert.equal(posix.stat(name).exactSize, size);
          withFile(name, O_RDWR, (fd) => {
            assert.equal(posix.fstat(fd).exactSize, size);
            assert.equal(posix.seekExact(fd, 0n, posix.SEEK_END), size);
            assert.equal(posix.read(fd, 7, 0).toString(), 'content');
            assert.equal(posix.read(fd, 1, size - 1n).length, 1);
            posix.ftruncate(fd, size - 1n);
            assert.equal(posix.fstat(fd).exactSize, size - 1n);
          });
          assert.equal(posix.stat(name).exactSize, size - 1n);
        }
        posix.unlink(name);
        assert.deepEqual(namesIn(dir), []);
      },
    },
    {
      name: 'a truncation by name to the huge size that a file has moves no time, one to the next size does',
      run(dir) {
        const name = join(dir, 'file');
        put(name);
        posix.truncate(name, 2n ** 53n + 1n);
        posix.setTimes(name, 1n, 1n);
        posix.truncate(name, 2n ** 53n + 1n);
        assert.equal(posix.stat(name).mtimeNs, 1n);
        posix.truncate(name, 2n ** 53n);
        assert.notEqual(posix.stat(name).mtimeNs, 1n);
      },
    },
    {
      name: 'what is written far out is there and nowhere else, and is found by SEEK_DATA and SEEK_HOLE',
      run(dir) {
        const name = join(dir, 'file');
        put(name);
        withFile(name, O_RDWR, (fd) => {
          for (const at of FAR) assert.equal(posix.write(fd, 'x'.repeat(4096), at), 4096);
          posix.fsync(fd);
        });
        withFile(name, O_RDONLY, (fd) => {
          assert.equal(posix.fstat(fd).exactSize, (FAR.at(-1) ?? 0n) + 4096n);
          for (const at of FAR) {
            assert.equal(posix.read(fd, 4096, at).toString('latin1'), 'x'.repeat(4096));
            assert.ok(posix.read(fd, 4096, at - 4096n).every((byte) => byte === 0));
            assert.equal(posix.seekExact(fd, at - 4096n, SEEK_DATA), at);
            assert.equal(posix.seekExact(fd, at, SEEK_HOLE), at + 4096n);
          }
        });
      },
    },
    {
      name: 'what is appended to a huge file is at its end',
      run(dir) {
        const name = join(dir, 'file');
        const size = 2n ** 53n + 1n;
        put(name);
        posix.truncate(name, size);
        withFile(name, O_WRONLY | O_APPEND, (fd) => assert.equal(posix.write(fd, 'end'), 3));
        assert.equal(posix.stat(name).exactSize, size + 3n);
        withFile(name, O_RDONLY, (fd) => assert.equal(posix.read(fd, 10, size).toString(), 'end'));
      },
    },
    {
      name: 'room is taken and given back far out',
      run(dir) {
        const name = join(dir, 'file');
        const at = 2n ** 53n + 4096n;
        put(name);
        withFile(name, O_RDWR, (fd) => {
          posix.fallocate(fd, 0, at, 8192n);
          assert.equal(posix.fstat(fd).exactSize, at + 8192n);
          posix.write(fd, 'y'.repeat(8192), at);
          posix.fallocate(fd, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE, at, 4096n);
          assert.ok(posix.read(fd, 4096, at).every((byte) => byte === 0));
          assert.equal(posix.read(fd, 1, at + 4096n).toString(), 'y');
          assert.equal(posix.fstat(fd).exactSize, at + 8192n);
        });
      },
    },
    {
      name: 'a copy from far out to far out has the bytes',
      run(dir) {
        const from = join(dir, 'from');
        const to = join(dir, 'to');
        const at = 2n ** 53n + 4096n;
        put(from);
        put(to);
        withFile(from, O_RDWR, (fd) => posix.write(fd, 'z'.repeat(4096), at));
        withFile(from, O_RDONLY, (source) => {
          withFile(to, O_RDWR, (target) => {
            assert.equal(posix.copyFileRange(source, at, target, at + 8192n, 4096), 4096);
            assert.equal(posix.read(target, 4096, at + 8192n).toString('latin1'), 'z'.repeat(4096));
            assert.equal(posix.fstat(target).exactSize, at + 12_288n);
          });
        });
      },
    },
    {
      name: 'programs list, copy sparsely and remove what is huge',
      run(dir) {
        const folder = join(dir, 'folder');
        posix.mkdir(folder);
        put(join(folder, 'file'), 'begin');
        posix.truncate(join(folder, 'file'), MOST - 4096n);
        assert.ok(execFileSync('ls', ['-l', folder], { encoding: 'utf8' }).includes(` ${MOST - 4096n} `));
        execFileSync('cp', ['--sparse=always', '--reflink=never', join(folder, 'file'), join(folder, 'copy')]);
        assert.equal(posix.stat(join(folder, 'copy')).exactSize, MOST - 4096n);
        execFileSync('rm', ['-rf', folder]);
        assert.deepEqual(namesIn(dir), []);
      },
    },
    {
      name: 'times far from now are kept as far as the filesystem keeps them, exactly',
      run(dir) {
        const name = join(dir, 'file');
        put(name);
        // XFS keeps times until 2486, and btrfs any: where there is a limit, it is the nearest time that is kept.
        for (const seconds of [-(2n ** 31n) + 1n, -1n, 2n ** 32n, 16_299_260_424n, 2n ** 53n + 1n, 2n ** 62n + 1n]) {
          posix.setTimes(name, seconds * 1_000_000_000n + 999n, seconds * 1_000_000_000n);
          const { atimeNs, mtimeNs } = posix.stat(name);
          const limited = atimeNs / 1_000_000_000n === 16_299_260_424n;
          if (limited) continue;
          assert.deepEqual([atimeNs, mtimeNs], [seconds * 1_000_000_000n + 999n, seconds * 1_000_000_000n]);
        }
      },
    },
  ],
};
