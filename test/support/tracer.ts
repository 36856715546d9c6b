/** Failures injected into the system calls of a process that runs: strace(1), --inject. */

import { spawn } from 'node:child_process';

const LIFETIME_SECONDS = 60;

export interface Tracer {
  /** Ends it, and tells how often a call was made to fail. */
  stop(): Promise<number>;
}

/** Resolves once all threads of the process are traced. `how` is what follows the call's name in strace's `inject=`. */
export async function startTracer(pid: number, call: string, how: string): Promise<Tracer> {
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:${how}`];
  const child = spawn(
    'timeout',
    ['-s', 'INT', String(LIFETIME_SECONDS), 'strace', '-f', '-p', String(pid), ...inject],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let injected = 0;
  let text = '';
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (data) => {
      const lines = (text + String(data)).split('\n');
      text = lines.pop() ?? '';
      injected += lines.filter((line) => line.includes('(INJECTED)')).length;
      if (lines.some((line) => line.includes('attached'))) resolve();
    });
    child.on('close', () => reject(new Error(`strace can't trace ${call}: ${text}`)));
  });
  return {
    async stop() {
      child.kill('SIGINT');
      await ended;
      return injected;
    },
  };
}
