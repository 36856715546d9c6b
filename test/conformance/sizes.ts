/**
 * What a change of content takes from a file besides its content, where the answer depends on who changes it and by which
 * call: set-group-ID of a file that its group may not execute, and the times of a file that keeps its size.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, type OtherProcess } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { modeOf, put, type Subject, tick, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_TRUNC } = posix;

type Change = (who: OtherProcess, file: string, dir: string) => Promise<unknown>;

async function whileOpenBy(who: OtherProcess, file: string, use: (fd: number) => Promise<unknown>): Promise<void> {
  const fd = await who.call('open', file, O_WRONLY);
  try {
    await use(fd);
  } finally {
    await who.call('close', fd);
  }
}

const changes: readonly (readonly [string, Change])[] = [
  ['a write', (who, file) => whileOpenBy(who, file, (fd) => who.call('write', fd, 'x'))],
  ['a truncation by name', (who, file) => who.call('truncate', file, 3)],
  ['a truncation by descriptor', (who, file) => whileOpenBy(who, file, (fd) => who.call('ftruncate', fd, 100))],
  ['opening with O_TRUNC', async (who, file) => who.call('close', await who.call('open', file, O_WRONLY | O_TRUNC))],
  [
    'a copy into it',
    async (who, file, dir) => {
      const from = await who.call('open', join(dir, 'source'), O_RDONLY);
      await whileOpenBy(who, file, (fd) => who.call('copyFileRange', from, 0, fd, 0, 14));
      await who.call('close', from);
    },
  ],
];

/** A file of alice's that everyone writes and its group doesn't execute, with bits on top. */
function putOf(file: string, dir: string, mode: number): void {
  put(file, 'content');
  put(join(dir, 'source'), 'source content');
  posix.chown(file, alice.uid, alice.gid);
  posix.chmod(file, mode);
}

const setGroup: Subject['cases'] = changes.map(([what, act]) => ({
  name: `${what} by a stranger takes set-group-ID also from a file that the group may not execute`,
  async run(dir) {
    const file = join(dir, 'file');
    putOf(file, dir, 0o2666);
    await act(asUser(bob), file, dir);
    assert.equal(modeOf(file), 0o666);
    posix.chmod(file, 0o6766);
    await act(asUser(bob), file, dir);
    assert.equal(modeOf(file), 0o766);
  },
}));

const member: Subject['cases'] = changes.map(([what, act]) => ({
  name: `${what} by a member of the group leaves set-group-ID of a file that the group may not execute`,
  async run(dir) {
    const file = join(dir, 'file');
    putOf(file, dir, 0o6666);
    await act(asUser(alice), file, dir);
    assert.equal(modeOf(file), 0o2666);
  },
}));

/** Whether an action moves mtime and ctime; both or neither must. */
function movesTimes(file: string, act: () => void): boolean {
  const before = posix.stat(file);
  tick();
  act();
  const after = posix.stat(file);
  assert.equal(after.mtimeNs > before.mtimeNs, after.ctimeNs > before.ctimeNs);
  return after.mtimeNs > before.mtimeNs;
}

const times: Subject['cases'] = [
  {
    name: 'a truncation by name to the size that a file has moves no time, one to any other size does',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'x'.repeat(5000));
      assert.equal(
        movesTimes(file, () => posix.truncate(file, 5000)),
        false,
      );
      assert.equal(
        movesTimes(file, () => posix.truncate(file, 4999)),
        true,
      );
      assert.equal(
        movesTimes(file, () => posix.truncate(file, 5000)),
        true,
      );
    },
  },
  {
    name: 'a truncation by name to the size that an open file has moves no time either',
    run(dir) {
      const file = join(dir, 'file');
      put(file, 'x'.repeat(5000));
      withFile(file, O_WRONLY, (fd) => {
        assert.equal(
          movesTimes(file, () => posix.truncate(file, 5000)),
          false,
        );
        assert.equal(
          movesTimes(file, () => posix.ftruncate(fd, 5000)),
          true,
        );
      });
    },
  },
];

export const sizes: Subject = { subject: 'changes of content', cases: [...setGroup, ...member, ...times] };
