/**
 * Which bytes of which filesystem lie under a range of a file, as blocks that `Copies` can compare: by address, and for compressed
 * extents by the place in what the extent decodes to. Only extents that the filesystem says are shared are added: an address
 * that is free again, and given to another file while a report is made, is that file's alone.
 */

import * as c from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { PLAIN } from '../extents/extentmap.ts';
import { PRIVATE, type RangeReader } from '../extents/ranges.ts';
import { type ReportCalls, STATFS } from './calls.ts';
import type { Copies } from './copies.ts';

/** A filesystem that something was found on. */
export interface Filesystem {
  /** Its number, for `Copies`: each has two spaces. */
  readonly number: number;
  /** How its extents are read: as those of btrfs, or as FIEMAP tells them. */
  readonly kind: 'btrfs' | 'xfs';
}

/** A file that is looked at. */
export interface Looked {
  readonly fd: number;
  /** The report's number for it. */
  readonly file: number;
  readonly on: Filesystem;
  readonly inode: number;
  readonly sync: boolean;
}

/** What files have on disk, in bytes that they read as. */
export interface DiskCounts {
  /** In extents, once for each file. */
  bytes: number;
  /** Of them those in extents that another file has as well, here or elsewhere. */
  shared: number;
  /** Files that can't be asked for their extents, which are in neither number. */
  unidentified: number;
}

/** The scratch memory: an empty name, a struct statx of whoever reports, a struct statfs, and struct btrfs_ioctl_fs_info_args. */
export const REPORTER_SCRATCH_BYTES = 1536;
export const STATX_AT = 64;
const STATFS_AT = 384;
const INFO_AT = 512;
/** Where the filesystem's id is in what BTRFS_IOC_FS_INFO answers, and its length. */
const FSID_AT = INFO_AT + 16;
const FSID_BYTES = 16;

/** Blocks are counted in the smallest that there are. */
export const UNIT_BYTES = 512;
/** What a compressed extent decodes to at most, and the least that an extent begins at. */
const DECODED_BYTES = 131_072;
const SECTOR_BYTES = 4096;
const EXTENTS_AT_A_TIME = 512;

export class Addresses {
  readonly #calls: ReportCalls;
  readonly #ranges: RangeReader;
  readonly #scratch: Memory;
  readonly #byDevice = new Map<number, Filesystem>();
  readonly #byId = new Map<string, Filesystem>();

  constructor(calls: ReportCalls, ranges: RangeReader, scratch: Memory) {
    this.#calls = calls;
    this.#ranges = ranges;
    this.#scratch = scratch;
  }

  /** The filesystem of an open file; btrfs has a device per subvolume. */
  filesystem(fd: number, device: number): Filesystem | undefined {
    const known = this.#byDevice.get(device);
    if (known !== undefined) return known;
    const { address, bytes, view } = this.#scratch;
    if (this.#calls.fstatfs(fd, address + STATFS_AT) < 0) return undefined;
    const kind = view.getUint32(STATFS_AT + STATFS.type, true) === c.BTRFS_SUPER_MAGIC ? 'btrfs' : 'xfs';
    let id = `device ${device}`;
    if (kind === 'btrfs' && this.#calls.ioctl(fd, c.BTRFS_IOC_FS_INFO, address + INFO_AT) >= 0) {
      id = Buffer.from(bytes.subarray(FSID_AT, FSID_AT + FSID_BYTES)).toString('hex');
    }
    let filesystem = this.#byId.get(id);
    if (filesystem === undefined) {
      filesystem = { number: this.#byId.size, kind };
      this.#byId.set(id, filesystem);
    }
    this.#byDevice.set(device, filesystem);
    return filesystem;
  }

  /**
   * Adds what lies under a range of a file; false when that can't be told. With `sync` what is on its way to the disk is waited
   * for.
   */
  add(copies: Copies, { fd, file, on, inode, sync }: Looked, from: number, to: number): boolean {
    const ranges = this.#ranges;
    const look = { filesystem: on.kind, inode, to, limit: EXTENTS_AT_A_TIME, sync, any: false } as const;
    for (let at = from; at < to; at = ranges.end) {
      if (ranges.read(fd, { ...look, from: at }) < 0 || ranges.end <= at) return false;
      for (let row = 0; row < ranges.count; row++) this.#addRow(copies, row, on.number, file);
    }
    return true;
  }

  /** The same for a whole file, and counts what it is made of. */
  addAll(copies: Copies, { fd, file, on, inode }: Looked, size: number, counts: DiskCounts): void {
    const ranges = this.#ranges;
    const look = { filesystem: on.kind, inode, to: size, limit: EXTENTS_AT_A_TIME, sync: false, any: false } as const;
    for (let from = 0; from < size; from = ranges.end) {
      if (ranges.read(fd, { ...look, from }) < 0 || ranges.end <= from) {
        counts.unidentified++;
        return;
      }
      for (let row = 0; row < ranges.count; row++) {
        counts.bytes += ranges.length(row);
        if (ranges.address(row) !== PRIVATE) counts.shared += ranges.length(row);
        this.#addRow(copies, row, on.number, file);
      }
    }
  }

  #addRow(copies: Copies, row: number, filesystem: number, file: number): void {
    const ranges = this.#ranges;
    const address = ranges.address(row);
    if (address === PRIVATE) return;
    const slice = ranges.slice(row);
    const space = 2 * filesystem + (slice === PLAIN ? 0 : 1);
    const start = slice === PLAIN ? address : (address / SECTOR_BYTES) * DECODED_BYTES + slice;
    copies.add(space, start / UNIT_BYTES, ranges.length(row) / UNIT_BYTES, file);
  }
}
