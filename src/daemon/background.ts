/**
 * Going to the background: the command starts itself again as a session of its own, in the foreground form, with a pipe on
 * which the child says in one line how the mount went.
 *
 *     parent ──spawn──► child: serve() ──► {"ok":true,"minor":57} ──► serves on
 *       waits for the line              └─► {"error":"Cannot …"}  ──► exit 1
 *       exit 0, or the error and exit 1
 */

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { UserError } from '../base/errno.ts';
import type { Log } from './log.ts';
import { logPath, makeRuntimeDirectory, removeEmptyLog, startLogPath } from './runtime.ts';
import { supervise } from './supervisor.ts';

const READY_FD = 3;

export type Outcome = { readonly ok: true; readonly minor: number } | { readonly ok: false; readonly error: string };

/**
 * Runs this program again with other arguments, and returns once its mount answers.
 *
 * @throws UserError with what the child had to say.
 */
export async function startInBackground(program: string, args: readonly string[]): Promise<void> {
  makeRuntimeDirectory();
  const log = startLogPath(process.pid);
  const logFd = openSync(log, 'w', 0o600);
  const child = spawn(process.execPath, [...process.execArgv, program, ...args], {
    detached: true,
    stdio: ['ignore', logFd, logFd, 'pipe'],
    env: {
      ...process.env,
      SHAREDEXT_READY_FD: String(READY_FD),
      SHAREDEXT_LOG: log,
      NOTIFY_SOCKET: '',
    },
  });
  closeSync(logFd);
  // Its session is its own: what is typed here doesn't reach it otherwise.
  const stop = (): void => void child.kill('SIGTERM');
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  const end = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(`it could not be started (${error.message})`));
    child.on('exit', (code, signal) =>
      resolve(signal === null ? `it exited with ${code}` : `it was ended by ${signal}`),
    );
  });
  let line = '';
  const pipe = child.stdio[READY_FD];
  if (pipe !== null && pipe !== undefined && 'on' in pipe) {
    await new Promise<void>((resolve) => {
      pipe.on('data', (data: Buffer) => {
        line += data.toString();
      });
      pipe.on('close', resolve);
      pipe.on('error', () => resolve());
    });
  }
  const outcome = parseOutcome(line);
  if (outcome?.ok === true) {
    child.unref();
    return;
  }
  const how = await end;
  const said = readFileSync(log, 'utf8').trim();
  rmSync(log, { force: true });
  throw new UserError(
    outcome?.error ?? `Cannot mount: the daemon ended before the mount was ready, ${how}\n${said}`.trim(),
  );
}

function parseOutcome(line: string): Outcome | undefined {
  if (!line.endsWith('\n')) return undefined;
  const value: unknown = JSON.parse(line);
  if (typeof value !== 'object' || value === null || !('ok' in value)) return undefined;
  if (value.ok === true && 'minor' in value) return { ok: true, minor: Number(value.minor) };
  return { ok: false, error: 'error' in value ? String(value.error) : 'unknown error' };
}

/**
 * Supervises a mount in this process, from its start to its end, and tells whoever started it in the background. Returns the
 * exit status.
 *
 * @throws UserError when there is no mount, and nobody else is told.
 */
export async function superviseMount(program: string, args: readonly string[], log: Log): Promise<number> {
  const starter = starterOf(process.env);
  delete process.env['SHAREDEXT_READY_FD'];
  delete process.env['SHAREDEXT_LOG'];
  let failure: string | undefined;
  let mounted = false;
  // The terminal that a daemon was started from may go away.
  if (starter !== undefined) process.on('SIGHUP', () => {});
  const status = await supervise({
    program,
    args,
    log,
    started(outcome) {
      if ('error' in outcome) {
        if (starter === undefined) failure = outcome.error;
        else starter.report({ ok: false, error: outcome.error });
        return true;
      }
      mounted = true;
      return starter?.report({ ok: true, minor: outcome.facts.minor }) ?? true;
    },
  });
  if (failure !== undefined) throw new UserError(failure);
  // Whoever started it reads the log of what never was.
  if (mounted) starter?.end();
  return status;
}

/** The child's side: undefined for a process that was not started by `startInBackground`. */
export interface Starter {
  /**
   * Says how it went; to be called once. Where it went well, nothing of the starter's surroundings is held from here on.
   * Returns false when nobody listens any more: the starter was killed, and nobody knows of the mount.
   */
  report(outcome: Outcome): boolean;
  /** Takes the log away if nothing is in it. */
  end(): void;
}

export function starterOf(environment: NodeJS.ProcessEnv): Starter | undefined {
  const { SHAREDEXT_READY_FD, SHAREDEXT_LOG } = environment;
  if (SHAREDEXT_READY_FD === undefined || SHAREDEXT_LOG === undefined) return undefined;
  const fd = Number(SHAREDEXT_READY_FD);
  let log = SHAREDEXT_LOG;
  return {
    report(outcome) {
      if (outcome.ok) {
        const named = logPath(outcome.minor);
        renameSync(log, named);
        log = named;
        process.chdir('/');
      }
      try {
        writeSync(fd, `${JSON.stringify(outcome)}\n`);
        return true;
      } catch {
        return false;
      } finally {
        closeSync(fd);
      }
    },
    end() {
      removeEmptyLog(log);
    },
  };
}
