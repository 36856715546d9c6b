/**
 * The life of one daemon process: mounts, opens its control socket, says that it is ready, serves, and ends with its mount.
 * The first SIGINT or SIGTERM unmounts; a mount that is in use is detached then, and the process ends when its last user
 * does. The second one exits at once: the mount's last users get errors, and the next mount empties the store.
 */

import { errnoText, UserError } from '../base/errno.ts';
import { tracer } from '../fuse/server/trace.ts';
import { notifyServiceManager } from '../sys/notify.ts';
import { starterOf } from './background.ts';
import { type ControlSocket, openControlSocket } from './control.ts';
import { heldBy } from './held.ts';
import type { MountOptions } from './options.ts';
import { type Server, serve } from './server.ts';
import { statusOf } from './status.ts';

export interface LifeOptions {
  readonly source: string;
  readonly mountpoint: string;
  readonly options: MountOptions;
  /** Whether each request and reply is printed. */
  readonly trace: boolean;
  readonly version: string;
  /** Prints a line for people. */
  readonly log: (line: string) => void;
}

/** How long an unmount may take before it is said that the mount is still in use. */
const PATIENCE_MS = 1000;

/** Runs from the mount to its end, and returns the exit status of the process. */
export async function live(given: LifeOptions): Promise<number> {
  const { log } = given;
  const starter = starterOf(process.env);
  let server: Server | undefined;
  let control: ControlSocket | undefined;
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) {
      control?.close();
      process.exit(1);
    }
    if (server !== undefined) void unmount(server, log);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // The terminal that a daemon was started from may go away, and so may whoever reads what is printed.
  process.on('SIGHUP', starter === undefined ? onSignal : () => {});
  process.stderr.on('error', () => {});

  const startedMs = Date.now();
  try {
    server = await serve({
      source: given.source,
      mountpoint: given.mountpoint,
      options: given.options,
      log,
      ...(given.trace && { observer: tracer((line) => process.stderr.write(`${line}\n`)) }),
    });
  } catch (error) {
    if (starter === undefined || !(error instanceof UserError)) throw error;
    starter.report({ ok: false, error: error.message });
    return 1;
  }
  control = await openControl(server, given.version, startedMs, log);
  const wanted = starter?.report({ ok: true, minor: server.minor }) ?? true;
  notifyServiceManager('READY=1');
  // A signal may have come before there was anything to unmount.
  if (signals > 0 || !wanted) void unmount(server, log);

  const why = await server.ended;
  notifyServiceManager('STOPPING=1');
  control?.close();
  if (why !== undefined) log(`The mount on ${server.mountpoint} ended: ${why}`);
  starter?.end();
  return why === undefined ? 0 : 1;
}

async function unmount(server: Server, log: (line: string) => void): Promise<void> {
  const result = await server.unmount();
  if (result < 0) {
    log(`Cannot unmount ${server.mountpoint}: ${errnoText(result)}`);
    return;
  }
  const timer = setTimeout(
    () => log(`${server.mountpoint} is unmounted but still in use: waiting for its last user, a second signal exits`),
    PATIENCE_MS,
  );
  void server.ended.then(() => clearTimeout(timer));
}

/** A mount without a control socket is a good mount that `status` can't ask; it says so. */
async function openControl(
  server: Server,
  version: string,
  startedMs: number,
  log: (line: string) => void,
): Promise<ControlSocket | undefined> {
  try {
    return await openControlSocket(server.minor, {
      status: () => statusOf(server, version, startedMs),
      mappings: () => heldBy(server),
    });
  } catch (error) {
    log(`Cannot open the control socket: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}
