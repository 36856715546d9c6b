/**
 * What running daemons keep outside of their mounts:
 *
 *     /run/sharedext/           root only
 *     /run/sharedext/57.sock    the control socket of the mount whose device is 0:57
 *     /run/sharedext/57.log     what a daemon in the background had to say; deleted at its end when that was nothing
 *     /run/sharedext/p912.log   the same, from the start by process 912 until the mount is there
 */

import { chmodSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { UserError } from '../base/errno.ts';

const RUNTIME_DIRECTORY = '/run/sharedext';

/** @throws UserError */
export function makeRuntimeDirectory(): void {
  try {
    mkdirSync(RUNTIME_DIRECTORY, { recursive: true, mode: 0o700 });
    chmodSync(RUNTIME_DIRECTORY, 0o700);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UserError(`Cannot make ${RUNTIME_DIRECTORY} for sockets and logs: ${why}`);
  }
}

export function socketPath(minor: number): string {
  return `${RUNTIME_DIRECTORY}/${minor}.sock`;
}

export function logPath(minor: number): string {
  return `${RUNTIME_DIRECTORY}/${minor}.log`;
}

/** Takes a log away if nothing is in it. */
export function removeEmptyLog(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.size === 0) rmSync(path, { force: true });
}

/** Takes away what a daemon that was killed left, but for what its log says. */
export function removeLeftovers(minor: number): void {
  rmSync(socketPath(minor), { force: true });
  removeEmptyLog(logPath(minor));
}

/** The log of a daemon that hasn't mounted yet, by the process that starts it. */
export function startLogPath(pid: number): string {
  return `${RUNTIME_DIRECTORY}/p${pid}.log`;
}
