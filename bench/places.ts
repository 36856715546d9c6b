/**
 * Where questions are asked: one folder of a real filesystem, and every way of mounting it that somebody would use instead. All
 * are mounted at the same time, so that a question can be asked at each in turn.
 *
 *     <stage>/source/files/             what all of them show
 *     <stage>/source/upper-…, work-…    what is written through the overlays
 *     <stage>/places/NAME/              a mountpoint each
 */

import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../src/demo/commands.ts';
import { startServer, unmount } from '../src/demo/servers.ts';
import type { Stage } from '../src/demo/stage.ts';
import { type Counts, mountOurs } from './daemon.ts';

/** In the order of the tables' columns. `again` is the bare filesystem once more: how far apart equals are. */
export const placeNames = [
  'bare',
  'again',
  'overlay',
  'copied-up',
  'bindfs',
  'fuse-overlayfs',
  'mergerfs',
  'nosharedext',
  'sharedext',
  'over',
] as const;
export type PlaceName = (typeof placeNames)[number];

export const placeTitles: Readonly<Record<PlaceName, string>> = {
  bare: 'bare',
  again: 'bare again',
  overlay: 'overlayfs',
  'copied-up': 'overlayfs, copied up',
  bindfs: 'bindfs',
  'fuse-overlayfs': 'fuse-overlayfs',
  mergerfs: 'mergerfs',
  nosharedext: 'nosharedext',
  sharedext: 'sharedext',
  over: 'over itself',
};

export interface Place {
  readonly name: PlaceName;
  readonly root: string;
  /** The serving process, where there is one. */
  readonly pid: number | undefined;
  /** Of our own mounts. */
  readonly requests: (() => Promise<Counts>) | undefined;
}

export interface Places {
  readonly open: readonly Place[];
  /** Those that could not be mounted, with the reason. */
  readonly absent: readonly { readonly name: PlaceName; readonly why: string }[];
}

/** What all places show. To be filled before they are opened. */
export function makeSource(stage: Stage): string {
  const source = join(stage.source, 'files');
  mkdirSync(source);
  return source;
}

/** Opens every file below a folder for writing, which is what makes an overlay copy it. */
function touchAll(folder: string): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) closeSync(openSync(join(entry.parentPath, entry.name), 'r+'));
}

function layers(stage: Stage, name: PlaceName, source: string): string {
  const upper = join(stage.source, `upper-${name}`);
  const work = join(stage.source, `work-${name}`);
  mkdirSync(upper);
  mkdirSync(work);
  return `lowerdir=${source},upperdir=${upper},workdir=${work}`;
}

async function openPlace(name: PlaceName, stage: Stage, source: string, root: string): Promise<Place> {
  const plain = { name, root, pid: undefined, requests: undefined };
  const served = async (command: string, words: readonly string[]): Promise<Place> => {
    const server = await startServer(command, words, root);
    stage.undo(() => server.end());
    return { ...plain, pid: server.pid };
  };
  const ours = async (from: string, options: string): Promise<Place> => {
    const daemon = await mountOurs(from, root, options);
    stage.undo(() => daemon.end());
    return { ...plain, pid: daemon.pid, requests: () => daemon.requests() };
  };
  const mounted = async (words: readonly string[]): Promise<Place> => {
    await run('mount', [...words, root]);
    stage.undo(() => unmount(root));
    return plain;
  };
  switch (name) {
    case 'bare':
      return { ...plain, root: source };
    case 'again':
      return mounted(['--bind', source]);
    case 'overlay':
      return mounted(['-t', 'overlay', '-o', layers(stage, name, source), 'overlay']);
    case 'copied-up': {
      const place = await mounted(['-t', 'overlay', '-o', layers(stage, name, source), 'overlay']);
      touchAll(root);
      await run('sync', ['-f', stage.source]);
      return place;
    }
    case 'bindfs':
      return served('bindfs', ['-f', source, root]);
    case 'fuse-overlayfs':
      return served('fuse-overlayfs', ['-f', '-o', layers(stage, name, source), root]);
    case 'mergerfs':
      return served('mergerfs', ['-f', '-o', 'allow_other', source, root]);
    case 'nosharedext':
      return ours(source, 'nosharedext');
    case 'sharedext':
      return ours(source, 'settle=0');
    case 'over':
      await mounted(['--bind', source]);
      return ours(root, 'settle=0');
  }
}

/** Mounts `source` in all ways. The stage takes them down. */
export async function openPlaces(stage: Stage, source: string, names: readonly PlaceName[]): Promise<Places> {
  const below = join(stage.folder, 'places');
  mkdirSync(below);
  stage.undo(() => rmdirSync(below));
  const open: Place[] = [];
  const absent: Places['absent'][number][] = [];
  for (const name of names) {
    const root = join(below, name);
    mkdirSync(root);
    stage.undo(() => rmdirSync(root));
    try {
      open.push(await openPlace(name, stage, source, root));
    } catch (error) {
      // Peers may be missing; without ourselves and what we are compared with there is nothing to say.
      if (name === 'bare' || name === 'nosharedext' || name === 'sharedext' || name === 'over') throw error;
      absent.push({ name, why: error instanceof Error ? error.message : String(error) });
    }
  }
  return { open, absent };
}
