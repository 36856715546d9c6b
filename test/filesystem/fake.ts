/**
 * A kernel in memory, as far as the filesystem asks of it: a tree of inodes with handles, descriptors, backing files, and
 * calls that fail on demand. It counts what is open, so that a test can end by finding nothing left.
 */

import { EBADF, EMFILE, ENOENT, ENOTDIR } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import { PLACEHOLDER_INODE } from '../../src/filesystem/handles.ts';
import type { Registration } from '../../src/fuse/server/backing.ts';
import type { Arena } from '../fuse/device.ts';

export interface Inode {
  readonly ino: number;
  readonly generation: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  data: Buffer;
  readonly birthMs: number;
  ctimeMs: number;
  mtimeMs: number;
  readonly entries: Map<string, Inode>;
  readonly xattrs: Map<string, Buffer>;
  /** Descriptors and backing ids of it. */
  refs: number;
  /** The extents that its bytes are in: a write goes to others. */
  extents: number;
  /** Somebody who isn't known here has it open for writing. */
  written?: boolean;
  /** Another file has the same extents. */
  shared: boolean;
  /** It is a clone of the store, which nobody may open for writing. */
  readonly clone: boolean;
}

export interface Descriptor {
  readonly inode: Inode;
  readonly flags: number;
  position: number;
}

/** Thrown where a server is killed. */
export class Killed extends Error {}

/** Calls that never fail here, since what would follow isn't theirs to report. */
const unfailing = new Set(['close', 'umask', 'setfsuid', 'setfsgid']);

export class FakeKernel {
  readonly arena: Arena;
  readonly root: Inode;
  readonly inodes = new Map<number, Inode>();
  readonly descriptors = new Map<number, Descriptor>();
  /** What no correct caller does: closing what isn't open, writing to a clone. */
  readonly violations: string[] = [];
  /** Names of the calls so far. */
  readonly log: string[] = [];
  nowMs = 1_800_000_000_000;
  umask = 0o77;
  fsuid = 0;
  fsgid = 0;
  /** The number of calls after which one fails, and with what. */
  failAfter = Number.POSITIVE_INFINITY;
  failWith = 0;
  failed: string | undefined;
  /** The most bytes that one pread or pwrite transfers. */
  transferLimit = Number.POSITIVE_INFINITY;
  /** The number of calls after which the server is killed, before the next one. */
  killAfter = Number.POSITIVE_INFINITY;
  #nextInode = 100;
  #nextExtents = 1;

  constructor(arena: Arena) {
    this.arena = arena;
    this.root = this.make(c.S_IFDIR | 0o755, 2);
  }

  make(mode: number, nlink: number, clone = false): Inode {
    const ino = this.#nextInode++;
    const inode: Inode = {
      ino,
      generation: ino * 7,
      mode,
      nlink,
      uid: this.fsuid,
      gid: this.fsgid,
      data: Buffer.alloc(0),
      birthMs: this.nowMs,
      ctimeMs: this.nowMs,
      mtimeMs: this.nowMs,
      entries: new Map(),
      xattrs: new Map(),
      refs: 0,
      extents: this.#nextExtents++,
      shared: false,
      clone,
    };
    this.inodes.set(ino, inode);
    return inode;
  }

  add(parent: Inode, name: string, mode: number, data = ''): Inode {
    const inode = this.make(mode, 1);
    inode.data = Buffer.from(data);
    parent.entries.set(name, inode);
    return inode;
  }

  /** What a btrfs snapshot has in the place of a subvolume: an empty directory with a number that all such have. */
  addPlaceholder(parent: Inode, name: string): void {
    parent.entries.set(name, { ...this.make(c.S_IFDIR | 0o755, 2), ino: PLACEHOLDER_INODE });
  }

  /** A reflink of a file beside it. */
  reflink(parent: Inode, name: string, from: Inode): Inode {
    const inode = this.add(parent, name, from.mode);
    inode.data = Buffer.from(from.data);
    inode.extents = from.extents;
    inode.shared = true;
    from.shared = true;
    return inode;
  }

  /** Someone wrote to the file, by whatever way. */
  modify(inode: Inode, data: Buffer): void {
    if (inode.clone) this.violations.push(`a write to the clone ${inode.ino}`);
    inode.data = data;
    inode.extents = this.#nextExtents++;
    inode.shared = false;
    inode.mtimeMs = this.nowMs;
    this.touch(inode);
  }

  touch(inode: Inode): void {
    inode.ctimeMs = this.nowMs;
  }

  unlinked(inode: Inode): void {
    inode.nlink -= (inode.mode & c.S_IFMT) === c.S_IFDIR ? 2 : 1;
    this.touch(inode);
    this.reap(inode);
  }

  reap(inode: Inode): void {
    if (inode.nlink <= 0 && inode.refs === 0) this.inodes.delete(inode.ino);
  }

  /** Counts a call, and tells whether it is the one that fails. */
  fails(name: string): boolean {
    if (this.killAfter-- === 0) throw new Killed();
    this.log.push(name);
    if (unfailing.has(name)) return false;
    if (this.failAfter-- !== 0) return false;
    this.failed = name;
    return true;
  }

  openInode(inode: Inode, flags: number): number {
    if (inode.clone && (flags & c.O_ACCMODE) !== c.O_RDONLY) this.violations.push(`a clone opened for writing`);
    let fd = 10;
    while (this.descriptors.has(fd)) fd++;
    this.descriptors.set(fd, { inode, flags, position: 0 });
    inode.refs++;
    if ((flags & c.O_TRUNC) !== 0 && (flags & c.O_PATH) === 0) this.modify(inode, Buffer.alloc(0));
    return fd;
  }

  close(fd: number): number {
    const open = this.descriptors.get(fd);
    if (open === undefined) {
      this.violations.push(`close of ${fd}, which isn't open`);
      return -EBADF;
    }
    this.descriptors.delete(fd);
    open.inode.refs--;
    this.reap(open.inode);
    return 0;
  }

  /** The server is gone, and with it every descriptor that nobody else holds. */
  endProcess(held: ReadonlySet<number>): void {
    for (const fd of [...this.descriptors.keys()]) if (!held.has(fd)) this.close(fd);
    this.fsuid = 0;
    this.fsgid = 0;
    this.umask = 0o77;
  }

  /** Whether anybody has a file open for writing, be it the server. */
  isWritten(inode: Inode): boolean {
    const writing = [...this.descriptors.values()].some(
      (open) => open.inode === inode && (open.flags & c.O_PATH) === 0 && (open.flags & c.O_ACCMODE) !== c.O_RDONLY,
    );
    return writing || inode.written === true;
  }

  /** Another descriptor of the same open file. */
  duplicate(fd: number): number {
    const open = this.descriptors.get(fd);
    return open === undefined ? -EBADF : this.openInode(open.inode, open.flags & ~c.O_TRUNC);
  }

  inodeOf(fd: number): Inode | undefined {
    return fd === MOUNT_FD ? this.root : this.descriptors.get(fd)?.inode;
  }

  /** What a path under a descriptor names: a name, "." or nothing (AT_EMPTY_PATH). */
  resolve(dirFd: number, path: number): Inode | number {
    const text = this.arena.text(path);
    const proc = /^\/proc\/self\/fd\/(\d+)$/.exec(text);
    const base = this.inodeOf(proc === null ? dirFd : Number(proc[1]));
    if (base === undefined) return -EBADF;
    if (text === '' || text === '.' || proc !== null) return base;
    if ((base.mode & c.S_IFMT) !== c.S_IFDIR) return -ENOTDIR;
    return base.entries.get(text) ?? -ENOENT;
  }

  parent(dirFd: number, path: number): { readonly directory: Inode; readonly name: string } | number {
    const directory = this.inodeOf(dirFd);
    if (directory === undefined) return -EBADF;
    if (directory.nlink <= 0) return -ENOENT;
    return { directory, name: this.arena.text(path) };
  }
}

/** The descriptor of the source's mount, which nobody closes. */
export const MOUNT_FD = 3;

/** Backing files, each of which holds its inode as the kernel does. */
export class FakeBacking implements Registration {
  readonly ids = new Map<number, Inode>();
  /** Inodes that were registered so that writes take set-user-ID and set-group-ID away, and those that weren't, at their last time. */
  readonly guarded = new Map<Inode, boolean>();
  limit = Number.POSITIVE_INFINITY;
  closed = 0;
  readonly #kernel: FakeKernel;
  #next = 1;

  constructor(kernel: FakeKernel) {
    this.#kernel = kernel;
  }

  open(fd: number, guarded = false): number {
    if (this.#kernel.fails('backing.open')) return -this.#kernel.failWith;
    if (this.ids.size >= this.limit) return -EMFILE;
    const inode = this.#kernel.inodeOf(fd);
    if (inode === undefined || (inode.mode & c.S_IFMT) !== c.S_IFREG) return -EBADF;
    const id = this.#next++;
    this.ids.set(id, inode);
    this.guarded.set(inode, guarded);
    inode.refs++;
    return id;
  }

  close(backingId: number): number {
    const inode = this.ids.get(backingId);
    if (inode === undefined) {
      this.#kernel.violations.push(`close of backing id ${backingId}, which isn't open`);
      return -ENOENT;
    }
    this.ids.delete(backingId);
    this.closed++;
    inode.refs--;
    this.#kernel.reap(inode);
    return 0;
  }
}
