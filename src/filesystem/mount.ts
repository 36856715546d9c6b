/**
 * What all operations of one mount share: the source, the tables, the memory that system calls read and write, and what
 * the mount was asked to do.
 */

import type { Memory } from '../base/memory.ts';
import type { Progress } from '../fuse/server/progress.ts';
import type { BackingFiles, SourceCalls } from './calls.ts';
import type { NodeDescriptors } from './descriptors.ts';
import type { Domains } from './domains.ts';
import type { Fills } from './fills.ts';
import type { LiveNames } from './livenames.ts';
import type { Locks } from './locks/locks.ts';
import type { NodeTable } from './nodes.ts';
import type { OpenTable } from './opens.ts';
import type { Repeats } from './repeats.ts';
import type { Routes } from './routes/routes.ts';
import type { Stat } from './stat.ts';

/** How long the kernel may keep what we told it, in seconds. */
export interface CachePolicy {
  readonly entrySeconds: number;
  readonly attributeSeconds: number;
}

/** What is on the device before its request is answered: mount(8), `sync` and `dirsync`. */
export interface SyncPolicy {
  /** Contents, sizes and attributes. */
  readonly files: boolean;
  /** Names: `sync` wants it, too (IS_DIRSYNC, include/linux/fs.h). */
  readonly names: boolean;
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
  /** How far the request that is being served has come, where it takes several steps. */
  readonly progress: Pick<Progress, 'parts' | 'partsDone'>;
  /** The wall clock, in milliseconds since 1970. */
  readonly now: () => number;
  readonly domains: Domains;
  /** Absent where no file is shared that could be written. */
  readonly live: LiveNames | undefined;
  /** Requests arrive here; names and data are used in place. */
  readonly input: Memory;
  /** Replies leave from here. */
  readonly output: Memory;
  readonly scratch: Memory;
  /** The struct statx of the scratch memory that replies are made of. */
  readonly stat: Stat;
  /** Room for directory entries on their way from the source. */
  readonly entries: Memory;
  readonly cache: CachePolicy;
  readonly fills: Fills;
  readonly syncs: SyncPolicy;
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
