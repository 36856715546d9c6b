/** Files without a name: made so with O_TMPFILE, or unlinked while open. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, root } from '../support/asuser.ts';
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
  whileOpen,
  withFile,
} from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL } = posix;

/** A file of this content that is open for reading and writing and has no name any more. */
function withUnlinked(dir: string, content: string, use: (fd: number) => void): void {
  const file = join(dir, 'gone');
  put(file, content);
  withFile(file, O_RDWR, (fd) => {
    posix.unlink(file);
    use(fd);
  });
  assert.deepEqual(namesIn(dir), []);
}

function withTemporary(dir: string, flags: number, use: (fd: number) => void): void {
  const fd = posix.openTemporary(dir, flags, 0o666);
  try {
    use(fd);
  } finally {
    posix.close(fd);
  }
}

export const unnamed: Subject = {
  subject: 'unnamed',
  cases: [
    {
      name: 'a file made with O_TMPFILE has no name and no links',
      needs: ['unnamed-files'],
      run(dir) {
        withTemporary(dir, O_RDWR, (fd) => {
          posix.write(fd, 'content');
          assert.equal(posix.read(fd, 10, 0).toString(), 'content');
          assert.equal(posix.fstat(fd).nlink, 0);
          assert.deepEqual(namesIn(dir), []);
        });
      },
    },
    {
      name: 'a file made with O_TMPFILE can be given a name later',
      needs: ['unnamed-files'],
      run(dir) {
        withTemporary(dir, O_RDWR, (fd) => {
          posix.write(fd, 'content');
          posix.linkDescriptor(fd, join(dir, 'name'));
          assert.equal(posix.fstat(fd).nlink, 1);
          assert.equal(posix.stat(join(dir, 'name')).ino, posix.fstat(fd).ino);
          posix.write(fd, ' and more');
        });
        assert.equal(textOf(join(dir, 'name')), 'content and more');
        assert.equal(modeOf(join(dir, 'name')), 0o644);
      },
    },
    {
      name: 'a file made with O_TMPFILE can be named in another directory, and named over nothing only',
      needs: ['unnamed-files'],
      run(dir) {
        posix.mkdir(join(dir, 'a'));
        posix.mkdir(join(dir, 'b'));
        put(join(dir, 'b', 'taken'));
        withTemporary(join(dir, 'a'), O_RDWR, (fd) => {
          fails('EEXIST', () => posix.linkDescriptor(fd, join(dir, 'b', 'taken')));
          posix.linkDescriptor(fd, join(dir, 'b', 'free'));
        });
        assert.deepEqual(namesIn(join(dir, 'a')), []);
        assert.deepEqual(namesIn(join(dir, 'b')), ['free', 'taken']);
      },
    },
    {
      name: 'O_TMPFILE with O_EXCL stays without a name for good',
      needs: ['unnamed-files'],
      run(dir) {
        withTemporary(dir, O_RDWR | O_EXCL, (fd) => {
          fails('ENOENT', () => posix.linkDescriptor(fd, join(dir, 'name')));
        });
        assert.deepEqual(namesIn(dir), []);
      },
    },
    {
      name: 'O_TMPFILE wants a directory and write access',
      needs: ['unnamed-files'],
      run(dir) {
        put(join(dir, 'file'));
        fails('EINVAL', () => posix.openTemporary(dir, O_RDONLY));
        fails('ENOTDIR', () => posix.openTemporary(join(dir, 'file'), O_RDWR));
        fails('ENOENT', () => posix.openTemporary(join(dir, 'missing'), O_RDWR));
      },
    },
    {
      name: 'a file made with O_TMPFILE belongs to who made it, and the umask holds',
      needs: ['unnamed-files'],
      async run(dir) {
        posix.chmod(dir, 0o777);
        const other = asUser(alice);
        const fd = await other.call('openTemporary', dir, O_RDWR, 0o666);
        const { uid, gid, mode } = await other.call('fstat', fd);
        await other.call('close', fd);
        assert.deepEqual([uid, gid, mode & 0o7777], [alice.uid, alice.gid, 0o644]);
      },
    },
    {
      name: 'an unlinked file that is open shows no links and its size',
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          const { nlink, size, mode } = posix.fstat(fd);
          assert.deepEqual([nlink, size, mode], [0, 7, posix.S_IFREG | 0o644]);
        });
      },
    },
    {
      name: 'an unlinked file can be read, written, and cut while it is open',
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          assert.equal(posix.read(fd, 3).toString(), 'con');
          posix.write(fd, 'fused');
          assert.equal(posix.read(fd, 100, 0).toString(), 'confused');
          posix.ftruncate(fd, 3);
          assert.equal(posix.fstat(fd).size, 3);
          posix.ftruncate(fd, 5);
          assert.equal(posix.read(fd, 100, 0).toString(), 'con\0\0');
          posix.fsync(fd);
        });
      },
    },
    {
      name: "an unlinked file's mode, owner, times and attributes can be changed while it is open",
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          posix.fchmod(fd, 0o4711);
          assert.equal(posix.fstat(fd).mode & 0o7777, 0o4711);
          posix.fchown(fd, 1234, 5678);
          posix.setTimesOfDescriptor(fd, 5n, 1_000_000_007n);
          posix.setXattr(`/proc/self/fd/${fd}`, 'user.name', 'value');
          const { uid, gid, atimeNs, mtimeNs } = posix.fstat(fd);
          assert.deepEqual([uid, gid, atimeNs, mtimeNs], [1234, 5678, 5n, 1_000_000_007n]);
          assert.equal(posix.getXattr(`/proc/self/fd/${fd}`, 'user.name').toString(), 'value');
        });
      },
    },
    {
      name: 'an unlinked file can be preallocated and punched',
      needs: ['preallocation', 'punch-hole'],
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          posix.fallocate(fd, 0, 0, 65536);
          assert.equal(posix.fstat(fd).size, 65536);
          posix.fallocate(fd, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE, 0, 4);
          assert.equal(posix.read(fd, 7, 0).toString(), '\0\0\0\0ent');
        });
      },
    },
    {
      name: 'an unlinked file can be mapped, and opened again through /proc',
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          const address = posix.map(fd, 4096);
          posix.poke(address, 0, 'C');
          withFile(`/proc/self/fd/${fd}`, O_RDWR, (again) => {
            assert.equal(posix.read(again, 10).toString(), 'Content');
            posix.write(again, 'X', 6);
          });
          assert.equal(posix.peek(address, 0, 7).toString(), 'ContenX');
          posix.unmap(address);
        });
      },
    },
    {
      name: 'an unlinked file cannot be given a name again',
      run(dir) {
        withUnlinked(dir, 'content', (fd) => {
          fails('ENOENT', () => posix.linkDescriptor(fd, join(dir, 'again')));
        });
      },
    },
    {
      name: 'a new file under the name of an unlinked one is another file',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'old');
        withFile(file, O_RDWR, (fd) => {
          posix.unlink(file);
          put(file, 'new');
          assert.notEqual(posix.stat(file).ino, posix.fstat(fd).ino);
          posix.write(fd, 'OLD');
          assert.equal(textOf(file), 'new');
          assert.equal(posix.read(fd, 10, 0).toString(), 'OLD');
        });
      },
    },
    {
      name: 'a file that another process unlinks stays open here',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        await whileOpen(file, O_RDWR, async (fd) => {
          await asUser(root).call('unlink', file);
          assert.equal(exists(file), false);
          assert.equal(posix.fstat(fd).nlink, 0);
          posix.write(fd, 'CON');
          assert.equal(posix.read(fd, 10, 0).toString(), 'CONtent');
        });
      },
    },
    {
      name: 'closing one descriptor of an unlinked file leaves the others working',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        withFile(file, O_RDONLY, (kept) => {
          withFile(file, O_RDWR, (writer) => {
            posix.unlink(file);
            posix.write(writer, 'CON');
          });
          assert.equal(posix.read(kept, 10).toString(), 'CONtent');
          assert.equal(posix.fstat(kept).nlink, 0);
        });
      },
    },
    {
      name: 'one of two names unlinked leaves the other and one link',
      run(dir) {
        put(join(dir, 'one'), 'content');
        posix.link(join(dir, 'one'), join(dir, 'two'));
        withFile(join(dir, 'one'), O_RDWR, (fd) => {
          posix.unlink(join(dir, 'one'));
          assert.equal(posix.fstat(fd).nlink, 1);
          posix.write(fd, 'CON');
          assert.equal(textOf(join(dir, 'two')), 'CONtent');
        });
      },
    },
    {
      name: 'the space of a large unlinked file is still there to be read',
      run(dir) {
        const file = join(dir, 'file');
        const content = pattern(1 << 20);
        put(file, content);
        withFile(file, O_RDONLY, (fd) => {
          posix.unlink(file);
          for (let at = 0; at < content.length; at += 131072) {
            assert.deepEqual(posix.read(fd, 131072, at), content.subarray(at, at + 131072));
          }
        });
      },
    },
    {
      name: 'a working directory that was removed is empty and takes nothing new',
      async run(dir) {
        const other = asUser(root);
        posix.mkdir(join(dir, 'sub'));
        await other.call('changeDirectory', join(dir, 'sub'));
        posix.rmdir(join(dir, 'sub'));
        await refused('ENOENT', other.call('open', 'new', O_CREAT | O_WRONLY));
        await refused('ENOENT', other.call('mkdir', 'new'));
        assert.equal((await other.call('stat', '.')).mode & posix.S_IFMT, posix.S_IFDIR);
        const fd = await other.call('open', '.', O_RDONLY);
        await refused('ENOENT', other.call('readEntries', fd));
        await other.call('close', fd);
      },
    },
    {
      name: "a removed directory's descriptor still tells its status",
      run(dir) {
        posix.mkdir(join(dir, 'sub'));
        withFile(join(dir, 'sub'), O_RDONLY | posix.O_DIRECTORY, (fd) => {
          const { ino } = posix.fstat(fd);
          posix.rmdir(join(dir, 'sub'));
          assert.equal(posix.fstat(fd).ino, ino);
          assert.equal(posix.fstat(fd).mode & posix.S_IFMT, posix.S_IFDIR);
          fails('ENOENT', () => posix.openAt(fd, 'new', O_CREAT | O_WRONLY));
          posix.fchmod(fd, 0o700);
          assert.equal(posix.fstat(fd).mode & 0o7777, 0o700);
        });
      },
    },
    {
      name: 'a file written after it was unlinked and linked by another name keeps everything',
      run(dir) {
        put(join(dir, 'one'), 'x');
        withFile(join(dir, 'one'), O_RDWR, (fd) => {
          posix.link(join(dir, 'one'), join(dir, 'two'));
          posix.unlink(join(dir, 'one'));
          posix.ftruncate(fd, 100_000);
          posix.write(fd, 'end', 99_997);
        });
        assert.equal(sizeOf(join(dir, 'two')), 100_000);
        assert.equal(textOf(join(dir, 'two')).slice(-3), 'end');
      },
    },
  ],
};
