/** Tables of Markdown that are readable as they are, and the numbers in them. */

import { type Answers, median, ratio } from './asking.ts';
import { type Place, placeTitles } from './places.ts';

export function time(us: number): string {
  if (!Number.isFinite(us)) return '–';
  const size = Math.abs(us);
  if (size < 1000) return `${us.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0)} µs`;
  return size < 1_000_000 ? `${(us / 1000).toFixed(size < 100_000 ? 1 : 0)} ms` : `${(us / 1_000_000).toFixed(2)} s`;
}

export function times(value: number): string {
  if (!Number.isFinite(value)) return '–';
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export function bytes(count: number): string {
  if (!Number.isFinite(count)) return '–';
  if (count < 10_000) return `${count.toFixed(0)} B`;
  const mib = count / 1024 ** 2;
  if (mib < 1) return `${(count / 1024).toFixed(1)} KiB`;
  return mib < 1024 ? `${mib.toFixed(1)} MiB` : `${(mib / 1024).toFixed(1)} GiB`;
}

export function whole(count: number): string {
  return count.toLocaleString('en-US');
}

/** Columns are padded, so that the text is a table in a terminal, too. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0), 3));
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
  const line = (row: readonly string[]): string => `| ${row.map(pad).join(' | ')} |`;
  const rule = widths.map((width, column) => (column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`));
  const [head = [], ...body] = rows;
  return [line(head), `|${rule.join('|')}|`, ...body.map(line)].join('\n');
}

export interface Row {
  readonly name: string;
  readonly per: string;
  readonly answers: Answers;
}

/** What a step takes on the bare filesystem, and how many times as long it takes elsewhere. */
export function ratiosTable(rows: readonly Row[], places: readonly Place[]): string {
  const others = places.filter(({ name }) => name !== 'bare');
  const body = rows.map(({ name, per, answers }) => [
    name,
    `${time(median(answers.get('bare') ?? []))} / ${per}`,
    ...others.map((place) => times(ratio(answers, place.name))),
  ]);
  return table([['', 'bare', ...others.map(({ name }) => placeTitles[name])], ...body]);
}

/** The same numbers for programs. */
export function rowNumbers(rows: readonly Row[]): unknown {
  return rows.map(({ name, per, answers }) => ({
    name,
    per,
    us: Object.fromEntries([...answers].map(([place, values]) => [place, median(values)])),
    ratio: Object.fromEntries([...answers.keys()].map((place) => [place, ratio(answers, place)])),
    rounds: answers.get('bare')?.length ?? 0,
  }));
}

/** Something that is wanted of the numbers, and whether it is so. */
export interface Goal {
  readonly what: string;
  readonly wanted: string;
  readonly measured: string;
  readonly met: boolean;
}

export function goalsTable(goals: readonly Goal[]): string {
  const body = goals.map(({ what, wanted, measured, met }) => [what, wanted, measured, met ? 'yes' : '**no**']);
  return table([['goal', 'wanted', 'measured', 'met'], ...body]);
}

/** A sentence for each place that is missing. */
export function absentText(absent: readonly { readonly name: string; readonly why: string }[]): string {
  return absent.map(({ name, why }) => `Left out: ${name} (${why}).\n`).join('');
}

/** Less often than in two hundred steps is once for all of them, or somebody else's. */
const LEAST = 0.005;

/** `1 LOOKUP + 1 CREATE + 0.02 GETATTR`, those that are asked most first. */
export function countsText(counts: Readonly<Record<string, number>>): string {
  const terms = Object.entries(counts)
    .filter(([, count]) => count >= LEAST)
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${Number(count.toFixed(2))} ${kind}`);
  return terms.length === 0 ? 'none' : terms.join(' + ');
}
