/** The protocol's structures (include/uapi/linux/fuse.h), and struct statx, which FUSE_STATX carries as it is. */

import { struct } from '../../base/struct.ts';

export const fuse_in_header = struct('fuse_in_header', 40, [
  ['len', 'u32'],
  ['opcode', 'u32'],
  ['unique', 'u64'],
  ['nodeid', 'u64'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['pid', 'u32'],
  ['total_extlen', 'u16'],
  ['_padding', 'u16'],
]);

export const fuse_out_header = struct('fuse_out_header', 16, [
  ['len', 'u32'],
  ['error', 'i32'],
  ['unique', 'u64'],
]);

export const fuse_init_in = struct('fuse_init_in', 64, [
  ['major', 'u32'],
  ['minor', 'u32'],
  ['max_readahead', 'u32'],
  ['flags', 'u32'],
  ['flags2', 'u32'],
  ['_unused0', 'u32'],
  ['_unused1', 'u64'],
  ['_unused2', 'u64'],
  ['_unused3', 'u64'],
  ['_unused4', 'u64'],
  ['_unused5', 'u64'],
]);

export const fuse_init_out = struct('fuse_init_out', 64, [
  ['major', 'u32'],
  ['minor', 'u32'],
  ['max_readahead', 'u32'],
  ['flags', 'u32'],
  ['max_background', 'u16'],
  ['congestion_threshold', 'u16'],
  ['max_write', 'u32'],
  ['time_gran', 'u32'],
  ['max_pages', 'u16'],
  ['map_alignment', 'u16'],
  ['flags2', 'u32'],
  ['max_stack_depth', 'u32'],
  ['request_timeout', 'u16'],
  ['_unused0', 'u16'],
  ['_unused1', 'u32'],
  ['_unused2', 'u64'],
  ['_unused3', 'u64'],
]);

export const fuse_attr = struct('fuse_attr', 88, [
  ['ino', 'u64'],
  ['size', 'u64'],
  ['blocks', 'u64'],
  ['atime', 'i64'],
  ['mtime', 'i64'],
  ['ctime', 'i64'],
  ['atimensec', 'u32'],
  ['mtimensec', 'u32'],
  ['ctimensec', 'u32'],
  ['mode', 'u32'],
  ['nlink', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['rdev', 'u32'],
  ['blksize', 'u32'],
  ['flags', 'u32'],
]);

/** What stands before the attributes of an entry. */
export const fuse_entry_out = struct('fuse_entry_out', 40, [
  ['nodeid', 'u64'],
  ['generation', 'u64'],
  ['entry_valid', 'u64'],
  ['attr_valid', 'u64'],
  ['entry_valid_nsec', 'u32'],
  ['attr_valid_nsec', 'u32'],
]);
export const SIZE_OF_ENTRY = fuse_entry_out.structBytes + fuse_attr.structBytes;

/** What stands before the attributes of a GETATTR or SETATTR reply. */
export const fuse_attr_out = struct('fuse_attr_out', 16, [
  ['attr_valid', 'u64'],
  ['attr_valid_nsec', 'u32'],
  ['_dummy', 'u32'],
]);

export const fuse_getattr_in = struct('fuse_getattr_in', 16, [
  ['getattr_flags', 'u32'],
  ['_dummy', 'u32'],
  ['fh', 'u64'],
]);

export const fuse_setattr_in = struct('fuse_setattr_in', 88, [
  ['valid', 'u32'],
  ['_padding', 'u32'],
  ['fh', 'u64'],
  ['size', 'u64'],
  ['lock_owner', 'u64'],
  ['atime', 'i64'],
  ['mtime', 'i64'],
  ['ctime', 'i64'],
  ['atimensec', 'u32'],
  ['mtimensec', 'u32'],
  ['ctimensec', 'u32'],
  ['mode', 'u32'],
  ['_unused4', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['_unused5', 'u32'],
]);

/** struct statx of include/uapi/linux/stat.h; FUSE_STATX answers with the same layout up to dev_minor. */
export const statx = struct('statx', 256, [
  ['mask', 'u32'],
  ['blksize', 'u32'],
  ['attributes', 'u64'],
  ['nlink', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['mode', 'u16'],
  ['_spare0', 'u16'],
  ['ino', 'u64'],
  ['size', 'u64'],
  ['blocks', 'u64'],
  ['attributes_mask', 'u64'],
  ['atime', 'i64'],
  ['atimensec', 'u32'],
  ['_reserved0', 'u32'],
  ['btime', 'i64'],
  ['btimensec', 'u32'],
  ['_reserved1', 'u32'],
  ['ctime', 'i64'],
  ['ctimensec', 'u32'],
  ['_reserved2', 'u32'],
  ['mtime', 'i64'],
  ['mtimensec', 'u32'],
  ['_reserved3', 'u32'],
  ['rdev_major', 'u32'],
  ['rdev_minor', 'u32'],
  ['dev_major', 'u32'],
  ['dev_minor', 'u32'],
  ['mnt_id', 'u64'],
  ['dio_mem_align', 'u32'],
  ['dio_offset_align', 'u32'],
  ['subvol', 'u64'],
  ['_spare1', 'u64'],
  ['_spare2', 'u64'],
  ['_spare3', 'u64'],
  ['_spare4', 'u64'],
  ['_spare5', 'u64'],
  ['_spare6', 'u64'],
  ['_spare7', 'u64'],
  ['_spare8', 'u64'],
  ['_spare9', 'u64'],
  ['_spare10', 'u64'],
  ['_spare11', 'u64'],
]);

export const fuse_statx_in = struct('fuse_statx_in', 24, [
  ['getattr_flags', 'u32'],
  ['_reserved', 'u32'],
  ['fh', 'u64'],
  ['sx_flags', 'u32'],
  ['sx_mask', 'u32'],
]);

/** What stands before the struct statx of a STATX reply. */
export const fuse_statx_out = struct('fuse_statx_out', 32, [
  ['attr_valid', 'u64'],
  ['attr_valid_nsec', 'u32'],
  ['flags', 'u32'],
  ['_spare0', 'u64'],
  ['_spare1', 'u64'],
]);

export const fuse_forget_in = struct('fuse_forget_in', 8, [['nlookup', 'u64']]);
export const fuse_batch_forget_in = struct('fuse_batch_forget_in', 8, [
  ['count', 'u32'],
  ['_dummy', 'u32'],
]);
export const fuse_forget_one = struct('fuse_forget_one', 16, [
  ['nodeid', 'u64'],
  ['nlookup', 'u64'],
]);

export const fuse_mknod_in = struct('fuse_mknod_in', 16, [
  ['mode', 'u32'],
  ['rdev', 'u32'],
  ['umask', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_mkdir_in = struct('fuse_mkdir_in', 8, [
  ['mode', 'u32'],
  ['umask', 'u32'],
]);
export const fuse_rename_in = struct('fuse_rename_in', 8, [['newdir', 'u64']]);
export const fuse_rename2_in = struct('fuse_rename2_in', 16, [
  ['newdir', 'u64'],
  ['flags', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_link_in = struct('fuse_link_in', 8, [['oldnodeid', 'u64']]);

export const fuse_open_in = struct('fuse_open_in', 8, [
  ['flags', 'u32'],
  ['open_flags', 'u32'],
]);
export const fuse_create_in = struct('fuse_create_in', 16, [
  ['flags', 'u32'],
  ['mode', 'u32'],
  ['umask', 'u32'],
  ['open_flags', 'u32'],
]);
export const fuse_open_out = struct('fuse_open_out', 16, [
  ['fh', 'u64'],
  ['open_flags', 'u32'],
  ['backing_id', 'i32'],
]);
export const fuse_release_in = struct('fuse_release_in', 24, [
  ['fh', 'u64'],
  ['flags', 'u32'],
  ['release_flags', 'u32'],
  ['lock_owner', 'u64'],
]);

export const fuse_flush_in = struct('fuse_flush_in', 24, [
  ['fh', 'u64'],
  ['_unused', 'u32'],
  ['_padding', 'u32'],
  ['lock_owner', 'u64'],
]);

/** GETLK, SETLK and SETLKW; the struct fuse_file_lock in it is written out. */
export const fuse_lk_in = struct('fuse_lk_in', 48, [
  ['fh', 'u64'],
  ['owner', 'u64'],
  ['start', 'u64'],
  ['end', 'u64'],
  ['type', 'u32'],
  ['pid', 'u32'],
  ['lk_flags', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_lk_out = struct('fuse_lk_out', 24, [
  ['start', 'u64'],
  ['end', 'u64'],
  ['type', 'u32'],
  ['pid', 'u32'],
]);

/** READ, READDIR and READDIRPLUS. */
export const fuse_read_in = struct('fuse_read_in', 40, [
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['size', 'u32'],
  ['read_flags', 'u32'],
  ['lock_owner', 'u64'],
  ['flags', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_write_in = struct('fuse_write_in', 40, [
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['size', 'u32'],
  ['write_flags', 'u32'],
  ['lock_owner', 'u64'],
  ['flags', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_write_out = struct('fuse_write_out', 8, [
  ['size', 'u32'],
  ['_padding', 'u32'],
]);

export const fuse_statfs_out = struct('fuse_statfs_out', 80, [
  ['blocks', 'u64'],
  ['bfree', 'u64'],
  ['bavail', 'u64'],
  ['files', 'u64'],
  ['ffree', 'u64'],
  ['bsize', 'u32'],
  ['namelen', 'u32'],
  ['frsize', 'u32'],
  ['_padding', 'u32'],
  ['_spare0', 'u64'],
  ['_spare1', 'u64'],
  ['_spare2', 'u64'],
]);

/** FSYNC and FSYNCDIR. */
export const fuse_fsync_in = struct('fuse_fsync_in', 16, [
  ['fh', 'u64'],
  ['fsync_flags', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_syncfs_in = struct('fuse_syncfs_in', 8, [['_padding', 'u64']]);

/** The extended form, with FUSE_SETXATTR_EXT. */
export const fuse_setxattr_in = struct('fuse_setxattr_in', 16, [
  ['size', 'u32'],
  ['flags', 'u32'],
  ['setxattr_flags', 'u32'],
  ['_padding', 'u32'],
]);
/** GETXATTR and LISTXATTR. */
export const fuse_getxattr_in = struct('fuse_getxattr_in', 8, [
  ['size', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_getxattr_out = struct('fuse_getxattr_out', 8, [
  ['size', 'u32'],
  ['_padding', 'u32'],
]);

export const fuse_interrupt_in = struct('fuse_interrupt_in', 8, [['unique', 'u64']]);

export const fuse_ioctl_in = struct('fuse_ioctl_in', 32, [
  ['fh', 'u64'],
  ['flags', 'u32'],
  ['cmd', 'u32'],
  ['arg', 'u64'],
  ['in_size', 'u32'],
  ['out_size', 'u32'],
]);
export const fuse_ioctl_out = struct('fuse_ioctl_out', 16, [
  ['result', 'i32'],
  ['flags', 'u32'],
  ['in_iovs', 'u32'],
  ['out_iovs', 'u32'],
]);

export const fuse_fallocate_in = struct('fuse_fallocate_in', 32, [
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['length', 'u64'],
  ['mode', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_lseek_in = struct('fuse_lseek_in', 24, [
  ['fh', 'u64'],
  ['offset', 'i64'],
  ['whence', 'u32'],
  ['_padding', 'u32'],
]);
export const fuse_lseek_out = struct('fuse_lseek_out', 8, [['offset', 'u64']]);

/** COPY_FILE_RANGE and COPY_FILE_RANGE_64, which differ in their replies: fuse_write_out, and this below. */
export const fuse_copy_file_range_in = struct('fuse_copy_file_range_in', 56, [
  ['fh_in', 'u64'],
  ['off_in', 'u64'],
  ['nodeid_out', 'u64'],
  ['fh_out', 'u64'],
  ['off_out', 'u64'],
  ['len', 'u64'],
  ['flags', 'u64'],
]);
export const fuse_copy_file_range_out = struct('fuse_copy_file_range_out', 8, [['bytes_copied', 'u64']]);

/** A directory entry's fixed part; its name follows, padded to 8 bytes. READDIRPLUS puts an entry before it. */
export const fuse_dirent = struct('fuse_dirent', 24, [
  ['ino', 'u64'],
  ['off', 'u64'],
  ['namelen', 'u32'],
  ['type', 'u32'],
]);

export const fuse_notify_inval_inode_out = struct('fuse_notify_inval_inode_out', 24, [
  ['ino', 'u64'],
  ['off', 'i64'],
  ['len', 'i64'],
]);
