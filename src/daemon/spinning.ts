/** Whether a server looks for its next request, and what idle processors do meanwhile: by the options, and by the machine. */

import { availableParallelism, cpus } from 'node:os';
import { Spin } from '../fuse/server/spin.ts';
import type { IdleProcessors } from '../sys/idle.ts';
import type { MountOptions } from './options.ts';

/** On a machine with more processors most of them would poll for nothing. */
const FEW_PROCESSORS = 4;

/** Whether idle processors are kept awake while requests come in a stream, where the options don't say. */
export function pollsByItself(): boolean {
  return cpus().length <= FEW_PROCESSORS;
}

export function spinOf(
  { spinUs, idle }: Pick<MountOptions, 'spinUs' | 'idle'>,
  processors: IdleProcessors,
): Spin | undefined {
  // On one processor nobody can make a request while it is looked for.
  if (spinUs === 0 || availableParallelism() === 1) return undefined;
  const polls = idle === 'auto' ? pollsByItself() : idle === 'poll';
  return new Spin(spinUs, polls ? processors : undefined);
}
