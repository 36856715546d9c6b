/** Programs run in a tree, as in a container: chroot(8), and nothing of the machine but its kernel. */

import { spawn } from 'node:child_process';
import { UserError } from '../../src/base/errno.ts';
import type { Program } from './image.ts';

export interface Running {
  /** From the start of chroot to the first word. */
  readonly startedMs: number;
  /** Ends the program and waits for it. */
  end(): Promise<void>;
}

/** Starts a program and waits for its first word. @throws UserError when it ends without one. */
export function start(root: string, { name, words }: Program, signal: AbortSignal): Promise<Running> {
  const begun = performance.now();
  const child = spawn('chroot', [root, ...words], { detached: true, killSignal: 'SIGKILL', signal });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-1024);
  });
  // A program that was killed doesn't read the end of its input.
  child.stdin.on('error', () => {});
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdout.once('data', () => {
      resolve({
        startedMs: performance.now() - begun,
        end: async () => {
          child.stdin.end();
          await ended;
        },
      });
    });
    void ended.then(() => {
      const why = complaint.trim().split('\n').at(-1) ?? '';
      reject(new UserError(`Cannot run ${name} in ${root}: ${why || 'it ended without a word'}`));
    });
  });
}
