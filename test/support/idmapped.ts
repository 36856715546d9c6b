/**
 * Idmapped mounts: a mount of a tree that shows other owners than its filesystem has, and makes files for them (mount_setattr(2),
 * MOUNT_ATTR_IDMAP). A user namespace says which; a process is what makes one.
 */

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readlinkSync, writeFileSync } from 'node:fs';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  O_CLOEXEC,
  O_RDONLY,
  OPEN_TREE_CLOEXEC,
  OPEN_TREE_CLONE,
} from '../../src/base/linux.ts';
import { setU64 } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, nameAddress, scratch, structAddress, structAt } from './scratch.ts';
import { pause } from './wait.ts';

/** Ids from `inside` on, as the filesystem has them, show as those from `outside` on. */
export interface IdRange {
  readonly inside: number;
  readonly outside: number;
  readonly count: number;
}

const SYS_move_mount = 429;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_IDMAP = 0x0010_0000;
const MOUNT_ATTR_BYTES = 32;
const TURNS = 500;

const syscall = libc.declare('syscall', 'int64_t', ['int64_t', 'int64_t', 'int64_t', 'int64_t', 'int64_t', 'int64_t']);

/** A process in a user namespace of its own with this map of users and groups. */
export async function inUserNamespace(ranges: readonly IdRange[]): Promise<{ readonly pid: number; stop(): void }> {
  const child = spawn('unshare', ['--user', 'sleep', '600'], { stdio: 'ignore' });
  const pid = child.pid ?? -1;
  const ours = readlinkSync('/proc/self/ns/user');
  for (let turn = 0; readlinkSync(`/proc/${pid}/ns/user`) === ours; turn++) {
    if (turn === TURNS) throw new Error('unshare made no user namespace');
    await pause(10);
  }
  const map = ranges.map(({ inside, outside, count }) => `${inside} ${outside} ${count}\n`).join('');
  for (const kind of ['uid', 'gid']) writeFileSync(`/proc/${pid}/${kind}_map`, map);
  return { pid, stop: () => void child.kill('SIGKILL') };
}

/**
 * Every id is mapped: those of the users of tests (asuser.ts) change places with as many others, and all the others stay. What holds on
 * a mount holds on one that is idmapped so.
 */
export const usersElsewhere: readonly IdRange[] = [
  { inside: 0, outside: 0, count: 61_000 },
  { inside: 71_000, outside: 61_000, count: 1000 },
  { inside: 62_000, outside: 62_000, count: 9000 },
  { inside: 61_000, outside: 71_000, count: 1000 },
  { inside: 72_000, outside: 72_000, count: 2 ** 32 - 1 - 72_000 },
];

/** Mounts a tree that is mounted already once more, with other owners. Throws a `SystemCallError` where that is refused. */
export async function mountIdmapped(
  tree: string,
  mountpoint: string,
  ranges: readonly IdRange[],
): Promise<{ umount(): void }> {
  mkdirSync(mountpoint, { recursive: true });
  const namespace = await inUserNamespace(ranges);
  const users = libc.openat(AT_FDCWD, nameAddress(`/proc/${namespace.pid}/ns/user`), O_RDONLY | O_CLOEXEC, 0);
  namespace.stop();
  check(users, 'open', 'a user namespace');
  const copy = libc.openTree(AT_FDCWD, nameAddress(tree), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  try {
    check(copy, 'open_tree', tree);
    setU64(scratch.view, structAt, MOUNT_ATTR_IDMAP);
    setU64(scratch.view, structAt + 8, 0);
    setU64(scratch.view, structAt + 16, 0);
    setU64(scratch.view, structAt + 24, users);
    const empty = nameAddress('', 0);
    check(libc.mountSetattr(copy, empty, AT_EMPTY_PATH, structAddress, MOUNT_ATTR_BYTES), 'mount_setattr', tree);
    const to = nameAddress(mountpoint, 1);
    check(syscall(SYS_move_mount, copy, empty, AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH), 'move_mount', mountpoint);
  } finally {
    libc.close(users);
    if (copy >= 0) libc.close(copy);
  }
  return { umount: () => void execFileSync('umount', [mountpoint], { stdio: 'pipe', timeout: 10_000 }) };
}
