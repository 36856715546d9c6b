/**
 * The supervisor of a mount: a process that does nothing but hold what a server needs (`/dev/fuse`, the memory file of its state, the
 * directories) and start another server when one dies. It knows nothing of files.
 *
 *     start ──► server: ready ──► served ──over──► end, 0
 *                 │ failed: end, 1   │ killed, crashed: wait if it died early, start the next
 *                 ▼                  │ died early too often: end, 1 ──► the connection is aborted, the mount detached
 *
 * While no server runs, the kernel queues requests; reads, writes and maps by passthrough go on.
 */

import { spawn } from 'node:child_process';
import { EAGAIN, ECONNRESET, errnoText, UserError } from '../base/errno.ts';
import { MNT_DETACH } from '../base/linux.ts';
import { close, onReadable, umount2 } from '../sys/libc.ts';
import { notifyServiceManager } from '../sys/notify.ts';
import { MessageSocket, messageMemory, messageSockets } from '../sys/rights.ts';
import { type Facts, isFacts, KEEPER_FD, KEEPER_VARIABLE, splitMessage } from './keeping.ts';
import type { Log } from './log.ts';
import { Outbox } from './outbox.ts';
import { Watches } from './watches.ts';

/** A server that lived no longer than this after it had been ready, or never was, died early. */
const EARLY_MS = 100;
/** So many early deaths in a row are too many. */
const MAX_EARLY = 8;
/** The wait before the next start doubles with each early death, from the second on. */
const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 5000;

export interface SupervisorOptions {
  readonly program: string;
  readonly args: readonly string[];
  readonly log: Log;
  /** Told once: the mount answers, or why there is none. Returns whether anybody wants it. */
  readonly started: (outcome: { readonly facts: Facts } | { readonly error: string }) => boolean;
}

/** How a server ended. */
interface Ending {
  readonly kind: 'over' | 'failed' | 'restart' | 'died';
  readonly how: string;
  /** Since it was ready; negative without end if it never was. */
  readonly livedMs: number;
  readonly code: number;
}

class Supervisor {
  readonly #o: SupervisorOptions;
  readonly #held = new Map<string, number>();
  #facts: Facts | undefined;
  #watches: Watches | undefined;
  #pid = 0;
  readonly #memory = messageMemory();
  #readyMs = 0;
  #said: Ending['kind'] = 'died';
  #reason = '';

  constructor(options: SupervisorOptions) {
    this.#o = options;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#pid === 0) return;
    try {
      process.kill(this.#pid, signal);
    } catch {
      // It has just ended.
    }
  }

  /** Runs servers until the mount ends; returns the exit status. */
  async run(): Promise<number> {
    for (let early = 0; ; ) {
      const ending = await this.#serve();
      if (ending.kind === 'over') return ending.code;
      if (this.#facts === undefined) {
        const error = this.#reason || `Cannot mount: the server ended before the mount was ready, ${ending.how}`;
        this.#o.started({ error });
        return 1;
      }
      const { mountpoint } = this.#facts;
      if (ending.kind === 'failed') return this.#giveUp(this.#reason);
      if (ending.kind === 'restart') continue;
      this.#o.log(
        'warning',
        'takeover',
        `the server of ${mountpoint} ended unexpectedly, ${ending.how}: another takes over`,
      );
      early = ending.livedMs < EARLY_MS ? early + 1 : 0;
      if (early >= MAX_EARLY)
        return this.#giveUp(`it ended ${early} times within ${EARLY_MS} ms, at last ${ending.how}`);
      if (early > 1) await wait(Math.min(FIRST_WAIT_MS * 2 ** (early - 2), LONGEST_WAIT_MS));
    }
  }

  #giveUp(reason: string): number {
    const mountpoint = this.#facts?.mountpoint ?? '';
    this.#o.log(
      'error',
      'takeover',
      `Cannot go on serving ${mountpoint}: ${reason}; the mount has been ended, mount it again`,
    );
    notifyServiceManager(`STATUS=${reason}`);
    // The last copy of /dev/fuse: the kernel ends the connection, and whoever waits gets an error.
    for (const fd of this.#held.values()) close(fd);
    umount2(mountpoint, MNT_DETACH);
    return 1;
  }

  /** One server, from its start to its end. */
  async #serve(): Promise<Ending> {
    const pair = messageSockets(this.#memory);
    if (typeof pair === 'number') throw new UserError(`Cannot make sockets for the server: ${errnoText(pair)}`);
    const [ours, theirs] = pair;
    const socket = new MessageSocket(ours, this.#memory);
    this.#said = 'died';
    this.#readyMs = Number.POSITIVE_INFINITY;
    const child = spawn(process.execPath, [...process.execArgv, this.#o.program, ...this.#o.args], {
      // What is typed at a terminal comes to the supervisor alone, which passes it on.
      detached: true,
      stdio: ['inherit', 'inherit', 'inherit', theirs],
      env: { UV_THREADPOOL_SIZE: '16', ...process.env, [KEEPER_VARIABLE]: String(KEEPER_FD) },
    });
    const end = new Promise<{ how: string; code: number }>((resolve) => {
      child.on('error', (error) => resolve({ how: `it could not be started (${error.message})`, code: 1 }));
      child.on('exit', (code, signal) =>
        resolve({ how: signal === null ? `with status ${code}` : `by ${signal}`, code: code ?? 1 }),
      );
    });
    close(theirs);
    this.#pid = child.pid ?? 0;
    // A server that is stopped, or dead, takes nothing: it mustn't be waited for.
    const outbox = new Outbox(socket);
    for (const [name, fd] of this.#held) outbox.keep(name, fd);
    outbox.say(`go ${JSON.stringify(this.#facts ?? null)}`);
    const readiness = onReadable(ours, () => {
      if (!this.#listen(socket, outbox)) readiness.close();
    });
    const { how, code } = await end;
    this.#pid = 0;
    this.#listen(socket, outbox);
    outbox.clear();
    readiness.close();
    close(ours);
    return { kind: this.#said, how, code, livedMs: performance.now() - this.#readyMs };
  }

  /** Takes what the server has said; returns whether it may say more. */
  #listen(socket: MessageSocket, outbox: Outbox): boolean {
    for (;;) {
      const message = socket.receive(false);
      // Told once, before what is still there to be read: the server died without having read all that it was told (unix(7)).
      if (message === -ECONNRESET) continue;
      if (typeof message === 'number') return message === -EAGAIN;
      const [word, rest] = splitMessage(message.text);
      if (word === 'keep') {
        this.#hold(rest, message.fd);
        if (message.fd < 0) outbox.say(`unkept ${rest}`);
      } else if (word === 'drop') for (const name of rest.split(' ')) this.#hold(name, -1);
      else if (word === 'ready') this.#ready(JSON.parse(rest));
      else if (word === 'wake') this.#watches?.wake(rest);
      else if (word === 'over' || word === 'restart') this.#said = word;
      else if (word === 'failed') {
        this.#said = word;
        this.#reason = rest;
      }
    }
  }

  /** Holds a descriptor by a name, instead of the one that was held by it; -1 for none. */
  #hold(name: string, fd: number): void {
    const old = this.#held.get(name);
    if (old !== undefined) close(old);
    if (fd >= 0) this.#held.set(name, fd);
    else this.#held.delete(name);
  }

  #ready(facts: unknown): void {
    if (!isFacts(facts)) return;
    this.#watches ??= new Watches(facts.mountpoint, facts.minor);
    this.#readyMs = performance.now();
    const first = this.#facts === undefined;
    this.#facts = facts;
    if (!first) return;
    notifyServiceManager('READY=1');
    if (!this.#o.started({ facts })) this.signal('SIGTERM');
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Supervises a mount from its start to its end; returns the exit status. */
export async function supervise(options: SupervisorOptions): Promise<number> {
  const supervisor = new Supervisor(options);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => supervisor.signal(signal));
  if (process.listenerCount('SIGHUP') === 0) process.on('SIGHUP', () => supervisor.signal('SIGTERM'));
  process.stderr.on('error', () => {});
  const status = await supervisor.run();
  notifyServiceManager('STOPPING=1');
  return status;
}
