/** Hard links and symbolic links. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { bytesUnder, exists, fails, modeOf, namesIn, put, type Subject, textOf, tick, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, AT_SYMLINK_NOFOLLOW } = posix;
const AT_SYMLINK_FOLLOW = 0x400;

const hard: Subject['cases'] = [
  {
    name: 'a hard link is the same file under a second name',
    run(dir) {
      put(join(dir, 'one'), 'content');
      posix.link(join(dir, 'one'), join(dir, 'two'));
      const [one, two] = [posix.stat(join(dir, 'one')), posix.stat(join(dir, 'two'))];
      assert.deepEqual([one.ino, one.device, one.nlink], [two.ino, two.device, 2]);
      posix.unlink(join(dir, 'one'));
      assert.equal(posix.stat(join(dir, 'two')).nlink, 1);
      assert.equal(textOf(join(dir, 'two')), 'content');
    },
  },
  {
    name: 'what is changed through one name shows through the other at once',
    run(dir) {
      const [one, two] = [join(dir, 'one'), join(dir, 'two')];
      put(one, 'content');
      posix.link(one, two);
      withFile(one, O_RDWR, (first) => {
        withFile(two, O_RDWR, (second) => {
          posix.write(first, 'CON');
          assert.equal(posix.read(second, 10).toString(), 'CONtent');
          posix.ftruncate(second, 2);
          assert.equal(posix.fstat(first).size, 2);
        });
      });
      posix.chmod(one, 0o751);
      posix.setXattr(two, 'user.name', 'value');
      assert.equal(modeOf(two), 0o751);
      assert.equal(posix.getXattr(one, 'user.name').toString(), 'value');
    },
  },
  {
    name: 'hard links in different directories have one inode number, in stat and in the listing',
    run(dir) {
      posix.mkdir(join(dir, 'a'));
      posix.mkdir(join(dir, 'b'));
      put(join(dir, 'a', 'file'));
      posix.link(join(dir, 'a', 'file'), join(dir, 'b', 'other'));
      const { ino } = posix.stat(join(dir, 'a', 'file'));
      assert.equal(posix.stat(join(dir, 'b', 'other')).ino, ino);
      assert.deepEqual(
        ['a', 'b'].map((sub) => posix.entriesOf(join(dir, sub)).map((entry) => entry.ino)),
        [[ino], [ino]],
      );
    },
  },
  {
    name: 'a file may have a thousand names',
    run(dir) {
      put(join(dir, '0'), 'content');
      for (let name = 1; name < 1000; name++) posix.link(join(dir, '0'), join(dir, `${name}`));
      assert.equal(posix.stat(join(dir, '0')).nlink, 1000);
      assert.equal(new Set(posix.entriesOf(dir).map((entry) => entry.ino)).size, 1);
      for (let name = 0; name < 999; name++) posix.unlink(join(dir, `${name}`));
      assert.equal(posix.stat(join(dir, '999')).nlink, 1);
      assert.equal(textOf(join(dir, '999')), 'content');
    },
  },
  {
    name: 'a directory gets no second name',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      fails('EPERM', () => posix.link(join(dir, 'sub'), join(dir, 'other')));
      assert.deepEqual(namesIn(dir), ['sub']);
    },
  },
  {
    name: 'a link takes no name that is taken, and needs a file',
    run(dir) {
      put(join(dir, 'file'), 'content');
      put(join(dir, 'taken'), 'taken');
      posix.mkdir(join(dir, 'sub'));
      fails('EEXIST', () => posix.link(join(dir, 'file'), join(dir, 'taken')));
      fails('EEXIST', () => posix.link(join(dir, 'file'), join(dir, 'file')));
      fails('EEXIST', () => posix.link(join(dir, 'file'), join(dir, 'sub')));
      fails('ENOENT', () => posix.link(join(dir, 'missing'), join(dir, 'new')));
      fails('ENOENT', () => posix.link(join(dir, 'file'), join(dir, 'missing', 'new')));
      assert.equal(posix.stat(join(dir, 'file')).nlink, 1);
      assert.equal(textOf(join(dir, 'taken')), 'taken');
    },
  },
  {
    name: 'a link to a symbolic link is a second name of the link, or of its target if it is followed',
    run(dir) {
      put(join(dir, 'target'));
      posix.symlink('target', join(dir, 'link'));
      posix.link(join(dir, 'link'), join(dir, 'samelink'));
      posix.link(join(dir, 'link'), join(dir, 'sametarget'), AT_SYMLINK_FOLLOW);
      assert.equal(posix.lstat(join(dir, 'samelink')).ino, posix.lstat(join(dir, 'link')).ino);
      assert.equal(posix.lstat(join(dir, 'link')).nlink, 2);
      assert.equal(posix.lstat(join(dir, 'sametarget')).ino, posix.stat(join(dir, 'target')).ino);
      assert.equal(posix.stat(join(dir, 'target')).nlink, 2);
    },
  },
  {
    name: "link and unlink change the file's ctime, and leave its mtime",
    run(dir) {
      put(join(dir, 'file'), 'content');
      const made = posix.stat(join(dir, 'file'));
      tick();
      posix.link(join(dir, 'file'), join(dir, 'other'));
      const linked = posix.stat(join(dir, 'file'));
      assert.ok(linked.ctimeNs > made.ctimeNs);
      tick();
      posix.unlink(join(dir, 'other'));
      const unlinked = posix.stat(join(dir, 'file'));
      assert.ok(unlinked.ctimeNs > linked.ctimeNs);
      assert.equal(unlinked.mtimeNs, made.mtimeNs);
    },
  },
  {
    name: 'renaming one of two names onto the other changes nothing',
    run(dir) {
      put(join(dir, 'one'), 'content');
      posix.link(join(dir, 'one'), join(dir, 'two'));
      posix.rename(join(dir, 'one'), join(dir, 'two'));
      assert.deepEqual(namesIn(dir), ['one', 'two']);
      assert.equal(posix.stat(join(dir, 'one')).nlink, 2);
    },
  },
  {
    name: 'replacing one of two names leaves the other with one link',
    run(dir) {
      put(join(dir, 'one'), 'old');
      posix.link(join(dir, 'one'), join(dir, 'two'));
      put(join(dir, 'new'), 'new');
      posix.rename(join(dir, 'new'), join(dir, 'one'));
      assert.equal(textOf(join(dir, 'one')), 'new');
      assert.equal(textOf(join(dir, 'two')), 'old');
      assert.equal(posix.stat(join(dir, 'two')).nlink, 1);
    },
  },
  {
    name: 'fifos and device nodes can have a second name, too',
    run(dir) {
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      posix.link(join(dir, 'fifo'), join(dir, 'fifo2'));
      assert.equal(posix.stat(join(dir, 'fifo2')).nlink, 2);
    },
  },
];

const symbolic: Subject['cases'] = [
  {
    name: 'a symbolic link keeps its target byte for byte',
    run(dir) {
      const targets = [
        Buffer.from([0xff, 0xfe, 0x0a]),
        Buffer.from('a//b/../c/'),
        Buffer.from(' '),
        Buffer.alloc(1023, 't'),
      ];
      for (const [index, target] of targets.entries()) {
        const name = bytesUnder(dir, Buffer.from(`${index}`));
        posix.symlink(target, name);
        assert.deepEqual(posix.readlink(name), target);
        assert.equal(posix.lstat(name).size, target.length);
        assert.equal(posix.lstat(name).mode, posix.S_IFLNK | 0o777);
      }
    },
  },
  {
    name: 'a relative target is sought from where the link is, an absolute one from the root',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'file'), 'outer');
      put(join(dir, 'sub', 'file'), 'inner');
      posix.symlink('file', join(dir, 'sub', 'inner'));
      posix.symlink('../file', join(dir, 'sub', 'outer'));
      posix.symlink(join(dir, 'file'), join(dir, 'sub', 'absolute'));
      posix.symlink('sub', join(dir, 'dirlink'));
      assert.equal(textOf(join(dir, 'sub', 'inner')), 'inner');
      assert.equal(textOf(join(dir, 'dirlink', 'outer')), 'outer');
      assert.equal(textOf(join(dir, 'dirlink', 'absolute')), 'outer');
      // A link that is moved seeks from its new place.
      posix.rename(join(dir, 'sub', 'inner'), join(dir, 'inner'));
      assert.equal(textOf(join(dir, 'inner')), 'outer');
    },
  },
  {
    name: 'a dangling link is there, and what it names is not',
    run(dir) {
      posix.symlink('missing', join(dir, 'link'));
      fails('ENOENT', () => posix.open(join(dir, 'link'), O_RDONLY));
      fails('ENOENT', () => posix.stat(join(dir, 'link')));
      fails('ENOENT', () => posix.chmod(join(dir, 'link'), 0o600));
      assert.equal(posix.lstat(join(dir, 'link')).size, 7);
      put(join(dir, 'missing'), 'found');
      assert.equal(textOf(join(dir, 'link')), 'found');
    },
  },
  {
    name: 'forty links in a row are followed and one more is too many',
    run(dir) {
      put(join(dir, '0'), 'content');
      for (let index = 1; index <= 41; index++) posix.symlink(`${index - 1}`, join(dir, `${index}`));
      assert.equal(textOf(join(dir, '40')), 'content');
      fails('ELOOP', () => posix.open(join(dir, '41'), O_RDONLY));
    },
  },
  {
    name: 'an empty target is refused, and so is a taken name',
    run(dir) {
      put(join(dir, 'file'));
      fails('ENOENT', () => posix.symlink('', join(dir, 'link')));
      fails('EEXIST', () => posix.symlink('x', join(dir, 'file')));
      posix.symlink('x', join(dir, 'dangling'));
      fails('EEXIST', () => posix.symlink('y', join(dir, 'dangling')));
      assert.equal(posix.readlink(join(dir, 'dangling')).toString(), 'x');
    },
  },
  {
    name: 'readlink refuses what is no link',
    run(dir) {
      put(join(dir, 'file'));
      fails('EINVAL', () => posix.readlink(join(dir, 'file')));
      fails('EINVAL', () => posix.readlink(dir));
    },
  },
  {
    name: 'chmod and chown of a link reach the target, chown with NOFOLLOW the link',
    run(dir) {
      put(join(dir, 'target'));
      posix.symlink('target', join(dir, 'link'));
      posix.chmod(join(dir, 'link'), 0o600);
      posix.chown(join(dir, 'link'), 11, 12);
      posix.chown(join(dir, 'link'), 21, 22, AT_SYMLINK_NOFOLLOW);
      const [target, link] = [posix.stat(join(dir, 'target')), posix.lstat(join(dir, 'link'))];
      assert.deepEqual([target.mode & 0o7777, target.uid, target.gid], [0o600, 11, 12]);
      assert.deepEqual([link.mode & 0o7777, link.uid, link.gid], [0o777, 21, 22]);
    },
  },
  {
    name: 'the times of a link itself can be set',
    run(dir) {
      put(join(dir, 'target'));
      posix.symlink('target', join(dir, 'link'));
      const before = posix.stat(join(dir, 'target'));
      posix.setTimes(join(dir, 'link'), 1n, 1_234_567_890_123_456_789n, AT_SYMLINK_NOFOLLOW);
      assert.equal(posix.lstat(join(dir, 'link')).mtimeNs, 1_234_567_890_123_456_789n);
      assert.equal(posix.stat(join(dir, 'target')).mtimeNs, before.mtimeNs);
    },
  },
  {
    name: 'unlink takes the link away and not the target',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'sub', 'file'));
      posix.symlink('sub', join(dir, 'link'));
      fails('ENOTDIR', () => posix.rmdir(join(dir, 'link')));
      posix.unlink(join(dir, 'link'));
      assert.deepEqual(namesIn(dir), ['sub']);
      assert.deepEqual(namesIn(join(dir, 'sub')), ['file']);
    },
  },
  {
    name: 'a link made anew under the same name leads to the new target at once',
    run(dir) {
      put(join(dir, 'a'), 'a');
      put(join(dir, 'b'), 'b');
      for (let round = 0; round < 10; round++) {
        const target = round % 2 === 0 ? 'a' : 'b';
        posix.symlink(target, join(dir, 'link'));
        assert.equal(posix.readlink(join(dir, 'link')).toString(), target);
        assert.equal(textOf(join(dir, 'link')), target);
        posix.unlink(join(dir, 'link'));
      }
    },
  },
  {
    name: 'a link replaced by a rename leads to the new target at once',
    run(dir) {
      put(join(dir, 'a'), 'a');
      put(join(dir, 'b'), 'b');
      posix.symlink('a', join(dir, 'link'));
      assert.equal(textOf(join(dir, 'link')), 'a');
      posix.symlink('b', join(dir, 'new'));
      posix.rename(join(dir, 'new'), join(dir, 'link'));
      assert.equal(textOf(join(dir, 'link')), 'b');
      withFile(join(dir, 'link'), O_WRONLY, (fd) => posix.write(fd, 'B'));
      assert.equal(textOf(join(dir, 'b')), 'B');
    },
  },
  {
    name: 'a link to a directory with a trailing slash is the directory',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('sub', join(dir, 'link'));
      assert.equal(posix.lstat(`${dir}/link/`).ino, posix.stat(join(dir, 'sub')).ino);
      fails('ENOTDIR', () => posix.unlink(`${dir}/link/`));
      assert.equal(exists(join(dir, 'link')), true);
    },
  },
];

export const links: Subject = { subject: 'links', cases: [...hard, ...symbolic] };
