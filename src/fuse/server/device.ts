/** What a session asks of the connection to the kernel. */

import type { Memory } from '../../base/memory.ts';

/** The `/dev/fuse` descriptor: `read`, which never waits, and `write` return bytes or a negated errno. */
export interface Device {
  /** Waits until there is something to read, but no longer than this; returns whether there is. */
  wait(timeoutMs: number): boolean;
  read(memory: Memory): number;
  write(memory: Memory, length: number): number;
}
