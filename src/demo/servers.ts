/** Programs that serve a mount in the foreground: started, waited for until the mount is there, ended by an unmount. */

import { spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { UserError } from '../base/errno.ts';
import { type MountEntry, mounts } from '../sys/mounts.ts';
import { run } from './commands.ts';

const MOUNT_TIMEOUT_MS = 20_000;
const END_TIMEOUT_MS = 20_000;
const POLL_MS = 10;
const UNMOUNT_ATTEMPTS = 40;
const UNMOUNT_PAUSE_MS = 50;

export interface MountServer {
  readonly pid: number;
  readonly entry: MountEntry;
  /** Unmounts, and waits for the program's end. Calling it again does nothing. */
  end(): Promise<void>;
}

/** The latest of what FUSE has mounted at a mountpoint, if nothing else is over it. */
function fuseMountAt(mountpoint: string): MountEntry | undefined {
  const entry = mounts().findLast((found) => found.mountpoint === mountpoint);
  return entry?.type.startsWith('fuse') === true ? entry : undefined;
}

/** A mount may be busy for a moment with what just ended. */
export async function unmount(mountpoint: string): Promise<void> {
  for (let attempt = 0; attempt < UNMOUNT_ATTEMPTS; attempt++) {
    try {
      await run('umount', [mountpoint]);
      return;
    } catch {
      await pause(UNMOUNT_PAUSE_MS);
    }
  }
  await run('umount', ['--lazy', mountpoint]).catch(() => '');
}

/**
 * Starts a program that mounts where nothing of FUSE is mounted yet.
 *
 * @throws UserError with the last line that the program said, when it ends before anything is mounted.
 */
export async function startServer(
  command: string,
  words: readonly string[],
  mountpoint: string,
  environment: NodeJS.ProcessEnv = {},
): Promise<MountServer> {
  const child = spawn(command, words, {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
    env: { ...process.env, ...environment },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4096);
  });
  let over = false;
  const ended = new Promise<void>((resolve) => {
    const finish = (): void => {
      over = true;
      resolve();
    };
    child.once('close', finish);
    child.once('error', (error) => {
      said = error.message;
      finish();
    });
  });
  const deadline = performance.now() + MOUNT_TIMEOUT_MS;
  let entry = fuseMountAt(mountpoint);
  while (entry === undefined) {
    if (over || performance.now() > deadline) {
      child.kill('SIGKILL');
      await run('umount', ['--lazy', mountpoint]).catch(() => '');
      throw new UserError(`Cannot mount with ${command}: ${said.trim().split('\n').at(-1) || 'nothing was mounted'}`);
    }
    await pause(POLL_MS);
    entry = fuseMountAt(mountpoint);
  }
  let ending: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await unmount(mountpoint);
    await Promise.race([ended, pause(END_TIMEOUT_MS, undefined, { ref: false })]);
    if (!over) child.kill('SIGKILL');
    await ended;
  };
  return {
    pid: child.pid ?? -1,
    entry,
    end() {
      ending ??= end();
      return ending;
    },
  };
}
