/** Reading, writing and cutting: what is in a file, at which offset, and who sees it when. */

import assert from 'node:assert/strict';
import { readvSync, writevSync } from 'node:fs';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, type Subject, sizeOf, textOf, whileOpen, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, SEEK_SET, SEEK_CUR, SEEK_END } = posix;
const MIB = 1 << 20;

/** A generator of the same numbers on every run: a linear congruence modulo 2^31. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return Math.floor((state / 0x80000000) * below);
  };
}

const reading: Subject['cases'] = [
  {
    name: 'a read ends at the end of the file, and beyond it there is nothing',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        assert.equal(posix.read(fd, 100).toString(), 'content');
        assert.equal(posix.read(fd, 100).length, 0);
        assert.equal(posix.read(fd, 100, 5).toString(), 'nt');
        assert.equal(posix.read(fd, 100, 7).length, 0);
        assert.equal(posix.read(fd, 100, 1_000_000).length, 0);
      });
    },
  },
  {
    name: 'pread and pwrite leave the position, read and write move it',
    run(dir) {
      put(join(dir, 'file'), '0123456789');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.read(fd, 3);
        posix.read(fd, 3, 6);
        posix.write(fd, 'x', 9);
        assert.equal(posix.seek(fd, 0, SEEK_CUR), 3);
        posix.write(fd, 'yz');
        assert.equal(posix.seek(fd, 0, SEEK_CUR), 5);
        assert.equal(posix.read(fd, 100).toString(), '5678x');
      });
      assert.equal(textOf(join(dir, 'file')), '012yz5678x');
    },
  },
  {
    name: 'duplicated descriptors share one position, separately opened ones have their own',
    run(dir) {
      put(join(dir, 'file'), '0123456789');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        const copy = posix.dup(fd);
        withFile(join(dir, 'file'), O_RDONLY, (other) => {
          assert.equal(posix.read(fd, 3).toString(), '012');
          assert.equal(posix.read(copy, 3).toString(), '345');
          assert.equal(posix.read(other, 3).toString(), '012');
        });
        posix.close(copy);
        assert.equal(posix.read(fd, 3).toString(), '678');
      });
    },
  },
  {
    name: 'the position may be set from the start, from itself and from the end, but not below zero',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        assert.equal(posix.seek(fd, 2, SEEK_SET), 2);
        assert.equal(posix.seek(fd, 2, SEEK_CUR), 4);
        assert.equal(posix.seek(fd, -1, SEEK_END), 6);
        assert.equal(posix.seek(fd, 100, SEEK_END), 107);
        fails('EINVAL', () => posix.seek(fd, -1, SEEK_SET));
        fails('EINVAL', () => posix.seek(fd, -8, SEEK_END));
        fails('EINVAL', () => posix.seek(fd, 0, 99));
        assert.equal(posix.seek(fd, 0, SEEK_CUR), 107);
      });
    },
  },
  {
    name: 'SEEK_END follows a file that another descriptor grows',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (reader) => {
        assert.equal(posix.seek(reader, 0, SEEK_END), 7);
        withFile(join(dir, 'file'), O_WRONLY | posix.O_APPEND, (writer) => {
          posix.write(writer, ' grows');
          assert.equal(posix.read(reader, 100).toString(), ' grows');
          assert.equal(posix.seek(reader, 0, SEEK_END), 13);
        });
      });
    },
  },
  {
    name: 'reads and writes of several buffers are one read and one write',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        assert.equal(writevSync(fd, [Buffer.from('one'), Buffer.alloc(0), Buffer.from('three')], 4), 8);
        const [first, second] = [Buffer.alloc(5), Buffer.alloc(10)];
        assert.equal(readvSync(fd, [first, second], 0), 12);
        assert.equal(`${first}${second.toString('latin1', 0, 7)}`, '\0\0\0\0onethree');
      });
    },
  },
  {
    name: 'an empty file is read as empty, by read, by pread and through a copy',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        assert.equal(posix.read(fd, 10).length, 0);
        assert.equal(posix.read(fd, 10, 0).length, 0);
        assert.equal(posix.copyFileRange(fd, 0, fd, 100, 10), 0);
        assert.equal(posix.fstat(fd).size, 0);
      });
    },
  },
];

const writing: Subject['cases'] = [
  {
    name: 'what one descriptor writes the others read at once',
    run(dir) {
      put(join(dir, 'file'), 'old content');
      withFile(join(dir, 'file'), O_RDONLY, (reader) => {
        withFile(join(dir, 'file'), O_RDWR, (writer) => {
          for (const text of ['new', 'NEW', 'now']) {
            posix.write(writer, text, 0);
            assert.equal(posix.read(reader, 11, 0).toString(), `${text} content`);
          }
        });
      });
    },
  },
  {
    name: 'what another process writes is read here at once, and the other way round',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'ping 0');
      const other = asUser(root);
      const theirs = await other.call('open', file, O_RDWR);
      await whileOpen(file, O_RDWR, async (fd) => {
        for (let round = 0; round < 20; round++) {
          posix.write(fd, `ping ${round}\n`, 0);
          assert.equal((await other.call('read', theirs, 100, 0)).toString(), `ping ${round}\n`);
          await other.call('write', theirs, `pong ${round}\n`, 0);
          assert.equal(posix.read(fd, 100, 0).toString(), `pong ${round}\n`);
        }
      });
      await other.call('close', theirs);
    },
  },
  {
    name: 'the size grows with each write, for every descriptor and by name',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      withFile(file, O_RDONLY, (reader) => {
        withFile(file, O_WRONLY, (writer) => {
          for (let size = 1000; size <= 10_000; size += 1000) {
            posix.write(writer, Buffer.alloc(1000, 'x'));
            assert.deepEqual([posix.fstat(reader).size, posix.fstat(writer).size, sizeOf(file)], [size, size, size]);
          }
        });
      });
    },
  },
  {
    name: 'a write beyond the end leaves zeros in between',
    run(dir) {
      put(join(dir, 'file'), 'start');
      withFile(join(dir, 'file'), O_WRONLY, (fd) => posix.write(fd, 'end', 100_000));
      assert.equal(textOf(join(dir, 'file')), `start${'\0'.repeat(99_995)}end`);
    },
  },
  {
    name: 'a write of nothing changes nothing, also beyond the end',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_WRONLY, (fd) => assert.equal(posix.write(fd, '', 1000), 0));
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'many writes and cuts at odd places give what a buffer in memory gives',
    run(dir) {
      const next = numbers(1);
      let model = Buffer.alloc(0);
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        for (let round = 0; round < 300; round++) {
          const at = next(200_000);
          const length = 1 + next(20_000);
          if (next(6) === 0) {
            posix.ftruncate(fd, at);
            model = Buffer.concat([model.subarray(0, at), Buffer.alloc(Math.max(0, at - model.length))]);
          } else {
            const bytes = pattern(length + 4, round).subarray(0, length);
            posix.write(fd, bytes, at);
            const grown = Buffer.alloc(Math.max(model.length, at + length));
            model.copy(grown);
            bytes.copy(grown, at);
            model = grown;
          }
          const from = next(220_000);
          assert.ok(posix.read(fd, 15_000, from).equals(model.subarray(from, from + 15_000)), `round ${round}`);
        }
      });
      assert.ok(Buffer.from(textOf(join(dir, 'file')), 'latin1').equals(model));
    },
  },
  {
    name: 'three megabytes come back as they were written, in pieces of any size',
    run(dir) {
      const content = pattern(3 * MIB);
      const file = join(dir, 'file');
      put(file, content);
      withFile(file, O_RDONLY, (fd) => {
        for (const piece of [1 << 18, 65536, 40_961]) {
          for (let at = 0; at < content.length; at += piece) {
            assert.ok(posix.read(fd, piece, at).equals(content.subarray(at, at + piece)), `${piece} at ${at}`);
          }
        }
      });
    },
  },
];

const cutting: Subject['cases'] = [
  {
    name: 'a file cut and grown again has zeros where it was cut',
    run(dir) {
      const file = join(dir, 'file');
      for (const cut of [0, 1, 4095, 4096, 4097, 9999]) {
        put(file, Buffer.alloc(10_000, 'x'));
        posix.truncate(file, cut);
        assert.equal(sizeOf(file), cut);
        posix.truncate(file, 10_000);
        assert.equal(textOf(file), 'x'.repeat(cut) + '\0'.repeat(10_000 - cut));
        posix.unlink(file);
      }
    },
  },
  {
    name: 'a cut by name shows at once through open descriptors',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        assert.equal(posix.read(fd, 5).toString(), 'conte');
        posix.truncate(join(dir, 'file'), 3);
        assert.equal(posix.fstat(fd).size, 3);
        assert.equal(posix.read(fd, 5).length, 0);
        assert.equal(posix.read(fd, 5, 0).toString(), 'con');
        posix.write(fd, 'X');
        assert.equal(textOf(join(dir, 'file')), 'con\0\0X');
      });
    },
  },
  {
    name: 'a cut by another process shows here at once',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, Buffer.alloc(20_000, 'x'));
      await whileOpen(file, O_RDONLY, async (fd) => {
        assert.equal(posix.read(fd, 20_000, 0).length, 20_000);
        await asUser(root).call('truncate', file, 5000);
        assert.equal(posix.fstat(fd).size, 5000);
        assert.equal(posix.read(fd, 20_000, 0).length, 5000);
        await asUser(root).call('truncate', file, 6000);
        assert.equal(posix.read(fd, 20_000, 0).toString('latin1'), 'x'.repeat(5000) + '\0'.repeat(1000));
      });
    },
  },
  {
    name: 'a file may be grown to a terabyte without taking space',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      posix.truncate(file, 2 ** 40);
      assert.equal(sizeOf(file), 2 ** 40);
      assert.ok(posix.stat(file).blocks < 100);
      withFile(file, O_RDWR, (fd) => {
        posix.write(fd, 'end', 2 ** 40 - 3);
        assert.equal(posix.read(fd, 10, 2 ** 40 - 5).toString(), '\0\0end');
        assert.equal(posix.read(fd, 4, 2 ** 39).toString(), '\0\0\0\0');
      });
      assert.ok(posix.stat(file).blocks < 200);
    },
  },
  {
    name: 'sizes below zero are refused, and so is cutting what is no file',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      fails('EINVAL', () => posix.truncate(join(dir, 'file'), -1));
      fails('EISDIR', () => posix.truncate(dir, 0));
      fails('EINVAL', () => posix.truncate(join(dir, 'fifo'), 0));
      fails('ENOENT', () => posix.truncate(join(dir, 'missing'), 0));
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'cutting to the same size keeps the content',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.truncate(join(dir, 'file'), 7);
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
];

const flushing: Subject['cases'] = [
  {
    name: 'fsync and fdatasync take descriptors of files and directories, also read-only ones',
    run(dir) {
      put(join(dir, 'file'), 'content');
      for (const [name, flags] of [
        ['file', O_RDWR],
        ['file', O_RDONLY],
        ['.', O_RDONLY | posix.O_DIRECTORY],
      ] as const) {
        withFile(join(dir, name), flags, (fd) => {
          posix.fsync(fd);
          posix.fdatasync(fd);
        });
      }
    },
  },
  {
    name: 'a file can be written and synced again and again',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        for (let round = 0; round < 10; round++) {
          posix.write(fd, `${round}`);
          posix.fdatasync(fd);
        }
        posix.fsync(fd);
        assert.equal(posix.read(fd, 20, 0).toString(), '0123456789');
      });
    },
  },
  {
    name: 'what was synced is read back from the disk after its pages were dropped',
    run(dir) {
      const content = pattern(200_000);
      put(join(dir, 'file'), content);
      posix.dropPages(join(dir, 'file'));
      assert.ok(Buffer.from(textOf(join(dir, 'file')), 'latin1').equals(content));
    },
  },
];

export const content: Subject = { subject: 'content', cases: [...reading, ...writing, ...cutting, ...flushing] };
