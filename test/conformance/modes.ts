/** Permission bits and owners: the umask, inheritance from directories, and what takes set-user-ID and set-group-ID away. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, carol, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, modeOf, put, refused, type Subject, textOf, withFile } from './case.ts';

const { O_WRONLY, O_RDWR, O_CREAT } = posix;

function ownersOf(name: string): readonly [number, number] {
  const { uid, gid } = posix.stat(name);
  return [uid, gid];
}

/** A file of root's that runs as root, and that everyone may write. */
function putPrivileged(name: string, mode = 0o6777): void {
  put(name, 'content', mode);
  assert.equal(modeOf(name), mode);
}

const bits: Subject['cases'] = [
  {
    name: 'the umask takes bits from everything that is made',
    async run(dir) {
      const other = asUser(root);
      assert.equal(await other.call('umask', 0o027), 0o022);
      try {
        await other.call('close', await other.call('open', join(dir, 'file'), O_CREAT | O_WRONLY, 0o666));
        await other.call('mkdir', join(dir, 'sub'), 0o777);
        await other.call('mknod', join(dir, 'fifo'), posix.S_IFIFO | 0o666);
        await other.call('symlink', 'x', join(dir, 'link'));
      } finally {
        await other.call('umask', 0o022);
      }
      assert.equal(modeOf(join(dir, 'file')), 0o640);
      assert.equal(modeOf(join(dir, 'sub')), 0o750);
      assert.equal(modeOf(join(dir, 'fifo')), 0o640);
      assert.equal(posix.lstat(join(dir, 'link')).mode & 0o7777, 0o777);
    },
  },
  {
    name: 'all twelve bits of a file and of a directory can be set',
    run(dir) {
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'sub'));
      for (const name of ['file', 'sub']) {
        for (let bit = 0; bit < 12; bit++) {
          posix.chmod(join(dir, name), 1 << bit);
          assert.equal(modeOf(join(dir, name)), 1 << bit);
        }
        posix.chmod(join(dir, name), 0o7777);
        assert.equal(modeOf(join(dir, name)), 0o7777);
      }
      assert.equal(posix.stat(join(dir, 'file')).mode & posix.S_IFMT, posix.S_IFREG);
    },
  },
  {
    name: 'fchmod and chmod agree',
    run(dir) {
      put(join(dir, 'file'));
      withFile(join(dir, 'file'), O_RDWR, (fd) => {
        posix.fchmod(fd, 0o4750);
        assert.equal(modeOf(join(dir, 'file')), 0o4750);
        posix.chmod(join(dir, 'file'), 0o604);
        assert.equal(posix.fstat(fd).mode & 0o7777, 0o604);
      });
    },
  },
  {
    name: 'a mode given to open may hold set-user-ID, which the umask does not touch',
    run(dir) {
      withFile(join(dir, 'file'), O_CREAT | O_WRONLY, () => undefined, 0o4777);
      assert.equal(modeOf(join(dir, 'file')), 0o4755);
      posix.mkdir(join(dir, 'sub'), 0o1777);
      assert.equal(modeOf(join(dir, 'sub')), 0o1755);
    },
  },
  {
    name: 'a write to a descriptor goes on after the mode was taken away',
    async run(dir) {
      put(join(dir, 'file'), '', 0o666);
      const fd = await asUser(alice).call('open', join(dir, 'file'), O_WRONLY);
      posix.chmod(join(dir, 'file'), 0);
      await asUser(alice).call('write', fd, 'still');
      await asUser(alice).call('close', fd);
      assert.equal(textOf(join(dir, 'file')), 'still');
    },
  },
];

const owners: Subject['cases'] = [
  {
    name: 'what is made belongs to the user and group of who makes it',
    async run(dir) {
      posix.chmod(dir, 0o777);
      const other = asUser(carol);
      await other.call('writeFile', join(dir, 'file'), 'x');
      await other.call('mkdir', join(dir, 'sub'));
      await other.call('symlink', 'x', join(dir, 'link'));
      await other.call('mknod', join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      for (const name of ['file', 'sub', 'link', 'fifo']) {
        const { uid, gid } = posix.lstat(join(dir, name));
        assert.deepEqual([uid, gid], [carol.uid, carol.gid], name);
      }
    },
  },
  {
    name: 'root gives files away, one id or both, and -1 leaves an id alone',
    run(dir) {
      const file = join(dir, 'file');
      put(file);
      posix.chown(file, 1, 2);
      assert.deepEqual(ownersOf(file), [1, 2]);
      posix.chown(file, 3, -1);
      assert.deepEqual(ownersOf(file), [3, 2]);
      posix.chown(file, -1, 4);
      assert.deepEqual(ownersOf(file), [3, 4]);
      posix.chown(file, 0xfffffffe, 0xfffffffe);
      assert.deepEqual(ownersOf(file), [0xfffffffe, 0xfffffffe]);
    },
  },
  {
    name: 'an owner gives a file to a group of his, and to no other user or group',
    async run(dir) {
      const file = join(dir, 'file');
      put(file);
      posix.chown(file, carol.uid, carol.gid);
      const other = asUser(carol);
      await other.call('chown', file, -1, alice.gid);
      assert.deepEqual(ownersOf(file), [carol.uid, alice.gid]);
      await other.call('chown', file, carol.uid, carol.gid);
      await other.call('chown', file, -1, -1);
      await refused('EPERM', other.call('chown', file, -1, bob.gid));
      await refused('EPERM', other.call('chown', file, bob.uid, -1));
      await refused('EPERM', asUser(bob).call('chown', file, -1, bob.gid));
      assert.deepEqual(ownersOf(file), [carol.uid, carol.gid]);
    },
  },
  {
    name: 'a set-group-ID directory hands its group on, and directories hand on the bit',
    run(dir) {
      const shared = join(dir, 'shared');
      posix.mkdir(shared);
      posix.chown(shared, 0, 4321);
      posix.chmod(shared, 0o2775);
      put(join(shared, 'file'));
      posix.mkdir(join(shared, 'sub'));
      posix.mknod(join(shared, 'fifo'), posix.S_IFIFO | 0o600);
      posix.symlink('x', join(shared, 'link'));
      put(join(shared, 'sub', 'file'));
      for (const name of ['file', 'sub', 'fifo', 'link', 'sub/file']) {
        assert.equal(posix.lstat(join(shared, name)).gid, 4321, name);
      }
      assert.equal(modeOf(join(shared, 'sub')), 0o2755);
      assert.equal(modeOf(join(shared, 'file')), 0o644);
    },
  },
  {
    name: 'in a set-group-ID directory a stranger to the group cannot make a set-group-ID program',
    async run(dir) {
      posix.chown(dir, 0, alice.gid);
      posix.chmod(dir, 0o2777);
      for (const user of [bob, carol]) {
        const name = join(dir, `${user.uid}`);
        const fd = await asUser(user).call('open', name, O_CREAT | O_WRONLY, 0o2755);
        await asUser(user).call('close', fd);
      }
      assert.deepEqual([modeOf(join(dir, `${bob.uid}`)), posix.stat(join(dir, `${bob.uid}`)).gid], [0o755, alice.gid]);
      assert.equal(modeOf(join(dir, `${carol.uid}`)), 0o2755);
    },
  },
  {
    name: 'an owner who is no member of the group loses set-group-ID by chmod',
    async run(dir) {
      const file = join(dir, 'file');
      put(file);
      posix.chown(file, bob.uid, alice.gid);
      await asUser(bob).call('chmod', file, 0o2755);
      assert.equal(modeOf(file), 0o755);
      posix.chown(file, carol.uid, alice.gid);
      await asUser(carol).call('chmod', file, 0o2755);
      assert.equal(modeOf(file), 0o2755);
    },
  },
  {
    name: 'only the owner and root change the mode',
    async run(dir) {
      put(join(dir, 'file'), '', 0o666);
      posix.chown(join(dir, 'file'), alice.uid, alice.gid);
      await refused('EPERM', asUser(bob).call('chmod', join(dir, 'file'), 0o777));
      await asUser(alice).call('chmod', join(dir, 'file'), 0o600);
      posix.chmod(join(dir, 'file'), 0o640);
      assert.equal(modeOf(join(dir, 'file')), 0o640);
    },
  },
];

/** What a user without privilege does to a file of root's that must cost it set-user-ID and set-group-ID. */
const takingAway: readonly (readonly [string, (file: string, dir: string) => Promise<unknown>])[] = [
  [
    'a write',
    async (file) => {
      const fd = await asUser(alice).call('open', file, O_WRONLY);
      await asUser(alice).call('write', fd, 'x');
      await asUser(alice).call('close', fd);
    },
  ],
  ['a truncation by name', (file) => asUser(alice).call('truncate', file, 3)],
  [
    'a truncation by descriptor',
    async (file) => {
      const fd = await asUser(alice).call('open', file, O_WRONLY);
      await asUser(alice).call('ftruncate', fd, 100);
      await asUser(alice).call('close', fd);
    },
  ],
  [
    'opening with O_TRUNC',
    async (file) => {
      const fd = await asUser(alice).call('open', file, O_WRONLY | posix.O_TRUNC);
      await asUser(alice).call('close', fd);
    },
  ],
  [
    'a copy into it',
    async (file, dir) => {
      put(join(dir, 'source'), 'source content', 0o644);
      const from = await asUser(alice).call('open', join(dir, 'source'), posix.O_RDONLY);
      const to = await asUser(alice).call('open', file, O_WRONLY);
      assert.equal(await asUser(alice).call('copyFileRange', from, 0, to, 0, 14), 14);
      await asUser(alice).call('close', from);
      await asUser(alice).call('close', to);
    },
  ],
];

const privileged: Subject['cases'] = [
  ...takingAway.map(([what, act]) => ({
    name: `${what} by a user without privilege takes set-user-ID and set-group-ID away`,
    async run(dir: string) {
      const file = join(dir, 'file');
      putPrivileged(file);
      await act(file, dir);
      assert.equal(modeOf(file), 0o777);
    },
  })),
  {
    name: 'a preallocation by a user without privilege takes set-user-ID and set-group-ID away',
    needs: ['preallocation'],
    async run(dir) {
      const file = join(dir, 'file');
      putPrivileged(file);
      const fd = await asUser(alice).call('open', file, O_WRONLY);
      await asUser(alice).call('fallocate', fd, 0, 0, 65536);
      await asUser(alice).call('close', fd);
      assert.equal(modeOf(file), 0o777);
    },
  },
  {
    name: 'a write or truncation by root leaves set-user-ID and set-group-ID',
    run(dir) {
      const file = join(dir, 'file');
      putPrivileged(file);
      withFile(file, O_WRONLY, (fd) => posix.write(fd, 'x'));
      posix.truncate(file, 3);
      assert.equal(modeOf(file), 0o6777);
    },
  },
  {
    name: "set-user-ID is taken away from the owner's own write, too",
    async run(dir) {
      const file = join(dir, 'file');
      putPrivileged(file, 0o4755);
      posix.chown(file, alice.uid, alice.gid);
      posix.chmod(file, 0o4755);
      const fd = await asUser(alice).call('open', file, O_WRONLY);
      await asUser(alice).call('write', fd, 'x');
      // Visible at once, while the file is still open.
      assert.equal(modeOf(file), 0o755);
      await asUser(alice).call('close', fd);
    },
  },
  {
    name: 'a change of owner takes set-user-ID and set-group-ID from a program, whoever does it',
    run(dir) {
      const file = join(dir, 'file');
      putPrivileged(file);
      posix.chown(file, 1, -1);
      assert.equal(modeOf(file), 0o777);
      posix.chmod(file, 0o6777);
      posix.chown(file, -1, 2);
      assert.equal(modeOf(file), 0o777);
    },
  },
  {
    name: 'a change of owner leaves the bits of a directory',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      posix.chmod(join(dir, 'sub'), 0o7777);
      posix.chown(join(dir, 'sub'), 1, 2);
      assert.equal(modeOf(join(dir, 'sub')), 0o7777);
    },
  },
  {
    name: 'a write takes the capabilities of a program away, even if root writes',
    async run(dir) {
      const file = join(dir, 'file');
      // linux/capability.h: revision 2, effective, CAP_NET_RAW.
      const capability = Buffer.alloc(20);
      capability.writeUInt32LE(0x02000001, 0);
      capability.writeUInt32LE(1 << 13, 4);
      for (const user of [root, alice]) {
        put(file, 'content', 0o777);
        posix.setXattr(file, 'security.capability', capability);
        const fd = await asUser(user).call('open', file, O_WRONLY);
        assert.deepEqual(posix.getXattr(file, 'security.capability'), capability);
        await asUser(user).call('write', fd, 'x');
        fails('ENODATA', () => posix.getXattr(file, 'security.capability'));
        await asUser(user).call('close', fd);
        posix.unlink(file);
      }
    },
  },
];

const sticky: Subject['cases'] = [
  {
    name: "in a sticky directory one cannot remove, rename or replace another one's file",
    async run(dir) {
      posix.chmod(dir, 0o1777);
      await asUser(alice).call('writeFile', join(dir, 'file'), 'alice', 0o666);
      await asUser(bob).call('writeFile', join(dir, 'mine'), 'bob');
      await asUser(alice).call('mkdir', join(dir, 'sub'));
      await refused('EPERM', asUser(bob).call('unlink', join(dir, 'file')));
      await refused('EPERM', asUser(bob).call('rmdir', join(dir, 'sub')));
      await refused('EPERM', asUser(bob).call('rename', join(dir, 'file'), join(dir, 'stolen')));
      await refused('EPERM', asUser(bob).call('rename', join(dir, 'mine'), join(dir, 'file')));
      assert.equal(textOf(join(dir, 'file')), 'alice');
      await asUser(alice).call('unlink', join(dir, 'file'));
      await asUser(alice).call('rmdir', join(dir, 'sub'));
    },
  },
  {
    name: 'the owner of a sticky directory removes what is in it',
    async run(dir) {
      posix.chown(dir, bob.uid, bob.gid);
      posix.chmod(dir, 0o1777);
      await asUser(alice).call('writeFile', join(dir, 'file'), 'alice');
      await asUser(bob).call('unlink', join(dir, 'file'));
    },
  },
  {
    name: 'without the sticky bit write permission on the directory is enough',
    async run(dir) {
      posix.chmod(dir, 0o777);
      put(join(dir, 'file'), '', 0o400);
      await asUser(bob).call('rename', join(dir, 'file'), join(dir, 'moved'));
      await asUser(bob).call('unlink', join(dir, 'moved'));
    },
  },
];

export const modes: Subject = { subject: 'modes', cases: [...bits, ...owners, ...privileged, ...sticky] };
