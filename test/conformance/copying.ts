/** Copies made by the kernel: copy_file_range(2), and clones that share extents. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, type Subject, sizeOf, textOf, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_APPEND } = posix;

const BLOCK = 65536;

function bytesOf(name: string): Buffer {
  return Buffer.from(textOf(name), 'latin1');
}

/** Copies all of a range; the kernel may do it in pieces. */
function copyAll(from: number, fromOffset: number, to: number, toOffset: number, length: number): void {
  let done = 0;
  while (done < length) {
    const count = posix.copyFileRange(from, fromOffset + done, to, toOffset + done, length - done);
    assert.ok(count > 0, `nothing was copied at ${done}`);
    done += count;
  }
}

function withTwo(dir: string, content: Buffer, use: (from: number, to: number, target: string) => void): void {
  put(join(dir, 'from'), content);
  withFile(join(dir, 'from'), O_RDONLY, (from) => {
    withFile(join(dir, 'to'), O_CREAT | O_RDWR, (to) => use(from, to, join(dir, 'to')));
  });
}

const ranges: Subject['cases'] = [
  {
    name: 'a whole file is copied',
    run(dir) {
      const content = pattern(10 * BLOCK);
      withTwo(dir, content, (from, to, target) => {
        copyAll(from, 0, to, 0, content.length);
        assert.ok(bytesOf(target).equals(content));
      });
    },
  },
  {
    name: 'a range of odd bytes is copied into the middle of a file',
    run(dir) {
      const content = pattern(4 * BLOCK);
      withTwo(dir, content, (from, to, target) => {
        posix.write(to, Buffer.alloc(3 * BLOCK, 'x'));
        copyAll(from, 12_345, to, 54_321, 99_999);
        const expected = Buffer.alloc(3 * BLOCK, 'x');
        content.copy(expected, 54_321, 12_345, 12_345 + 99_999);
        assert.ok(bytesOf(target).equals(expected));
      });
    },
  },
  {
    name: 'a copy stops at the end of the source, and beyond it there is nothing to copy',
    run(dir) {
      withTwo(dir, Buffer.from('content'), (from, to, target) => {
        assert.equal(posix.copyFileRange(from, 3, to, 0, 1000), 4);
        assert.equal(posix.copyFileRange(from, 7, to, 0, 10), 0);
        assert.equal(posix.copyFileRange(from, 1000, to, 0, 10), 0);
        assert.equal(textOf(target), 'tent');
      });
    },
  },
  {
    name: 'a copy beyond the end of the target leaves zeros in between',
    run(dir) {
      withTwo(dir, Buffer.from('content'), (from, to, target) => {
        copyAll(from, 0, to, 10_000, 7);
        assert.equal(textOf(target), `${'\0'.repeat(10_000)}content`);
      });
    },
  },
  {
    name: 'a range is copied inside one file, but not onto itself',
    run(dir) {
      const content = pattern(2 * BLOCK);
      put(join(dir, 'file'), content);
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        copyAll(fd, 0, fd, 2 * BLOCK, BLOCK);
        fails('EINVAL', () => posix.copyFileRange(fd, 0, fd, 10, 1000));
      });
      assert.ok(bytesOf(join(dir, 'file')).equals(Buffer.concat([content, content.subarray(0, BLOCK)])));
    },
  },
  {
    name: 'what was just written, and not yet on the disk, is copied',
    run(dir) {
      withTwo(dir, pattern(4 * BLOCK), (from, to, target) => {
        withFile(join(dir, 'from'), O_WRONLY, (writer) => posix.write(writer, 'dirty', BLOCK));
        copyAll(from, 0, to, 0, 4 * BLOCK);
        const expected = pattern(4 * BLOCK);
        expected.write('dirty', BLOCK);
        assert.ok(bytesOf(target).equals(expected));
      });
    },
  },
  {
    name: 'a later change of either file leaves the other alone',
    run(dir) {
      const content = pattern(4 * BLOCK);
      withTwo(dir, content, (from, to, target) => {
        copyAll(from, 0, to, 0, content.length);
        posix.write(to, 'changed', 100);
        assert.ok(bytesOf(join(dir, 'from')).equals(content));
        withFile(join(dir, 'from'), O_WRONLY, (writer) => posix.write(writer, 'differently', 3 * BLOCK));
        const expected = Buffer.from(content);
        expected.write('changed', 100);
        assert.ok(bytesOf(target).equals(expected));
      });
    },
  },
  {
    name: 'a copy shows at once through open descriptors and mappings of the target',
    run(dir) {
      withTwo(dir, pattern(BLOCK), (from, to, target) => {
        posix.write(to, Buffer.alloc(BLOCK, 'x'));
        withFile(target, O_RDONLY, (reader) => {
          const address = posix.map(to, BLOCK);
          assert.equal(posix.peek(address, 100, 1).toString(), 'x');
          copyAll(from, 0, to, 0, BLOCK);
          assert.ok(posix.read(reader, BLOCK, 0).equals(pattern(BLOCK)));
          assert.ok(posix.peek(address, 0, BLOCK).equals(pattern(BLOCK)));
          posix.unmap(address);
        });
      });
    },
  },
  {
    name: 'a copy wants a source that reads, a target that writes and does not append, and files',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withTwo(dir, Buffer.from('content'), (from, to) => {
        fails('EBADF', () => posix.copyFileRange(from, 0, from, 100, 7));
        withFile(join(dir, 'file'), O_WRONLY, (writer) => {
          fails('EBADF', () => posix.copyFileRange(writer, 0, to, 0, 7));
        });
        withFile(join(dir, 'file'), O_WRONLY | O_APPEND, (appender) => {
          fails('EBADF', () => posix.copyFileRange(from, 0, appender, 0, 7));
        });
        withFile(dir, O_RDONLY, (directory) => {
          fails('EISDIR', () => posix.copyFileRange(directory, 0, to, 0, 7));
        });
      });
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'a sparse file is copied with equal content',
    run(dir) {
      const source = join(dir, 'from');
      put(source);
      withFile(source, O_RDWR, (from) => {
        posix.write(from, 'middle', 10 * BLOCK);
        posix.ftruncate(from, 20 * BLOCK);
        withFile(join(dir, 'to'), O_CREAT | O_WRONLY, (to) => copyAll(from, 0, to, 0, 20 * BLOCK));
      });
      assert.equal(sizeOf(join(dir, 'to')), 20 * BLOCK);
      assert.ok(bytesOf(join(dir, 'to')).equals(bytesOf(source)));
    },
  },
  {
    name: 'sendfile sends a range of a file into another file and into a fifo',
    run(dir) {
      const content = pattern(2 * BLOCK);
      withTwo(dir, content, (from, to, target) => {
        assert.equal(posix.sendFile(to, from, 100, BLOCK), BLOCK);
        assert.ok(bytesOf(target).equals(content.subarray(100, 100 + BLOCK)));
        posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
        withFile(join(dir, 'fifo'), O_RDWR, (fifo) => {
          assert.equal(posix.sendFile(fifo, from, 2 * BLOCK - 10, 100), 10);
          assert.ok(posix.read(fifo, 100).equals(content.subarray(-10)));
        });
      });
    },
  },
  {
    name: 'splice moves bytes from a file into a fifo and on into another file',
    run(dir) {
      const content = pattern(BLOCK / 2);
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      withTwo(dir, content, (from, to, target) => {
        withFile(join(dir, 'fifo'), O_RDWR, (fifo) => {
          let done = 0;
          while (done < content.length) {
            const count = posix.spliceOut(from, done, fifo, content.length - done);
            assert.equal(posix.spliceIn(fifo, to, 1000 + done, count), count);
            done += count;
          }
        });
        assert.ok(bytesOf(target).equals(Buffer.concat([Buffer.alloc(1000), content])));
      });
    },
  },
  {
    name: 'what is spliced into a fifo is what the file holds after a write, and not what it held',
    run(dir) {
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      put(join(dir, 'file'), 'before');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        withFile(join(dir, 'fifo'), O_RDWR, (fifo) => {
          assert.equal(posix.spliceOut(fd, 0, fifo, 100), 6);
          assert.equal(posix.read(fifo, 100).toString(), 'before');
          posix.write(fd, 'after!', 0);
          assert.equal(posix.spliceOut(fd, 0, fifo, 100), 6);
          assert.equal(posix.read(fifo, 100).toString(), 'after!');
        });
      });
    },
  },
  {
    name: 'cp copies, whether the filesystem shares extents or not',
    run(dir) {
      put(join(dir, 'from'), pattern(5 * BLOCK + 17));
      for (const reflink of ['auto', 'never']) {
        execFileSync('cp', [`--reflink=${reflink}`, join(dir, 'from'), join(dir, reflink)]);
        assert.ok(bytesOf(join(dir, reflink)).equals(pattern(5 * BLOCK + 17)), reflink);
      }
    },
  },
];

const clones: Subject['cases'] = [
  {
    name: 'a clone has the content of its source, to the last odd byte',
    run(dir) {
      for (const size of [0, 1, 4096, 100_001]) {
        put(join(dir, `${size}`), pattern(size));
        posix.reflink(join(dir, `${size}`), join(dir, `${size}.clone`));
        assert.ok(bytesOf(join(dir, `${size}.clone`)).equals(bytesOf(join(dir, `${size}`))));
        assert.equal(sizeOf(join(dir, `${size}.clone`)), size);
      }
    },
  },
  {
    name: 'a clone and its source change independently, by writes, cuts and mappings',
    run(dir) {
      const [one, two, three] = ['one', 'two', 'three'].map((name) => join(dir, name));
      assert.ok(one && two && three);
      const content = pattern(4 * BLOCK);
      put(one, content);
      posix.reflink(one, two);
      posix.reflink(two, three);
      withFile(one, O_RDWR, (fd) => posix.write(fd, 'changed', BLOCK));
      posix.truncate(two, 100);
      posix.truncate(two, 4 * BLOCK);
      withFile(three, O_RDWR, (fd) => {
        const address = posix.map(fd, 4 * BLOCK);
        posix.poke(address, 2 * BLOCK, 'stored');
        posix.unmap(address);
      });
      const expected = [Buffer.from(content), Buffer.alloc(4 * BLOCK), Buffer.from(content)] as const;
      expected[0].write('changed', BLOCK);
      content.copy(expected[1], 0, 0, 100);
      expected[2].write('stored', 2 * BLOCK);
      for (const [index, file] of [one, two, three].entries()) {
        assert.ok(bytesOf(file).equals(expected[index] ?? Buffer.alloc(0)), file);
      }
    },
  },
  {
    name: 'a clone holds what was written before, even if it is not on the disk yet',
    run(dir) {
      put(join(dir, 'from'), pattern(BLOCK));
      withFile(join(dir, 'from'), O_RDWR, (fd) => {
        posix.write(fd, 'dirty', 1000);
        posix.reflink(join(dir, 'from'), join(dir, 'to'));
        posix.write(fd, 'later', 1000);
      });
      assert.equal(textOf(join(dir, 'to')).slice(1000, 1005), 'dirty');
    },
  },
  {
    name: 'a clone outlives its source',
    run(dir) {
      put(join(dir, 'from'), pattern(4 * BLOCK));
      posix.reflink(join(dir, 'from'), join(dir, 'to'));
      posix.unlink(join(dir, 'from'));
      posix.dropPages(join(dir, 'to'));
      assert.ok(bytesOf(join(dir, 'to')).equals(pattern(4 * BLOCK)));
    },
  },
  {
    name: 'a clone replaces the content of an existing file, and leaves its attributes',
    run(dir) {
      put(join(dir, 'from'), pattern(BLOCK));
      put(join(dir, 'to'), Buffer.alloc(BLOCK / 2, 'x'), 0o640);
      posix.setXattr(join(dir, 'to'), 'user.name', 'value');
      withFile(join(dir, 'from'), O_RDONLY, (from) => {
        withFile(join(dir, 'to'), O_RDWR, (to) => {
          assert.equal(posix.read(to, 1, 0).toString(), 'x');
          posix.reflinkDescriptor(from, to);
          assert.ok(posix.read(to, BLOCK, 0).equals(pattern(BLOCK)));
        });
      });
      assert.equal(posix.stat(join(dir, 'to')).mode & 0o777, 0o640);
      assert.equal(posix.getXattr(join(dir, 'to'), 'user.name').toString(), 'value');
    },
  },
  {
    name: 'a range of blocks is cloned to another offset',
    run(dir) {
      const content = pattern(4 * BLOCK);
      withTwo(dir, content, (from, to, target) => {
        posix.write(to, Buffer.alloc(4 * BLOCK, 'x'));
        posix.reflinkRange(from, BLOCK, 2 * BLOCK, to, 0);
        const expected = Buffer.alloc(4 * BLOCK, 'x');
        content.copy(expected, 0, BLOCK, 3 * BLOCK);
        assert.ok(bytesOf(target).equals(expected));
      });
    },
  },
  {
    name: 'ranges that are no blocks are not cloned, nor onto themselves, nor what is no file',
    run(dir) {
      withTwo(dir, pattern(4 * BLOCK), (from, to) => {
        fails('EINVAL', () => posix.reflinkRange(from, 100, BLOCK, to, 0));
        fails('EINVAL', () => posix.reflinkRange(from, 0, BLOCK, to, 100));
        fails('EINVAL', () => posix.reflinkRange(from, 0, 100, to, 0));
        fails('EBADF', () => posix.reflinkRange(to, 0, BLOCK, from, 0));
        withFile(dir, O_RDONLY, (directory) => fails('EISDIR', () => posix.reflinkDescriptor(directory, to)));
        assert.equal(posix.fstat(to).size, 0);
      });
      withFile(join(dir, 'from'), O_RDWR, (fd) => fails('EINVAL', () => posix.reflinkRange(fd, 0, BLOCK, fd, 0)));
    },
  },
  {
    name: 'FALLOC_FL_UNSHARE_RANGE leaves the content of clone and source',
    needs: ['unshare-range'],
    run(dir) {
      put(join(dir, 'from'), pattern(4 * BLOCK));
      posix.reflink(join(dir, 'from'), join(dir, 'to'));
      withFile(join(dir, 'to'), O_RDWR, (fd) => posix.fallocate(fd, posix.FALLOC_FL_UNSHARE_RANGE, 0, 4 * BLOCK));
      for (const name of ['from', 'to']) assert.ok(bytesOf(join(dir, name)).equals(pattern(4 * BLOCK)));
    },
  },
  {
    name: 'cp --reflink=always clones',
    run(dir) {
      put(join(dir, 'from'), pattern(BLOCK));
      execFileSync('cp', ['--reflink=always', join(dir, 'from'), join(dir, 'to')]);
      assert.ok(bytesOf(join(dir, 'to')).equals(pattern(BLOCK)));
    },
  },
];

export const copying: Subject = {
  subject: 'copying',
  cases: [
    ...ranges,
    ...clones.map((one): Subject['cases'][number] => ({ ...one, needs: ['reflink', ...(one.needs ?? [])] })),
  ],
};
