/** The demo's result as a table for terminals. */

import Table from 'cli-table3';
import type { Measurement } from './measure.ts';
import type { Result } from './play.ts';

export function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 ** 2).toLocaleString('en-US')} MiB`;
}

export function seconds(ms: number): string {
  return ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** The ways of reading, in the order of the columns. */
export function waysOf({ bare, control, shared }: Result): Measurement[] {
  return control === null ? [bare, shared] : [bare, control, shared];
}

/** The rows of what was measured: a name, and a cell for every way of reading. */
export function rowsOf(result: Result): string[][] {
  const row = (name: string, cell: (way: Measurement) => string) => [name, ...waysOf(result).map(cell)];
  return [
    row('page cache of the files', (way) => mebibytes(way.pageCacheBytes)),
    row('growth of Cached in /proc/meminfo', (way) => mebibytes(way.meminfoBytes)),
    row('first read of the first clone', (way) => seconds(way.firstCloneMs)),
    row('first read of the second clone', (way) => seconds(way.secondCloneMs)),
    row('  of it read from the disk', (way) => mebibytes(way.secondCloneDiskBytes)),
    row(`reading all ${result.clones} clones`, (way) => seconds(way.allClonesMs)),
    row('programs run, all at once', (way) => String(way.programs)),
    row('READ requests to the daemon', (way) => (way.readRequests === null ? '–' : String(way.readRequests))),
  ];
}

export function summaryOf(result: Result): string {
  const { clones, filesystem, kernel, files, logicalBytes, uniqueBytes, diskBytes } = result;
  return (
    `${clones} clones on ${filesystem}, Linux ${kernel}: ${files.toLocaleString('en-US')} files, ` +
    `logical ${mebibytes(logicalBytes)}, unique ${mebibytes(uniqueBytes)}, on disk ${mebibytes(diskBytes)}`
  );
}

export function tableOf(result: Result, colours: boolean): string {
  const ways = waysOf(result);
  const table = new Table({
    head: ['', ...ways.map((way) => way.name)],
    colAligns: ['left', ...ways.map(() => 'right' as const)],
    style: { head: colours ? ['bold'] : [], border: colours ? ['gray'] : [], compact: true },
  });
  for (const row of rowsOf(result)) table.push(row);
  const bold = (text: string): string => (colours ? `\u001b[1m${text}\u001b[0m` : text);
  const verdict = `The page cache of ${result.clones} clones is ${result.ratio.toFixed(1)} times smaller with sharedext.`;
  return `${summaryOf(result)}\n${table.toString()}\n${bold(verdict)}`;
}
