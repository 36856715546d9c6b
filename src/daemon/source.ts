/** The directory that is mounted over: what it must be, and the descriptors through which it is reached from then on. */

import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { errnoText, UserError } from '../base/errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  BTRFS_SUPER_MAGIC,
  FICLONE,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  ST_RDONLY,
  XFS_SUPER_MAGIC,
} from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { putString } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import { F_HANDLE_BYTES, handleInode, handleSubvolume } from '../filesystem/handles.ts';
import { close, fstatfs, ioctl, nameToHandleAt, openat, pwrite } from '../sys/libc.ts';
import { type AccessTimes, accessTimesOf, privateMount, setAccessTimes } from '../sys/mounts.ts';

export interface Source {
  /** As given, with links resolved. */
  readonly path: string;
  readonly filesystem: 'btrfs' | 'xfs';
  /** The root of a private copy of its mount, open for reading: nothing mounted below or over it is in the way. */
  readonly mountFd: number;
  /** The same directory on its own mount, which stays busy as long as we serve it. */
  readonly directoryFd: number;
  readonly totalBytes: number;
  /** The unit of allocation. */
  readonly blockBytes: number;
  readonly readOnly: boolean;
  /** How the directory's own mount keeps access times. */
  readonly accessTimes: AccessTimes;
  close(): void;
}

const names: Readonly<Record<number, string>> = {
  [BTRFS_SUPER_MAGIC]: 'btrfs',
  [XFS_SUPER_MAGIC]: 'xfs',
  61267: 'ext4',
  16914836: 'tmpfs',
  2035054128: 'overlayfs',
  1702057286: 'fuse',
  26985: 'nfs',
  801189825: 'zfs',
};

const STATFS_TYPE = 0;
const STATFS_BSIZE = 8;
const STATFS_BLOCKS = 16;
const STATFS_FLAGS = 80;

export interface FilesystemFacts {
  readonly name: string;
  readonly totalBytes: number;
  readonly blockBytes: number;
  readonly readOnly: boolean;
  readonly accessTimes: AccessTimes;
}

/** What statfs(2) says of an open directory's filesystem. */
export function filesystemFacts(fd: number, scratch: Memory): FilesystemFacts {
  const result = fstatfs(fd, scratch.address);
  if (result < 0) throw new UserError(`Cannot look at the source's filesystem: ${errnoText(result)}`);
  const magic = scratch.view.getUint32(STATFS_TYPE, true);
  const flags = scratch.view.getUint32(STATFS_FLAGS, true);
  return {
    name: names[magic] ?? `a filesystem of type 0x${magic.toString(16)}`,
    totalBytes: getU64(scratch.view, STATFS_BLOCKS) * getU64(scratch.view, STATFS_BSIZE),
    blockBytes: getU64(scratch.view, STATFS_BSIZE),
    readOnly: (flags & ST_RDONLY) !== 0 || isReadOnlySubvolume(fd),
    accessTimes: accessTimesOf(flags),
  };
}

/** A read-only snapshot is read-only by itself, on a mount that isn't: btrfs_permission() says EROFS to whoever wants to write. */
function isReadOnlySubvolume(fd: number): boolean {
  try {
    accessSync(`/proc/self/fd/${fd}`, constants.W_OK);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EROFS';
  }
}

/** Resolves a path that must be a directory. @throws UserError */
export function existingDirectory(what: string, path: string): string {
  let real: string;
  let isDirectory: boolean;
  try {
    real = realpathSync(path);
    isDirectory = statSync(real).isDirectory();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`Cannot use the ${what} ${path}: ${pathTrouble(code, path)}`);
  }
  if (!isDirectory) throw new UserError(`Cannot use the ${what} ${path}: it is not a directory`);
  return real;
}

function pathTrouble(code: string, path: string): string {
  if (code === 'ENOENT') return 'it does not exist';
  if (code !== 'ENOTCONN') return code;
  return `a mount whose server is gone is there (Transport endpoint is not connected), try "umount -l ${path}"`;
}

/**
 * Opens the directory. What is read below it moves access times as `accessTimes` says, given how the directory's own mount keeps them,
 * which is what holds without it.
 *
 * @throws UserError for what can't be served, with the reason and the way out.
 */
export function openSource(
  path: string,
  scratch: Memory,
  accessTimes: (own: AccessTimes) => AccessTimes = (own) => own,
): Source {
  const real = existingDirectory('source', path);
  putString(scratch, 0, real);
  const directoryFd = openat(AT_FDCWD, scratch.address, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (directoryFd < 0) throw new UserError(`Cannot open the source ${path}: ${errnoText(directoryFd)}`);
  const facts = filesystemFacts(directoryFd, scratch);
  if (facts.name !== 'btrfs' && facts.name !== 'xfs') {
    close(directoryFd);
    throw new UserError(
      `Cannot serve the source ${path}: it is on ${facts.name}, which makes no reflinks; use a directory on btrfs or XFS`,
    );
  }
  const mountFd = openPrivate(real, accessTimes(facts.accessTimes), scratch);
  if (mountFd < 0) {
    close(directoryFd);
    throw new UserError(
      `Cannot make a private mount of the source ${path}: ${errnoText(mountFd)}; sharedext needs root (CAP_SYS_ADMIN)`,
    );
  }
  return sourceOf(real, facts.name, facts, mountFd, directoryFd);
}

function sourceOf(
  path: string,
  filesystem: Source['filesystem'],
  facts: FilesystemFacts,
  mountFd: number,
  directoryFd: number,
): Source {
  return {
    path,
    filesystem,
    mountFd,
    directoryFd,
    totalBytes: facts.totalBytes,
    blockBytes: facts.blockBytes,
    readOnly: facts.readOnly,
    accessTimes: facts.accessTimes,
    close() {
      close(mountFd);
      close(directoryFd);
    },
  };
}

/** The source as an earlier server of the same mount opened it. @throws UserError */
export function adoptSource(path: string, mountFd: number, directoryFd: number, scratch: Memory): Source {
  const facts = filesystemFacts(directoryFd, scratch);
  if (facts.name !== 'btrfs' && facts.name !== 'xfs') throw new UserError(`the source ${path} is on ${facts.name} now`);
  return sourceOf(path, facts.name, facts, mountFd, directoryFd);
}

/** open_by_handle_at(2) wants a descriptor that isn't O_PATH; it holds the private mount. */
function openPrivate(path: string, accessTimes: AccessTimes, scratch: Memory): number {
  const tree = privateMount(path, scratch);
  if (tree < 0) return tree;
  let fd = setAccessTimes(tree, accessTimes, scratch);
  putString(scratch, 0, '.');
  if (fd >= 0) fd = openat(tree, scratch.address, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  close(tree);
  return fd;
}

const HANDLE_AT = 64;
const MOUNT_ID_AT = 256;

/** Inode and subvolume of an open directory, as handles on this filesystem tell them. */
export function identityOf(fd: number, scratch: Memory): { readonly inode: number; readonly subvolume: number } {
  scratch.bytes.fill(0, 0, MOUNT_ID_AT);
  scratch.view.setUint32(HANDLE_AT, F_HANDLE_BYTES, true);
  const { address } = scratch;
  const result = nameToHandleAt(fd, address, address + HANDLE_AT, address + MOUNT_ID_AT, AT_EMPTY_PATH);
  if (result < 0) throw new UserError(`Cannot get a file handle: ${errnoText(result)}`);
  return { inode: handleInode(scratch.view, HANDLE_AT), subvolume: handleSubvolume(scratch.view, HANDLE_AT) };
}

/** Whether files in a directory can be cloned: 0, or the negated errno of the attempt. Leaves nothing behind. */
export function probeReflink(directoryFd: number, scratch: Memory): number {
  putString(scratch, 0, '.');
  const flags = O_TMPFILE | O_RDWR | O_CLOEXEC;
  const from = openat(directoryFd, scratch.address, flags, 0o600);
  if (from < 0) return from;
  const to = openat(directoryFd, scratch.address, flags, 0o600);
  let result = to;
  if (to >= 0) {
    scratch.bytes.fill(1, 0, 8192);
    result = pwrite(from, scratch.address, 8192, 0);
    if (result >= 0) result = ioctl(to, FICLONE, from);
    close(to);
  }
  close(from);
  return Math.min(result, 0);
}

/** Whether a file of one directory can be cloned into another: they are on the same filesystem. 0 or a negated errno. */
export function probeSameFilesystem(fromFd: number, toFd: number, scratch: Memory): number {
  putString(scratch, 0, '.');
  const to = openat(toFd, scratch.address, O_TMPFILE | O_RDWR | O_CLOEXEC, 0o600);
  if (to < 0) return to;
  // FICLONE looks at the filesystems first and at the kinds of files after (ioctl_file_clone): a directory will do.
  const result = ioctl(to, FICLONE, fromFd);
  close(to);
  return result;
}
