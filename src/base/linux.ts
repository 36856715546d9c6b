/**
 * Numbers of the kernel's interface, under the kernel's names (x86-64 and the generic table, which arm64 shares). The FUSE
 * protocol's are in `fuse/wire/constants.ts`, those of extent maps in `extents`.
 */

export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_EMPTY_PATH = 0x1000;

export const O_RDONLY = 0o0;
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_ACCMODE = 0o3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
/** These four differ between x86-64 and arm64 (include/uapi/asm-generic/fcntl.h against arch/arm64). */
const arm = process.arch === 'arm64';
export const O_DIRECTORY = arm ? 0o40000 : 0o200000;
export const O_NOFOLLOW = arm ? 0o100000 : 0o400000;
export const O_DIRECT = arm ? 0o200000 : 0o40000;
export const O_NOATIME = 0o1000000;
export const O_SYNC = 0o4010000;
export const O_PATH = 0o10000000;
export const O_TMPFILE = 0o20000000 | O_DIRECTORY;

/** Of access(2). */
export const W_OK = 2;

/** Capabilities by number: linux/capability.h. */
export const CAP_FOWNER = 3;
export const CAP_FSETID = 4;

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o10;

export const UTIME_NOW = 0x3fffffff;
export const UTIME_OMIT = 0x3ffffffe;

export const SEEK_SET = 0;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export const STATX_NLINK = 0x4;
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;
export const STATX_SUBVOL = 0x8000;

export const OPEN_TREE_CLONE = 1;
export const OPEN_TREE_CLOEXEC = O_CLOEXEC;
export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NOSUID = 0x2;
export const MOUNT_ATTR_NODEV = 0x4;
/** A field of three bits, with three values; it must be cleared when it is set. */
export const MOUNT_ATTR__ATIME = 0x70;
export const MOUNT_ATTR_RELATIME = 0;
export const MOUNT_ATTR_NOATIME = 0x10;
export const MOUNT_ATTR_STRICTATIME = 0x20;
export const MOUNT_ATTR_NODIRATIME = 0x80;

/** Flags of mount(2). */
export const MS_SYNCHRONOUS = 16;
export const MS_REMOUNT = 32;
export const MS_DIRSYNC = 128;
export const MS_NOATIME = 1024;
export const MS_NODIRATIME = 2048;
export const MS_RELATIME = 1 << 21;
export const MS_STRICTATIME = 1 << 24;
/** Flags that statfs(2) shows of a mount. */
export const ST_RDONLY = 1;
export const ST_NOATIME = 1024;
export const ST_NODIRATIME = 2048;
export const ST_RELATIME = 4096;

export const FICLONE = 0x40049409;
export const FICLONERANGE = 0x4020940d;
export const FS_IOC_GETFLAGS = 0x80086601;
export const FS_IOC_SETFLAGS = 0x40086602;
export const FS_IOC_FSGETXATTR = 0x801c581f;
export const FS_IOC_FSSETXATTR = 0x401c5820;
export const FS_IOC_FIEMAP = 0xc020660b;
export const BTRFS_IOC_TREE_SEARCH_V2 = 0xc0709411;
export const BTRFS_IOC_FS_INFO = 0x8400941f;
export const BTRFS_IOC_SUBVOL_CREATE = 0x5000940e;
export const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
export const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;

export const BTRFS_SUPER_MAGIC = 0x9123683e;
export const XFS_SUPER_MAGIC = 0x58465342;
export const FUSE_SUPER_MAGIC = 0x65735546;

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const POSIX_FADV_RANDOM = 1;
export const POSIX_FADV_WILLNEED = 3;
export const POSIX_FADV_DONTNEED = 4;
/** Flag of preadv2(2) and pwritev2(2): fail with EAGAIN rather than wait. */
export const RWF_NOWAIT = 8;

/** Commands and values of fcntl(2). */
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;
export const F_SETFL = 4;
export const F_SETLK = 6;
export const F_SETLKW = 7;
export const F_OFD_SETLK = 37;
export const F_OFD_SETLKW = 38;
export const F_SETLEASE = 1024;
export const F_DUPFD_CLOEXEC = 1030;

export const MNT_DETACH = 2;
export const MS_RDONLY = 1;
export const MFD_CLOEXEC = 1;
export const PR_SET_SECUREBITS = 28;
/** linux/securebits.h: keep capabilities when the user ids change. */
export const SECBIT_NO_SETUID_FIXUP = 1 << 2;

export const AF_UNIX = 1;
export const SOCK_SEQPACKET = 5;
export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x4000_0000;
export const SOCK_DGRAM = 2;
export const SOCK_CLOEXEC = O_CLOEXEC;
