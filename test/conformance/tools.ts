/** Everyday programs at work here, the space that they see, and the events that they wait for. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { statfsSync, watch } from 'node:fs';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { exists, namesIn, pattern, put, type Subject, sizeOf, textOf, withFile } from './case.ts';

function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A small tree with one of everything that archivers must keep. */
function makeTree(tree: string): void {
  posix.mkdir(tree);
  posix.mkdir(join(tree, 'sub'));
  put(join(tree, 'file'), pattern(100_000), 0o640);
  put(join(tree, 'sub', 'empty'), '', 0o600);
  put(join(tree, 'sub', 'two\nlines'), 'content');
  posix.link(join(tree, 'file'), join(tree, 'sub', 'hard'));
  posix.symlink('../file', join(tree, 'sub', 'soft'));
  posix.mknod(join(tree, 'fifo'), posix.S_IFIFO | 0o604);
  put(join(tree, 'sparse'));
  withFile(join(tree, 'sparse'), posix.O_WRONLY, (fd) => {
    posix.write(fd, 'x', 1_000_000);
    posix.ftruncate(fd, 2_000_000);
  });
  posix.setXattr(join(tree, 'file'), 'user.name', 'value');
  posix.chown(join(tree, 'sub', 'empty'), 1234, 5678);
  posix.setTimes(join(tree, 'file'), 5n, 1_234_567_890_123_456_789n);
  posix.setTimes(join(tree, 'sub'), 5n, 1_000_000_000_000_000_007n);
}

/** Asserts that a tree is a copy of one that `makeTree` made. */
function isCopy(copy: string, tree: string): void {
  const names = ['file', 'sub', 'sub/empty', 'sub/two\nlines', 'sub/hard', 'sub/soft', 'fifo', 'sparse'];
  for (const name of names) {
    const [was, is] = [posix.lstat(join(tree, name)), posix.lstat(join(copy, name))];
    const essence = ({ mode, uid, gid, nlink }: posix.Status) => [mode, uid, gid, nlink];
    assert.deepEqual(essence(is), essence(was), name);
    if (name === 'file' || name === 'sub') assert.equal(is.mtimeNs, was.mtimeNs, name);
  }
  for (const name of ['file', 'sub/empty', 'sub/two\nlines', 'sparse']) {
    assert.ok(textOf(join(copy, name)) === textOf(join(tree, name)), name);
  }
  assert.equal(posix.lstat(join(copy, 'file')).ino, posix.lstat(join(copy, 'sub', 'hard')).ino);
  assert.equal(posix.readlink(join(copy, 'sub', 'soft')).toString(), '../file');
  assert.equal(posix.getXattr(join(copy, 'file'), 'user.name').toString(), 'value');
}

export const tools: Subject = {
  subject: 'tools',
  cases: [
    {
      name: 'cp -a copies a tree with links, times, owners, attributes and holes',
      run(dir) {
        makeTree(join(dir, 'tree'));
        run('cp', '-a', join(dir, 'tree'), join(dir, 'copy'));
        isCopy(join(dir, 'copy'), join(dir, 'tree'));
      },
    },
    {
      name: 'tar packs a tree and unpacks it again',
      run(dir) {
        makeTree(join(dir, 'tree'));
        run('tar', '-C', dir, '--format=posix', '--xattrs', '--sparse', '-cf', join(dir, 'tree.tar'), 'tree');
        posix.mkdir(join(dir, 'copy'));
        run('tar', '-C', join(dir, 'copy'), '--xattrs', '-xpf', join(dir, 'tree.tar'));
        isCopy(join(dir, 'copy', 'tree'), join(dir, 'tree'));
      },
    },
    {
      name: 'rsync copies a tree, and then finds nothing to do',
      run(dir) {
        makeTree(join(dir, 'tree'));
        run('rsync', '-aHAX', `${join(dir, 'tree')}/`, join(dir, 'copy'));
        isCopy(join(dir, 'copy'), join(dir, 'tree'));
        assert.equal(run('rsync', '-aHAXi', `${join(dir, 'tree')}/`, join(dir, 'copy')), '');
      },
    },
    {
      name: 'mv moves a tree, find sees all of it, and rm -r takes it away',
      run(dir) {
        makeTree(join(dir, 'tree'));
        run('mv', join(dir, 'tree'), join(dir, 'moved'));
        assert.equal(run('find', join(dir, 'moved'), '-printf', '.').length, 9);
        run('rm', '-r', join(dir, 'moved'));
        assert.deepEqual(namesIn(dir), []);
      },
    },
    {
      name: 'git makes a repository, commits, changes branches and finds it whole',
      run(dir) {
        const git = (...args: string[]) =>
          run('git', '-C', dir, '-c', 'user.name=A', '-c', 'user.email=a@b', '-c', 'safe.directory=*', ...args);
        git('init', '-q', '-b', 'main');
        put(join(dir, 'file'), 'first\n');
        git('add', '.');
        git('commit', '-q', '-m', 'first');
        git('checkout', '-q', '-b', 'other');
        posix.unlink(join(dir, 'file'));
        put(join(dir, 'file'), 'second\n');
        git('commit', '-q', '-a', '-m', 'second');
        git('checkout', '-q', 'main');
        assert.equal(textOf(join(dir, 'file')), 'first\n');
        assert.equal(git('status', '--porcelain'), '');
        git('fsck', '--strict');
      },
    },
    {
      name: 'a program is compiled and run',
      run(dir) {
        put(join(dir, 'main.c'), '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n');
        run('gcc', '-o', join(dir, 'main'), join(dir, 'main.c'));
        assert.equal(run(join(dir, 'main')), 'compiled\n');
      },
    },
    {
      name: 'dd with odd sizes, appending and direct seeking gives the bytes that it should',
      run(dir) {
        put(join(dir, 'from'), pattern(100_000));
        run('dd', `if=${join(dir, 'from')}`, `of=${join(dir, 'to')}`, 'bs=777', 'seek=3', 'skip=5', 'status=none');
        assert.equal(sizeOf(join(dir, 'to')), 100_000 - 2 * 777);
        const expected = Buffer.concat([Buffer.alloc(3 * 777), pattern(100_000).subarray(5 * 777)]);
        assert.ok(textOf(join(dir, 'to')) === expected.toString('latin1'));
      },
    },
    {
      name: 'statfs tells block sizes, space and the longest name, the same for a file and a directory',
      run(dir) {
        put(join(dir, 'file'));
        const { bsize, blocks, bfree, bavail } = statfsSync(dir);
        assert.ok(bsize >= 512 && blocks > 0 && bfree <= blocks && bavail <= bfree);
        assert.equal(statfsSync(join(dir, 'file')).blocks, blocks);
        assert.equal(run('stat', '-f', '-c', '%l', dir).trim(), '255');
      },
    },
    {
      name: 'statfs counts what a file takes, and what its end gives back',
      run(dir) {
        const freeBytes = () => {
          const { bavail, bsize } = statfsSync(dir);
          return bavail * bsize;
        };
        // The count may move with the next commit only, of a filesystem that may lie below this one: hence all are synced.
        const taken = (isEnough: (bytes: number) => boolean) => {
          const deadline = Date.now() + 10_000;
          do run('sync');
          while (!isEnough(before - freeBytes()) && Date.now() < deadline);
          return before - freeBytes();
        };
        const before = freeBytes();
        // Random bytes: others may be compressed.
        put(join(dir, 'file'), randomBytes(8 << 20));
        const whileThere = taken((bytes) => bytes >= 7 << 20);
        assert.ok(whileThere >= 7 << 20, `${whileThere} bytes taken`);
        posix.unlink(join(dir, 'file'));
        const afterwards = taken((bytes) => bytes <= 1 << 20);
        assert.ok(afterwards <= 1 << 20, `${afterwards} bytes kept`);
      },
    },
    {
      name: 'who watches a directory hears of what is made, changed and removed in it',
      async run(dir) {
        const heard = new Set<string>();
        const watcher = watch(dir, (event, name) => heard.add(`${event} ${name}`));
        const hears = async (what: string) => {
          const deadline = Date.now() + 5000;
          while (!heard.has(what) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
          assert.ok(heard.has(what), `${what} was not heard, only ${[...heard].join(', ')}`);
        };
        try {
          put(join(dir, 'file'), 'content');
          await hears('rename file');
          heard.clear();
          await asUser(root).call('writeFile', join(dir, 'file'), 'changed');
          await hears('change file');
          posix.rename(join(dir, 'file'), join(dir, 'moved'));
          await hears('rename moved');
        } finally {
          watcher.close();
        }
        assert.equal(exists(join(dir, 'moved')), true);
      },
    },
  ],
};
