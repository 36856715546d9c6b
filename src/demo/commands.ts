/**
 * Other programs, run for the demo. Those that change the machine (mkfs, losetup, mount) are short and are never
 * interrupted, so that what they made is always known; those that may take long end with the demo's signal.
 */

import { spawn } from 'node:child_process';
import { UserError } from '../base/errno.ts';

const SHORT_TIMEOUT_MS = 60_000;

/**
 * Resolves with the standard output.
 *
 * @throws UserError when the program is missing or fails, with the last line that it said.
 */
export function run(command: string, words: readonly string[], signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const limit = signal === undefined ? { timeout: SHORT_TIMEOUT_MS } : { signal };
    const child = spawn(command, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C on a terminal is for the demo, which then ends its children in order.
      detached: true,
      killSignal: 'SIGKILL',
      ...limit,
    });
    let output = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-4096);
    });
    let failure: Error | undefined;
    child.on('error', (error) => {
      failure = error;
      // A program that never started has no close event to wait for.
      if (child.pid === undefined) reject(new UserError(`Cannot run ${command}: ${error.message}, is it installed?`));
    });
    child.on('close', (code, ended) => {
      if (failure !== undefined) reject(failure);
      else if (code === 0) resolve(output);
      else {
        const why = complaint.trim().split('\n').at(-1) ?? '';
        reject(new UserError(`Cannot run ${command} ${words.join(' ')}: ${why || (ended ?? `exit status ${code}`)}`));
      }
    });
  });
}
