/** How many requests of which kind an operation takes, by the counters of the mount. */

import { setTimeout as pause } from 'node:timers/promises';
import { askOnce, type Question, type Tools } from '../asking.ts';
import { type Counts, difference } from '../daemon.ts';
import type { Place } from '../places.ts';

/** RELEASE and FORGET are sent without anybody waiting for them. */
const LATE_MS = 30;

/** The requests of one step, by kind. */
export async function requestsOf(question: Question, place: Place, tools: Tools): Promise<Counts> {
  const { requests } = place;
  if (requests === undefined) return {};
  let before: Counts = {};
  let counted: Counts = {};
  const counting: Question = {
    ...question,
    async time() {
      await pause(LATE_MS);
      before = await requests();
      const timed = await question.time(place, tools);
      await pause(LATE_MS);
      const all = difference(before, await requests());
      counted = Object.fromEntries(Object.entries(all).map(([kind, count]) => [kind, count / timed.steps]));
      return timed;
    },
  };
  if (question.warm && tools.warmUp) await askOnce(question, place, tools);
  await askOnce(counting, place, tools);
  return counted;
}
