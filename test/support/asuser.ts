/**
 * Another process, as another user: it runs the operations of `operations.ts` on request. It stays until it is stopped, so
 * descriptors, mappings, locks and the umask of one call are there for the next one, and a call costs 0.1 ms instead of
 * the 100 ms that starting Node takes.
 *
 * The process starts as root and gives up its ids itself, when all its modules are loaded: other users may be unable to
 * read them.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { OperationArguments, OperationName, OperationResult } from './operations.ts';
import { SystemCallError } from './scratch.ts';

export interface User {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups?: readonly number[];
}

/** Nobody's ids on usual systems; tests need no entry in /etc/passwd for them. */
export const alice: User = { uid: 61001, gid: 61001 };
export const bob: User = { uid: 61002, gid: 61002 };
/** A member of alice's group. */
export const carol: User = { uid: 61003, gid: 61003, groups: [61001] };
export const root: User = { uid: 0, gid: 0 };

export interface Request {
  readonly id: number;
  readonly name: OperationName;
  readonly args: readonly unknown[];
}

export interface Failure {
  readonly code: string | undefined;
  readonly message: string;
}

export interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly failure?: Failure;
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class OtherProcess {
  /** How it ended; settles when it is gone. */
  readonly ended: Promise<{ status: number | null; signal: NodeJS.Signals | null }>;
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;

  constructor(user: User) {
    const module = fileURLToPath(new URL('./asuser-child.js', import.meta.url));
    const args = [user.uid, user.gid, ...(user.groups ?? [])].map(String);
    this.#child = fork(module, args, { serialization: 'advanced', execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
    this.pid = this.#child.pid ?? -1;
    this.#child.on('message', (reply: Reply) => this.#settle(reply));
    this.ended = new Promise((resolve) => {
      this.#child.on('exit', (status, signal) => {
        const error = new Error(`The process of uid ${user.uid} ended: ${signal ?? status}`);
        for (const waiting of this.#waiting.values()) waiting.reject(error);
        this.#waiting.clear();
        resolve({ status, signal });
      });
    });
    this.#idle();
  }

  /** Rejects with a `SystemCallError` when the operation failed with an errno. */
  call<K extends OperationName>(name: K, ...args: OperationArguments<K>): Promise<OperationResult<K>> {
    const id = ++this.#lastId;
    const request: Request = { id, name, args };
    const result = new Promise<OperationResult<K>>((resolve, reject) => {
      // The other side runs the function of this name from the same table, so its result has that function's type.
      this.#waiting.set(id, { resolve: (result) => resolve(result as OperationResult<K>), reject });
      this.#child.ref();
      this.#child.channel?.ref();
      this.#child.send(request, (error) => {
        if (error) this.#settle({ id, failure: { code: undefined, message: `Cannot ask the process: ${error}` } });
      });
    });
    // Who started this and failed before awaiting it has an error already; this one must not end the test's process.
    result.catch(() => undefined);
    return result;
  }

  async stop(): Promise<void> {
    this.#child.ref();
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  #settle(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    this.#idle();
    if (reply.failure === undefined) waiting?.resolve(reply.result);
    else waiting?.reject(errorOf(reply.failure));
  }

  /** A process that has nothing to do doesn't keep this one from ending; its own end follows. */
  #idle(): void {
    if (this.#waiting.size > 0) return;
    this.#child.unref();
    this.#child.channel?.unref();
  }
}

function errorOf(failure: Failure): Error {
  if (failure.code === undefined) return new Error(failure.message);
  return new SystemCallError(failure.code, 'in another process', failure.message);
}

const processes = new Map<string, OtherProcess>();

/** The one process of a user, which is started when it is first asked for. */
export function asUser(user: User): OtherProcess {
  const key = [user.uid, user.gid, ...(user.groups ?? [])].join(':');
  const running = processes.get(key);
  if (running) return running;
  const started = new OtherProcess(user);
  processes.set(key, started);
  void started.ended.then(() => {
    if (processes.get(key) === started) processes.delete(key);
  });
  return started;
}

/** The processes that `asUser` started and that still run. */
export function runningUsers(): readonly OtherProcess[] {
  return [...processes.values()];
}

export async function stopUsers(): Promise<void> {
  await Promise.all(runningUsers().map((running) => running.stop()));
}
