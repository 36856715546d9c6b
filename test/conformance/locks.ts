/** Locks between processes and descriptors: flock(2) and fcntl(2). */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, OtherProcess, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, put, refused, type Subject, whileOpen, withFile } from './case.ts';

const { O_RDWR, O_RDONLY, LOCK_SH, LOCK_EX, LOCK_UN, LOCK_NB, F_RDLCK, F_WRLCK, F_UNLCK } = posix;

/** Long enough for a lock that is wrongly granted to show; a wait that is right costs this once. */
const WAIT_MS = 50;

function later(): Promise<true> {
  return new Promise((resolve) => setTimeout(() => resolve(true), WAIT_MS));
}

/** Whether a call that waits for a lock has ended yet; ended by an error counts as well. */
async function waits(call: Promise<void>): Promise<boolean> {
  const ended = call.then(
    () => false,
    () => false,
  );
  return Promise.race([ended, later()]);
}

/** A file that is open here and in another process, which has made no lock yet. */
async function withBoth(
  dir: string,
  use: (own: number, other: OtherProcess, theirs: number) => Promise<void>,
): Promise<void> {
  const file = join(dir, 'file');
  put(file, 'content', 0o666);
  const other = new OtherProcess(root);
  try {
    const theirs = await other.call('open', file, O_RDWR);
    await whileOpen(file, O_RDWR, (own) => use(own, other, theirs));
  } finally {
    await other.stop();
  }
}

const whole: Subject['cases'] = [
  {
    name: 'an exclusive flock keeps every other out, until it is released',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.flock(own, LOCK_EX);
        await refused('EAGAIN', other.call('flock', theirs, LOCK_EX | LOCK_NB));
        await refused('EAGAIN', other.call('flock', theirs, LOCK_SH | LOCK_NB));
        posix.flock(own, LOCK_UN);
        await other.call('flock', theirs, LOCK_EX | LOCK_NB);
        fails('EAGAIN', () => posix.flock(own, LOCK_SH | LOCK_NB));
      }),
  },
  {
    name: 'shared flocks go together, and with no exclusive one',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.flock(own, LOCK_SH);
        await other.call('flock', theirs, LOCK_SH | LOCK_NB);
        await refused('EAGAIN', other.call('flock', theirs, LOCK_EX | LOCK_NB));
        posix.flock(own, LOCK_UN);
        await other.call('flock', theirs, LOCK_EX | LOCK_NB);
      }),
  },
  {
    name: 'a flock that waits gets the lock when it is released',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.flock(own, LOCK_EX);
        const waiting = other.call('flock', theirs, LOCK_EX);
        assert.equal(await waits(waiting), true);
        posix.flock(own, LOCK_UN);
        await waiting;
        fails('EAGAIN', () => posix.flock(own, LOCK_SH | LOCK_NB));
      }),
  },
  {
    name: 'a flock ends with the last descriptor of its open file, and with its process',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        await other.call('flock', theirs, LOCK_EX);
        const copy = await other.call('dup', theirs);
        await other.call('close', theirs);
        fails('EAGAIN', () => posix.flock(own, LOCK_EX | LOCK_NB));
        await other.call('close', copy);
        posix.flock(own, LOCK_EX | LOCK_NB);
        posix.flock(own, LOCK_UN);
        const again = await other.call('open', join(dir, 'file'), O_RDWR);
        await other.call('flock', again, LOCK_EX);
        fails('EAGAIN', () => posix.flock(own, LOCK_EX | LOCK_NB));
        await other.stop();
        posix.flock(own, LOCK_EX | LOCK_NB);
      }),
  },
  {
    name: 'two opens in one process are two holders of a flock, a duplicate is the same',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDONLY, (first) => {
        withFile(join(dir, 'file'), O_RDONLY, (second) => {
          posix.flock(first, LOCK_EX);
          fails('EAGAIN', () => posix.flock(second, LOCK_EX | LOCK_NB));
          const copy = posix.dup(first);
          posix.flock(copy, LOCK_EX | LOCK_NB);
          posix.close(copy);
          fails('EAGAIN', () => posix.flock(second, LOCK_EX | LOCK_NB));
        });
      });
    },
  },
  {
    name: 'a flock is on the file, whatever name it was opened by',
    run(dir) {
      put(join(dir, 'one'));
      posix.link(join(dir, 'one'), join(dir, 'two'));
      withFile(join(dir, 'one'), O_RDWR, (first) => {
        posix.flock(first, LOCK_EX);
        withFile(join(dir, 'two'), O_RDWR, (second) => {
          fails('EAGAIN', () => posix.flock(second, LOCK_EX | LOCK_NB));
        });
        posix.rename(join(dir, 'one'), join(dir, 'three'));
        withFile(join(dir, 'three'), O_RDWR, (third) => {
          fails('EAGAIN', () => posix.flock(third, LOCK_EX | LOCK_NB));
        });
      });
    },
  },
  {
    name: 'a directory can be locked by flock',
    run(dir) {
      withFile(dir, O_RDONLY, (first) => {
        posix.flock(first, LOCK_EX);
        withFile(dir, O_RDONLY, (second) => fails('EAGAIN', () => posix.flock(second, LOCK_SH | LOCK_NB)));
      });
    },
  },
];

const records: Subject['cases'] = [
  {
    name: 'a record lock keeps other processes from its bytes and no others',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.lockRecord(own, F_WRLCK, 100, 50);
        await refused('EAGAIN', other.call('lockRecord', theirs, F_WRLCK, 149, 1));
        await refused('EAGAIN', other.call('lockRecord', theirs, F_RDLCK, 0, 0));
        await other.call('lockRecord', theirs, F_WRLCK, 0, 100);
        await other.call('lockRecord', theirs, F_WRLCK, 150, 0);
        posix.lockRecord(own, F_UNLCK, 100, 50);
        await other.call('lockRecord', theirs, F_WRLCK, 0, 0);
      }),
  },
  {
    name: 'who asks is told which lock is in the way, and whose',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        await other.call('lockRecord', theirs, F_WRLCK, 100, 50);
        assert.deepEqual(posix.conflictingRecord(own, F_RDLCK, 0, 0), {
          type: F_WRLCK,
          start: 100,
          length: 50,
          pid: other.pid,
        });
        assert.equal(posix.conflictingRecord(own, F_WRLCK, 0, 100), undefined);
        await other.call('lockRecord', theirs, F_RDLCK, 100, 50);
        assert.equal(posix.conflictingRecord(own, F_RDLCK, 0, 0), undefined);
        assert.equal(posix.conflictingRecord(own, F_WRLCK, 0, 0)?.type, F_RDLCK);
      }),
  },
  {
    name: 'unlocking the middle of a record leaves two',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.lockRecord(own, F_WRLCK, 0, 300);
        posix.lockRecord(own, F_UNLCK, 100, 100);
        await other.call('lockRecord', theirs, F_WRLCK, 100, 100);
        await refused('EAGAIN', other.call('lockRecord', theirs, F_WRLCK, 99, 1));
        await refused('EAGAIN', other.call('lockRecord', theirs, F_WRLCK, 200, 1));
      }),
  },
  {
    name: 'a record lock that waits gets the lock when it is released',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.lockRecord(own, F_WRLCK, 0, 10);
        const waiting = other.call('lockRecordWaiting', theirs, F_WRLCK, 5, 10);
        assert.equal(await waits(waiting), true);
        posix.lockRecord(own, F_UNLCK, 0, 10);
        await waiting;
      }),
  },
  {
    name: 'two processes that wait for each other are told so',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.lockRecord(own, F_WRLCK, 0, 1);
        await other.call('lockRecord', theirs, F_WRLCK, 1, 1);
        const waiting = other.call('lockRecordWaiting', theirs, F_WRLCK, 0, 1);
        assert.equal(await waits(waiting), true);
        fails('EDEADLK', () => posix.lockRecordWaiting(own, F_WRLCK, 1, 1));
        posix.lockRecord(own, F_UNLCK, 0, 1);
        await waiting;
      }),
  },
  {
    name: 'closing any descriptor of the file ends the record locks of the process',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        await other.call('lockRecord', theirs, F_WRLCK, 0, 0);
        const second = await other.call('open', join(dir, 'file'), O_RDONLY);
        fails('EAGAIN', () => posix.lockRecord(own, F_WRLCK, 0, 1));
        await other.call('close', second);
        posix.lockRecord(own, F_WRLCK, 0, 1);
      }),
  },
  {
    name: 'the end of a process ends its record locks',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        await other.call('lockRecord', theirs, F_WRLCK, 0, 0);
        fails('EAGAIN', () => posix.lockRecord(own, F_RDLCK, 0, 1));
        await other.stop();
        posix.lockRecord(own, F_WRLCK, 0, 0);
      }),
  },
  {
    name: 'a lock for writing needs a descriptor that writes, and one for reading one that reads',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        posix.lockRecord(fd, F_RDLCK, 0, 1);
        fails('EBADF', () => posix.lockRecord(fd, F_WRLCK, 0, 1));
      });
      withFile(join(dir, 'file'), posix.O_WRONLY, (fd) => fails('EBADF', () => posix.lockRecord(fd, F_RDLCK, 0, 1)));
    },
  },
  {
    name: 'record locks of two opens in one process do not conflict, those of open files do',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDWR, (first) => {
        withFile(join(dir, 'file'), O_RDWR, (second) => {
          posix.lockRecord(first, F_WRLCK, 0, 10);
          posix.lockRecord(second, F_WRLCK, 0, 10);
          posix.lockDescription(first, F_WRLCK, 100, 10);
          fails('EAGAIN', () => posix.lockDescription(second, F_WRLCK, 105, 1));
          fails('EAGAIN', () => posix.lockRecord(second, F_WRLCK, 105, 1));
          assert.equal(posix.conflictingDescription(second, F_WRLCK, 105, 1)?.pid, -1);
        });
      });
    },
  },
  {
    name: 'flocks and record locks do not see each other',
    run: (dir) =>
      withBoth(dir, async (own, other, theirs) => {
        posix.flock(own, LOCK_EX);
        await other.call('lockRecord', theirs, F_WRLCK, 0, 0);
        posix.flock(own, LOCK_UN);
      }),
  },
  {
    name: 'locks of an unlinked file hold, and a new file of its name has none',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, '', 0o666);
      await whileOpen(file, O_RDWR, async (fd) => {
        posix.flock(fd, LOCK_EX);
        posix.unlink(file);
        put(file, '', 0o666);
        const theirs = await asUser(alice).call('open', file, O_RDWR);
        await asUser(alice).call('flock', theirs, LOCK_EX | LOCK_NB);
        await asUser(alice).call('close', theirs);
        withFile(`/proc/self/fd/${fd}`, O_RDWR, (again) =>
          fails('EAGAIN', () => posix.flock(again, LOCK_EX | LOCK_NB)),
        );
      });
    },
  },
];

export const locks: Subject = { subject: 'locks', cases: [...whole, ...records] };
