/** The section `data`: what reading, mapping, running and writing files costs, in all places. */

import { programPath } from '../../src/cli/package.ts';
import { makeStage } from '../../src/demo/stage.ts';
import { askInTurns, askOnce, ratio, type Tools } from '../asking.ts';
import { Crowd, Prober } from '../helpers.ts';
import { putOn } from '../placement.ts';
import { makeSource, openPlaces, type PlaceName, type Places, placeNames } from '../places.ts';
import { ratioPlot } from '../ratioplot.ts';
import type { Asked, Section, SectionResult } from '../section.ts';
import { absentText, type Goal, goalsTable, type Row, ratiosTable, rowNumbers, times } from '../tables.ts';
import { CHANGED, fillForData, useUpScattered } from './files.ts';
import { type DataSizes, dataQuestions, normalSizes, shortSizes } from './questions.ts';

const IMAGE_BYTES = 32 * 1024 ** 3;
const PLOT = 'bench-data.svg';
const plotPlaces: readonly PlaceName[] = ['bindfs', 'mergerfs', 'sharedext'];
/** The short form does without those that the section `metadata` has in its own. */
const shortPlaces: readonly PlaceName[] = ['bare', 'again', 'copied-up', 'bindfs', 'nosharedext', 'sharedext', 'over'];
/** How much longer than on the bare filesystem reading may take. */
const NEAR = 1.02;

interface Group {
  readonly title: string;
  readonly rows: readonly Row[];
}

async function measure(asked: Asked, sizes: DataSizes): Promise<{ groups: readonly Group[]; places: Places }> {
  const { filesystem, signal, tell } = asked;
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('making large files');
    const source = makeSource(stage);
    const names = asked.extent === 'short' ? shortPlaces : placeNames;
    await fillForData(source, sizes, names);
    const places = await openPlaces(stage, source, names);
    const prober = new Prober();
    stage.undo(() => prober.end());
    const crowd = new Crowd(sizes.crowd);
    stage.undo(() => crowd.end());
    const pids = [prober.pid, ...crowd.pids, ...places.open.flatMap(({ pid }) => pid ?? [])];
    const tools: Tools = { prober, crowd, warmUp: asked.extent !== 'short', signal };
    const asking = dataQuestions(sizes);
    // What a mount drops of a file's own pages when it first shares it is dropped now.
    for (const question of asking.flatMap(({ questions }) => questions.filter(({ readsAll }) => readsAll === true)))
      for (const place of places.open) await askOnce(question, place, tools);
    // Each processor has its own store of pages that were just freed.
    await putOn('one', pids);
    await useUpScattered(source);
    const groups: Group[] = [];
    for (const { title, placement, questions } of asking) {
      await putOn(placement, pids);
      const rows: Row[] = [];
      for (const question of questions) {
        tell(question.name);
        const answers = await askInTurns(question, places.open, sizes.rounds, tools);
        rows.push({ name: question.name, per: question.per, answers });
      }
      groups.push({ title, rows });
    }
    return { groups, places };
  } finally {
    await putOn('spread');
    await stage.dispose();
  }
}

function goalsOf(groups: readonly Group[]): readonly Goal[] {
  const goals: Goal[] = [];
  for (const { name, answers } of groups[0]?.rows ?? []) {
    const [route] = name.split(':');
    if (route === 'composed') {
      const ahead = ratio(answers, 'sharedext', 'bindfs');
      if (Number.isNaN(ahead)) continue;
      goals.push({ what: name, wanted: 'less than bindfs', measured: `${times(ahead)} of bindfs`, met: ahead < 1 });
    } else {
      const us = ratio(answers, 'sharedext');
      const controls = `bare again: ${times(ratio(answers, 'again'))}, overlayfs, copied up: ${times(ratio(answers, 'copied-up'))}`;
      const measured = `${times(us)} (${controls})`;
      goals.push({ what: name, wanted: `at most ${NEAR} of bare`, measured, met: us <= NEAR });
    }
  }
  return goals;
}

function text(groups: readonly Group[], places: Places, sizes: DataSizes): string {
  const shown = groups.map(({ title, rows }) => `### ${title}\n\n${ratiosTable(rows, places.open)}`).join('\n\n');
  const { rounds, manyRounds, fewRounds } = sizes;
  return `Files of ${sizes.fileBytes >> 20} MiB take three routes: **own** shares nothing and is backed by itself; **shared** is a clone, backed by one
immutable clone of all its copies; **composed** is a clone of which ${CHANGED * 100}% of the blocks were changed, read by the server extent by
extent. All places show the same folder at the same time and are asked in turn: ${rounds} rounds, ${manyRounds} of what is read from memory
one at a time, and ${fewRounds} of what is read from the disk. A file is open before the clock starts: what
opening takes is in the section about names. Numbers are the median of each round's ratio to the bare filesystem; "bare again" is a bind mount of it, and says how far
apart equals are. Before each round "from the disk" all clean pages were dropped; then, for shared and composed files, another clone was
read at the same place. Before all of it each file was read once at each place, all pages were dropped, and a file of ${sizes.ballastBytes / 2 ** 20} MiB was read:
it takes the pages that were just freed, in which a file would be up to three times slower to read than in neighbouring ones. "over itself" is \`sharedext mount DIR DIR\`.

${shown}

![Times as long as on the bare filesystem](${PLOT})

### Goals

${goalsTable(goalsOf(groups))}

${absentText(places.absent)}`.trimEnd();
}

function plot(groups: readonly Group[], { fileBytes }: DataSizes): string {
  return ratioPlot({
    title: 'Reading from memory',
    subtitle: 'Times as long as on the bare filesystem; less is better',
    foot: `Files of ${fileBytes >> 20} MiB, callers and servers on one processor. Medians of ratios within one run.`,
    rows: (groups[0]?.rows ?? []).filter(({ name }) => name.includes('read')),
    places: plotPlaces,
  });
}

async function run(asked: Asked): Promise<SectionResult> {
  const sizes = asked.extent === 'short' ? shortSizes : normalSizes;
  const { groups, places } = await measure(asked, sizes);
  return {
    text: text(groups, places, sizes),
    plots: [{ file: PLOT, svg: plot(groups, sizes) }],
    numbers: {
      groups: groups.map(({ title, rows }) => ({ title, rows: rowNumbers(rows) })),
      goals: goalsOf(groups),
      absent: places.absent,
    },
  };
}

export const dataSection: Section = { name: 'data', title: 'Reading and writing', run };
