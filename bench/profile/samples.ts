/** Profiles that the interpreter writes (`--cpu-prof`): where a process was, by groups of our files, within a span of time. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** `calls` is the FFI with the system calls made through it; `loop` is what the interpreter and its event loop do. */
export const groups = ['calls', 'loop', 'session', 'tables', 'filesystem', 'sharing', 'collector'] as const;
export type Group = (typeof groups)[number];

/** The first that a file's path contains says its group. */
const folders: readonly (readonly [string, Group])[] = [
  ['/src/sys/', 'calls'],
  ['/src/fuse/', 'session'],
  ['/src/base/struct', 'session'],
  ['/src/base/', 'tables'],
  ['/src/filesystem/nodes', 'tables'],
  ['/src/filesystem/opens', 'tables'],
  ['/src/filesystem/domains', 'tables'],
  ['/src/filesystem/handles', 'tables'],
  ['/src/filesystem/repeats', 'tables'],
  ['/src/mappings/rows', 'tables'],
  ['/src/mappings/', 'sharing'],
  ['/src/extents/', 'sharing'],
  ['/src/pagecache/', 'sharing'],
  ['/src/filesystem/', 'filesystem'],
];

interface Profile {
  /** Microseconds of the machine's monotonic clock. */
  readonly startTime: number;
  readonly nodes: readonly { readonly id: number; readonly callFrame: { functionName: string; url: string } }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

function isProfile(value: unknown): value is Profile {
  return typeof value === 'object' && value !== null && 'samples' in value && 'timeDeltas' in value && 'nodes' in value;
}

function groupOf(name: string, url: string): Group | 'idle' {
  if (name === '(idle)') return 'idle';
  if (name === '(garbage collector)') return 'collector';
  return folders.find(([folder]) => url.includes(folder))?.[1] ?? 'loop';
}

/** The parts of the time that a process was not idle between two moments of the monotonic clock, in microseconds; they add up to 1. */
export function shares(profile: Profile, from: number, to: number): Readonly<Record<Group, number>> {
  const of = new Map(profile.nodes.map(({ id, callFrame }) => [id, groupOf(callFrame.functionName, callFrame.url)]));
  const sums = { calls: 0, loop: 0, session: 0, tables: 0, filesystem: 0, sharing: 0, collector: 0 };
  let at = profile.startTime;
  let all = 0;
  for (const [index, id] of profile.samples.entries()) {
    const delta = profile.timeDeltas[index] ?? 0;
    at += delta;
    const group = of.get(id) ?? 'idle';
    if (at < from || at > to || group === 'idle') continue;
    sums[group] += delta;
    all += delta;
  }
  for (const group of groups) sums[group] /= Math.max(all, 1);
  return sums;
}

/** The profile that a process wrote when it ended. */
export function profileOf(folder: string, pid: number): Profile {
  const file = readdirSync(folder).find((name) => name.split('.')[3] === String(pid));
  if (file === undefined) throw new Error(`the process ${pid} wrote no profile`);
  const profile: unknown = JSON.parse(readFileSync(join(folder, file), 'utf8'));
  if (!isProfile(profile)) throw new Error(`${file} is no profile`);
  return profile;
}

export function monotonicUs(): number {
  return Number(process.hrtime.bigint()) / 1000;
}
