/**
 * Applications: programs that people run, each as a function of a directory. They are run on a bare filesystem first (the
 * control) and then on a mount, where they must see and print what they saw and printed on the control.
 *
 * A mount gives readers of a shared file one inode and, once somebody writes to it, everybody else another one. So all the
 * files that are there before an application starts have clones, and were read through the mount a moment ago; readers open
 * first, writers later, all of them through the mount.
 */

import { writeFileSync } from 'node:fs';
import type { Need } from './needs.ts';

/** What an application saw, to be compared: without times, process ids and paths, which are others on each filesystem. */
export type Seen = string | number | boolean | null | readonly Seen[] | { readonly [key: string]: Seen };

export interface Case {
  /** A sentence that says what happens. */
  readonly name: string;
  /** The case is skipped where one of them is missing. */
  readonly needs?: readonly Need[];
  /** Makes what is there before the application starts, in an empty directory of a bare filesystem. */
  prepare(dir: string): void | Promise<void>;
  /**
   * Runs the application and asserts what is known to be true. Only other processes may touch `dir`: it may be on the mount.
   * `behind` is the same directory on the source; of the control it is the directory itself.
   */
  run(dir: string, behind: string): Promise<Seen>;
}

export interface Subject {
  readonly subject: string;
  readonly cases: readonly Case[];
}

/** Numbered lines that show where they came from: `bytes` of them or a few more, too much for btrfs to keep in its tree. */
export function lines(word: string, bytes = 20_000): string {
  let text = '';
  for (let number = 1; text.length < bytes; number++) text += `${word} line ${number}\n`;
  return text;
}

/** Makes a file on the bare filesystem. */
export function put(file: string, content: string | Uint8Array, mode = 0o644): void {
  writeFileSync(file, content, { flag: 'wx', mode });
}
