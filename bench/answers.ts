/** Asking: runs the probes and commands at a place, and takes the medians. */

import { join } from 'node:path';
import { run } from '../src/demo/commands.ts';
import { cpuTime, type Open } from './places.ts';
import type { Question, Sizes } from './questions.ts';

export interface Answer {
  /** The median of the rounds: microseconds per step. */
  readonly us: number;
  /** What a request cost the server's processor, and how many a step took; where the server is ours. */
  readonly server?: {
    readonly userUs: number;
    readonly systemUs: number;
    readonly requestsPerStep: number;
    readonly requests: number;
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? high) + high) / 2;
}

interface Rounds {
  readonly times: readonly number[];
  readonly steps: number;
}

function isRounds(value: unknown): value is Rounds {
  return (
    typeof value === 'object' && value !== null && 'times' in value && Array.isArray(value.times) && 'steps' in value
  );
}

const PROBE = join(import.meta.dirname, 'probe.js');
const BLOCKS = join(import.meta.dirname, 'blocks.js');

export async function probe(
  question: string,
  path: string,
  count: number,
  rounds: number,
  signal: AbortSignal,
): Promise<Rounds> {
  return roundsOf(await run(process.execPath, [PROBE, question, path, String(count), String(rounds)], signal));
}

function roundsOf(text: string): Rounds {
  const said: unknown = JSON.parse(text);
  if (!isRounds(said)) throw new Error(`a probe said ${text}`);
  return said;
}

async function timeCommand(question: Question, open: Open, rounds: number, signal: AbortSignal): Promise<Rounds> {
  const times: number[] = [];
  const line = question.command?.(join(open.root, question.at), join(open.root, 'copied'));
  if (line === undefined) throw new Error(`${question.name} has nothing to run`);
  // One round more warms the caches.
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    await run(line[0], line[1], signal);
    if (round > 0) times.push((performance.now() - start) * 1000);
  }
  return { times, steps: rounds };
}

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, value) => sum + value, 0);
}

async function time(
  question: Question,
  open: Open,
  source: string,
  rounds: number,
  signal: AbortSignal,
): Promise<Rounds> {
  const path = join(open.root, question.at);
  if (question.blocks !== undefined) {
    const words = [BLOCKS, question.blocks, path, String(question.count), String(rounds), source];
    return roundsOf(await run(process.execPath, words, signal));
  }
  if (question.probe === undefined) return timeCommand(question, open, rounds, signal);
  return probe(question.probe, path, question.count, rounds, signal);
}

export async function ask(
  question: Question,
  open: Open,
  source: string,
  sizes: Sizes,
  signal: AbortSignal,
): Promise<Answer> {
  const cpuBefore = open.pid === undefined ? undefined : cpuTime(open.pid);
  const requestsBefore = total(await open.requests());
  const rounds = question.rounds === 'first' ? 1 : sizes.rounds;
  const { times, steps } = await time(question, open, source, rounds, signal);
  const us = median(times);
  if (open.pid === undefined || cpuBefore === undefined) return { us };
  const requests = total(await open.requests()) - requestsBefore;
  const cpu = cpuTime(open.pid);
  return {
    us,
    server: {
      userUs: (cpu.userUs - cpuBefore.userUs) / Math.max(requests, 1),
      systemUs: (cpu.systemUs - cpuBefore.systemUs) / Math.max(requests, 1),
      requestsPerStep: requests / steps,
      requests,
    },
  };
}

/** Lets the server compile what it will run, so that no row pays for that. */
export async function warmUp(open: Open, sizes: Sizes, signal: AbortSignal): Promise<void> {
  const warm = [
    ['lookup', 'small'],
    ['open', 'small'],
    ['create', 'empty'],
    ['list', 'small'],
    ['getattr', 'own'],
  ] as const;
  for (const [question, at] of warm) await probe(question, join(open.root, at), sizes.smallFiles, 1, signal);
}
