/** From how many trees on one way takes less memory than another: a line through the first and the last point of each. */

import { totalOf } from './memoryuse.ts';
import type { Series } from './series.ts';

interface Straight {
  readonly first: number;
  readonly each: number;
}

function straight({ points }: Series): Straight | undefined {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined || first === last) return;
  const each = (totalOf(last.use) - totalOf(first.use)) / (last.trees - first.trees);
  return { first: totalOf(first.use) - (first.trees - 1) * each, each };
}

/** What one more tree takes. */
export function bytesPerTree(series: Series): number | undefined {
  return straight(series)?.each;
}

/** The least number of trees with which `ours` takes less than `other`; undefined when no number does. */
export function breakEven(ours: Series, other: Series): number | undefined {
  const [a, b] = [straight(ours), straight(other)];
  if (a === undefined || b === undefined) return;
  if (a.each >= b.each) return a.first < b.first ? 1 : undefined;
  return Math.max(1, Math.floor((a.first - b.first) / (b.each - a.each) + 1) + 1);
}
