/** The system calls of the fake kernel, each of which may be the one that fails. */

import {
  EAGAIN,
  EBADF,
  EEXIST,
  EINVAL,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EOPNOTSUPP,
  ERANGE,
  ESTALE,
} from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import { type Exact, setU64 } from '../../src/base/struct.ts';
import type { SourceCalls } from '../../src/filesystem/calls.ts';
import { FILEID_BTRFS_WITHOUT_PARENT, FILEID_XFS_INO64_GEN, PLACEHOLDER_INODE } from '../../src/filesystem/handles.ts';
import { statx } from '../../src/fuse/wire/structs.ts';
import { type Descriptor, type FakeKernel, type Inode, MOUNT_FD } from './fake.ts';

const S_IFLNK = 0o120000;
const XATTR_CREATE = 1;
/** Of placeholders, as only btrfs has them. */
const SUBVOLUME = 5;
/** Few entries at a time, so that a directory takes several calls. */
const DIRENTS_AT_ONCE = 160;

type Later<A extends readonly unknown[]> = { (...args: A): number; later(...args: A): Promise<number> };

function later<A extends readonly unknown[]>(call: (...args: A) => number): Later<A> {
  return Object.assign((...args: A) => call(...args), { later: async (...args: A) => call(...args) });
}

export function fakeCalls(k: FakeKernel): SourceCalls {
  const { arena } = k;
  /** A call that may be the one that fails. */
  const call =
    <A extends readonly unknown[]>(name: string, run: (...args: A) => number): ((...args: A) => number) =>
    (...args) =>
      k.fails(name) ? -k.failWith : run(...args);
  const onFile = (fd: number, run: (open: Descriptor) => number): number => {
    const open = k.descriptors.get(fd);
    if (open === undefined) {
      k.violations.push(`use of descriptor ${fd}, which isn't open`);
      return -EBADF;
    }
    return run(open);
  };
  const onInode = (dirFd: number, path: number, run: (inode: Inode) => number): number => {
    const found = k.resolve(dirFd, path);
    if (typeof found === 'number') {
      if (found === -EBADF) k.violations.push(`use of descriptor ${dirFd}, which isn't open`);
      return found;
    }
    return run(found);
  };
  const newEntry = (dirFd: number, path: number, make: () => Inode): number => {
    const at = k.parent(dirFd, path);
    if (typeof at === 'number') return at;
    if (at.directory.entries.has(at.name)) return -EEXIST;
    at.directory.entries.set(at.name, make());
    return 0;
  };
  const opened = (inode: Inode, flags: number): number => {
    if ((flags & c.O_PATH) !== 0) return k.openInode(inode, flags);
    const type = inode.mode & c.S_IFMT;
    if (type === S_IFLNK) return -ELOOP;
    if (type === c.S_IFDIR && (flags & c.O_ACCMODE) !== c.O_RDONLY) return -EISDIR;
    if (type !== c.S_IFDIR && (flags & c.O_DIRECTORY) !== 0) return -ENOTDIR;
    return k.openInode(inode, flags);
  };
  const masked = (mode: number): number => mode & ~k.umask;

  const seek = call('lseek', (fd: number, at: Exact, whence: number) =>
    onFile(fd, (open) => {
      const offset = Number(at);
      if (whence > 4 || offset < 0) return -EINVAL;
      open.position = offset;
      return offset;
    }),
  );
  return {
    openat: call('openat', (dirFd: number, path: number, flags: number, mode: number) => {
      if ((flags & c.O_TMPFILE) === c.O_TMPFILE) return k.openInode(k.make(c.S_IFREG | masked(mode), 0), flags);
      const found = k.resolve(dirFd, path);
      if (typeof found !== 'number') return (flags & c.O_EXCL) !== 0 ? -EEXIST : opened(found, flags);
      if (found !== -ENOENT || (flags & c.O_CREAT) === 0) return found;
      const at = k.parent(dirFd, path);
      if (typeof at === 'number') return at;
      return k.openInode(k.add(at.directory, at.name, c.S_IFREG | masked(mode)), flags);
    }),
    openByHandleAt: call('openByHandleAt', (mountFd: number, handle: number, flags: number) => {
      if (mountFd !== MOUNT_FD) return -EBADF;
      const at = arena.at(handle);
      const inode = k.inodes.get(arena.memory.view.getUint32(at + 8, true));
      if (inode === undefined || inode.generation !== arena.memory.view.getUint32(at + 16, true)) return -ESTALE;
      return opened(inode, flags);
    }),
    nameToHandleAt: call('nameToHandleAt', (dirFd: number, path: number, handle: number) =>
      onInode(dirFd, path, (inode) => {
        const at = arena.at(handle);
        const { view } = arena.memory;
        if (view.getUint32(at, true) < 20) return -EINVAL;
        if (inode.ino === PLACEHOLDER_INODE) {
          view.setUint32(at, 20, true);
          view.setInt32(at + 4, FILEID_BTRFS_WITHOUT_PARENT, true);
          setU64(view, at + 8, inode.ino);
          setU64(view, at + 16, SUBVOLUME);
          return 0;
        }
        view.setUint32(at, 12, true);
        view.setInt32(at + 4, FILEID_XFS_INO64_GEN, true);
        setU64(view, at + 8, inode.ino);
        view.setUint32(at + 16, inode.generation, true);
        return 0;
      }),
    ),
    close: (fd) => {
      k.fails('close');
      return k.close(fd);
    },
    pread: later(
      call('pread', (fd: number, buffer: number, count: number, at: Exact) =>
        onFile(fd, ({ inode }) => {
          const offset = Number(at);
          const part = inode.data.subarray(offset, offset + Math.min(count, k.transferLimit));
          arena.bytes(buffer, part.length).set(part);
          return part.length;
        }),
      ),
    ),
    pwrite: later(
      call('pwrite', (fd: number, buffer: number, wanted: number, at: Exact) =>
        onFile(fd, ({ inode, flags }) => {
          const offset = Number(at);
          const count = Math.min(wanted, k.transferLimit);
          if ((flags & c.O_ACCMODE) === c.O_RDONLY) return -EBADF;
          if (offset > 1 << 20) return -EINVAL;
          const data = Buffer.alloc(Math.max(inode.data.length, offset + count));
          inode.data.copy(data);
          data.set(arena.bytes(buffer, count), offset);
          k.modify(inode, data);
          return count;
        }),
      ),
    ),
    // Composed files are tested on real mounts.
    preadv2: () => -EOPNOTSUPP,
    pwritev2: () => -EOPNOTSUPP,
    fcntl: (fd, command, argument) => {
      if (command !== c.F_SETLEASE || argument !== c.F_RDLCK) return 0;
      return onFile(fd, ({ inode }) => (k.isWritten(inode) ? -EAGAIN : 0));
    },
    posixFadvise: () => 0,
    lseek: seek,
    lseekExact: seek,
    getdents64: call('getdents64', (fd: number, buffer: number, count: number) =>
      onFile(fd, (open) => {
        const all: [string, Inode][] = [['.', open.inode], ['..', open.inode], ...open.inode.entries];
        const bytes = arena.bytes(buffer, count);
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        let used = 0;
        for (; open.position < all.length; open.position++) {
          const [name, inode] = all[open.position] ?? ['', open.inode];
          const length = (19 + name.length + 1 + 7) & ~7;
          if (length > count && used === 0) return -EINVAL;
          if (used + length > Math.min(count, DIRENTS_AT_ONCE)) break;
          setU64(view, used, inode.ino);
          setU64(view, used + 8, open.position + 1);
          view.setUint16(used + 16, length, true);
          view.setUint8(used + 18, inode.mode >>> 12);
          bytes.fill(0, used + 19, used + length);
          bytes.set(Buffer.from(name, 'latin1'), used + 19);
          used += length;
        }
        return used;
      }),
    ),
    statx: call('statx', (dirFd: number, path: number, _flags: number, _mask: number, result: number) =>
      onInode(dirFd, path, (inode) => {
        const at = arena.at(result);
        const { view } = arena.memory;
        arena.bytes(result, 256).fill(0);
        statx.mask.set(view, at, c.STATX_BASIC_STATS);
        statx.nlink.set(view, at, inode.nlink);
        statx.uid.set(view, at, inode.uid);
        statx.gid.set(view, at, inode.gid);
        statx.mode.set(view, at, inode.mode);
        statx.ino.set(view, at, inode.ino);
        statx.size.set(view, at, inode.data.length);
        statx.btime.set(view, at, Math.floor(inode.birthMs / 1000));
        statx.btimensec.set(view, at, (inode.birthMs % 1000) * 1e6);
        statx.mtime.set(view, at, Math.floor(inode.mtimeMs / 1000));
        statx.mtimensec.set(view, at, (inode.mtimeMs % 1000) * 1e6);
        statx.ctime.set(view, at, Math.floor(inode.ctimeMs / 1000));
        statx.ctimensec.set(view, at, (inode.ctimeMs % 1000) * 1e6);
        return 0;
      }),
    ),
    fstatfs: call('fstatfs', (_fd: number, result: number) => {
      arena.bytes(result, 120).fill(0);
      return 0;
    }),
    mkdirat: call('mkdirat', (dirFd: number, path: number, mode: number) =>
      newEntry(dirFd, path, () => k.make(c.S_IFDIR | masked(mode), 2)),
    ),
    mknodat: call('mknodat', (dirFd: number, path: number, mode: number) =>
      newEntry(dirFd, path, () => k.make((mode & c.S_IFMT) | masked(mode & 0o7777), 1)),
    ),
    symlinkat: call('symlinkat', (target: number, dirFd: number, path: number) =>
      newEntry(dirFd, path, () => {
        const inode = k.make(S_IFLNK | 0o777, 1);
        inode.data = Buffer.from(arena.text(target), 'latin1');
        return inode;
      }),
    ),
    readlinkat: call('readlinkat', (dirFd: number, path: number, buffer: number, size: number) =>
      onInode(dirFd, path, (inode) => {
        if ((inode.mode & c.S_IFMT) !== S_IFLNK) return -EINVAL;
        const part = inode.data.subarray(0, size);
        arena.bytes(buffer, part.length).set(part);
        return part.length;
      }),
    ),
    unlinkat: call('unlinkat', (dirFd: number, path: number, flags: number) => {
      const at = k.parent(dirFd, path);
      if (typeof at === 'number') return at;
      const victim = at.directory.entries.get(at.name);
      if (victim === undefined) return -ENOENT;
      const directory = (victim.mode & c.S_IFMT) === c.S_IFDIR;
      if (directory !== ((flags & c.AT_REMOVEDIR) !== 0)) return directory ? -EISDIR : -ENOTDIR;
      if (victim.entries.size > 0) return -ENOTEMPTY;
      at.directory.entries.delete(at.name);
      k.unlinked(victim);
      return 0;
    }),
    linkat: call('linkat', (oldFd: number, _oldPath: number, dirFd: number, path: number) => {
      const inode = k.inodeOf(oldFd);
      if (inode === undefined) return -EBADF;
      return newEntry(dirFd, path, () => {
        inode.nlink++;
        k.touch(inode);
        return inode;
      });
    }),
    renameat2: call('renameat2', (oldFd: number, oldPath: number, newFd: number, newPath: number, flags: number) => {
      const from = k.parent(oldFd, oldPath);
      const to = k.parent(newFd, newPath);
      if (typeof from === 'number') return from;
      if (typeof to === 'number') return to;
      const inode = from.directory.entries.get(from.name);
      const victim = to.directory.entries.get(to.name);
      if (inode === undefined) return -ENOENT;
      if (inode === victim) return 0;
      if ((flags & 1) !== 0 && victim !== undefined) return -EEXIST;
      if ((flags & 2) !== 0) {
        if (victim === undefined) return -ENOENT;
        from.directory.entries.set(from.name, victim);
        to.directory.entries.set(to.name, inode);
        return 0;
      }
      if (victim !== undefined && victim.entries.size > 0) return -ENOTEMPTY;
      if (victim !== undefined && (victim.mode & c.S_IFMT) === c.S_IFDIR && (inode.mode & c.S_IFMT) !== c.S_IFDIR) {
        return -EISDIR;
      }
      from.directory.entries.delete(from.name);
      to.directory.entries.set(to.name, inode);
      k.touch(inode);
      if (victim !== undefined) k.unlinked(victim);
      return 0;
    }),
    faccessat2: () => 0,
    fchmodat2: call('fchmodat2', (dirFd: number, path: number, mode: number) =>
      onInode(dirFd, path, (inode) => {
        inode.mode = (inode.mode & c.S_IFMT) | mode;
        k.touch(inode);
        return 0;
      }),
    ),
    fchownat: call('fchownat', (dirFd: number, path: number, uid: number, gid: number) =>
      onInode(dirFd, path, (inode) => {
        if (uid !== 0xffff_ffff) inode.uid = uid;
        if (gid !== 0xffff_ffff) inode.gid = gid;
        k.touch(inode);
        return 0;
      }),
    ),
    utimensat: call('utimensat', (dirFd: number, path: number) =>
      onInode(dirFd, path, (inode) => {
        k.touch(inode);
        return 0;
      }),
    ),
    ftruncate: later(
      call('ftruncate', (fd: number, size: Exact) =>
        onFile(fd, ({ inode, flags }) => {
          const length = Number(size);
          if ((flags & c.O_ACCMODE) === c.O_RDONLY || length > 1 << 20) return -EINVAL;
          const data = Buffer.alloc(length);
          inode.data.copy(data);
          k.modify(inode, data);
          return 0;
        }),
      ),
    ),
    fallocate: later(call('fallocate', (fd: number) => onFile(fd, () => 0))),
    fsync: later(call('fsync', (fd: number) => onFile(fd, () => 0))),
    fdatasync: later(call('fdatasync', (fd: number) => onFile(fd, () => 0))),
    syncfs: later(call('syncfs', (fd: number) => onFile(fd, () => 0))),
    copyFileRange: later(
      call('copyFileRange', (fdIn: number, _offIn: number, fdOut: number, _offOut: number, length: number) =>
        onFile(fdIn, (from) =>
          onFile(fdOut, (to) => {
            const part = from.inode.data.subarray(from.position, from.position + length);
            const data = Buffer.alloc(Math.max(to.inode.data.length, to.position + part.length));
            to.inode.data.copy(data);
            data.set(part, to.position);
            k.modify(to.inode, data);
            return part.length;
          }),
        ),
      ),
    ),
    getxattr: call('getxattr', (path: number, name: number, value: number, size: number) =>
      onInode(-1, path, (inode) => {
        const held = inode.xattrs.get(arena.text(name));
        if (held === undefined) return -ENODATA;
        if (size === 0) return held.length;
        if (held.length > size) return -ERANGE;
        arena.bytes(value, held.length).set(held);
        return held.length;
      }),
    ),
    setxattr: call('setxattr', (path: number, name: number, value: number, size: number, flags: number) =>
      onInode(-1, path, (inode) => {
        const known = inode.xattrs.has(arena.text(name));
        if (flags === XATTR_CREATE && known) return -EEXIST;
        inode.xattrs.set(arena.text(name), Buffer.from(arena.bytes(value, size)));
        return 0;
      }),
    ),
    listxattr: call('listxattr', (path: number, list: number, size: number) =>
      onInode(-1, path, (inode) => {
        const all = Buffer.from([...inode.xattrs.keys()].map((name) => `${name}\0`).join(''), 'latin1');
        if (all.length > size) return -ERANGE;
        arena.bytes(list, all.length).set(all);
        return all.length;
      }),
    ),
    removexattr: call('removexattr', (path: number, name: number) =>
      onInode(-1, path, (inode) => (inode.xattrs.delete(arena.text(name)) ? 0 : -ENODATA)),
    ),
    ioctl: later(call('ioctl', (fd: number) => onFile(fd, () => 0))),
    umask: (mask) => {
      k.fails('umask');
      const before = k.umask;
      k.umask = mask;
      return before;
    },
    setfsuid: (uid) => {
      const before = k.fsuid;
      k.fsuid = uid;
      return before;
    },
    setfsgid: (gid) => {
      const before = k.fsgid;
      k.fsgid = gid;
      return before;
    },
  };
}
