/** What processes have used of the processor, and what memory they have. */

import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessorTime {
  readonly us: number;
  /** The part of it in the kernel, from 0 to 1: proc_pid_stat(5) counts in steps of 10 ms. */
  readonly system: { readonly ticks: number; readonly of: number };
}

/** All threads of a process, to the nanosecond: Documentation/scheduler/sched-stats.rst. */
export function processorTime(pid: number): ProcessorTime {
  let ns = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`))
    ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  const [user, system] = [Number(fields[11]), Number(fields[12])];
  return { us: ns / 1000, system: { ticks: system, of: user + system } };
}

/** Between two moments: microseconds in all, and what part of them was in the kernel. */
export function spent(before: ProcessorTime, after: ProcessorTime): { readonly us: number; readonly system: number } {
  const ticks = after.system.of - before.system.of;
  return {
    us: after.us - before.us,
    system: ticks === 0 ? Number.NaN : (after.system.ticks - before.system.ticks) / ticks,
  };
}

export interface Resident {
  /** VmRSS: with what it has touched of shared memory files. */
  readonly all: number;
  /** RssShmem: what it has touched of them, which are its tables. */
  readonly tables: number;
}

export function resident(pid: number): Resident {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    all: Number(/^VmRSS:\s+(\d+)/m.exec(text)?.[1]) * 1024,
    tables: Number(/^RssShmem:\s+(\d+)/m.exec(text)?.[1]) * 1024,
  };
}

/** The kernel's slabs of the whole machine: inodes, names and all else that isn't pages. */
export function kernelBytes(): number {
  return Number(/^Slab:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
}
