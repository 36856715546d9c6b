/** File handles: name_to_handle_at(2), by which a file is found again without its name. */

import { AT_FDCWD, O_CLOEXEC } from '../../src/base/linux.ts';
import { struct } from '../../src/base/struct.ts';
import * as libc from '../../src/sys/libc.ts';
import {
  check,
  DATA_SLOT,
  dataAddress,
  dataOf,
  dataWith,
  type Name,
  nameAddress,
  scratch,
  structAddress,
} from './scratch.ts';

/** linux/fcntl.h: the header; the handle's own bytes follow. */
const header = struct('file_handle', 8, [
  ['handle_bytes', 'u32'],
  ['handle_type', 'i32'],
]);

/** linux/exportfs.h */
const MAX_HANDLE_SIZE = 128;

/** The whole structure, to be given to `openHandle`. A symbolic link isn't followed. */
export function handleOf(name: Name): Buffer {
  header.handle_bytes.set(scratch.view, DATA_SLOT, MAX_HANDLE_SIZE);
  check(libc.nameToHandleAt(AT_FDCWD, nameAddress(name), dataAddress, structAddress, 0), 'name_to_handle_at', name);
  return dataOf(header.structBytes + header.handle_bytes.get(scratch.view, DATA_SLOT));
}

/** `mountFd` is any descriptor of the filesystem. */
export function openHandle(mountFd: number, handle: Uint8Array, flags: number): number {
  return check(libc.openByHandleAt(mountFd, dataWith(handle), flags | O_CLOEXEC), 'open_by_handle_at', mountFd);
}
