/** open(2): what its flags promise. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import {
  exists,
  fails,
  modeOf,
  namesIn,
  pattern,
  put,
  refused,
  type Subject,
  sizeOf,
  textOf,
  withFile,
} from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_PATH } = posix;
const O_NOATIME = 0o1000000;
const O_SYNC = 0o4010000;
const O_DSYNC = 0o10000;

export const opening: Subject = {
  subject: 'opening',
  cases: [
    {
      name: 'O_CREAT makes a missing file and leaves an existing one as it is',
      run(dir) {
        const file = join(dir, 'file');
        withFile(file, O_CREAT | O_WRONLY, (fd) => posix.write(fd, 'content'), 0o640);
        withFile(file, O_CREAT | O_RDWR, (fd) => assert.equal(posix.read(fd, 10).toString(), 'content'), 0o600);
        assert.equal(modeOf(file), 0o640);
      },
    },
    {
      name: 'O_EXCL refuses a file, a directory, and a symbolic link even if it dangles',
      run(dir) {
        put(join(dir, 'file'), 'content');
        posix.mkdir(join(dir, 'sub'));
        posix.symlink('missing', join(dir, 'link'));
        for (const name of ['file', 'sub', 'link']) {
          fails('EEXIST', () => posix.open(join(dir, name), O_CREAT | O_EXCL | O_WRONLY));
        }
        fails('EEXIST', () => posix.open(join(dir, 'file'), O_CREAT | O_EXCL | O_TRUNC | O_RDWR));
        assert.equal(textOf(join(dir, 'file')), 'content');
        assert.equal(exists(join(dir, 'missing')), false);
      },
    },
    {
      name: 'O_CREAT through a dangling link makes the target',
      run(dir) {
        posix.symlink('target', join(dir, 'link'));
        withFile(join(dir, 'link'), O_CREAT | O_WRONLY, (fd) => posix.write(fd, 'through'));
        assert.equal(textOf(join(dir, 'target')), 'through');
        assert.equal(posix.readlink(join(dir, 'link')).toString(), 'target');
      },
    },
    {
      name: 'a file made without write permission can be written through the descriptor that made it',
      async run(dir) {
        posix.chown(dir, alice.uid, alice.gid);
        const file = join(dir, 'file');
        const fd = await asUser(alice).call('open', file, O_CREAT | O_RDWR, 0o400);
        assert.equal(await asUser(alice).call('write', fd, 'content'), 7);
        await asUser(alice).call('close', fd);
        await refused('EACCES', asUser(alice).call('open', file, O_WRONLY));
        assert.equal(textOf(file), 'content');
        assert.equal(modeOf(file), 0o400);
      },
    },
    {
      name: 'O_TRUNC empties a file before the descriptor is there',
      run(dir) {
        const file = join(dir, 'file');
        put(file, pattern(10_000));
        withFile(file, O_WRONLY | O_TRUNC, (fd) => {
          assert.equal(posix.fstat(fd).size, 0);
          posix.write(fd, 'x', 5000);
        });
        assert.equal(textOf(file), `${'\0'.repeat(5000)}x`);
      },
    },
    {
      name: 'O_TRUNC empties also what other descriptors show',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'some content');
        withFile(file, O_RDONLY, (reader) => {
          assert.equal(posix.read(reader, 4).toString(), 'some');
          withFile(file, O_RDWR | O_TRUNC, (writer) => {
            assert.equal(posix.read(reader, 100).length, 0);
            posix.write(writer, 'new words');
          });
          assert.equal(posix.read(reader, 100).toString(), 'words');
        });
      },
    },
    {
      name: 'O_TRUNC without write permission is refused and leaves the file alone',
      async run(dir) {
        put(join(dir, 'file'), 'content', 0o644);
        await refused('EACCES', asUser(alice).call('open', join(dir, 'file'), O_RDONLY | O_TRUNC));
        await refused('EACCES', asUser(alice).call('open', join(dir, 'file'), O_WRONLY | O_TRUNC));
        assert.equal(textOf(join(dir, 'file')), 'content');
      },
    },
    {
      name: 'O_APPEND writes at the end, wherever the position is',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'one ');
        withFile(file, O_RDWR | O_APPEND, (fd) => {
          posix.seek(fd, 0, posix.SEEK_SET);
          posix.write(fd, 'two ');
          assert.equal(posix.seek(fd, 0, posix.SEEK_CUR), 8);
          assert.equal(posix.read(fd, 10).length, 0);
          posix.seek(fd, 0, posix.SEEK_SET);
          assert.equal(posix.read(fd, 3).toString(), 'one');
          posix.write(fd, 'three');
        });
        assert.equal(textOf(file), 'one two three');
      },
    },
    {
      name: 'two descriptors that append take turns without loss',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        withFile(file, O_WRONLY | O_APPEND, (first) => {
          withFile(file, O_WRONLY | O_APPEND, (second) => {
            for (let round = 0; round < 20; round++) {
              posix.write(first, `a${round};`);
              posix.write(second, `b${round};`);
            }
          });
        });
        const expected = Array.from({ length: 20 }, (_, round) => `a${round};b${round};`).join('');
        assert.equal(textOf(file), expected);
      },
    },
    {
      name: 'two processes that append at the same time lose nothing',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        const fd = await asUser(alice).call('open', file, O_WRONLY | O_APPEND);
        const theirs: Promise<number>[] = [];
        withFile(file, O_WRONLY | O_APPEND, (own) => {
          for (let round = 0; round < 200; round++) {
            theirs.push(asUser(alice).call('write', fd, 'theirs.'));
            posix.write(own, 'our own');
          }
        });
        await Promise.all(theirs);
        await asUser(alice).call('close', fd);
        const pieces = textOf(file).match(/theirs\.|our own/g) ?? [];
        assert.equal(pieces.length, 400);
        assert.equal(pieces.join(''), textOf(file));
      },
    },
    {
      name: 'on Linux pwrite appends, too, when the descriptor does',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'start ');
        withFile(file, O_WRONLY | O_APPEND, (fd) => posix.write(fd, 'end', 0));
        assert.equal(textOf(file), 'start end');
      },
    },
    {
      name: 'O_APPEND can be turned on and off on an open descriptor',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'abc');
        withFile(file, O_RDWR, (fd) => {
          posix.setStatusFlags(fd, posix.statusFlags(fd) | O_APPEND);
          posix.seek(fd, 0, posix.SEEK_SET);
          posix.write(fd, 'def');
          assert.equal(textOf(file), 'abcdef');
          posix.setStatusFlags(fd, posix.statusFlags(fd) & ~O_APPEND);
          posix.seek(fd, 0, posix.SEEK_SET);
          posix.write(fd, 'ABC');
        });
        assert.equal(textOf(file), 'ABCdef');
      },
    },
    {
      name: 'a descriptor does only what it was opened for',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        withFile(file, O_RDONLY, (fd) => {
          fails('EBADF', () => posix.write(fd, 'x'));
          fails('EINVAL', () => posix.ftruncate(fd, 0));
        });
        withFile(file, O_WRONLY, (fd) => fails('EBADF', () => posix.read(fd, 1)));
        assert.equal(textOf(file), 'content');
      },
    },
    {
      name: 'a directory is opened for reading only',
      run(dir) {
        fails('EISDIR', () => posix.open(dir, O_WRONLY));
        fails('EISDIR', () => posix.open(dir, O_RDWR));
        fails('EISDIR', () => posix.open(dir, O_RDONLY | O_TRUNC));
        fails('EISDIR', () => posix.open(dir, O_RDONLY | O_CREAT));
        withFile(dir, O_RDONLY, (fd) => fails('EISDIR', () => posix.read(fd, 1)));
      },
    },
    {
      name: 'O_DIRECTORY refuses what is none',
      run(dir) {
        put(join(dir, 'file'));
        posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
        posix.symlink('.', join(dir, 'link'));
        fails('ENOTDIR', () => posix.open(join(dir, 'file'), O_RDONLY | O_DIRECTORY));
        fails('ENOTDIR', () => posix.open(join(dir, 'fifo'), O_RDONLY | O_DIRECTORY));
        fails('ENOTDIR', () => posix.open(join(dir, 'link'), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
        posix.close(posix.open(join(dir, 'link'), O_RDONLY | O_DIRECTORY));
      },
    },
    {
      name: 'O_NOFOLLOW refuses a link as the last component only',
      run(dir) {
        posix.mkdir(join(dir, 'sub'));
        put(join(dir, 'sub', 'file'), 'content');
        posix.symlink('sub', join(dir, 'link'));
        posix.symlink('sub/file', join(dir, 'filelink'));
        fails('ELOOP', () => posix.open(join(dir, 'filelink'), O_RDONLY | O_NOFOLLOW));
        withFile(join(dir, 'link', 'file'), O_RDONLY | O_NOFOLLOW, (fd) => {
          assert.equal(posix.read(fd, 10).toString(), 'content');
        });
      },
    },
    {
      name: 'O_PATH gives a descriptor that names the file and does nothing else',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content', 0);
        withFile(file, O_PATH, (fd) => {
          assert.equal(posix.fstat(fd).size, 7);
          fails('EBADF', () => posix.read(fd, 1));
          posix.rename(file, join(dir, 'renamed'));
          assert.equal(textOf(`/proc/self/fd/${fd}`), 'content');
        });
      },
    },
    {
      name: 'O_PATH with O_NOFOLLOW names the link itself',
      run(dir) {
        posix.symlink('missing', join(dir, 'link'));
        withFile(join(dir, 'link'), O_PATH | O_NOFOLLOW, (fd) => {
          assert.equal(posix.fstat(fd).mode & posix.S_IFMT, posix.S_IFLNK);
        });
      },
    },
    {
      name: 'O_NOATIME is for the owner',
      async run(dir) {
        put(join(dir, 'file'), 'content', 0o644);
        await refused('EPERM', asUser(alice).call('open', join(dir, 'file'), O_RDONLY | O_NOATIME));
        posix.chown(join(dir, 'file'), alice.uid, alice.gid);
        const fd = await asUser(alice).call('open', join(dir, 'file'), O_RDONLY | O_NOATIME);
        await asUser(alice).call('close', fd);
      },
    },
    {
      name: 'O_NOATIME leaves the access time alone',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        posix.setTimes(file, 1_000_000_000n, 2_000_000_000n);
        withFile(file, O_RDONLY | O_NOATIME, (fd) => posix.read(fd, 10));
        assert.equal(posix.stat(file).atimeNs, 1_000_000_000n);
      },
    },
    {
      name: 'O_SYNC and O_DSYNC writes arrive',
      run(dir) {
        const file = join(dir, 'file');
        withFile(file, O_CREAT | O_WRONLY | O_SYNC, (fd) => posix.write(fd, 'sync '));
        withFile(file, O_WRONLY | O_DSYNC | O_APPEND, (fd) => posix.write(fd, 'dsync'));
        assert.equal(textOf(file), 'sync dsync');
      },
    },
    {
      name: 'O_NONBLOCK means nothing for a regular file',
      run(dir) {
        put(join(dir, 'file'), 'content');
        withFile(join(dir, 'file'), O_RDWR | posix.O_NONBLOCK, (fd) => {
          assert.equal(posix.read(fd, 10).toString(), 'content');
          assert.equal(posix.write(fd, 'more'), 4);
        });
      },
    },
    {
      name: 'O_DIRECT reads what was written into the cache, and the cache shows what it writes',
      needs: ['direct-io'],
      run(dir) {
        const file = join(dir, 'file');
        put(file, pattern(65536));
        withFile(file, O_RDWR | posix.O_DIRECT, (fd) => {
          assert.deepEqual(posix.read(fd, 8192, 4096), pattern(65536).subarray(4096, 12288));
          assert.equal(posix.write(fd, Buffer.alloc(4096, 'd'), 8192), 4096);
        });
        assert.equal(textOf(file).slice(8192, 12288), 'd'.repeat(4096));
        assert.equal(sizeOf(file), 65536);
      },
    },
    {
      name: 'a loop of links is refused',
      run(dir) {
        posix.symlink('b', join(dir, 'a'));
        posix.symlink('a', join(dir, 'b'));
        fails('ELOOP', () => posix.open(join(dir, 'a'), O_RDONLY));
        fails('ELOOP', () => posix.open(join(dir, 'a'), O_CREAT | O_WRONLY));
        fails('ELOOP', () => posix.stat(join(dir, 'a', 'x')));
        assert.deepEqual(namesIn(dir), ['a', 'b']);
      },
    },
    {
      name: 'the same file opened many times is one file',
      run(dir) {
        const file = join(dir, 'file');
        put(file, '0'.repeat(50));
        const fds = Array.from({ length: 50 }, () => posix.open(file, O_RDWR));
        for (const [index, fd] of fds.entries()) posix.write(fd, String(index % 10), index);
        const expected = '0123456789'.repeat(5);
        for (const fd of fds) assert.equal(posix.read(fd, 50, 0).toString(), expected);
        for (const fd of fds) posix.close(fd);
        assert.equal(textOf(file), expected);
      },
    },
  ],
};
