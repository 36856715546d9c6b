/**
 * A file on the shared route is changed, in each way that there is, while it and seven other clones are open and mapped:
 * whoever opens it later sees the change, as the source does, and everyone who had it or another clone open sees the old
 * bytes.
 */

import assert from 'node:assert/strict';
import { readFileSync, watch } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { asUser, root, stopUsers } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem, settled, writeData } from './clones.ts';

const BYTES = 256 * 1024;
const OTHERS = 7;
const AT = 20_000;
const NEW = Buffer.from('these bytes are new'.repeat(500));

interface Way {
  readonly name: string;
  /** Changes the file, and returns the content that it must have now. */
  readonly change: (path: string, old: Buffer) => Buffer | Promise<Buffer>;
  /** The name gets another file: the old one stays on its route. */
  readonly replaces?: true;
}

function written(old: Buffer): Buffer {
  const content = Buffer.from(old);
  NEW.copy(content, AT);
  return content;
}

function withOpen(path: string, flags: number, use: (fd: number) => void): void {
  const fd = posix.open(path, flags);
  try {
    use(fd);
  } finally {
    posix.close(fd);
  }
}

const ways: readonly Way[] = [
  {
    name: 'write',
    change(path, old) {
      withOpen(path, posix.O_WRONLY, (fd) => posix.write(fd, NEW, AT));
      return written(old);
    },
  },
  {
    name: 'write through a map',
    change(path, old) {
      withOpen(path, posix.O_RDWR, (fd) => {
        const address = posix.map(fd, old.length);
        posix.poke(address, AT, NEW);
        posix.unmap(address);
      });
      return written(old);
    },
  },
  {
    name: 'append',
    change(path, old) {
      withOpen(path, posix.O_WRONLY | posix.O_APPEND, (fd) => posix.write(fd, NEW));
      return Buffer.concat([old, NEW]);
    },
  },
  {
    name: 'truncate by path',
    change(path, old) {
      posix.truncate(path, AT);
      return old.subarray(0, AT);
    },
  },
  {
    name: 'truncate to a larger size',
    change(path, old) {
      posix.truncate(path, old.length + AT);
      return Buffer.concat([old, Buffer.alloc(AT)]);
    },
  },
  {
    name: 'ftruncate',
    change(path, old) {
      withOpen(path, posix.O_RDWR, (fd) => posix.ftruncate(fd, AT));
      return old.subarray(0, AT);
    },
  },
  {
    name: 'open with O_TRUNC',
    change(path) {
      withOpen(path, posix.O_WRONLY | posix.O_TRUNC, (fd) => posix.write(fd, NEW));
      return NEW;
    },
  },
  {
    name: 'open for reading with O_TRUNC',
    change(path) {
      withOpen(path, posix.O_RDONLY | posix.O_TRUNC, () => {});
      return Buffer.alloc(0);
    },
  },
  {
    name: 'punch a hole',
    change(path, old) {
      const mode = posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE;
      withOpen(path, posix.O_WRONLY, (fd) => posix.fallocate(fd, mode, AT, NEW.length));
      return Buffer.from(old).fill(0, AT, AT + NEW.length);
    },
  },
  {
    name: 'copy_file_range into it',
    change(path, old) {
      const from = `${path}.from`;
      withOpen(from, posix.O_RDWR | posix.O_CREAT, (input) => {
        posix.write(input, NEW, 0);
        withOpen(path, posix.O_WRONLY, (fd) =>
          assert.equal(posix.copyFileRange(input, 0, fd, AT, NEW.length), NEW.length),
        );
      });
      posix.unlink(from);
      return written(old);
    },
  },
  {
    name: 'write by a hard link',
    change(path, old) {
      const other = `${path}.link`;
      posix.link(path, other);
      withOpen(other, posix.O_WRONLY, (fd) => posix.write(fd, NEW, AT));
      posix.unlink(other);
      return written(old);
    },
  },
  {
    name: 'write by another process',
    async change(path, old) {
      const other = asUser(root);
      const fd = await other.call('open', path, posix.O_WRONLY);
      await other.call('write', fd, NEW, AT);
      await other.call('close', fd);
      return written(old);
    },
  },
  {
    name: 'rename over it',
    replaces: true,
    change(path) {
      withOpen(`${path}.new`, posix.O_WRONLY | posix.O_CREAT, (fd) => posix.write(fd, NEW));
      posix.rename(`${path}.new`, path);
      return NEW;
    },
  },
  {
    name: 'unlink and create',
    replaces: true,
    change(path) {
      posix.unlink(path);
      withOpen(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, (fd) => posix.write(fd, NEW));
      return NEW;
    },
  },
];

/** A file that is open for reading and mapped. */
class Reader {
  readonly #fd: number;
  readonly #address: number;

  constructor(path: string) {
    this.#fd = posix.open(path, posix.O_RDONLY);
    this.#address = posix.map(this.#fd, BYTES, posix.PROT_READ);
  }

  assertReads(content: Buffer, what: string): void {
    assert.ok(posix.read(this.#fd, content.length + 1, 0).equals(content), `${what}: read shows other bytes`);
    assert.ok(posix.peek(this.#address, 0, BYTES).equals(content), `${what}: the map shows other bytes`);
    assert.equal(posix.fstat(this.#fd).size, content.length, `${what}: the size`);
  }

  close(): void {
    posix.unmap(this.#address);
    posix.close(this.#fd);
  }
}

async function breakBy(way: Way, server: MountedServer, others: readonly Reader[], old: Buffer): Promise<void> {
  const name = `victim of ${way.name}`;
  posix.reflink(join(server.source, 'original'), join(server.source, name));
  await settled();
  const path = join(server.mountpoint, name);
  const reader = new Reader(path);
  const before = await server.status();
  const content = await way.change(path, old);
  const after = await server.status();

  assert.ok(readFileSync(path).equals(content), `${way.name}: a later open sees other bytes`);
  assert.equal(posix.stat(path).size, content.length, `${way.name}: the size by the name`);
  assert.ok(readFileSync(join(server.source, name)).equals(content), `${way.name}: the source has other bytes`);
  reader.assertReads(old, `${way.name}: the old reader`);
  for (const other of others) other.assertReads(old, `${way.name}: another clone`);
  assert.equal(after.broken - before.broken, way.replaces ? 0 : 1, `${way.name}: sharing was broken`);
  reader.close();
}

for (const kind of ['btrfs', 'xfs', 'xfs-1k', 'btrfs-zstd'] as const) {
  test(`on ${kind}, a changed clone shows the change to later opens, and the old bytes to those that had it open`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      writeData(join(source, 'original'), BYTES, true);
      // Of a program it isn't learned that it is written in place: each way finds its victim shared.
      withOpen(join(source, 'original'), posix.O_WRONLY, (fd) => posix.write(fd, Buffer.from('\x7fELF'), 0));
      const old = readFileSync(join(source, 'original'));
      const names = Array.from({ length: OTHERS }, (_, index) => `other${index}`);
      for (const name of names) posix.reflink(join(source, 'original'), join(source, name));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const others = names.map((name) => new Reader(join(server.mountpoint, name)));
      try {
        for (const way of ways) await breakBy(way, server, others, old);
        const status = await server.status();
        assert.equal(status.mappings?.count, 1);
        assert.equal(status.requests['READ'] ?? 0, 0);
      } finally {
        for (const other of others) other.close();
        await stopUsers();
      }
      await server.umount();
    }));
}

test('who watches a file hears that it left its readers behind, however late, and its mode stays what was made of it since', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    const source = filesystem.dir;
    writeData(join(source, 'original'), BYTES, true);
    posix.reflink(join(source, 'original'), join(source, 'watched'));
    posix.chmod(join(source, 'watched'), 0o644);
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
    const path = join(server.mountpoint, 'watched');
    let heard = 0;
    const watcher = watch(path, () => heard++);
    const reader = posix.open(path, posix.O_RDONLY);
    // The supervisor makes the event when it goes on: the readers are gone by then.
    process.kill(server.supervisor, 'SIGSTOP');
    try {
      withOpen(path, posix.O_WRONLY, (fd) => posix.write(fd, NEW, AT));
      posix.close(reader);
      posix.chmod(path, 0o600);
      assert.equal(heard, 0);
    } finally {
      process.kill(server.supervisor, 'SIGCONT');
    }
    for (const deadline = Date.now() + 20_000; heard === 0; await pause(10))
      assert.ok(Date.now() < deadline, 'nothing');
    watcher.close();
    for (const name of [path, join(source, 'watched')]) assert.equal(posix.stat(name).mode & 0o7777, 0o600);
    await server.umount();
  }));
