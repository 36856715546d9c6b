/** The section `profile`: where the time of a request goes in the server. */

import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { programPath } from '../../src/cli/package.ts';
import { makeStage, type Stage } from '../../src/demo/stage.ts';
import { median } from '../asking.ts';
import { processorTime, spent } from '../costs.ts';
import { type Daemon, difference, mountOurs } from '../daemon.ts';
import { Prober } from '../helpers.ts';
import type { LoopName } from '../loops/prober.ts';
import { putOn } from '../placement.ts';
import { barChart } from '../plot.ts';
import type { Asked, Extent, Section, SectionResult } from '../section.ts';
import { countsText, type Goal, goalsTable, table, time } from '../tables.ts';
import { type Group, groups, monotonicUs, profileOf, shares } from './samples.ts';
import { countCalls } from './systemcalls.ts';

const PLOT = 'bench-profile.svg';
const IMAGE_BYTES = 4 * 1024 ** 3;
const SMALL_BYTES = 6000;
/** How often the interpreter looks where it is, in microseconds. */
const INTERVAL_US = 100;
/** What the kernel sends for forgotten inodes, and RELEASE, are answered meanwhile. */
const LATE_MS = 50;
/** With `cache=1` the kernel asks for names that it has had for so long. */
const EXPIRY_MS = 1100;
/** What a request may cost the server. */
const GOAL_US = 10;

interface Sizes {
  readonly files: number;
  readonly rounds: number;
  /** In the short form, the first few kinds will do. */
  readonly kinds: number;
}
const sizes: Readonly<Record<Extent, Sizes>> = {
  short: { files: 200, rounds: 1, kinds: 1 },
  normal: { files: 10_000, rounds: 9, kinds: 5 },
  full: { files: 10_000, rounds: 25, kinds: 5 },
};

interface Kind {
  readonly name: string;
  readonly per: string;
  readonly loop: LoopName;
  readonly at: string;
  readonly options: string;
  /** What is done with the names that the kernel has, before each round. */
  readonly names: 'keep' | 'forget' | 'expire';
  /** Whether there is a goal for one request of it. */
  readonly goal: boolean;
}

const kinds: readonly Kind[] = [
  {
    name: 'getattr',
    per: 'statx',
    loop: 'stat-forced',
    at: 'files/file-0',
    options: 'cache=1',
    names: 'keep',
    goal: true,
  },
  { name: 'lookup', per: 'stat', loop: 'stat', at: 'files', options: 'cache=1', names: 'expire', goal: true },
  {
    name: 'open',
    per: 'open, close',
    loop: 'open-close',
    at: 'files',
    options: 'cache=unlimited',
    names: 'keep',
    goal: true,
  },
  {
    name: 'create',
    per: 'create, close',
    loop: 'create',
    at: 'made',
    options: 'cache=unlimited',
    names: 'keep',
    goal: false,
  },
  {
    name: 'readdirplus',
    per: 'entry',
    loop: 'list-long',
    at: 'files',
    options: 'cache=unlimited',
    names: 'forget',
    goal: false,
  },
];

interface Cost {
  readonly name: string;
  readonly per: string;
  readonly goal: boolean;
  /** Of one step. */
  readonly requests: Readonly<Record<string, number>>;
  readonly systemCalls: Readonly<Record<string, number>>;
  /** Microseconds per step: for the caller, and of the server's processor. */
  readonly callerUs: number;
  readonly serverUs: number;
  /** The part of the server's time in the kernel, and the parts of it by our own groups. */
  readonly system: number;
  readonly shares: Readonly<Record<Group, number>>;
}

interface Run {
  readonly daemon: Daemon;
  readonly prober: Prober;
  readonly kind: Kind;
  readonly root: string;
  readonly files: number;
}

async function prepared(prober: Prober, kind: Kind, root: string, files: number): Promise<void> {
  await prober.prepare(kind.loop, join(root, kind.at), files);
  if (kind.names === 'forget') writeFileSync('/proc/sys/vm/drop_caches', '2');
  await pause(kind.names === 'expire' ? EXPIRY_MS : LATE_MS);
}

/** One time through the loop, without its end. */
async function once({ prober, kind, root, files }: Run): Promise<{ us: number; steps: number }> {
  await prepared(prober, kind, root, files);
  return prober.go();
}

async function finished(run: Run): Promise<void> {
  await pause(LATE_MS);
  await run.prober.finish();
}

async function costOf(stage: Stage, source: string, root: string, kind: Kind, asked: Asked): Promise<Cost> {
  const { files, rounds } = sizes[asked.extent];
  const options = `settle=0,${kind.options}`;
  const prober = new Prober();
  let daemon = await mountOurs(source, root, options);
  let end = (): Promise<void> => daemon.end();
  stage.undo(() => end());
  try {
    await putOn('one', [prober.pid, daemon.pid]);
    const plain: Run = { daemon, prober, kind, root, files };
    await once(plain);
    await finished(plain);
    const callerUs: number[] = [];
    const serverUs: number[] = [];
    const system: number[] = [];
    let requests: Readonly<Record<string, number>> = {};
    for (let round = 0; round < rounds; round++) {
      asked.signal.throwIfAborted();
      const measured = await measuredOnce(plain);
      callerUs.push(measured.callerUs);
      serverUs.push(measured.serverUs);
      system.push(measured.system);
      requests = measured.requests;
    }
    let steps = 1;
    const counted = await countCalls(daemon.pid, join(stage.folder, 'calls'), async () => {
      steps = (await once(plain)).steps;
    });
    await finished(plain);
    const perStep = Object.entries(counted).map(([name, count]) => [name, count / steps] as const);
    await daemon.end();

    const folder = join(stage.folder, 'profile');
    daemon = await mountOurs(source, root, options, [
      '--cpu-prof',
      `--cpu-prof-dir=${folder}`,
      `--cpu-prof-interval=${INTERVAL_US}`,
    ]);
    end = () => daemon.end();
    await putOn('one', [prober.pid, daemon.pid]);
    const profiled: Run = { ...plain, daemon };
    await once(profiled);
    await finished(profiled);
    const from = monotonicUs();
    await once(profiled);
    const to = monotonicUs();
    await finished(profiled);
    await daemon.end();
    const parts = shares(profileOf(folder, daemon.pid), from, to);
    return {
      name: kind.name,
      per: kind.per,
      goal: kind.goal,
      requests,
      systemCalls: Object.fromEntries(perStep),
      callerUs: median(callerUs),
      serverUs: median(serverUs),
      system: kernelPart(system),
      shares: parts,
    };
  } finally {
    await prober.end();
  }
}

/** Of rounds that were long enough to be counted at all. */
function kernelPart(rounds: readonly number[]): number {
  const counted = rounds.filter((part) => !Number.isNaN(part));
  return counted.length === 0 ? 0 : median(counted);
}

async function measuredOnce(run: Run): Promise<Pick<Cost, 'callerUs' | 'serverUs' | 'system' | 'requests'>> {
  const { daemon, prober, kind, root, files } = run;
  await prepared(prober, kind, root, files);
  const requestsBefore = await daemon.requests();
  const before = processorTime(daemon.pid);
  const { us, steps } = await prober.go();
  await pause(LATE_MS);
  const server = spent(before, processorTime(daemon.pid));
  const asked = difference(requestsBefore, await daemon.requests());
  await prober.finish();
  const requests = Object.fromEntries(Object.entries(asked).map(([name, count]) => [name, count / steps]));
  return { callerUs: us / steps, serverUs: server.us / steps, system: server.system, requests };
}

async function measure(asked: Asked): Promise<readonly Cost[]> {
  const { filesystem, extent, tell } = asked;
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    const source = join(stage.source, 'source');
    const root = join(stage.folder, 'place');
    const profiles = join(stage.folder, 'profile');
    for (const folder of [source, join(source, 'files'), join(source, 'made'), root, profiles]) mkdirSync(folder);
    stage.undo(() => rmdirSync(root));
    stage.undo(() => {
      for (const name of readdirSync(profiles)) rmSync(join(profiles, name));
      rmdirSync(profiles);
    });
    const content = new Uint8Array(SMALL_BYTES).fill(1);
    for (let i = 0; i < sizes[extent].files; i++) writeFileSync(join(source, 'files', `file-${i}`), content);
    const costs: Cost[] = [];
    for (const kind of kinds.slice(0, sizes[extent].kinds)) {
      tell(kind.name);
      costs.push(await costOf(stage, source, root, kind, asked));
    }
    return costs;
  } finally {
    await putOn('spread');
    await stage.dispose();
  }
}

/** Requests that somebody waits for, or that take as long: FORGET has no answer. */
function requestsIn({ requests }: Cost): number {
  return Object.entries(requests).reduce((sum, [name, count]) => (name.endsWith('FORGET') ? sum : sum + count), 0);
}

function goalsOf(costs: readonly Cost[]): readonly Goal[] {
  return costs
    .filter(({ goal }) => goal)
    .map((cost) => {
      const us = cost.serverUs / requestsIn(cost);
      return { what: `one request of ${cost.name}`, wanted: `${GOAL_US} µs`, measured: time(us), met: us <= GOAL_US };
    });
}

const partNames = ['kernel', 'FFI and loop', ...groups.slice(2)];

/** What is in the kernel belongs to the FFI's calls and to the event loop's waiting: the rest of the two is their own. */
function partsOf(cost: Cost): readonly number[] {
  const { serverUs, system } = cost;
  const kernel = serverUs * system;
  const around = (cost.shares.calls + cost.shares.loop) * serverUs - kernel;
  return [kernel, around, ...groups.slice(2).map((group) => cost.shares[group] * serverUs)];
}

function text(costs: readonly Cost[]): string {
  const times = costs.map((cost) => [
    `${cost.name}, per ${cost.per}`,
    time(cost.callerUs),
    time(cost.serverUs),
    time(cost.serverUs / requestsIn(cost)),
    ...partsOf(cost).map(time),
  ]);
  const head = ['', 'caller', 'server', 'one request', ...partNames];
  const lines = costs.map(
    (cost) => `- **${cost.name}**, per ${cost.per}: ${countsText(cost.requests)}; ${countsText(cost.systemCalls)}`,
  );
  return `Medians of rounds, with caller and server on one processor. "Server" is the processor time of all threads of the server
(proc_pid_schedstat), "one request" the same divided by the requests of a step but FORGET, "kernel" the part of it in system calls
(proc_pid_stat). The rest is divided by the interpreter's own profile, every ${INTERVAL_US} µs, of a mount that was made for it: the FFI and
the event loop; session (reading requests, checking them, writing answers, and the structures); tables (nodes, open files, mappings, the
journal); filesystem (the handlers); sharing (which extents are whose); collector (of garbage).

${table([head, ...times])}

![Where the time goes](${PLOT})

Requests and system calls of the server, of one step. Counting slows the server, so that the next request waits when one is
answered: otherwise each may take one epoll_pwait more, and one read that finds nothing.

${lines.join('\n')}

${goalsTable(goalsOf(costs))}`;
}

function plot(costs: readonly Cost[]): string {
  return barChart({
    title: 'Where the time of a request goes',
    subtitle: "Microseconds of the server's processor, for one step",
    foot: 'Caller and server on one processor. Medians; divided by proc_pid_stat and a sampling profile.',
    parts: partNames,
    tick: (value) => `${value} µs`,
    bars: costs.map((cost) => ({
      name: `${cost.name}, per ${cost.per}`,
      values: partsOf(cost).map((part) => Math.max(part, 0)),
      label: time(cost.serverUs),
    })),
  });
}

async function run(asked: Asked): Promise<SectionResult> {
  const costs = await measure(asked);
  return { text: text(costs), plots: [{ file: PLOT, svg: plot(costs) }], numbers: { costs, goals: goalsOf(costs) } };
}

export const profileSection: Section = { name: 'profile', title: 'Where the time of a request goes', run };
