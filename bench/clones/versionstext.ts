/** What the section about two versions says. */

import { barChart } from '../plot.ts';
import type { Plot, SectionResult } from '../section.ts';
import { absences, list, mib, optionalList, table } from './markdown.ts';
import { DISTURBED } from './memoryuse.ts';
import { SMALL, type Versions } from './versions.ts';

/** What the series for EROFS says of itself, in MB, without and with; it reads two versions of images of these names. */
const EROFS =
  'redis 241 → 163 (33%), postgres 872 → 630 (28%), tensorflow 2771 → 2340 (16%), mysql 926 → 735 (21%), nginx 390 → 219 (44%), tomcat 924 → 474 (49%)';

export function versionsResult({ asked, answers, leftOut }: Versions): SectionResult {
  const saved = (bytes: number, of: number): string => `${(100 - (bytes / of) * 100).toFixed(1)}%`;
  const rows = answers.map(({ pair, files, bareBytes, sharedBytes, smallBytes, same }) => [
    pair.name,
    files.toLocaleString('en-US'),
    mib(bareBytes),
    mib(sharedBytes),
    saved(sharedBytes, bareBytes),
    saved(smallBytes, bareBytes),
    saved(same.distinctFilesBytes, bareBytes),
    saved(same.distinctPagesBytes, bareBytes),
  ]);
  const head = [
    'two versions',
    'files',
    'bare, MiB',
    'sharedext, MiB',
    'saved',
    `composed=${SMALL}`,
    'same files',
    'same pages',
  ];
  const bars = answers.map(({ pair, bareBytes, sharedBytes }) => ({
    name: pair.name,
    ours: true,
    values: [sharedBytes / 1024 ** 2, (bareBytes - sharedBytes) / 1024 ** 2],
    label: saved(sharedBytes, bareBytes),
  }));
  const plot: Plot = {
    file: 'bench-versions.svg',
    svg: barChart({
      title: 'Page cache of two versions of one image',
      subtitle: 'All files of both were read; deduplicated on disk before',
      foot: `MiB, pages counted by cachestat(2); ${asked.filesystem}.`,
      parts: ['with sharedext', 'saved: the bare filesystem has this, too'],
      tick: (value) => value.toLocaleString('en-US'),
      bars,
    }),
  };
  const disturbed = answers.filter((one) => one.disturbed).map(({ pair }) => `${pair.name}: ${DISTURBED}.`);
  const shown =
    answers.length === 0
      ? ''
      : `${list(answers.map(({ pair }) => `**${pair.name}**: ${pair.what}`))}

${table([head, ...rows])}

`;
  const picture = answers.length === 0 ? '' : '![Two versions](bench-versions.svg)\n\n';
  const text = `Two versions of one thing are unpacked into two folders, each by itself, and deduplicated on disk with duperemove (blocks of 4 KiB, so that small
files are looked at, and parts of extents as well). Then all files of both are read, and the pages that this leaves in the page cache are counted
by cachestat(2): on the bare filesystem, with sharedext as it is when no options are given, and with parts of files from ${SMALL} shared, not only from
4 MiB (\`composed=${SMALL}\`). "Same files" is what could be saved if each file with the same content were in memory once, "same pages" if each page
were, wherever it is in a file: the most that anything can.

${shown}${optionalList([...disturbed, ...absences(leftOut)])}${picture}The series of patches for page cache sharing in EROFS says of two versions of images, in MB: ${EROFS}; with a workload in place of reading
everything, 4% to 47%. It doesn't say with what it measured, the images are others, and its sharing is by digests that are made with the image. So the
columns show what kind of saving there is, not who is better: how much two versions have in common decides, and that is the column "same files".`;
  return {
    text,
    plots: answers.length === 0 ? [] : [plot],
    numbers: {
      pairs: answers.map(({ pair, ...numbers }) => ({ name: pair.name, ...numbers })),
      leftOut,
    },
  };
}
