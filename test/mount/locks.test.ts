/**
 * Locks of a file that has two nodes: one of those who had it open on the shared route, one of everybody since. And what locks cost
 * those who take none.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sharedext } from '../cli/command.ts';
import { OtherProcess, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { until } from '../support/wait.ts';
import { onFilesystem, settled, writeData } from './clones.ts';

const { O_RDONLY, O_RDWR, O_WRONLY, O_TRUNC, O_CREAT, LOCK_SH, LOCK_EX, LOCK_NB, F_RDLCK, F_WRLCK } = posix;
const BYTES = 128 * 1024;

/** A mount with an original and clones of it that are shared when they are opened. */
async function withClones(
  count: number,
  use: (server: MountedServer, clones: string[]) => Promise<void>,
): Promise<void> {
  await onFilesystem('btrfs', 512, async (filesystem) => {
    writeData(join(filesystem.dir, 'original'), BYTES, false);
    // Of a program it isn't learned that it is written in place: each clone is shared at first.
    const program = posix.open(join(filesystem.dir, 'original'), O_WRONLY);
    posix.write(program, Buffer.from('\x7fELF'), 0);
    posix.close(program);
    const names = Array.from({ length: count }, (_, index) => `clone${index}`);
    for (const name of names) posix.reflink(join(filesystem.dir, 'original'), join(filesystem.dir, name));
    await settled();
    const server = await mountSharedext(filesystem.dir, join(filesystem.folder, 'mounted'), 'settle=0');
    await use(
      server,
      names.map((name) => join(server.mountpoint, name)),
    );
    assert.equal((await server.status()).bugs, 0);
    await server.umount();
  });
}

function refused(act: () => void): boolean {
  try {
    act();
    return false;
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'EAGAIN', String(error));
    return true;
  }
}

/** Ways to lock: what the reader of a clone holds, and what the later writer is refused for it. */
const ways: readonly {
  readonly name: string;
  readonly reader: (fd: number) => void;
  readonly writer: (fd: number) => void;
}[] = [
  {
    name: 'an exclusive flock',
    reader: (fd) => posix.flock(fd, LOCK_EX | LOCK_NB),
    writer: (fd) => posix.flock(fd, LOCK_SH | LOCK_NB),
  },
  {
    name: 'a shared flock',
    reader: (fd) => posix.flock(fd, LOCK_SH | LOCK_NB),
    writer: (fd) => posix.flock(fd, LOCK_EX | LOCK_NB),
  },
  {
    name: 'a lock of the open file',
    reader: (fd) => posix.lockDescription(fd, F_RDLCK, 10, 20),
    writer: (fd) => posix.lockDescription(fd, F_WRLCK, 29, 0),
  },
];

test('what the reader of a shared file has locked, a later writer is refused, and the other way round', () =>
  withClones(ways.length + 1, async (server, clones) => {
    for (const [index, way] of ways.entries()) {
      const clone = clones[index] ?? '';
      const before = await server.status();
      const reader = posix.open(clone, O_RDONLY);
      assert.equal((await server.status()).open.shared, before.open.shared + 1, 'the reader is on the shared route');
      way.reader(reader);
      const writer = posix.open(clone, O_RDWR);
      assert.equal((await server.status()).broken, before.broken + 1, 'the file has two nodes');
      assert.ok(
        refused(() => way.writer(writer)),
        `${way.name}: the writer is refused`,
      );
      posix.close(reader);
      const old = posix.open(clone, O_RDONLY);
      way.writer(writer);
      assert.ok(
        refused(() => way.reader(old)),
        `${way.name}: a reader is refused`,
      );
      posix.close(writer);
      way.reader(old);
      posix.close(old);
    }
    // Records of processes: those of one process go together, and closing its reader ends those of its writer.
    const clone = clones[ways.length] ?? '';
    const other = new OtherProcess(root);
    try {
      const reader = posix.open(clone, O_RDONLY);
      posix.lockRecord(reader, F_RDLCK, 0, 100);
      const theirs = await other.call('open', clone, O_RDWR);
      await assert.rejects(other.call('lockRecord', theirs, F_WRLCK, 99, 1), { code: 'EAGAIN' });
      const found = await other.call('conflictingRecord', theirs, F_WRLCK, 0, 0);
      assert.deepEqual(found, { type: F_RDLCK, start: 0, length: 100, pid: process.pid });
      const writer = posix.open(clone, O_RDWR);
      posix.lockRecord(writer, F_WRLCK, 50, 100);
      await assert.rejects(other.call('lockRecord', theirs, F_RDLCK, 120, 1), { code: 'EAGAIN' });
      posix.close(reader);
      await other.call('lockRecord', theirs, F_WRLCK, 0, 0);
      assert.ok(refused(() => posix.lockRecord(writer, F_RDLCK, 0, 1)));
      posix.close(writer);
    } finally {
      await other.stop();
    }
  }));

test('who locks nothing closes without a request, until somebody locks', () =>
  withClones(2, async (server, [one = '', other = '']) => {
    const flushes = async (): Promise<number> => (await server.requests())['FLUSH'] ?? 0;
    for (let i = 0; i < 10; i++) readFileSync(one);
    for (let i = 0; i < 3; i++) {
      const fd = posix.open(join(server.mountpoint, 'new'), O_WRONLY | O_CREAT | O_TRUNC);
      posix.write(fd, Buffer.from('content'));
      posix.close(fd);
    }
    assert.equal(await flushes(), 0);
    const fd = posix.open(one, O_RDONLY);
    posix.flock(fd, LOCK_SH);
    readFileSync(one);
    const after = await flushes();
    assert.ok(after > 0, 'a file with a lock');
    readFileSync(other);
    assert.equal(await flushes(), after, 'another file');
    posix.close(fd);
    const writer = posix.open(other, O_RDWR);
    posix.close(writer);
    assert.equal(await flushes(), after + 1, 'a file that is opened for writing');
  }));

test('locks and those who wait for them outlive the server', () =>
  withClones(2, async (server, [one = '', two = '']) => {
    const others = [new OtherProcess(root), new OtherProcess(root), new OtherProcess(root)] as const;
    const [holder, waiter, killed] = others;
    try {
      const reader = posix.open(one, O_RDONLY);
      posix.flock(reader, LOCK_SH);
      posix.lockDescription(reader, F_RDLCK, 0, 10);
      const theirs = await holder.call('open', two, O_RDONLY);
      await holder.call('lockRecord', theirs, F_RDLCK, 5, 10);
      const writers = [await waiter.call('open', one, O_RDWR), await waiter.call('open', two, O_RDWR)] as const;
      const flocking = killed.call('open', one, O_RDWR).then((fd) => killed.call('flock', fd, LOCK_EX));
      const waiting = waiter.call('lockRecordWaiting', writers[1], F_WRLCK, 0, 0);
      let ended = false;
      void waiting.then(() => {
        ended = true;
      });
      const own = posix.open(two, O_RDWR);
      const ownOne = posix.open(one, O_RDWR);
      const check = async (): Promise<void> => {
        await until('two wait', async () => (await server.status()).locks.waiters === 2);
        assert.ok(refused(() => posix.flock(ownOne, LOCK_EX | LOCK_NB)));
        assert.ok(refused(() => posix.lockDescription(ownOne, F_WRLCK, 9, 1)));
        assert.ok(refused(() => posix.lockRecord(own, F_WRLCK, 14, 1)));
        const { pid } = holder;
        assert.deepEqual(posix.conflictingRecord(own, F_WRLCK, 0, 0), { type: F_RDLCK, start: 5, length: 10, pid });
        assert.equal(ended, false);
      };
      await check();
      for (let takeover = 1; takeover <= 3; takeover++) {
        if (takeover === 2) await sharedext('restart', server.mountpoint);
        else process.kill((await server.status()).pid, 'SIGKILL');
        // Between two servers nobody answers.
        await until(
          'another serves',
          async () => (await server.status().catch(() => undefined))?.takeovers === takeover,
        );
        await check();
      }
      // A waiter that is killed is gone, and a holder whose close nobody tells of is found out by the new server.
      await killed.stop();
      await assert.rejects(flocking);
      await holder.call('close', theirs);
      await waiting;
      assert.ok(refused(() => posix.lockRecord(own, F_RDLCK, 0, 1)));
      posix.close(reader);
      posix.flock(ownOne, LOCK_EX | LOCK_NB);
      posix.close(own);
      posix.close(ownOne);
    } finally {
      await Promise.all(others.map((other) => other.stop()));
    }
    await until('no lock is left', async () => (await server.status()).locks.count === 0);
  }));
