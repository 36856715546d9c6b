/**
 * Walks trees: every regular file is given to a visitor once per name, with its folder's descriptor. Nothing is read but
 * folders, links aren't followed, and one step does a bounded amount of work, so that whoever walks can stop at any time.
 */

import { EACCES, ENOENT } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { type ReportCalls, STATFS, STATX } from './calls.ts';

export interface Visitor {
  /** A folder is entered; the number that its files are told with. */
  folder(path: Buffer): number;
  /** `nameAt` is where the name begins in the walker's memory; it is empty for a file that was itself given as a root. */
  file(dirFd: number, nameAt: number, folder: number): void;
}

export interface WalkCounts {
  folders: number;
  /** Fifos, sockets, devices and symbolic links. */
  special: number;
  /** Folders that the caller may not read, and others that couldn't be read. */
  denied: number;
  failed: number;
  /** Names that went away while the tree was walked. */
  vanished: number;
  /** Filesystems that were left out: those of the kernel itself, and with `oneFilesystem` all others. */
  skipped: number;
}

/** d_type of getdents64(2). */
const DT_UNKNOWN = 0;
const DT_DIR = 4;
const DT_REG = 8;

/** Filesystems that have no files in a page cache: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, pstore. */
const KERNELS_OWN = new Set([
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x64626720, 0x74726163, 0x73636673, 0xcafe4a11, 0x6165676c,
]);

/** Layout of the scratch memory: a path or name, struct statx, struct statfs, and directory entries. */
const PATH_AT = 0;
const STATX_AT = 4608;
const STATFS_AT = 4928;
const ENTRIES_AT = 5120;
export const WALK_MEMORY_BYTES = ENTRIES_AT + 65_536;

interface Pending {
  readonly path: Buffer;
  /** The device of the folder that it is in, as major * 2^32 + minor; -1 for a root. */
  readonly device: number;
}

export class Walker {
  readonly counts: WalkCounts = { folders: 0, special: 0, denied: 0, failed: 0, vanished: 0, skipped: 0 };
  readonly #calls: ReportCalls;
  readonly #memory: Memory;
  readonly #visitor: Visitor;
  readonly #oneFilesystem: boolean;
  readonly #pending: Pending[] = [];

  constructor(calls: ReportCalls, memory: Memory, visitor: Visitor, oneFilesystem: boolean) {
    this.#calls = calls;
    this.#memory = memory;
    this.#visitor = visitor;
    this.#oneFilesystem = oneFilesystem;
  }

  add(root: string): void {
    this.#pending.push({ path: Buffer.from(root), device: -1 });
  }

  /** Folders that are still to be walked. */
  get waiting(): number {
    return this.#pending.length;
  }

  /** Walks one folder. False when there is nothing left. */
  step(): boolean {
    const next = this.#pending.pop();
    if (next === undefined) return false;
    this.#enter(next);
    return true;
  }

  #enter({ path, device }: Pending): void {
    const { address, view } = this.#memory;
    if (path.length >= STATX_AT) {
      this.counts.failed++;
      return;
    }
    putString(this.#memory, PATH_AT, path);
    const flags = c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK | c.O_CLOEXEC;
    const fd = this.#calls.openat(c.AT_FDCWD, address + PATH_AT, flags, 0);
    if (fd < 0) {
      this.#failed(fd);
      return;
    }
    putString(this.#memory, PATH_AT, '');
    const read = this.#calls.statx(fd, address + PATH_AT, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + STATX_AT);
    const type = view.getUint16(STATX_AT + STATX.mode, true) & c.S_IFMT;
    const here =
      view.getUint32(STATX_AT + STATX.devMajor, true) * 2 ** 32 + view.getUint32(STATX_AT + STATX.devMinor, true);
    if (read < 0) this.#failed(read);
    else if (type === c.S_IFREG) this.#visitor.file(c.AT_FDCWD, this.#place(path), this.#visitor.folder(path));
    else if (type !== c.S_IFDIR) this.counts.special++;
    else if (device !== here && this.#isLeftOut(fd, device)) this.counts.skipped++;
    else this.#list(fd, path, here);
    this.#calls.close(fd);
  }

  #place(path: Buffer): number {
    putString(this.#memory, PATH_AT, path);
    return PATH_AT;
  }

  #failed(error: number): void {
    if (error === -ENOENT) this.counts.vanished++;
    else if (error === -EACCES) this.counts.denied++;
    else this.counts.failed++;
  }

  /** Whether a folder is on a filesystem that isn't walked, given the device of the folder that it is in. */
  #isLeftOut(fd: number, device: number): boolean {
    if (this.#calls.fstatfs(fd, this.#memory.address + STATFS_AT) < 0) return true;
    if (KERNELS_OWN.has(this.#memory.view.getUint32(STATFS_AT + STATFS.type, true))) return true;
    return this.#oneFilesystem && device !== -1;
  }

  #list(fd: number, path: Buffer, device: number): void {
    this.counts.folders++;
    const folder = this.#visitor.folder(path);
    const { address, bytes, view } = this.#memory;
    for (;;) {
      const length = this.#calls.getdents64(fd, address + ENTRIES_AT, bytes.length - ENTRIES_AT);
      if (length < 0) this.#failed(length);
      if (length <= 0) return;
      for (let at = ENTRIES_AT; at < ENTRIES_AT + length; at += view.getUint16(at + 16, true)) {
        this.#entry(fd, path, folder, device, at + 19, bytes[at + 18] ?? DT_UNKNOWN);
      }
    }
  }

  #entry(fd: number, path: Buffer, folder: number, device: number, nameAt: number, given: number): void {
    const { bytes } = this.#memory;
    if (bytes[nameAt] === 0x2e && (bytes[nameAt + 1] === 0 || (bytes[nameAt + 1] === 0x2e && bytes[nameAt + 2] === 0)))
      return;
    const type = given === DT_UNKNOWN ? this.#typeOf(fd, nameAt) : given;
    if (type === DT_REG) {
      this.#visitor.file(fd, nameAt, folder);
    } else if (type === DT_DIR) {
      const name = bytes.subarray(nameAt, bytes.indexOf(0, nameAt));
      const slash = path[path.length - 1] === 0x2f ? [] : [Buffer.from('/')];
      this.#pending.push({ path: Buffer.concat([path, ...slash, name]), device });
    } else if (type > 0) {
      this.counts.special++;
    }
  }

  /** For filesystems that don't say it with the name. */
  #typeOf(fd: number, nameAt: number): number {
    const { address, view } = this.#memory;
    const flags = c.AT_SYMLINK_NOFOLLOW;
    const read = this.#calls.statx(fd, address + nameAt, flags, c.STATX_BASIC_STATS, address + STATX_AT);
    if (read >= 0) return (view.getUint16(STATX_AT + STATX.mode, true) & c.S_IFMT) >>> 12;
    this.#failed(read);
    return -1;
  }
}
