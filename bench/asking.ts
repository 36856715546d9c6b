/**
 * Questions, and asking them at all places in turn: place by place, round by round, and each round begins at another place. So
 * whatever changes about the machine meanwhile changes all of them, and a ratio is taken within a round.
 */

import type { Crowd, Prober } from './helpers.ts';
import type { LoopName, Timed } from './loops/prober.ts';
import type { Place, PlaceName } from './places.ts';

export interface Tools {
  readonly prober: Prober;
  readonly crowd: Crowd;
  /** Whether questions may be asked once before they are timed. It takes as long again. */
  readonly warmUp: boolean;
  readonly signal: AbortSignal;
}

export interface Question {
  readonly name: string;
  /** What one step is. */
  readonly per: string;
  /** What isn't timed: before and after each time. */
  prepare?(place: Place, tools: Tools): Promise<void>;
  time(place: Place, tools: Tools): Promise<Timed>;
  finish?(place: Place, tools: Tools): Promise<void>;
  /** Whether it is asked once more before the first round, so that everything is in memory. */
  readonly warm: boolean;
  /** How many rounds, where that isn't what it is for all. */
  readonly rounds?: number;
  /** Whether it reads a whole file, and is timed when that is in memory. */
  readonly readsAll?: boolean;
}

/** Microseconds per step, round by round; the places in the order in which they were opened. */
export type Answers = ReadonlyMap<PlaceName, readonly number[]>;

export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * part;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The median of a place's rounds, each divided by another place's of the same round. */
export function ratio(answers: Answers, place: PlaceName, to: PlaceName = 'bare'): number {
  const others = answers.get(to) ?? [];
  const ratios = (answers.get(place) ?? []).map((us, round) => us / (others[round] ?? Number.NaN));
  return median(ratios);
}

/** Asks once; microseconds per step. */
export async function askOnce(question: Question, place: Place, tools: Tools): Promise<number> {
  tools.signal.throwIfAborted();
  await question.prepare?.(place, tools);
  const { us, steps } = await question.time(place, tools);
  await question.finish?.(place, tools);
  return us / steps;
}

export async function askInTurns(
  question: Question,
  places: readonly Place[],
  rounds: number,
  tools: Tools,
): Promise<Answers> {
  const answers = new Map<PlaceName, number[]>(places.map(({ name }) => [name, []]));
  if (question.warm && tools.warmUp) for (const place of places) await askOnce(question, place, tools);
  for (let round = 0; round < (question.rounds ?? rounds); round++) {
    for (let turn = 0; turn < places.length; turn++) {
      const place = places[(round + turn) % places.length];
      if (place !== undefined) answers.get(place.name)?.push(await askOnce(question, place, tools));
    }
  }
  return answers;
}

export interface LoopQuestion {
  readonly name: string;
  readonly per: string;
  readonly loop: LoopName;
  /** Below the place's root. */
  at(place: Place): string;
  readonly count: number;
  readonly warm?: boolean;
  readonly rounds?: number;
  /** Between the loop's own preparation and the clock: what is dropped from memory, say. */
  before?(place: Place, tools: Tools): Promise<void>;
}

/** A question that a loop of the prober answers. */
export function loopQuestion({ name, per, loop, at, count, warm = true, rounds, before }: LoopQuestion): Question {
  return {
    name,
    per,
    warm,
    readsAll: warm && loop === 'read-order',
    ...(rounds !== undefined && { rounds }),
    async prepare(place, tools) {
      await tools.prober.prepare(loop, `${place.root}/${at(place)}`, count);
      await before?.(place, tools);
    },
    time: (_, { prober }) => prober.go(),
    finish: (_, { prober }) => prober.finish(),
  };
}
