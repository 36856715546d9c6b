/**
 * What the ways to have many trees of one image are made of: clones, overlays, mounts of image files, servers. Whatever is made is
 * taken away again in the opposite order.
 *
 *     <stage>/peer/N            where the trees of a peer are mounted, if they are mounts
 *     <stage>/lower             where an image file is mounted
 *     <source>/<image>/tree     the image; on btrfs, <image> is a subvolume
 *     <source>/<work>/N/tree    clones
 *     <source>/<work>/N         upper layers of overlays
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../src/demo/commands.ts';
import { startServer, unmount } from '../../src/demo/servers.ts';
import type { FilesystemName, Stage } from '../../src/demo/stage.ts';
import type { Counts } from '../daemon.ts';

/** A mount with the default options shares what has been as it is for a second (settle=1000). */
const SETTLED_MS = 1100;

/** What a peer works on. */
export interface Ground {
  readonly stage: Stage;
  readonly filesystem: FilesystemName;
  /** The folder with the tree that all others are made of. */
  readonly image: string;
  /** A folder of the source for clones and upper layers. Clones that lie there already are used again. */
  readonly work: string;
  /** Whether new clones are left alone until a mount with the default options shares them. */
  readonly settled: boolean;
  readonly signal: AbortSignal;
}

/** A peer at work. */
export interface Trees {
  /** Makes the next tree, and says where it is. */
  next(): Promise<string>;
  /** The processes that serve the trees. */
  servers(): readonly number[];
  /** How many requests have reached a server of ours, by kind. */
  requests?(): Promise<Counts>;
  end(): Promise<void>;
}

export interface Peer {
  readonly name: string;
  /** What it is, for the list below the table. */
  readonly what: string;
  /**
   * Whether each tree has files of its own, or all have those of the image as long as nothing was changed. The control is
   * sharedext's mount without sharing.
   */
  readonly kind: 'own files' | 'common files' | 'control' | 'ours';
  /** Whether its trees are clones, or something mounted over each. */
  readonly overClones: boolean;
  /** Makes what all trees have in common and what isn't measured, such as an image file. */
  prepare?(ground: Ground): Promise<unknown>;
  open(ground: Ground): Promise<Trees>;
}

/** What was made, and is taken away again in the opposite order. */
export class Undo {
  readonly #steps: (() => unknown)[] = [];

  push(step: () => unknown): void {
    this.#steps.push(step);
  }

  async all(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) await step();
  }
}

/** Where the tree is in an image's folder, or in a clone of it. */
export function treeIn(folder: string): string {
  return join(folder, 'tree');
}

/** On btrfs a clone is a snapshot of the subvolume, on XFS a copy by reflinks. */
export async function clone({ filesystem, image, work, settled, signal }: Ground, index: number): Promise<string> {
  const path = join(work, String(index));
  if (existsSync(path)) return treeIn(path);
  mkdirSync(work, { recursive: true });
  if (filesystem === 'btrfs') await run('btrfs', ['subvolume', 'snapshot', image, path]);
  else {
    await run('cp', ['-a', '--reflink=always', '--', image, path], signal);
    // A snapshot has the times of what it was made of, a copy has its own.
    if (settled) await pause(SETTLED_MS);
  }
  return treeIn(path);
}

/** An empty folder for a mount. */
export function mountpoint(ground: Ground, name: string, undo: Undo): string {
  const path = join(ground.stage.folder, name);
  mkdirSync(path);
  undo.push(() => rmdirSync(path));
  return path;
}

export function peerPoint(ground: Ground, index: number, undo: Undo): string {
  const folder = join(ground.stage.folder, 'peer');
  if (!existsSync(folder)) mountpoint(ground, 'peer', undo);
  return mountpoint(ground, `peer/${index}`, undo);
}

interface Layers {
  readonly lower: string;
  readonly upper: string;
  readonly work: string;
}

export function layers(ground: Ground, lower: string, index: number): Layers {
  const folder = join(ground.work, String(index));
  const made = { lower, upper: join(folder, 'upper'), work: join(folder, 'work') };
  for (const path of [made.upper, made.work]) mkdirSync(path, { recursive: true });
  return made;
}

export const optionsOf = ({ lower, upper, work }: Layers): string =>
  `lowerdir=${lower},upperdir=${upper},workdir=${work}`;

/**
 * The common lower layer of overlays. On btrfs it must be in the subvolume of the upper layers: in two subvolumes folders have the same
 * numbers, and to programs that look out for loops they are one.
 */
export async function commonLower({ filesystem, image, work }: Ground): Promise<string> {
  if (filesystem !== 'btrfs') return treeIn(image);
  if (!existsSync(work)) await run('btrfs', ['subvolume', 'snapshot', image, work]);
  return treeIn(work);
}

export async function overlay(ground: Ground, lower: string, index: number, undo: Undo): Promise<string> {
  const point = peerPoint(ground, index, undo);
  await run('mount', ['-t', 'overlay', 'overlay', '-o', optionsOf(layers(ground, lower, index)), point]);
  undo.push(() => unmount(point));
  return point;
}

/** Starts a FUSE filesystem that stays in the foreground, and waits for its mount; returns its process. */
export async function serve(command: string, words: readonly string[], point: string, undo: Undo): Promise<number> {
  const server = await startServer(command, words, point);
  undo.push(() => server.end());
  return server.pid;
}

/** Mounts an image file on a loop device that reads it past the page cache. */
export async function mountImage(ground: Ground, type: string, file: string, point: string, undo: Undo): Promise<void> {
  const words = ['--read-only', '--direct-io=on', '--find', '--show', file];
  const device = (await run('losetup', words)).trim();
  undo.push(() => run('losetup', ['--detach', device]));
  ground.signal.throwIfAborted();
  await run('mount', ['-t', type, '-o', 'ro', device, point]);
  undo.push(() => unmount(point));
}

/** The image as a file, made once for a source. */
export async function packed(ground: Ground, type: 'squashfs' | 'erofs'): Promise<string> {
  const file = `${ground.image}.${type}`;
  const tree = treeIn(ground.image);
  if (existsSync(file)) return file;
  const maker: Readonly<Record<typeof type, readonly [string, ...string[]]>> = {
    squashfs: ['mksquashfs', tree, file, '-comp', 'lz4', '-noappend', '-quiet', '-no-progress'],
    erofs: ['mkfs.erofs', '--quiet', '-d1', file, tree],
  };
  const [command, ...words] = maker[type];
  await run(command, words, ground.signal);
  await run('sync', ['-f', file]);
  return file;
}

/** Puts a peer together of what each tree takes. All is undone when the first steps fail, and by the stage at the latest. */
export async function opened(
  ground: Ground,
  prepare: (undo: Undo) => Promise<(index: number, undo: Undo) => Promise<string>>,
  servers: () => readonly number[] = () => [],
): Promise<Trees> {
  const undo = new Undo();
  ground.stage.undo(() => undo.all());
  let made = 0;
  try {
    const make = await prepare(undo);
    return {
      next: () => make(++made, undo),
      servers,
      end: () => undo.all(),
    };
  } catch (error) {
    await undo.all();
    throw error;
  }
}

/** A process, its children, and theirs. */
export function descendants(pid: number): number[] {
  const found = [pid];
  for (const other of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${other}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ');
      if (Number(fields[1]) === pid) found.push(...descendants(Number(other)));
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}
