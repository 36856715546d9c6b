/** The result as Markdown that is readable as it is: the file docs/benchmarks.md. */

import type { Answer } from './answers.ts';
import type { MemoryAnswer } from './memory.ts';
import type { Part } from './parts.ts';
import { type Place, places } from './places.ts';
import type { Metered, SnapshotsAnswer } from './snapshots.ts';

export interface Row {
  readonly name: string;
  readonly answers: { readonly [K in Place]?: Answer };
}

export interface Report {
  readonly date: string;
  readonly kernel: string;
  readonly processor: string;
  readonly node: string;
  readonly version: string;
  readonly bindfs: string;
  readonly filesystem: string;
  /** Where callers and servers ran. */
  readonly placement: string;
  readonly rounds: number;
  readonly rows: readonly Row[];
  readonly memory: MemoryAnswer;
  readonly parts: readonly Part[];
  readonly snapshots: readonly SnapshotsAnswer[];
}

/** Fewer cost less than a few steps of the clock. */
const FEWEST_REQUESTS = 1000;

function time(us: number): string {
  if (us < 1000) return `${us.toFixed(us < 100 ? 2 : 0)} µs`;
  return us < 1_000_000 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1_000_000).toFixed(2)} s`;
}

/** Columns are padded, so that the text is a table in a terminal, too. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  const [head = [], ...body] = rows;
  return [line(head), rule, ...body.map(line)].join('\n');
}

function timesTable(report: Report): string {
  const used = places.filter((place) => report.rows.some(({ answers }) => answers[place] !== undefined));
  const body = report.rows.map(({ name, answers }) => {
    const bare = answers.bare?.us ?? Number.NaN;
    return [
      name,
      ...used.map((place) => {
        const answer = answers[place];
        if (answer === undefined) return '–';
        return place === 'bare' ? time(answer.us) : `${time(answer.us)} (${(answer.us / bare).toFixed(2)})`;
      }),
    ];
  });
  return table([['', ...used], ...body]);
}

function costTable(report: Report): string {
  const body: string[][] = [];
  for (const { name, answers } of report.rows) {
    const server = answers.sharedext?.server;
    if (server === undefined) continue;
    const { userUs, systemUs, requestsPerStep, requests } = server;
    // Passthrough leaves too few requests for a number.
    if (requests < FEWEST_REQUESTS) continue;
    const cells = [userUs + systemUs, userUs, systemUs].map((us) => `${us.toFixed(1)} µs`);
    body.push([name, requestsPerStep < 100 ? requestsPerStep.toFixed(2) : requestsPerStep.toFixed(0), ...cells]);
  }
  return table([['', 'requests per step', 'cost of one', 'JavaScript and FFI', 'system calls'], ...body]);
}

function partsTable(report: Report): string {
  const body = report.parts.map(({ bytes, findUs, preadUs, writeUs, spliceUs }) => [
    `${bytes / 1024} KiB`,
    ...[findUs, preadUs, writeUs, spliceUs].map((us) => `${us.toFixed(2)} µs`),
  ]);
  return table([
    ['', 'find the piece', 'read it (preadv2)', 'copy it out (write)', 'splice in and out instead'],
    ...body,
  ]);
}

function snapshotsTable(report: Report): string {
  const cells = (metered: Metered | undefined): string[] =>
    metered === undefined
      ? ['–', '–']
      : [time(metered.seconds * 1_000_000), `${(metered.peakBytes / 1024 ** 2).toFixed(0)} MiB`];
  const body = report.snapshots.map(({ files, inMemory, report: ours, vmtouch }) => {
    const ratio = vmtouch === undefined ? '–' : (ours.seconds / vmtouch.seconds).toFixed(2);
    return [`10 × ${files.toLocaleString('en-US')} files, ${inMemory}`, ...cells(ours), ...cells(vmtouch), ratio];
  });
  return table([['in memory', 'report', 'peak', 'vmtouch', 'peak', 'ratio of times'], ...body]);
}

export function reportText(report: Report): string {
  const { memory } = report;
  const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
  return `# Benchmarks

Written by \`npm run bench\` on ${report.date}: sharedext ${report.version}, Linux ${report.kernel}, ${report.filesystem}, Node ${report.node},
${report.bindfs}, ${report.processor}.

Medians of ${report.rounds} rounds; in parentheses the ratio to the bare filesystem in the same run. Callers
and servers ran ${report.placement}. The loops call the C library from another process than the server; nothing is
subtracted. \`sharedext\` shares and \`nosharedext\` is the same mount without sharing. For "uncached" rows the kernel's
inodes and names were dropped before each round (not its pages). In the row "clone, first" only the bare filesystem reads
from the disk: the other places come after it. "Diverged" rows are about a clone of which 2% of the blocks were changed; for
the cold ones its own pages were dropped after another clone had been read at the same place.

${timesTable(report)}

## What a request costs the server

Processor time of the server per request, on the sharedext mount, by proc_pid_stat(5), which counts in steps of 10 ms:
user time is JavaScript and the FFI, system time is reading and answering /dev/fuse and the calls on the source.

${costTable(report)}

## What a read on the composed route is made of

Each row takes one piece of resident pages, in a process that does nothing else: finding it in a map of 100,000 extents,
copying it into the server's memory, and copying it on, as the answer on /dev/fuse does. The last column moves
the pages through a pipe without copying them into the server (splice, in and out): what it is below the sum of the two
before it is what zero-copy could save at most.

${partsTable(report)}

## Reports

\`sharedext report\` on a tree and nine snapshots of it, beside vmtouch, which counts the pages of files and doesn't know which
are copies. Whole processes, with their start; the folders were in memory. Right after all files were read ("everything";
what the kernel reclaims meanwhile isn't counted) each file's extents must be looked at as well. A peak of 14 MiB is that of the
meter itself: what is measured had that or less.

${snapshotsTable(report)}

## Memory

Walking ${memory.nodes.toLocaleString('en-US')} nodes took ${time(memory.walkUsPerNode)} each. The server had ${mib(memory.baseBytes)} before (VmRSS) and ${mib(memory.afterBytes)}
after: ${memory.bytesPerNode.toFixed(0)} bytes per node, 72 of them its row of the node table and 4 its hash bucket.
`;
}
