/**
 * What another process can be asked to do: everything of `posix.ts`, and a few operations that concern the process
 * itself. One table is used by both sides, so a call and its result have the same types here as there.
 */

import { spawnSync } from 'node:child_process';
import { accessSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import * as posix from './posix.ts';
import { type Name, SystemCallError } from './scratch.ts';

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

/** Opens and closes again. */
export function touch(name: Name, flags: number): void {
  posix.close(posix.open(name, flags));
}

/** Opens by a handle and closes again; returns the inode's number. */
export function inodeByHandle(dir: Name, handle: Uint8Array): bigint {
  const mountFd = posix.open(dir, posix.O_RDONLY | posix.O_DIRECTORY);
  try {
    const fd = posix.openHandle(mountFd, handle, posix.O_PATH);
    const { ino } = posix.fstat(fd);
    posix.close(fd);
    return ino;
  } finally {
    posix.close(mountFd);
  }
}

/** Makes directories, removes them, and holds each by a descriptor that reads nothing (O_PATH); returns the descriptors. */
export function holdRemoved(folder: string, count: number): number[] {
  const held: number[] = [];
  for (let i = 0; i < count; i++) {
    const name = `${folder}/removed${i}`;
    posix.mkdir(name);
    held.push(posix.open(name, posix.O_PATH | posix.O_DIRECTORY));
    posix.rmdir(name);
  }
  return held;
}

export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors) posix.close(fd);
}

/** How many of some descriptors are what they were, by their inode numbers, how many are gone (ESTALE), and how many another file. */
export function compareInodes(
  descriptors: readonly number[],
  inodes: readonly bigint[],
): { readonly same: number; readonly stale: number; readonly others: number } {
  const found = { same: 0, stale: 0, others: 0 };
  for (const [i, fd] of descriptors.entries()) {
    try {
      if (posix.fstat(fd).ino === inodes[i]) found.same++;
      else found.others++;
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.code !== 'ESTALE') throw error;
      found.stale++;
    }
  }
  return found;
}

export function inodesOf(descriptors: readonly number[]): bigint[] {
  return descriptors.map((fd) => posix.fstat(fd).ino);
}

/** Makes files that nobody else may read, or changes the mode of what was made. */
export function makeFiles(folder: string, count: number): void {
  for (let i = 0; i < count; i++) writeFileSync(`${folder}/own${i}`, `own ${i}`, { mode: 0o600 });
}

export function chmodFiles(folder: string, count: number, mode: number): void {
  for (let i = 0; i < count; i++) posix.chmod(`${folder}/own${i}`, mode);
}

interface Lease {
  readonly type: number;
  readonly patienceMs: number;
  giving: boolean;
}

/** Leases that this process holds, by the descriptor. */
const leases = new Map<number, Lease>();

function giveLease(fd: number): void {
  if (leases.delete(fd)) posix.close(fd);
}

/** Somebody waits for a lease: the signal doesn't say for which. */
function onBreak(): void {
  for (const [fd, lease] of leases) {
    if (lease.giving || posix.leaseOf(fd) === lease.type) continue;
    lease.giving = true;
    setTimeout(giveLease, lease.patienceMs, fd);
  }
}

/**
 * Takes a lease and returns whether it was to be had. It is given back after `holdMs`, or `patienceMs` after somebody has opened the
 * file who waits for it.
 */
export function holdLease(name: Name, type: number, holdMs: number, patienceMs: number): boolean {
  if (process.listenerCount('SIGIO') === 0) process.on('SIGIO', onBreak);
  const fd = posix.open(name, posix.O_RDONLY);
  try {
    posix.setLease(fd, type);
  } catch (error) {
    posix.close(fd);
    if (error instanceof SystemCallError && error.code === 'EAGAIN') return false;
    throw error;
  }
  leases.set(fd, { type, patienceMs, giving: false });
  setTimeout(giveLease, holdMs, fd);
  return true;
}

/** An operation with its arguments. */
export type Step = readonly [name: string, ...args: readonly unknown[]];

/** What a text begins with: enough to know whose it is. */
const SHOWN_BYTES = 20;

/**
 * Takes the same steps again and again, however each ends. Returns how often each ended how: by name and result, which is `ok`,
 * an errno, or the beginning of what was read.
 */
export function repeat(rounds: number, steps: readonly Step[]): Readonly<Record<string, number>> {
  const table = new Map<string, unknown>(Object.entries(operations));
  const ends = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, ...args] of steps) {
      const operation = table.get(name);
      if (typeof operation !== 'function') throw new Error(`There is no operation ${name}`);
      let end: string;
      try {
        const result: unknown = Reflect.apply(operation, undefined, args);
        end = Buffer.isBuffer(result) ? result.toString('latin1', 0, SHOWN_BYTES) : 'ok';
      } catch (error) {
        end = error instanceof Error && 'code' in error ? String(error.code) : String(error);
      }
      const key = `${name} ${end}`;
      ends.set(key, (ends.get(key) ?? 0) + 1);
    }
  }
  return Object.fromEntries(ends);
}

export const operations = {
  ...posix,
  exec,
  readFile,
  writeFile,
  access,
  changeDirectory,
  descriptorsBelow,
  touch,
  holdLease,
  inodeByHandle,
  holdRemoved,
  closeAll,
  inodesOf,
  compareInodes,
  makeFiles,
  chmodFiles,
  repeat,
};

type Operations = typeof operations;

/** The names in the table that are functions; the rest are constants. */
export type OperationName = {
  [K in keyof Operations]: Operations[K] extends (...args: never[]) => unknown ? K : never;
}[keyof Operations];

export type OperationArguments<K extends OperationName> = Operations[K] extends (...args: infer A) => unknown
  ? A
  : never;

export type OperationResult<K extends OperationName> = Operations[K] extends (...args: never[]) => infer R ? R : never;
