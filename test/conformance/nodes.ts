/** What is neither a regular file nor a directory nor a link: fifos, sockets and devices. */

import assert from 'node:assert/strict';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, modeOf, namesIn, put, type Subject, textOf, whileOpen, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = posix;

export const nodes: Subject = {
  subject: 'nodes',
  cases: [
    {
      name: 'every kind of node shows its type, mode and device numbers',
      run(dir) {
        const kinds = [
          [posix.S_IFIFO, 0, 0],
          [posix.S_IFSOCK, 0, 0],
          [posix.S_IFCHR, 1, 3],
          [posix.S_IFBLK, 7, 200],
          [posix.S_IFCHR, 0, 0],
          [posix.S_IFREG, 0, 0],
        ] as const;
        for (const [index, [type, major, minor]] of kinds.entries()) {
          const name = join(dir, `${index}`);
          posix.mknod(name, type | 0o640, major, minor);
          const { mode, rdevMajor, rdevMinor, nlink, size } = posix.lstat(name);
          assert.deepEqual([mode, rdevMajor, rdevMinor, nlink, size], [type | 0o640, major, minor, 1, 0]);
        }
      },
    },
    {
      name: 'mknod takes no name that is taken, and makes no directory',
      run(dir) {
        put(join(dir, 'file'));
        fails('EEXIST', () => posix.mknod(join(dir, 'file'), posix.S_IFIFO | 0o600));
        fails('EPERM', () => posix.mknod(join(dir, 'new'), posix.S_IFDIR | 0o700));
        fails('EINVAL', () => posix.mknod(join(dir, 'new'), 0o170000));
        assert.deepEqual(namesIn(dir), ['file']);
      },
    },
    {
      name: 'a regular file made by mknod is an ordinary file',
      run(dir) {
        posix.mknod(join(dir, 'file'), posix.S_IFREG | 0o644);
        withFile(join(dir, 'file'), O_RDWR, (fd) => posix.write(fd, 'content'));
        assert.equal(textOf(join(dir, 'file')), 'content');
      },
    },
    {
      name: 'a fifo carries bytes from one process to another',
      async run(dir) {
        const fifo = join(dir, 'fifo');
        posix.mknod(fifo, posix.S_IFIFO | 0o600);
        const other = asUser(root);
        const reading = other.call('open', fifo, O_RDONLY);
        await whileOpen(fifo, O_RDWR, async (fd) => {
          const theirs = await reading;
          posix.write(fd, 'through the fifo');
          assert.equal((await other.call('read', theirs, 100)).toString(), 'through the fifo');
          await other.call('close', theirs);
        });
        assert.equal(posix.lstat(fifo).size, 0);
      },
    },
    {
      name: 'a fifo without a reader is not opened for writing, unless one waits',
      run(dir) {
        const fifo = join(dir, 'fifo');
        posix.mknod(fifo, posix.S_IFIFO | 0o600);
        fails('ENXIO', () => posix.open(fifo, O_WRONLY | O_NONBLOCK));
        withFile(fifo, O_RDONLY | O_NONBLOCK, (reader) => {
          assert.equal(posix.read(reader, 10).length, 0);
          withFile(fifo, O_WRONLY | O_NONBLOCK, (writer) => {
            fails('EAGAIN', () => posix.read(reader, 10));
            posix.write(writer, 'text');
            assert.equal(posix.read(reader, 10).toString(), 'text');
            fails('ESPIPE', () => posix.seek(reader, 0, posix.SEEK_SET));
          });
        });
      },
    },
    {
      name: 'two names of one fifo are one fifo',
      run(dir) {
        posix.mknod(join(dir, 'one'), posix.S_IFIFO | 0o600);
        posix.link(join(dir, 'one'), join(dir, 'two'));
        withFile(join(dir, 'one'), O_RDWR | O_NONBLOCK, (first) => {
          withFile(join(dir, 'two'), O_RDWR | O_NONBLOCK, (second) => {
            posix.write(first, 'text');
            assert.equal(posix.read(second, 10).toString(), 'text');
          });
        });
      },
    },
    {
      name: 'a socket that is bound to a name is connected to by that name, also after a rename',
      async run(dir) {
        // Short names: sun_path has room for 108 bytes, so the socket is reached through a descriptor.
        const fd = posix.open(dir, O_RDONLY | posix.O_DIRECTORY);
        const path = (name: string) => `/proc/self/fd/${fd}/${name}`;
        const server = createServer((connection) => connection.end('hello'));
        try {
          await new Promise<void>((resolve, reject) => {
            server.once('error', reject);
            server.listen(path('bound'), resolve);
          });
          assert.equal(posix.lstat(join(dir, 'bound')).mode & posix.S_IFMT, posix.S_IFSOCK);
          posix.rename(join(dir, 'bound'), join(dir, 'moved'));
          const received = await new Promise<string>((resolve, reject) => {
            const connection = createConnection(path('moved'));
            connection.once('error', reject);
            connection.once('data', (data) => {
              connection.destroy();
              resolve(data.toString());
            });
          });
          assert.equal(received, 'hello');
          fails('ENXIO', () => posix.open(join(dir, 'moved'), O_RDWR));
        } finally {
          await new Promise((resolve) => server.close(resolve));
          posix.close(fd);
        }
      },
    },
    {
      name: 'a device node is the device',
      run(dir) {
        posix.mknod(join(dir, 'null'), posix.S_IFCHR | 0o666, 1, 3);
        posix.mknod(join(dir, 'zero'), posix.S_IFCHR | 0o666, 1, 5);
        withFile(join(dir, 'null'), O_RDWR, (fd) => {
          assert.equal(posix.write(fd, 'away'), 4);
          assert.equal(posix.read(fd, 10).length, 0);
        });
        withFile(join(dir, 'zero'), O_RDONLY, (fd) => assert.deepEqual(posix.read(fd, 3), Buffer.alloc(3)));
        assert.equal(posix.lstat(join(dir, 'null')).size, 0);
      },
    },
    {
      name: 'a node without a driver is not opened',
      run(dir) {
        posix.mknod(join(dir, 'whiteout'), posix.S_IFCHR | 0o600, 0, 0);
        posix.mknod(join(dir, 'socket'), posix.S_IFSOCK | 0o600);
        fails('ENXIO', () => posix.open(join(dir, 'whiteout'), O_RDONLY));
        fails('ENXIO', () => posix.open(join(dir, 'socket'), O_RDONLY));
        withFile(join(dir, 'whiteout'), posix.O_PATH, (fd) => {
          assert.equal(posix.fstat(fd).mode & posix.S_IFMT, posix.S_IFCHR);
        });
      },
    },
    {
      name: 'nodes have modes, owners and times, and are renamed and removed as files are',
      run(dir) {
        posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
        posix.chmod(join(dir, 'fifo'), 0o622);
        posix.chown(join(dir, 'fifo'), 12, 34);
        posix.setTimes(join(dir, 'fifo'), 5n, 6n);
        posix.rename(join(dir, 'fifo'), join(dir, 'moved'));
        const { uid, gid, atimeNs, mtimeNs } = posix.lstat(join(dir, 'moved'));
        assert.deepEqual([modeOf(join(dir, 'moved')), uid, gid, atimeNs, mtimeNs], [0o622, 12, 34, 5n, 6n]);
        posix.unlink(join(dir, 'moved'));
        assert.deepEqual(namesIn(dir), []);
      },
    },
  ],
};
