/**
 * BTRFS_IOC_LOGICAL_INO_V2: which inodes an extent belongs to (include/uapi/linux/btrfs.h). FIEMAP's SHARED doesn't tell a second
 * owner from a second reference by the same inode: an extent of which an inode has two parts, at other distances than in the
 * extent, is shared with itself. Needs CAP_SYS_ADMIN.
 */

import type { Memory } from '../base/memory.ts';
import { getU64, setU64, struct } from '../base/struct.ts';
import type { ExtentCalls } from './calls.ts';

export const BTRFS_IOC_LOGICAL_INO_V2 = 0xc038943b;
const BTRFS_LOGICAL_INO_ARGS_IGNORE_OFFSET = 1;

export const logicalInoArgs = struct('btrfs_ioctl_logical_ino_args', 56, [
  ['logical', 'u64'],
  ['size', 'u64'],
  ['_reserved0', 'u64'],
  ['_reserved1', 'u64'],
  ['_reserved2', 'u64'],
  ['flags', 'u64'],
  ['inodes', 'u64'],
]);

/** What the kernel fills: behind it three numbers for each owner, inode, offset and root. */
export const dataContainer = struct('btrfs_data_container', 16, [
  ['bytes_left', 'u32'],
  ['bytes_missing', 'u32'],
  ['elem_cnt', 'u32'],
  ['elem_missed', 'u32'],
]);
export const OWNER_BYTES = 24;
const ROOT_AT = 16;
const CONTAINER_AT = 64;

/** The scratch memory that Owners needs at least; it has room for so many owners of one extent. */
export const OWNERS_MEMORY_BYTES = 4096;

export class Owners {
  readonly #calls: ExtentCalls;
  readonly #scratch: Memory;

  constructor(calls: ExtentCalls, scratch: Memory) {
    this.#calls = calls;
    this.#scratch = scratch;
  }

  /**
   * Whether all owners of the extent that an address lies in are inodes of one subvolume: 1, 0, or a negated errno. An extent
   * with more owners than there is room for has others. `fd` is any file of the filesystem.
   */
  onlyOf(fd: number, address: number, root: number): number {
    const { view } = this.#scratch;
    const size = this.#scratch.bytes.length - CONTAINER_AT;
    this.#scratch.bytes.fill(0, 0, CONTAINER_AT + dataContainer.structBytes);
    logicalInoArgs.logical.set(view, 0, address);
    logicalInoArgs.size.set(view, 0, size);
    logicalInoArgs.flags.set(view, 0, BTRFS_LOGICAL_INO_ARGS_IGNORE_OFFSET);
    setU64(view, logicalInoArgs.inodes.offset, this.#scratch.address + CONTAINER_AT);
    const result = this.#calls.ioctl(fd, BTRFS_IOC_LOGICAL_INO_V2, this.#scratch.address);
    if (result < 0) return result;
    if (dataContainer.elem_missed.get(view, CONTAINER_AT) > 0) return 0;
    // Numbers are counted, three to an owner.
    const owners = Math.floor(dataContainer.elem_cnt.get(view, CONTAINER_AT) / 3);
    const first = CONTAINER_AT + dataContainer.structBytes;
    if (first + owners * OWNER_BYTES > this.#scratch.bytes.length) return 0;
    for (let owner = 0; owner < owners; owner++) {
      if (getU64(view, first + owner * OWNER_BYTES + ROOT_AT) !== root) return 0;
    }
    return owners > 0 ? 1 : 0;
  }
}
