/** The section `scale`: memory and time of each thing that there may be many of, as their number grows. */

import { programPath } from '../../src/cli/package.ts';
import { makeStage } from '../../src/demo/stage.ts';
import { lineChart } from '../plot.ts';
import type { Asked, Section, SectionResult } from '../section.ts';
import { bytes, type Goal, goalsTable, table, time, times, whole } from '../tables.ts';
import { hostOf, hostText } from './host.ts';
import { mountGrowing } from './mounted.ts';
import { type Growth, scaleSizes } from './sizes.ts';
import { extentsGrowing } from './structures.ts';

const PLOT = 'bench-scale.svg';
const IMAGE_BYTES = 32 * 1024 ** 3;

async function measure({ filesystem, extent, signal, tell }: Asked): Promise<readonly Growth[]> {
  const sizes = scaleSizes[extent];
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('making, walking and opening many files');
    const mounted = await mountGrowing(stage, sizes, signal);
    tell('many extents');
    return [...mounted, ...(await extentsGrowing(sizes.extents, signal))];
  } finally {
    tell('cleaning up');
    await stage.dispose();
  }
}

function growthTable({ what, adding, finding, steps }: Growth): string {
  const compared = steps.every(({ searchUs }) => searchUs !== undefined);
  const body = steps.map(({ count, bytesEach, tableBytesEach, kernelBytesEach, addUs, findUs, searchUs }) => [
    whole(count),
    bytes(bytesEach),
    tableBytesEach === undefined ? '–' : bytes(tableBytesEach),
    kernelBytesEach === undefined ? '–' : bytes(kernelBytesEach),
    time(addUs),
    time(findUs),
    ...(compared ? [time(searchUs ?? Number.NaN)] : []),
  ]);
  const head = [what, 'memory of one', 'of it tables', "kernel's slabs", adding, finding];
  return table([[...head, ...(compared ? ['in a sorted array'] : [])], ...body]);
}

/** How many times as long as a binary search of one sorted array a structure may take, however many there are. */
const SLOWER = 3;

/**
 * Finding one among the most, beside finding one among the fewest: no more than their logarithms say. Where a search of a sorted array
 * was timed, too, which waits for memory more often as well when there are more: a few times as long as that, at every size.
 */
function goalsOf(growths: readonly Growth[]): readonly Goal[] {
  return growths.flatMap(({ what, finding, steps }) => {
    const [first, last] = [steps[0], steps.at(-1)];
    if (first === undefined || last === undefined) return [];
    const range = `${what}, ${finding}: from ${whole(first.count)} to ${whole(last.count)}`;
    if (last.searchUs !== undefined) {
      const ratios = steps.map(({ findUs, searchUs }) => findUs / (searchUs ?? Number.NaN));
      const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
      const wanted = `at most ${SLOWER} times a sorted array`;
      return { what: range, wanted, measured: `${times(least)} to ${times(most)} times`, met: most <= SLOWER };
    }
    const grown = last.findUs / first.findUs;
    const limit = Math.log(last.count) / Math.log(first.count);
    const power = Math.log(grown) / Math.log(last.count / first.count);
    return {
      what: range,
      wanted: `at most ${times(limit)} times (log n)`,
      measured: `${times(grown)} (as n^${power.toFixed(2)})`,
      met: grown <= limit,
    };
  });
}

function text(growths: readonly Growth[]): string {
  return `Each row adds to the one before. "Memory of one" is what the server's memory (VmRSS) grew by for each that was added in the row, of
extents what their structures say that they hold. The interpreter's part of it comes and goes with what it compiles and collects;
"tables" is exact. "Kernel's slabs" is what those of the whole machine grew by meanwhile: the inodes and names of the mount, and
of the source as well.

${growths.map(growthTable).join('\n\n')}

${goalsTable(goalsOf(growths))}

Among a thousand, all that is looked at is in the processor's caches, among a million it is not: that alone is a few times. So extents
are found at the same places by a binary search of one sorted array as well, which makes as many steps as their logarithm says.

![Time of one as there are more](${PLOT})

### A large host

${hostText(hostOf(growths))}`;
}

function plot(growths: readonly Growth[]): string {
  const counts = growths.flatMap(({ steps }) => steps.map(({ count }) => count));
  const first = Math.floor(Math.log10(Math.min(...counts)));
  const last = Math.ceil(Math.log10(Math.max(...counts)));
  return lineChart({
    title: 'Finding one among many',
    subtitle: 'A flat line is a time that does not depend on how many there are',
    foot: 'Mounted: by calls on the mount. Extents: in the structures themselves.',
    x: {
      label: 'how many there are',
      ticks: Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i)),
      scale: 'log',
    },
    y: { label: 'microseconds', tick: (value) => String(Number(value.toPrecision(2))), scale: 'log' },
    lines: growths.map(({ what, steps }) => ({
      name: what,
      points: steps.map(({ count, findUs }) => [count, findUs]),
    })),
  });
}

async function run(asked: Asked): Promise<SectionResult> {
  const growths = await measure(asked);
  return {
    text: text(growths),
    plots: [{ file: PLOT, svg: plot(growths) }],
    numbers: { growths, goals: goalsOf(growths), host: hostOf(growths) },
  };
}

export const scaleSection: Section = { name: 'scale', title: 'Many', run };
