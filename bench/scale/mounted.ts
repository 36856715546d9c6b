/** What a mount has to hold: nodes, open files and mappings, of which there are more and more. */

import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { run } from '../../src/demo/commands.ts';
import type { Stage } from '../../src/demo/stage.ts';
import { kernelBytes, resident } from '../costs.ts';
import { type Daemon, mountOurs } from '../daemon.ts';
import { Prober } from '../helpers.ts';
import type { LoopName, Timed } from '../loops/prober.ts';
import { added, type Growth, type ScaleSizes, type Step } from './sizes.ts';

const FILES_PER_FOLDER = 1000;
/** How many steps a look takes, when there are so many. */
const LOOKS = 1000;
/** More than btrfs keeps inline. */
const FILE_BYTES = 4096;
/** Of code that runs at all, before the count begins. */
const WARM_UP = 200;

/** Makes a folder with file-0, file-1 and so on; without content they are empty. */
async function makeFiles(
  folder: string,
  count: number,
  content: ((i: number) => Uint8Array) | undefined,
  signal: AbortSignal,
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < count; i++) {
    writeFileSync(`${folder}/file-${i}`, content?.(i) ?? '');
    if (i % FILES_PER_FOLDER !== 0) continue;
    signal.throwIfAborted();
    await turn();
  }
}

interface Mounted {
  readonly daemon: Daemon;
  readonly prober: Prober;
  readonly root: string;
}

/** Mounts `source` while `during` runs. */
async function mounted<T>(
  stage: Stage,
  source: string,
  root: string,
  during: (mount: Mounted) => Promise<T>,
): Promise<T> {
  const daemon = await mountOurs(source, root, 'settle=0,cache=unlimited');
  stage.undo(() => daemon.end());
  const prober = new Prober();
  try {
    for (const loop of ['list-long', 'stat-known', 'open-close'] as const)
      await prober.time(loop, join(root, 'warm-up'), WARM_UP);
    return await during({ daemon, prober, root });
  } finally {
    await prober.end();
    await daemon.end();
  }
}

interface Adding {
  readonly folder: (count: number) => string;
  /** Before the memory is looked at. */
  readonly known?: { readonly loop: LoopName; readonly folder: (count: number) => string };
  readonly add: LoopName;
  readonly find: LoopName;
  readonly findAt: (count: number) => string;
}

async function grow(
  { daemon, prober, root }: Mounted,
  counts: readonly number[],
  { folder, known, add, find, findAt }: Adding,
  signal: AbortSignal,
): Promise<readonly Step[]> {
  const steps: Step[] = [];
  for (const { count, more } of added(counts)) {
    signal.throwIfAborted();
    if (known !== undefined) await prober.time(known.loop, join(root, known.folder(count)), more);
    const before = resident(daemon.pid);
    const kernel = kernelBytes();
    const adding = await prober.time(add, join(root, folder(count)), more);
    const each = (now: number, then: number): number => (now - then) / adding.steps;
    const after = resident(daemon.pid);
    const bytesEach = each(after.all, before.all);
    const tableBytesEach = each(after.tables, before.tables);
    const kernelBytesEach = each(kernelBytes(), kernel);
    const finding = await prober.time(find, join(root, findAt(count)), Math.min(LOOKS, more));
    const us = ({ us: all, steps: of }: Timed): number => all / of;
    steps.push({ count, bytesEach, tableBytesEach, kernelBytesEach, addUs: us(adding), findUs: us(finding) });
  }
  return steps;
}

/** Files of one block of their own, and a clone of each. */
async function makeClones(source: string, count: number, more: number, signal: AbortSignal): Promise<void> {
  const content = new Uint8Array(FILE_BYTES);
  const view = new DataView(content.buffer);
  const contentOf = (i: number): Uint8Array => {
    view.setUint32(0, count);
    view.setUint32(4, i);
    return content;
  };
  const [origins, clones] = [join(source, `origins-${count}`), join(source, `clones-${count}`)];
  await makeFiles(origins, more, contentOf, signal);
  await run('sync', ['-f', source]);
  await run('cp', ['-a', '--reflink=always', origins, clones], signal);
}

export async function mountGrowing(stage: Stage, sizes: ScaleSizes, signal: AbortSignal): Promise<readonly Growth[]> {
  const source = join(stage.source, 'files');
  const root = join(stage.folder, 'place');
  mkdirSync(root);
  stage.undo(() => rmdirSync(root));
  await makeFiles(join(source, 'warm-up'), WARM_UP, undefined, signal);
  for (const { count, more } of added(sizes.nodes))
    for (let made = 0; made < more; made += FILES_PER_FOLDER) {
      const below = join(source, `nodes-${count}/${made}`);
      await makeFiles(below, Math.min(FILES_PER_FOLDER, more - made), undefined, signal);
    }
  for (const { count, more } of added(sizes.open))
    await makeFiles(join(source, `open-${count}`), more, undefined, signal);
  for (const { count, more } of added(sizes.mappings)) await makeClones(source, count, more, signal);
  await run('sync', ['-f', source]);

  const nodes = await mounted(stage, source, root, (mount) =>
    grow(
      mount,
      sizes.nodes,
      {
        folder: (count) => `nodes-${count}`,
        add: 'walk',
        find: 'stat-forced',
        findAt: (count) => `nodes-${count}/0/file-0`,
      },
      signal,
    ),
  );
  const folder = (count: number): string => `open-${count}`;
  const open = await mounted(stage, source, root, (mount) =>
    grow(
      mount,
      sizes.open,
      {
        folder,
        known: { loop: 'list-long', folder },
        add: 'hold',
        find: 'stat-forced',
        findAt: (count) => `open-${count}/file-0`,
      },
      signal,
    ),
  );
  const clones = (count: number): string => `clones-${count}`;
  const mappings = await mounted(stage, source, root, (mount) =>
    grow(
      mount,
      sizes.mappings,
      {
        folder: clones,
        known: { loop: 'list-long', folder: clones },
        add: 'open-close',
        find: 'open-close',
        findAt: clones,
      },
      signal,
    ),
  );
  return [
    { what: 'nodes', adding: 'walk, per entry', finding: 'statx, not cached', steps: nodes },
    { what: 'open files', adding: 'open', finding: 'statx, not cached', steps: open },
    { what: 'mappings', adding: 'first open of a clone, close', finding: 'a later open, close', steps: mappings },
  ];
}
