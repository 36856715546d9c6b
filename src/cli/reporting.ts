/** Walks, shows how far it is, and gives out what a report says. */

import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { UserError } from '../base/errno.ts';
import { sharedextMountAt } from '../daemon/mounted.ts';
import { RANGE_READER_MEMORY_BYTES, RangeReader } from '../extents/ranges.ts';
import { Residency } from '../pagecache/residency.ts';
import { REPORTER_SCRATCH_BYTES } from '../report/addresses.ts';
import { Reporter } from '../report/reporter.ts';
import { type ReportResult, resultOf } from '../report/result.ts';
import { openedPath } from '../report/views.ts';
import { WALK_MEMORY_BYTES, Walker } from '../report/walk.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { version } from './package.ts';
import { Progress } from './progress.ts';
import type { ReportFlags } from './report.ts';
import { reportLines } from './reporttext.ts';
import { behindMounts } from './reportviews.ts';
import { bytes } from './units.ts';

const PAGE_BYTES = 4096;
const RESIDENCY_BYTES = 1 << 17;
/** How long is walked between two looks at signals. */
const SLICE_MS = 40;
const WATCH_SECONDS = 2;
const INTERRUPTED = 130;

export async function report(given: readonly string[], flags: ReportFlags): Promise<void> {
  const roots = given.map(existing);
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  process.once('SIGINT', abort);
  const rounds = new Rounds(roots, flags, stop.signal);
  if (flags.watch === undefined) await once(rounds, flags);
  else await watch(rounds, flags, stop.signal);
  process.off('SIGINT', abort);
}

async function once(rounds: Rounds, flags: ReportFlags): Promise<void> {
  const result = await rounds.next();
  if (flags.html !== undefined) {
    const { writePage } = await import('./reportpage.ts');
    writePage(flags.html, result);
  }
  console.log(flags.json === true ? JSON.stringify(result, null, 2) : reportLines(result).join('\n'));
  const { denied, failed } = result.notes;
  const missed = result.mounts.some(({ type, unreachable }) => type === 'sharedext' && unreachable !== null);
  if (denied + failed > 0 || missed) process.exitCode = 1;
  if (!result.complete) process.exitCode = INTERRUPTED;
}

/** One report after the other, until Ctrl-C: in place on a terminal, as a line of JSON each with `--json`. */
async function watch(rounds: Rounds, flags: ReportFlags, signal: AbortSignal): Promise<void> {
  const waitMs = (flags.watch === true || flags.watch === undefined ? WATCH_SECONDS : flags.watch) * 1000;
  const inPlace = process.stdout.isTTY === true && flags.json !== true;
  let before: ReportResult | undefined;
  if (inPlace) process.stdout.write('\u001b[2J');
  while (!signal.aborted) {
    const result = await rounds.next();
    if (!result.complete && before !== undefined) break;
    if (flags.json === true) console.log(JSON.stringify(result));
    else
      show(
        [`${new Date().toTimeString().slice(0, 8)}  ${result.roots.join(' ')}`, ...reportLines(result, before)],
        inPlace,
      );
    before = result;
    await pause(waitMs, signal);
  }
}

function show(lines: readonly string[], inPlace: boolean): void {
  if (!inPlace) {
    console.log(`${lines.join('\n')}\n`);
    return;
  }
  const fitting = lines.slice(0, Math.max(1, (process.stdout.rows ?? lines.length + 1) - 1));
  // Without wrapping meanwhile: a line that is too long would push the others down.
  process.stdout.write(`\u001b[?7l\u001b[H${fitting.map((line) => `${line}\u001b[K\n`).join('')}\u001b[J\u001b[?7h`);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (signal.aborted) done();
    else signal.addEventListener('abort', done);
  });
}

/** A mount of ours is taken as it is: resolving its path asks its daemon, which may be gone or silent. */
function existing(path: string): string {
  const absolute = resolve(path);
  if (sharedextMountAt(absolute) !== undefined) return absolute;
  try {
    return realpathSync(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`Cannot report on ${path}: ${code === 'ENOENT' ? 'it does not exist' : code}`);
  }
}

/** Makes reports of the same paths. Memory with an address is never given back, so they use the same. */
class Rounds {
  readonly #roots: readonly string[];
  readonly #flags: ReportFlags;
  readonly #signal: AbortSignal;
  readonly #names = allocate('names', WALK_MEMORY_BYTES);
  readonly #scratch = allocate('a file', REPORTER_SCRATCH_BYTES);
  readonly #residency = new Residency(sys, allocate('residency', RESIDENCY_BYTES));
  readonly #ranges = new RangeReader({ ioctl: sys.ioctl }, allocate('extents', RANGE_READER_MEMORY_BYTES));
  #rounds = 0;

  constructor(roots: readonly string[], flags: ReportFlags, signal: AbortSignal) {
    this.#roots = roots;
    this.#flags = flags;
    this.#signal = signal;
  }

  /** Walks to the end, or until the signal. */
  async next(): Promise<ReportResult> {
    const { disk, oneFileSystem, top, groupBy, html } = this.#flags;
    const { views, held } = await behindMounts(this.#roots);
    const reporter = new Reporter({
      calls: sys,
      residency: this.#residency,
      ranges: this.#ranges,
      names: this.#names,
      scratch: this.#scratch,
      pageBytes: PAGE_BYTES,
      disk: disk === true,
    });
    for (const [view, one] of held) for (const store of view.beside) reporter.addHeld(openedPath(view, store), one);
    const walker = new Walker({
      calls: sys,
      memory: this.#names,
      visitor: reporter,
      views,
      oneFilesystem: oneFileSystem === true,
    });
    walker.add(this.#roots);
    const progress = new Progress(this.#rounds++ === 0 && process.stderr.isTTY === true);
    const complete = await this.#walk(walker, reporter, progress);
    progress.end();
    if (reporter.tooOld) {
      throw new UserError('Cannot report: this kernel has no cachestat(2), which came with Linux 6.5');
    }
    return resultOf(reporter, walker.counts, {
      roots: this.#roots,
      complete,
      version,
      top,
      groupBy,
      disk: disk === true,
      tree: html !== undefined,
      met: [...walker.met]
        .sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1))
        .map((view) => ({ view, held: held.get(view) })),
      seconds: Math.round(progress.elapsedMs) / 1000,
    });
  }

  async #walk(walker: Walker, reporter: Reporter, progress: Progress): Promise<boolean> {
    let more = true;
    while (more && !this.#signal.aborted) {
      const until = performance.now() + SLICE_MS;
      while (more && performance.now() < until) more = walker.step();
      const { files, bytes: sums } = reporter;
      progress.show(walker.done, (elapsedMs) => {
        const rate = Math.round((files.seen * 1000) / elapsedMs);
        return `${files.seen} files, ${rate} a second, ${bytes(sums.cached)} in memory`;
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
    return !more;
  }
}
