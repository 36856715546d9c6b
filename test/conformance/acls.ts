/** Access control lists: acl(5), written as the kernel stores them, in the attributes system.posix_acl_*. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, carol } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, modeOf, put, refused, type Subject } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR } = posix;

/** linux/posix_acl.h */
const tags = { 'user-owner': 0x01, user: 0x02, 'group-owner': 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const;

const NO_ID = 0xffffffff;
const VERSION = 2;
const HEADER_SIZE = 4;
const ENTRY_SIZE = 8;

type Entry = readonly [tag: keyof typeof tags, permissions: number, id?: number];

/** linux/posix_acl_xattr.h: a version and the entries, which are sorted by tag and id. */
function encoded(...entries: readonly Entry[]): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + entries.length * ENTRY_SIZE);
  bytes.writeUInt32LE(VERSION, 0);
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    const at = HEADER_SIZE + index * ENTRY_SIZE;
    bytes.writeUInt16LE(tags[tag], at);
    bytes.writeUInt16LE(permissions, at + 2);
    bytes.writeUInt32LE(id ?? NO_ID, at + 4);
  }
  return bytes;
}

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';

/** rw for the owner, nothing for group and others, and more for bob. */
function withBob(permissions: number, mask = 7): Buffer {
  return encoded(['user-owner', 6], ['user', permissions, bob.uid], ['group-owner', 0], ['mask', mask], ['other', 0]);
}

async function opens(user: typeof bob, name: string, flags: number): Promise<void> {
  await asUser(user).call('close', await asUser(user).call('open', name, flags));
}

const list: Subject['cases'] = [
  {
    name: 'an entry for a user gives him what the bits alone would not',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      await refused('EACCES', opens(bob, file, O_RDONLY));
      posix.setXattr(file, ACCESS, withBob(6));
      await opens(bob, file, O_RDWR);
      await refused('EACCES', opens(carol, file, O_RDONLY));
      posix.setXattr(file, ACCESS, withBob(4));
      await opens(bob, file, O_RDONLY);
      await refused('EACCES', opens(bob, file, O_WRONLY));
    },
  },
  {
    name: 'the mask limits entries for users and groups, and shows as the bits of the group',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      posix.setXattr(file, ACCESS, withBob(6, 4));
      assert.equal(modeOf(file), 0o640);
      await opens(bob, file, O_RDONLY);
      await refused('EACCES', opens(bob, file, O_WRONLY));
    },
  },
  {
    name: 'chmod changes the mask and the entries of owner and others',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      posix.setXattr(file, ACCESS, withBob(6));
      // Not 0o604: without any bit of the group the kernel doesn't look at the list (acl_permission_check in fs/namei.c).
      posix.chmod(file, 0o614);
      await refused('EACCES', opens(bob, file, O_RDONLY));
      await opens(carol, file, O_RDONLY);
      posix.chmod(file, 0o660);
      await opens(bob, file, O_RDWR);
      const expected = encoded(['user-owner', 6], ['user', 6, bob.uid], ['group-owner', 0], ['mask', 6], ['other', 0]);
      assert.deepEqual(posix.getXattr(file, ACCESS), expected);
    },
  },
  {
    name: 'an entry for a group counts for its supplementary members',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      const acl = encoded(['user-owner', 6], ['group-owner', 0], ['group', 4, alice.gid], ['mask', 4], ['other', 0]);
      posix.setXattr(file, ACCESS, acl);
      await opens(carol, file, O_RDONLY);
      await opens(alice, file, O_RDONLY);
      await refused('EACCES', opens(bob, file, O_RDONLY));
    },
  },
  {
    name: 'an entry may take from a user what others have',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o644);
      const acl = encoded(['user-owner', 6], ['user', 0, bob.uid], ['group-owner', 4], ['mask', 4], ['other', 4]);
      posix.setXattr(file, ACCESS, acl);
      await refused('EACCES', opens(bob, file, O_RDONLY));
      await opens(carol, file, O_RDONLY);
    },
  },
  {
    name: 'a list is read back as it was written, is listed, and can be removed',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      fails('ENODATA', () => posix.getXattr(file, ACCESS));
      posix.setXattr(file, ACCESS, withBob(4));
      assert.deepEqual(posix.getXattr(file, ACCESS), withBob(4));
      assert.ok(posix.listXattrs(file).includes(ACCESS));
      posix.removeXattr(file, ACCESS);
      fails('ENODATA', () => posix.getXattr(file, ACCESS));
      assert.ok(!posix.listXattrs(file).includes(ACCESS));
      await refused('EACCES', opens(bob, file, O_RDONLY));
    },
  },
  {
    name: 'a list that says no more than the bits becomes the bits',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      posix.setXattr(file, ACCESS, encoded(['user-owner', 6], ['group-owner', 5], ['other', 1]));
      assert.equal(modeOf(file), 0o651);
      fails('ENODATA', () => posix.getXattr(file, ACCESS));
    },
  },
  {
    name: 'a list that makes no sense is refused',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o600);
      fails('EINVAL', () => posix.setXattr(file, ACCESS, encoded(['user-owner', 6])));
      // Entries for users need a mask.
      const withoutMask = encoded(['user-owner', 6], ['user', 6, bob.uid], ['group-owner', 0], ['other', 0]);
      fails('EINVAL', () => posix.setXattr(file, ACCESS, withoutMask));
      fails('EINVAL', () => posix.setXattr(file, ACCESS, Buffer.from([2, 0, 0, 0, 1])));
      assert.equal(modeOf(file), 0o600);
    },
  },
  {
    name: 'only the owner changes a list',
    async run(dir) {
      const file = join(dir, 'file');
      put(file, 'content', 0o666);
      await refused('EPERM', asUser(bob).call('setXattr', file, ACCESS, withBob(7)));
      posix.chown(file, bob.uid, -1);
      await asUser(bob).call('setXattr', file, ACCESS, withBob(7));
    },
  },
  {
    name: 'the list of a directory decides about searching and writing it',
    async run(dir) {
      const sub = join(dir, 'sub');
      posix.mkdir(sub, 0o700);
      await refused('EACCES', asUser(bob).call('writeFile', join(sub, 'file'), 'x'));
      const acl = encoded(['user-owner', 7], ['user', 7, bob.uid], ['group-owner', 0], ['mask', 7], ['other', 0]);
      posix.setXattr(sub, ACCESS, acl);
      await asUser(bob).call('writeFile', join(sub, 'file'), 'x');
      await refused('EACCES', asUser(carol).call('stat', join(sub, 'file')));
    },
  },
];

const inherited = encoded(['user-owner', 7], ['user', 6, bob.uid], ['group-owner', 5], ['mask', 7], ['other', 0]);

const defaults: Subject['cases'] = [
  {
    name: "a new file takes its directory's default list instead of the umask",
    async run(dir) {
      posix.setXattr(dir, DEFAULT, inherited);
      posix.close(posix.open(join(dir, 'file'), posix.O_CREAT | O_WRONLY, 0o666));
      assert.equal(modeOf(join(dir, 'file')), 0o660);
      await opens(bob, join(dir, 'file'), O_RDWR);
      await refused('EACCES', opens(carol, join(dir, 'file'), O_RDONLY));
      const expected = encoded(['user-owner', 6], ['user', 6, bob.uid], ['group-owner', 5], ['mask', 6], ['other', 0]);
      assert.deepEqual(posix.getXattr(join(dir, 'file'), ACCESS), expected);
    },
  },
  {
    name: 'the mode given at creation limits what the default list gives',
    async run(dir) {
      posix.setXattr(dir, DEFAULT, inherited);
      posix.close(posix.open(join(dir, 'file'), posix.O_CREAT | O_WRONLY, 0o640));
      assert.equal(modeOf(join(dir, 'file')), 0o640);
      await refused('EACCES', opens(bob, join(dir, 'file'), O_WRONLY));
      await opens(bob, join(dir, 'file'), O_RDONLY);
    },
  },
  {
    name: 'a new directory takes the default list twice: for itself and to hand on',
    run(dir) {
      posix.setXattr(dir, DEFAULT, inherited);
      posix.mkdir(join(dir, 'sub'));
      assert.deepEqual(posix.getXattr(join(dir, 'sub'), DEFAULT), inherited);
      assert.equal(modeOf(join(dir, 'sub')), 0o770);
      posix.mkdir(join(dir, 'sub', 'deeper'));
      assert.deepEqual(posix.getXattr(join(dir, 'sub', 'deeper'), DEFAULT), inherited);
      posix.mknod(join(dir, 'sub', 'fifo'), posix.S_IFIFO | 0o666);
      assert.equal(modeOf(join(dir, 'sub', 'fifo')), 0o660);
    },
  },
  {
    name: 'a file made with O_TMPFILE takes the default list, too',
    needs: ['unnamed-files'],
    run(dir) {
      posix.setXattr(dir, DEFAULT, inherited);
      const fd = posix.openTemporary(dir, O_RDWR, 0o666);
      assert.equal(posix.fstat(fd).mode & 0o7777, 0o660);
      posix.close(fd);
    },
  },
  {
    name: 'a default list is for directories, changes nothing for them, and can be removed',
    run(dir) {
      put(join(dir, 'file'));
      fails('EACCES', () => posix.setXattr(join(dir, 'file'), DEFAULT, inherited));
      posix.setXattr(dir, DEFAULT, inherited);
      assert.equal(modeOf(dir), 0o755);
      assert.ok(posix.listXattrs(dir).includes(DEFAULT));
      posix.removeXattr(dir, DEFAULT);
      posix.close(posix.open(join(dir, 'new'), posix.O_CREAT | O_WRONLY, 0o666));
      assert.equal(modeOf(join(dir, 'new')), 0o644);
    },
  },
  {
    name: 'what is moved into a directory with a default list keeps its own bits',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'file'), '', 0o604);
      posix.setXattr(join(dir, 'sub'), DEFAULT, inherited);
      posix.rename(join(dir, 'file'), join(dir, 'sub', 'file'));
      assert.equal(modeOf(join(dir, 'sub', 'file')), 0o604);
      fails('ENODATA', () => posix.getXattr(join(dir, 'sub', 'file'), ACCESS));
    },
  },
];

export const acls: Subject = {
  subject: 'acls',
  cases: [...list, ...defaults].map((one) => ({ ...one, needs: ['acl', ...(one.needs ?? [])] })),
};
