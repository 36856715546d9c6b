/**
 * Failures and short counts injected into the system calls of a process that runs: see `injector-child.ts`, which does it
 * in a process of its own, since it waits inside waitpid(2).
 */

import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type CallName, systemCalls } from './syscalls.ts';

const CHILD = fileURLToPath(new URL('./injector-child.js', import.meta.url));

/** An error that the call fails with, without being made; or that it is asked for about half of what it was asked for. */
export type Fault = keyof typeof constants.errno | 'short';

/** The registers are those of x86-64. */
export const canInject: boolean = process.arch === 'x64';

export interface Injection {
  readonly pid: number;
  readonly call: number;
  /** What is injected in turn: negated errnos, and 0 for a short count. */
  readonly results: readonly number[];
  /** One of so many calls on average. */
  readonly every: number;
  /** After so many nothing more is injected. */
  readonly times: number;
}

export interface Injector {
  /** Ends it, and tells how often it injected each of the faults. */
  stop(): Promise<readonly number[]>;
}

/** Resolves once all threads of the process are traced. The faults take turns; with `times`, it is the first calls that fail. */
export async function startInjector(
  pid: number,
  call: CallName,
  faults: readonly Fault[],
  how: { readonly every: number } | { readonly times: number },
): Promise<Injector> {
  if (!canInject) {
    throw new Error(`Cannot inject into ${call}: the registers of ${process.arch} aren't known, try on x86-64`);
  }
  const { number, shortening } = systemCalls[call];
  if (faults.includes('short') && shortening === undefined)
    throw new Error(`Cannot make ${call} short: it does all or fails`);
  const injection: Injection = {
    pid,
    call: number,
    results: faults.map((fault) => (fault === 'short' ? 0 : -constants.errno[fault])),
    every: 'every' in how ? how.every : 1,
    times: 'times' in how ? how.times : Number.MAX_SAFE_INTEGER,
  };
  const child = spawn(process.execPath, [CHILD, JSON.stringify(injection), JSON.stringify(shortening ?? null)]);
  let output = '';
  let errors = '';
  child.stderr.on('data', (data) => {
    errors += String(data);
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (data) => {
      output += String(data);
      resolve();
    });
    void ended.then(() => {
      child.stdin.end();
      reject(new Error(errors));
    });
  });
  return {
    async stop() {
      child.stdin.end();
      const code = await ended;
      const injected = /^ready\n(\[.*\])\n$/.exec(output)?.[1];
      if (code !== 0 || injected === undefined) throw new Error(`The injector ended with ${code}: ${errors}`);
      const counts: readonly number[] = JSON.parse(injected);
      return counts;
    },
  };
}
