/** How much memory one peer takes as it gets more and more trees. */

import { totalmem } from 'node:os';
import { join } from 'node:path';
import { readTree, residentBytes } from '../../src/demo/measure.ts';
import type { Ground, Peer, Trees } from './ground.ts';
import type { Image } from './image.ts';
import { dropCachesOf, dropsSoFar, growth, type MemoryUse, memoryUse, totalOf } from './memoryuse.ts';
import { start } from './programs.ts';

/** Beyond it the kernel may begin to reclaim, and less than what a peer takes would be seen. */
const LIMIT_BYTES = Math.min(12 * 1024 ** 3, totalmem() / 2);

export interface Point {
  readonly trees: number;
  readonly use: MemoryUse;
}

export interface Series {
  readonly peer: Peer;
  readonly points: readonly Point[];
  /** Why there are no more points, where some are missing. */
  readonly ended: string | undefined;
  /** Whether others dropped the caches meanwhile. */
  readonly disturbed: boolean;
  /** Pages of the clones' files and of the store, by cachestat(2), at the last point; for sharedext. */
  readonly filePages: number | undefined;
}

/** The largest that the next point may be, if it grows on as it did. */
function foreseen(points: readonly Point[], trees: number): number {
  const [before, last] = [points.at(-2), points.at(-1)];
  if (last === undefined) return 0;
  const total = totalOf(last.use);
  const slope = before === undefined ? total / last.trees : (total - totalOf(before.use)) / (last.trees - before.trees);
  return total + slope * (trees - last.trees);
}

async function useTree(path: string, image: Image, signal: AbortSignal): Promise<void> {
  await readTree(path, image.tree, signal);
  for (const program of image.programs) await (await start(path, program, signal)).end();
}

/**
 * The caches are dropped, and a tree of another, small image is made and used: what programs of the machine, the peer's as well, have in
 * memory once they have run isn't counted as memory of trees.
 */
async function baseline(peer: Peer, warm: Ground, small: Image): Promise<MemoryUse> {
  await peer.prepare?.(warm);
  await dropCachesOf(warm.stage.source);
  const trees = await peer.open(warm);
  try {
    await useTree(await trees.next(), small, warm.signal);
    // Reads what tells about servers once, as well.
    await memoryUse(trees.servers());
  } finally {
    await trees.end();
  }
  return memoryUse([]);
}

export interface Job {
  readonly peer: Peer;
  readonly ground: Ground;
  readonly image: Image;
  /** A small image, and where trees of it are made. */
  readonly warm: { readonly ground: Ground; readonly image: Image };
  readonly counts: readonly number[];
  readonly tell: (doing: string) => void;
}

/** @throws UserError when the peer can't be set up. */
export async function measureSeries({ peer, ground, image, warm, counts, tell }: Job): Promise<Series> {
  const { signal } = ground;
  tell(`${peer.name}: setting up`);
  await peer.prepare?.(ground);
  const before = await baseline(peer, warm.ground, warm.image);
  const drops = dropsSoFar();
  const trees: Trees = await peer.open(ground);
  const points: Point[] = [];
  let ended: string | undefined;
  let filePages: number | undefined;
  try {
    let made = 0;
    for (const count of counts) {
      const expected = foreseen(points, count);
      if (expected > LIMIT_BYTES) {
        const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(0)} GiB`;
        ended = `${count} trees would take about ${gib(expected)}; no more than ${gib(LIMIT_BYTES)} are used here, so that nothing is reclaimed`;
        break;
      }
      for (; made < count; made++) {
        signal.throwIfAborted();
        tell(`${peer.name}: tree ${made + 1} of ${counts.at(-1) ?? count}`);
        await useTree(await trees.next(), image, signal);
      }
      points.push({ trees: count, use: growth(await memoryUse(trees.servers()), before) });
    }
    if (peer.kind === 'ours') {
      tell(`${peer.name}: counting pages`);
      filePages = await residentBytes([ground.work, join(ground.stage.source, '.sharedext')], signal);
    }
  } finally {
    await trees.end();
  }
  return { peer, points, ended, disturbed: dropsSoFar() !== drops, filePages };
}
