/** Whether one of two samples tends to be larger: the test of Mann and Whitney. */

export interface Comparison {
  /** How probable it is that a value of the first sample is larger than one of the second: 0.5 says that nothing can be told. */
  readonly auc: number;
  /** Bounds of a confidence interval of 95% (Hanley and McNeil 1982). */
  readonly low: number;
  readonly high: number;
  /** How probable a difference of at least this size is by chance: both sides, by the normal approximation. */
  readonly p: number;
}

export function compare(first: readonly number[], second: readonly number[]): Comparison {
  const [n, m] = [first.length, second.length];
  const auc = (sumOfRanks(first, second) - (n * (n + 1)) / 2) / (n * m);
  const q1 = auc / (2 - auc);
  const q2 = (2 * auc * auc) / (1 + auc);
  const variance = (auc * (1 - auc) + (n - 1) * (q1 - auc * auc) + (m - 1) * (q2 - auc * auc)) / (n * m);
  const margin = 1.96 * Math.sqrt(Math.max(0, variance));
  const z = Math.abs(auc - 0.5) / Math.sqrt((n + m + 1) / (12 * n * m));
  return { auc, low: Math.max(0, auc - margin), high: Math.min(1, auc + margin), p: Math.min(1, 2 * upperTail(z)) };
}

/** The ranks of the first sample's values among all, added up; equal values share the mean of their ranks. */
function sumOfRanks(first: readonly number[], second: readonly number[]): number {
  const all = [...first, ...second].sort((a, b) => a - b);
  const ranks = new Map<number, number>();
  for (let at = 0; at < all.length; ) {
    const value = all[at] ?? 0;
    let end = at;
    while (all[end] === value) end++;
    ranks.set(value, (at + 1 + end) / 2);
    at = end;
  }
  return first.reduce((sum, value) => sum + (ranks.get(value) ?? Number.NaN), 0);
}

/** Of the standard normal distribution beyond `z` >= 0: Abramowitz and Stegun 26.2.17, to 7.5e-8. */
function upperTail(z: number): number {
  const t = 1 / (1 + 0.2316419 * z);
  const series = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (series * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}
