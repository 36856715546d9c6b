/** The processes of an application. Each has its own group and a bounded life, and the runner ends what a case left. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { until } from '../support/wait.ts';

/** Longer than a case may take. */
const LIFETIME_SECONDS = '120';

/** How a program ended, and what it printed. */
export type Outcome = { readonly status: number | null; readonly stdout: string; readonly stderr: string };

const living = new Set<Program>();

/** A program that runs in a directory, with its standard streams. */
export class Program {
  /** What it has printed so far. */
  stdout = '';
  stderr = '';
  readonly #command: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<number | null>;
  #running = true;

  constructor(dir: string, command: string, args: readonly string[]) {
    this.#command = [command, ...args].join(' ').slice(0, 200);
    this.#child = spawn('timeout', ['--signal=KILL', LIFETIME_SECONDS, command, ...args], {
      cwd: dir,
      detached: true,
      env: { ...process.env, LC_ALL: 'C' },
    });
    this.#child.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.stdout += text;
    });
    this.#child.stderr.setEncoding('latin1').on('data', (text: string) => {
      this.stderr += text;
    });
    // A program may end before it has read all that it was sent: its status tells.
    this.#child.stdin.on('error', () => undefined);
    this.#ended = new Promise((resolve) => {
      const settle = (status: number | null) => {
        this.#running = false;
        resolve(status);
      };
      this.#child.on('error', () => settle(null));
      this.#child.on('close', settle);
    });
    living.add(this);
  }

  write(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Waits until it has printed something that matches. */
  says(what: RegExp): Promise<void> {
    return this.#prints(what, () => this.stdout);
  }

  /** The same for its standard error. */
  complains(what: RegExp): Promise<void> {
    return this.#prints(what, () => this.stderr);
  }

  async #prints(what: RegExp, printed: () => string): Promise<void> {
    await until(`${this.#command} prints ${what}`, () => {
      if (what.test(printed())) return true;
      if (!this.#running) throw new Error(`${this.#command} ended without ${what}: ${this.stdout}${this.stderr}`);
      return false;
    });
  }

  /** Closes its input and waits for its end. */
  async end(): Promise<Outcome> {
    this.#child.stdin.end();
    const status = await this.#ended;
    living.delete(this);
    return { status, stdout: this.stdout, stderr: this.stderr };
  }

  /** Ends it and all that it has started, and waits until they are gone. */
  async kill(): Promise<void> {
    const { pid } = this.#child;
    if (pid !== undefined) {
      await until(`the end of ${this.#command}`, () => {
        const members = membersOf(pid);
        for (const member of members) killed(member);
        return members.length === 0;
      });
    }
    await this.#ended;
    living.delete(this);
  }
}

/** The processes of a group; a zombie has given back all that it had. proc_pid_stat(5). */
function membersOf(group: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      const [state, , pgrp] = afterName(pid);
      return pgrp === String(group) && state !== 'Z' && state !== 'X';
    })
    .map(Number);
}

/** The fields after the name, which may have blanks in it; none when the process has ended. */
function afterName(pid: string): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

function killed(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

export function start(dir: string, command: string, ...args: readonly string[]): Program {
  return new Program(dir, command, args);
}

/** Runs a program to its end, however it ends. */
export function outcome(dir: string, command: string, ...args: readonly string[]): Promise<Outcome> {
  return start(dir, command, ...args).end();
}

/** What a program prints; rejects when it fails. */
export async function output(dir: string, command: string, ...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await outcome(dir, command, ...args);
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ').slice(0, 200)} ended with ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** Runs a line of shell to its end; rejects when it fails. */
export function shell(dir: string, line: string): Promise<string> {
  return output(dir, 'sh', '-c', line);
}

/** Ends all programs that still run. */
export async function stopAll(): Promise<void> {
  for (const program of living) await program.kill();
}
