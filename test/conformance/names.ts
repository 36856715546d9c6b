/** Names: which bytes and lengths they may have, and how paths of them are walked. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { bytesUnder, exists, fails, namesIn, put, type Subject, textOf, withFile } from './case.ts';

/** Names that have broken programs: each must come back from the directory as it was given. */
const awkward: readonly (readonly [string, Buffer])[] = [
  ['bytes that are not UTF-8', Buffer.from([0xff, 0xfe, 0x80, 0xc3])],
  ['half of a UTF-8 sequence', Buffer.from([0xe2, 0x82])],
  ['newlines', Buffer.from('first line\nsecond line\n')],
  ['only a space', Buffer.from(' ')],
  ['a backslash and an octal escape', Buffer.from('a\\040b\\')],
  ['control characters', Buffer.from([0x01, 0x07, 0x1b, 0x7f])],
  ['quotes, commas and equals signs', Buffer.from(`'"\`,=:;*?`)],
  ['a leading dash', Buffer.from('-rf')],
  ['three dots', Buffer.from('...')],
  ['a dot and a space', Buffer.from('. ')],
];

const LONGEST_NAME = 255;
const PATH_MAX = 4096;

/** A path of exactly `length` bytes below `dir`, whose last component is a file; its directories are made. */
function pathOfLength(dir: string, length: number): string {
  let path = dir;
  while (length - path.length > 2 * LONGEST_NAME) {
    path = join(path, 'd'.repeat(200));
    if (!exists(path)) posix.mkdir(path);
  }
  const rest = length - path.length;
  const half = Math.floor((rest - 2) / 2);
  path = join(path, 'e'.repeat(half));
  if (!exists(path)) posix.mkdir(path);
  return join(path, 'f'.repeat(rest - 2 - half));
}

export const names: Subject = {
  subject: 'names',
  cases: [
    ...awkward.map(([what, name]) => ({
      name: `a file's name may be ${what}`,
      run(dir: string) {
        const path = bytesUnder(dir, name);
        put(path, 'content');
        assert.deepEqual(namesIn(dir), [name.toString('latin1')]);
        assert.equal(textOf(path), 'content');
        const other = bytesUnder(dir, Buffer.concat([name, Buffer.from('2')]));
        posix.rename(path, other);
        posix.link(other, path);
        posix.unlink(other);
        assert.deepEqual(namesIn(dir), [name.toString('latin1')]);
      },
    })),
    {
      name: 'every byte but the slash may stand alone as a name, except a dot',
      run(dir) {
        const all: string[] = [];
        for (let byte = 1; byte < 256; byte++) {
          if (byte === 0x2e || byte === 0x2f) continue;
          put(bytesUnder(dir, Buffer.of(byte)), `${byte}`);
          all.push(String.fromCharCode(byte));
        }
        assert.deepEqual(namesIn(dir), all.sort());
        for (const name of all)
          assert.equal(textOf(bytesUnder(dir, Buffer.from(name, 'latin1'))), `${name.charCodeAt(0)}`);
      },
    },
    {
      name: 'names that differ in case or in Unicode normalization are different files',
      run(dir) {
        const different = ['readme', 'README', 'caf\u00e9', 'cafe\u0301'];
        for (const name of different) put(join(dir, name), name);
        assert.equal(namesIn(dir).length, 4);
        for (const name of different) assert.equal(textOf(join(dir, name)), Buffer.from(name).toString('latin1'));
      },
    },
    {
      name: 'a name may have 255 bytes, whatever makes it',
      run(dir) {
        const name = (letter: string) => join(dir, letter.repeat(LONGEST_NAME));
        put(name('a'));
        posix.mkdir(name('b'));
        posix.symlink('x', name('c'));
        posix.link(name('a'), name('d'));
        posix.mknod(name('e'), posix.S_IFIFO | 0o600);
        posix.rename(name('e'), name('f'));
        assert.deepEqual(
          namesIn(dir),
          ['a', 'b', 'c', 'd', 'f'].map((letter) => letter.repeat(LONGEST_NAME)),
        );
      },
    },
    {
      name: 'a name of 256 bytes is refused, whatever would make or seek it',
      run(dir) {
        const long = join(dir, 'n'.repeat(LONGEST_NAME + 1));
        put(join(dir, 'file'));
        fails('ENAMETOOLONG', () => posix.open(long, posix.O_CREAT | posix.O_WRONLY));
        fails('ENAMETOOLONG', () => posix.open(long, posix.O_RDONLY));
        fails('ENAMETOOLONG', () => posix.stat(long));
        fails('ENAMETOOLONG', () => posix.mkdir(long));
        fails('ENAMETOOLONG', () => posix.symlink('x', long));
        fails('ENAMETOOLONG', () => posix.link(join(dir, 'file'), long));
        fails('ENAMETOOLONG', () => posix.rename(join(dir, 'file'), long));
        fails('ENAMETOOLONG', () => posix.mknod(long, posix.S_IFIFO | 0o600));
        fails('ENAMETOOLONG', () => posix.unlink(long));
        fails('ENAMETOOLONG', () => posix.rmdir(long));
        assert.deepEqual(namesIn(dir), ['file']);
      },
    },
    {
      name: 'the length of a name counts in bytes, not in characters',
      run(dir) {
        put(join(dir, '\u00e9'.repeat(127)));
        fails('ENAMETOOLONG', () => put(join(dir, '\u00e9'.repeat(128))));
      },
    },
    {
      name: 'a path may have 4095 bytes, and one more is refused',
      run(dir) {
        const path = pathOfLength(dir, PATH_MAX - 1);
        put(path, 'deep');
        assert.equal(textOf(path), 'deep');
        fails('ENAMETOOLONG', () => posix.open(`${path}f`, posix.O_RDONLY));
        fails('ENAMETOOLONG', () => posix.open(`${path}f`, posix.O_CREAT | posix.O_WRONLY));
      },
    },
    {
      name: 'a tree may be deeper than a path is long, when it is walked step by step',
      async run(dir) {
        const other = asUser(root);
        const step = 's'.repeat(LONGEST_NAME);
        await other.call('changeDirectory', dir);
        for (let depth = 0; depth < 20; depth++) {
          await other.call('mkdir', step);
          await other.call('changeDirectory', step);
        }
        await other.call('writeFile', 'bottom', 'reached');
        assert.equal((await other.call('readFile', 'bottom')).toString(), 'reached');
        // Back up through the parents, taking away what was made.
        await other.call('unlink', 'bottom');
        for (let depth = 0; depth < 20; depth++) {
          await other.call('changeDirectory', '..');
          await other.call('rmdir', step);
        }
        assert.deepEqual(namesIn(dir), []);
      },
    },
    {
      name: 'the empty name is no file',
      run() {
        fails('ENOENT', () => posix.open('', posix.O_RDONLY));
        fails('ENOENT', () => posix.mkdir(''));
        fails('ENOENT', () => posix.unlink(''));
      },
    },
    {
      name: 'dot and dot-dot can neither be made nor removed',
      run(dir) {
        posix.mkdir(join(dir, 'sub'));
        fails('EEXIST', () => posix.mkdir(`${dir}/sub/.`));
        fails('EEXIST', () => posix.mkdir(`${dir}/sub/..`));
        fails('EINVAL', () => posix.rmdir(`${dir}/sub/.`));
        fails('ENOTEMPTY', () => posix.rmdir(`${dir}/sub/..`));
        fails('EISDIR', () => posix.unlink(`${dir}/sub/.`));
        fails('EBUSY', () => posix.rename(`${dir}/sub/.`, `${dir}/other`));
        assert.deepEqual(namesIn(dir), ['sub']);
      },
    },
    {
      name: 'dot leads to the directory itself and dot-dot to its parent',
      run(dir) {
        posix.mkdir(join(dir, 'a'));
        posix.mkdir(join(dir, 'a', 'b'));
        assert.equal(posix.stat(`${dir}/a/b/.`).ino, posix.stat(join(dir, 'a', 'b')).ino);
        assert.equal(posix.stat(`${dir}/a/b/..`).ino, posix.stat(join(dir, 'a')).ino);
        assert.equal(posix.stat(`${dir}/a/b/../..`).ino, posix.stat(dir).ino);
      },
    },
    {
      name: 'a trailing slash demands a directory',
      run(dir) {
        put(join(dir, 'file'), 'content');
        fails('ENOTDIR', () => posix.open(`${dir}/file/`, posix.O_RDONLY));
        fails('ENOTDIR', () => posix.stat(`${dir}/file/`));
        fails('ENOTDIR', () => posix.unlink(`${dir}/file/`));
        fails('EISDIR', () => posix.open(`${dir}/new/`, posix.O_CREAT | posix.O_WRONLY));
        posix.mkdir(`${dir}/sub/`);
        assert.equal(posix.stat(`${dir}/sub/`).mode & posix.S_IFMT, posix.S_IFDIR);
        posix.rmdir(`${dir}/sub/`);
        assert.deepEqual(namesIn(dir), ['file']);
      },
    },
    {
      name: 'several slashes count as one',
      run(dir) {
        posix.mkdir(`${dir}//sub`);
        put(`${dir}///sub////file`, 'content');
        assert.equal(textOf(join(dir, 'sub', 'file')), 'content');
      },
    },
    {
      name: 'a path through a file, or through nothing, is refused differently',
      run(dir) {
        put(join(dir, 'file'));
        fails('ENOTDIR', () => posix.open(`${dir}/file/x`, posix.O_RDONLY));
        fails('ENOTDIR', () => posix.mkdir(`${dir}/file/x`));
        fails('ENOTDIR', () => posix.stat(`${dir}/file/.`));
        fails('ENOENT', () => posix.open(`${dir}/missing/x`, posix.O_CREAT | posix.O_WRONLY));
        fails('ENOENT', () => posix.stat(`${dir}/missing/..`));
      },
    },
    {
      name: 'a name that was missing is found as soon as it is made, and missing again when it is gone',
      run(dir) {
        const path = join(dir, 'name');
        for (let round = 0; round < 3; round++) {
          fails('ENOENT', () => posix.stat(path));
          put(path, `${round}`);
          assert.equal(textOf(path), `${round}`);
          posix.unlink(path);
          fails('ENOENT', () => posix.open(path, posix.O_RDONLY));
        }
      },
    },
    {
      name: 'a name may be a file and then a directory and then a link',
      run(dir) {
        const path = join(dir, 'name');
        put(path);
        posix.unlink(path);
        posix.mkdir(path);
        put(join(path, 'inner'), 'i');
        assert.equal(textOf(join(path, 'inner')), 'i');
        posix.unlink(join(path, 'inner'));
        posix.rmdir(path);
        posix.symlink('target', path);
        assert.equal(posix.readlink(path).toString(), 'target');
        fails('ENOENT', () => posix.stat(path));
      },
    },
    {
      name: "a directory's descriptor names its files, wherever the directory is moved",
      run(dir) {
        posix.mkdir(join(dir, 'before'));
        put(join(dir, 'before', 'file'), 'content');
        withFile(join(dir, 'before'), posix.O_RDONLY | posix.O_DIRECTORY, (fd) => {
          posix.rename(join(dir, 'before'), join(dir, 'after'));
          const file = posix.openAt(fd, 'file', posix.O_RDONLY);
          assert.equal(posix.read(file, 10).toString(), 'content');
          posix.close(file);
          posix.close(posix.openAt(fd, 'new', posix.O_CREAT | posix.O_WRONLY));
        });
        assert.deepEqual(namesIn(join(dir, 'after')), ['file', 'new']);
      },
    },
  ],
};
