/** A mount of ours, and what its daemon tells about itself. */

import { setTimeout as pause } from 'node:timers/promises';
import { UserError } from '../src/base/errno.ts';
import { programPath } from '../src/cli/package.ts';
import { askDaemon } from '../src/daemon/control.ts';
import { startServer } from '../src/demo/servers.ts';

const ANSWER_TIMEOUT_MS = 3000;
const READY_TIMEOUT_MS = 20_000;
const POLL_MS = 10;

/** How many requests reached the daemon, by operation. */
export type Counts = Readonly<Record<string, number>>;

export interface Daemon {
  /** The process that answers requests, which isn't the one that supervises it. */
  readonly pid: number;
  requests(): Promise<Counts>;
  end(): Promise<void>;
}

function statusIn(value: unknown): { readonly pid: number; readonly requests: Counts } | undefined {
  if (typeof value !== 'object' || value === null || !('pid' in value) || !('requests' in value)) return;
  const { pid, requests } = value;
  if (typeof pid !== 'number' || typeof requests !== 'object' || requests === null) return;
  const counts: Record<string, number> = {};
  for (const [name, count] of Object.entries(requests)) if (typeof count === 'number') counts[name] = count;
  return { pid, requests: counts };
}

/** Mounts with `options`; `nodeWords` are for the interpreter, of the server as well. */
export async function mountOurs(
  source: string,
  mountpoint: string,
  options: string,
  nodeWords: readonly string[] = [],
): Promise<Daemon> {
  const words = [...nodeWords, programPath, 'mount', '-f', '-o', options, '--', source, mountpoint];
  const server = await startServer(process.execPath, words, mountpoint);
  const { minor } = server.entry;
  const status = async (): Promise<ReturnType<typeof statusIn>> => {
    const answer = await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS);
    return answer.state === 'answered' ? statusIn(answer.value) : undefined;
  };
  const deadline = performance.now() + READY_TIMEOUT_MS;
  let first = await status();
  while (first === undefined && performance.now() < deadline) {
    await pause(POLL_MS);
    first = await status();
  }
  if (first === undefined) {
    await server.end();
    throw new UserError(`Cannot mount ${source}: the daemon does not answer, try "sharedext status"`);
  }
  return {
    pid: first.pid,
    async requests() {
      const now = await status();
      if (now === undefined) throw new UserError(`Cannot ask the daemon of ${mountpoint}: it does not answer`);
      return now.requests;
    },
    end: () => server.end(),
  };
}

/** What was counted between two answers, without what wasn't asked at all. */
export function difference(before: Counts, after: Counts): Counts {
  const counts: Record<string, number> = {};
  for (const [name, count] of Object.entries(after)) {
    const more = count - (before[name] ?? 0);
    if (more > 0) counts[name] = more;
  }
  return counts;
}

/** Nobody waits for these. */
const UNAWAITED: ReadonlySet<string> = new Set(['FORGET', 'BATCH_FORGET', 'RELEASE', 'RELEASEDIR']);

/** How many of them somebody waits for. */
export function awaited(counts: Counts): number {
  return Object.entries(counts).reduce((sum, [kind, count]) => (UNAWAITED.has(kind) ? sum : sum + count), 0);
}
