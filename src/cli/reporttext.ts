/** What a report says, for people to read in a terminal. */

import type { ReportGroup, ReportResult } from '../report/result.ts';
import { paint } from './colour.ts';
import { bytes } from './units.ts';

/** Paths shown of a group. */
const PATHS_SHOWN = 3;

/** The names of the notes, where there is something to say. */
const NOTES: Readonly<Record<keyof ReportResult['notes'], string>> = {
  links: 'further names of files that were counted once',
  outOfReach: 'files whose pages the kernel tells only their owner, their writers or root',
  denied: 'files and folders that may not be read',
  failed: 'files and folders that could not be read',
  vanished: 'names that went away meanwhile',
  changed: 'files that changed while they were looked at; their pages count, but as copies of nothing',
  unidentified: 'files with pages whose extents are not known: they may be copies, too',
  layerless: 'files of overlays whose layer was not found: their pages count, but are not identified',
  special: 'links, fifos, sockets and devices, which have no pages here',
  skipped: 'filesystems that were left out',
};

/** The notes that say something, as sentences without an end. */
export function noteLines({ notes }: ReportResult): string[] {
  const lines: string[] = [];
  for (const [name, what] of Object.entries(NOTES)) {
    const count = Object.entries(notes).find(([key]) => key === name)?.[1] ?? 0;
    if (count > 0) lines.push(`${count} ${what}`);
  }
  return lines;
}

/** What is to be said of the mounts that were met. */
export function mountLines({ mounts }: ReportResult): string[] {
  return mounts.map(({ mountpoint, type, folders, unreachable, sharedBytes, savedBytes }) => {
    if (type === 'overlay') {
      if (unreachable === null)
        return `${mountpoint} is an overlay: looked at the files of its ${folders.length} layers`;
      return `${mountpoint} is an overlay that can't be looked through: ${unreachable}`;
    }
    if (unreachable !== null) return `${mountpoint} is a mount of sharedext that was not looked at: ${unreachable}`;
    const looked = `${mountpoint} is a mount of sharedext: looked at ${folders.join(' and ')}`;
    if (sharedBytes === 0) return `${looked}; nothing in memory is held for several files now`;
    return `${looked}; ${bytes(sharedBytes)} in memory are held once for several files, which saves up to ${bytes(savedBytes)}`;
  });
}

export function share(part: number, whole: number): string {
  return `${(whole === 0 ? 0 : (100 * part) / whole).toFixed(1)}%`;
}

/** With what the last round said, changes are shown as well. */
export function reportLines(result: ReportResult, before?: ReportResult): string[] {
  const { bytes: sums, files, disk } = result;
  const change = (name: keyof typeof sums): string =>
    before === undefined ? '' : changed(sums[name] - before.bytes[name]);
  const rows: [string, string][] = [
    ['in memory', `${bytes(sums.cached)}${change('cached')} of ${files.cached} files (${files.seen} looked at)`],
    ['different', `${bytes(sums.distinct)}${change('distinct')}`],
    [
      'more than once',
      `${bytes(sums.duplicate)} (${share(sums.duplicate, sums.cached)})${change('duplicate')}, in ${files.duplicate} files`,
    ],
    ['dirty, being written', `${bytes(sums.dirty)}${change('dirty')}, ${bytes(sums.writeback)}${change('writeback')}`],
  ];
  if (sums.unidentified > 0) rows.push(['not identified', `${bytes(sums.unidentified)}${change('unidentified')}`]);
  if (disk !== null) {
    const { bytes: all, distinct, duplicate, unidentified } = disk;
    const unknown = unidentified === 0 ? '' : `; of ${unidentified} files it is not known`;
    rows.push([
      'on disk',
      `${bytes(all)} in extents, ${bytes(distinct)} of them different, ${bytes(duplicate)} shared${unknown}`,
    ]);
  }
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `${paint('dim', name.padEnd(width))}  ${value}`);
  if (!result.complete) lines.unshift(paint('yellow', 'Stopped before the end: this is what was seen until then.'));
  if (result.groups.length > 0) lines.push('', paint('bold', 'Held more than once, the worst first'));
  for (const group of result.groups) lines.push(...groupLines(group));
  const mounts = mountLines(result);
  if (mounts.length > 0) lines.push('', ...mounts);
  const notes = noteLines(result);
  if (notes.length > 0) lines.push('', ...notes.map((note) => paint('dim', note)));
  return lines;
}

function groupLines({ duplicateBytes, copies, paths }: ReportGroup): string[] {
  const lines: string[] = [];
  const shown = paths.slice(0, PATHS_SHOWN);
  shown.forEach((path, i) => {
    lines.push(`${(i === 0 ? bytes(duplicateBytes) : '').padStart(10)}  ${path}`);
  });
  if (copies > shown.length) lines.push(paint('dim', `${' '.repeat(12)}and ${copies - shown.length} more`));
  return lines;
}

function changed(difference: number): string {
  if (difference === 0) return '';
  return paint(difference > 0 ? 'yellow' : 'green', ` ${difference > 0 ? '+' : '−'}${bytes(Math.abs(difference))}`);
}
