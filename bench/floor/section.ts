/** The section `floor`: what a request takes at the least, with a server that does nothing, and with one that only calls. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { programPath } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import { makeStage, type Stage } from '../../src/demo/stage.ts';
import { median } from '../asking.ts';
import { mountOurs } from '../daemon.ts';
import { Prober } from '../helpers.ts';
import type { LoopName } from '../loops/prober.ts';
import { type Placement, putOn } from '../placement.ts';
import { barChart } from '../plot.ts';
import type { Asked, Extent, Section, SectionResult } from '../section.ts';
import { table, time } from '../tables.ts';
import { FILE, mountpointOf, startConstant } from './empty.ts';

const PLOT = 'bench-floor.svg';
const IMAGE_BYTES = 2 * 1024 ** 3;
/** More than btrfs keeps inline. */
const FILE_BYTES = 6000;

interface Sizes {
  readonly count: number;
  readonly rounds: number;
  /** The kernel asks again for names of sharedext that it has had for a second; the other two let it keep none. */
  readonly expiryMs: number;
}
const sizes: Readonly<Record<Extent, Sizes>> = {
  short: { count: 100, rounds: 1, expiryMs: 0 },
  normal: { count: 2000, rounds: 9, expiryMs: 1100 },
  full: { count: 10_000, rounds: 25, expiryMs: 1100 },
};

const kinds = ['bare', 'empty', 'calls', 'sharedext'] as const;
type Kind = (typeof kinds)[number];

/** Each loop makes these requests, and no others, at each step. */
const operations = [
  { name: 'LOOKUP', loop: 'stat', at: 'files' },
  { name: 'GETATTR', loop: 'stat-forced', at: FILE },
  { name: 'OPEN and RELEASE', loop: 'open-one', at: FILE },
] as const satisfies readonly { name: string; loop: LoopName; at: string }[];

interface Line {
  readonly name: string;
  readonly placement: Placement;
  /** Microseconds per step, medians. */
  readonly us: Readonly<Record<Kind, number>>;
}

interface Target {
  readonly kind: Kind;
  readonly root: string;
  readonly pid: number | undefined;
}

async function openTargets(stage: Stage, source: string): Promise<readonly Target[]> {
  const targets: Target[] = [{ kind: 'bare', root: source, pid: undefined }];
  for (const kind of ['empty', 'calls'] as const) targets.push({ kind, ...(await startConstant(stage, kind, source)) });
  const root = mountpointOf(stage, 'sharedext');
  const daemon = await mountOurs(source, root, 'settle=0,cache=1');
  stage.undo(() => daemon.end());
  targets.push({ kind: 'sharedext', root, pid: daemon.pid });
  return targets;
}

async function measure({ filesystem, extent, signal, tell }: Asked): Promise<readonly Line[]> {
  const { count, rounds, expiryMs } = sizes[extent];
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    const source = join(stage.source, 'files');
    mkdirSync(source);
    for (let i = 0; i < count; i++) writeFileSync(join(source, `file-${i}`), '');
    writeFileSync(join(source, FILE), new Uint8Array(FILE_BYTES).fill(1));
    await run('sync', ['-f', source]);
    const targets = await openTargets(stage, source);
    const prober = new Prober();
    stage.undo(() => prober.end());
    const pids = [prober.pid, ...targets.flatMap(({ pid }) => pid ?? [])];
    const lines: Line[] = [];
    for (const placement of ['one', 'spread'] as const) {
      await putOn(placement, pids);
      for (const { name, loop, at } of operations) {
        const found: Record<Kind, number[]> = { bare: [], empty: [], calls: [], sharedext: [] };
        // The first round warms, and isn't counted.
        for (let round = 0; round <= rounds; round++) {
          for (let turn = 0; turn < targets.length; turn++) {
            signal.throwIfAborted();
            const target = targets[(round + turn) % targets.length];
            if (target === undefined) continue;
            tell(`${name}, ${target.kind}, ${placement}`);
            if (target.kind === 'sharedext' && name === 'LOOKUP') await pause(expiryMs);
            const { us, steps } = await prober.time(loop, at === FILE ? join(target.root, at) : target.root, count);
            if (round > 0) found[target.kind].push(us / steps);
          }
        }
        const us = { bare: 0, empty: 0, calls: 0, sharedext: 0 };
        for (const kind of kinds) us[kind] = median(found[kind]);
        lines.push({ name, placement, us });
      }
    }
    return lines;
  } finally {
    await putOn('spread');
    await stage.dispose();
  }
}

function text(lines: readonly Line[]): string {
  const body = lines.map(({ name, placement, us }) => [
    `${name}, ${placement === 'one' ? 'one processor' : 'all processors'}`,
    ...kinds.map((kind) => time(us[kind])),
    time(us.calls - us.empty),
    time(us.sharedext - us.calls),
  ]);
  const head = ['', 'bare', 'empty server', 'with the calls', 'sharedext', 'of it the calls', 'of it our own'];
  return `**Empty server**: the same loop and session as sharedext's, with answers that are constants. What it takes is the kernel's round trip: to
wake the server, which reads /dev/fuse and writes its answer, and to wake the caller. **With the calls**: it makes also the system calls on
the source that an answer needs (name_to_handle_at and statx for LOOKUP; open_by_handle_at, statx and close for GETATTR;
open_by_handle_at, close and the registration of the backing file, and later its end, for OPEN and RELEASE). What sharedext takes
beyond that is its own: finding nodes, tables, the journal, the choice of a route. Differences of a microsecond or two are those of the
run. One file is opened again and again here, whose registration sharedext keeps for a second: it makes none of those calls then, and
can take less than a server that makes them. No server on this loop answers faster than the empty one.

${table([head, ...body])}

![The least that a request takes](${PLOT})`;
}

function plot(lines: readonly Line[]): string {
  const bars = lines.map(({ name, placement, us }) => {
    // All parts together are what sharedext takes, also where another server took longer.
    const trip = Math.min(us.empty, us.sharedext);
    const calls = Math.min(Math.max(us.calls - trip, 0), us.sharedext - trip);
    const values = [trip, calls, us.sharedext - trip - calls];
    return { name: `${name}, ${placement === 'one' ? 'one' : 'all'}`, values, label: time(us.sharedext) };
  });
  return barChart({
    title: 'The least that a request takes',
    subtitle: 'Microseconds that a caller waits, with callers and servers on one processor or on all',
    foot: 'Medians. The first part is that of a server whose answers are constants.',
    parts: ['round trip', 'system calls on the source', 'sharedext itself'],
    tick: (value) => `${value} µs`,
    bars,
  });
}

async function answer(asked: Asked): Promise<SectionResult> {
  const lines = await measure(asked);
  return { text: text(lines), plots: [{ file: PLOT, svg: plot(lines) }], numbers: lines };
}

export const floorSection: Section = { name: 'floor', title: 'The least that a request takes', run: answer };
