/**
 * The life of one server process: mounts, or takes a mount over from a server that was killed, opens its control socket, says
 * that it is ready, serves, and ends with its mount. Its supervisor (`supervisor.ts`) starts it. The first SIGINT or SIGTERM
 * unmounts; a mount that is in use is detached then, and the process ends when its last user does. The second one ends it at
 * once: the mount's last users get errors, and the next mount empties the store.
 */

import { errnoText, UserError } from '../base/errno.ts';
import { tracer } from '../fuse/server/trace.ts';
import { onReadable } from '../sys/libc.ts';
import { MessageSocket, messageMemory } from '../sys/rights.ts';
import { type Commands, type ControlSocket, openControlSocket } from './control.ts';
import { heldBy } from './held.ts';
import { Keeper } from './keeping.ts';
import type { Log } from './log.ts';
import type { MountOptions } from './options.ts';
import { type Server, serve } from './server.ts';
import { statusOf } from './status.ts';

export interface LifeOptions {
  readonly source: string;
  readonly mountpoint: string;
  readonly options: MountOptions;
  /** The socket on which the supervisor is talked to. */
  readonly keeperFd: number;
  /** Whether each request and reply is printed. */
  readonly trace: boolean;
  readonly version: string;
  readonly log: Log;
}

/** How long an unmount may take before it is said that the mount is still in use. */
const PATIENCE_MS = 1000;
/** How long a server that is to be replaced waits for what it has on other threads. */
const REPLACED_MS = 2000;
/**
 * A server that has made a mistake is replaced no sooner than this after its start. Who can bring a mistake about on purpose makes
 * the mount stand still for as long, as often as he likes; he must not keep the machine busy with starting servers as well.
 */
const BROKEN_MS = 1000;
const POLL_MS = 5;

/** Runs from the mount to its end, and returns the exit status of the process. */
export async function live(given: LifeOptions): Promise<number> {
  const { log } = given;
  const keeper = new Keeper(new MessageSocket(given.keeperFd, messageMemory()));
  let server: Server | undefined;
  let control: ControlSocket | undefined;
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) {
      control?.close();
      keeper.over();
      process.exit(1);
    }
    if (server !== undefined) void unmount(server, log);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  process.stderr.on('error', () => {});

  const startedMs = Date.now();
  try {
    server = await serve({
      source: given.source,
      mountpoint: given.mountpoint,
      options: given.options,
      keeper,
      log,
      ...(given.trace && { observer: tracer((line) => process.stderr.write(`${line}\n`)) }),
    });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    keeper.failed(error.message);
    return 1;
  }
  const served = server;
  control = await openControl(
    served,
    {
      status: () => statusOf(served, given.version, startedMs),
      mappings: () => heldBy(served),
      restart: () => {
        void replace(served, control, keeper);
        return { pid: process.pid };
      },
    },
    log,
  );
  process.chdir('/');
  keeper.ready(served.facts);
  const watch = onReadable(given.keeperFd, () => {
    if (keeper.listen()) return;
    watch.close();
    log(
      'warning',
      'takeover',
      `The supervisor of ${served.mountpoint} is gone: the mount is served on, and ends if this process does`,
    );
  });
  void served.session.broken.then(async () => {
    log('warning', 'takeover', `The server of ${served.mountpoint} has made a mistake: another takes over`);
    while (Date.now() - startedMs < BROKEN_MS) await pause();
    await replace(served, control, keeper);
  });
  // A signal may have come before there was anything to unmount.
  if (signals > 0) void unmount(served, log);

  const why = await served.ended;
  control?.close();
  if (why !== undefined) log('error', 'mount', `The mount on ${served.mountpoint} ended: ${why}`);
  keeper.over();
  return why === undefined ? 0 : 1;
}

/**
 * Ends this process in favour of another, which gets what isn't answered. A supervisor that doesn't take what it is to hold is
 * stopped, and could start no other: it is waited for as long as that takes.
 */
async function replace(server: Server, control: ControlSocket | undefined, keeper: Keeper): Promise<void> {
  while (keeper.waiting > 0 && !server.session.over) await pause();
  server.stop();
  const deadline = performance.now() + REPLACED_MS;
  while (keeper.waiting > 0 || (answers(server) && performance.now() < deadline)) await pause();
  control?.close();
  keeper.restart();
  process.exit(0);
}

/** Whether requests that wait for a device will be answered. */
function answers({ session }: Server): boolean {
  return session.waiting > 0 && !session.over;
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

async function unmount(server: Server, log: Log): Promise<void> {
  const result = await server.unmount();
  if (result < 0) {
    log('error', 'unmount', `Cannot unmount ${server.mountpoint}: ${errnoText(result)}`);
    return;
  }
  const timer = setTimeout(
    () =>
      log(
        'notice',
        'unmount',
        `${server.mountpoint} is unmounted but still in use: waiting for its last user, a second signal exits`,
      ),
    PATIENCE_MS,
  );
  void server.ended.then(() => clearTimeout(timer));
}

/** A mount without a control socket is a good mount that `status` can't ask; it says so. */
async function openControl(server: Server, commands: Commands, log: Log): Promise<ControlSocket | undefined> {
  try {
    return await openControlSocket(server.facts.minor, commands, (command, error) =>
      server.session.step(`the command "${command}"`, () => {
        throw error;
      }),
    );
  } catch (error) {
    log(
      'error',
      'control',
      `Cannot open the control socket: ${error instanceof Error ? error.message : String(error)}`,
    );
    return undefined;
  }
}
