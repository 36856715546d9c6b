/** Which operation moves which times of files and directories beyond the plain cases in `times.ts`, and that a refusal moves none. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, refused, type Subject, tick, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC } = posix;

type Time = 'mtimeNs' | 'ctimeNs';
const BOTH: readonly Time[] = ['mtimeNs', 'ctimeNs'];

/** Asserts which of the two times of some files an act moves: a list of them by name, all others stay. */
async function moves(
  dir: string,
  expected: Readonly<Record<string, readonly Time[]>>,
  act: () => unknown,
): Promise<void> {
  const names = Object.keys(expected);
  const before = new Map(names.map((name) => [name, posix.lstat(join(dir, name))]));
  tick();
  await act();
  for (const name of names) {
    const after = posix.lstat(join(dir, name));
    const moved = BOTH.filter((time) => after[time] !== before.get(name)?.[time]);
    assert.deepEqual(moved, expected[name], `${name}: ${act}`);
  }
}

function makeTree(dir: string): void {
  for (const sub of ['a', 'b', 'a/sub', 'b/empty']) posix.mkdir(join(dir, sub));
  put(join(dir, 'a', 'file'), 'content');
  put(join(dir, 'b', 'other'), 'other content');
  posix.symlink('file', join(dir, 'a', 'link'));
}

const names: Subject['cases'] = [
  {
    name: 'making a name moves the times of its own directory, not of the one above',
    async run(dir) {
      makeTree(dir);
      const at = join(dir, 'a', 'sub');
      for (const act of [
        () => put(join(at, 'file')),
        () => posix.mkdir(join(at, 'dir')),
        () => posix.symlink('x', join(at, 'link')),
        () => posix.mknod(join(at, 'fifo'), posix.S_IFIFO | 0o600),
        () => posix.link(join(dir, 'b', 'other'), join(at, 'linked')),
      ]) {
        await moves(dir, { '.': [], a: [], 'a/sub': BOTH }, act);
      }
    },
  },
  {
    name: 'opening an existing file with O_CREAT moves nothing, with O_TRUNC the file only, also if it is empty',
    async run(dir) {
      makeTree(dir);
      await moves(dir, { a: [], 'a/file': [] }, () => posix.close(posix.open(join(dir, 'a/file'), O_RDWR | O_CREAT)));
      await moves(dir, { a: [], 'a/file': BOTH }, () =>
        posix.close(posix.open(join(dir, 'a/file'), O_RDWR | O_CREAT | O_TRUNC)),
      );
      await moves(dir, { a: [], 'a/file': BOTH }, () =>
        posix.close(posix.open(join(dir, 'a/file'), O_WRONLY | O_TRUNC)),
      );
    },
  },
  {
    name: 'a directory that is moved to another parent moves both parents, and its own ctime',
    async run(dir) {
      makeTree(dir);
      const before = posix.stat(join(dir, 'a/sub'));
      await moves(dir, { '.': [], a: BOTH, b: BOTH, 'a/file': [] }, () =>
        posix.rename(join(dir, 'a/sub'), join(dir, 'b/sub')),
      );
      const after = posix.stat(join(dir, 'b/sub'));
      assert.ok(after.ctimeNs > before.ctimeNs);
      assert.equal(after.mtimeNs, before.mtimeNs);
    },
  },
  {
    name: 'an exchange moves both parents, and the mtime of neither file',
    async run(dir) {
      makeTree(dir);
      const before = posix.stat(join(dir, 'a/file'));
      await moves(dir, { a: BOTH, b: BOTH, '.': [], 'b/empty': [] }, () =>
        posix.rename(join(dir, 'a/file'), join(dir, 'b/other'), posix.RENAME_EXCHANGE),
      );
      const after = posix.stat(join(dir, 'b/other'));
      assert.deepEqual([after.ino, after.mtimeNs], [before.ino, before.mtimeNs]);
    },
  },
  {
    name: 'the file that a rename replaces loses its name and moves its ctime, where it is open and where it has other names',
    run(dir) {
      makeTree(dir);
      posix.link(join(dir, 'b/other'), join(dir, 'b/second'));
      withFile(join(dir, 'b/other'), O_RDONLY, (fd) => {
        const before = posix.fstat(fd);
        tick();
        posix.rename(join(dir, 'a/file'), join(dir, 'b/other'));
        const after = posix.fstat(fd);
        assert.equal(after.nlink, 1);
        assert.ok(after.ctimeNs > before.ctimeNs);
        assert.equal(after.mtimeNs, before.mtimeNs);
        assert.equal(posix.stat(join(dir, 'b/second')).ctimeNs, after.ctimeNs);
      });
    },
  },
  {
    name: 'unlinking one of two names moves the ctime that the other shows',
    run(dir) {
      makeTree(dir);
      posix.link(join(dir, 'a/file'), join(dir, 'b/second'));
      const before = posix.stat(join(dir, 'b/second'));
      tick();
      posix.unlink(join(dir, 'a/file'));
      const after = posix.stat(join(dir, 'b/second'));
      assert.ok(after.ctimeNs > before.ctimeNs);
      assert.deepEqual([after.nlink, after.mtimeNs], [1, before.mtimeNs]);
    },
  },
  {
    name: 'naming a file made with O_TMPFILE moves the directory and the file’s ctime',
    needs: ['unnamed-files'],
    async run(dir) {
      makeTree(dir);
      const fd = posix.openTemporary(dir, O_RDWR);
      try {
        const before = posix.fstat(fd);
        await moves(dir, { '.': [], a: BOTH }, () => posix.linkDescriptor(fd, join(dir, 'a/named')));
        const after = posix.fstat(fd);
        assert.ok(after.ctimeNs > before.ctimeNs);
        assert.equal(after.mtimeNs, before.mtimeNs);
      } finally {
        posix.close(fd);
      }
    },
  },
  {
    name: 'what is new has times between the clock before and after, all four the same',
    run(dir) {
      const coarse = 20_000_000n;
      const from = BigInt(Date.now()) * 1_000_000n - coarse;
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('x', join(dir, 'link'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      const to = BigInt(Date.now() + 1) * 1_000_000n + coarse;
      for (const name of ['sub', 'link', 'fifo']) {
        const { atimeNs, mtimeNs, ctimeNs, btimeNs } = posix.lstat(join(dir, name));
        assert.deepEqual([atimeNs, mtimeNs, btimeNs], [ctimeNs, ctimeNs, ctimeNs], name);
        assert.ok(ctimeNs >= from && ctimeNs <= to, name);
      }
      assert.ok(posix.stat(join(dir, 'file')).btimeNs >= from);
    },
  },
];

const contents: Subject['cases'] = [
  {
    name: 'a mode or owner that is set to what it is moves ctime all the same',
    async run(dir) {
      makeTree(dir);
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.chmod(join(dir, 'a/file'), 0o644));
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.chown(join(dir, 'a/file'), 0, 0));
      await moves(dir, { b: ['ctimeNs'], 'b/other': [] }, () => posix.chmod(join(dir, 'b'), 0o755));
    },
  },
  {
    name: 'a change of owner that leaves both ids as they are moves ctime',
    async run(dir) {
      makeTree(dir);
      await moves(dir, { 'a/file': ['ctimeNs'] }, () => posix.chown(join(dir, 'a/file'), -1, -1));
      await moves(dir, { a: ['ctimeNs'] }, () => posix.chown(join(dir, 'a'), -1, -1));
    },
  },
  {
    name: 'an attribute or an access list that is set or removed moves ctime, reading it does not',
    async run(dir) {
      makeTree(dir);
      const file = join(dir, 'a/file');
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.setXattr(file, 'user.x', 'x'));
      await moves(dir, { 'a/file': [], a: [] }, () => [posix.getXattr(file, 'user.x'), posix.listXattrs(file)]);
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.removeXattr(file, 'user.x'));
      // Version 2; owner rw, bob r, group nothing, mask r, others nothing.
      const list = Buffer.from(
        '0200000001000600ffffffff020004004aee000004000000ffffffff10000400ffffffff20000000ffffffff',
        'hex',
      );
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.setXattr(file, 'system.posix_acl_access', list));
      await moves(dir, { 'a/file': ['ctimeNs'], a: [] }, () => posix.removeXattr(file, 'system.posix_acl_access'));
    },
  },
  {
    name: 'punching a hole and zeroing a range move mtime and ctime',
    needs: ['punch-hole', 'zero-range'],
    async run(dir) {
      put(join(dir, 'file'), pattern(300_000));
      await withOpen(join(dir, 'file'), async (fd) => {
        await moves(dir, { file: BOTH }, () =>
          posix.fallocate(fd, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE, 65536, 65536),
        );
        await moves(dir, { file: BOTH }, () => posix.fallocate(fd, posix.FALLOC_FL_ZERO_RANGE, 131072, 65536));
      });
    },
  },
  {
    name: 'syncing, seeking, locking and closing move nothing',
    async run(dir) {
      put(join(dir, 'file'), pattern(300_000));
      await withOpen(join(dir, 'file'), async (fd) => {
        await moves(dir, { file: [], '.': [] }, () => posix.fsync(fd));
        await moves(dir, { file: [] }, () => posix.seek(fd, 100, posix.SEEK_DATA));
        await moves(dir, { file: [] }, () => posix.flock(fd, posix.LOCK_EX));
      });
      await moves(dir, { file: [], '.': [] }, () => withFile(join(dir, 'file'), O_RDWR, () => undefined));
    },
  },
  {
    name: 'what is written through one name shows in the times of all names, and of no other file',
    async run(dir) {
      makeTree(dir);
      posix.link(join(dir, 'a/file'), join(dir, 'b/second'));
      await moves(dir, { 'a/file': BOTH, 'b/second': BOTH, 'b/other': [], a: [], b: [] }, () =>
        withFile(join(dir, 'b/second'), O_WRONLY, (fd) => posix.write(fd, 'x')),
      );
    },
  },
  {
    name: 'changing a link itself moves the link’s ctime, and following it the target’s',
    async run(dir) {
      makeTree(dir);
      const link = join(dir, 'a/link');
      await moves(dir, { 'a/link': ['ctimeNs'], 'a/file': [], a: [] }, () =>
        posix.chown(link, 0, 0, posix.AT_SYMLINK_NOFOLLOW),
      );
      await moves(dir, { 'a/link': [], 'a/file': ['ctimeNs'], a: [] }, () => posix.chmod(link, 0o600));
    },
  },
];

async function withOpen(name: string, use: (fd: number) => Promise<void>): Promise<void> {
  const fd = posix.open(name, O_RDWR);
  try {
    await use(fd);
  } finally {
    posix.close(fd);
  }
}

async function allOf(acts: readonly (() => unknown)[]): Promise<void> {
  for (const act of acts) await act();
}

const failing: Subject['cases'] = [
  {
    name: 'a name that can not be made, moved or removed moves no times',
    async run(dir) {
      makeTree(dir);
      const at = (path: string): string => join(dir, path);
      const still = { '.': [], a: [], b: [], 'a/file': [], 'a/sub': [], 'b/other': [], 'a/link': [] };
      const acts: (() => unknown)[] = [
        () => fails('EEXIST', () => posix.open(at('a/file'), O_RDWR | O_CREAT | posix.O_EXCL)),
        () => fails('EEXIST', () => posix.mkdir(at('a/sub'))),
        () => fails('EEXIST', () => posix.mknod(at('a/file'), posix.S_IFIFO)),
        () => fails('EEXIST', () => posix.symlink('x', at('a/link'))),
        () => fails('EEXIST', () => posix.link(at('b/other'), at('a/file'))),
        () => fails('EPERM', () => posix.link(at('a/sub'), at('b/linked'))),
        () => fails('EEXIST', () => posix.rename(at('a/file'), at('b/other'), posix.RENAME_NOREPLACE)),
        () => fails('ENOENT', () => posix.rename(at('a/missing'), at('b/other'))),
        () => fails('EISDIR', () => posix.rename(at('b/other'), at('a/sub'))),
        () => fails('ENOTDIR', () => posix.rename(at('a/sub'), at('b/other'))),
        () => fails(/ENOTEMPTY|EEXIST/, () => posix.rename(at('a/sub'), at('b'))),
        () => fails('EINVAL', () => posix.rename(at('a'), at('a/sub/below'))),
        () => fails('ENOENT', () => posix.rename(at('a/file'), at('b/new'), posix.RENAME_EXCHANGE)),
        () => fails('ENOENT', () => posix.unlink(at('a/missing'))),
        () => fails('EISDIR', () => posix.unlink(at('a/sub'))),
        () => fails('ENOTDIR', () => posix.rmdir(at('a/file'))),
        () => fails(/ENOTEMPTY|EEXIST/, () => posix.rmdir(at('a'))),
        () => posix.rename(at('a/file'), at('a/file')),
      ];
      await moves(dir, still, () => allOf(acts));
    },
  },
  {
    name: 'a change of content or attributes that is refused moves no times',
    async run(dir) {
      makeTree(dir);
      const file = join(dir, 'a/file');
      posix.setXattr(file, 'user.x', 'x');
      const still = { a: [], 'a/file': [] };
      const acts: (() => unknown)[] = [
        () => withFile(file, O_RDONLY, (fd) => fails('EBADF', () => posix.write(fd, 'x'))),
        () => withFile(file, O_RDONLY, (fd) => fails('EINVAL', () => posix.ftruncate(fd, 0))),
        () => fails('EINVAL', () => posix.truncate(file, -1)),
        () => fails('EEXIST', () => posix.setXattr(file, 'user.x', 'y', posix.XATTR_CREATE)),
        () => fails('ENODATA', () => posix.setXattr(file, 'user.y', 'y', posix.XATTR_REPLACE)),
        () => fails('ENODATA', () => posix.removeXattr(file, 'user.y')),
        () => fails('EOPNOTSUPP', () => posix.setXattr(file, 'nonsense.x', 'y')),
        () => withFile(file, O_RDWR, (fd) => assert.equal(posix.write(fd, ''), 0)),
      ];
      await moves(dir, still, () => allOf(acts));
    },
  },
  {
    name: 'what a user may not do moves no times',
    async run(dir) {
      makeTree(dir);
      const file = join(dir, 'a/file');
      const user = asUser(alice);
      const still = { a: [], 'a/file': [], 'a/sub': [] };
      const acts: (() => Promise<unknown>)[] = [
        () => refused('EACCES', user.call('open', file, O_WRONLY)),
        () => refused('EACCES', user.call('open', file, O_RDONLY | O_TRUNC)),
        () => refused('EACCES', user.call('truncate', file, 0)),
        () => refused('EPERM', user.call('chmod', file, 0o777)),
        () => refused('EPERM', user.call('chown', file, alice.uid, alice.gid)),
        () => refused('EPERM', user.call('setTimes', file, 1n, 1n)),
        () => refused('EACCES', user.call('setTimes', file, 'now', 'now')),
        () => refused('EACCES', user.call('setXattr', file, 'user.x', 'x')),
        () => refused('EPERM', user.call('setXattr', file, 'trusted.x', 'x')),
        () => refused('EACCES', user.call('unlink', file)),
        () => refused('EACCES', user.call('rmdir', join(dir, 'a/sub'))),
        () => refused('EACCES', user.call('rename', file, join(dir, 'a/new'))),
        () => refused('EACCES', user.call('mkdir', join(dir, 'a/new'))),
        () => refused('EACCES', user.call('open', join(dir, 'a/new'), O_RDWR | O_CREAT)),
      ];
      await moves(dir, still, () => allOf(acts));
    },
  },
];

const reading: Subject['cases'] = [
  {
    name: 'following a link moves its atime if it is not newer than its mtime (relatime), looking at it does not',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.symlink('file', join(dir, 'link'));
      const link = join(dir, 'link');
      posix.setTimes(link, 1_000_000_000n, 2_000_000_000n, posix.AT_SYMLINK_NOFOLLOW);
      posix.lstat(link);
      assert.equal(posix.lstat(link).atimeNs, 1_000_000_000n);
      posix.readlink(link);
      assert.ok(posix.lstat(link).atimeNs > 2_000_000_000n);
    },
  },
  {
    name: 'opening and looking leave atime, the first read moves it (relatime)',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.setTimes(join(dir, 'file'), 1_000_000_000n, 2_000_000_000n);
      withFile(join(dir, 'file'), O_RDONLY, (fd) => posix.fstat(fd));
      assert.equal(posix.stat(join(dir, 'file')).atimeNs, 1_000_000_000n);
      withFile(join(dir, 'file'), O_RDONLY, (fd) => posix.read(fd, 3));
      assert.ok(posix.stat(join(dir, 'file')).atimeNs > 2_000_000_000n);
    },
  },
  {
    name: 'running a program and mapping a file move its atime (relatime)',
    async run(dir) {
      put(join(dir, 'script'), '#!/bin/sh\nexit 3\n', 0o755);
      put(join(dir, 'mapped'), pattern(8192));
      for (const name of ['script', 'mapped']) posix.setTimes(join(dir, name), 1_000_000_000n, 2_000_000_000n);
      assert.equal((await asUser(alice).call('exec', join(dir, 'script'))).status, 3);
      withFile(join(dir, 'mapped'), O_RDONLY, (fd) => {
        const address = posix.map(fd, 8192, posix.PROT_READ);
        posix.peek(address, 0, 10);
        posix.unmap(address);
      });
      for (const name of ['script', 'mapped']) {
        assert.ok(posix.stat(join(dir, name)).atimeNs > 2_000_000_000n, name);
      }
    },
  },
];

export const stamps: Subject = { subject: 'stamps', cases: [...names, ...contents, ...failing, ...reading] };
