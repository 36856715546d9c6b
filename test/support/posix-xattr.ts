/** Extended attributes: xattr(7). Those of a symbolic link itself are reached through /proc, by an O_PATH descriptor. */

import { AT_FDCWD, O_CLOEXEC, O_NOFOLLOW, O_PATH } from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, DATA_SLOT_SIZE, dataAddress, dataOf, dataWith, type Name, nameAddress } from './scratch.ts';

export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;

/** `size` limits the buffer that is offered: a value that doesn't fit is ERANGE. */
export function getXattr(name: Name, attribute: string, size = DATA_SLOT_SIZE): Buffer {
  const length = libc.getxattr(nameAddress(name, 0), nameAddress(attribute, 1), dataAddress, size);
  return dataOf(check(length, 'getxattr', name));
}

/** The length of the value, which is not read. */
export function sizeOfXattr(name: Name, attribute: string): number {
  return check(libc.getxattr(nameAddress(name, 0), nameAddress(attribute, 1), 0, 0), 'getxattr', name);
}

export function setXattr(name: Name, attribute: string, value: string | Uint8Array, flags = 0): void {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  const address = dataWith(bytes);
  const result = libc.setxattr(nameAddress(name, 0), nameAddress(attribute, 1), address, bytes.length, flags);
  check(result, 'setxattr', name);
}

export function removeXattr(name: Name, attribute: string): void {
  check(libc.removexattr(nameAddress(name, 0), nameAddress(attribute, 1)), 'removexattr', name);
}

/** Sorted. `size` limits the buffer that is offered. */
export function listXattrs(name: Name, size = DATA_SLOT_SIZE): string[] {
  const length = check(libc.listxattr(nameAddress(name), dataAddress, size), 'listxattr', name);
  return dataOf(length).toString('utf8').split('\0').slice(0, -1).sort();
}

/** A name of the file itself that following links doesn't leave, for the duration of `use`. */
export function withoutFollowing<T>(name: Name, use: (name: string) => T): T {
  const fd = check(libc.openat(AT_FDCWD, nameAddress(name), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0), 'open', name);
  try {
    return use(`/proc/self/fd/${fd}`);
  } finally {
    libc.close(fd);
  }
}
