/** Extents, of which there may be more than of anything else: the structures that hold them, in this process. */

import { setImmediate as turn } from 'node:timers/promises';
import { FIRST_LINEAR, IntervalMap } from '../../src/base/intervalmap.ts';
import { PLAIN } from '../../src/extents/extentmap.ts';
import { ExtentIndex } from '../../src/mappings/extentindex.ts';
import { median } from '../asking.ts';
import { added, type Growth, type Step } from './sizes.ts';

const BLOCK_BYTES = 4096;
const FINDS = 10_000;
const ROUNDS = 15;
/** Items go to places that are far apart: i times an odd number, of so many bits, is each place once. */
const BITS = 26;
const MASK = 2 ** BITS - 1;
const ODD = 0x9e3779b1;
/** After so many, an interrupt is seen. */
const TURN = 100_000;
const WARM_UP = [1000, 20_000];
const WARM_UPS = 4;

function placeOf(i: number): number {
  // Every other block: runs that touch would be one.
  return ((Math.imul(i, ODD) & MASK) >>> 0) * 2;
}

interface Structure {
  readonly what: string;
  add(i: number): void;
  /** Returns something of what it found. */
  find(i: number): number;
  heldBytes(): number;
}

/** The places of the first `count` items, in order. */
function sortedPlaces(count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => placeOf(i)).sort();
}

function search(sorted: Float64Array, place: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) <= place) low = middle + 1;
    else high = middle;
  }
  return low;
}

function structures(): readonly Structure[] {
  const map = new IntervalMap();
  const index = new ExtentIndex(BLOCK_BYTES);
  // Positions that don't continue one another, or runs would be joined.
  const position = (i: number): number => FIRST_LINEAR + i * 3;
  return [
    {
      what: 'extents of a file',
      add: (i) => map.set(placeOf(i), placeOf(i) + 1, position(i)),
      find: (i) => map.find(placeOf(i)),
      heldBytes: () => map.heldBytes,
    },
    {
      what: 'extents of the index',
      add: (i) => index.set(placeOf(i) * BLOCK_BYTES, PLAIN, 1, position(i)),
      find: (i) => index.find(placeOf(i) * BLOCK_BYTES, PLAIN, 1),
      heldBytes: () => index.heldBytes,
    },
  ];
}

/** Microseconds for one of many, all over what there is. */
function timeOf(count: number, find: (i: number) => number): number {
  const rounds: number[] = [];
  let found = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < FINDS; i++) found += find((i * 7919 + round) % count);
    rounds.push(((performance.now() - start) * 1000) / FINDS);
  }
  if (found === 0) throw new Error('nothing was found');
  return median(rounds);
}

async function grow(structure: Structure, counts: readonly number[], signal: AbortSignal): Promise<readonly Step[]> {
  const steps: Step[] = [];
  for (const { count, more } of added(counts)) {
    const before = structure.heldBytes();
    let spentMs = 0;
    for (let i = count - more; i < count; ) {
      signal.throwIfAborted();
      const end = Math.min(count, i + TURN);
      const start = performance.now();
      for (; i < end; i++) structure.add(i);
      spentMs += performance.now() - start;
      await turn();
    }
    const sorted = sortedPlaces(count);
    steps.push({
      count,
      bytesEach: (structure.heldBytes() - before) / more,
      tableBytesEach: undefined,
      kernelBytesEach: undefined,
      addUs: (spentMs * 1000) / more,
      findUs: timeOf(count, (i) => structure.find(i)),
      searchUs: timeOf(count, (i) => search(sorted, placeOf(i))),
    });
  }
  return steps;
}

export async function extentsGrowing(counts: readonly number[], signal: AbortSignal): Promise<readonly Growth[]> {
  // Others of their kind have the code compiled before anything is timed.
  for (let i = 0; i < WARM_UPS; i++) for (const structure of structures()) await grow(structure, WARM_UP, signal);
  const growths: Growth[] = [];
  for (const structure of structures()) {
    const steps = await grow(structure, counts, signal);
    growths.push({ what: structure.what, adding: 'add', finding: 'find', steps });
  }
  return growths;
}
