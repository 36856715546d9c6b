/** Constants of the FUSE protocol under the kernel's names: include/uapi/linux/fuse.h, protocol 7.45. */

export const FUSE_KERNEL_VERSION = 7;
/** The newest minor version that this code was written against. */
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** Passthrough arrived with 7.40 (Linux 6.9); nothing older can carry us. */
export const OLDEST_MINOR_VERSION = 40;

/** INIT flags by bit number: bits above 31 travel in `flags2`. */
export const initFlagBits = {
  FUSE_ASYNC_READ: 0,
  FUSE_POSIX_LOCKS: 1,
  FUSE_FILE_OPS: 2,
  FUSE_ATOMIC_O_TRUNC: 3,
  FUSE_EXPORT_SUPPORT: 4,
  FUSE_BIG_WRITES: 5,
  FUSE_DONT_MASK: 6,
  FUSE_SPLICE_WRITE: 7,
  FUSE_SPLICE_MOVE: 8,
  FUSE_SPLICE_READ: 9,
  FUSE_FLOCK_LOCKS: 10,
  FUSE_HAS_IOCTL_DIR: 11,
  FUSE_AUTO_INVAL_DATA: 12,
  FUSE_DO_READDIRPLUS: 13,
  FUSE_READDIRPLUS_AUTO: 14,
  FUSE_ASYNC_DIO: 15,
  FUSE_WRITEBACK_CACHE: 16,
  FUSE_NO_OPEN_SUPPORT: 17,
  FUSE_PARALLEL_DIROPS: 18,
  FUSE_HANDLE_KILLPRIV: 19,
  FUSE_POSIX_ACL: 20,
  FUSE_ABORT_ERROR: 21,
  FUSE_MAX_PAGES: 22,
  FUSE_CACHE_SYMLINKS: 23,
  FUSE_NO_OPENDIR_SUPPORT: 24,
  FUSE_EXPLICIT_INVAL_DATA: 25,
  FUSE_MAP_ALIGNMENT: 26,
  FUSE_SUBMOUNTS: 27,
  FUSE_HANDLE_KILLPRIV_V2: 28,
  FUSE_SETXATTR_EXT: 29,
  FUSE_INIT_EXT: 30,
  FUSE_SECURITY_CTX: 32,
  FUSE_HAS_INODE_DAX: 33,
  FUSE_CREATE_SUPP_GROUP: 34,
  FUSE_HAS_EXPIRE_ONLY: 35,
  FUSE_DIRECT_IO_ALLOW_MMAP: 36,
  FUSE_PASSTHROUGH: 37,
  FUSE_NO_EXPORT_SUPPORT: 38,
  FUSE_HAS_RESEND: 39,
  FUSE_ALLOW_IDMAP: 40,
  FUSE_OVER_IO_URING: 41,
  FUSE_REQUEST_TIMEOUT: 42,
} as const;

export type InitFlag = keyof typeof initFlagBits;

export const FOPEN_DIRECT_IO = 1 << 0;
/** No FLUSH is sent when a descriptor of this open is closed. */
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PASSTHROUGH = 1 << 7;

/** Stands in a request's header for ids that the kernel doesn't tell (FUSE_ALLOW_IDMAP). */
export const FUSE_INVALID_UIDGID = 0xffff_ffff;

export const FUSE_FSYNC_FDATASYNC = 1 << 0;
/** The lock is a flock(2). */
export const FUSE_LK_FLOCK = 1 << 0;
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0;
/** The WRITE writes back pages of a map. */
export const FUSE_WRITE_CACHE = 1 << 0;
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2;
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;
export const FATTR_KILL_SUIDGID = 1 << 11;

/** Codes of messages that we send unasked: they stand where a reply has its error, with a unique of 0. */
export const FUSE_NOTIFY_RESEND = 7;
/** Bit 63 of the unique of a request that comes again; here of its high word. */
export const FUSE_UNIQUE_RESEND_HIGH = 0x8000_0000;
export const FUSE_NOTIFY_INVAL_INODE = 2;
