/** Runs the command as people do, in a child process with a bounded life, and looks at what it left. */

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type MountEntry, mounts } from '../../src/sys/mounts.ts';
import { until } from '../support/wait.ts';

export const PROGRAM: string = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const TIMEOUT_MS = 30_000;

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs any program; a status of null means that it was killed for taking too long. */
export function run(program: string, args: readonly string[], cwd = '/'): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { timeout: TIMEOUT_MS, killSignal: 'SIGKILL', cwd } as const;
    execFile(program, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : null;
      resolve({ status: code, stdout, stderr });
    });
  });
}

export function sharedext(...args: readonly string[]): Promise<Outcome> {
  return run(process.execPath, [PROGRAM, ...args]);
}

/** A new empty directory below a test's folder. */
export function directory(folder: string, name: string): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  return path;
}

export function mountAt(mountpoint: string): MountEntry | undefined {
  return mounts().findLast((entry) => entry.mountpoint === mountpoint && entry.type.startsWith('fuse'));
}

/** The processes of this program that have a word in their command lines; those that wait for their parent are gone. */
export function daemonsOf(word: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return words.includes(PROGRAM) && words.some((given) => given.includes(word));
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Waits until nothing of a mount is left: no mount, no daemon, no store, no socket, no log. */
export async function untilGone(mountpoint: string, source: string, minor: number): Promise<void> {
  await until('it is unmounted', () => mountAt(mountpoint) === undefined);
  await until('its daemon has ended', () => daemonsOf(mountpoint).length === 0);
  await until('its store is gone', () => !existsSync(join(source, '.sharedext')));
  for (const kind of ['sock', 'log']) {
    await until(`its ${kind} is gone`, () => !existsSync(`/run/sharedext/${minor}.${kind}`));
  }
}
