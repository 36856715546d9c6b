/** What each operation says when its path leads nowhere, and that a refusal changes nothing. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { fails, namesIn, put, type Subject, textOf, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_PATH } = posix;

type Operation = readonly [what: string, act: (path: string, good: string) => unknown];

/** Those that want what the path names to be there. */
const wanting: readonly Operation[] = [
  ['stat', (path) => posix.stat(path)],
  ['lstat', (path) => posix.lstat(path)],
  ['open', (path) => posix.open(path, O_RDONLY)],
  ['open as a path', (path) => posix.open(path, O_PATH)],
  ['truncate', (path) => posix.truncate(path, 0)],
  ['chmod', (path) => posix.chmod(path, 0o600)],
  ['chown', (path) => posix.chown(path, 1, 1)],
  ['chown without following', (path) => posix.chown(path, 1, 1, posix.AT_SYMLINK_NOFOLLOW)],
  ['utimes', (path) => posix.setTimes(path, 1n, 1n)],
  ['readlink', (path) => posix.readlink(path)],
  ['link from', (path, good) => posix.link(path, `${good}-linked`)],
  ['rename from', (path, good) => posix.rename(path, `${good}-moved`)],
  ['exchange from', (path, good) => posix.rename(path, good, posix.RENAME_EXCHANGE)],
  ['exchange with', (path, good) => posix.rename(good, path, posix.RENAME_EXCHANGE)],
  ['unlink', (path) => posix.unlink(path)],
  ['rmdir', (path) => posix.rmdir(path)],
  ['getxattr', (path) => posix.getXattr(path, 'user.x')],
  ['setxattr', (path) => posix.setXattr(path, 'user.x', 'x')],
  ['listxattr', (path) => posix.listXattrs(path)],
  ['removexattr', (path) => posix.removeXattr(path, 'user.x')],
  ['name_to_handle_at', (path) => posix.handleOf(path)],
];

/** Those that make what the path names. */
const making: readonly Operation[] = [
  ['create', (path) => posix.open(path, O_RDWR | O_CREAT)],
  ['mkdir', (path) => posix.mkdir(path)],
  ['mknod', (path) => posix.mknod(path, posix.S_IFIFO | 0o600)],
  ['symlink', (path) => posix.symlink('x', path)],
  ['link to', (path, good) => posix.link(good, path)],
  ['rename to', (path, good) => posix.rename(good, path)],
  ['rename to, without replacing', (path, good) => posix.rename(good, path, posix.RENAME_NOREPLACE)],
];

/** Asserts that all operations on a path fail with a code, and leave the directory as it is. */
function allFail(code: string, dir: string, path: string, operations: readonly Operation[]): void {
  const before = namesIn(dir);
  for (const [what, act] of operations) {
    assert.throws(() => act(path, join(dir, 'good')), { code }, what);
  }
  assert.deepEqual(namesIn(dir), before);
}

const paths: Subject['cases'] = [
  {
    name: 'a path through a file is ENOTDIR for every operation',
    run(dir) {
      put(join(dir, 'good'), 'content');
      allFail('ENOTDIR', dir, `${dir}/good/x`, [...wanting, ...making]);
      assert.equal(textOf(join(dir, 'good')), 'content');
    },
  },
  {
    name: 'a path through a fifo, a device or a socket is ENOTDIR for every operation',
    run(dir) {
      put(join(dir, 'good'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      posix.mknod(join(dir, 'null'), posix.S_IFCHR | 0o600, 1, 3);
      posix.mknod(join(dir, 'socket'), posix.S_IFSOCK | 0o600);
      for (const name of ['fifo', 'null', 'socket']) {
        allFail('ENOTDIR', dir, `${dir}/${name}/x`, [...wanting, ...making]);
      }
    },
  },
  {
    name: 'a path through what is missing is ENOENT for every operation',
    run(dir) {
      put(join(dir, 'good'));
      posix.symlink('missing', join(dir, 'dangling'));
      for (const name of ['missing', 'dangling']) {
        allFail('ENOENT', dir, `${dir}/${name}/x`, [...wanting, ...making]);
      }
    },
  },
  {
    name: 'what is missing is ENOENT for every operation that wants it',
    run(dir) {
      put(join(dir, 'good'));
      allFail('ENOENT', dir, join(dir, 'missing'), wanting);
    },
  },
  {
    name: 'a path through links that lead to themselves is ELOOP for every operation',
    run(dir) {
      put(join(dir, 'good'));
      posix.symlink('ping', join(dir, 'pong'));
      posix.symlink('pong', join(dir, 'ping'));
      allFail('ELOOP', dir, `${dir}/ping/x`, [...wanting, ...making]);
    },
  },
  {
    name: 'a component of 256 bytes is ENAMETOOLONG for every operation, last or not',
    run(dir) {
      put(join(dir, 'good'));
      const long = 'n'.repeat(256);
      allFail('ENAMETOOLONG', dir, join(dir, long), [...wanting, ...making]);
      allFail('ENAMETOOLONG', dir, `${dir}/${long}/x`, [...wanting, ...making]);
    },
  },
  {
    name: 'the empty path is ENOENT for every operation',
    run(dir) {
      put(join(dir, 'good'));
      // These take a descriptor's file for it.
      const own = ['stat', 'lstat', 'name_to_handle_at'];
      allFail(
        'ENOENT',
        dir,
        '',
        [...wanting, ...making].filter(([what]) => !own.includes(what)),
      );
    },
  },
  {
    name: 'what is taken is EEXIST for whatever makes a name, through a dangling link as well',
    run(dir) {
      put(join(dir, 'good'), 'content');
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('missing', join(dir, 'dangling'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      const refused = making.filter(([what]) => !['create', 'rename to'].includes(what));
      for (const name of ['good', 'sub', 'dangling', 'fifo', '.', 'sub/..']) {
        allFail('EEXIST', dir, `${dir}/${name}`, refused);
      }
      assert.equal(textOf(join(dir, 'good')), 'content');
    },
  },
  {
    name: 'a trailing slash behind a file is ENOTDIR for every operation that wants it',
    run(dir) {
      put(join(dir, 'good'));
      put(join(dir, 'file'), 'content');
      const following = wanting.filter(([what]) => what !== 'exchange with');
      allFail('ENOTDIR', dir, `${dir}/file/`, following);
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'a trailing slash behind a new name is for directories only',
    run(dir) {
      put(join(dir, 'good'));
      posix.mkdir(join(dir, 'sub'));
      fails('ENOENT', () => posix.mknod(`${dir}/new/`, posix.S_IFIFO | 0o600));
      fails('ENOENT', () => posix.symlink('x', `${dir}/new/`));
      fails('ENOENT', () => posix.link(join(dir, 'good'), `${dir}/new/`));
      fails('ENOTDIR', () => posix.rename(join(dir, 'good'), `${dir}/new/`));
      posix.rename(`${dir}/sub/`, `${dir}/moved/`);
      assert.deepEqual(namesIn(dir), ['good', 'moved']);
    },
  },
];

const others: Subject['cases'] = [
  {
    name: 'memory that is not there is EFAULT, and neither the position nor the file moves',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.setXattr(join(dir, 'file'), 'user.x', 'value');
      posix.symlink('target', join(dir, 'link'));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.seek(fd, 2, posix.SEEK_SET);
        fails('EFAULT', () => posix.readToNowhere(fd, 4));
        fails('EFAULT', () => posix.writeFromNowhere(fd, 4));
        assert.equal(posix.seek(fd, 0, posix.SEEK_CUR), 2);
        posix.seek(fd, 0, posix.SEEK_END);
        fails('EFAULT', () => posix.writeFromNowhere(fd, 100_000));
        assert.equal(posix.fstat(fd).size, 7);
        assert.equal(posix.readToNowhere(fd, 0), 0);
      });
      withFile(dir, O_RDONLY | posix.O_DIRECTORY, (fd) => {
        fails('EFAULT', () => posix.listToNowhere(fd));
        assert.equal(posix.readAllEntries(fd).length, 4);
      });
      fails('EFAULT', () => posix.readlinkToNowhere(join(dir, 'link')));
      fails('EFAULT', () => posix.getXattrToNowhere(join(dir, 'file'), 'user.x'));
      fails('EFAULT', () => posix.setXattrFromNowhere(join(dir, 'file'), 'user.x'));
      fails('EFAULT', () => posix.makeNowhere());
      assert.equal(posix.getXattr(join(dir, 'file'), 'user.x').toString(), 'value');
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'flags that do not exist are EINVAL',
    run(dir) {
      put(join(dir, 'file'), 'content');
      const file = join(dir, 'file');
      fails('EINVAL', () => posix.unlink(file, 0x8000_0));
      fails('EINVAL', () => posix.link(file, join(dir, 'new'), 0x8000_0));
      fails('EINVAL', () => posix.rename(file, join(dir, 'new'), 0x80));
      fails('EINVAL', () => posix.chown(file, 1, 1, 0x8000_0));
      fails('EINVAL', () => posix.setTimes(file, 1n, 1n, 0x8000_0));
      fails('EINVAL', () => posix.setXattr(file, 'user.x', 'x', 0x10));
      fails('EINVAL', () => posix.mknod(join(dir, 'new'), 0o030000 | 0o600));
      withFile(file, O_RDWR, (fd) => fails('EINVAL', () => posix.seek(fd, 0, 17)));
      assert.deepEqual(namesIn(dir), ['file']);
    },
  },
  {
    name: 'a read-only bind mount refuses every change with EROFS, and shows what is changed beside it',
    run(dir) {
      posix.mkdir(join(dir, 'from'));
      posix.mkdir(join(dir, 'to'));
      put(join(dir, 'from', 'good'), 'content');
      execFileSync('mount', ['--bind', join(dir, 'from'), join(dir, 'to')]);
      try {
        execFileSync('mount', ['-o', 'remount,bind,ro', join(dir, 'to')]);
        const to = join(dir, 'to');
        allFail('EROFS', to, join(to, 'new'), making);
        const reading = [
          'stat',
          'lstat',
          'open',
          'open as a path',
          'readlink',
          'getxattr',
          'listxattr',
          'name_to_handle_at',
        ];
        const changing = wanting.filter(
          ([what]) => !reading.includes(what) && !what.includes('exchange') && what !== 'rmdir',
        );
        allFail('EROFS', to, join(to, 'good'), changing);
        fails('EROFS', () => posix.open(join(to, 'good'), O_WRONLY));
        put(join(dir, 'from', 'second'), 'beside');
        assert.equal(textOf(join(to, 'second')), 'beside');
      } finally {
        execFileSync('umount', [join(dir, 'to')]);
      }
    },
  },
  {
    name: 'what is mounted upon is EBUSY: it is not removed, renamed or replaced',
    run(dir) {
      for (const name of ['from', 'sub', 'other']) posix.mkdir(join(dir, name));
      put(join(dir, 'file'), 'content');
      put(join(dir, 'over'), 'over');
      execFileSync('mount', ['--bind', join(dir, 'from'), join(dir, 'sub')]);
      execFileSync('mount', ['--bind', join(dir, 'over'), join(dir, 'file')]);
      try {
        fails('EBUSY', () => posix.rmdir(join(dir, 'sub')));
        fails('EBUSY', () => posix.rename(join(dir, 'sub'), join(dir, 'moved')));
        fails('EBUSY', () => posix.rename(join(dir, 'other'), join(dir, 'sub')));
        fails('EBUSY', () => posix.unlink(join(dir, 'file')));
        fails('EBUSY', () => posix.rename(join(dir, 'file'), join(dir, 'moved')));
        fails('EXDEV', () => posix.link(join(dir, 'file'), join(dir, 'linked')));
        fails('EXDEV', () => posix.rename(join(dir, 'over'), join(dir, 'sub', 'over')));
        assert.equal(textOf(join(dir, 'file')), 'over');
      } finally {
        execFileSync('umount', [join(dir, 'sub'), join(dir, 'file')]);
      }
      assert.equal(textOf(join(dir, 'file')), 'content');
      posix.rmdir(join(dir, 'sub'));
    },
  },
  {
    name: 'dot and dot-dot are neither moved nor replaced',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      posix.mkdir(join(dir, 'other'));
      for (const name of ['sub/.', 'sub/..', '.']) {
        fails('EBUSY', () => posix.rename(`${dir}/${name}`, join(dir, 'moved')));
        fails('EBUSY', () => posix.rename(join(dir, 'other'), `${dir}/${name}`));
      }
      fails('EISDIR', () => posix.unlink(`${dir}/sub/..`));
      fails('EINVAL', () => posix.rmdir(`${dir}/sub/.`));
      assert.deepEqual(namesIn(dir), ['other', 'sub']);
    },
  },
  {
    name: 'a directory takes no writing, cutting, preallocation or copy through its descriptor',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(dir, O_RDONLY | posix.O_DIRECTORY, (fd) => {
        fails('EBADF', () => posix.write(fd, 'x'));
        fails('EINVAL', () => posix.ftruncate(fd, 0));
        fails('EBADF', () => posix.fallocate(fd, 0, 0, 10));
        fails('EISDIR', () => posix.read(fd, 10, 0));
        withFile(join(dir, 'file'), O_RDWR, (file) => {
          fails('EISDIR', () => posix.copyFileRange(fd, 0, file, 0, 10));
        });
      });
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'a buffer for a link’s target takes what fits, and none is EINVAL',
    run(dir) {
      posix.symlink('target', join(dir, 'link'));
      withFile(join(dir, 'link'), O_PATH | posix.O_NOFOLLOW, (fd) => {
        assert.equal(posix.readlinkOfDescriptor(fd, 3).toString(), 'tar');
        assert.equal(posix.readlinkOfDescriptor(fd, 6).toString(), 'target');
        fails('EINVAL', () => posix.readlinkOfDescriptor(fd, 0));
      });
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_PATH, (fd) => fails('ENOENT', () => posix.readlinkOfDescriptor(fd)));
    },
  },
];

export const errors: Subject = { subject: 'errors', cases: [...paths, ...others] };
