/**
 * What another process can be asked to do: everything of `posix.ts`, and a few operations that concern the process
 * itself. One table is used by both sides, so a call and its result have the same types here as there.
 */

import { spawnSync } from 'node:child_process';
import { accessSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import * as posix from './posix.ts';
import type { Name } from './scratch.ts';

export interface ExecResult {
  /** Why the program couldn't be started, such as `EACCES` or `ETXTBSY`. */
  readonly error: string | undefined;
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, without a shell. */
export function exec(file: string, ...args: readonly string[]): ExecResult {
  const result = spawnSync(file, args, { encoding: 'utf8' });
  const error: NodeJS.ErrnoException | undefined = result.error;
  return {
    error: error?.code,
    status: result.status,
    signal: result.signal,
    stdout: result.stdout ?? '',
    stderr: result.stderr ?? '',
  };
}

export function readFile(name: Name): Buffer {
  return readFileSync(name);
}

/** Creates or empties the file. */
export function writeFile(name: Name, content: string | Uint8Array, mode = 0o666): void {
  writeFileSync(name, content, { mode });
}

/** access(2) asks for the real ids; `mode` is a sum of 4 (read), 2 (write) and 1 (execute). */
export function access(name: Name, mode: number): void {
  accessSync(name, mode);
}

export function changeDirectory(dir: string): void {
  process.chdir(dir);
}

/** This process's descriptors whose files lie below a folder, also those without a name any more. */
export function descriptorsBelow(folder: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc/self/fd')) {
    let target: string;
    try {
      target = readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      // The descriptor that listed the folder is closed by now.
      continue;
    }
    if (target === folder || target.startsWith(`${folder}/`)) found.push(Number(name));
  }
  return found;
}

export const operations = { ...posix, exec, readFile, writeFile, access, changeDirectory, descriptorsBelow };

type Operations = typeof operations;

/** The names in the table that are functions; the rest are constants. */
export type OperationName = {
  [K in keyof Operations]: Operations[K] extends (...args: never[]) => unknown ? K : never;
}[keyof Operations];

export type OperationArguments<K extends OperationName> = Operations[K] extends (...args: infer A) => unknown
  ? A
  : never;

export type OperationResult<K extends OperationName> = Operations[K] extends (...args: never[]) => infer R ? R : never;
