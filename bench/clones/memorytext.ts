/** What the section about memory says. */

import { barChart, lineChart } from '../plot.ts';
import type { Plot, SectionResult } from '../section.ts';
import { breakEven, bytesPerTree } from './breakeven.ts';
import { absences, list, mib, optionalList, table } from './markdown.ts';
import type { Memory } from './memory.ts';
import { DISTURBED, totalOf } from './memoryuse.ts';
import type { Point, Series } from './series.ts';

/** What page cache sharing aims at: hardly more than each page once. */
const GOAL = 1.01;

const at = ({ points }: Series, trees: number): Point | undefined => points.find((point) => point.trees === trees);

/** The largest number of trees that all series reach, but for the control. */
function common({ series, counts }: Memory): number {
  const compared = series.filter(({ peer }) => peer.kind !== 'control');
  return counts.findLast((count) => compared.every((one) => at(one, count) !== undefined)) ?? 1;
}

interface Named {
  readonly name: string;
  readonly series: Series;
  readonly pageBytes: number;
}

function named({ series, image, notInline }: Memory): Named[] {
  const all = series.map((one) => ({ name: one.peer.name, series: one, pageBytes: image.pageBytes }));
  if (notInline === undefined) return all;
  const name = `${notInline.series.peer.name}, max_inline=0`;
  return [...all, { name, series: notInline.series, pageBytes: notInline.image.pageBytes }];
}

function totals(result: Memory): string {
  const rows = named(result).map(({ name, series }) => [
    name,
    ...result.counts.map((count) => {
      const point = at(series, count);
      return point === undefined ? '–' : mib(totalOf(point.use));
    }),
  ]);
  return table([['MiB in all, trees:', ...result.counts.map(String)], ...rows]);
}

function pageCaches(result: Memory): string {
  const rows = named(result).map(({ name, series, pageBytes }) => [
    name,
    ...result.counts.map((count) => {
      const point = at(series, count);
      return point === undefined ? '–' : (point.use.pageCache / pageBytes).toFixed(3);
    }),
  ]);
  return table([['page cache ÷ unique, trees:', ...result.counts.map(String)], ...rows]);
}

function parts(result: Memory, trees: number): string {
  const ours = result.series.find(({ peer }) => peer.kind === 'ours');
  const point = ours && at(ours, trees);
  const rows = named(result).flatMap(({ name, series }) => {
    const found = at(series, trees);
    if (found === undefined) return [];
    const { pageCache, slab, servers } = found.use;
    const ratio = point === undefined ? '–' : (totalOf(found.use) / totalOf(point.use)).toFixed(2);
    return [[name, mib(pageCache), mib(slab), mib(servers), mib(totalOf(found.use)), ratio]];
  });
  return table([[`${trees} trees, MiB`, 'page cache', 'slab', 'servers', 'in all', '÷ sharedext'], ...rows]);
}

function evens(result: Memory): string {
  const ours = result.series.find(({ peer }) => peer.kind === 'ours');
  if (ours === undefined) return '';
  const best = result.notInline?.series;
  const rows = result.series
    .filter((series) => series !== ours)
    .map((series) => {
      const from = (mine: Series): string => {
        const count = breakEven(mine, series);
        return count === undefined ? 'never' : `${count}`;
      };
      const each = bytesPerTree(series);
      return [
        series.peer.name,
        each === undefined ? '–' : mib(each),
        from(ours),
        ...(best === undefined ? [] : [from(best)]),
      ];
    });
  const own = bytesPerTree(ours);
  const bestOwn = best && bytesPerTree(best);
  const blank = best === undefined ? [''] : ['', ''];
  rows.push([ours.peer.name, own === undefined ? '–' : mib(own), ...blank]);
  if (bestOwn !== undefined) rows.push([`${ours.peer.name}, max_inline=0`, mib(bestOwn), ...blank]);
  const head = ['', 'MiB for one tree more', 'sharedext takes less from'];
  return table([[...head, ...(best === undefined ? [] : ['with max_inline=0 from'])], ...rows]);
}

function verdict(result: Memory): string[] {
  const said: string[] = [];
  const kept = (ratio: number): string =>
    `${ratio.toFixed(3)}, ${ratio <= GOAL ? 'within' : 'above'} the goal of ${GOAL}`;
  for (const { name, series, pageBytes } of named(result).filter((one) => one.series.peer.kind === 'ours')) {
    const worst = Math.max(...series.points.map(({ use }) => use.pageCache / pageBytes));
    said.push(`${name}: what Cached grew by, divided by the unique bytes, was at most ${kept(worst)}.`);
    if (series.filePages === undefined) continue;
    const trees = series.points.at(-1)?.trees;
    said.push(
      `${name}: the pages of files alone, by cachestat(2), with ${trees} trees: ${kept(series.filePages / pageBytes)}.`,
    );
  }
  const one = result.series.find(({ peer }) => peer.name === 'clones, bare')?.points[0];
  if (one !== undefined) {
    const ratio = one.use.pageCache / result.image.pageBytes;
    said.push(
      `For comparison: with one clone on the bare filesystem, Cached grew by ${ratio.toFixed(3)} times the unique bytes.`,
    );
  }
  const ours = result.series.find(({ peer }) => peer.kind === 'ours');
  const best = result.notInline?.series ?? ours;
  for (const mine of new Set([ours, best])) {
    if (mine === undefined) continue;
    const larger = (trees: number, series: Series): boolean => {
      const [a, b] = [at(mine, trees), at(series, trees)];
      return a === undefined || b === undefined || totalOf(b.use) > totalOf(a.use);
    };
    const from2 = result.counts.filter((count) => count >= 2);
    const rivals = result.series.filter(({ peer }) => peer.kind === 'own files');
    const lost = rivals.filter((series) => !from2.every((count) => larger(count, series)));
    const which = mine === ours ? 'sharedext' : 'sharedext with max_inline=0';
    const against = 'every way that gives each tree files of its own';
    said.push(
      lost.length === 0
        ? `From 2 trees on ${which} takes less in all than ${against}.`
        : `The goal of less than ${against} from 2 trees on isn't reached by ${which} against: ${lost.map(({ peer }) => peer.name).join('; ')}.`,
    );
  }
  return said;
}

function linesPlot(result: Memory): Plot {
  const lines = result.series
    .filter(({ peer }) => peer.kind !== 'control')
    .map(({ peer, points }) => ({
      name: peer.name,
      ours: peer.kind === 'ours',
      points: points.map(({ trees, use }) => [trees, totalOf(use) / 1024 ** 2] as const),
    }));
  return {
    file: 'bench-memory.svg',
    svg: lineChart({
      title: 'Memory of many trees of one image',
      subtitle: `All files of each tree were read and its programs run; unique content ${mib(result.image.pageBytes)} MiB`,
      foot: `Page cache, slab and servers, growth in /proc/meminfo; ${result.asked.filesystem}. Both axes are logarithmic.`,
      x: { label: 'trees', ticks: result.counts, scale: 'log' },
      y: { label: 'MiB in all', tick: (value) => value.toLocaleString('en-US'), scale: 'log' },
      lines,
    }),
  };
}

function partsPlot(result: Memory, trees: number): Plot {
  const bars = named(result)
    .flatMap(({ name, series }) => {
      const point = at(series, trees);
      if (point === undefined) return [];
      const { pageCache, slab, servers } = point.use;
      const values = [pageCache, slab, servers].map((bytes) => Math.max(bytes, 0) / 1024 ** 2);
      return [{ name, values, ours: series.peer.kind === 'ours', label: `${mib(totalOf(point.use))} MiB` }];
    })
    .sort((a, b) => sum(b.values) - sum(a.values));
  return {
    file: 'bench-memory-parts.svg',
    svg: barChart({
      title: `What the memory of ${trees} trees is made of`,
      subtitle: `${trees} is the most that every way could be given on this machine without reclaim`,
      foot: `MiB, growth in /proc/meminfo; servers by Pss; ${result.asked.filesystem}.`,
      parts: ['page cache', 'slab', 'servers'],
      tick: (value) => value.toLocaleString('en-US'),
      bars,
    }),
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function missing(result: Memory): string[] {
  const { series, leftOut } = result;
  return [
    ...named(result).flatMap(({ name, series: { disturbed } }) => (disturbed ? [`${name}: ${DISTURBED}.`] : [])),
    ...series.flatMap(({ peer, ended }) => (ended === undefined ? [] : [`${peer.name}: ${ended}.`])),
    ...absences(leftOut),
  ];
}

export function memoryResult(result: Memory): SectionResult {
  const { image, asked, series } = result;
  const trees = common(result);
  const inline =
    asked.filesystem === 'btrfs'
      ? `\nOf these ${mib(image.inlineBytes)} MiB (${((image.inlineBytes / image.pageBytes) * 100).toFixed(1)}%) are pages of small files, up to 2 KiB, that btrfs keeps in its tree: they have
no extents, and are shared by their items there, from the second one that is opened on. On a btrfs mounted with \`max_inline=0\` when the files are
written there are none; that is the row of that name. XFS has no such files.`
      : '';
  const absent = missing(result);
  const text = `An image of ${image.tree.files.length.toLocaleString('en-US')} real files, with ${image.programs.map(({ name }) => name).join(' and ')} and what they load, is given to more and more users,
each of whom has a tree of their own to write to. After the caches were dropped, each tree is made, all its files are read, and its programs are run
in it by chroot(8), so that they are mapped; then the next. What grew is counted: page cache (Cached and Buffers without Shmem), slab, and
the memory of servers (Pss), with that of our supervisor. One run gives all numbers of a row. Each page of the image once is ${mib(image.pageBytes)} MiB:
that is "unique".${inline}

${list(series.map(({ peer }) => `**${peer.name}**: ${peer.what}`))}

${totals(result)}

${optionalList(absent)}![Memory of many trees](bench-memory.svg)

${pageCaches(result)}

Cached has ${asked.filesystem === 'btrfs' ? "the pages of btrfs's own trees in it, and " : ''}whatever else the machine did meanwhile.

${parts(result, trees)}

![What the memory is made of](bench-memory-parts.svg)

${evens(result)}

Break-even is where lines through the first and the last count of each cross. "never": a tree more takes less there than with sharedext.

${list(verdict(result))}

Overlays over a common lower layer share its inodes, so there is nothing left to share as long as nobody changes anything: use them where they
are possible. What sharedext adds is for trees whose files are their own: other owners, changed attributes, upgrades, snapshots of something
that lives. Slab is inodes and names, which the kernel reclaims when memory is short; sharedext has an inode of FUSE above each
inode of the filesystem, which shows with very many small files.`;
  return {
    text,
    plots: [linesPlot(result), partsPlot(result, trees)],
    numbers: {
      image: { files: image.tree.files.length, pageBytes: image.pageBytes, inlineBytes: image.inlineBytes },
      series: named(result).map(({ name, series: { peer, ...numbers } }) => ({ name, kind: peer.kind, ...numbers })),
      leftOut: result.leftOut,
    },
  };
}
