/** Mounts: private copies of a mounted tree, mounting and unmounting, and what is mounted where. */

import { readFileSync } from 'node:fs';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  MOUNT_ATTR__ATIME,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  OPEN_TREE_CLOEXEC,
  OPEN_TREE_CLONE,
} from '../base/linux.ts';
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
  return openTree(AT_FDCWD, scratch.address, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/** A copy of the mount that a directory lies on, read-only and without access times; an O_PATH descriptor, or -errno. */
export function readOnlyMount(directoryFd: number, scratch: Memory): number {
  putString(scratch, 0, '');
  const fd = openTree(directoryFd, scratch.address, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  if (fd < 0) return fd;
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd, u64 each.
  const set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
  setU64(scratch.view, 8, set);
  setU64(scratch.view, 16, MOUNT_ATTR__ATIME);
  setU64(scratch.view, 24, 0);
  setU64(scratch.view, 32, 0);
  const result = mountSetattr(fd, scratch.address, AT_EMPTY_PATH, scratch.address + 8, 32);
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
