/** `sharedext umount`: unmounts, and waits until the daemon and its store are gone, and nothing keeps the source busy. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { Command } from 'commander';
import { EBUSY, errnoText, UserError } from '../base/errno.ts';
import { requireRoot } from './privilege.ts';

/** The daemon is asked who it is before it is unmounted. */
const ANSWER_TIMEOUT_MS = 2000;
const END_TIMEOUT_MS = 10_000;
const POLL_MS = 10;
const MOST_USERS = 5;

export function umountCommand(): Command {
  return new Command('umount')
    .alias('unmount')
    .summary('unmount, and wait for the end of the daemon')
    .description(
      'Unmounts MOUNTPOINT, and returns when its daemon has ended and its store is gone: its source can be unmounted then.\nPlain umount(8) works as well; the daemon ends a moment later.',
    )
    .argument('<mountpoint>')
    .option('-l, --lazy', 'detach it now; the daemon ends when the last user of the mount does')
    .addHelpText('after', '\nExample:\n  sharedext umount /mnt/shared\n')
    .action(run);
}

interface Identity {
  readonly pid: number;
  /** It holds descriptors of the source as well. */
  readonly supervisor: number | undefined;
  readonly store: string | undefined;
}

function identityIn(status: unknown): Identity | undefined {
  if (typeof status !== 'object' || status === null || !('pid' in status) || typeof status.pid !== 'number') return;
  return {
    pid: status.pid,
    supervisor: 'supervisor' in status && typeof status.supervisor === 'number' ? status.supervisor : undefined,
    store: 'store' in status && typeof status.store === 'string' ? status.store : undefined,
  };
}

async function run(path: string, flags: { readonly lazy?: true }): Promise<void> {
  requireRoot(`unmount ${path}`);
  const { askDaemon } = await import('../daemon/control.ts');
  const { removeLeftovers } = await import('../daemon/runtime.ts');
  const { usersOf } = await import('../daemon/users.ts');
  const { findMount } = await import('./mountpath.ts');
  const { umount2 } = await import('../sys/libc.ts');
  const { MNT_DETACH } = await import('../base/linux.ts');
  const { mountpoint, minor } = findMount('unmount', path);
  const answer = await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS);
  const daemon = answer.state === 'answered' ? identityIn(answer.value) : undefined;
  const result = await umount2.later(mountpoint, flags.lazy === true ? MNT_DETACH : 0);
  if (result === -EBUSY) {
    const users = usersOf(mountpoint, MOST_USERS).map(({ pid, name, how }) => `${name} (${pid}, ${how})`);
    const who = users.length === 0 ? 'something, perhaps another mount below it or a loop device' : users.join(', ');
    throw new UserError(
      `Cannot unmount ${mountpoint}: it is in use by ${who}; end that, or try "sharedext umount -l ${mountpoint}"`,
    );
  }
  if (result < 0) throw new UserError(`Cannot unmount ${mountpoint}: ${errnoText(result)}`);
  if (answer.state === 'dead') removeLeftovers(minor);
  if (flags.lazy !== true && daemon !== undefined) await waitForEnd(daemon, mountpoint);
}

/**
 * Whether a process may still hold something. One that waits for its parent to notice its end (state Z) holds nothing, once its other
 * threads are gone.
 */
function isRunning(pid: number): boolean {
  try {
    const ended = /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return !ended || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

async function waitForEnd({ pid, supervisor, store }: Identity, mountpoint: string): Promise<void> {
  // Other views of the mount (a bind mount, another namespace) may keep the daemon.
  const deadline = performance.now() + END_TIMEOUT_MS;
  for (;;) {
    const running = [pid, supervisor].filter((id) => id !== undefined && isRunning(id));
    if (running.length === 0 && (store === undefined || !existsSync(store))) return;
    if (performance.now() > deadline) {
      throw new UserError(
        `Unmounted ${mountpoint}, but its daemon (process ${running.join(', ') || pid}) still runs after ${END_TIMEOUT_MS / 1000} s: the mount may be visible elsewhere`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
