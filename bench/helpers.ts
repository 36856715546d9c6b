/** The processes that do what is timed: one for the loops, and many for what is done by many at once. */

import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import type { Part, Span } from './loops/member.ts';
import type { LoopName, Timed, Word } from './loops/prober.ts';

const FOLDER = join(import.meta.dirname, 'loops');

function complaintIn(answer: unknown): string | undefined {
  const said = typeof answer === 'object' && answer !== null && 'error' in answer ? answer.error : undefined;
  return typeof said === 'string' ? said : undefined;
}

/** One message, and the one that comes back. */
function exchange(child: ChildProcess, word: Word | Part): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const heard = (answer: unknown): void => {
      child.off('exit', ended);
      const complaint = complaintIn(answer);
      if (complaint === undefined) resolve(answer);
      else reject(new Error(complaint));
    };
    const ended = (code: number | null): void => {
      child.off('message', heard);
      reject(new Error(`a process that is timed ended with ${code}`));
    };
    child.once('message', heard);
    child.once('exit', ended);
    child.send(word);
  });
}

function isTimed(value: unknown): value is Timed {
  return typeof value === 'object' && value !== null && 'us' in value && 'steps' in value;
}

function isSpan(value: unknown): value is Span {
  return typeof value === 'object' && value !== null && 'from' in value && 'to' in value;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  if (child.connected) child.disconnect();
  await exit;
}

export class Prober {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(join(FOLDER, 'prober.js'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  async #say(word: Word): Promise<Timed> {
    const answer = await exchange(this.#child, word);
    if (!isTimed(answer)) throw new Error(`a process that is timed said ${JSON.stringify(answer)}`);
    return answer;
  }

  async prepare(loop: LoopName, path: string, count: number): Promise<void> {
    await this.#say({ say: 'prepare', loop, path, count });
  }

  go(): Promise<Timed> {
    return this.#say({ say: 'go' });
  }

  async finish(): Promise<void> {
    await this.#say({ say: 'finish' });
  }

  /** All of it, for what needs nothing in between. */
  async time(loop: LoopName, path: string, count: number): Promise<Timed> {
    await this.prepare(loop, path, count);
    const timed = await this.go();
    await this.finish();
    return timed;
  }

  end(): Promise<void> {
    return ended(this.#child);
  }
}

/** Many processes that do the same at once. */
export class Crowd {
  readonly #members: readonly ChildProcess[];

  constructor(size: number) {
    const script = join(FOLDER, 'member.js');
    this.#members = Array.from({ length: size }, () =>
      fork(script, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }),
    );
  }

  get pids(): readonly number[] {
    return this.#members.map(({ pid }) => pid ?? -1);
  }

  /** From the first one's start to the last one's end. */
  async time(loop: Part['loop'], path: string, count: number): Promise<Timed> {
    const each = Math.ceil(count / this.#members.length);
    const spans = await Promise.all(this.#members.map((member) => exchange(member, { loop, path, count: each })));
    const good = spans.filter(isSpan);
    const from = Math.min(...good.map((span) => span.from));
    const to = Math.max(...good.map((span) => span.to));
    return { us: to - from, steps: each * this.#members.length };
  }

  async end(): Promise<void> {
    await Promise.all(this.#members.map(ended));
  }
}
