/**
 * What becomes of set-user-ID and set-group-ID: a table of all modes that differ in it, kinds of files, groups that who asks belongs to
 * or not, and calls; beside the rule, which is the kernel's chown_common, setattr_should_drop_suidgid and setattr_should_drop_sgid.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, carol, type OtherProcess, root, type User } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { modeOf, put, refused, type Subject } from './case.ts';

const { O_RDONLY, O_WRONLY, O_TRUNC } = posix;

/** Nobody's. */
const FOREIGN_GROUP = 61777;
/** The owner is carol: her first group, a supplementary one, and one that she doesn't belong to. */
const GROUPS = [carol.gid, alice.gid, FOREIGN_GROUP];
/** Everybody may write; programs for nobody, the owner, the group, and all. */
const PERMISSIONS = [0o666, 0o766, 0o676, 0o777];
const MODES = PERMISSIONS.flatMap((mode) => [mode, mode | 0o2000, mode | 0o4000, mode | 0o6000]);
const USERS = { root, owner: carol, member: alice, stranger: bob };

function isMember(user: User, gid: number): boolean {
  return user.gid === gid || (user.groups ?? []).includes(gid);
}

/** Set-group-ID of what its group doesn't execute means something else (mandatory locks, once): it is no privilege to be lost. */
function keepsGroupBit(mode: number, gid: number, user: User): boolean {
  return (mode & 0o10) === 0 && (user === root || isMember(user, gid));
}

function afterChangeOfOwner(mode: number, gid: number, user: User): number {
  return mode & ~(keepsGroupBit(mode, gid, user) ? 0o4000 : 0o6000);
}

function afterChangeOfContent(mode: number, gid: number, user: User): number {
  return user === root ? mode : afterChangeOfOwner(mode, gid, user);
}

/** Changes of owner or group, with who may make them. */
const ownerChanges: readonly (readonly [what: string, who: readonly User[], uid: number, gid: number])[] = [
  ['neither', [root, carol, alice, bob], -1, -1],
  ['the owner that it has', [root, carol], carol.uid, -1],
  ['the owner', [root], bob.uid, -1],
  ['the group, to one of the owner’s', [root, carol], -1, alice.gid],
  ['the group, to the owner’s first', [root, carol], -1, carol.gid],
  ['both', [root], bob.uid, bob.gid],
];

const makers: Readonly<Record<string, (name: string) => void>> = {
  file: (name) => put(name, 'content'),
  fifo: (name) => posix.mknod(name, posix.S_IFIFO | 0o600),
  socket: (name) => posix.mknod(name, posix.S_IFSOCK | 0o600),
  folder: (name) => posix.mkdir(name),
};

/** A mode in a form that tells a reader what is wrong. */
function shown(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

const owners: Subject['cases'] = Object.entries(makers).map(([kind, make]) => ({
  name: `a change of owner takes from a ${kind} of each mode what it takes on Linux`,
  async run(dir) {
    const name = join(dir, kind);
    make(name);
    const wrong: string[] = [];
    for (const [what, who, uid, gid] of ownerChanges) {
      for (const user of who) {
        for (const group of GROUPS) {
          for (const mode of MODES) {
            posix.chown(name, carol.uid, group);
            posix.chmod(name, mode);
            const wanted = kind === 'folder' ? mode : afterChangeOfOwner(mode, group, user);
            // Nobody but the owner takes anything from a file's mode.
            const may = user === root || user === carol || wanted === mode;
            if (!may) await refused('EPERM', asUser(user).call('chown', name, uid, gid));
            else if (user === root) posix.chown(name, uid, gid);
            else await asUser(user).call('chown', name, uid, gid);
            const expected = may ? wanted : mode;
            const found = modeOf(name);
            if (found === expected) continue;
            wrong.push(
              `${shown(mode)} of group ${group}, uid ${user.uid} changes ${what}: ${shown(found)}, not ${shown(expected)}`,
            );
          }
        }
      }
    }
    assert.deepEqual(wrong, []);
  },
}));

async function whileOpenBy(who: OtherProcess, name: string, use: (fd: number) => Promise<unknown>): Promise<void> {
  const fd = await who.call('open', name, O_WRONLY);
  await use(fd);
  await who.call('close', fd);
}

const contentChanges: Readonly<Record<string, (who: OtherProcess, name: string, source: string) => Promise<unknown>>> =
  {
    'a write': (who, name) => whileOpenBy(who, name, (fd) => who.call('write', fd, 'x')),
    'a truncation by name': (who, name) => who.call('truncate', name, 3),
    'a truncation by descriptor': (who, name) => whileOpenBy(who, name, (fd) => who.call('ftruncate', fd, 100)),
    'an open with O_TRUNC': (who, name) => who.call('touch', name, O_WRONLY | O_TRUNC),
    'an allocation': (who, name) => whileOpenBy(who, name, (fd) => who.call('fallocate', fd, 0, 0, 5000)),
    'a copy into it': async (who, name, source) => {
      const from = await who.call('open', source, O_RDONLY);
      await whileOpenBy(who, name, (fd) => who.call('copyFileRange', from, 0, fd, 0, 14));
      await who.call('close', from);
    },
  };

const content: Subject['cases'] = Object.entries(contentChanges).map(([what, act]) => ({
  name: `${what} takes from a file of each mode what it takes on Linux`,
  async run(dir) {
    const name = join(dir, 'file');
    const source = join(dir, 'source');
    put(name, 'content');
    put(source, 'source content');
    const wrong: string[] = [];
    for (const [role, user] of Object.entries(USERS)) {
      for (const group of GROUPS) {
        for (const mode of MODES) {
          posix.truncate(name, 7);
          posix.chown(name, carol.uid, group);
          posix.chmod(name, mode);
          await act(asUser(user), name, source);
          const expected = afterChangeOfContent(mode, group, user);
          const found = modeOf(name);
          if (found === expected) continue;
          wrong.push(`${shown(mode)} of group ${group}, by ${role}: ${shown(found)}, not ${shown(expected)}`);
        }
      }
    }
    assert.deepEqual(wrong, []);
  },
}));

export const setIds: Subject = { subject: 'set-id bits', cases: [...owners, ...content] };
