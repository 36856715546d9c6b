/** What the machine's memory is used for, from /proc/meminfo, and what servers have. */

import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../src/demo/commands.ts';

const SETTLE_MS = 100;

export interface MemoryUse {
  /** Cached and Buffers without Shmem. btrfs has the pages of its trees in it, too. */
  readonly pageCache: number;
  /** Inodes, names and the like, whether they can be reclaimed or not. */
  readonly slab: number;
  /** Memory of the servers, and the pages of their programs, even if others run these as well. */
  readonly servers: number;
}

export const totalOf = ({ pageCache, slab, servers }: MemoryUse): number => pageCache + slab + servers;

/** Drops the caches after writing back one filesystem, which is quicker than all of them where others write, too. */
export async function dropCachesOf(folder: string): Promise<void> {
  await run('sync', ['-f', folder]);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** How often anybody has dropped caches so far: what is measured over a drop by others is too little. */
export function dropsSoFar(): number {
  const text = readFileSync('/proc/vmstat', 'utf8');
  return [...text.matchAll(/^drop_(?:pagecache|slab) (\d+)/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** What is said of numbers over which others have dropped the caches. */
export const DISTURBED =
  'others dropped the caches meanwhile, so its numbers are too small or its times too long; measure again';

/** The numbers of a file of lines such as `Cached:  5 kB`, in bytes. */
function numbersIn(file: string): (name: string) => number {
  const text = readFileSync(file, 'utf8');
  return (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) * 1024;
}

/** What servers have of their own, and the pages of their programs: these once for all that run the same. */
function memoryOf(pids: readonly number[]): number {
  let own = 0;
  const programs = new Map<string, number>();
  for (const pid of pids) {
    const rollup = numbersIn(`/proc/${pid}/smaps_rollup`);
    own += rollup('Pss_Anon') + rollup('Pss_Shmem');
    const program = readlinkSync(`/proc/${pid}/exe`);
    const mapped = numbersIn(`/proc/${pid}/status`)('RssFile');
    programs.set(program, Math.max(programs.get(program) ?? 0, mapped));
  }
  return [...programs.values()].reduce((sum, bytes) => sum + bytes, own);
}

export async function memoryUse(servers: readonly number[]): Promise<MemoryUse> {
  // The kernel frees some of what ended processes had a little later.
  await pause(SETTLE_MS);
  const of = numbersIn('/proc/meminfo');
  return {
    pageCache: of('Cached') + of('Buffers') - of('Shmem'),
    slab: of('Slab'),
    servers: memoryOf(servers),
  };
}

/** The growth since an earlier look; servers count as they are now. */
export function growth(now: MemoryUse, before: MemoryUse): MemoryUse {
  return { pageCache: now.pageCache - before.pageCache, slab: now.slab - before.slab, servers: now.servers };
}
