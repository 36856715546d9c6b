/** A filesystem in memory, as far as a store of mappings asks of it: clones with maps of extents, and free space. */

import { EBADF, EIO, ENOENT } from '../../src/base/errno.ts';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';
import { setU64 } from '../../src/base/struct.ts';
import { ExtentMap, ExtentMapBuilder } from '../../src/extents/extentmap.ts';
import type { ExtentReader } from '../../src/extents/identify.ts';
import { InlineItem } from '../../src/extents/inlineitem.ts';
import { BackingFiles, KEPT_WORDS } from '../../src/fuse/server/backing.ts';
import { STATFS, STATX, type StoreCalls } from '../../src/mappings/calls.ts';
import type { SharedFile } from '../../src/mappings/content.ts';
import { MappingRows, mappingRowsWords } from '../../src/mappings/rows.ts';
import { MappingStore, STORE_SCRATCH_BYTES, type StoreOptions } from '../../src/mappings/store.ts';
import { Arena } from '../fuse/device.ts';

export const BLOCK = 4096;
const PAIRS = 100_000;
const FICLONE = 0x40049409;
export const DIRECTORY_FD = 4;
export const READ_ONLY_FD = 5;

export interface FakeFile {
  readonly ino: number;
  /** Addresses of its blocks. */
  blocks: number[];
  size: number;
  shared: boolean;
  /** Pages that aren't on disk. */
  dirty: number;
  nocow: boolean;
  uid: number;
  /** What it begins with. */
  head?: string;
  /** The item of an inline file, which has no blocks. */
  item?: string;
}

/** Extent maps that all have one hash. */
class CollidingMap extends ExtentMap {
  override hash(): number {
    return 5;
  }
}

function mapOf(file: FakeFile, colliding: boolean): ExtentMap {
  if (colliding) {
    const rows = file.blocks.flatMap((address, i) => [i * 2 * BLOCK, BLOCK, address, -1]);
    return new CollidingMap(Float64Array.from(rows), file.blocks.length * BLOCK);
  }
  const builder = new ExtentMapBuilder();
  for (const [i, address] of file.blocks.entries()) builder.append(i * 2 * BLOCK, BLOCK, address);
  return builder.finish();
}

export class FakeStorage {
  readonly arena = new Arena(1 << 16);
  readonly files = new Map<number, FakeFile>();
  readonly clones = new Map<string, FakeFile>();
  readonly open = new Map<number, { readonly file: FakeFile; readonly writing: boolean }>();
  readonly backing = new Map<number, FakeFile>();
  readonly violations: string[] = [];
  readonly unlinked: string[] = [];
  readonly dropped: number[] = [];
  nowMs = 1_000_000;
  freeBytes = 1e12;
  /** What the next clonings answer. */
  readonly cloneErrors: number[] = [];
  /** Waiting clonings on other threads. */
  readonly threads: (() => void)[] = [];
  /** All maps have the same hash. */
  colliding = false;
  /** A file that changes behind so many looks at its map. */
  changing: { readonly file: FakeFile; looks: number } | undefined;
  backingError = 0;
  #nextInode = 1000;
  #nextFd = 10;
  #nextId = 1;

  file(blocks: readonly number[], changes: Partial<FakeFile> = {}): FakeFile {
    const ino = this.#nextInode++;
    return {
      ino,
      blocks: [...blocks],
      size: blocks.length * 2 * BLOCK,
      shared: true,
      dirty: 0,
      nocow: false,
      uid: 0,
      ...changes,
    };
  }

  /** Opens a file as the filesystem does before it asks to share it. */
  shared(file: FakeFile, sinceModifiedMs = 1e9): SharedFile {
    const fd = this.#nextFd++;
    this.open.set(fd, { file, writing: false });
    return { fd, size: file.size, inode: file.ino, domain: 0, uid: file.uid, node: file.ino, sinceModifiedMs };
  }

  /** Nodes that were forgotten. */
  readonly forgotten = new Set<number>();

  readonly dropPages = (node: number): boolean => {
    if (this.forgotten.has(node)) return false;
    this.dropped.push(node);
    return true;
  };

  #of(fd: number): FakeFile {
    const found = this.open.get(fd);
    if (found === undefined) throw new Error(`descriptor ${fd} isn't open`);
    return found.file;
  }

  #clone(to: number, from: number): number {
    const error = this.cloneErrors.shift();
    if (error !== undefined) return error;
    const source = this.#of(from);
    const clone = this.#of(to);
    if (this.open.get(to)?.writing !== true) return -EBADF;
    clone.blocks = [...source.blocks];
    clone.size = source.size;
    if (source.item !== undefined) clone.item = source.item;
    if (source.head !== undefined) clone.head = source.head;
    return 0;
  }

  readonly calls: StoreCalls = {
    openat: (dirFd, path, flags) => {
      const name = this.arena.text(path);
      const writing = (flags & 3) !== 0;
      if (writing && dirFd !== DIRECTORY_FD) this.violations.push('a clone was made or opened on the read-only mount');
      if (!writing && dirFd !== READ_ONLY_FD) this.violations.push('a clone was read through the writable mount');
      let file = this.clones.get(name);
      if (file === undefined) {
        if ((flags & 0o100) === 0) return -ENOENT;
        file = this.file([], { size: 0 });
        this.clones.set(name, file);
      }
      const fd = this.#nextFd++;
      this.open.set(fd, { file, writing });
      return fd;
    },
    close: (fd) => {
      if (!this.open.delete(fd)) this.violations.push(`close of ${fd}, which isn't open`);
      return 0;
    },
    pread: (fd, buffer, count) => {
      const head = Buffer.from(this.#of(fd).head ?? '', 'latin1').subarray(0, count);
      this.arena.memory.bytes.set(head, this.arena.at(buffer));
      return head.length;
    },
    unlinkat: (_dirFd, path) => {
      const name = this.arena.text(path);
      this.unlinked.push(name);
      const clone = this.clones.get(name);
      if (clone !== undefined && [...this.backing.values()].includes(clone)) {
        this.violations.push(`${name} was deleted while it was in use`);
      }
      return this.clones.delete(name) ? 0 : -ENOENT;
    },
    mkdirat: () => -EIO,
    getdents64: () => -EIO,
    flock: () => -EIO,
    statx: (fd, _path, _flags, _mask, result) => {
      const at = this.arena.at(result);
      const file = this.#of(fd);
      setU64(this.arena.memory.view, at + STATX.ino, file.ino);
      setU64(this.arena.memory.view, at + STATX.size, file.size);
      return 0;
    },
    fstatfs: (_fd, result) => {
      const at = this.arena.at(result);
      setU64(this.arena.memory.view, at + STATFS.bsize, BLOCK);
      setU64(this.arena.memory.view, at + STATFS.bavail, Math.floor(this.freeBytes / BLOCK));
      return 0;
    },
    posixFadvise: (fd) => {
      this.dropped.push(this.#of(fd).ino);
      return 0;
    },
    ioctl: Object.assign(
      (fd: number, request: number, argument: number): number => {
        if (request === FICLONE) return this.#clone(fd, argument);
        this.arena.memory.view.setUint32(this.arena.at(argument), this.#of(fd).nocow ? 0x80_0000 : 0, true);
        return 0;
      },
      {
        later: (fd: number, _request: number, argument: number): Promise<number> =>
          new Promise((resolve) => {
            this.threads.push(() => resolve(this.#clone(fd, argument)));
          }),
      },
    ),
  };

  readonly reader: Pick<ExtentReader, 'identify' | 'inlineItem' | 'anyUnshared'> = {
    identify: (fd, options) => {
      const file = this.#of(fd);
      if (file.item !== undefined) return { map: null, reason: 'inline', errno: 0 };
      if (options.stopAtUnshared === true && !file.shared) return { map: null, reason: 'unshared', errno: 0 };
      if (options.size !== file.size) return { map: null, reason: 'inconsistent', errno: 0 };
      const map = mapOf(file, this.colliding);
      if (file === this.changing?.file && --this.changing.looks === 0) {
        file.blocks = file.blocks.map((block) => block + 7 * BLOCK);
      }
      return { map, allShared: file.shared, anyShared: file.shared, encoded: false };
    },
    inlineItem: (fd, _inode, size) => {
      const file = this.#of(fd);
      if (file.item === undefined || size !== file.size) return null;
      const item = new InlineItem(size, Buffer.from(file.item));
      if (file === this.changing?.file && --this.changing.looks === 0) file.item += '!';
      return item;
    },
    anyUnshared: (fd) => (this.#of(fd).shared ? 0 : 1),
  };

  readonly backingFiles = {
    open: (fd: number): number => {
      if (this.backingError !== 0) return this.backingError;
      const id = this.#nextId++;
      this.backing.set(id, this.#of(fd));
      return id;
    },
    close: (id: number): number => {
      if (!this.backing.delete(id)) this.violations.push(`close of backing id ${id}, which isn't open`);
      return 0;
    },
  };

  /** What a store keeps of its backing files for a moment. */
  kept: BackingFiles | undefined;

  store(options: Partial<StoreOptions> = {}): MappingStore {
    const bytes = journalBytes(PAIRS) + 4 * (mappingRowsWords(1024) + KEPT_WORDS) + 64;
    const journal = new Journal(memoryAt(0, new ArrayBuffer(bytes)), PAIRS);
    const rows = new MappingRows(journal, options.maxMappings ?? 8);
    this.kept = new BackingFiles(this.backingFiles, journal, journal.take(KEPT_WORDS), () => this.nowMs);
    return new MappingStore({
      rows,
      calls: this.calls,
      reader: this.reader,
      filesystem: 'btrfs',
      backing: this.kept.ofMappings,
      isClean: (fd) => this.#of(fd).dirty === 0,
      directoryFd: DIRECTORY_FD,
      readOnlyFd: READ_ONLY_FD,
      scratch: this.arena.allocate(STORE_SCRATCH_BYTES),
      writable: true,
      maxMappings: 8,
      floorBytes: 0,
      monotonicMs: () => this.nowMs,
      ...options,
    });
  }
}
