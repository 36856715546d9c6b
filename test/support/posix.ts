/**
 * What node:fs lacks of the file interface, as thin typed functions: one system call each, synchronous, throwing a
 * `SystemCallError` with the errno's name as `code`. Names may be Buffers, for names that aren't UTF-8. All arguments and
 * results can be sent to another process, so that `asuser.ts` can run each function as another user.
 *
 * Locks, mappings, attributes and what concerns extents have files of their own, which are exported from here, too.
 */

import * as constants from '../../src/base/linux.ts';
import type { Exact } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, DATA_SLOT_SIZE, dataAddress, dataOf, dataWith, type Name, nameAddress } from './scratch.ts';

export {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_APPEND,
  O_CREAT,
  O_DIRECT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  O_TRUNC,
  O_WRONLY,
  SEEK_DATA,
  SEEK_HOLE,
  SEEK_SET,
} from '../../src/base/linux.ts';
export * from './posix-directory.ts';
export * from './posix-extents.ts';
export * from './posix-handles.ts';
export * from './posix-locks.ts';
export * from './posix-mapping.ts';
export * from './posix-nowhere.ts';
export * from './posix-stat.ts';
export * from './posix-xattr.ts';

export const SEEK_CUR = 1;
export const SEEK_END = 2;

/** linux/stat.h */
export const S_IFMT = 0o170000;
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFDIR = 0o040000;
export const S_IFBLK = 0o060000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFSOCK = 0o140000;

/** linux/fs.h: renameat2(2) */
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const RENAME_WHITEOUT = 4;

/** Opens a name, relative to a directory's descriptor or to the working directory (AT_FDCWD). */
export function openAt(dirFd: number, name: Name, flags: number, mode = 0o666): number {
  return check(libc.openat(dirFd, nameAddress(name), flags | constants.O_CLOEXEC, mode), 'openat', name);
}

export function open(name: Name, flags: number, mode = 0o666): number {
  return openAt(constants.AT_FDCWD, name, flags, mode);
}

export function close(fd: number): void {
  check(libc.close(fd), 'close', fd);
}

/** A file without a name in a directory: O_TMPFILE. */
export function openTemporary(dir: Name, flags: number, mode = 0o600): number {
  return openAt(constants.AT_FDCWD, dir, flags | constants.O_TMPFILE, mode);
}

/** A second descriptor of the same open file description: they share position and status flags. */
export function dup(fd: number): number {
  return check(libc.dup(fd), 'dup', fd);
}

const F_GETFL = 3;
const F_SETFL = 4;

export function statusFlags(fd: number): number {
  return check(libc.fcntl(fd, F_GETFL, 0), 'fcntl(F_GETFL)', fd);
}

export function setStatusFlags(fd: number, flags: number): void {
  check(libc.fcntl(fd, F_SETFL, flags), 'fcntl(F_SETFL)', fd);
}

/** At most `DATA_SLOT_SIZE` bytes (256 KiB) at once; from the descriptor's own position unless one is given. */
export function read(fd: number, length: number, position?: Exact): Buffer {
  const wanted = Math.min(length, DATA_SLOT_SIZE);
  const count =
    position === undefined ? libc.read(fd, dataAddress, wanted) : libc.pread(fd, dataAddress, wanted, position);
  return dataOf(check(count, 'read', fd));
}

/** Returns how many bytes were written. */
export function write(fd: number, content: string | Uint8Array, position?: Exact): number {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  const address = dataWith(bytes);
  const count =
    position === undefined ? libc.write(fd, address, bytes.length) : libc.pwrite(fd, address, bytes.length, position);
  return check(count, 'write', fd);
}

export function seek(fd: number, offset: number, whence: number): number {
  return check(libc.lseek(fd, offset, whence), 'lseek', fd);
}

/** The same, exact beyond 2^53. */
export function seekExact(fd: number, offset: bigint, whence: number): bigint {
  const result = libc.lseekExact(fd, offset, whence);
  check(Number(result), 'lseek', fd);
  return BigInt(result);
}

export function mkdir(name: Name, mode = 0o777): void {
  check(libc.mkdirat(constants.AT_FDCWD, nameAddress(name), mode), 'mkdir', name);
}

/** Any kind of node: `mode` has one of the S_IF bits; the device's numbers matter for S_IFCHR and S_IFBLK only. */
export function mknod(name: Name, mode: number, major = 0, minor = 0): void {
  // Numbers of devices are small here: the part of the encoding above 8 bits each (new_encode_dev) isn't needed.
  const device = (major << 8) | minor;
  check(libc.mknodat(constants.AT_FDCWD, nameAddress(name), mode, device), 'mknod', name);
}

export function unlink(name: Name, flags = 0): void {
  check(libc.unlinkat(constants.AT_FDCWD, nameAddress(name), flags), 'unlink', name);
}

export function rmdir(name: Name): void {
  unlink(name, constants.AT_REMOVEDIR);
}

/** `flags` 0 gives a symbolic link a second name; AT_SYMLINK_FOLLOW gives its target one. */
export function link(oldName: Name, newName: Name, flags = 0): void {
  const result = libc.linkat(
    constants.AT_FDCWD,
    nameAddress(oldName, 0),
    constants.AT_FDCWD,
    nameAddress(newName, 1),
    flags,
  );
  check(result, 'link', newName);
}

/** Names an open file, such as one made with O_TMPFILE: open(2) shows this way through /proc. */
export function linkDescriptor(fd: number, newName: Name): void {
  link(`/proc/self/fd/${fd}`, newName, constants.AT_SYMLINK_FOLLOW);
}

/** Names what a descriptor stands for, without a way through /proc: AT_EMPTY_PATH. */
export function linkEmptyPath(fd: number, newName: Name): void {
  const from = nameAddress('', 0);
  check(libc.linkat(fd, from, constants.AT_FDCWD, nameAddress(newName, 1), constants.AT_EMPTY_PATH), 'link', newName);
}

export function symlink(target: Name, name: Name): void {
  check(libc.symlinkat(nameAddress(target, 0), constants.AT_FDCWD, nameAddress(name, 1)), 'symlink', name);
}

export function readlink(name: Name): Buffer {
  const length = libc.readlinkat(constants.AT_FDCWD, nameAddress(name), dataAddress, DATA_SLOT_SIZE);
  return dataOf(check(length, 'readlink', name));
}

/** The target of a link that a descriptor stands for (O_PATH with O_NOFOLLOW). `size` limits the buffer that is offered. */
export function readlinkOfDescriptor(fd: number, size: number = DATA_SLOT_SIZE): Buffer {
  return dataOf(check(libc.readlinkat(fd, nameAddress(''), dataAddress, size), 'readlink', fd));
}

export function rename(oldName: Name, newName: Name, flags = 0): void {
  const result = libc.renameat2(
    constants.AT_FDCWD,
    nameAddress(oldName, 0),
    constants.AT_FDCWD,
    nameAddress(newName, 1),
    flags,
  );
  check(result, 'rename', newName);
}

export function chmod(name: Name, mode: number): void {
  check(libc.fchmodat2(constants.AT_FDCWD, nameAddress(name), mode, 0), 'chmod', name);
}

export function fchmod(fd: number, mode: number): void {
  check(libc.fchmodat2(fd, nameAddress(''), mode, constants.AT_EMPTY_PATH), 'fchmod', fd);
}

/** -1 leaves an id as it is. */
export function chown(name: Name, uid: number, gid: number, flags = 0): void {
  check(libc.fchownat(constants.AT_FDCWD, nameAddress(name), uid >>> 0, gid >>> 0, flags), 'chown', name);
}

export function fchown(fd: number, uid: number, gid: number): void {
  check(libc.fchownat(fd, nameAddress(''), uid >>> 0, gid >>> 0, constants.AT_EMPTY_PATH), 'fchown', fd);
}

export function truncate(name: Name, size: Exact): void {
  check(libc.truncate(nameAddress(name), size), 'truncate', name);
}

export function ftruncate(fd: number, size: Exact): void {
  check(libc.ftruncate(fd, size), 'ftruncate', fd);
}

export function fsync(fd: number): void {
  check(libc.fsync(fd), 'fsync', fd);
}

export function fdatasync(fd: number): void {
  check(libc.fdatasync(fd), 'fdatasync', fd);
}

/** Returns the mask that was in force before; it belongs to the whole process. */
export function umask(mask: number): number {
  return libc.umask(mask);
}
