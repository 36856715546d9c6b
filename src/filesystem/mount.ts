/**
 * What all operations of one mount share: the source, the tables, the memory that system calls read and write, and what
 * the mount was asked to do.
 *
 * The scratch memory is laid out once, here: an operation may use all of it, and none of it survives the operation.
 */

import type { Memory } from '../base/memory.ts';
import type { BackingFiles, SourceCalls } from './calls.ts';
import type { Composing } from './composing.ts';
import type { NodeDescriptors } from './descriptors.ts';
import type { Domains } from './domains.ts';
import type { Fills } from './fills.ts';
import type { Locks } from './locks/locks.ts';
import type { NodeTable } from './nodes.ts';
import type { OpenTable } from './opens.ts';
import type { Repeats } from './repeats.ts';
import type { Routes } from './routes.ts';

export const SCRATCH = {
  handle: 0, // struct file_handle, 8 + 128 bytes
  mountId: 144,
  secondHandle: 152, // another struct file_handle
  statx: 304, // struct statx, 256 bytes
  path: 576, // "/proc/self/fd/N"
  empty: 640, // an empty string
  dot: 642, // "."
  times: 648, // two struct timespec
  small: 680, // arguments of an ioctl, a struct statfs
  bytes: 4096,
} as const;

/** How long the kernel may keep what we told it, in seconds. */
export interface CachePolicy {
  readonly entrySeconds: number;
  readonly attributeSeconds: number;
}

export interface Mount {
  readonly calls: SourceCalls;
  readonly backing: BackingFiles;
  /** Any descriptor on the source's mount: what handles are opened against. */
  readonly mountFd: number;
  readonly nodes: NodeTable;
  readonly descriptors: NodeDescriptors;
  readonly opens: OpenTable;
  readonly routes: Routes;
  readonly locks: Locks;
  readonly repeats: Repeats;
  /** The wall clock, in milliseconds since 1970. */
  readonly now: () => number;
  readonly domains: Domains;
  /** Absent when no file is to be composed. */
  readonly composing: Composing | undefined;
  /** Requests arrive here; names and data are used in place. */
  readonly input: Memory;
  /** Replies leave from here. */
  readonly output: Memory;
  readonly scratch: Memory;
  /** Room for directory entries on their way from the source. */
  readonly entries: Memory;
  readonly cache: CachePolicy;
  readonly fills: Fills;
  /** The subvolume of the source's root, whose inode numbers are shown as they are. */
  readonly ownSubvolume: number;
  /** Inode and subvolume of the store's directory, which the mount doesn't show; -1 when it lies elsewhere. */
  readonly storeInode: number;
  readonly storeSubvolume: number;
  /** The umask that this process has now; it follows the requests. */
  currentUmask: number;
  /** Whether none of a range's pages in memory have still to be written to the device: `pagecache/residency.ts`. */
  readonly isClean: (fd: number, offset: number, length: number) => boolean;
  /** Makes the kernel ask for the node's attributes again. */
  readonly invalidateAttributes: (nodeid: number) => void;
}
