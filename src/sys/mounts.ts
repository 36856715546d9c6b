/** Mounts: private copies of a mounted tree, mounting and unmounting, and what is mounted where. */

import { readFileSync } from 'node:fs';
import * as c from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { putString } from '../base/memory.ts';
import { mountinfoText } from '../base/mountinfo.ts';
import { setU64 } from '../base/struct.ts';
import { close, mountSetattr, openTree } from './libc.ts';

/**
 * A copy of the mount that a path lies on, with the path as its root, in no namespace: what is mounted below the path
 * can't be reached through it, and what is later mounted over the path doesn't hide it (open_tree(2)). Returns an O_PATH
 * descriptor, or a negated errno.
 */
export function privateMount(path: string, scratch: Memory): number {
  putString(scratch, 0, path);
  return openTree(c.AT_FDCWD, scratch.address, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC);
}

/** Sets and clears attributes of a mount of our own that is in no namespace: mount_setattr(2). Returns 0 or a negated errno. */
function setAttributes(treeFd: number, set: number, clear: number, scratch: Memory): number {
  putString(scratch, 0, '');
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd, u64 each.
  setU64(scratch.view, 8, set);
  setU64(scratch.view, 16, clear);
  setU64(scratch.view, 24, 0);
  setU64(scratch.view, 32, 0);
  return mountSetattr(treeFd, scratch.address, c.AT_EMPTY_PATH, scratch.address + 8, 32);
}

/** How access times are kept below a mount, in the flags of mount(2): one of three rules for all, and whether folders have any. */
export type AccessTimes = number;
export const ACCESS_RULES = c.MS_NOATIME | c.MS_RELATIME | c.MS_STRICTATIME;
export const ACCESS_TIMES = ACCESS_RULES | c.MS_NODIRATIME;

/** Has a private mount keep access times like this. Returns 0 or a negated errno. */
export function setAccessTimes(treeFd: number, access: AccessTimes, scratch: Memory): number {
  let set = c.MOUNT_ATTR_RELATIME;
  if ((access & c.MS_NOATIME) !== 0) set = c.MOUNT_ATTR_NOATIME;
  else if ((access & c.MS_STRICTATIME) !== 0) set = c.MOUNT_ATTR_STRICTATIME;
  const clear = c.MOUNT_ATTR__ATIME | c.MOUNT_ATTR_NODIRATIME;
  return setAttributes(treeFd, set | ((access & c.MS_NODIRATIME) !== 0 ? c.MOUNT_ATTR_NODIRATIME : 0), clear, scratch);
}

/** How a mount keeps access times that statfs(2) shows these flags of. */
export function accessTimesOf(statfsFlags: number): AccessTimes {
  let rule = c.MS_STRICTATIME;
  if ((statfsFlags & c.ST_NOATIME) !== 0) rule = c.MS_NOATIME;
  else if ((statfsFlags & c.ST_RELATIME) !== 0) rule = c.MS_RELATIME;
  return rule | ((statfsFlags & c.ST_NODIRATIME) !== 0 ? c.MS_NODIRATIME : 0);
}

/** A copy of the mount that a directory lies on, read-only and without access times; an O_PATH descriptor, or -errno. */
export function readOnlyMount(directoryFd: number, scratch: Memory): number {
  putString(scratch, 0, '');
  const fd = openTree(directoryFd, scratch.address, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH);
  if (fd < 0) return fd;
  const set = c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOATIME | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOSUID;
  const result = setAttributes(fd, set, c.MOUNT_ATTR__ATIME, scratch);
  if (result >= 0) return fd;
  close(fd);
  return result;
}

export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  readonly major: number;
  readonly minor: number;
  /** The mount's root within its filesystem. */
  readonly root: string;
  readonly mountpoint: string;
  readonly options: string;
  readonly type: string;
  readonly source: string;
  readonly superOptions: string;
}

/** What is mounted in this process's namespace, in the order of mounting. */
export function mounts(): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    const [before, after] = line.split(' - ');
    if (before === undefined || after === undefined) continue;
    const [id = '', parentId = '', device = '', root = '', mountpoint = '', options = ''] = before.split(' ');
    const [type = '', source = '', superOptions = ''] = after.split(' ');
    const [major = '', minor = ''] = device.split(':');
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      major: Number(major),
      minor: Number(minor),
      root: mountinfoText(root),
      mountpoint: mountinfoText(mountpoint),
      options,
      type,
      source: mountinfoText(source),
      superOptions,
    });
  }
  return entries;
}
