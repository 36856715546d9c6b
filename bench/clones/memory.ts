/** Section: how much memory many trees of one image take, by the way they were made. */

import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UserError } from '../../src/base/errno.ts';
import { programPath } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import { makeStage, type Stage } from '../../src/demo/stage.ts';
import type { Asked, Extent, Section } from '../section.ts';
import { type Ground, type Peer, treeIn } from './ground.ts';
import { type Image, makeImage } from './image.ts';
import { memoryResult } from './memorytext.ts';
import { nosharedext, others, sharedext } from './peers.ts';
import { measureSeries, type Series } from './series.ts';

const STAGE_BYTES = 24 * 1024 ** 3;
const COUNTS: Readonly<Record<Extent, readonly number[]>> = {
  short: [1, 2, 3],
  normal: [1, 2, 5, 10, 20, 50],
  full: [1, 2, 5, 10, 20, 50, 100],
};
/** The control says nothing new with more trees. */
const CONTROL_MOST = 10;

export interface LeftOut {
  readonly name: string;
  readonly reason: string;
}

export interface Memory {
  readonly asked: Asked;
  readonly counts: readonly number[];
  readonly image: Image;
  readonly series: readonly Series[];
  /** On btrfs: sharedext again, on a tree without files inside of btrfs's own tree. */
  readonly notInline: { readonly series: Series; readonly image: Image } | undefined;
  readonly leftOut: readonly LeftOut[];
}

/** Makes an image in a folder of its own, which on btrfs is a subvolume. */
export async function makeImageIn(
  stage: Stage,
  name: string,
  { filesystem, signal }: Asked,
  extent: Extent,
): Promise<Image> {
  const folder = join(stage.source, name);
  if (filesystem === 'btrfs') await run('btrfs', ['subvolume', 'create', folder]);
  else mkdirSync(folder);
  mkdirSync(treeIn(folder));
  return makeImage(treeIn(folder), extent, signal);
}

async function measured(stage: Stage, asked: Asked): Promise<Memory> {
  const { filesystem, signal, tell } = asked;
  const counts = COUNTS[asked.extent];
  tell('making the image');
  const image = await makeImageIn(stage, 'image', asked, asked.extent);
  const small = await makeImageIn(stage, 'small', asked, 'short');
  const ground = (name: string, from: Image): Ground => ({
    stage,
    filesystem,
    image: dirname(from.folder),
    work: join(stage.source, name),
    settled: true,
    signal,
  });
  const series: Series[] = [];
  const leftOut: LeftOut[] = [];
  const peers: readonly Peer[] = [...others, nosharedext, sharedext];
  for (const [index, peer] of peers.entries()) {
    signal.throwIfAborted();
    // Clones are the same for whoever shows them: they are made once.
    const work = peer.overClones ? 'clones' : `layers-${index}`;
    const warm = { ground: ground(`small-${work}`, small), image: small };
    const wanted = peer === nosharedext ? counts.filter((count) => count <= CONTROL_MOST) : counts;
    try {
      series.push(await measureSeries({ peer, ground: ground(work, image), image, warm, counts: wanted, tell }));
    } catch (error) {
      if (peer.kind === 'ours' || !(error instanceof UserError)) throw error;
      leftOut.push({ name: peer.name, reason: error.message });
    }
  }
  if (filesystem !== 'btrfs') return { asked, counts, image, series, notInline: undefined, leftOut };
  tell('making the image without inline files');
  await run('mount', ['-o', 'remount,max_inline=0', stage.source]);
  const second = await makeImageIn(stage, 'image-2', asked, asked.extent);
  const again = await measureSeries({
    peer: sharedext,
    ground: ground('clones-2', second),
    image: second,
    warm: { ground: ground('small-clones', small), image: small },
    counts,
    tell,
  });
  return { asked, counts, image, series, notInline: { series: again, image: second }, leftOut };
}

export const memory: Section = {
  name: 'memory',
  title: 'Memory of many trees of one image',
  async run(asked) {
    const stage = await makeStage(asked.filesystem, STAGE_BYTES, programPath, 'sharedext-bench-');
    let result: Memory;
    try {
      result = await measured(stage, asked);
    } finally {
      asked.tell('cleaning up');
      await stage.dispose();
    }
    return memoryResult(result);
  },
};
