/** What has to be known of other processes, to find out when a lock ends that the kernel tells nothing of: `sys/processes.ts`. */

import type { OwnerKind, Watch } from './filelocks.ts';

export interface Asked {
  readonly kind: Exclude<OwnerKind, 'flock'>;
  /** The kernel's number of the mount (mnt_id of proc_pid_fdinfo(5)). */
  readonly mount: number;
}

export interface Processes {
  /**
   * Whose lock a thread is asking for by fcntl(2): `running` when it isn't waiting for the answer yet, undefined when that can't be
   * found out. And the mount by which the descriptor that it locks through was opened.
   */
  asksFor(thread: number): Asked | 'running' | undefined;
  /** The thread's descriptors that lead by this mount to the inode that shows this number. */
  descriptorsOn(thread: number, mount: number, inode: bigint): number[];
  /**
   * Whether all these descriptors of a process lead to the inode by the watched mount. What can't be found out counts as so: nobody
   * loses a lock for it.
   */
  areOn(watch: Watch, process: number, inode: bigint): boolean;
  /** The threads of a process; none when it is gone. */
  threadsOf(process: number): number[];
}
