/** Who may do what beyond the classes of `permissions.ts`: times, owners, sticky directories, links, and descriptors opened anew. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { alice, asUser, bob, carol, root, type User } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { exists, fails, modeOf, namesIn, put, refused, type Subject, textOf } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_DIRECTORY, O_PATH, O_TRUNC } = posix;

/** How a call of another process ends: `ok` or an errno. */
async function endOf(act: Promise<unknown>): Promise<string> {
  return await act.then(
    () => 'ok',
    (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
  );
}

function ownersOf(name: string): readonly [number, number] {
  const { uid, gid } = posix.lstat(name);
  return [uid, gid];
}

/** A folder of a user's, with a mode. */
function folder(name: string, owner: User, mode: number): void {
  posix.mkdir(name);
  posix.chown(name, owner.uid, owner.gid);
  posix.chmod(name, mode);
}

function file(name: string, owner: User, mode: number, content = 'content'): void {
  put(name, content, mode);
  posix.chown(name, owner.uid, owner.gid);
  posix.chmod(name, mode);
}

const times: Subject['cases'] = [
  {
    name: 'who may set times, by owner, writer, reader and root, to given ones, to now, to one of the two, and to none',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o664);
      posix.chown(name, alice.uid, carol.gid);
      posix.chmod(name, 0o624);
      const wanted = [
        ['given', [1n, 2n]],
        ['now', ['now', 'now']],
        ['atime given', [1n, 'omit']],
        ['mtime now', ['omit', 'now']],
        ['now and given', ['now', 2n]],
        ['none', ['omit', 'omit']],
      ] as const;
      const ends = new Map<string, string[]>();
      for (const [who, user] of [
        ['owner', alice],
        ['writer', carol],
        ['reader', bob],
        ['root', root],
      ] as const) {
        const all: string[] = [];
        for (const [, [atime, mtime]] of wanted) {
          all.push(await endOf(asUser(user).call('setTimes', name, atime, mtime)));
        }
        ends.set(who, all);
      }
      assert.deepEqual(Object.fromEntries(ends), {
        owner: ['ok', 'ok', 'ok', 'ok', 'ok', 'ok'],
        writer: ['EPERM', 'ok', 'EPERM', 'EPERM', 'EPERM', 'ok'],
        reader: ['EPERM', 'EACCES', 'EPERM', 'EPERM', 'EPERM', 'ok'],
        root: ['ok', 'ok', 'ok', 'ok', 'ok', 'ok'],
      });
    },
  },
  {
    name: 'the times of a link itself are set by its owner only, whatever the target’s bits',
    async run(dir) {
      posix.chmod(dir, 0o777);
      file(join(dir, 'file'), bob, 0o666);
      await asUser(alice).call('symlink', 'file', join(dir, 'link'));
      const at = posix.AT_SYMLINK_NOFOLLOW;
      await asUser(alice).call('setTimes', join(dir, 'link'), 1n, 2n, at);
      await refused('EPERM', asUser(bob).call('setTimes', join(dir, 'link'), 3n, 4n, at));
      assert.equal(posix.lstat(join(dir, 'link')).mtimeNs, 2n);
      await refused('EPERM', asUser(alice).call('setTimes', join(dir, 'link'), 3n, 4n));
    },
  },
];

/** Whatever changes a file's content. */
function changes(name: string): ((user: User) => Promise<unknown>)[] {
  const withOpen = async (user: User, use: (fd: number) => Promise<unknown>): Promise<void> => {
    const fd = await asUser(user).call('open', name, O_WRONLY);
    await use(fd);
    await asUser(user).call('close', fd);
  };
  return [
    (user) => withOpen(user, (fd) => asUser(user).call('write', fd, 'x')),
    (user) => withOpen(user, (fd) => asUser(user).call('ftruncate', fd, 3)),
    (user) => asUser(user).call('truncate', name, 2),
    (user) => asUser(user).call('touch', name, O_WRONLY | O_TRUNC),
  ];
}

const owners: Subject['cases'] = [
  {
    name: 'an owner may leave owner and group as they are, by any way to say so, and no one else may give them',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o644);
      for (const [uid, gid] of [
        [-1, -1],
        [alice.uid, -1],
        [-1, alice.gid],
        [alice.uid, alice.gid],
      ] as const) {
        await asUser(alice).call('chown', name, uid, gid);
        if (uid !== -1 || gid !== -1) await refused('EPERM', asUser(bob).call('chown', name, uid, gid));
      }
      await refused('EPERM', asUser(alice).call('chown', name, bob.uid, -1));
      await refused('EPERM', asUser(alice).call('chown', name, -1, bob.gid));
      await refused('EPERM', asUser(alice).call('chown', name, 0, 0));
      assert.deepEqual(ownersOf(name), [alice.uid, alice.gid]);
    },
  },
  {
    name: 'an owner’s own change of group takes set-user-ID and set-group-ID from a program',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, carol, 0o6755);
      await asUser(carol).call('chown', name, -1, alice.gid);
      assert.equal(modeOf(name), 0o755);
      assert.deepEqual(ownersOf(name), [carol.uid, alice.gid]);
    },
  },
  {
    name: 'a change of owner that leaves both ids takes set-user-ID and set-group-ID all the same',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o6755);
      await asUser(alice).call('chown', name, -1, -1);
      assert.equal(modeOf(name), 0o755);
      posix.chmod(name, 0o6755);
      posix.chown(name, -1, -1);
      assert.equal(modeOf(name), 0o755);
    },
  },
  {
    name: 'everything made in a set-group-ID directory gets its group: fifos, sockets, links and unnamed files',
    needs: ['unnamed-files'],
    async run(dir) {
      folder(join(dir, 'sub'), root, 0o777);
      posix.chown(join(dir, 'sub'), 0, 777);
      posix.chmod(join(dir, 'sub'), 0o2777);
      const user = asUser(bob);
      const at = (name: string): string => join(dir, 'sub', name);
      await user.call('mknod', at('fifo'), posix.S_IFIFO | 0o600);
      await user.call('mknod', at('socket'), posix.S_IFSOCK | 0o600);
      await user.call('mknod', at('file'), posix.S_IFREG | 0o600);
      await user.call('symlink', 'x', at('link'));
      await user.call('mkdir', at('dir'));
      const fd = await user.call('openTemporary', join(dir, 'sub'), O_RDWR);
      await user.call('linkDescriptor', fd, at('unnamed'));
      await user.call('close', fd);
      for (const name of namesIn(join(dir, 'sub'))) assert.deepEqual(ownersOf(at(name)), [bob.uid, 777], name);
      assert.equal(modeOf(at('dir')) & 0o7000, 0o2000);
    },
  },
  {
    name: 'what is moved or linked into a set-group-ID directory keeps its group',
    async run(dir) {
      folder(join(dir, 'sub'), root, 0o777);
      posix.chown(join(dir, 'sub'), 0, 777);
      posix.chmod(join(dir, 'sub'), 0o2777);
      posix.chmod(dir, 0o777);
      await asUser(bob).call('writeFile', join(dir, 'file'), 'x');
      await asUser(bob).call('mkdir', join(dir, 'folder'));
      await asUser(bob).call('link', join(dir, 'file'), join(dir, 'sub', 'linked'));
      await asUser(bob).call('rename', join(dir, 'folder'), join(dir, 'sub', 'folder'));
      assert.deepEqual(ownersOf(join(dir, 'sub', 'linked')), [bob.uid, bob.gid]);
      assert.deepEqual(ownersOf(join(dir, 'sub', 'folder')), [bob.uid, bob.gid]);
      assert.equal(modeOf(join(dir, 'sub', 'folder')), 0o755);
    },
  },
  {
    name: 'a write of nothing leaves set-user-ID, a failed one as well, and so does reading',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, root, 0o6777);
      const fd = await asUser(alice).call('open', name, O_RDWR);
      await asUser(alice).call('write', fd, '');
      await asUser(alice).call('read', fd, 3);
      await asUser(alice).call('fsync', fd);
      await asUser(alice).call('close', fd);
      const reader = await asUser(alice).call('open', name, O_RDONLY);
      await refused('EBADF', asUser(alice).call('write', reader, 'x'));
      await asUser(alice).call('close', reader);
      assert.equal(modeOf(name), 0o6777);
    },
  },
  {
    name: 'set-group-ID without permission to run for the group stays on a change by a member',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o2666);
      for (const act of changes(name)) {
        for (const user of [alice, carol]) {
          await act(user);
          assert.equal(modeOf(name), 0o2666, `uid ${user.uid}: ${act}`);
        }
      }
    },
  },
  {
    name: 'set-group-ID without permission to run for the group goes on a change by who is no member',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o2666);
      for (const act of changes(name)) {
        await act(bob);
        assert.equal(modeOf(name), 0o666, `${act}`);
        posix.chmod(name, 0o2666);
      }
    },
  },
  {
    name: 'where set-user-ID goes with a member’s change, set-group-ID without permission to run for the group stays',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, alice, 0o6666);
      for (const act of changes(name)) {
        for (const user of [alice, carol]) {
          await act(user);
          assert.equal(modeOf(name), 0o2666, `uid ${user.uid}: ${act}`);
          posix.chmod(name, 0o6666);
        }
      }
    },
  },
];

const sticky: Subject['cases'] = [
  {
    name: 'in a sticky directory directories and links of others are not removed, renamed or replaced either',
    async run(dir) {
      folder(join(dir, 'tmp'), root, 0o1777);
      const at = (name: string): string => join(dir, 'tmp', name);
      folder(at('folder'), alice, 0o777);
      await asUser(alice).call('symlink', 'x', at('link'));
      await asUser(bob).call('mkdir', at('own'));
      await asUser(bob).call('symlink', 'y', at('own-link'));
      for (const name of ['folder', 'link']) {
        const remove = name === 'folder' ? 'rmdir' : 'unlink';
        const own = name === 'folder' ? 'own' : 'own-link';
        await refused('EPERM', asUser(bob).call(remove, at(name)));
        await refused('EPERM', asUser(bob).call('rename', at(name), at('moved')));
        await refused('EPERM', asUser(bob).call('rename', at(own), at(name)));
        await refused('EPERM', asUser(bob).call('rename', at(own), at(name), posix.RENAME_EXCHANGE));
        await refused('EPERM', asUser(bob).call('rename', at(name), at(own), posix.RENAME_EXCHANGE));
      }
      await asUser(alice).call('rmdir', at('folder'));
      await asUser(root).call('unlink', at('link'));
      assert.deepEqual(namesIn(join(dir, 'tmp')), ['own', 'own-link']);
    },
  },
  {
    name: 'nothing of others is moved out of a sticky directory, nor over what is theirs in it',
    async run(dir) {
      folder(join(dir, 'tmp'), root, 0o1777);
      folder(join(dir, 'home'), bob, 0o755);
      file(join(dir, 'tmp', 'theirs'), alice, 0o666);
      file(join(dir, 'home', 'own'), bob, 0o666, 'own');
      const theirs = join(dir, 'tmp', 'theirs');
      const own = join(dir, 'home', 'own');
      await refused('EPERM', asUser(bob).call('rename', theirs, join(dir, 'home', 'loot')));
      await refused('EPERM', asUser(bob).call('rename', own, theirs));
      await refused('EPERM', asUser(bob).call('rename', own, theirs, posix.RENAME_EXCHANGE));
      assert.equal(textOf(theirs), 'content');
      await asUser(bob).call('rename', own, join(dir, 'tmp', 'own'));
      await asUser(bob).call('rename', join(dir, 'tmp', 'own'), own);
    },
  },
  {
    name: 'a sticky directory is its owner’s: he removes what others made, and takes the bit away',
    async run(dir) {
      folder(join(dir, 'tmp'), alice, 0o1777);
      folder(join(dir, 'tmp', 'folder'), bob, 0o700);
      file(join(dir, 'tmp', 'file'), bob, 0o600);
      await refused('EPERM', asUser(bob).call('chmod', join(dir, 'tmp'), 0o777));
      await asUser(alice).call('rmdir', join(dir, 'tmp', 'folder'));
      await asUser(alice).call('chmod', join(dir, 'tmp'), 0o777);
      await asUser(carol).call('unlink', join(dir, 'tmp', 'file'));
    },
  },
];

const links: Subject['cases'] = [
  {
    name: 'a file that one may not read and write gets no second name, if the system says so',
    async run(dir) {
      posix.chmod(dir, 0o777);
      const on = readFileSync('/proc/sys/fs/protected_hardlinks', 'utf8').trim() === '1';
      file(join(dir, 'open'), alice, 0o666);
      file(join(dir, 'readable'), alice, 0o644);
      file(join(dir, 'closed'), alice, 0o600);
      file(join(dir, 'program'), alice, 0o6777);
      const expected = on ? { open: 'ok', readable: 'EPERM', closed: 'EPERM', program: 'EPERM' } : undefined;
      for (const name of ['open', 'readable', 'closed', 'program'] as const) {
        const end = await endOf(asUser(bob).call('link', join(dir, name), join(dir, `${name}-2`)));
        assert.equal(end, expected?.[name] ?? 'ok', name);
        assert.equal(posix.stat(join(dir, name)).nlink, end === 'ok' ? 2 : 1);
      }
    },
  },
  {
    name: 'a link into a directory needs write permission on the directory, and none on the file’s own',
    async run(dir) {
      folder(join(dir, 'from'), root, 0o755);
      folder(join(dir, 'to'), bob, 0o755);
      file(join(dir, 'from', 'file'), bob, 0o600);
      await asUser(bob).call('link', join(dir, 'from', 'file'), join(dir, 'to', 'file'));
      await refused('EACCES', asUser(bob).call('link', join(dir, 'to', 'file'), join(dir, 'from', 'second')));
      await asUser(bob).call('unlink', join(dir, 'to', 'file'));
    },
  },
  {
    name: 'an exchange needs write permission on both directories, and on both folders that change their parents',
    async run(dir) {
      folder(join(dir, 'mine'), bob, 0o755);
      folder(join(dir, 'shared'), root, 0o777);
      folder(join(dir, 'mine', 'folder'), bob, 0o755);
      folder(join(dir, 'shared', 'theirs'), alice, 0o755);
      folder(join(dir, 'shared', 'open'), alice, 0o777);
      const exchange = (to: string): Promise<void> =>
        asUser(bob).call('rename', join(dir, 'mine', 'folder'), join(dir, to), posix.RENAME_EXCHANGE);
      await refused('EACCES', exchange('shared/theirs'));
      await exchange('shared/open');
      await refused(
        'EACCES',
        asUser(alice).call('rename', join(dir, 'shared/theirs'), join(dir, 'mine/folder'), posix.RENAME_EXCHANGE),
      );
      assert.deepEqual(ownersOf(join(dir, 'mine', 'folder')), [alice.uid, alice.gid]);
    },
  },
  {
    name: 'a folder of someone else’s is removed by who may write its parent, if it is empty',
    async run(dir) {
      folder(join(dir, 'mine'), bob, 0o755);
      folder(join(dir, 'mine', 'empty'), alice, 0o700);
      folder(join(dir, 'mine', 'full'), alice, 0o700);
      put(join(dir, 'mine', 'full', 'file'));
      await asUser(bob).call('rmdir', join(dir, 'mine', 'empty'));
      await asUser(bob).call('rename', join(dir, 'mine', 'full'), join(dir, 'mine', 'renamed'));
      assert.match(await endOf(asUser(bob).call('rmdir', join(dir, 'mine', 'renamed'))), /ENOTEMPTY|EEXIST/);
    },
  },
  {
    name: 'a supplementary group’s member makes, moves and removes in the group’s directory, others don’t',
    async run(dir) {
      folder(join(dir, 'group'), alice, 0o770);
      await asUser(carol).call('writeFile', join(dir, 'group', 'file'), 'x');
      await asUser(carol).call('mkdir', join(dir, 'group', 'sub'));
      await asUser(carol).call('rename', join(dir, 'group', 'file'), join(dir, 'group', 'sub', 'file'));
      await asUser(carol).call('unlink', join(dir, 'group', 'sub', 'file'));
      await asUser(carol).call('rmdir', join(dir, 'group', 'sub'));
      await refused('EACCES', asUser(bob).call('mkdir', join(dir, 'group', 'sub')));
      await refused('EACCES', asUser(bob).call('entriesOf', join(dir, 'group')));
      assert.ok(!exists(join(dir, 'group', 'sub')));
    },
  },
];

const descriptors: Subject['cases'] = [
  {
    name: 'opening a descriptor again through /proc asks for permission anew',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, root, 0o644);
      const user = asUser(bob);
      const fd = await user.call('open', name, O_RDONLY);
      const path = await user.call('open', name, O_PATH);
      for (const again of [fd, path]) {
        await user.call('close', await user.call('open', `/proc/self/fd/${again}`, O_RDONLY));
        await refused('EACCES', user.call('open', `/proc/self/fd/${again}`, O_WRONLY));
        await refused('EACCES', user.call('truncate', `/proc/self/fd/${again}`, 0));
        await refused('EPERM', user.call('chmod', `/proc/self/fd/${again}`, 0o666));
      }
      posix.chmod(name, 0o600);
      await refused('EACCES', user.call('open', `/proc/self/fd/${fd}`, O_RDONLY));
      await refused('EACCES', user.call('open', `/proc/self/fd/${path}`, O_RDONLY));
      assert.equal((await user.call('read', fd, 7, 0)).toString(), 'content');
      for (const own of [fd, path]) await user.call('close', own);
    },
  },
  {
    name: 'a directory’s descriptor opens nothing below once search permission is gone, but goes on being listed',
    async run(dir) {
      folder(join(dir, 'sub'), root, 0o755);
      file(join(dir, 'sub', 'file'), root, 0o644);
      const user = asUser(bob);
      const fd = await user.call('open', join(dir, 'sub'), O_RDONLY | O_DIRECTORY);
      await user.call('close', await user.call('openAt', fd, 'file', O_RDONLY));
      posix.chmod(join(dir, 'sub'), 0o700);
      await refused('EACCES', user.call('openAt', fd, 'file', O_RDONLY));
      assert.equal((await user.call('readAllEntries', fd)).length, 3);
      await user.call('close', fd);
    },
  },
  {
    name: 'what was opened is read, written and cut whatever happens to mode, owner and name',
    async run(dir) {
      const name = join(dir, 'file');
      file(name, bob, 0o600);
      const user = asUser(bob);
      const fd = await user.call('open', name, O_RDWR);
      posix.chown(name, 0, 0);
      posix.unlink(name);
      await user.call('write', fd, 'CON', 0);
      await user.call('ftruncate', fd, 5);
      assert.equal((await user.call('read', fd, 10, 0)).toString(), 'CONte');
      await refused('EPERM', user.call('fchmod', fd, 0o777));
      await refused('EPERM', user.call('fchown', fd, bob.uid, bob.gid));
      await user.call('close', fd);
    },
  },
  {
    name: 'O_NOATIME can be set on a descriptor by the owner only',
    async run(dir) {
      const O_NOATIME = 0o1000000;
      file(join(dir, 'file'), alice, 0o644);
      const fd = await asUser(bob).call('open', join(dir, 'file'), O_RDONLY);
      await refused('EPERM', asUser(bob).call('setStatusFlags', fd, O_NOATIME));
      await asUser(bob).call('close', fd);
      const own = await asUser(alice).call('open', join(dir, 'file'), O_RDONLY);
      await asUser(alice).call('setStatusFlags', own, O_NOATIME);
      await asUser(alice).call('close', own);
    },
  },
  {
    name: 'capabilities of a program are set by root only, and an ACL by the owner only',
    async run(dir) {
      const name = join(dir, 'program');
      file(name, alice, 0o755);
      // Revision 2, effective; CAP_NET_RAW permitted.
      const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
      await refused('EPERM', asUser(alice).call('setXattr', name, 'security.capability', capability));
      posix.setXattr(name, 'security.capability', capability);
      await refused('EPERM', asUser(alice).call('removeXattr', name, 'security.capability'));
      assert.ok((await asUser(bob).call('getXattr', name, 'security.capability')).equals(capability));
      await refused('EPERM', asUser(bob).call('removeXattr', name, 'system.posix_acl_access'));
    },
  },
  {
    name: 'user attributes of a fifo, a socket or a device are nobody’s, and a name without permission tells nothing',
    async run(dir) {
      posix.chmod(dir, 0o777);
      await asUser(bob).call('mknod', join(dir, 'fifo'), posix.S_IFIFO | 0o666);
      await asUser(bob).call('mknod', join(dir, 'socket'), posix.S_IFSOCK | 0o666);
      for (const name of ['fifo', 'socket']) {
        await refused('EPERM', asUser(bob).call('setXattr', join(dir, name), 'user.x', 'x'));
        await refused('ENODATA', asUser(bob).call('getXattr', join(dir, name), 'user.x'));
        assert.deepEqual(await asUser(bob).call('listXattrs', join(dir, name)), []);
      }
      folder(join(dir, 'closed'), alice, 0o700);
      put(join(dir, 'closed', 'file'));
      for (const name of ['file', 'missing']) {
        await refused('EACCES', asUser(bob).call('listXattrs', join(dir, 'closed', name)));
        await refused('EACCES', asUser(bob).call('lstat', join(dir, 'closed', name)));
        await refused('EACCES', asUser(bob).call('unlink', join(dir, 'closed', name)));
        await refused('EACCES', asUser(bob).call('open', join(dir, 'closed', name), O_RDWR | O_CREAT));
      }
    },
  },
  {
    name: 'nobody but root finds a file by its handle',
    async run(dir) {
      file(join(dir, 'file'), bob, 0o666);
      const handle = await asUser(bob).call('handleOf', join(dir, 'file'));
      await refused('EPERM', asUser(bob).call('inodeByHandle', dir, handle));
      assert.equal(await asUser(root).call('inodeByHandle', dir, handle), posix.stat(join(dir, 'file')).ino);
      fails('ENOENT', () => posix.handleOf(join(dir, 'missing')));
    },
  },
];

export const privileges: Subject = {
  subject: 'privileges',
  cases: [...times, ...owners, ...sticky, ...links, ...descriptors],
};
