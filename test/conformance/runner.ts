/** Runs conformance cases in a directory, one after the other, and says of each how it went. */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { runningUsers, stopUsers } from '../support/asuser.ts';
import { descriptorsBelow } from '../support/operations.ts';
import * as posix from '../support/posix.ts';
import { subjects as allSubjects } from './all.ts';
import type { Case, Subject } from './case.ts';
import { type Feature, lacking } from './features.ts';

export interface CaseResult {
  /** `subject: sentence` */
  readonly name: string;
  /** False for a skipped case, too. */
  readonly ok: boolean;
  /** Why it was skipped. */
  readonly skipped?: string;
  readonly error?: Error;
  readonly durationMs: number;
}

export interface ConformanceOptions {
  /** Narrows the run to the cases whose full names contain this. */
  readonly only?: string;
  /** All that there are, unless given. */
  readonly subjects?: readonly Subject[];
}

const UMASK = 0o022;

/** A case that hangs in another process or on the event loop is given up; nothing here takes a tenth of this. */
const CASE_TIMEOUT_MS = 20_000;

/** Runs all cases below `dir`, whose whole path everyone can search, and leaves it as it was. */
export async function runConformance(
  dir: string,
  label: string,
  options: ConformanceOptions = {},
): Promise<CaseResult[]> {
  const home = join(dir, `conformance-${label}`);
  mkdirSync(home, { mode: 0o755 });
  const results: CaseResult[] = [];
  const oldMask = process.umask(UMASK);
  try {
    const reasons = new Map<Feature, string | undefined>();
    for (const { subject, cases } of options.subjects ?? allSubjects) {
      for (const [index, one] of cases.entries()) {
        const name = `${subject}: ${one.name}`;
        if (options.only !== undefined && !name.includes(options.only)) continue;
        const skipped = (one.needs ?? []).map((feature) => reasonFor(feature, home, reasons)).find(Boolean);
        if (skipped === undefined) results.push(await runCase(name, one, join(home, `${subject}-${index}`)));
        else results.push({ name, ok: false, skipped, durationMs: 0 });
      }
    }
  } finally {
    await stopUsers();
    process.umask(oldMask);
    rmSync(home, { recursive: true });
  }
  return results;
}

function reasonFor(feature: Feature, home: string, known: Map<Feature, string | undefined>): string | undefined {
  if (!known.has(feature)) {
    const dir = join(home, `probe-${feature}`);
    mkdirSync(dir);
    known.set(feature, lacking(feature, dir));
    rmSync(dir, { recursive: true });
  }
  return known.get(feature);
}

async function runCase(name: string, one: Case, dir: string): Promise<CaseResult> {
  const startedMs = performance.now();
  let error: Error | undefined;
  try {
    mkdirSync(dir, { mode: 0o755 });
    await Promise.race([one.run(dir), timeout()]);
  } catch (thrown) {
    error = thrown instanceof Error ? thrown : new Error(String(thrown));
  }
  // A process that may still be in the middle of something isn't lent to the next case.
  if (error !== undefined) await stopUsers();
  // What a case forgot is an error of the case, even if all that it asserted holds; the next one starts afresh anyway.
  try {
    await tidy(dir);
    rmSync(dir, { recursive: true, maxRetries: 3 });
  } catch (thrown) {
    error ??= thrown instanceof Error ? thrown : new Error(String(thrown));
  }
  const durationMs = performance.now() - startedMs;
  return error === undefined ? { name, ok: true, durationMs } : { name, ok: false, error, durationMs };
}

function timeout(): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no end after ${CASE_TIMEOUT_MS} ms`)), CASE_TIMEOUT_MS).unref();
  });
}

/** Puts the processes back into their initial state, and throws when there was something to put back. */
async function tidy(dir: string): Promise<void> {
  const problems: string[] = [];
  const own = descriptorsBelow(dir);
  for (const fd of own) posix.close(fd);
  if (own.length > 0) problems.push(`descriptors ${own.join(', ')} were left open`);
  if (process.umask(UMASK) !== UMASK) problems.push('the umask was left changed');
  for (const user of runningUsers()) {
    const theirs = await user.call('descriptorsBelow', dir);
    for (const fd of theirs) await user.call('close', fd);
    if (theirs.length > 0) problems.push(`descriptors ${theirs.join(', ')} were left open in another process`);
    if ((await user.call('umask', UMASK)) !== UMASK) problems.push('the umask of another process was left changed');
    await user.call('changeDirectory', '/');
  }
  if (problems.length > 0) throw new Error(problems.join('; '));
}

/** The failures as text, for an assertion's message. */
export function failuresIn(results: readonly CaseResult[]): string {
  return results
    .filter((result) => result.error !== undefined)
    .map((result) => `${result.name}\n    ${result.error?.stack?.replaceAll('\n', '\n    ')}`)
    .join('\n\n');
}

/** One line about a run: how many passed, failed and were skipped, for which reasons, and the slowest case. */
export function summaryOf(results: readonly CaseResult[]): string {
  const skipped = results.filter((result) => result.skipped !== undefined);
  const reasons = [...new Set(skipped.map((result) => result.skipped))].join('; ');
  const slowest = results.reduce((a, b) => (b.durationMs > a.durationMs ? b : a));
  return [
    `${results.filter((result) => result.ok).length} passed`,
    `${results.filter((result) => result.error !== undefined).length} failed`,
    `${skipped.length} skipped${reasons === '' ? '' : ` (${reasons})`}`,
    `slowest: ${slowest.name} (${Math.round(slowest.durationMs)} ms)`,
  ].join(', ');
}
