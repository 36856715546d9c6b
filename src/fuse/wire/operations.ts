/**
 * The table of FUSE operations: one row each. The dispatcher checks a request's shape by it, the trace and the counters
 * take their names from it, and the tests walk it. An opcode that has no row is answered with ENOSYS.
 */

import * as s from './structs.ts';

export interface Operation {
  readonly opcode: number;
  /** Bytes of the fixed arguments behind the header. */
  readonly argumentBytes: number;
  /** How many NUL-terminated strings follow the fixed arguments. */
  readonly names: 0 | 1 | 2;
  /** How many of them, from the first, name an entry of a directory: one component of a path, neither `.` nor `..`. */
  readonly components: 0 | 1 | 2;
  /** Whether the kernel waits for a reply. */
  readonly replies: boolean;
}

function row(
  opcode: number,
  argumentBytes: number,
  names: 0 | 1 | 2 = 0,
  components: 0 | 1 | 2 = names,
  replies = true,
): Operation {
  return { opcode, argumentBytes, names, components, replies };
}

export const operations = {
  LOOKUP: row(1, 0, 1),
  FORGET: row(2, s.fuse_forget_in.structBytes, 0, 0, false),
  GETATTR: row(3, s.fuse_getattr_in.structBytes),
  SETATTR: row(4, s.fuse_setattr_in.structBytes),
  READLINK: row(5, 0),
  SYMLINK: row(6, 0, 2, 1),
  MKNOD: row(8, s.fuse_mknod_in.structBytes, 1),
  MKDIR: row(9, s.fuse_mkdir_in.structBytes, 1),
  UNLINK: row(10, 0, 1),
  RMDIR: row(11, 0, 1),
  RENAME: row(12, s.fuse_rename_in.structBytes, 2),
  LINK: row(13, s.fuse_link_in.structBytes, 1),
  OPEN: row(14, s.fuse_open_in.structBytes),
  READ: row(15, s.fuse_read_in.structBytes),
  WRITE: row(16, s.fuse_write_in.structBytes),
  STATFS: row(17, 0),
  RELEASE: row(18, s.fuse_release_in.structBytes),
  FSYNC: row(20, s.fuse_fsync_in.structBytes),
  SETXATTR: row(21, s.fuse_setxattr_in.structBytes, 1, 0),
  GETXATTR: row(22, s.fuse_getxattr_in.structBytes, 1, 0),
  LISTXATTR: row(23, s.fuse_getxattr_in.structBytes),
  REMOVEXATTR: row(24, 0, 1, 0),
  FLUSH: row(25, s.fuse_flush_in.structBytes),
  INIT: row(26, 16),
  OPENDIR: row(27, s.fuse_open_in.structBytes),
  READDIR: row(28, s.fuse_read_in.structBytes),
  RELEASEDIR: row(29, s.fuse_release_in.structBytes),
  FSYNCDIR: row(30, s.fuse_fsync_in.structBytes),
  GETLK: row(31, s.fuse_lk_in.structBytes),
  SETLK: row(32, s.fuse_lk_in.structBytes),
  SETLKW: row(33, s.fuse_lk_in.structBytes),
  CREATE: row(35, s.fuse_create_in.structBytes, 1),
  INTERRUPT: row(36, s.fuse_interrupt_in.structBytes, 0, 0, false),
  DESTROY: row(38, 0),
  IOCTL: row(39, s.fuse_ioctl_in.structBytes),
  BATCH_FORGET: row(42, s.fuse_batch_forget_in.structBytes, 0, 0, false),
  FALLOCATE: row(43, s.fuse_fallocate_in.structBytes),
  READDIRPLUS: row(44, s.fuse_read_in.structBytes),
  RENAME2: row(45, s.fuse_rename2_in.structBytes, 2),
  LSEEK: row(46, s.fuse_lseek_in.structBytes),
  COPY_FILE_RANGE: row(47, s.fuse_copy_file_range_in.structBytes),
  SYNCFS: row(50, s.fuse_syncfs_in.structBytes),
  TMPFILE: row(51, s.fuse_create_in.structBytes, 1, 0),
  STATX: row(52, s.fuse_statx_in.structBytes),
  COPY_FILE_RANGE_64: row(53, s.fuse_copy_file_range_in.structBytes),
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof operations;

/**
 * What we leave to the kernel by answering ENOSYS once, and why:
 * ACCESS (34): the kernel checks permissions itself (`default_permissions`). BMAP (37): block addresses of the source mean
 * nothing on a mount. POLL (40): regular files are always ready. FLUSH (25) isn't among them: it tells that a process has closed
 * the file, with which its locks end; where none are to be expected OPEN says so (FOPEN_NOFLUSH), which saves a round trip per close.
 */
export const LARGEST_OPCODE = 53;

const byOpcode: (OperationName | undefined)[] = new Array(LARGEST_OPCODE + 1).fill(undefined);
for (const name of Object.keys(operations)) {
  if (isOperationName(name)) byOpcode[operations[name].opcode] = name;
}

function isOperationName(name: string): name is OperationName {
  return name in operations;
}

/** The operation of an opcode, or undefined for one that this server doesn't know. */
export function operationOf(opcode: number): OperationName | undefined {
  return byOpcode[opcode];
}
