/** Requests that can't be dealt with yet, and are dealt with anew when they can. */

import type { Finish, Outcome, Request } from '../fuse/server/session.ts';
import type { Mount } from './mount.ts';

/**
 * Deals with a request when a wait is over. The input memory serves others meanwhile: the request is kept, and put back for
 * `again`, which gets a request of its own.
 */
export function revisit(m: Mount, r: Request, wait: Promise<unknown>, again: (r: Request) => Outcome): Promise<Finish> {
  const kept = { ...r };
  const bytes = m.input.bytes.slice(0, r.end);
  return wait.then(() => (): Outcome => {
    m.input.bytes.set(bytes);
    return again(kept);
  });
}

const FIRST_WAIT_MS = 1;
const LONGEST_WAIT_MS = 50;

/**
 * Waits before the next attempt at an open that somebody's lease is in the way of. The attempt, which doesn't wait, has told the
 * holder, and the kernel takes the lease from him at the end of /proc/sys/fs/lease-break-time (fcntl(2)).
 */
export function leaseWait(attempt: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.min(FIRST_WAIT_MS * 2 ** attempt, LONGEST_WAIT_MS)));
}
