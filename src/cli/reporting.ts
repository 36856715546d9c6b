/** Walks, shows how far it is, and prints what a report says. */

import { realpathSync } from 'node:fs';
import { UserError } from '../base/errno.ts';
import { RANGE_READER_MEMORY_BYTES, RangeReader } from '../extents/ranges.ts';
import { Residency } from '../pagecache/residency.ts';
import { REPORTER_SCRATCH_BYTES, Reporter } from '../report/reporter.ts';
import { type ReportResult, resultOf } from '../report/result.ts';
import { WALK_MEMORY_BYTES, Walker } from '../report/walk.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { paint } from './colour.ts';
import { version } from './package.ts';
import type { ReportFlags } from './report.ts';
import { bytes } from './units.ts';

const PAGE_BYTES = 4096;
const RESIDENCY_BYTES = 1 << 17;
const SLICE_MS = 40;
const PROGRESS_MS = 200;

export async function report(given: readonly string[], flags: ReportFlags): Promise<void> {
  const roots = given.map(existing);
  const names = allocate('names', WALK_MEMORY_BYTES);
  const reporter = new Reporter({
    calls: sys,
    residency: new Residency(sys, allocate('residency', RESIDENCY_BYTES)),
    ranges: new RangeReader({ ioctl: sys.ioctl }, allocate('extents', RANGE_READER_MEMORY_BYTES)),
    names,
    scratch: allocate('a file', REPORTER_SCRATCH_BYTES),
    pageBytes: PAGE_BYTES,
  });
  const walker = new Walker(sys, names, reporter, flags.oneFileSystem === true);
  for (const root of roots.toReversed()) walker.add(root);
  const complete = await walkAll(walker, reporter);
  if (reporter.tooOld) throw new UserError('Cannot report: this kernel has no cachestat(2), which came with Linux 6.5');
  const result = resultOf(reporter, walker.counts, {
    roots,
    complete,
    version,
    top: flags.top,
    groupBy: flags.groupBy,
  });
  console.log(flags.json === true ? JSON.stringify(result, null, 2) : text(result));
  const { denied, failed } = result.notes;
  if (denied + failed > 0) process.exitCode = 1;
  if (!complete) process.exitCode = 130;
}

function existing(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`Cannot report on ${path}: ${code === 'ENOENT' ? 'it does not exist' : code}`);
  }
}

/** Walks to the end, or until Ctrl-C: false then. */
async function walkAll(walker: Walker, reporter: Reporter): Promise<boolean> {
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  process.once('SIGINT', stop);
  const shows = process.stderr.isTTY === true;
  const started = performance.now();
  let shown = started;
  let more = true;
  while (more && !stopped) {
    const until = performance.now() + SLICE_MS;
    while (more && performance.now() < until) more = walker.step();
    const now = performance.now();
    if (shows && now - shown > PROGRESS_MS) {
      shown = now;
      const rate = Math.round((reporter.files.seen * 1000) / (now - started));
      const done = `${reporter.files.seen} files, ${rate} a second, ${bytes(reporter.bytes.cached)} in memory`;
      process.stderr.write(`\r\u001b[K${done}; ${walker.waiting} folders wait`);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (shows) process.stderr.write('\r\u001b[K');
  process.off('SIGINT', stop);
  return !more;
}

/** The names of the notes, where there is something to say. */
const NOTES: Readonly<Record<keyof ReportResult['notes'], string>> = {
  links: 'further names of files that were counted once',
  outOfReach: 'files whose pages the kernel tells only their owner, their writers or root',
  denied: 'files and folders that may not be read',
  failed: 'files and folders that could not be read',
  vanished: 'names that went away meanwhile',
  changed: 'files that changed while they were looked at; their pages count, but as copies of nothing',
  unidentified: 'files with pages whose extents are not known: they may be copies, too',
  special: 'links, fifos, sockets and devices, which have no pages here',
  skipped: 'filesystems that were left out',
};

function text(result: ReportResult): string {
  const { bytes: sums, files } = result;
  const share = sums.cached === 0 ? 0 : (100 * sums.duplicate) / sums.cached;
  const rows: [string, string][] = [
    ['in memory', `${bytes(sums.cached)} of ${files.cached} files (${files.seen} looked at)`],
    ['different', bytes(sums.distinct)],
    ['more than once', `${bytes(sums.duplicate)} (${share.toFixed(1)}%), in ${files.duplicate} files`],
    ['dirty, being written', `${bytes(sums.dirty)}, ${bytes(sums.writeback)}`],
  ];
  if (sums.unidentified > 0) rows.push(['not identified', bytes(sums.unidentified)]);
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `${paint('dim', name.padEnd(width))}  ${value}`);
  if (!result.complete) lines.unshift(paint('yellow', 'Stopped before the end: this is what was seen until then.'));
  if (result.groups.length > 0) lines.push('', paint('bold', 'Held more than once, the worst first'));
  for (const group of result.groups) {
    const [first = '', ...others] = group.paths;
    lines.push(`${bytes(group.duplicateBytes).padStart(10)}  ${first}`);
    if (group.copies > 1) {
      const named = others.slice(0, 2).map((path) => `            ${path}`);
      const more = group.copies - 1 - named.length;
      lines.push(...named, ...(more > 0 ? [paint('dim', `            and ${more} more`)] : []));
    }
  }
  const notes: string[] = [];
  for (const [name, what] of Object.entries(NOTES)) {
    const count = Object.entries(result.notes).find(([key]) => key === name)?.[1] ?? 0;
    if (count > 0) notes.push(paint('dim', `${count} ${what}`));
  }
  if (notes.length > 0) lines.push('', ...notes);
  return lines.join('\n');
}
