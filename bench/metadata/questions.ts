/** What is asked about names, attributes and opens: single calls in a loop, and programs that people run. */

import { writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../src/demo/commands.ts';
import { loopQuestion, type Question } from '../asking.ts';
import type { Place } from '../places.ts';

export interface MetadataSizes {
  readonly small: number;
  readonly listed: number;
  readonly tree: number;
  readonly packages: number;
  readonly rounds: number;
  /** Of whole programs. */
  readonly fewRounds: number;
}

export const normalSizes: MetadataSizes = {
  small: 1000,
  listed: 5000,
  tree: 1000,
  packages: 15,
  rounds: 5,
  fewRounds: 3,
};

export const shortSizes: MetadataSizes = { small: 100, listed: 300, tree: 40, packages: 2, rounds: 1, fewRounds: 1 };

/** What the kernel sends for forgotten inodes is answered meanwhile. */
const FORGETTING_MS = 50;

/** Unused inodes and names are forgotten; pages, hence the filesystem's metadata, stay. */
async function forgetNames(): Promise<void> {
  writeFileSync('/proc/sys/vm/drop_caches', '2');
  await pause(FORGETTING_MS);
}

export const scratch = ({ name }: Place): string => `scratch-${name}`;
const repository = ({ name }: Place): string => `repository-${name}`;

interface CommandQuestion {
  readonly name: string;
  readonly per: string;
  readonly steps: number;
  readonly rounds: number;
  /** Lines for the shell, in the place's root; `$1` is its scratch folder, `$2` its repository. */
  readonly before?: string;
  readonly line: string;
  readonly after?: string;
}

function commandQuestion({ name, per, steps, rounds, before, line, after }: CommandQuestion): Question {
  const shell = (script: string, place: Place, signal: AbortSignal): Promise<string> =>
    run('sh', ['-c', `cd "$0" && ${script}`, place.root, scratch(place), repository(place)], signal);
  return {
    name,
    per,
    rounds,
    warm: true,
    async prepare(place, { signal }) {
      if (before !== undefined) await shell(before, place, signal);
    },
    async time(place, { signal }) {
      const start = performance.now();
      await shell(line, place, signal);
      return { us: (performance.now() - start) * 1000, steps };
    },
    async finish(place, { signal }) {
      if (after !== undefined) await shell(after, place, signal);
    },
  };
}

/** The names by which goals and tables find rows. */
export const rowNames = {
  statUncached: 'stat, nothing cached',
  statForced: 'statx, attributes not cached',
  openClose: 'open, close',
  create: 'create, close',
  unlink: 'unlink',
  find: 'find -ls',
  grep: 'grep -r',
  status: 'git status',
  tar: 'tar x',
  copy: 'cp -a',
  remove: 'rm -rf',
} as const;

export function loopQuestions({ small, packages }: MetadataSizes): readonly Question[] {
  const onSmall = { at: () => 'small', count: small };
  const onScratch = { at: scratch, count: small };
  return [
    loopQuestion({ name: 'stat, cached', per: 'call', loop: 'stat-known', ...onSmall }),
    loopQuestion({ name: rowNames.statUncached, per: 'call', loop: 'stat', before: forgetNames, ...onSmall }),
    loopQuestion({ name: rowNames.statForced, per: 'call', loop: 'stat-forced', at: () => 'one', count: small }),
    loopQuestion({ name: rowNames.openClose, per: 'file', loop: 'open-close', ...onSmall }),
    loopQuestion({ name: 'open, read, close', per: 'file', loop: 'open-read', ...onSmall }),
    loopQuestion({
      name: 'open, read, close, clones',
      per: 'file',
      loop: 'open-read',
      at: () => 'clones',
      count: small,
    }),
    loopQuestion({ name: 'readdir', per: 'entry', loop: 'list', at: () => 'listed', count: 0 }),
    loopQuestion({
      name: 'readdir and stat, nothing cached',
      per: 'entry',
      loop: 'list-long',
      at: () => 'listed',
      count: 0,
      before: forgetNames,
    }),
    loopQuestion({ name: rowNames.create, per: 'file', loop: 'create', ...onScratch }),
    loopQuestion({ name: 'rename', per: 'file', loop: 'rename', ...onScratch }),
    loopQuestion({ name: rowNames.unlink, per: 'file', loop: 'unlink', ...onScratch }),
    loopQuestion({ name: 'mkdir', per: 'folder', loop: 'mkdir', at: scratch, count: small / 4 }),
    loopQuestion({
      name: 'unpacking packages, as npm ci does',
      per: 'file',
      loop: 'unpack',
      at: scratch,
      count: packages,
    }),
  ];
}

/** `files` is how many the tree has. */
export function commandQuestions({ fewRounds }: MetadataSizes, files: number): readonly Question[] {
  const common = { per: 'file', steps: files, rounds: fewRounds };
  return [
    commandQuestion({ name: rowNames.find, line: 'find tree -ls >/dev/null', ...common }),
    commandQuestion({
      name: rowNames.grep,
      line: 'grep -rc "not to be found" tree >/dev/null || [ $? = 1 ]',
      ...common,
    }),
    commandQuestion({ name: rowNames.status, line: 'git -C "$2" status --porcelain', ...common }),
    commandQuestion({
      name: 'git checkout, a third of the files changed',
      line: 'git -C "$2" checkout -q after',
      after: 'git -C "$2" checkout -q before',
      ...common,
    }),
    commandQuestion({
      name: rowNames.tar,
      before: 'mkdir "$1/unpacked"',
      line: 'tar -xf tree.tar -C "$1/unpacked"',
      after: 'rm -rf "$1/unpacked"',
      ...common,
    }),
    commandQuestion({ name: rowNames.copy, line: 'cp -a tree "$1/copied"', after: 'rm -rf "$1/copied"', ...common }),
    commandQuestion({
      name: rowNames.remove,
      before: 'cp -a tree "$1/removed"',
      line: 'rm -rf "$1/removed"',
      ...common,
    }),
  ];
}
