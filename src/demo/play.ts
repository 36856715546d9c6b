/** The demo from the first step to the last: what is made, what is measured, and what comes of it. */

import { statfsSync } from 'node:fs';
import { freemem, release } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../base/errno.ts';
import { run } from './commands.ts';
import { type Measurement, measure } from './measure.ts';
import { type FilesystemName, makeStage, type Stage } from './stage.ts';
import { fill } from './tree.ts';

/** Sparse: it costs what is written. */
const IMAGE_BYTES = 6 * 1024 ** 3;

export interface Play {
  readonly filesystem: FilesystemName;
  readonly clones: number;
  /** Whether a nosharedext mount is measured, too. */
  readonly control: boolean;
  readonly program: string;
  readonly packageRoot: string;
  readonly version: string;
  readonly signal: AbortSignal;
  /** Told what is being done. */
  readonly step: (text: string) => void;
}

export interface Result {
  readonly schema: 1;
  readonly version: string;
  readonly kernel: string;
  readonly filesystem: FilesystemName;
  readonly date: string;
  readonly clones: number;
  /** Regular files with content, in all clones. */
  readonly files: number;
  readonly logicalBytes: number;
  readonly uniqueBytes: number;
  /** What the filesystem says it uses, with its metadata. */
  readonly diskBytes: number;
  /** Without sharedext; through a mount that doesn't share, if that was asked for; with sharedext. */
  readonly bare: Measurement;
  readonly control: Measurement | null;
  readonly shared: Measurement;
  /** Page cache without divided by page cache with sharedext. */
  readonly ratio: number;
  readonly elapsedMs: number;
}

/** @throws UserError, or an AbortError when interrupted; nothing is left in either case. */
export async function play(setup: Play): Promise<Result> {
  setup.step(`making a ${setup.filesystem} filesystem`);
  const stage = await makeStage(setup.filesystem, IMAGE_BYTES, setup.program);
  try {
    return await onStage(setup, stage);
  } finally {
    setup.step('cleaning up');
    await stage.dispose();
  }
}

/** On btrfs a clone is a snapshot of the subvolume, on XFS a copy by reflinks. */
async function cloneTree(kind: FilesystemName, tree: string, clone: string, signal: AbortSignal): Promise<void> {
  if (kind === 'btrfs') await run('btrfs', ['subvolume', 'snapshot', tree, clone]);
  else await run('cp', ['-a', '--reflink=always', '--', tree, clone], signal);
}

async function onStage(setup: Play, stage: Stage): Promise<Result> {
  const { clones, filesystem, signal, step } = setup;
  const begun = performance.now();
  const { source, device } = stage;
  signal.throwIfAborted();
  step('copying real programs and files');
  const original = join(source, 'original');
  await run(...makeRoot(filesystem, original));
  const tree = await fill(original, setup.packageRoot, signal);
  await run('sync', ['-f', source]);
  const needed = tree.bytes * (clones + 1);
  if (needed > freemem()) {
    const gib = (needed / 1024 ** 3).toFixed(1);
    throw new UserError(
      `Cannot show ${clones} clones: without sharedext they take ${gib} GiB of memory, try fewer --clones`,
    );
  }
  const names = Array.from({ length: clones }, (_, index) => `clone-${index + 1}`);
  for (const name of names) {
    signal.throwIfAborted();
    step(`cloning: ${name} of ${clones}`);
    await cloneTree(filesystem, original, join(source, name), signal);
  }
  await run('sync', ['-f', source]);
  const space = statfsSync(source);
  const folders = ['original', ...names].map((name) => join(source, name));
  const common = { tree, device, signal, step };

  const at = (base: string): string[] => names.map((name) => join(base, name));
  const bare = await measure({ ...common, name: 'bare filesystem', clones: at(source), counted: folders });
  const through = async (name: string, options: string, counted: readonly string[]): Promise<Measurement> => {
    signal.throwIfAborted();
    const mount = await stage.mount(options);
    const requests = () => mount.requests();
    const result = await measure({ ...common, name, clones: at(mount.mountpoint), counted, requests });
    await mount.end();
    return result;
  };
  const control = setup.control ? await through('nosharedext mount', 'nosharedext', folders) : null;
  // The files are as fresh as the demo: without settle=0 they would wait for their sharing.
  const shared = await through('sharedext mount', 'settle=0', [...folders, join(source, '.sharedext')]);
  return {
    schema: 1,
    version: setup.version,
    kernel: release(),
    filesystem,
    date: new Date().toISOString().slice(0, 10),
    clones,
    files: tree.files.length * clones,
    logicalBytes: tree.bytes * clones,
    uniqueBytes: tree.bytes,
    diskBytes: (space.blocks - space.bfree) * space.bsize,
    bare,
    control,
    shared,
    ratio: bare.pageCacheBytes / shared.pageCacheBytes,
    elapsedMs: performance.now() - begun,
  };
}

/** The folder of the original: a subvolume where there are such things. */
function makeRoot(kind: FilesystemName, folder: string): [string, readonly string[]] {
  return kind === 'btrfs' ? ['btrfs', ['subvolume', 'create', folder]] : ['mkdir', [folder]];
}
