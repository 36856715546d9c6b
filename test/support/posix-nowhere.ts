/** Calls with an address that is no memory of the process: EFAULT. */

import { AT_FDCWD } from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, type Name, nameAddress } from './scratch.ts';

/** The first page is never mapped (vm.mmap_min_addr). */
const NOWHERE = 8;

export function readToNowhere(fd: number, length: number): number {
  return check(libc.read(fd, NOWHERE, length), 'read', fd);
}

export function writeFromNowhere(fd: number, length: number): number {
  return check(libc.write(fd, NOWHERE, length), 'write', fd);
}

export function listToNowhere(fd: number): number {
  return check(libc.getdents64(fd, NOWHERE, 4096), 'getdents64', fd);
}

export function readlinkToNowhere(name: Name): number {
  return check(libc.readlinkat(AT_FDCWD, nameAddress(name), NOWHERE, 4096), 'readlink', name);
}

export function getXattrToNowhere(name: Name, attribute: string): number {
  return check(libc.getxattr(nameAddress(name, 0), nameAddress(attribute, 1), NOWHERE, 4096), 'getxattr', name);
}

export function setXattrFromNowhere(name: Name, attribute: string): number {
  return check(libc.setxattr(nameAddress(name, 0), nameAddress(attribute, 1), NOWHERE, 10, 0), 'setxattr', name);
}

export function makeNowhere(): number {
  return check(libc.mkdirat(AT_FDCWD, NOWHERE, 0o755), 'mkdir', NOWHERE);
}
