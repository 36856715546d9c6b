/**
 * Where a mount that shares doesn't do what the bare filesystem does, and documents it: each case by its full name, with the
 * place that says so and what is seen instead. A case that sees something else fails, also when it sees what it does on the
 * bare filesystem: then it has no place here any more.
 */

import type { Seen } from './case.ts';

export interface Exception {
  readonly why: string;
  readonly seen: Seen;
}

export const exceptions: Readonly<Record<string, Exception>> = {};
