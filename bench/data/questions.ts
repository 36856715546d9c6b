/** What is asked about data, on each of the three routes that a file may take. */

import { writeFileSync } from 'node:fs';
import { run } from '../../src/demo/commands.ts';
import { loopQuestion, type Question, type Tools } from '../asking.ts';
import type { Part } from '../loops/member.ts';
import type { Place } from '../places.ts';
import type { FileSizes } from './files.ts';

export interface DataSizes extends FileSizes {
  readonly blocks: number;
  readonly coldBlocks: number;
  readonly flushes: number;
  readonly programs: number;
  readonly rounds: number;
  /** Of reads from memory, which have goals of hundredths, and from the disk, which take long. */
  readonly manyRounds: number;
  readonly fewRounds: number;
  readonly crowd: number;
}

export const normalSizes: DataSizes = {
  fileBytes: 128 << 20,
  ballastBytes: 3 * 1024 ** 3,
  blocks: 5000,
  coldBlocks: 1000,
  flushes: 50,
  programs: 100,
  rounds: 5,
  manyRounds: 21,
  fewRounds: 3,
  crowd: 16,
};

export const shortSizes: DataSizes = {
  fileBytes: 5 << 20,
  ballastBytes: 1 << 20,
  blocks: 200,
  coldBlocks: 20,
  flushes: 2,
  programs: 1,
  rounds: 1,
  manyRounds: 1,
  fewRounds: 1,
  crowd: 4,
};

export type Route = 'own' | 'shared' | 'composed';
export const routes = ['own', 'shared', 'composed'] as const;

/** What is read on each route, and the other clone that is read before a cold round: its bytes are in memory then. */
const readFiles: Readonly<Record<Route, { readonly file: string; readonly sibling?: string }>> = {
  own: { file: 'own' },
  shared: { file: 'clone', sibling: 'sibling' },
  composed: { file: 'disk', sibling: 'other-disk' },
};

/** Drops all pages that are clean, which all of these are, then has the other clone's read at the same place. */
async function makeCold(place: Place, { signal }: Tools, sibling: string | undefined): Promise<void> {
  writeFileSync('/proc/sys/vm/drop_caches', '1');
  if (sibling !== undefined) await run('dd', [`if=${place.root}/${sibling}`, 'of=/dev/null', 'bs=1M'], signal);
}

function coldQuestions(route: Route, sizes: DataSizes): readonly Question[] {
  const { file, sibling } = readFiles[route];
  const how = sibling === undefined ? 'cold' : 'cold, after another clone was read';
  const common = {
    at: () => file,
    warm: false,
    rounds: sizes.fewRounds,
    before: (place: Place, tools: Tools) => makeCold(place, tools, sibling),
  };
  return [
    loopQuestion({ name: `${route}: read in order, ${how}`, per: 'MiB', loop: 'read-order', count: 0, ...common }),
    loopQuestion({
      name: `${route}: read 4 KiB at random, ${how}`,
      per: 'read',
      loop: 'read-random',
      count: sizes.coldBlocks,
      ...common,
    }),
  ];
}

/**
 * What is read from memory. Each place has a composed file of its own: a mount that composes a file drops what its own page cache
 * has of it, which the other places would have to read from the disk again.
 */
function warmFile(route: Route, { name }: Place): string {
  return route === 'composed' ? `disk-${name}` : readFiles[route].file;
}

function warmQuestions(route: Route, sizes: DataSizes): readonly Question[] {
  const common = { at: (place: Place) => warmFile(route, place), rounds: sizes.manyRounds };
  return [
    loopQuestion({ name: `${route}: read in order`, per: 'MiB', loop: 'read-order', count: 0, ...common }),
    loopQuestion({
      name: `${route}: read 4 KiB at random`,
      per: 'read',
      loop: 'read-random',
      count: sizes.blocks,
      ...common,
    }),
    loopQuestion({ name: `${route}: page faults of a map`, per: 'page', loop: 'map', count: 0, ...common }),
  ];
}

function writeQuestions(route: 'own' | 'composed', sizes: DataSizes): readonly Question[] {
  const at = ({ name }: Place): string => `${route === 'own' ? 'own' : 'disk'}-${name}`;
  return [
    loopQuestion({ name: `${route}: write in order`, per: 'MiB', loop: 'write-order', at, count: 0 }),
    loopQuestion({
      name: `${route}: 4 KiB at random, 30% of them written`,
      per: 'access',
      loop: 'read-write',
      at,
      count: sizes.blocks / 4,
    }),
    loopQuestion({
      name: `${route}: write 8 KiB, fdatasync`,
      per: 'write',
      loop: 'write-flush',
      at,
      count: sizes.flushes,
    }),
  ];
}

function crowdQuestion(name: string, loop: Part['loop'], at: (place: Place) => string, count: number): Question {
  return {
    name,
    per: loop === 'read-random' ? 'read' : 'write',
    warm: true,
    time: (place, { crowd }) => crowd.time(loop, `${place.root}/${at(place)}`, count),
  };
}

function programQuestion(name: string, at: string, count: number): Question {
  const script = 'i=0; while [ $i -lt "$1" ]; do "$0" || exit; i=$((i + 1)); done';
  return {
    name,
    per: 'program',
    warm: true,
    async time(place, { signal }) {
      const start = performance.now();
      await run('sh', ['-c', script, `${place.root}/${at}`, String(count)], signal);
      return { us: (performance.now() - start) * 1000, steps: count };
    },
  };
}

export interface DataQuestions {
  readonly title: string;
  readonly placement: 'one' | 'spread';
  readonly questions: readonly Question[];
}

export function dataQuestions(sizes: DataSizes): readonly DataQuestions[] {
  const { crowd, blocks, flushes, programs } = sizes;
  const many = `${crowd} at a time`;
  return [
    {
      title: 'In memory, one at a time, callers and servers on one processor',
      placement: 'one',
      questions: [
        ...routes.flatMap((route) => warmQuestions(route, sizes)),
        programQuestion('own: fork and execve', 'bin/program', programs),
        programQuestion('shared: fork and execve', 'bin/clone', programs),
      ],
    },
    {
      title: `In memory, ${many}, on all processors`,
      placement: 'spread',
      questions: routes.map((route) =>
        crowdQuestion(`${route}: read 4 KiB at random`, 'read-random', (place) => warmFile(route, place), blocks * 2),
      ),
    },
    {
      title: 'From the disk, on all processors',
      placement: 'spread',
      questions: routes.flatMap((route) => coldQuestions(route, sizes)),
    },
    {
      title: 'Writing, on all processors',
      placement: 'spread',
      questions: [
        ...writeQuestions('own', sizes),
        ...writeQuestions('composed', sizes),
        crowdQuestion(`own: write 8 KiB, fdatasync, ${many}`, 'write-flush', ({ name }) => `own-${name}`, flushes),
        crowdQuestion(
          `composed: write 8 KiB, fdatasync, ${many}`,
          'write-flush',
          ({ name }) => `disk-${name}`,
          flushes,
        ),
      ],
    },
  ];
}
