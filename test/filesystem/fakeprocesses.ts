/** Processes of one thread each, with their descriptors, as far as locks ask for them. */

import type { Watch } from '../../src/filesystem/locks/filelocks.ts';
import type { Asked, Processes } from '../../src/filesystem/locks/processes.ts';

/** All descriptors were opened by this one. */
const MOUNT = 28;

export class FakeProcesses implements Processes {
  /** What a thread waits for in fcntl(2), where it isn't a process's lock; `running` is said so many times. */
  readonly descriptions = new Set<number>();
  running = 0;
  /** Each process's descriptors, and the inodes that they lead to. */
  readonly open = new Map<number, Map<number, number>>();

  asksFor(thread: number): Asked | 'running' {
    if (this.running > 0) {
      this.running--;
      return 'running';
    }
    return { kind: this.descriptions.has(thread) ? 'description' : 'process', mount: MOUNT };
  }

  descriptorsOn(thread: number, mount: number, inode: bigint): number[] {
    if (mount !== MOUNT) return [];
    return [...(this.open.get(thread) ?? [])].filter(([, ino]) => BigInt(ino) === inode).map(([fd]) => fd);
  }

  areOn({ thread, descriptors, mount }: Watch, _process: number, inode: bigint): boolean {
    return mount === MOUNT && descriptors.every((fd) => BigInt(this.open.get(thread)?.get(fd) ?? -1) === inode);
  }

  threadsOf(process: number): number[] {
    return this.open.has(process) ? [process] : [];
  }
}
