/** Extended attributes: xattr(7). */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, pattern, put, refused, type Subject, textOf, withFile } from './case.ts';

const { XATTR_CREATE, XATTR_REPLACE } = posix;

export const xattrs: Subject = {
  subject: 'xattrs',
  cases: [
    {
      name: 'values come back as they were given: none, text, bytes with zeros, and many',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        const values = [Buffer.alloc(0), Buffer.from('text'), Buffer.from([0, 1, 0, 255, 0]), pattern(3500)];
        for (const [index, value] of values.entries()) posix.setXattr(file, `user.${index}`, value);
        for (const [index, value] of values.entries()) {
          assert.deepEqual(posix.getXattr(file, `user.${index}`), value);
          assert.equal(posix.sizeOfXattr(file, `user.${index}`), value.length);
        }
        assert.deepEqual(posix.listXattrs(file), ['user.0', 'user.1', 'user.2', 'user.3']);
      },
    },
    {
      name: 'setting an attribute again replaces its value, longer or shorter',
      run(dir) {
        put(join(dir, 'file'));
        for (const value of ['short', 'a much longer value', '', 'x']) {
          posix.setXattr(join(dir, 'file'), 'user.name', value);
          assert.equal(posix.getXattr(join(dir, 'file'), 'user.name').toString(), value);
        }
      },
    },
    {
      name: 'XATTR_CREATE wants a new attribute and XATTR_REPLACE an old one',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        fails('ENODATA', () => posix.setXattr(file, 'user.name', 'x', XATTR_REPLACE));
        posix.setXattr(file, 'user.name', 'first', XATTR_CREATE);
        fails('EEXIST', () => posix.setXattr(file, 'user.name', 'second', XATTR_CREATE));
        assert.equal(posix.getXattr(file, 'user.name').toString(), 'first');
        posix.setXattr(file, 'user.name', 'third', XATTR_REPLACE);
        assert.equal(posix.getXattr(file, 'user.name').toString(), 'third');
      },
    },
    {
      name: 'a removed attribute is gone, and cannot be removed again',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        posix.setXattr(file, 'user.name', 'value');
        posix.removeXattr(file, 'user.name');
        fails('ENODATA', () => posix.getXattr(file, 'user.name'));
        fails('ENODATA', () => posix.removeXattr(file, 'user.name'));
        assert.deepEqual(posix.listXattrs(file), []);
      },
    },
    {
      name: 'a buffer that is too small is refused, for a value and for the list',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        posix.setXattr(file, 'user.name', 'twelve bytes');
        fails('ERANGE', () => posix.getXattr(file, 'user.name', 11));
        assert.equal(posix.getXattr(file, 'user.name', 12).toString(), 'twelve bytes');
        fails('ERANGE', () => posix.listXattrs(file, 3));
      },
    },
    {
      name: 'names have at most 255 bytes, and values at most 64 KiB',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        const longest = `user.${'n'.repeat(250)}`;
        posix.setXattr(file, longest, 'value');
        assert.equal(posix.getXattr(file, longest).toString(), 'value');
        fails('ERANGE', () => posix.setXattr(file, `${longest}n`, 'value'));
        fails('E2BIG', () => posix.setXattr(file, 'user.big', Buffer.alloc(65537)));
      },
    },
    {
      name: 'names without or with an unknown namespace, or without more than it, are refused',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        fails('EOPNOTSUPP', () => posix.setXattr(file, 'name', 'x'));
        fails('EOPNOTSUPP', () => posix.setXattr(file, 'other.name', 'x'));
        fails('EINVAL', () => posix.setXattr(file, 'user.', 'x'));
        fails('ERANGE', () => posix.setXattr(file, '', 'x'));
      },
    },
    {
      name: 'names differ in case and may hold any bytes but zero',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        const all = ['user.A', 'user.a', 'user. ', 'user.\u00e9\n', 'user.user.a'];
        for (const name of all) posix.setXattr(file, name, name);
        assert.deepEqual(posix.listXattrs(file), [...all].sort());
        for (const name of all) assert.equal(posix.getXattr(file, name).toString(), name);
      },
    },
    {
      name: 'a hundred attributes of one file are all listed',
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        const all = Array.from({ length: 100 }, (_, index) => `user.attribute-number-${index}`).sort();
        for (const name of all) posix.setXattr(file, name, name.repeat(3));
        assert.deepEqual(posix.listXattrs(file), all);
        for (const name of all) posix.removeXattr(file, name);
        assert.deepEqual(posix.listXattrs(file), []);
      },
    },
    {
      name: 'a directory has attributes as a file has',
      run(dir) {
        posix.setXattr(dir, 'user.name', 'value');
        assert.equal(posix.getXattr(dir, 'user.name').toString(), 'value');
        posix.removeXattr(dir, 'user.name');
      },
    },
    {
      name: 'user attributes are for files and directories only, trusted ones for a link as well',
      run(dir) {
        posix.symlink('missing', join(dir, 'link'));
        posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
        fails('EPERM', () => posix.setXattr(join(dir, 'fifo'), 'user.name', 'x'));
        posix.withoutFollowing(join(dir, 'link'), (link) => {
          fails('EPERM', () => posix.setXattr(link, 'user.name', 'x'));
          posix.setXattr(link, 'trusted.name', 'x');
          assert.deepEqual(posix.listXattrs(link), ['trusted.name']);
        });
      },
    },
    {
      name: 'an attribute set through a link is of the target',
      run(dir) {
        put(join(dir, 'file'));
        posix.symlink('file', join(dir, 'link'));
        posix.setXattr(join(dir, 'link'), 'user.name', 'value');
        assert.equal(posix.getXattr(join(dir, 'file'), 'user.name').toString(), 'value');
      },
    },
    {
      name: 'an attribute set through a descriptor is of the open file, wherever it is moved',
      run(dir) {
        put(join(dir, 'file'));
        withFile(join(dir, 'file'), posix.O_RDWR, (fd) => {
          posix.rename(join(dir, 'file'), join(dir, 'moved'));
          posix.setXattr(`/proc/self/fd/${fd}`, 'user.name', 'value');
        });
        assert.equal(posix.getXattr(join(dir, 'moved'), 'user.name').toString(), 'value');
      },
    },
    {
      name: 'attributes follow the file through renames and links, and a new file has none',
      run(dir) {
        put(join(dir, 'file'));
        posix.setXattr(join(dir, 'file'), 'user.name', 'value');
        posix.rename(join(dir, 'file'), join(dir, 'moved'));
        posix.link(join(dir, 'moved'), join(dir, 'linked'));
        put(join(dir, 'file'));
        assert.equal(posix.getXattr(join(dir, 'linked'), 'user.name').toString(), 'value');
        fails('ENODATA', () => posix.getXattr(join(dir, 'file'), 'user.name'));
      },
    },
    {
      name: 'user attributes are read and written by who may read and write the file',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o600);
        posix.setXattr(file, 'user.name', 'value');
        await refused('EACCES', asUser(alice).call('getXattr', file, 'user.name'));
        await refused('EACCES', asUser(alice).call('setXattr', file, 'user.name', 'x'));
        posix.chmod(file, 0o604);
        assert.equal((await asUser(alice).call('getXattr', file, 'user.name')).toString(), 'value');
        await refused('EACCES', asUser(alice).call('setXattr', file, 'user.name', 'x'));
        await refused('EACCES', asUser(alice).call('removeXattr', file, 'user.name'));
        posix.chmod(file, 0o606);
        await asUser(alice).call('setXattr', file, 'user.name', 'changed');
        assert.equal(posix.getXattr(file, 'user.name').toString(), 'changed');
      },
    },
    {
      name: 'in a sticky directory user attributes of the directory are for its owner',
      async run(dir) {
        posix.chmod(dir, 0o1777);
        await refused('EPERM', asUser(alice).call('setXattr', dir, 'user.name', 'x'));
        posix.setXattr(dir, 'user.name', 'x');
      },
    },
    {
      name: 'trusted attributes are for root: others neither read nor set them',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        posix.setXattr(file, 'trusted.name', 'value');
        assert.deepEqual(posix.listXattrs(file), ['trusted.name']);
        await refused('EPERM', asUser(alice).call('setXattr', file, 'trusted.other', 'x'));
        await refused('ENODATA', asUser(alice).call('getXattr', file, 'trusted.name'));
        await refused('EPERM', asUser(alice).call('removeXattr', file, 'trusted.name'));
      },
    },
    {
      name: 'security attributes are read by everyone and set by root',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        posix.setXattr(file, 'security.sharedext-test', 'value');
        assert.equal((await asUser(alice).call('getXattr', file, 'security.sharedext-test')).toString(), 'value');
        await refused('EPERM', asUser(alice).call('setXattr', file, 'security.sharedext-test', 'x'));
        assert.deepEqual(posix.listXattrs(file), ['security.sharedext-test']);
      },
    },
    {
      name: 'an attribute changed by another process is read here at once',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        for (let round = 0; round < 5; round++) {
          await asUser(alice).call('setXattr', file, 'user.name', `${round}`);
          assert.equal(posix.getXattr(file, 'user.name').toString(), `${round}`);
        }
      },
    },
    {
      name: 'setting attributes leaves the content alone',
      run(dir) {
        put(join(dir, 'file'), 'content');
        for (let index = 0; index < 20; index++) posix.setXattr(join(dir, 'file'), `user.${index}`, pattern(500));
        assert.equal(textOf(join(dir, 'file')), 'content');
      },
    },
  ],
};
