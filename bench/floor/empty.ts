/** Servers whose answers are constants (`server.ts`), and how long a caller waits for one answer of them: the kernel's round trip. */

import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { startServer } from '../../src/demo/servers.ts';
import type { Stage } from '../../src/demo/stage.ts';
import { median } from '../asking.ts';
import type { Prober } from '../helpers.ts';

/** The servers know this name. */
export const FILE = 'one';

export function mountpointOf(stage: Stage, name: string): string {
  const root = join(stage.folder, name);
  mkdirSync(root);
  stage.undo(() => rmdirSync(root));
  return root;
}

export interface Constant {
  readonly root: string;
  readonly pid: number;
}

/** Mounts one that answers only, or that makes the system calls on the source before it answers. The stage takes it down. */
export async function startConstant(stage: Stage, kind: 'empty' | 'calls', source: string): Promise<Constant> {
  const root = mountpointOf(stage, kind);
  const script = join(import.meta.dirname, 'server.js');
  const server = await startServer(process.execPath, [script, kind, root, source], root);
  stage.undo(() => server.end());
  return { root, pid: server.pid };
}

/** The median of some rounds of GETATTR, in microseconds. */
export async function roundTripOf({ root }: Constant, prober: Prober, count: number, rounds: number): Promise<number> {
  const found: number[] = [];
  // The first round warms.
  for (let round = 0; round <= rounds; round++) {
    const { us, steps } = await prober.time('stat-forced', join(root, FILE), count);
    if (round > 0) found.push(us / steps);
  }
  return median(found);
}
