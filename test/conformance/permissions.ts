/** Who may do what: the classes of owner, group and others, directories, and root. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, carol, type User } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { namesIn, put, refused, type Subject, textOf } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_DIRECTORY } = posix;

async function opens(user: User, name: string, flags: number): Promise<boolean> {
  try {
    await asUser(user).call('close', await asUser(user).call('open', name, flags));
    return true;
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'EACCES', String(error));
    return false;
  }
}

/** Asserts that the three bits of one class decide how its user may open the file. */
async function classDecides(file: string, user: User, shift: number): Promise<void> {
  for (let bits = 0; bits < 8; bits++) {
    // All other classes get the opposite: a mix-up shows.
    const others = 0o777 & ~(7 << shift);
    posix.chmod(file, (bits << shift) | (others & (~(bits * 0o111) & 0o777)));
    assert.equal(await opens(user, file, O_RDONLY), (bits & 4) !== 0, `read with ${bits}`);
    assert.equal(await opens(user, file, O_WRONLY), (bits & 2) !== 0, `write with ${bits}`);
    assert.equal(await opens(user, file, O_RDWR), (bits & 6) === 6, `read and write with ${bits}`);
  }
}

export const permissions: Subject = {
  subject: 'permissions',
  cases: [
    {
      name: "the owner's bits decide for the owner, even against the others",
      async run(dir) {
        put(join(dir, 'file'), 'content');
        posix.chown(join(dir, 'file'), alice.uid, alice.gid);
        await classDecides(join(dir, 'file'), alice, 6);
      },
    },
    {
      name: "the group's bits decide for a supplementary member, even against the others",
      async run(dir) {
        put(join(dir, 'file'), 'content');
        posix.chown(join(dir, 'file'), 0, alice.gid);
        await classDecides(join(dir, 'file'), carol, 3);
      },
    },
    {
      name: "the group's bits decide for a primary member",
      async run(dir) {
        put(join(dir, 'file'), 'content');
        posix.chown(join(dir, 'file'), 0, alice.gid);
        await classDecides(join(dir, 'file'), alice, 3);
      },
    },
    {
      name: "the others' bits decide for everyone else",
      async run(dir) {
        put(join(dir, 'file'), 'content');
        posix.chown(join(dir, 'file'), alice.uid, alice.gid);
        await classDecides(join(dir, 'file'), bob, 0);
      },
    },
    {
      name: 'access says the same as open',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o640);
        posix.chown(file, alice.uid, alice.gid);
        await asUser(alice).call('access', file, 6);
        await asUser(carol).call('access', file, 4);
        await refused('EACCES', asUser(carol).call('access', file, 2));
        await refused('EACCES', asUser(bob).call('access', file, 4));
        await refused('EACCES', asUser(alice).call('access', file, 1));
        posix.chmod(file, 0o641);
        await asUser(bob).call('access', file, 1);
      },
    },
    {
      name: 'a new mode or owner holds for the next open at once',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o600);
        for (let round = 0; round < 3; round++) {
          assert.equal(await opens(bob, file, O_RDONLY), false);
          posix.chmod(file, 0o604);
          assert.equal(await opens(bob, file, O_RDONLY), true);
          posix.chmod(file, 0o600);
          posix.chown(file, bob.uid, -1);
          assert.equal(await opens(bob, file, O_RDONLY), true);
          posix.chown(file, 0, -1);
        }
      },
    },
    {
      name: 'root reads and writes whatever the bits say',
      run(dir) {
        put(join(dir, 'file'), 'content', 0);
        posix.chown(join(dir, 'file'), alice.uid, alice.gid);
        posix.close(posix.open(join(dir, 'file'), O_RDWR));
        posix.mkdir(join(dir, 'sub'), 0);
        posix.chown(join(dir, 'sub'), alice.uid, alice.gid);
        put(join(dir, 'sub', 'file'), 'x');
        assert.equal(textOf(join(dir, 'sub', 'file')), 'x');
      },
    },
    {
      name: 'a directory that may be searched but not read shows the names that one knows',
      async run(dir) {
        const sub = join(dir, 'sub');
        posix.mkdir(sub);
        put(join(sub, 'file'), 'content');
        posix.chmod(sub, 0o711);
        assert.equal((await asUser(bob).call('readFile', join(sub, 'file'))).toString(), 'content');
        await refused('EACCES', asUser(bob).call('open', sub, O_RDONLY | O_DIRECTORY));
      },
    },
    {
      name: 'a directory that may be read but not searched shows its names and no more',
      async run(dir) {
        const sub = join(dir, 'sub');
        posix.mkdir(sub);
        put(join(sub, 'file'), 'content', 0o666);
        posix.chmod(sub, 0o744);
        const entries = await asUser(bob).call('entriesOf', sub);
        assert.equal(entries.length, 1);
        await refused('EACCES', asUser(bob).call('stat', join(sub, 'file')));
        await refused('EACCES', asUser(bob).call('open', join(sub, 'file'), O_RDONLY));
        await refused('EACCES', asUser(bob).call('stat', join(sub, 'missing')));
      },
    },
    {
      name: 'a search permission that is missing far above is missing below',
      async run(dir) {
        posix.mkdir(join(dir, 'a'));
        posix.mkdir(join(dir, 'a', 'b'));
        put(join(dir, 'a', 'b', 'file'), 'content', 0o666);
        await asUser(bob).call('readFile', join(dir, 'a', 'b', 'file'));
        posix.chmod(join(dir, 'a'), 0o700);
        await refused('EACCES', asUser(bob).call('readFile', join(dir, 'a', 'b', 'file')));
        posix.chmod(join(dir, 'a'), 0o755);
        await asUser(bob).call('readFile', join(dir, 'a', 'b', 'file'));
      },
    },
    {
      name: 'making, moving and removing names needs write permission on the directory',
      async run(dir) {
        put(join(dir, 'file'), '', 0o666);
        posix.chown(join(dir, 'file'), bob.uid, bob.gid);
        const user = asUser(bob);
        await refused('EACCES', user.call('open', join(dir, 'new'), O_CREAT | O_WRONLY));
        await refused('EACCES', user.call('mkdir', join(dir, 'new')));
        await refused('EACCES', user.call('symlink', 'x', join(dir, 'new')));
        await refused('EACCES', user.call('mknod', join(dir, 'new'), posix.S_IFIFO | 0o600));
        await refused('EACCES', user.call('link', join(dir, 'file'), join(dir, 'new')));
        await refused('EACCES', user.call('rename', join(dir, 'file'), join(dir, 'new')));
        await refused('EACCES', user.call('unlink', join(dir, 'file')));
        await user.call('close', await user.call('open', join(dir, 'file'), O_CREAT | O_WRONLY));
        assert.deepEqual(namesIn(dir), ['file']);
      },
    },
    {
      name: 'write permission without search permission on a directory is no use',
      async run(dir) {
        posix.mkdir(join(dir, 'sub'));
        posix.chmod(join(dir, 'sub'), 0o766);
        await refused('EACCES', asUser(bob).call('mkdir', join(dir, 'sub', 'new')));
      },
    },
    {
      name: 'a move needs write permission on both directories',
      async run(dir) {
        for (const sub of ['mine', 'theirs']) posix.mkdir(join(dir, sub));
        posix.chmod(join(dir, 'mine'), 0o777);
        put(join(dir, 'mine', 'a'));
        put(join(dir, 'theirs', 'b'));
        await refused('EACCES', asUser(bob).call('rename', join(dir, 'mine', 'a'), join(dir, 'theirs', 'a')));
        await refused('EACCES', asUser(bob).call('rename', join(dir, 'theirs', 'b'), join(dir, 'mine', 'b')));
      },
    },
    {
      name: 'moving a directory to another parent needs write permission on itself, for its dot-dot',
      async run(dir) {
        for (const sub of ['from', 'to']) {
          posix.mkdir(join(dir, sub));
          posix.chmod(join(dir, sub), 0o777);
        }
        posix.mkdir(join(dir, 'from', 'sub'), 0o755);
        await refused('EACCES', asUser(bob).call('rename', join(dir, 'from', 'sub'), join(dir, 'to', 'sub')));
        await asUser(bob).call('rename', join(dir, 'from', 'sub'), join(dir, 'from', 'renamed'));
        posix.chmod(join(dir, 'from', 'renamed'), 0o777);
        await asUser(bob).call('rename', join(dir, 'from', 'renamed'), join(dir, 'to', 'sub'));
      },
    },
    {
      name: 'a file is unlinked by who may write its directory, whatever its own bits',
      async run(dir) {
        posix.mkdir(join(dir, 'mine'));
        posix.chown(join(dir, 'mine'), bob.uid, bob.gid);
        put(join(dir, 'mine', 'file'), '', 0);
        await asUser(bob).call('unlink', join(dir, 'mine', 'file'));
      },
    },
    {
      name: 'cutting a file needs write permission on it',
      async run(dir) {
        put(join(dir, 'file'), 'content', 0o644);
        await refused('EACCES', asUser(bob).call('truncate', join(dir, 'file'), 0));
        assert.equal(textOf(join(dir, 'file')), 'content');
        posix.chmod(join(dir, 'file'), 0o646);
        await asUser(bob).call('truncate', join(dir, 'file'), 3);
        assert.equal(textOf(join(dir, 'file')), 'con');
      },
    },
    {
      name: 'device nodes are made by root only, fifos and sockets by everyone',
      async run(dir) {
        posix.chmod(dir, 0o777);
        await refused('EPERM', asUser(bob).call('mknod', join(dir, 'null'), posix.S_IFCHR | 0o666, 1, 3));
        await refused('EPERM', asUser(bob).call('mknod', join(dir, 'loop'), posix.S_IFBLK | 0o666, 7, 0));
        await asUser(bob).call('mknod', join(dir, 'fifo'), posix.S_IFIFO | 0o600);
        await asUser(bob).call('mknod', join(dir, 'socket'), posix.S_IFSOCK | 0o600);
        assert.deepEqual(namesIn(dir), ['fifo', 'socket']);
      },
    },
    {
      name: 'reading a link and its status needs search permission only',
      async run(dir) {
        posix.symlink('target', join(dir, 'link'));
        put(join(dir, 'secret'), '', 0);
        assert.equal((await asUser(bob).call('readlink', join(dir, 'link'))).toString(), 'target');
        assert.equal((await asUser(bob).call('stat', join(dir, 'secret'))).mode & 0o7777, 0);
      },
    },
    {
      name: 'a directory is left and entered by its search permission',
      async run(dir) {
        posix.mkdir(join(dir, 'closed'), 0o700);
        posix.mkdir(join(dir, 'open'), 0o711);
        await refused('EACCES', asUser(bob).call('changeDirectory', join(dir, 'closed')));
        await asUser(bob).call('changeDirectory', join(dir, 'open'));
        assert.equal((await asUser(bob).call('stat', '.')).ino, posix.stat(join(dir, 'open')).ino);
      },
    },
    {
      name: 'two users see the same file with the same content and status',
      async run(dir) {
        posix.chmod(dir, 0o777);
        await asUser(alice).call('writeFile', join(dir, 'file'), 'from alice', 0o644);
        assert.equal((await asUser(bob).call('readFile', join(dir, 'file'))).toString(), 'from alice');
        const [one, two] = await Promise.all([alice, bob].map((user) => asUser(user).call('stat', join(dir, 'file'))));
        assert.deepEqual(one, { ...two, atimeNs: one?.atimeNs });
      },
    },
  ],
};
