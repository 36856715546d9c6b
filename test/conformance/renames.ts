/** rename(2) and what renameat2(2) adds. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { exists, fails, meanwhile, namesIn, put, type Subject, textOf, tick, whileOpen, withFile } from './case.ts';

const { O_RDONLY, O_RDWR, O_DIRECTORY, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT } = posix;

const plain: Subject['cases'] = [
  {
    name: 'a renamed file is the same file under the new name only',
    run(dir) {
      put(join(dir, 'old'), 'content');
      const { ino, mtimeNs } = posix.stat(join(dir, 'old'));
      posix.rename(join(dir, 'old'), join(dir, 'new'));
      assert.deepEqual(namesIn(dir), ['new']);
      const now = posix.stat(join(dir, 'new'));
      assert.deepEqual([now.ino, now.mtimeNs, now.nlink], [ino, mtimeNs, 1]);
      assert.equal(textOf(join(dir, 'new')), 'content');
    },
  },
  {
    name: 'a file may be moved to another directory and back',
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'b'));
      put(join(dir, 'a', 'file'), 'content');
      posix.rename(join(dir, 'a', 'file'), join(dir, 'b', 'file'));
      assert.deepEqual([namesIn(join(dir, 'a')), namesIn(join(dir, 'b'))], [[], ['file']]);
      posix.rename(join(dir, 'b', 'file'), join(dir, 'a', 'again'));
      assert.deepEqual([namesIn(join(dir, 'a')), namesIn(join(dir, 'b'))], [['again'], []]);
      assert.equal(textOf(join(dir, 'a', 'again')), 'content');
    },
  },
  {
    name: 'the file that is replaced is gone, and stays readable where it is open',
    run(dir) {
      put(join(dir, 'new'), 'new');
      put(join(dir, 'file'), 'old');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.rename(join(dir, 'new'), join(dir, 'file'));
        assert.equal(posix.fstat(fd).nlink, 0);
        assert.equal(posix.read(fd, 10).toString(), 'old');
        posix.write(fd, 'er', 3);
        assert.equal(posix.read(fd, 10, 0).toString(), 'older');
      });
      assert.equal(textOf(join(dir, 'file')), 'new');
      assert.deepEqual(namesIn(dir), ['file']);
    },
  },
  {
    name: 'a file that is renamed while open goes on being the same',
    run(dir) {
      put(join(dir, 'file'), 'content');
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.rename(join(dir, 'file'), join(dir, 'moved'));
        posix.write(fd, 'CON');
        assert.equal(textOf(join(dir, 'moved')), 'CONtent');
        posix.ftruncate(fd, 3);
        assert.equal(posix.stat(join(dir, 'moved')).size, 3);
      });
    },
  },
  {
    name: 'what another process renames is found here under the new name',
    async run(dir) {
      put(join(dir, 'file'), 'content');
      await whileOpen(join(dir, 'file'), O_RDONLY, async (fd) => {
        await asUser(root).call('rename', join(dir, 'file'), join(dir, 'moved'));
        assert.equal(exists(join(dir, 'file')), false);
        assert.equal(posix.stat(join(dir, 'moved')).ino, posix.fstat(fd).ino);
      });
    },
  },
  {
    name: 'the atomic replacement of a file never shows an empty or missing one',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'round 0');
      const other = asUser(root);
      const replace = async () => {
        for (let round = 1; round <= 100; round++) {
          await other.call('writeFile', `${file}.tmp`, `round ${round}`);
          await other.call('rename', `${file}.tmp`, file);
        }
      };
      let seen = 0;
      await meanwhile(replace(), () => {
        const round = Number(/^round (\d+)$/.exec(textOf(file))?.[1]);
        assert.ok(round >= seen, `${round} after ${seen}`);
        seen = round;
      });
      assert.equal(textOf(file), 'round 100');
    },
  },
  {
    name: 'a directory may be renamed with all that is in it',
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'a', 'deep'));
      put(join(dir, 'a', 'deep', 'file'), 'content');
      posix.rename(join(dir, 'a'), join(dir, 'b'));
      assert.equal(textOf(join(dir, 'b', 'deep', 'file')), 'content');
      fails('ENOENT', () => posix.stat(join(dir, 'a', 'deep', 'file')));
      posix.mkdir(join(dir, 'a'));
      assert.deepEqual(namesIn(join(dir, 'a')), []);
    },
  },
  {
    name: "a moved directory's dot-dot is its new parent",
    run(dir) {
      posix.mkdir(join(dir, 'from'));
      posix.mkdir(join(dir, 'from', 'sub'));
      posix.mkdir(join(dir, 'to'));
      assert.equal(posix.stat(`${dir}/from/sub/..`).ino, posix.stat(join(dir, 'from')).ino);
      posix.rename(join(dir, 'from', 'sub'), join(dir, 'to', 'sub'));
      const parent = posix.stat(join(dir, 'to')).ino;
      assert.equal(posix.stat(`${dir}/to/sub/..`).ino, parent);
      withFile(join(dir, 'to', 'sub'), O_RDONLY | O_DIRECTORY, (fd) => {
        const dotDot = posix.readAllEntries(fd).find((entry) => entry.name.toString() === '..');
        assert.equal(dotDot?.ino, parent);
      });
    },
  },
  {
    name: 'a directory replaces an empty one, and no other',
    run(dir) {
      for (const name of ['full', 'empty', 'mine']) posix.mkdir(join(dir, name));
      put(join(dir, 'full', 'file'));
      put(join(dir, 'mine', 'inner'));
      // POSIX allows both; XFS says EEXIST.
      fails(/^(ENOTEMPTY|EEXIST)$/, () => posix.rename(join(dir, 'mine'), join(dir, 'full')));
      posix.rename(join(dir, 'mine'), join(dir, 'empty'));
      assert.deepEqual(namesIn(dir), ['empty', 'full']);
      assert.deepEqual(namesIn(join(dir, 'empty')), ['inner']);
    },
  },
  {
    name: 'a file does not replace a directory, nor a directory a file',
    run(dir) {
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'sub'));
      fails('EISDIR', () => posix.rename(join(dir, 'file'), join(dir, 'sub')));
      fails('ENOTDIR', () => posix.rename(join(dir, 'sub'), join(dir, 'file')));
      assert.deepEqual(namesIn(dir), ['file', 'sub']);
    },
  },
  {
    name: 'a directory does not move into itself',
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'a', 'b'));
      fails('EINVAL', () => posix.rename(join(dir, 'a'), join(dir, 'a', 'c')));
      fails('EINVAL', () => posix.rename(join(dir, 'a'), join(dir, 'a', 'b', 'c')));
      fails('ENOTEMPTY', () => posix.rename(join(dir, 'a', 'b'), join(dir, 'a')));
      assert.deepEqual(namesIn(join(dir, 'a')), ['b']);
    },
  },
  {
    name: 'what is missing is not renamed, nor to where nothing is',
    run(dir) {
      put(join(dir, 'file'));
      fails('ENOENT', () => posix.rename(join(dir, 'missing'), join(dir, 'new')));
      fails('ENOENT', () => posix.rename(join(dir, 'file'), join(dir, 'missing', 'new')));
      fails('ENOTDIR', () => posix.rename(join(dir, 'file'), join(dir, 'file', 'new')));
      fails('ENOTDIR', () => posix.rename(join(dir, 'file'), `${dir}/new/`));
      assert.deepEqual(namesIn(dir), ['file']);
    },
  },
  {
    name: 'a rename to the same name changes nothing',
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.rename(join(dir, 'file'), join(dir, 'file'));
      assert.equal(textOf(join(dir, 'file')), 'content');
    },
  },
  {
    name: 'a symbolic link is renamed itself, and replaced itself',
    run(dir) {
      put(join(dir, 'target'), 'target');
      put(join(dir, 'file'), 'file');
      posix.symlink('target', join(dir, 'link'));
      posix.rename(join(dir, 'link'), join(dir, 'moved'));
      assert.equal(posix.readlink(join(dir, 'moved')).toString(), 'target');
      posix.rename(join(dir, 'file'), join(dir, 'moved'));
      assert.equal(textOf(join(dir, 'moved')), 'file');
      assert.equal(textOf(join(dir, 'target')), 'target');
    },
  },
  {
    name: "a rename changes both directories' mtime and the file's ctime",
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'b'));
      put(join(dir, 'a', 'file'));
      const before = ['a', 'b', 'a/file'].map((name) => posix.stat(join(dir, name)));
      tick();
      posix.rename(join(dir, 'a', 'file'), join(dir, 'b', 'file'));
      const after = ['a', 'b', 'b/file'].map((name) => posix.stat(join(dir, name)));
      assert.ok((after[0]?.mtimeNs ?? 0n) > (before[0]?.mtimeNs ?? 0n));
      assert.ok((after[1]?.mtimeNs ?? 0n) > (before[1]?.mtimeNs ?? 0n));
      assert.ok((after[2]?.ctimeNs ?? 0n) > (before[2]?.ctimeNs ?? 0n));
      assert.equal(after[2]?.mtimeNs, before[2]?.mtimeNs);
    },
  },
  {
    name: 'three renames swap two files',
    run(dir) {
      put(join(dir, 'a'), 'was a');
      put(join(dir, 'b'), 'was b');
      posix.rename(join(dir, 'a'), join(dir, 't'));
      posix.rename(join(dir, 'b'), join(dir, 'a'));
      posix.rename(join(dir, 't'), join(dir, 'b'));
      assert.deepEqual([textOf(join(dir, 'a')), textOf(join(dir, 'b'))], ['was b', 'was a']);
    },
  },
];

const flagged: Subject['cases'] = [
  {
    name: 'RENAME_NOREPLACE refuses a name that is taken, by whatever',
    run(dir) {
      put(join(dir, 'file'), 'content');
      put(join(dir, 'taken'), 'taken');
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('missing', join(dir, 'link'));
      for (const name of ['taken', 'sub', 'link', 'file']) {
        fails('EEXIST', () => posix.rename(join(dir, 'file'), join(dir, name), RENAME_NOREPLACE));
      }
      posix.rename(join(dir, 'file'), join(dir, 'free'), RENAME_NOREPLACE);
      assert.deepEqual(namesIn(dir), ['free', 'link', 'sub', 'taken']);
      assert.equal(textOf(join(dir, 'taken')), 'taken');
    },
  },
  {
    name: 'RENAME_EXCHANGE swaps two files',
    run(dir) {
      put(join(dir, 'a'), 'was a');
      put(join(dir, 'b'), 'was b');
      const inodes = ['a', 'b'].map((name) => posix.stat(join(dir, name)).ino);
      posix.rename(join(dir, 'a'), join(dir, 'b'), RENAME_EXCHANGE);
      assert.deepEqual([textOf(join(dir, 'a')), textOf(join(dir, 'b'))], ['was b', 'was a']);
      assert.deepEqual(
        ['b', 'a'].map((name) => posix.stat(join(dir, name)).ino),
        inodes,
      );
    },
  },
  {
    name: 'RENAME_EXCHANGE swaps a file with a full directory, across parents',
    run(dir) {
      posix.mkdir(join(dir, 'p'));
      posix.mkdir(join(dir, 'q'));
      posix.mkdir(join(dir, 'p', 'x'));
      put(join(dir, 'p', 'x', 'inner'), 'inner');
      put(join(dir, 'q', 'y'), 'file');
      posix.rename(join(dir, 'p', 'x'), join(dir, 'q', 'y'), RENAME_EXCHANGE);
      assert.equal(textOf(join(dir, 'p', 'x')), 'file');
      assert.equal(textOf(join(dir, 'q', 'y', 'inner')), 'inner');
      assert.equal(posix.stat(`${dir}/q/y/..`).ino, posix.stat(join(dir, 'q')).ino);
    },
  },
  {
    name: 'RENAME_EXCHANGE keeps open descriptors with their files',
    run(dir) {
      put(join(dir, 'a'), 'was a');
      put(join(dir, 'b'), 'was b');
      withFile(join(dir, 'a'), O_RDWR, (fd) => {
        posix.rename(join(dir, 'a'), join(dir, 'b'), RENAME_EXCHANGE);
        posix.write(fd, 'WAS');
        assert.equal(posix.fstat(fd).ino, posix.stat(join(dir, 'b')).ino);
      });
      assert.deepEqual([textOf(join(dir, 'a')), textOf(join(dir, 'b'))], ['was b', 'WAS a']);
    },
  },
  {
    name: 'RENAME_EXCHANGE wants both files, and no directory inside the other',
    run(dir) {
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'a', 'b'));
      fails('ENOENT', () => posix.rename(join(dir, 'file'), join(dir, 'missing'), RENAME_EXCHANGE));
      fails('EINVAL', () => posix.rename(join(dir, 'a'), join(dir, 'a', 'b'), RENAME_EXCHANGE));
      fails('EINVAL', () => posix.rename(join(dir, 'a', 'b'), join(dir, 'a'), RENAME_EXCHANGE));
    },
  },
  {
    name: 'flags that contradict each other are refused',
    run(dir) {
      put(join(dir, 'a'));
      put(join(dir, 'b'));
      const rename = (flags: number) => posix.rename(join(dir, 'a'), join(dir, 'b'), flags);
      fails('EINVAL', () => rename(RENAME_EXCHANGE | RENAME_NOREPLACE));
      fails('EINVAL', () => rename(RENAME_EXCHANGE | RENAME_WHITEOUT));
      fails('EINVAL', () => rename(1 << 7));
      assert.deepEqual(namesIn(dir), ['a', 'b']);
    },
  },
  {
    name: 'RENAME_WHITEOUT leaves a character device 0:0 under the old name',
    needs: ['whiteout'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      posix.rename(join(dir, 'file'), join(dir, 'moved'), RENAME_WHITEOUT);
      assert.equal(textOf(join(dir, 'moved')), 'content');
      const left = posix.lstat(join(dir, 'file'));
      assert.deepEqual([left.mode & posix.S_IFMT, left.rdevMajor, left.rdevMinor], [posix.S_IFCHR, 0, 0]);
      posix.unlink(join(dir, 'file'));
      assert.deepEqual(namesIn(dir), ['moved']);
    },
  },
  {
    name: 'RENAME_WHITEOUT replaces, and with RENAME_NOREPLACE does not',
    needs: ['whiteout'],
    run(dir) {
      put(join(dir, 'file'), 'content');
      put(join(dir, 'taken'), 'taken');
      fails('EEXIST', () => posix.rename(join(dir, 'file'), join(dir, 'taken'), RENAME_WHITEOUT | RENAME_NOREPLACE));
      posix.rename(join(dir, 'file'), join(dir, 'taken'), RENAME_WHITEOUT);
      assert.equal(textOf(join(dir, 'taken')), 'content');
      assert.equal(posix.lstat(join(dir, 'file')).mode & posix.S_IFMT, posix.S_IFCHR);
    },
  },
];

export const renames: Subject = { subject: 'renames', cases: [...plain, ...flagged] };
