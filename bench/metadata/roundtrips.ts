/** What the requests of an operation would take with a server that does nothing: the least that any server of this kind can. */

import { median, ratio } from '../asking.ts';
import { awaited, type Counts } from '../daemon.ts';
import type { PlaceName } from '../places.ts';
import { type Row, table, time, times } from '../tables.ts';

/** How many requests one step of a question takes, by kind, in our own places. */
export interface Requests {
  readonly name: string;
  readonly per: string;
  readonly counts: ReadonlyMap<PlaceName, Counts>;
}

/** How long a caller waits for an answer that is a constant, in microseconds. */
export interface RoundTrips {
  readonly one: number;
  readonly spread: number;
}

export interface RoundTripsTable {
  readonly rows: readonly Row[];
  readonly requests: readonly Requests[];
  readonly roundTrip: number;
  /** The questions that are shown. */
  readonly names: readonly string[];
  readonly where: string;
}

export function roundTripsTable({ rows, requests, roundTrip, names, where }: RoundTripsTable): string {
  const body = rows
    .filter(({ name }) => names.includes(name))
    .map(({ name, answers }) => {
      const counts = requests.find((found) => found.name === name)?.counts.get('sharedext') ?? {};
      const bare = median(answers.get('bare') ?? []);
      const least = awaited(counts) * roundTrip;
      const sharedext = median(answers.get('sharedext') ?? []);
      return [
        name,
        time(bare),
        `${Number(awaited(counts).toFixed(2))}`,
        time(least),
        times((bare + least) / bare),
        times(ratio(answers, 'sharedext')),
        times(sharedext / (bare + least)),
      ];
    });
  const head = [where, 'bare', 'requests', 'round trips', 'then ÷ bare', 'sharedext ÷ bare', 'sharedext ÷ least'];
  return table([head, ...body]);
}
