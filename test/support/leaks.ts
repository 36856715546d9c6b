/**
 * What a test must not leave behind: mounts, loop devices, temporary folders, descriptors and processes. Other test runs
 * on the same machine have their own; they are told apart by the process id in the names of temporary folders
 * (`loopfs.ts`) and by a variable in the environment that every process inherits from the one that loads this module.
 */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { folderPrefix } from './loopfs.ts';

const RUN_VARIABLE = 'SHAREDEXT_TEST_RUN';
const run = `${process.pid}-${Date.now()}`;
process.env[RUN_VARIABLE] = run;

export interface Leftovers {
  readonly mounts: readonly string[];
  readonly loopDevices: readonly string[];
  readonly folders: readonly string[];
  /** `fd → file`, for files with a path: pipes, sockets and the like are opened by Node when it pleases. */
  readonly descriptors: readonly string[];
  /** `pid: command line` */
  readonly processes: readonly string[];
}

/**
 * Mounts at or of something in our folders, whatever their type. A mount of ours elsewhere shows by its server's process;
 * one of somebody else isn't ours to judge.
 */
function mounts(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folderPrefix));
}

function loopDevices(): string[] {
  return execFileSync('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(folderPrefix));
}

function folders(): string[] {
  const prefix = basename(folderPrefix);
  return readdirSync(dirname(folderPrefix)).filter((name) => name.startsWith(prefix));
}

/** Reads a file or link below /proc of something that may end meanwhile. */
function orUndefined(look: () => string): string | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

function descriptors(): string[] {
  const open: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    const target = orUndefined(() => readlinkSync(`/proc/self/fd/${fd}`));
    if (target?.startsWith('/') && !target.startsWith('/proc/') && target !== '/dev/null')
      open.push(`${fd} → ${target}`);
  }
  return open;
}

function processes(): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(pid) || Number(pid) === process.pid) continue;
    const commandLine = orUndefined(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
    const environment = orUndefined(() => readFileSync(`/proc/${pid}/environ`, 'utf8'));
    const inherited = environment?.split('\0').includes(`${RUN_VARIABLE}=${run}`) ?? false;
    // A zombie has neither: its parent knows of its end.
    if (inherited || commandLine?.includes(folderPrefix))
      found.push(`${pid}: ${commandLine?.replaceAll('\0', ' ').trim()}`);
  }
  return found;
}

export function takeStock(): Leftovers {
  return {
    mounts: mounts(),
    loopDevices: loopDevices(),
    folders: folders(),
    descriptors: descriptors(),
    processes: processes(),
  };
}

/** What there is now and wasn't there before. */
export function newSince(before: Leftovers): Leftovers {
  const now = takeStock();
  const added = (kind: keyof Leftovers) => now[kind].filter((item) => !before[kind].includes(item));
  return {
    mounts: added('mounts'),
    loopDevices: added('loopDevices'),
    folders: added('folders'),
    descriptors: added('descriptors'),
    processes: added('processes'),
  };
}

function isEmpty(leftovers: Leftovers): boolean {
  return Object.values(leftovers).every((items: readonly string[]) => items.length === 0);
}

const atStart = takeStock();

/**
 * Throws with a list of what is left since `before`, by default since this module was loaded. Processes and mounts may take
 * a moment to go: it waits for up to two seconds.
 */
export async function assertNothingLeft(before: Leftovers = atStart): Promise<void> {
  const deadline = Date.now() + 2000;
  for (;;) {
    const left = newSince(before);
    if (isEmpty(left)) return;
    if (Date.now() > deadline) throw new Error(`The test left something behind: ${JSON.stringify(left, null, 2)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
