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
 * The numbers behind a word of the caller's /proc/PID/status. Of a caller in another PID namespace (number 0), or with more groups
 * than fit the memory, nothing is known.
 */
function statusNumbers(m: Mount, pid: number, word: 'Uid' | 'Gid' | 'Groups'): readonly string[] {
  const { address, bytes } = m.entries;
  putString(m.entries, 0, `/proc/${pid}/status`);
  const fd = m.calls.openat(c.AT_FDCWD, address, c.O_RDONLY | c.O_CLOEXEC, 0);
  if (fd < 0) return [];
  const length = m.calls.pread(fd, address, bytes.length, 0);
  m.calls.close(fd);
  if (length <= 0) return [];
  const status = Buffer.from(bytes.subarray(0, length)).toString('latin1');
  const line = new RegExp(`^${word}:\t([\\d \t]*)\n`, 'm').exec(status)?.[1] ?? '';
  return line.split(/[ \t]/);
}

/** Of the four ids in a line of the status (real, effective, saved, filesystem) the one that counts here. */
const FILESYSTEM_ID = 3;

/** Whether the caller is root; one of whom nothing is known isn't. */
export function isRoot(m: Mount, caller: Caller): boolean {
  if (caller.uid !== FUSE_INVALID_UIDGID) return caller.uid === 0;
  return statusNumbers(m, caller.pid, 'Uid')[FILESYSTEM_ID] === '0';
}

/** Whether the caller belongs to a group, also by a supplementary one; one of whom nothing is known doesn't. */
export function isInGroup(m: Mount, caller: Caller, gid: number): boolean {
  if (caller.gid === gid) return true;
  if (caller.gid === FUSE_INVALID_UIDGID && statusNumbers(m, caller.pid, 'Gid')[FILESYSTEM_ID] === String(gid))
    return true;
  return statusNumbers(m, caller.pid, 'Groups').includes(String(gid));
}
