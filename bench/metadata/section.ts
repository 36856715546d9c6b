/** The section `metadata`: what names, attributes and opens cost in all places, and how many requests they take. */

import { programPath } from '../../src/cli/package.ts';
import { makeStage } from '../../src/demo/stage.ts';
import { askInTurns, type Question, ratio, type Tools } from '../asking.ts';
import type { Counts } from '../daemon.ts';
import { roundTripOf, startConstant } from '../floor/empty.ts';
import { Crowd, Prober } from '../helpers.ts';
import { lookForWork, type Placement, putOn } from '../placement.ts';
import { makeSource, openPlaces, type PlaceName, type Places, placeNames, placeTitles } from '../places.ts';
import { ratioPlot } from '../ratioplot.ts';
import type { Asked, Section, SectionResult } from '../section.ts';
import {
  absentText,
  countsText,
  type Goal,
  goalsTable,
  type Row,
  ratiosTable,
  rowNumbers,
  time,
  times,
  whole,
} from '../tables.ts';
import { fillForMetadata } from './files.ts';
import { commandQuestions, loopQuestions, type MetadataSizes, normalSizes, rowNames, shortSizes } from './questions.ts';
import { requestsOf } from './requests.ts';
import { type Requests, type RoundTrips, roundTripsTable } from './roundtrips.ts';

const IMAGE_BYTES = 32 * 1024 ** 3;
const OURS = ['sharedext', 'over'] as const;
const PEERS = ['bindfs', 'fuse-overlayfs', 'mergerfs'] as const;

const PLOT = 'bench-metadata.svg';
const plotRows: readonly string[] = [rowNames.statUncached, rowNames.openClose, rowNames.grep, rowNames.status];
const plotPlaces: readonly PlaceName[] = ['bindfs', 'fuse-overlayfs', 'mergerfs', 'sharedext', 'over'];

/** Those that the short form of the section `data` has are left out of this one's. */
const shortPlaces = placeNames.filter((name) => name !== 'again' && name !== 'copied-up');

/** Rows that are measured also with callers and servers wherever the scheduler puts them. */
const spreadRows: readonly string[] = [
  rowNames.statUncached,
  rowNames.statForced,
  rowNames.openClose,
  rowNames.create,
  rowNames.unlink,
  rowNames.find,
  rowNames.grep,
  rowNames.status,
  rowNames.tar,
  rowNames.copy,
  rowNames.remove,
];

/** How many times as fast as each peer. */
const FASTER = 3;
const fasterRows = [rowNames.statUncached, rowNames.openClose, rowNames.grep] as const;
/** How many times as long as on the bare filesystem at the most. */
const limits = [
  [rowNames.find, 1.5],
  [rowNames.status, 1.3],
  [rowNames.tar, 4],
  [rowNames.copy, 4],
  [rowNames.remove, 4],
] as const;

interface Measured {
  readonly files: number;
  readonly places: Places;
  readonly one: readonly Row[];
  readonly spread: readonly Row[];
  /** The same when idle processors look for work before they sleep; empty where they do so anyway. */
  readonly looking: readonly Row[];
  readonly requests: readonly Requests[];
  readonly roundTrips: RoundTrips;
}

async function measure({ filesystem, extent, signal, tell }: Asked, sizes: MetadataSizes): Promise<Measured> {
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('making many files');
    const source = makeSource(stage);
    const names = extent === 'short' ? shortPlaces : placeNames;
    const files = await fillForMetadata(source, sizes, names);
    const places = await openPlaces(stage, source, names);
    const prober = new Prober();
    stage.undo(() => prober.end());
    const tools: Tools = { prober, crowd: new Crowd(0), warmUp: extent !== 'short', signal };
    const empty = await startConstant(stage, 'empty', source);
    const pids = [prober.pid, empty.pid, ...places.open.flatMap(({ pid }) => pid ?? [])];
    const roundTrip = () => roundTripOf(empty, prober, sizes.small, sizes.rounds);
    const questions = [...loopQuestions(sizes), ...commandQuestions(sizes, files)];
    const ask = async (placement: Placement, asked: readonly Question[]): Promise<Row[]> => {
      await putOn(placement, pids);
      const rows: Row[] = [];
      for (const question of asked) {
        tell(question.name);
        const answers = await askInTurns(question, places.open, sizes.rounds, tools);
        rows.push({ name: question.name, per: question.per, answers });
      }
      return rows;
    };
    const one = await ask('one', questions);
    const roundTripOnOne = await roundTrip();
    const asked = questions.filter(({ name }) =>
      extent === 'short' ? name === spreadRows[0] : spreadRows.includes(name),
    );
    const spread = await ask('spread', asked);
    const roundTrips = { one: roundTripOnOne, spread: await roundTrip() };
    const sleepAgain = lookForWork();
    if (sleepAgain !== undefined) stage.undo(sleepAgain);
    const looking = sleepAgain === undefined ? [] : await ask('spread', asked);
    sleepAgain?.();
    const requests: Requests[] = [];
    for (const question of questions) {
      tell(`requests of ${question.name}`);
      const counts = new Map<PlaceName, Counts>();
      for (const place of places.open)
        if (place.name === 'sharedext' || place.name === 'over')
          counts.set(place.name, await requestsOf(question, place, tools));
      requests.push({ name: question.name, per: question.per, counts });
    }
    return { files, places, one, spread, looking, requests, roundTrips };
  } finally {
    await putOn('spread');
    await stage.dispose();
  }
}

function goalsOf(rows: readonly Row[]): readonly Goal[] {
  const row = (name: string): Row | undefined => rows.find((found) => found.name === name);
  const goals: Goal[] = [];
  for (const name of fasterRows) {
    const answers = row(name)?.answers;
    if (answers === undefined) continue;
    for (const peer of PEERS.filter((place) => answers.has(place))) {
      const faster = 1 / ratio(answers, 'sharedext', peer);
      const what = `${name}: faster than ${peer}`;
      goals.push({ what, wanted: `${FASTER} times`, measured: times(faster), met: faster >= FASTER });
    }
  }
  for (const [name, limit] of limits) {
    const answers = row(name)?.answers;
    if (answers === undefined) continue;
    for (const place of OURS) {
      const slower = ratio(answers, place);
      const what = `${name}, ${placeTitles[place]}`;
      goals.push({ what, wanted: `at most ${limit} times bare`, measured: times(slower), met: slower <= limit });
    }
  }
  return goals;
}

function lookingText(looking: readonly Row[], places: Places): string {
  if (looking.length === 0) return '';
  return `
A virtual machine's kernel has idle processors look for work for up to 0.2 ms before they are left to the host, unless it is told
otherwise, as this one is (\`haltpoll.guest_halt_poll_ns=0\`). The same, once more, with the kernel's default, from which all others gain:

${ratiosTable(looking, places.open)}
`;
}

function requestsList(requests: readonly Requests[]): string {
  const lines = requests.map(({ name, per, counts }) => {
    const [plain, over] = OURS.map((place) => countsText(counts.get(place) ?? {}));
    return `- **${name}**, per ${per}: ${plain}${over === plain ? '' : `; over itself: ${over}`}`;
  });
  return lines.join('\n');
}

function text(measured: Measured, sizes: MetadataSizes): string {
  const { files, places, one, spread, looking, requests, roundTrips } = measured;
  const judged = [...fasterRows, ...limits.map(([name]) => name)];
  return `A real tree of ${whole(files)} files of at most 64 KiB, and folders of ${whole(sizes.small)} and ${whole(sizes.listed)} files, in all places at the same time; they are asked in
turn, ${sizes.rounds} rounds of calls and ${sizes.fewRounds} of programs. Numbers are the median of each round's ratio to the bare filesystem. Each
question was asked once before; where nothing is cached, the kernel's inodes and names were dropped before each round, not its pages.
Between two rounds at a place more than a second goes by, after which sharedext's names and attributes are asked for anew unless
it is mounted over its source ("over itself": \`sharedext mount DIR DIR\`).

Known levels, measured before on a machine with 2 processors: libfuse's passthrough example took 62 to 120 µs for an uncached stat, 170 to
240 µs for open and close, 450 µs for a create, 270 µs for an unlink, and 10 times as long as the bare filesystem for tar x of 8,000 files,
4 for find -ls, 11 for grep -r, 16 for cp -a, 2.2 for git status, 7.5 for rm -rf.

### Callers and servers on one processor

${ratiosTable(one, places.open)}

### On all processors

A request wakes its server, and the answer its caller: across the processors of a virtual machine each takes tens of microseconds where
idle ones are left to the host at once. sharedext looks for its next request, and on a machine with at most 4 processors it keeps idle
ones awake while requests come in a stream (\`spin=\`, \`idle=\`).

${ratiosTable(spread, places.open)}
${lookingText(looking, places)}
![Times as long as on the bare filesystem](${PLOT})

### Goals

On all processors, as people run it:

${goalsTable(goalsOf(spread))}

On one processor, where nothing has to be woken on another one, and a server can't look for the next request (\`spin=\`):

${goalsTable(goalsOf(one))}

### What the round trips alone take

The kernel waits for the answer of each request but FORGET and RELEASE. With a server whose answers are constants it waited
${time(roundTrips.one)} on one processor and ${time(roundTrips.spread)} on all (GETATTR; the section "The least that a request takes"). So often as sharedext is asked,
that server would take, with what the bare filesystem takes for the rest:

${roundTripsTable({ rows: one, requests, roundTrip: roundTrips.one, names: judged, where: 'one processor' })}

${roundTripsTable({ rows: spread, requests, roundTrip: roundTrips.spread, names: judged, where: 'all processors' })}

Where a server that does nothing doesn't reach the goal, no server does: only fewer requests would. What \`find -ls\` and \`git status\` take
beyond that is not requests: a listing with attributes takes two system calls on the source for each of its entries, statx(2) and
name_to_handle_at(2) (the section "Where the time of a request goes", readdirplus).

### Requests

What reaches the server for one step, by the mount's own counters, when the step was done a moment before. What comes less often than
in 200 steps is left out.

${requestsList(requests)}

${absentText(places.absent)}`.trimEnd();
}

function plot({ spread, files }: Measured): string {
  return ratioPlot({
    title: 'Names, attributes and opens',
    subtitle: 'Times as long as on the bare filesystem; less is better',
    foot: `Left to the scheduler; a tree of ${whole(files)} files. Medians of ratios within one run.`,
    rows: spread.filter(({ name }) => plotRows.includes(name)),
    places: plotPlaces,
  });
}

async function run(asked: Asked): Promise<SectionResult> {
  const sizes = asked.extent === 'short' ? shortSizes : normalSizes;
  const measured = await measure(asked, sizes);
  const { one, spread } = measured;
  return {
    text: text(measured, sizes),
    plots: [{ file: PLOT, svg: plot(measured) }],
    numbers: {
      files: measured.files,
      one: rowNumbers(one),
      spread: rowNumbers(spread),
      looking: rowNumbers(measured.looking),
      goals: { one: goalsOf(one), spread: goalsOf(spread) },
      roundTrips: measured.roundTrips,
      requests: measured.requests.map(({ name, per, counts }) => ({ name, per, ...Object.fromEntries(counts) })),
      absent: measured.places.absent,
    },
  };
}

export const metadataSection: Section = { name: 'metadata', title: 'Names, attributes and opens', run };
