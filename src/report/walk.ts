/**
 * Walks trees: every regular file is given to a visitor once per name, with its folder's descriptor. Nothing is read but
 * folders, links aren't followed, and one step does a bounded amount of work, so that whoever walks can stop at any time.
 */

import { EACCES, ENAMETOOLONG, ENOENT } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { deviceOf, type ReportCalls, STATFS, STATX } from './calls.ts';
import { InodeSet } from './inodes.ts';
import { NO_FOLDER } from './paths.ts';
import { openedPath, type View, type Views } from './views.ts';

export interface Visitor {
  /** A folder is entered; returns the number that what is in it is told with. A root has its whole path as name. */
  folder(parent: number, name: Uint8Array): number;
  /**
   * `nameAt` is where the name begins in the walker's memory. `layers` are the folders of an overlay's layers that may have the
   * file, uppermost first, and undefined elsewhere.
   */
  file(dirFd: number, nameAt: number, folder: number, layers: readonly number[] | undefined): void;
}

export interface WalkCounts {
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
  /** What people are told: its name, or the whole path of a root. */
  readonly name: Buffer;
  /** The number of the folder that it is in, or NO_FOLDER. */
  readonly parent: number;
  /** The device of the folder that it is in, as major * 2^32 + minor; ROOT for a root. */
  readonly device: number;
  /** Which part of the whole walk it is, as far as is known: all of them add up to 1. */
  part: number;
  /** On an overlay: the paths of its layers' folders. */
  readonly layers: readonly Buffer[] | undefined;
}

const ROOT = -1;
/** That of a mountpoint whose folder isn't walked. */
const OTHER_DEVICE = -2;

function root(name: string, part: number, path = name, layers?: readonly Buffer[]): Pending {
  return { path: Buffer.from(path), name: Buffer.from(name), parent: NO_FOLDER, device: ROOT, part, layers };
}

export interface WalkerOptions {
  readonly calls: ReportCalls;
  readonly memory: Memory;
  readonly visitor: Visitor;
  readonly views: Views;
  readonly oneFilesystem: boolean;
}

export class Walker {
  readonly counts: WalkCounts = { special: 0, denied: 0, failed: 0, vanished: 0, skipped: 0 };
  /** What was met that shows other folders' files. */
  readonly met = new Set<View>();
  /** How much of the walk is done, from 0 to 1: each folder counts as much as its siblings together with it. */
  done = 0;
  readonly #o: WalkerOptions;
  /** Those that were walked: bind mounts show them twice. */
  readonly #folders = new InodeSet();
  readonly #pending: Pending[] = [];

  constructor(options: WalkerOptions) {
    this.#o = options;
  }

  add(roots: readonly string[]): void {
    const part = 1 / roots.length;
    for (const path of roots.toReversed()) {
      const around = this.#o.views.around(path);
      if (around === undefined) this.#pending.push(root(path, part));
      else this.#show(around.view, around.rest, path, part);
    }
  }

  /** Walks one folder. False when there is nothing left. */
  step(): boolean {
    const next = this.#pending.pop();
    if (next === undefined) return false;
    const view = next.device === ROOT ? undefined : this.#o.views.at(next.path);
    if (view === undefined) {
      this.#enter(next);
    } else if (this.#o.oneFilesystem) {
      this.counts.skipped++;
      this.done += next.part;
    } else {
      this.#show(view, '', next.path.toString(), next.part);
    }
    return true;
  }

  /** Walks what stands behind a view, or behind the folder `rest` of it, whose path is `path`. */
  #show(view: View, rest: string, path: string, part: number): void {
    this.met.add(view);
    const behind = view.folders.map((folder) => (rest === '' ? folder : `${folder}/${rest}`));
    if (view.type === 'overlay') {
      const layers = behind.map((folder) => Buffer.from(folder));
      this.#pending.push(root(path, part, path, layers));
      return;
    }
    const instead = [...view.beside, ...behind];
    if (instead.length === 0) this.done += part;
    for (const folder of instead) this.#pending.push(root(folder, part / instead.length, openedPath(view, folder)));
    for (const mountpoint of this.#o.views.below(path)) {
      this.#pending.push({ ...root(mountpoint, 0), device: OTHER_DEVICE });
    }
  }

  #enter(next: Pending): void {
    const { path, device } = next;
    const { address, view } = this.#o.memory;
    const { calls } = this.#o;
    this.done += next.part;
    if (path.length >= STATX_AT) {
      this.counts.failed++;
      return;
    }
    putString(this.#o.memory, PATH_AT, path);
    const flags = c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK | c.O_CLOEXEC;
    const fd = calls.openat(c.AT_FDCWD, address + PATH_AT, flags, 0);
    if (fd < 0) {
      this.#failed(fd);
      return;
    }
    putString(this.#o.memory, PATH_AT, '');
    const read = calls.statx(fd, address + PATH_AT, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, address + STATX_AT);
    const type = view.getUint16(STATX_AT + STATX.mode, true) & c.S_IFMT;
    const here = deviceOf(view, STATX_AT);
    if (read < 0) this.#failed(read);
    else if (type === c.S_IFREG) this.#file(next);
    else if (type !== c.S_IFDIR) this.counts.special++;
    else if (device !== here && this.#isLeftOut(fd, device)) this.counts.skipped++;
    else if (this.#folders.add(view, STATX_AT)) this.#list(fd, next, here);
    calls.close(fd);
  }

  #failed(error: number): void {
    if (error === -ENOENT) this.counts.vanished++;
    else if (error === -EACCES) this.counts.denied++;
    else this.counts.failed++;
  }

  /** Whether a folder is on a filesystem that isn't walked, given the device of the folder that it is in. */
  #isLeftOut(fd: number, device: number): boolean {
    const { calls, memory, oneFilesystem } = this.#o;
    if (calls.fstatfs(fd, memory.address + STATFS_AT) < 0) return true;
    if (KERNELS_OWN.has(memory.view.getUint32(STATFS_AT + STATFS.type, true))) return true;
    return oneFilesystem && device !== ROOT;
  }

  /** A file that was given by its path. */
  #file({ path, name, layers }: Pending): void {
    const { calls, memory, visitor } = this.#o;
    const slash = path.lastIndexOf(0x2f);
    const folder = path.subarray(0, Math.max(1, slash));
    const fd = this.#open(folder);
    if (fd < 0) {
      this.#failed(fd);
      return;
    }
    const fds = layers
      ?.map((layer) => this.#open(layer.subarray(0, layer.lastIndexOf(0x2f))))
      .filter((one) => one >= 0);
    putString(memory, PATH_AT, path.subarray(slash + 1));
    const shown = name.subarray(0, Math.max(1, name.lastIndexOf(0x2f)));
    visitor.file(fd, PATH_AT, visitor.folder(NO_FOLDER, shown), fds);
    for (const one of fds ?? []) calls.close(one);
    calls.close(fd);
  }

  /** A folder, to look names up in, or a negated errno. */
  #open(path: Buffer): number {
    const { calls, memory } = this.#o;
    if (path.length >= STATX_AT) return -ENAMETOOLONG;
    putString(memory, PATH_AT, path);
    const flags = c.O_PATH | c.O_DIRECTORY | c.O_NOFOLLOW | c.O_CLOEXEC;
    return calls.openat(c.AT_FDCWD, memory.address + PATH_AT, flags, 0);
  }

  #list(fd: number, next: Pending, device: number): void {
    const { calls, memory, visitor } = this.#o;
    const { address, bytes, view } = memory;
    const folder = visitor.folder(next.parent, next.name);
    const layers = this.#layers(next, device);
    const before = this.#pending.length;
    const inside = { path: next.path, folder, device, layers };
    for (;;) {
      const length = calls.getdents64(fd, address + ENTRIES_AT, bytes.length - ENTRIES_AT);
      if (length < 0) this.#failed(length);
      if (length <= 0) break;
      for (let at = ENTRIES_AT; at < ENTRIES_AT + length; at += view.getUint16(at + 16, true)) {
        this.#entry(fd, inside, at + 19, bytes[at + 18] ?? DT_UNKNOWN);
      }
    }
    for (const one of layers?.fds ?? []) calls.close(one);
    const part = next.part / (this.#pending.length - before + 1);
    for (let i = before; i < this.#pending.length; i++) {
      const child = this.#pending[i];
      if (child !== undefined) child.part = part;
      this.done -= part;
    }
  }

  /** The folders of an overlay's layers that make up the folder at hand, opened. */
  #layers({ layers, device }: Pending, here: number): Layers | undefined {
    if (layers === undefined || (device !== ROOT && device !== here)) return;
    const fds: number[] = [];
    const paths: Buffer[] = [];
    for (const path of layers) {
      const fd = this.#open(path);
      if (fd < 0) continue;
      fds.push(fd);
      paths.push(path);
    }
    return { fds, paths };
  }

  #entry(fd: number, inside: Inside, nameAt: number, given: number): void {
    const { bytes } = this.#o.memory;
    if (bytes[nameAt] === 0x2e && (bytes[nameAt + 1] === 0 || (bytes[nameAt + 1] === 0x2e && bytes[nameAt + 2] === 0)))
      return;
    const type = given === DT_UNKNOWN ? this.#typeOf(fd, nameAt) : given;
    if (type === DT_REG) {
      this.#o.visitor.file(fd, nameAt, inside.folder, inside.layers?.fds);
    } else if (type === DT_DIR) {
      const name = bytes.subarray(nameAt, bytes.indexOf(0, nameAt));
      const path = below(inside.path, name);
      this.#pending.push({
        path,
        name: path.subarray(path.length - name.length),
        parent: inside.folder,
        device: inside.device,
        part: 0,
        layers: inside.layers?.paths.map((layer) => below(layer, name)),
      });
    } else if (type > 0) {
      this.counts.special++;
    }
  }

  /** For filesystems that don't say it with the name. */
  #typeOf(fd: number, nameAt: number): number {
    const { calls, memory } = this.#o;
    const { address, view } = memory;
    const flags = c.AT_SYMLINK_NOFOLLOW;
    const read = calls.statx(fd, address + nameAt, flags, c.STATX_BASIC_STATS, address + STATX_AT);
    if (read >= 0) return (view.getUint16(STATX_AT + STATX.mode, true) & c.S_IFMT) >>> 12;
    this.#failed(read);
    return -1;
  }
}

/** The layers' folders that make up one folder of an overlay, uppermost first. */
interface Layers {
  readonly fds: readonly number[];
  readonly paths: readonly Buffer[];
}

/** What the entries of a folder need to know of it. */
interface Inside {
  readonly path: Buffer;
  readonly folder: number;
  readonly device: number;
  readonly layers: Layers | undefined;
}

function below(folder: Buffer, name: Uint8Array): Buffer {
  const slash = folder[folder.length - 1] === 0x2f ? [] : [Buffer.from('/')];
  return Buffer.concat([folder, ...slash, name]);
}
