/** Directory streams: getdents64(2) with the positions that it reports, which readdir(3) keeps to itself. */

import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import { check, DATA_SLOT, DATA_SLOT_SIZE, dataAddress, type Name, nameAddress, scratch } from './scratch.ts';

export interface DirectoryEntry {
  readonly name: Buffer;
  /** A big integer, as in `Status`. */
  readonly ino: bigint;
  /** The position behind this entry, to be given to `seekDirectory`. */
  readonly next: bigint;
  /** One of DT_*: the file type's bits shifted right by 12, or 0 when the filesystem doesn't say. */
  readonly type: number;
}

export const DT_FIFO = 1;
export const DT_CHR = 2;
export const DT_DIR = 4;
export const DT_REG = 8;
export const DT_LNK = 10;
export const DT_SOCK = 12;

/** linux/dirent.h: the name follows the inode number, the position, the record's length and the type. */
const NAME_OFFSET = 19;

/** The next entries, as many as fit into `size` bytes; none at the end. */
export function readEntries(fd: number, size: number = DATA_SLOT_SIZE): DirectoryEntry[] {
  const length = check(libc.getdents64(fd, dataAddress, size), 'getdents64', fd);
  const entries: DirectoryEntry[] = [];
  const { view, bytes } = scratch;
  for (let at = DATA_SLOT; at < DATA_SLOT + length; at += view.getUint16(at + 16, true)) {
    const start = at + NAME_OFFSET;
    entries.push({
      ino: view.getBigUint64(at, true),
      next: view.getBigInt64(at + 8, true),
      type: view.getUint8(at + 18),
      name: Buffer.from(bytes.subarray(start, bytes.indexOf(0, start))),
    });
  }
  return entries;
}

/** Positions above 2^53 can't be gone back to: no caller's test needs the one behind the last entry. */
export function seekDirectory(fd: number, position: bigint): void {
  check(libc.lseek(fd, Number(position), 0), 'lseek', fd);
}

/** All entries that are left in the stream, read in pieces of `size` bytes. */
export function readAllEntries(fd: number, size: number = DATA_SLOT_SIZE): DirectoryEntry[] {
  const all: DirectoryEntry[] = [];
  for (;;) {
    const entries = readEntries(fd, size);
    if (entries.length === 0) return all;
    all.push(...entries);
  }
}

/** All entries of a directory, `.` and `..` left out. */
export function entriesOf(name: Name): DirectoryEntry[] {
  const fd = check(libc.openat(AT_FDCWD, nameAddress(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), 'open', name);
  try {
    return readAllEntries(fd).filter((entry) => !['.', '..'].includes(entry.name.toString('latin1')));
  } finally {
    libc.close(fd);
  }
}
