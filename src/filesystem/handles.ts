/**
 * File handles (struct file_handle, name_to_handle_at(2)): what names an inode for as long as it exists, wherever it is
 * moved. Two forms occur on the filesystems we serve, and both fit 28 bytes with their header:
 *
 *     btrfs  type 0x4d  20 bytes: inode u64, subvolume u64, generation u32      (fs/btrfs/export.h)
 *     XFS    type 0x81  12 bytes: inode u64, generation u32                     (fs/xfs/xfs_export.h)
 *            type 0x01   8 bytes: inode u32, generation u32                     (include/linux/exportfs.h)
 */

import type { Memory } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';

/** Bytes of the longest handle with its header (handle_bytes u32, handle_type i32). */
export const HANDLE_BYTES = 28;
/** Bytes that f_handle may take: what handle_bytes is set to before the kernel is asked. */
export const F_HANDLE_BYTES = 20;

export const FILEID_INO32_GEN = 0x01;
export const FILEID_BTRFS_WITHOUT_PARENT = 0x4d;
export const FILEID_XFS_INO64_GEN = 0x81;
/**
 * Our own, never given to the kernel: the empty directory that btrfs shows inside a snapshot where a subvolume was
 * nested. All have inode number 2 and none can be opened by handle; it is named by its parent and the hash of its name.
 */
export const FILEID_PLACEHOLDER = 0x7e;

/** The inode number that btrfs gives to such placeholders (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID). */
export const PLACEHOLDER_INODE = 2;

const F_HANDLE = 8;

export function handleType(view: DataView, at: number): number {
  return view.getInt32(at + 4, true);
}

/** The inode number that the filesystem would report, or -1 for a form that we don't know. */
export function handleInode(view: DataView, at: number): number {
  switch (handleType(view, at)) {
    case FILEID_BTRFS_WITHOUT_PARENT:
    case FILEID_XFS_INO64_GEN:
      return getU64(view, at + F_HANDLE);
    case FILEID_INO32_GEN:
      return view.getUint32(at + F_HANDLE, true);
    case FILEID_PLACEHOLDER:
      return PLACEHOLDER_INODE;
    default:
      return -1;
  }
}

/** The subvolume of a btrfs inode; 0 on filesystems that have none. */
export function handleSubvolume(view: DataView, at: number): number {
  const type = handleType(view, at);
  return type === FILEID_BTRFS_WITHOUT_PARENT || type === FILEID_PLACEHOLDER ? getU64(view, at + F_HANDLE + 8) : 0;
}

/** Overwrites the handle at `at` with a placeholder's: its parent's inode and subvolume stay what they are in `parent`. */
export function writePlaceholder(view: DataView, at: number, parentInode: number, name: Uint8Array): void {
  let hash = 0x811c9dc5;
  for (const byte of name) hash = Math.imul(hash ^ byte, 0x01000193);
  view.setUint32(at, F_HANDLE_BYTES, true);
  view.setInt32(at + 4, FILEID_PLACEHOLDER, true);
  // The subvolume at +8 is kept: it is the parent's, and bounds the inode number.
  view.setUint32(at + F_HANDLE, parentInode >>> 0, true);
  view.setUint32(at + F_HANDLE + 4, hash >>> 0, true);
  view.setUint32(at + F_HANDLE + 16, Math.floor(parentInode / 0x1_0000_0000) ^ name.length, true);
}

/**
 * Whether a node's handle, at `at` of `ours`, names the inode of a handle that the kernel gave. A placeholder's has its parent and
 * name instead: of it the number and the subvolume are compared. Only placeholders have that number (btrfs files begin with 256).
 */
export function isSameInode(ours: Memory, at: number, given: Memory, givenAt: number): boolean {
  if (handleType(ours.view, at) === FILEID_PLACEHOLDER) {
    const inode = handleInode(given.view, givenAt);
    return inode === PLACEHOLDER_INODE && handleSubvolume(given.view, givenAt) === handleSubvolume(ours.view, at);
  }
  for (let byte = 0; byte < HANDLE_BYTES; byte += 4) {
    if (ours.view.getUint32(at + byte, true) !== given.view.getUint32(givenAt + byte, true)) return false;
  }
  return true;
}

const SUBVOLUME_SHIFT = 2 ** 40;
const LARGEST_FOLDED_SUBVOLUME = 2 ** 23;

/**
 * The inode number that the mount shows. A FUSE mount has one device number, while each btrfs subvolume numbers its inodes
 * from the same start: tar, rsync and cp would take different files for hard links. So the subvolume goes into bits 40 to
 * 62, as overlayfs does with `xino`, except for the source's own subvolume, whose numbers stay as they are. Numbers that
 * don't fit (10^12 inodes in one subvolume, or 8 million subvolumes) are mixed, with bit 63 set: unique only in all
 * likelihood. Returned as two halves, since the sum may pass 2^53.
 */
export function foldInode(inode: number, subvolume: number, ownSubvolume: number): { low: number; high: number } {
  const low = inode % 0x1_0000_0000;
  const high = Math.floor(inode / 0x1_0000_0000);
  if (subvolume === ownSubvolume) return { low, high };
  if (inode < SUBVOLUME_SHIFT && subvolume < LARGEST_FOLDED_SUBVOLUME) {
    return { low, high: high + subvolume * 0x100 };
  }
  const mixed = Math.imul(subvolume >>> 0, 0x9e3779b1) ^ Math.imul(Math.floor(subvolume / 0x1_0000_0000), 0x85ebca6b);
  return {
    low: (low ^ mixed) >>> 0,
    high: (0x8000_0000 | ((high ^ Math.imul(mixed, 0xc2b2ae35)) & 0x7fff_ffff)) >>> 0,
  };
}

/** What names the inode of a handle among all of the source: both nodes of a file that left the shared route have it in common. */
export function inodeName(view: DataView, at: number): string {
  return `${handleInode(view, at)}:${handleSubvolume(view, at)}`;
}

/** The number that the mount shows of a handle's inode: see `foldInode`. */
export function shownInode(view: DataView, at: number, ownSubvolume: number): bigint {
  const { low, high } = foldInode(handleInode(view, at), handleSubvolume(view, at), ownSubvolume);
  return (BigInt(high) << 32n) + BigInt(low);
}
