/**
 * Which processors callers and servers run on. A request wakes its server and its answer wakes the caller: across the
 * processors of a virtual machine that took 76 µs, on one 6 µs, and left to itself the scheduler mixes the two. So what is
 * compared is put on one processor, and what matters is measured left to the scheduler as well.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { run } from '../src/demo/commands.ts';
import { HALT_POLL, sleepsAtOnce } from '../src/sys/idle.ts';

export type Placement = 'one' | 'spread';

function allowed(): string {
  return /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
}

const all = allowed();
/** The last one: the first has most of the interrupts. */
const one = /(\d+)$/.exec(all)?.[1] ?? '0';

/** Places this process, which passes it on to what it starts, and others that run already. */
export async function putOn(placement: Placement, pids: readonly number[] = []): Promise<void> {
  const list = placement === 'one' ? one : all;
  for (const pid of [process.pid, ...pids])
    await run('taskset', ['--all-tasks', '--cpu-list', '--pid', list, `${pid}`]);
}

/** The kernel's default. */
const HALT_POLL_NS = 200_000;

/**
 * Has idle processors of a virtual machine look for work before they are left to the host, as its kernel does unless it is told
 * otherwise. Returns how to undo it; undefined where they do so already, or where that can't be told.
 */
export function lookForWork(): (() => void) | undefined {
  if (!sleepsAtOnce()) return undefined;
  writeFileSync(HALT_POLL, `${HALT_POLL_NS}`);
  return () => writeFileSync(HALT_POLL, '0');
}
