/** Holes and preallocation: lseek(2) with SEEK_DATA and SEEK_HOLE, and fallocate(2). */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, type Subject, sizeOf, textOf, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, SEEK_SET, SEEK_CUR, SEEK_DATA, SEEK_HOLE } = posix;
const { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } = posix;

/** A multiple of every block size here. */
const BLOCK = 65536;
const MIB = 1 << 20;

/** A file of four blocks without holes, that is already on the disk. */
function withBlocks(dir: string, use: (fd: number, content: Buffer) => void): void {
  const content = pattern(4 * BLOCK, 1);
  put(join(dir, 'file'), content);
  withFile(join(dir, 'file'), O_RDWR, (fd) => {
    posix.fsync(fd);
    use(fd, content);
  });
}

function wholeOf(fd: number): Buffer {
  return posix.read(fd, 4 * BLOCK, 0);
}

/** The content with zeros in a range. */
function zeroed(content: Buffer, from: number, to: number): Buffer {
  return Buffer.from(content).fill(0, from, to);
}

const seeking: Subject['cases'] = [
  {
    name: 'SEEK_DATA and SEEK_HOLE find where the data is',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        posix.write(fd, Buffer.alloc(BLOCK, 'x'), MIB);
        posix.write(fd, Buffer.alloc(BLOCK, 'y'), 4 * MIB);
        posix.ftruncate(fd, 8 * MIB);
        assert.equal(posix.seek(fd, 0, SEEK_HOLE), 0);
        assert.equal(posix.seek(fd, 0, SEEK_DATA), MIB);
        assert.equal(posix.seek(fd, MIB, SEEK_HOLE), MIB + BLOCK);
        assert.equal(posix.seek(fd, MIB + 10, SEEK_DATA), MIB + 10);
        assert.equal(posix.seek(fd, MIB + BLOCK, SEEK_DATA), 4 * MIB);
        assert.equal(posix.seek(fd, 2 * MIB, SEEK_HOLE), 2 * MIB);
        fails('ENXIO', () => posix.seek(fd, 4 * MIB + BLOCK, SEEK_DATA));
        assert.equal(posix.seek(fd, 4 * MIB + BLOCK, SEEK_HOLE), 4 * MIB + BLOCK);
      });
    },
  },
  {
    name: 'a file without holes has one at its end',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        assert.equal(posix.seek(fd, 0, SEEK_HOLE), 7);
        assert.equal(posix.seek(fd, 3, SEEK_DATA), 3);
      });
    },
  },
  {
    name: 'at and beyond the end there is neither data nor hole',
    run(dir) {
      put(join(dir, 'file'), 'content');
      put(join(dir, 'empty'));
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        for (const whence of [SEEK_DATA, SEEK_HOLE]) {
          fails('ENXIO', () => posix.seek(fd, 7, whence));
          fails('ENXIO', () => posix.seek(fd, 1000, whence));
        }
      });
      withFile(join(dir, 'empty'), O_RDONLY, (fd) => fails('ENXIO', () => posix.seek(fd, 0, SEEK_DATA)));
    },
  },
  {
    name: 'SEEK_DATA and SEEK_HOLE set the position',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        posix.write(fd, 'data', MIB);
        posix.seek(fd, 0, SEEK_DATA);
        assert.equal(posix.seek(fd, 0, SEEK_CUR), MIB);
        assert.equal(posix.read(fd, 10).toString(), 'data');
        posix.seek(fd, MIB, SEEK_SET);
        fails('ENXIO', () => posix.seek(fd, 2 * MIB, SEEK_DATA));
        assert.equal(posix.seek(fd, 0, SEEK_CUR), MIB);
      });
    },
  },
  {
    name: 'a hole takes no space and reads as zeros',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        posix.write(fd, 'data', 64 * MIB);
        posix.fsync(fd);
        assert.ok(posix.fstat(fd).blocks * 512 < MIB);
        assert.ok(posix.read(fd, 65536, 30 * MIB).every((byte) => byte === 0));
      });
      assert.equal(sizeOf(join(dir, 'file')), 64 * MIB + 4);
    },
  },
];

const allocating: Subject['cases'] = [
  {
    name: 'a preallocation grows the file with zeros and takes its space',
    needs: ['preallocation'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.fallocate(fd, 0, BLOCK, MIB);
        posix.fsync(fd);
        assert.equal(posix.fstat(fd).size, BLOCK + MIB);
        assert.ok(posix.fstat(fd).blocks * 512 >= MIB);
        assert.equal(posix.read(fd, 9, 0).toString(), 'content\0\0');
        assert.ok(posix.read(fd, BLOCK, BLOCK + MIB - BLOCK).every((byte) => byte === 0));
      });
    },
  },
  {
    name: 'a preallocation over data leaves the data',
    needs: ['preallocation'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, 0, 0, 2 * BLOCK);
        assert.ok(wholeOf(fd).equals(content));
        assert.equal(posix.fstat(fd).size, content.length);
      });
    },
  },
  {
    name: 'FALLOC_FL_KEEP_SIZE takes space beyond the end without growing the file',
    needs: ['preallocation'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, MIB);
        assert.equal(posix.fstat(fd).size, 7);
        assert.ok(posix.fstat(fd).blocks * 512 >= MIB);
        assert.equal(posix.read(fd, 100, 0).toString(), 'content');
        posix.write(fd, 'end', 1000);
        assert.equal(posix.fstat(fd).size, 1003);
      });
    },
  },
  {
    name: 'a punched hole reads as zeros, gives its space back, and leaves the size',
    needs: ['punch-hole'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        const { blocks } = posix.fstat(fd);
        posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, 2 * BLOCK);
        posix.fsync(fd);
        assert.ok(wholeOf(fd).equals(zeroed(content, BLOCK, 3 * BLOCK)));
        assert.equal(posix.fstat(fd).size, content.length);
        assert.equal(posix.fstat(fd).blocks, blocks - (2 * BLOCK) / 512);
        assert.equal(posix.seek(fd, 0, SEEK_HOLE), BLOCK);
        assert.equal(posix.seek(fd, BLOCK, SEEK_DATA), 3 * BLOCK);
      });
    },
  },
  {
    name: 'a hole that starts and ends inside blocks zeroes exactly its bytes',
    needs: ['punch-hole'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 5);
        posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK - 7, BLOCK + 20);
        const expected = zeroed(zeroed(content, 100, 105), BLOCK - 7, 2 * BLOCK + 13);
        assert.ok(wholeOf(fd).equals(expected));
      });
    },
  },
  {
    name: 'a hole punched over the end does not grow the file',
    needs: ['punch-hole'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * BLOCK, 10 * BLOCK);
        assert.equal(posix.fstat(fd).size, content.length);
        assert.ok(wholeOf(fd).equals(zeroed(content, 3 * BLOCK, 4 * BLOCK)));
      });
    },
  },
  {
    name: 'a punched hole shows at once through other descriptors and mappings',
    needs: ['punch-hole'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        withFile(join(dir, 'file'), O_RDONLY, (reader) => {
          const address = posix.map(fd, content.length);
          assert.ok(posix.peek(address, 0, content.length).equals(content));
          posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK);
          const expected = zeroed(content, BLOCK, 2 * BLOCK);
          assert.ok(wholeOf(reader).equals(expected));
          assert.ok(posix.peek(address, 0, content.length).equals(expected));
          posix.unmap(address);
        });
      });
    },
  },
  {
    name: 'FALLOC_FL_ZERO_RANGE zeroes, and grows the file unless it must not',
    needs: ['zero-range'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, FALLOC_FL_ZERO_RANGE, BLOCK + 3, BLOCK);
        assert.ok(wholeOf(fd).equals(zeroed(content, BLOCK + 3, 2 * BLOCK + 3)));
        posix.fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 3 * BLOCK, 2 * BLOCK);
        assert.equal(posix.fstat(fd).size, 4 * BLOCK);
        posix.fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * BLOCK, 2 * BLOCK);
        assert.equal(posix.fstat(fd).size, 5 * BLOCK);
        const expected = zeroed(zeroed(content, BLOCK + 3, 2 * BLOCK + 3), 3 * BLOCK, 4 * BLOCK);
        assert.ok(wholeOf(fd).equals(expected));
      });
    },
  },
  {
    name: 'FALLOC_FL_COLLAPSE_RANGE takes a range out and closes the gap',
    needs: ['collapse-range'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, posix.FALLOC_FL_COLLAPSE_RANGE, BLOCK, BLOCK);
        assert.equal(posix.fstat(fd).size, 3 * BLOCK);
        const expected = Buffer.concat([content.subarray(0, BLOCK), content.subarray(2 * BLOCK)]);
        assert.ok(wholeOf(fd).equals(expected));
      });
    },
  },
  {
    name: 'FALLOC_FL_INSERT_RANGE moves what is behind it away and leaves zeros',
    needs: ['insert-range'],
    run(dir) {
      withBlocks(dir, (fd, content) => {
        posix.fallocate(fd, posix.FALLOC_FL_INSERT_RANGE, BLOCK, BLOCK);
        assert.equal(posix.fstat(fd).size, 5 * BLOCK);
        const expected = Buffer.concat([content.subarray(0, BLOCK), Buffer.alloc(BLOCK), content.subarray(BLOCK)]);
        assert.ok(posix.read(fd, 4 * BLOCK, 0).equals(expected.subarray(0, 4 * BLOCK)));
        assert.ok(posix.read(fd, BLOCK, 4 * BLOCK).equals(expected.subarray(4 * BLOCK)));
      });
    },
  },
  {
    name: 'a range must have a length, a start, a known mode, and a descriptor that writes',
    needs: ['preallocation'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        fails('EINVAL', () => posix.fallocate(fd, 0, 0, 0));
        fails('EINVAL', () => posix.fallocate(fd, 0, -1, 10));
        fails('EINVAL', () => posix.fallocate(fd, 0, 0, -1));
        fails('EOPNOTSUPP', () => posix.fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
        fails('EOPNOTSUPP', () => posix.fallocate(fd, 0x8000, 0, 10));
        fails('EFBIG', () => posix.fallocate(fd, 0, 2 ** 62, 2 ** 62));
      });
      withFile(join(dir, 'file'), O_RDONLY, (fd) => fails('EBADF', () => posix.fallocate(fd, 0, 0, 10)));
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'preallocated space may be written and cut like any other',
    needs: ['preallocation'],
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_WRONLY, (fd) => {
        posix.fallocate(fd, 0, 0, MIB);
        posix.write(fd, 'middle', MIB / 2);
        posix.ftruncate(fd, MIB / 2 + 3);
        posix.ftruncate(fd, MIB / 2 + 6);
      });
      assert.equal(textOf(join(dir, 'file')).slice(MIB / 2 - 1), '\0mid\0\0\0');
    },
  },
];

export const sparse: Subject = { subject: 'sparse', cases: [...seeking, ...allocating] };
