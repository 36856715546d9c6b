/** Section: two versions of one image, deduplicated on disk, read without sharedext and with it. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { UserError } from '../../src/base/errno.ts';
import { programPath } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import { readTree, residentBytes } from '../../src/demo/measure.ts';
import { makeStage, type Stage } from '../../src/demo/stage.ts';
import { filesBelow } from '../../src/demo/tree.ts';
import type { Asked, Section } from '../section.ts';
import type { LeftOut } from './memory.ts';
import { dropCachesOf, dropsSoFar } from './memoryuse.ts';
import { type Pair, pairs, shortPairs } from './pairs.ts';
import { type SamePages, samePages } from './samepages.ts';
import { versionsResult } from './versionstext.ts';

const STAGE_BYTES = 16 * 1024 ** 3;
/** Files smaller than a block aren't looked at, and the default is 128 KiB. */
const DEDUPLICATE = ['-r', '-d', '-q', '-b', '4096', '--dedupe-options=partial,nofiemap'] as const;
/** As long as a mount with the default options waits (settle=1000). */
const SETTLED_MS = 1100;
/** Shares parts of smaller files than the default does, which is 4 MiB. */
export const SMALL = '64k';

export interface PairAnswer {
  readonly pair: Pair;
  readonly files: number;
  /** What is in memory when all files of both were read, by cachestat(2). */
  readonly bareBytes: number;
  readonly sharedBytes: number;
  /** With parts of smaller files shared as well. */
  readonly smallBytes: number;
  /** What anything could save that shares pages with the same content. */
  readonly same: SamePages;
  /** Whether others dropped the caches while files were read. */
  readonly disturbed: boolean;
}

export interface Versions {
  readonly asked: Asked;
  readonly answers: readonly PairAnswer[];
  readonly leftOut: readonly LeftOut[];
}

async function measurePair(pair: Pair, stage: Stage, scratch: string, asked: Asked): Promise<PairAnswer> {
  const { signal, tell } = asked;
  const folder = join(stage.source, pair.name.replaceAll(/\W+/g, '-'));
  const [older, newer] = [join(folder, 'older'), join(folder, 'newer')];
  for (const path of [older, newer]) mkdirSync(path, { recursive: true });
  tell(`${pair.name}: fetching`);
  await pair.fetch(older, newer, scratch, signal);
  await run('sync', ['-f', folder]);
  tell(`${pair.name}: deduplicating`);
  await run('duperemove', [...DEDUPLICATE, `--hashfile=${join(scratch, 'hashes')}`, older, newer], signal);
  rmSync(join(scratch, 'hashes'), { force: true });
  await pause(SETTLED_MS);
  const tree = filesBelow(folder);
  let disturbed = false;
  const read = async (where: string, counted: readonly string[]): Promise<number> => {
    const drops = dropsSoFar();
    await readTree(where, tree, signal);
    const bytes = await residentBytes(counted, signal);
    disturbed ||= dropsSoFar() !== drops;
    return bytes;
  };
  tell(`${pair.name}: reading`);
  await dropCachesOf(stage.source);
  const bareBytes = await read(folder, [folder]);
  const through = async (options: string): Promise<number> => {
    tell(`${pair.name}: reading with ${options}`);
    await dropCachesOf(stage.source);
    const mount = await stage.mount(options);
    const bytes = await read(folder.replace(stage.source, mount.mountpoint), [
      folder,
      join(stage.source, '.sharedext'),
    ]);
    await mount.end();
    return bytes;
  };
  const sharedBytes = await through('sharedext');
  const smallBytes = await through(`composed=${SMALL}`);
  const same = await samePages(folder, tree, signal);
  return { pair, files: tree.files.length, bareBytes, sharedBytes, smallBytes, same, disturbed };
}

async function measured(stage: Stage, asked: Asked): Promise<Versions> {
  const answers: PairAnswer[] = [];
  const leftOut: LeftOut[] = [];
  const scratch = mkdtempSync(join(tmpdir(), 'sharedext-versions-'));
  stage.undo(() => rmSync(scratch, { recursive: true, force: true }));
  for (const pair of asked.extent === 'short' ? shortPairs : pairs) {
    asked.signal.throwIfAborted();
    try {
      answers.push(await measurePair(pair, stage, scratch, asked));
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      leftOut.push({ name: pair.name, reason: error.message });
    }
  }
  return { asked, answers, leftOut };
}

export const versions: Section = {
  name: 'versions',
  title: 'Two versions of one image',
  async run(asked) {
    const stage = await makeStage(asked.filesystem, STAGE_BYTES, programPath, 'sharedext-bench-');
    let result: Versions;
    try {
      result = await measured(stage, asked);
    } finally {
      asked.tell('cleaning up');
      await stage.dispose();
    }
    return versionsResult(result);
  },
};
