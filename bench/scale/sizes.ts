/** How far each kind of thing is counted up, in steps. */

import type { Extent } from '../section.ts';

export interface ScaleSizes {
  readonly nodes: readonly number[];
  readonly open: readonly number[];
  readonly mappings: readonly number[];
  readonly extents: readonly number[];
}

export const scaleSizes: Readonly<Record<Extent, ScaleSizes>> = {
  short: { nodes: [500, 5000], open: [100, 1000], mappings: [20, 100], extents: [1000, 10_000] },
  normal: {
    nodes: [1000, 10_000, 100_000],
    open: [100, 1000, 10_000],
    mappings: [100, 1000, 10_000, 100_000],
    extents: [1000, 10_000, 100_000, 1_000_000],
  },
  full: {
    nodes: [1000, 10_000, 100_000, 1_000_000],
    open: [100, 1000, 10_000],
    mappings: [100, 1000, 10_000, 100_000],
    extents: [1000, 10_000, 100_000, 1_000_000, 10_000_000],
  },
};

/** What was measured when there were so many. */
export interface Step {
  readonly count: number;
  /** Of the server for each that was added in this step. */
  readonly bytesEach: number;
  /** Of it in the tables that another server would take over; the rest is the interpreter's. */
  readonly tableBytesEach: number | undefined;
  /** The kernel's slabs, which others change as well; of what isn't mounted there are none. */
  readonly kernelBytesEach: number | undefined;
  /** Microseconds to add one, and to find one when there are so many. */
  readonly addUs: number;
  readonly findUs: number;
  /** To find as many, at the same places, by a binary search of one sorted array: what no search does without. */
  readonly searchUs?: number;
}

export interface Growth {
  readonly what: string;
  /** What adding and finding is. */
  readonly adding: string;
  readonly finding: string;
  readonly steps: readonly Step[];
}

/** How many are added in each step, when there are so many after it. */
export function added(counts: readonly number[]): readonly { readonly count: number; readonly more: number }[] {
  return counts.map((count, index) => ({ count, more: count - (counts[index - 1] ?? 0) }));
}
