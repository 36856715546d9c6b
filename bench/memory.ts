/** What nodes cost the server's memory: many empty files are made on the source and walked through a mount. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Stage } from '../src/demo/stage.ts';
import { probe } from './answers.ts';
import { openPlace, residentBytes } from './places.ts';

const FILES_PER_FOLDER = 1000;
/** A walk before the count, of a small folder, so that code which runs at all is compiled in the base. */
const WARM_UP = 'listed';

export interface MemoryAnswer {
  readonly nodes: number;
  readonly baseBytes: number;
  readonly afterBytes: number;
  readonly bytesPerNode: number;
  readonly walkUsPerNode: number;
}

export async function memoryOfNodes(stage: Stage, nodes: number, signal: AbortSignal): Promise<MemoryAnswer> {
  const folder = join(stage.source, 'many');
  mkdirSync(folder);
  for (let made = 0; made < nodes; made += FILES_PER_FOLDER) {
    signal.throwIfAborted();
    const below = join(folder, String(made));
    mkdirSync(below);
    for (let i = 0; i < Math.min(FILES_PER_FOLDER, nodes - made); i++) writeFileSync(`${below}/f${i}`, '');
    await new Promise((resolve) => setImmediate(resolve));
  }
  const open = await openPlace('sharedext', stage);
  const pid = open.pid ?? process.pid;
  const baseBytes = residentBytes(pid);
  await probe('walk', join(open.root, WARM_UP), 0, 1, signal);
  const { times, steps } = await probe('walk', join(open.root, 'many'), 0, 1, signal);
  const afterBytes = residentBytes(pid);
  await open.end();
  return {
    nodes: steps,
    baseBytes,
    afterBytes,
    bytesPerNode: (afterBytes - baseBytes) / steps,
    walkUsPerNode: times[0] ?? Number.NaN,
  };
}
