/** Mapped files: mmap(2), and its agreement with read and write. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { asUser, OtherProcess, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, type Subject, textOf, whileOpen, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE } = posix;

const PAGE = 4096;

/** Maps a whole file through a descriptor, for the duration of the use. */
function withMapping(fd: number, length: number, use: (address: number) => void): void {
  const address = posix.map(fd, length);
  try {
    use(address);
  } finally {
    posix.unmap(address);
  }
}

/** Asserts that a process which reads one mapped byte dies of SIGBUS. */
async function diesOfSigbus(file: string, length: number, at: number, before: () => void): Promise<void> {
  const other = new OtherProcess(root);
  try {
    const fd = await other.call('open', file, O_RDWR);
    const address = await other.call('map', fd, length);
    before();
    await assert.rejects(other.call('peek', address, at, 1), /ended: SIGBUS/);
    assert.equal((await other.ended).signal, 'SIGBUS');
  } finally {
    await other.stop();
  }
}

const coherent: Subject['cases'] = [
  {
    name: 'a shared mapping shows what is written, and read shows what is stored in it',
    run(dir) {
      put(join(dir, 'file'), pattern(4 * PAGE));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        withMapping(fd, 4 * PAGE, (address) => {
          assert.ok(posix.peek(address, 0, 4 * PAGE).equals(pattern(4 * PAGE)));
          posix.write(fd, 'written', PAGE - 3);
          assert.equal(posix.peek(address, PAGE - 3, 7).toString(), 'written');
          posix.poke(address, 2 * PAGE - 2, 'stored');
          assert.equal(posix.read(fd, 6, 2 * PAGE - 2).toString(), 'stored');
        });
      });
      assert.equal(textOf(join(dir, 'file')).slice(2 * PAGE - 2, 2 * PAGE + 4), 'stored');
    },
  },
  {
    name: 'what is stored in a mapping is read through other descriptors, before it is written back',
    run(dir) {
      put(join(dir, 'file'), Buffer.alloc(2 * PAGE, 'x'));
      withFile(join(dir, 'file'), O_RDONLY, (reader) => {
        assert.equal(posix.read(reader, 3, 0).toString(), 'xxx');
        withFile(join(dir, 'file'), O_RDWR, (fd) => {
          withMapping(fd, 2 * PAGE, (address) => {
            for (const text of ['one', 'two']) {
              posix.poke(address, 0, text);
              assert.equal(posix.read(reader, 3, 0).toString(), text);
            }
          });
        });
        assert.equal(posix.read(reader, 3, 0).toString(), 'two');
      });
    },
  },
  {
    name: 'mappings of two processes are one memory',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, Buffer.alloc(PAGE));
      const other = asUser(root);
      const theirs = await other.call('open', file, O_RDWR);
      const theirAddress = await other.call('map', theirs, PAGE);
      await whileOpen(file, O_RDWR, async (fd) => {
        const address = posix.map(fd, PAGE);
        for (let round = 0; round < 10; round++) {
          posix.poke(address, 0, `ours ${round}`);
          assert.equal((await other.call('peek', theirAddress, 0, 6)).toString(), `ours ${round}`);
          await other.call('poke', theirAddress, 100, `theirs ${round}`);
          assert.equal(posix.peek(address, 100, 8).toString(), `theirs ${round}`);
        }
        posix.unmap(address);
      });
      await other.call('unmap', theirAddress);
      await other.call('close', theirs);
    },
  },
  {
    name: 'a mapping shows what another process writes',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, Buffer.alloc(PAGE));
      const other = asUser(root);
      const theirs = await other.call('open', file, O_WRONLY);
      await whileOpen(file, O_RDONLY, async (fd) => {
        const address = posix.map(fd, PAGE, PROT_READ);
        for (let round = 0; round < 10; round++) {
          await other.call('write', theirs, `round ${round}`, 50);
          assert.equal(posix.peek(address, 50, 7).toString(), `round ${round}`);
        }
        posix.unmap(address);
      });
      await other.call('close', theirs);
    },
  },
  {
    name: 'a private mapping keeps its stores to itself',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        const address = posix.map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
        posix.poke(address, 0, 'CON');
        assert.equal(posix.peek(address, 0, 7).toString(), 'CONtent');
        assert.equal(posix.read(fd, 7).toString(), 'content');
        posix.unmap(address);
      });
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'a mapping stays when the descriptor is closed, and when the file is unlinked',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      const fd = posix.open(file, O_RDWR);
      const address = posix.map(fd, PAGE);
      posix.close(fd);
      posix.poke(address, 0, 'CON');
      assert.equal(textOf(file), 'CONtent');
      posix.unlink(file);
      posix.poke(address, 3, 'TENT');
      assert.equal(posix.peek(address, 0, 7).toString(), 'CONTENT');
      posix.unmap(address);
    },
  },
  {
    name: 'stores through a mapping are in the file after it is unmapped, synced and dropped',
    run(dir) {
      const file = join(dir, 'file');
      withFile(file, O_CREAT | O_RDWR, (fd) => {
        posix.ftruncate(fd, 16 * PAGE);
        withMapping(fd, 16 * PAGE, (address) => {
          posix.poke(address, 0, pattern(16 * PAGE, 2));
          posix.syncMapping(address);
        });
      });
      posix.dropPages(file);
      assert.ok(Buffer.from(textOf(file), 'latin1').equals(pattern(16 * PAGE, 2)));
    },
  },
  {
    name: 'a mapping may start inside the file',
    run(dir) {
      put(join(dir, 'file'), pattern(4 * PAGE));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        const address = posix.map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 2 * PAGE);
        assert.ok(posix.peek(address, 0, PAGE).equals(pattern(4 * PAGE).subarray(2 * PAGE, 3 * PAGE)));
        posix.poke(address, 0, 'here');
        posix.unmap(address);
        assert.equal(posix.read(fd, 4, 2 * PAGE).toString(), 'here');
        fails('EINVAL', () => posix.map(fd, PAGE, PROT_READ, MAP_SHARED, 100));
      });
    },
  },
];

const bounds: Subject['cases'] = [
  {
    name: 'behind the end of the file its last page is zero, and stores there are lost',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      withFile(file, O_RDWR, (fd) => {
        withMapping(fd, PAGE, (address) => {
          assert.ok(posix.peek(address, 7, PAGE - 7).every((byte) => byte === 0));
          posix.poke(address, 7, 'beyond');
          posix.syncMapping(address);
        });
        assert.equal(posix.fstat(fd).size, 7);
        posix.ftruncate(fd, 20);
        assert.equal(posix.read(fd, 20, 0).toString('latin1'), `content${'\0'.repeat(13)}`);
      });
    },
  },
  {
    name: 'a page behind the last one is SIGBUS',
    async run(dir) {
      put(join(dir, 'file'), 'content');
      await diesOfSigbus(join(dir, 'file'), 2 * PAGE, PAGE, () => undefined);
    },
  },
  {
    name: 'a page that was cut off is SIGBUS',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, pattern(4 * PAGE));
      await diesOfSigbus(file, 4 * PAGE, 3 * PAGE, () => posix.truncate(file, PAGE));
    },
  },
  {
    name: 'a mapping that is longer than the file shows what the file grows by',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        withMapping(fd, 4 * PAGE, (address) => {
          posix.ftruncate(fd, 4 * PAGE);
          posix.write(fd, 'grown', 3 * PAGE);
          assert.equal(posix.peek(address, 3 * PAGE, 5).toString(), 'grown');
          posix.poke(address, 2 * PAGE, 'stored');
          assert.equal(posix.read(fd, 6, 2 * PAGE).toString(), 'stored');
        });
      });
    },
  },
  {
    name: 'a mapping shows zeros where the file was cut and grown again',
    run(dir) {
      put(join(dir, 'file'), pattern(4 * PAGE));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        withMapping(fd, 4 * PAGE, (address) => {
          posix.peek(address, 0, 4 * PAGE);
          posix.ftruncate(fd, PAGE + 100);
          posix.ftruncate(fd, 4 * PAGE);
          assert.ok(posix.peek(address, PAGE + 100, 3 * PAGE - 100).every((byte) => byte === 0));
          assert.ok(posix.peek(address, 0, PAGE + 100).equals(pattern(4 * PAGE).subarray(0, PAGE + 100)));
        });
      });
    },
  },
  {
    name: 'a hole is mapped as zeros, and storing into it fills it',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_RDWR, (fd) => {
        posix.ftruncate(fd, 1 << 20);
        withMapping(fd, 1 << 20, (address) => {
          assert.equal(posix.peek(address, 500_000, 1)[0], 0);
          posix.poke(address, 600_000, 'filled');
        });
        posix.fsync(fd);
        assert.equal(posix.read(fd, 6, 600_000).toString(), 'filled');
        assert.ok(posix.fstat(fd).blocks > 0);
      });
    },
  },
  {
    name: 'a mapping allows no more than the descriptor does',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        fails('EACCES', () => posix.map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED));
        posix.unmap(posix.map(fd, PAGE, PROT_READ | posix.PROT_EXEC, MAP_PRIVATE));
      });
      withFile(join(dir, 'file'), O_WRONLY, (fd) => {
        fails('EACCES', () => posix.map(fd, PAGE, PROT_READ, MAP_SHARED));
        fails('EACCES', () => posix.map(fd, PAGE, PROT_WRITE, MAP_SHARED));
      });
      withFile(join(dir, 'file'), O_RDWR | posix.O_APPEND, (fd) => posix.unmap(posix.map(fd, PAGE)));
    },
  },
  {
    name: 'a directory is not mapped, nor a length of zero',
    run(dir) {
      withFile(dir, O_RDONLY, (fd) => fails('ENODEV', () => posix.map(fd, PAGE, PROT_READ)));
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDONLY, (fd) => fails('EINVAL', () => posix.map(fd, 0, PROT_READ)));
    },
  },
  {
    name: 'a file is written from a mapping of itself, and read into one, without a deadlock',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, pattern(8 * PAGE));
      const other = asUser(root);
      const fd = await other.call('open', file, O_RDWR);
      const address = await other.call('map', fd, 8 * PAGE);
      // The pages are dropped, so that the kernel meets the page fault inside of the write.
      posix.dropPages(file);
      assert.equal(await other.call('writeMapped', fd, 0, address, 4 * PAGE, PAGE), PAGE);
      posix.dropPages(file);
      assert.equal(await other.call('readMapped', fd, 5 * PAGE, address, 6 * PAGE, PAGE), PAGE);
      await other.call('unmap', address);
      await other.call('close', fd);
      const content = pattern(8 * PAGE);
      const expected = Buffer.from(content);
      content.copy(expected, 0, 4 * PAGE, 5 * PAGE);
      content.copy(expected, 6 * PAGE, 5 * PAGE, 6 * PAGE);
      assert.ok(Buffer.from(textOf(file), 'latin1').equals(expected));
    },
  },
];

export const mappings: Subject = { subject: 'mappings', cases: [...coherent, ...bounds] };
