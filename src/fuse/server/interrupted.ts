/** What a killed server left halfway. */

import type { Memory } from '../../base/memory.ts';
import type { Device } from './device.ts';
import type { Progress } from './progress.ts';

/**
 * Brings a killed server's memory to the condition that it had between two requests: a reply that was on its way is sent, in
 * which case the kernel may have it already and says ENOENT; a request that wasn't answered yet is undone, and comes again.
 */
export function settleInterrupted(device: Device, output: Memory, progress: Progress): void {
  if (progress.replying === 0) {
    progress.journal.rollback();
    return;
  }
  device.write(output, progress.replying);
  progress.journal.commit();
  progress.replying = 0;
}
