/** What is open and has lost its name or its place, or has no name yet; and names for what is open. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { asUser, bob, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { exists, fails, namesIn, pattern, put, type Subject, textOf, withFile } from './case.ts';

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_PATH } = posix;

const naming: Subject['cases'] = [
  {
    name: 'AT_EMPTY_PATH names a file made with O_TMPFILE, and one that has a name',
    needs: ['unnamed-files'],
    run(dir) {
      const fd = posix.openTemporary(dir, O_RDWR);
      posix.write(fd, 'content');
      posix.linkEmptyPath(fd, join(dir, 'first'));
      posix.linkEmptyPath(fd, join(dir, 'second'));
      fails('EEXIST', () => posix.linkEmptyPath(fd, join(dir, 'second')));
      assert.equal(posix.fstat(fd).nlink, 2);
      posix.close(fd);
      assert.equal(textOf(join(dir, 'second')), 'content');
    },
  },
  {
    name: 'AT_EMPTY_PATH names a link itself, a fifo and a socket, and no directory',
    run(dir) {
      posix.symlink('target', join(dir, 'link'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      posix.mknod(join(dir, 'socket'), posix.S_IFSOCK | 0o600);
      for (const name of ['link', 'fifo', 'socket']) {
        withFile(join(dir, name), O_PATH | O_NOFOLLOW, (fd) => posix.linkEmptyPath(fd, join(dir, `${name}-2`)));
        assert.equal(posix.lstat(join(dir, `${name}-2`)).ino, posix.lstat(join(dir, name)).ino);
      }
      withFile(dir, O_PATH, (fd) => fails('EPERM', () => posix.linkEmptyPath(fd, join(dir, 'dir-2'))));
    },
  },
  {
    name: 'AT_EMPTY_PATH gives no name to what has lost its last one, nor to O_TMPFILE with O_EXCL',
    needs: ['unnamed-files'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.unlink(join(dir, 'file'));
        fails('ENOENT', () => posix.linkEmptyPath(fd, join(dir, 'again')));
      });
      const fd = posix.openTemporary(dir, O_RDWR | O_EXCL);
      fails('ENOENT', () => posix.linkEmptyPath(fd, join(dir, 'again')));
      posix.close(fd);
      assert.deepEqual(namesIn(dir), []);
    },
  },
  {
    name: 'who opened a file names it by its descriptor, without any privilege',
    needs: ['unnamed-files'],
    async run(dir) {
      posix.chmod(dir, 0o777);
      const fd = await asUser(bob).call('openTemporary', dir, O_RDWR);
      await asUser(bob).call('write', fd, 'of bob');
      await asUser(bob).call('linkDescriptor', fd, join(dir, 'named'));
      await asUser(bob).call('close', fd);
      assert.equal(textOf(join(dir, 'named')), 'of bob');
      assert.equal(posix.stat(join(dir, 'named')).uid, bob.uid);
    },
  },
  {
    name: 'of a hundred unnamed files each keeps its own content, and their end leaves nothing',
    needs: ['unnamed-files'],
    run(dir) {
      const fds = Array.from({ length: 100 }, () => posix.openTemporary(dir, O_RDWR));
      for (const [index, fd] of fds.entries()) posix.write(fd, `${index}`.repeat(100));
      assert.equal(new Set(fds.map((fd) => posix.fstat(fd).ino)).size, 100);
      for (const [index, fd] of fds.entries()) {
        assert.equal(posix.read(fd, 3000, 0).toString(), `${index}`.repeat(100));
        posix.close(fd);
      }
      assert.deepEqual(namesIn(dir), []);
    },
  },
];

const unlinked: Subject['cases'] = [
  {
    name: 'a fifo that was unlinked goes on carrying bytes, and one made anew is another',
    run(dir) {
      const name = join(dir, 'fifo');
      posix.mknod(name, posix.S_IFIFO | 0o600);
      withFile(name, O_RDWR | O_NONBLOCK, (fd) => {
        posix.unlink(name);
        posix.mknod(name, posix.S_IFIFO | 0o600);
        posix.write(fd, 'old');
        withFile(name, O_RDWR | O_NONBLOCK, (other) => fails('EAGAIN', () => posix.read(other, 10)));
        assert.equal(posix.read(fd, 10).toString(), 'old');
        assert.equal(posix.fstat(fd).nlink, 0);
      });
    },
  },
  {
    name: 'a link that was unlinked still tells its target to who has it open',
    run(dir) {
      posix.symlink('target', join(dir, 'link'));
      withFile(join(dir, 'link'), O_PATH | O_NOFOLLOW, (fd) => {
        posix.unlink(join(dir, 'link'));
        posix.symlink('other', join(dir, 'link'));
        assert.equal(posix.readlinkOfDescriptor(fd).toString(), 'target');
        assert.equal(posix.fstat(fd).nlink, 0);
      });
    },
  },
  {
    name: 'a file that only an O_PATH descriptor holds is opened through it after its name is gone',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_PATH, (path) => {
        posix.unlink(join(dir, 'file'));
        assert.equal(posix.fstat(path).nlink, 0);
        withFile(`/proc/self/fd/${path}`, O_RDWR, (fd) => {
          posix.write(fd, 'CON');
          assert.equal(posix.read(fd, 10, 0).toString(), 'CONtent');
        });
        withFile(`/proc/self/fd/${path}`, O_RDONLY, (fd) => assert.equal(posix.read(fd, 10).toString(), 'CONtent'));
      });
    },
  },
  {
    name: 'an unlinked file grows by appending, sparsely and by copying, and counts its blocks',
    run(dir) {
      put(join(dir, 'from'), pattern(200_000));
      withFile(join(dir, 'file'), O_RDWR | O_CREAT | posix.O_APPEND, (fd) => {
        posix.unlink(join(dir, 'file'));
        posix.write(fd, 'one');
        posix.write(fd, 'two', 0);
        assert.equal(posix.read(fd, 10, 0).toString(), 'onetwo');
        posix.setStatusFlags(fd, O_RDWR);
        withFile(join(dir, 'from'), O_RDONLY, (from) => {
          assert.equal(posix.copyFileRange(from, 0, fd, 1 << 20, 65536), 65536);
        });
        posix.fsync(fd);
        assert.equal(posix.fstat(fd).size, (1 << 20) + 65536);
        assert.ok(posix.fstat(fd).blocks * 512 >= 65536 && posix.fstat(fd).blocks * 512 < 1 << 20);
        assert.ok(posix.read(fd, 65536, 1 << 20).equals(pattern(200_000).subarray(0, 65536)));
        assert.equal(posix.seek(fd, 8192, posix.SEEK_DATA), 1 << 20);
      });
    },
  },
  {
    name: 'two unlinked files of one name are two files',
    run(dir) {
      const name = join(dir, 'file');
      put(name, 'first');
      withFile(name, O_RDWR, (first) => {
        posix.unlink(name);
        put(name, 'second');
        withFile(name, O_RDWR, (second) => {
          posix.unlink(name);
          put(name, 'third');
          posix.write(first, 'FIRST');
          assert.equal(posix.read(second, 10, 0).toString(), 'second');
          assert.equal(posix.read(first, 10, 0).toString(), 'FIRST');
          assert.notEqual(posix.fstat(first).ino, posix.fstat(second).ino);
          assert.equal(textOf(name), 'third');
        });
      });
    },
  },
];

const folders: Subject['cases'] = [
  {
    name: 'an empty directory that a rename replaces is gone, and its descriptor lists nothing and takes nothing new',
    run(dir) {
      posix.mkdir(join(dir, 'old'));
      posix.mkdir(join(dir, 'new'));
      put(join(dir, 'new', 'file'), 'content');
      withFile(join(dir, 'old'), O_RDONLY | O_DIRECTORY, (fd) => {
        posix.rename(join(dir, 'new'), join(dir, 'old'));
        fails('ENOENT', () => posix.openAt(fd, 'file', O_RDONLY));
        fails('ENOENT', () => posix.openAt(fd, 'x', O_RDWR | O_CREAT));
        fails('ENOENT', () => posix.readAllEntries(fd));
      });
      assert.equal(textOf(join(dir, 'old', 'file')), 'content');
    },
  },
  {
    name: 'a removed directory’s owner, mode, times and attributes can be changed and synced by its descriptor',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      withFile(join(dir, 'sub'), O_RDONLY | O_DIRECTORY, (fd) => {
        posix.rmdir(join(dir, 'sub'));
        posix.fchown(fd, 7, 8);
        posix.fchmod(fd, 0o711);
        posix.setTimesOfDescriptor(fd, 1n, 2n);
        posix.setXattr(`/proc/self/fd/${fd}`, 'user.x', 'value');
        assert.equal(posix.getXattr(`/proc/self/fd/${fd}`, 'user.x').toString(), 'value');
        posix.fsync(fd);
        const { uid, gid, mode, mtimeNs } = posix.fstat(fd);
        assert.deepEqual([uid, gid, mode & 0o7777, mtimeNs], [7, 8, 0o711, 2n]);
      });
    },
  },
  {
    name: 'a working directory that is moved goes along, and its dot-dot is the new parent',
    async run(dir) {
      for (const sub of ['a', 'b', 'a/work']) posix.mkdir(join(dir, sub));
      put(join(dir, 'b', 'beside'), 'in b');
      const other = asUser(root);
      await other.call('changeDirectory', join(dir, 'a/work'));
      posix.rename(join(dir, 'a/work'), join(dir, 'b/moved'));
      await other.call('writeFile', 'file', 'made after');
      assert.equal(textOf(join(dir, 'b/moved/file')), 'made after');
      assert.equal((await other.call('readFile', '../beside')).toString(), 'in b');
      await other.call('changeDirectory', '/');
    },
  },
  {
    name: 'the links of a directory are one, or two and one for each folder in it, and follow what is made and moved',
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'b'));
      const counts = posix.stat(join(dir, 'a')).nlink === 2;
      const links = (name: string): number => posix.stat(join(dir, name)).nlink;
      const expected = (folders: number): number => (counts ? 2 + folders : 1);
      posix.mkdir(join(dir, 'a', 'one'));
      posix.mkdir(join(dir, 'a', 'two'));
      put(join(dir, 'a', 'file'));
      assert.deepEqual([links('a'), links('b')], [expected(2), expected(0)]);
      posix.rename(join(dir, 'a', 'one'), join(dir, 'b', 'one'));
      assert.deepEqual([links('a'), links('b')], [expected(1), expected(1)]);
      posix.rename(join(dir, 'a', 'two'), join(dir, 'b', 'one'));
      assert.deepEqual([links('a'), links('b')], [expected(0), expected(1)]);
      posix.mkdir(join(dir, 'a', 'three'));
      posix.rename(join(dir, 'a', 'file'), join(dir, 'b', 'one'), posix.RENAME_EXCHANGE);
      assert.deepEqual([links('a'), links('b')], [expected(2), expected(0)]);
    },
  },
];

const positions: Subject['cases'] = [
  {
    name: 'a position in a listing stays good when what follows it is removed, renamed or replaced',
    run(dir) {
      for (let i = 0; i < 200; i++) put(join(dir, `entry-${String(i).padStart(4, '0')}`));
      withFile(dir, O_RDONLY | O_DIRECTORY, (fd) => {
        const all = posix.readAllEntries(fd, 4096).filter(({ name }) => name.length > 2);
        const middle = all[100];
        assert.ok(middle !== undefined);
        const behind = all.slice(101).map(({ name }) => name.toString());
        const gone = new Set([behind[0], behind[1], behind[50]]);
        for (const name of gone) posix.unlink(join(dir, `${name}`));
        posix.seekDirectory(fd, middle.next);
        const rest = posix.readAllEntries(fd, 4096).map(({ name }) => name.toString());
        assert.deepEqual(
          rest,
          behind.filter((name) => !gone.has(name)),
        );
        posix.unlink(join(dir, middle.name.toString()));
        posix.seekDirectory(fd, middle.next);
        assert.deepEqual(
          posix.readAllEntries(fd, 512).map(({ name }) => name.toString()),
          rest,
        );
      });
    },
  },
  {
    name: 'a listing shows once what is renamed within the directory before it was begun, and seeking to zero shows it anew',
    run(dir) {
      for (let i = 0; i < 50; i++) put(join(dir, `entry-${i}`));
      withFile(dir, O_RDONLY | O_DIRECTORY, (fd) => {
        for (let round = 0; round < 5; round++) {
          posix.rename(join(dir, `entry-${round}`), join(dir, `renamed-${round}`));
          posix.seekDirectory(fd, 0n);
          const names = posix.readAllEntries(fd, 600).map(({ name }) => name.toString());
          assert.equal(new Set(names).size, names.length);
          assert.equal(names.length, 52);
          assert.ok(names.includes(`renamed-${round}`) && !names.includes(`entry-${round}`));
        }
      });
    },
  },
  {
    name: 'a duplicate of a directory’s descriptor shares its position, a second open has its own',
    run(dir) {
      for (let i = 0; i < 20; i++) put(join(dir, `entry-${i}`));
      withFile(dir, O_RDONLY | O_DIRECTORY, (fd) => {
        const first = posix.readEntries(fd, 256);
        const copy = posix.dup(fd);
        const rest = posix.readAllEntries(copy);
        posix.close(copy);
        assert.equal(first.length + rest.length, 22);
        assert.equal(posix.readEntries(fd).length, 0);
        withFile(dir, O_RDONLY | O_DIRECTORY, (other) => assert.equal(posix.readAllEntries(other).length, 22));
      });
    },
  },
  {
    name: 'a lock of an open file goes with its descriptors to a child, and ends with the last of them',
    async run(dir) {
      put(join(dir, 'file'));
      // The shell's descriptor 9 is its children's, too: one lock. A second open is another holder.
      const script = [
        'exec 9<"$1"; flock --nonblock 9 || exit 11',
        '(flock --nonblock 9) || exit 12',
        'flock --nonblock "$1" true && exit 13',
        '(exec 9<&-; true)',
        'flock --nonblock "$1" true && exit 14',
        'sleep 0 9<&9 & exec 9<&-; wait',
        'flock --nonblock "$1" true || exit 15',
      ].join('\n');
      execFileSync('sh', ['-c', script, 'sh', join(dir, 'file')]);
      assert.ok(exists(join(dir, 'file')));
    },
  },
];

export const orphans: Subject = { subject: 'orphans', cases: [...naming, ...unlinked, ...folders, ...positions] };
