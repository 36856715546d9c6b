/**
 * Where a mount keeps its clones: a folder of its own inside the store, locked for as long as the mount lives.
 *
 *     SOURCE/.sharedext/          the store: root only; on btrfs a subvolume, so that a snapshot of the source holds no clones
 *     SOURCE/.sharedext/CACHEDIR.TAG    tells programs that make backups to leave the store out: https://bford.info/cachedir/
 *     SOURCE/.sharedext/0/        one mount's clones, and a lock (flock) on the folder
 *     SOURCE/.sharedext/0/c1f-2   a clone: row and generation in hexadecimal
 *     SOURCE/.sharedext/0/p2a     a pack of shared extents (`packs.ts`)
 *     SOURCE/.sharedext/1/        another mount of the same source
 *
 * Nothing is ever deleted that doesn't have a clone's or a pack's name, but a tag with exactly our content, with the store.
 */

import { EEXIST, ENOENT, ENOTEMPTY, EROFS, errnoText, UserError } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Address, type Memory, putString } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import * as k from './calls.ts';

export const STORE_NAME = '.sharedext';
const OUR_NAME = /^(c[0-9a-f]+-[0-9a-f]+|p[0-9a-f]+)$/;
/** The most mounts that may share one store. */
const MAX_PLACES = 256;

/** struct btrfs_ioctl_vol_args: fd i64, name[4088]. */
const VOL_ARGS_BYTES = 4096;
const LOCK_EX_NB = 2 | 4;

/** Scratch memory that a place needs, in bytes: names and a struct statx, then arguments or directory entries. */
export const PLACE_SCRATCH_BYTES = 8192 + 32_768;
const SECOND = 300;
const STATX_AT = 608;
const LARGE = 8192;

export interface Place {
  /** The mount's own folder, open for reading. Clones are made in it. */
  readonly directoryFd: number;
  /** The store's directory, which the mount must not show. */
  readonly storeFd: number;
  /** The store's directory relative to what was given, and the mount's folder in it: for people. */
  readonly name: string;
  /** Deletes the clones that are left, and the folders that are empty. What stays and why, unless others use it. */
  remove(): string | undefined;
}

export interface PlaceOptions {
  readonly calls: k.PlaceCalls;
  readonly scratch: Memory;
  /** The directory that holds the store: open for reading, not O_PATH. */
  readonly parentFd: number;
  /** Its path, for messages. */
  readonly parentPath: string;
  readonly filesystem: 'btrfs' | 'xfs';
}

/**
 * Makes the store if need be, and takes a folder in it.
 *
 * @throws UserError that says what stands in the way and what to do about it.
 */
export function takePlace(options: PlaceOptions): Place {
  const { calls, scratch, parentPath } = options;
  const storeFd = openStore(options);
  keepOutOfBackups(calls, scratch, storeFd);
  for (let index = 0; index < MAX_PLACES; index++) {
    putString(scratch, 0, String(index));
    const made = calls.mkdirat(storeFd, scratch.address, 0o700);
    if (made < 0 && made !== -EEXIST) {
      calls.close(storeFd);
      throw refusal(parentPath, made);
    }
    const flags = c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW | c.O_CLOEXEC;
    const directoryFd = calls.openat(storeFd, scratch.address, flags, 0);
    if (directoryFd < 0) continue;
    if (calls.flock(directoryFd, LOCK_EX_NB) < 0 || !stillNamed(calls, scratch, storeFd, directoryFd, index)) {
      calls.close(directoryFd);
      continue;
    }
    // What a mount that was killed left behind.
    removeClones(calls, scratch, directoryFd);
    return placeOf(options, storeFd, directoryFd, index);
  }
  calls.close(storeFd);
  throw new UserError(`Cannot use the store ${parentPath}/${STORE_NAME}: ${MAX_PLACES} mounts use it already`);
}

/** The place that an earlier server of the same mount took, whose descriptors and lock have been held since. */
export function adoptPlace(options: PlaceOptions, storeFd: number, directoryFd: number, name: string): Place {
  return placeOf(options, storeFd, directoryFd, Number(name.slice(name.lastIndexOf('/') + 1)));
}

function placeOf(options: PlaceOptions, storeFd: number, directoryFd: number, index: number): Place {
  const { calls, scratch, parentFd, parentPath } = options;
  return {
    directoryFd,
    storeFd,
    name: `${STORE_NAME}/${index}`,
    remove() {
      removeClones(calls, scratch, directoryFd);
      putString(scratch, 0, String(index));
      calls.unlinkat(storeFd, scratch.address, c.AT_REMOVEDIR);
      calls.close(directoryFd);
      const tagged = removeTag(calls, scratch, storeFd);
      // Fails while another mount has a folder in it, as it should. On btrfs this deletes the subvolume.
      putString(scratch, 0, STORE_NAME);
      const removed = calls.unlinkat(parentFd, scratch.address, c.AT_REMOVEDIR);
      // Another mount may have taken a folder meanwhile.
      if (tagged && removed < 0) keepOutOfBackups(calls, scratch, storeFd);
      calls.close(storeFd);
      if (removed >= 0 || removed === -ENOTEMPTY || removed === -ENOENT) return undefined;
      const path = `${parentPath}/${STORE_NAME}`;
      return `the store ${path} is left: ${errnoText(removed)}; the next mount with this store removes it at its end`;
    },
  };
}

/** The names in a place that are ours and that `wanted` doesn't want. */
export function strayNames(
  calls: k.StoreCalls,
  scratch: Memory,
  folderFd: number,
  wanted: (name: string) => boolean,
): string[] {
  const stray: string[] = [];
  eachName(calls, scratch, folderFd, (name) => {
    if (!wanted(name)) stray.push(name);
  });
  return stray;
}

/** Opens the store's directory, made when it isn't there; leaves its attributes in the scratch memory. */
function openStore(options: PlaceOptions): number {
  const { calls, scratch, parentFd, parentPath, filesystem } = options;
  const path = `${parentPath}/${STORE_NAME}`;
  const flags = c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW | c.O_CLOEXEC;
  putString(scratch, 0, STORE_NAME);
  let fd = calls.openat(parentFd, scratch.address, flags, 0);
  if (fd >= 0 && filesystem === 'btrfs' && inodeOf(calls, scratch, fd) === PLACEHOLDER_INODE) {
    // A snapshot shows the store's subvolume as an empty directory that nothing can be made in.
    calls.close(fd);
    putString(scratch, 0, STORE_NAME);
    const removed = calls.unlinkat(parentFd, scratch.address, c.AT_REMOVEDIR);
    if (removed < 0) throw refusal(parentPath, removed);
    fd = -ENOENT;
  }
  if (fd === -ENOENT) {
    const made = makeStore(options);
    if (made < 0) throw refusal(parentPath, made);
    putString(scratch, 0, STORE_NAME);
    fd = calls.openat(parentFd, scratch.address, flags, 0);
  }
  if (fd < 0) throw refusal(parentPath, fd);
  inodeOf(calls, scratch, fd);
  const owner = scratch.view.getUint32(STATX_AT + k.STATX.uid, true);
  const mode = scratch.view.getUint16(STATX_AT + k.STATX.mode, true);
  if (owner !== 0 || (mode & 0o077) !== 0) {
    calls.close(fd);
    throw new UserError(
      `Cannot use the store ${path}: it is open to others (owner ${owner}, mode ${(mode & 0o7777).toString(8)}), ` +
        `try "chown root ${path} && chmod 700 ${path}"`,
    );
  }
  return fd;
}

const PLACEHOLDER_INODE = 2;

function inodeOf(calls: k.StoreCalls, scratch: Memory, fd: number): number {
  putString(scratch, SECOND, '');
  const { address, view } = scratch;
  const read = calls.statx(fd, address + SECOND, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + STATX_AT);
  return read < 0 ? read : getU64(view, STATX_AT + k.STATX.ino);
}

function makeStore(options: PlaceOptions): number {
  const { calls, scratch, parentFd, filesystem } = options;
  if (filesystem === 'btrfs') {
    scratch.bytes.fill(0, LARGE, LARGE + VOL_ARGS_BYTES);
    putString(scratch, LARGE + 8, STORE_NAME);
    const made = calls.ioctl(parentFd, c.BTRFS_IOC_SUBVOL_CREATE, scratch.address + LARGE);
    if (made < 0) return made;
    // A subvolume gets mode 0777 less the umask (btrfs_ioctl_snap_create); the daemon's is 077 here.
    return 0;
  }
  putString(scratch, 0, STORE_NAME);
  return calls.mkdirat(parentFd, scratch.address, 0o700);
}

/** Whether the folder that was locked is still the one of that name: its last user may have removed it meanwhile. */
function stillNamed(calls: k.StoreCalls, scratch: Memory, storeFd: number, fd: number, index: number): boolean {
  const held = inodeOf(calls, scratch, fd);
  const { address, view } = scratch;
  putString(scratch, 0, String(index));
  const named = calls.statx(storeFd, address, c.AT_SYMLINK_NOFOLLOW, c.STATX_BASIC_STATS, address + STATX_AT);
  return named >= 0 && getU64(view, STATX_AT + k.STATX.ino) === held;
}

const TAG_NAME = 'CACHEDIR.TAG';
const TAG = Buffer.from(
  'Signature: 8a477f597d28d172789f06886806bc55\n# sharedext keeps reflinks of files here, which the files themselves have all of.\n',
);
const FS_NODUMP_FL = 0x40;

/**
 * Marks the store for programs that make backups: by a tag, and by the flag that dump(8) and xfsdump(8) look at. A store without is as
 * good. The tag appears whole and is on the disk then, so that it is known for ours.
 */
function keepOutOfBackups(calls: k.PlaceCalls, scratch: Memory, storeFd: number): void {
  const { address, view, bytes } = scratch;
  if (calls.ioctl(storeFd, c.FS_IOC_GETFLAGS, address + LARGE) >= 0) {
    view.setUint32(LARGE, view.getUint32(LARGE, true) | FS_NODUMP_FL, true);
    calls.ioctl(storeFd, c.FS_IOC_SETFLAGS, address + LARGE);
  }
  putString(scratch, 0, TAG_NAME);
  putString(scratch, SECOND, '.');
  if (calls.statx(storeFd, address, c.AT_SYMLINK_NOFOLLOW, c.STATX_BASIC_STATS, address + STATX_AT) >= 0) return;
  const fd = calls.openat(storeFd, address + SECOND, c.O_TMPFILE | c.O_WRONLY | c.O_CLOEXEC, 0o600);
  if (fd < 0) return;
  bytes.set(TAG, LARGE);
  putString(scratch, SECOND, '');
  if (calls.pwrite(fd, address + LARGE, TAG.length, 0) === TAG.length && calls.fsync(fd) >= 0) {
    calls.linkat(fd, address + SECOND, storeFd, address, c.AT_EMPTY_PATH);
    // Nobody but a backup reads it.
    calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
  }
  calls.close(fd);
}

/** Removes the tag if the store holds nothing else, and it is exactly ours. */
function removeTag(calls: k.PlaceCalls, scratch: Memory, storeFd: number): boolean {
  let alone = true;
  eachEntry(calls, scratch, storeFd, (name) => {
    if (name !== TAG_NAME) alone = false;
  });
  if (!alone) return false;
  putString(scratch, 0, TAG_NAME);
  const fd = calls.openat(storeFd, scratch.address, c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK | c.O_CLOEXEC, 0);
  if (fd < 0) return false;
  const length = calls.pread(fd, scratch.address + LARGE, TAG.length + 1, 0);
  calls.close(fd);
  if (length !== TAG.length || !TAG.equals(scratch.bytes.subarray(LARGE, LARGE + TAG.length))) return false;
  return calls.unlinkat(storeFd, scratch.address, 0) >= 0;
}

/** Deletes all clones of a folder, and nothing else in it. */
function removeClones(calls: k.StoreCalls, scratch: Memory, folderFd: number): void {
  // A new stream each time round: entries are deleted under it.
  for (let removed = -1; removed !== 0; ) {
    removed = 0;
    eachName(calls, scratch, folderFd, (_, address) => {
      if (calls.unlinkat(folderFd, address, 0) >= 0) removed++;
    });
  }
}

/** Tells of every name in a folder that is a clone's or a pack's, and where it lies in memory. */
function eachName(
  calls: k.StoreCalls,
  scratch: Memory,
  folderFd: number,
  visit: (name: string, address: Address) => void,
): void {
  eachEntry(calls, scratch, folderFd, (name, address) => {
    if (OUR_NAME.test(name)) visit(name, address);
  });
}

/** Tells of every name in a folder but the dots. */
function eachEntry(
  calls: k.StoreCalls,
  scratch: Memory,
  folderFd: number,
  visit: (name: string, address: Address) => void,
): void {
  putString(scratch, 0, '.');
  const fd = calls.openat(folderFd, scratch.address, c.O_RDONLY | c.O_DIRECTORY | c.O_CLOEXEC, 0);
  if (fd < 0) return;
  for (;;) {
    const length = calls.getdents64(fd, scratch.address + LARGE, scratch.bytes.length - LARGE);
    if (length <= 0) break;
    for (let at = LARGE; at < LARGE + length; at += scratch.view.getUint16(at + 16, true)) {
      const end = scratch.bytes.indexOf(0, at + 19);
      const name = Buffer.from(scratch.bytes.subarray(at + 19, end)).toString('latin1');
      if (name !== '.' && name !== '..') visit(name, scratch.address + at + 19);
    }
  }
  calls.close(fd);
}

function refusal(parentPath: string, errno: number): UserError {
  const path = `${parentPath}/${STORE_NAME}`;
  const way: Record<number, string> = {
    [EROFS]: 'mount with store=DIR, a directory on the same filesystem that can be written',
    [ENOTEMPTY]: 'it is not a directory of ours: move it away',
  };
  return new UserError(
    `Cannot make the store ${path}: ${errnoText(errno)}, ${way[-errno] ?? 'try store=DIR with another directory on the same filesystem'}`,
  );
}
