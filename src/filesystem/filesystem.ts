/** The filesystem's side of the table of operations: which function serves which request. */

import { O_TRUNC } from '../base/linux.ts';
import type { Handlers } from '../fuse/server/session.ts';
import { fuse_copy_file_range_in, fuse_open_in, fuse_rename_in } from '../fuse/wire/structs.ts';
import { getattr, getStatx, setattr, statfs } from './attributes.ts';
import { copyFileRange, fallocate, lseek, read, write } from './data.ts';
import { type Batches, fsyncdir, opendir, readdir, releasedir } from './directories.ts';
import { fsync, syncfs, syncingFile, syncingNodes } from './durability.ts';
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
  const plain = unsynced(m);
  return {
    ...plain,
    ...(m.syncs.names && syncedNames(m, plain)),
    ...(m.syncs.files && syncedFiles(m, plain)),
  };
}

/** What changes names, on a mount with `dirsync` or `sync`. */
function syncedNames(m: Mount, plain: Handlers): Partial<Handlers> {
  const inFolder = (handle: Handlers['MKDIR']) => syncingNodes(m, handle, (r) => [r.nodeid]);
  // Both forms of a rename begin with the new folder.
  const inFolders = (handle: Handlers['RENAME']) =>
    syncingNodes(m, handle, (r) => [...new Set([fuse_rename_in.newdir.get(m.input.view, r.at), r.nodeid])]);
  return {
    CREATE: inFolder(plain.CREATE),
    MKNOD: inFolder(plain.MKNOD),
    MKDIR: inFolder(plain.MKDIR),
    SYMLINK: inFolder(plain.SYMLINK),
    LINK: inFolder(plain.LINK),
    UNLINK: inFolder(plain.UNLINK),
    RMDIR: inFolder(plain.RMDIR),
    RENAME: inFolders(plain.RENAME),
    RENAME2: inFolders(plain.RENAME2),
  };
}

/** What changes files, on a mount with `sync`. */
function syncedFiles(m: Mount, plain: Handlers): Partial<Handlers> {
  const ofNode = (handle: Handlers['WRITE']) => syncingFile(m, handle, (r) => r.nodeid);
  const copied = (handle: Handlers['COPY_FILE_RANGE']) =>
    syncingFile(m, handle, (r) => fuse_copy_file_range_in.nodeid_out.get(m.input.view, r.at));
  return {
    OPEN: syncingNodes(m, plain.OPEN, (r) =>
      (fuse_open_in.flags.get(m.input.view, r.at) & O_TRUNC) !== 0 ? [r.nodeid] : [],
    ),
    WRITE: ofNode(plain.WRITE),
    FALLOCATE: ofNode(plain.FALLOCATE),
    SETATTR: ofNode(plain.SETATTR),
    COPY_FILE_RANGE: copied(plain.COPY_FILE_RANGE),
    COPY_FILE_RANGE_64: copied(plain.COPY_FILE_RANGE_64),
    SETXATTR: syncingNodes(m, plain.SETXATTR, (r) => [r.nodeid]),
    REMOVEXATTR: syncingNodes(m, plain.REMOVEXATTR, (r) => [r.nodeid]),
  };
}

function unsynced(m: Mount): Handlers {
  const batches: Batches = new Map();
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
    READDIR: (r) => readdir(m, r, batches, false),
    READDIRPLUS: (r) => readdir(m, r, batches, true),
    RELEASEDIR: (r) => releasedir(m, r, batches),
    GETXATTR: (r) => getxattr(m, r),
    LISTXATTR: (r) => listxattr(m, r),
    SETXATTR: (r) => setxattr(m, r),
    REMOVEXATTR: (r) => removexattr(m, r),
    IOCTL: (r) => ioctl(m, r),
  };
}
