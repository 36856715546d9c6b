/** The filesystem's side of the table of operations: which function serves which request. */

import type { Handlers } from '../fuse/server/session.ts';
import { getattr, getStatx, setattr, statfs } from './attributes.ts';
import { copyFileRange, fallocate, lseek, read, write } from './data.ts';
import { fsyncdir, type Leftovers, opendir, readdir, releasedir } from './directories.ts';
import { fsync, syncfs } from './durability.ts';
import { create, open, release, tmpfile } from './files.ts';
import { flush, getlk, setlk } from './locks/requests.ts';
import type { Mount } from './mount.ts';
import {
  batchForget,
  forget,
  link,
  lookup,
  mkdir,
  mknod,
  readlink,
  rename,
  rename2,
  rmdir,
  symlink,
  unlink,
} from './namespace.ts';
import { getxattr, ioctl, listxattr, removexattr, setxattr } from './xattrs.ts';

export function filesystem(m: Mount): Handlers {
  const leftovers: Leftovers = new Map();
  return {
    LOOKUP: (r) => lookup(m, r),
    FORGET: (r) => forget(m, r),
    BATCH_FORGET: (r) => batchForget(m, r),
    GETATTR: (r) => getattr(m, r),
    STATX: (r) => getStatx(m, r),
    SETATTR: (r) => setattr(m, r),
    STATFS: () => statfs(m),
    READLINK: (r) => readlink(m, r),
    SYMLINK: (r) => symlink(m, r),
    MKNOD: (r) => mknod(m, r),
    MKDIR: (r) => mkdir(m, r),
    UNLINK: (r) => unlink(m, r),
    RMDIR: (r) => rmdir(m, r),
    RENAME: (r) => rename(m, r),
    RENAME2: (r) => rename2(m, r),
    LINK: (r) => link(m, r),
    OPEN: (r) => open(m, r),
    CREATE: (r) => create(m, r),
    TMPFILE: (r) => tmpfile(m, r),
    RELEASE: (r) => release(m, r),
    FLUSH: (r) => flush(m, r),
    GETLK: (r) => getlk(m, r),
    SETLK: (r) => setlk(m, r, false),
    SETLKW: (r) => setlk(m, r, true),
    READ: (r) => read(m, r),
    WRITE: (r) => write(m, r),
    FALLOCATE: (r) => fallocate(m, r),
    LSEEK: (r) => lseek(m, r),
    COPY_FILE_RANGE: (r) => copyFileRange(m, r, false),
    COPY_FILE_RANGE_64: (r) => copyFileRange(m, r, true),
    FSYNC: (r) => fsync(m, r),
    FSYNCDIR: (r) => fsyncdir(m, r),
    SYNCFS: () => syncfs(m),
    OPENDIR: (r) => opendir(m, r),
    READDIR: (r) => readdir(m, r, leftovers, false),
    READDIRPLUS: (r) => readdir(m, r, leftovers, true),
    RELEASEDIR: (r) => releasedir(m, r, leftovers),
    GETXATTR: (r) => getxattr(m, r),
    LISTXATTR: (r) => listxattr(m, r),
    SETXATTR: (r) => setxattr(m, r),
    REMOVEXATTR: (r) => removexattr(m, r),
    IOCTL: (r) => ioctl(m, r),
  };
}
