/**
 * What is known of the process that a request comes from: its number by the request, and what the request doesn't tell by /proc.
 * The caller waits for its request, so it is still there.
 *
 * A kernel that lets the mount be idmapped tells a caller's ids, as the idmap changes them, only where an inode is made (fs/fuse:
 * fuse_simple_idmap_request), and FUSE_INVALID_UIDGID with all other requests. The ids of /proc are not changed by an idmap.
 */

import * as c from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import { FUSE_INVALID_UIDGID } from '../fuse/wire/constants.ts';
import type { Mount } from './mount.ts';

/** As much of a request as says who asks. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
}

/**
 * What /proc/PID/status says of the caller. Of one in another PID namespace (number 0), or with more groups than fit the memory,
 * nothing is known.
 */
function statusOf(m: Mount, caller: Caller): string {
  const { address, bytes } = m.entries;
  putString(m.entries, 0, `/proc/${caller.pid}/status`);
  const fd = m.calls.openat(c.AT_FDCWD, address, c.O_RDONLY | c.O_CLOEXEC, 0);
  if (fd < 0) return '';
  const length = m.calls.pread(fd, address, bytes.length, 0);
  m.calls.close(fd);
  return length <= 0 ? '' : Buffer.from(bytes.subarray(0, length)).toString('latin1');
}

/** Of the four ids in a line of the status (real, effective, saved, filesystem) the one that counts here. */
const FILESYSTEM_ID = 3;

/** The numbers behind a word of a status. */
function numbersIn(status: string, word: 'Uid' | 'Gid' | 'Groups'): readonly string[] {
  const line = new RegExp(`^${word}:\t([\\d \t]*)\n`, 'm').exec(status)?.[1] ?? '';
  return line.split(/[ \t]/);
}

/** The user that the caller is to filesystems, or -1 where nothing is known. */
export function uidOf(m: Mount, caller: Caller): number {
  if (caller.uid !== FUSE_INVALID_UIDGID) return caller.uid;
  return Number(numbersIn(statusOf(m, caller), 'Uid')[FILESYSTEM_ID] ?? -1);
}

/** Whether the caller belongs to a group, also by a supplementary one; one of whom nothing is known doesn't. */
export function isInGroup(m: Mount, caller: Caller, gid: number): boolean {
  if (caller.gid === gid) return true;
  const status = statusOf(m, caller);
  if (caller.gid === FUSE_INVALID_UIDGID && numbersIn(status, 'Gid')[FILESYSTEM_ID] === String(gid)) return true;
  return numbersIn(status, 'Groups').includes(String(gid));
}

/** Whether the caller holds a capability that counts for files here: in our own user namespace. Of whom nothing is known doesn't. */
export function holdsCapability(m: Mount, caller: Caller, capability: number): boolean {
  const effective = BigInt(`0x${/^CapEff:\t([\da-f]+)\n/m.exec(statusOf(m, caller))?.[1] ?? '0'}`);
  if (((effective >> BigInt(capability)) & 1n) === 0n) return false;
  return userNamespace(m, caller.pid) === userNamespace(m, 'self');
}

/** What names a process's user namespace. */
function userNamespace(m: Mount, process: number | 'self'): string {
  const { address, bytes } = m.entries;
  const [path, target, room] = [0, 64, 64];
  putString(m.entries, path, `/proc/${process}/ns/user`);
  const length = m.calls.readlinkat(c.AT_FDCWD, address + path, address + target, room);
  return length < 0 ? `unknown of ${process}` : Buffer.from(bytes.subarray(target, target + length)).toString('latin1');
}
