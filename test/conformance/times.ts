/** The four times of a file: what changes them, what leaves them, and that nanoseconds are kept. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { pattern, put, refused, type Subject, textOf, tick, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_TRUNC, O_CREAT, O_APPEND } = posix;

const SECOND = 1_000_000_000n;
/** In the past, with a fraction that no coarser clock produces. */
const PAST = 1_500_000_000n * SECOND + 123_456_789n;

type TimeName = 'atimeNs' | 'mtimeNs' | 'ctimeNs';

/** Asserts which of a file's times an action moves to now; all three are distinguishable from now before. */
function moves(name: string, expected: readonly TimeName[], act: () => void): void {
  posix.setTimes(name, PAST, PAST);
  const before = posix.stat(name);
  tick();
  const startedNs = BigInt(Date.now() - 20) * 1_000_000n;
  act();
  const after = posix.stat(name);
  for (const time of ['atimeNs', 'mtimeNs', 'ctimeNs'] as const) {
    if (expected.includes(time)) assert.ok(after[time] > before[time] && after[time] > startedNs, `${time} stayed`);
    else assert.equal(after[time], before[time], `${time} moved`);
  }
}

const setting: Subject['cases'] = [
  {
    name: 'times are kept to the nanosecond, also after the year 2038 and before 1970',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      const samples = [0n, 1n, 999_999_999n, PAST, 4_294_967_296n * SECOND + 5n, -1n, -86_400n * SECOND - 500_000_000n];
      for (const [index, atime] of samples.entries()) {
        const mtime = samples[(index + 1) % samples.length] ?? 0n;
        posix.setTimes(file, atime, mtime);
        const { atimeNs, mtimeNs } = posix.stat(file);
        assert.deepEqual([atimeNs, mtimeNs], [atime, mtime]);
      }
    },
  },
  {
    name: 'one of the two times can be left out',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      posix.setTimes(file, 1n, 2n);
      posix.setTimes(file, 'omit', 3n);
      assert.deepEqual([posix.stat(file).atimeNs, posix.stat(file).mtimeNs], [1n, 3n]);
      posix.setTimes(file, 4n, 'omit');
      assert.deepEqual([posix.stat(file).atimeNs, posix.stat(file).mtimeNs], [4n, 3n]);
    },
  },
  {
    name: 'leaving out both times changes nothing, not even ctime',
    run(dir) {
      put(join(dir, 'file'));
      const before = posix.stat(join(dir, 'file'));
      tick();
      posix.setTimes(join(dir, 'file'), 'omit', 'omit');
      assert.deepEqual(posix.stat(join(dir, 'file')), before);
    },
  },
  {
    name: 'now is the present time, and both times get the same',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      moves(file, ['atimeNs', 'mtimeNs', 'ctimeNs'], () => posix.setTimes(file, 'now', 'now'));
      assert.equal(posix.stat(file).atimeNs, posix.stat(file).mtimeNs);
    },
  },
  {
    name: 'setting the times moves ctime',
    run(dir) {
      put(join(dir, 'file'));
      const before = posix.stat(join(dir, 'file'));
      tick();
      posix.setTimes(join(dir, 'file'), 1n, 1n);
      assert.ok(posix.stat(join(dir, 'file')).ctimeNs > before.ctimeNs);
    },
  },
  {
    name: 'times of an open file can be set through its descriptor, also when it is read-only',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDONLY, (fd) => {
        posix.setTimesOfDescriptor(fd, 7n, 8n);
        assert.deepEqual([posix.fstat(fd).atimeNs, posix.fstat(fd).mtimeNs], [7n, 8n]);
      });
    },
  },
  {
    name: 'times of a directory can be set',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      posix.setTimes(join(dir, 'sub'), PAST, PAST + 1n);
      assert.equal(posix.stat(join(dir, 'sub')).mtimeNs, PAST + 1n);
    },
  },
  {
    name: 'only the owner sets a time of his choice, and who may write may set it to now',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o666);
      posix.chown(file, alice.uid, alice.gid);
      await asUser(alice).call('setTimes', file, 1n, 2n);
      await refused('EPERM', asUser(bob).call('setTimes', file, 1n, 2n));
      await refused('EPERM', asUser(bob).call('setTimes', file, 'omit', 'now'));
      await asUser(bob).call('setTimes', file, 'now', 'now');
      assert.ok(posix.stat(file).mtimeNs > PAST);
      posix.chmod(file, 0o644);
      await refused('EACCES', asUser(bob).call('setTimes', file, 'now', 'now'));
    },
  },
];

const moving: Subject['cases'] = [
  {
    name: 'a write moves mtime and ctime',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, ['mtimeNs', 'ctimeNs'], () => withFile(file, O_WRONLY, (fd) => posix.write(fd, 'x')));
      moves(file, ['mtimeNs', 'ctimeNs'], () => withFile(file, O_WRONLY | O_APPEND, (fd) => posix.write(fd, 'x')));
    },
  },
  {
    name: 'a write shows in the times of the open descriptor at once',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      withFile(file, O_RDWR, (fd) => {
        let last = posix.fstat(fd).mtimeNs;
        for (let round = 0; round < 3; round++) {
          tick();
          posix.write(fd, 'x');
          const { mtimeNs } = posix.fstat(fd);
          assert.ok(mtimeNs > last);
          assert.equal(posix.stat(file).mtimeNs, mtimeNs);
          last = mtimeNs;
        }
      });
    },
  },
  {
    name: 'writing nothing, opening and closing move no time',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, [], () => withFile(file, O_RDWR, (fd) => posix.write(fd, '')));
      moves(file, [], () => withFile(file, O_RDWR | O_CREAT, () => undefined));
    },
  },
  {
    name: 'a read moves atime when it is not newer than mtime (relatime)',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, ['atimeNs'], () => withFile(file, O_RDONLY, (fd) => posix.read(fd, 3)));
    },
  },
  {
    name: 'cutting and growing a file move mtime and ctime, by name and by descriptor',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, ['mtimeNs', 'ctimeNs'], () => posix.truncate(file, 3));
      moves(file, ['mtimeNs', 'ctimeNs'], () => withFile(file, O_WRONLY, (fd) => posix.ftruncate(fd, 100)));
      moves(file, ['mtimeNs', 'ctimeNs'], () => posix.close(posix.open(file, O_WRONLY | O_TRUNC)));
    },
  },
  {
    name: 'ftruncate to the same size moves mtime and ctime',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, ['mtimeNs', 'ctimeNs'], () => withFile(file, O_WRONLY, (fd) => posix.ftruncate(fd, 7)));
    },
  },
  {
    name: 'chmod, chown and attributes move ctime only',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content');
      moves(file, ['ctimeNs'], () => posix.chmod(file, 0o600));
      moves(file, ['ctimeNs'], () => posix.chown(file, 5, 6));
      moves(file, ['ctimeNs'], () => posix.setXattr(file, 'user.name', 'value'));
      moves(file, ['ctimeNs'], () => posix.removeXattr(file, 'user.name'));
    },
  },
  {
    name: 'whatever is made, moved or removed in a directory moves its mtime and ctime',
    run(dir) {
      const sub = join(dir, 'sub');
      posix.mkdir(sub);
      const changes: (() => void)[] = [
        () => put(join(sub, 'file')),
        () => posix.mkdir(join(sub, 'dir')),
        () => posix.symlink('x', join(sub, 'link')),
        () => posix.mknod(join(sub, 'fifo'), posix.S_IFIFO | 0o600),
        () => posix.link(join(sub, 'file'), join(sub, 'file2')),
        () => posix.rename(join(sub, 'file'), join(sub, 'file3')),
        () => posix.unlink(join(sub, 'file3')),
        () => posix.rmdir(join(sub, 'dir')),
      ];
      for (const change of changes) moves(sub, ['mtimeNs', 'ctimeNs'], change);
    },
  },
  {
    name: "a write to a file leaves its directory's times alone",
    run(dir) {
      const sub = join(dir, 'sub');
      posix.mkdir(sub);
      put(join(sub, 'file'));
      moves(sub, [], () => withFile(join(sub, 'file'), O_WRONLY, (fd) => posix.write(fd, 'x')));
    },
  },
  {
    name: 'listing a directory moves its atime only (relatime)',
    run(dir) {
      const sub = join(dir, 'sub');
      posix.mkdir(sub);
      put(join(sub, 'file'));
      moves(sub, ['atimeNs'], () => posix.entriesOf(sub));
    },
  },
  {
    name: 'a change through a mapping moves mtime and ctime by the time it is written back',
    run(dir) {
      const file = join(dir, 'file');
      put(file, pattern(8192));
      withFile(file, O_RDWR, (fd) => {
        const address = posix.map(fd, 8192);
        posix.peek(address, 0, 1);
        // The page fault of reading may have moved atime, which isn't the subject: it is left fresh.
        posix.setTimes(file, 'now', PAST);
        const before = posix.stat(file);
        tick();
        posix.poke(address, 5000, 'changed');
        posix.syncMapping(address);
        const after = posix.stat(file);
        assert.ok(after.mtimeNs > before.mtimeNs && after.ctimeNs > before.ctimeNs);
        posix.unmap(address);
      });
      assert.equal(textOf(file).slice(5000, 5007), 'changed');
    },
  },
  {
    name: 'a copy by copy_file_range moves mtime and ctime of the target',
    run(dir) {
      const [from, to] = [join(dir, 'from'), join(dir, 'to')];
      put(from, pattern(65536));
      put(to);
      moves(to, ['mtimeNs', 'ctimeNs'], () => {
        withFile(from, O_RDONLY, (fromFd) => {
          withFile(to, O_WRONLY, (toFd) => assert.ok(posix.copyFileRange(fromFd, 0, toFd, 0, 65536) > 0));
        });
      });
    },
  },
  {
    name: 'a preallocation that grows the file moves ctime',
    needs: ['preallocation'],
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      const before = posix.stat(file);
      tick();
      withFile(file, O_RDWR, (fd) => posix.fallocate(fd, 0, 0, 65536));
      assert.ok(posix.stat(file).ctimeNs > before.ctimeNs);
    },
  },
  {
    name: 'the birth time stays what it was, whatever happens to the file',
    needs: ['birth-time'],
    run(dir) {
      const startedNs = BigInt(Date.now() - 20) * 1_000_000n;
      const file = join(dir, 'file');
      put(file, 'content');
      const { btimeNs } = posix.stat(file);
      assert.ok(btimeNs > startedNs);
      tick();
      withFile(file, O_WRONLY, (fd) => posix.write(fd, 'x'));
      posix.setTimes(file, 1n, 1n);
      posix.rename(file, join(dir, 'moved'));
      assert.equal(posix.stat(join(dir, 'moved')).btimeNs, btimeNs);
    },
  },
];

export const times: Subject = { subject: 'times', cases: [...setting, ...moving] };
