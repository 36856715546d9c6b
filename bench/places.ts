/** Where the questions are asked: the bare filesystem, and three ways of mounting it. */

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../src/demo/commands.ts';
import type { Stage } from '../src/demo/stage.ts';

export const places = ['bare', 'bindfs', 'nosharedext', 'sharedext'] as const;
export type Place = (typeof places)[number];

export interface Open {
  readonly root: string;
  /** The serving process, where it is one of ours. */
  readonly pid: number | undefined;
  requests(): Promise<Readonly<Record<string, number>>>;
  end(): Promise<void>;
}

export async function openPlace(place: Place, stage: Stage): Promise<Open> {
  const requests = async (): Promise<Readonly<Record<string, number>>> => ({});
  switch (place) {
    case 'bare':
      return { root: stage.source, pid: undefined, requests, end: async () => {} };
    case 'bindfs': {
      const root = join(stage.folder, 'mount');
      mkdirSync(root, { recursive: true });
      await run('bindfs', [stage.source, root]);
      let mounted = true;
      const end = async (): Promise<void> => {
        if (mounted) await run('umount', [root]);
        mounted = false;
      };
      stage.undo(end);
      return { root, pid: undefined, requests, end };
    }
    case 'nosharedext':
    case 'sharedext': {
      const mount = await stage.mount(place === 'sharedext' ? 'settle=0' : 'nosharedext');
      return { root: mount.mountpoint, pid: mount.pid, requests: () => mount.requests(), end: () => mount.end() };
    }
  }
}

export interface CpuTime {
  readonly userUs: number;
  readonly systemUs: number;
}

/** The processor time of a process in hundredths of a second: proc_pid_stat(5), fields 14 and 15. */
export function cpuTime(pid: number): CpuTime {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return { userUs: Number(fields[11]) * 10_000, systemUs: Number(fields[12]) * 10_000 };
}

export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}
