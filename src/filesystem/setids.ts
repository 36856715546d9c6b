/** What becomes of set-user-ID and set-group-ID when somebody changes a file who may not keep them. */

import { EPERM } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { Request } from '../fuse/server/session.ts';
import * as fuse from '../fuse/wire/constants.ts';
import { statx } from '../fuse/wire/structs.ts';
import { statDescriptor } from './attributes.ts';
import { type Caller, holdsCapability, isInGroup, uidOf } from './callers.ts';
import type { Mount } from './mount.ts';
import { SCRATCH } from './scratch.ts';

/** What a caller loses set-user-ID and set-group-ID by: a change of content, without CAP_FSETID; of owner; or of nothing that is named. */
type Change = 'content' | 'owner' | 'nothing';

/**
 * Clears set-user-ID and set-group-ID, as the kernel does (fs/attr.c, setattr_should_drop_sgid). Set-group-ID of a file that its group
 * may not run stays if the caller belongs to that group, and if it has CAP_FSETID: of a change of owner, which takes set-user-ID from
 * everybody, the kernel doesn't say whether it does. To be called before the change: the group that matters is the one that the file
 * has until then, and a repeat of the request must find no other.
 */
export function clearSetIds(m: Mount, caller: Caller, fd: number, change: Change = 'content'): number {
  const read = statDescriptor(m, fd, c.STATX_BASIC_STATS);
  if (read < 0) return read;
  const mode = statx.mode.get(m.scratch.view, SCRATCH.statx);
  if ((mode & c.S_IFMT) === c.S_IFDIR) return 0;
  let cleared = mode & ~c.S_ISUID;
  if ((mode & c.S_ISGID) !== 0) {
    const gid = statx.gid.get(m.scratch.view, SCRATCH.statx);
    const mayStay = (mode & c.S_IXGRP) === 0;
    const capable = (): boolean => change !== 'content' && holdsCapability(m, caller, c.CAP_FSETID);
    if (!(mayStay && (isInGroup(m, caller, gid) || capable()))) cleared &= ~c.S_ISGID;
  }
  if (cleared === mode) return 0;
  const owner = statx.uid.get(m.scratch.view, SCRATCH.statx);
  if (change === 'nothing' && uidOf(m, caller) !== owner && !holdsCapability(m, caller, c.CAP_FOWNER)) return -EPERM;
  return m.calls.fchmodat2(fd, m.scratch.address + SCRATCH.empty, cleared & 0o7777, c.AT_EMPTY_PATH);
}

/**
 * A write by somebody without CAP_FSETID takes set-user-id and set-group-id away (fs/inode.c: file_remove_privs). The kernel says so
 * in the write's flags as far as it knows of the bits: it doesn't know those that were set around the mount. Pages of a map are
 * written by nobody.
 */
export function losePrivileges(m: Mount, r: Request, fd: number, writeFlags: number): number {
  if ((writeFlags & fuse.FUSE_WRITE_KILL_SUIDGID) !== 0) return clearSetIds(m, r, fd);
  if ((writeFlags & fuse.FUSE_WRITE_CACHE) !== 0) return 0;
  const read = statDescriptor(m, fd, c.STATX_BASIC_STATS);
  if (read < 0 || (m.stat.mode & (c.S_ISUID | c.S_ISGID)) === 0) return Math.min(read, 0);
  return holdsCapability(m, r, c.CAP_FSETID) ? 0 : clearSetIds(m, r, fd);
}
