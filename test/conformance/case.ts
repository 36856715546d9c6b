/**
 * Conformance cases: what POSIX and Linux promise about files, each as a function of a directory. They are run on a bare
 * filesystem first (the control) and then on a mount, where they must go as they went on the control.
 *
 * The cases use synchronous system calls in this process, so a mount that they run on is served by another one.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import * as posix from '../support/posix.ts';
import type { Name } from '../support/scratch.ts';
import type { Feature } from './features.ts';

export interface Case {
  /** A sentence that says what holds. */
  readonly name: string;
  /** What a filesystem may lack; the case is skipped there, and the reason given. */
  readonly needs?: readonly Feature[];
  /** Gets a directory of its own: empty, of root, mode 0755. All folders above can be searched by everyone. */
  run(dir: string): void | Promise<void>;
}

export interface Subject {
  readonly subject: string;
  readonly cases: readonly Case[];
}

/** Asserts that a call fails with an errno, or with one of those that POSIX leaves open. */
export function fails(code: string | RegExp, act: () => unknown): void {
  assert.throws(act, { code });
}

/** Asserts that a call of another process fails with an errno. */
export async function refused(code: string, act: Promise<unknown>): Promise<void> {
  await assert.rejects(act, { code });
}

/** Opens, uses and closes. */
export function withFile<T>(name: Name, flags: number, use: (fd: number) => T, mode = 0o666): T {
  const fd = posix.open(name, flags, mode);
  try {
    return use(fd);
  } finally {
    posix.close(fd);
  }
}

/** The same where the use takes time: another process works meanwhile. */
export async function whileOpen(name: Name, flags: number, use: (fd: number) => Promise<void>): Promise<void> {
  const fd = posix.open(name, flags);
  try {
    await use(fd);
  } finally {
    posix.close(fd);
  }
}

/**
 * Looks again and again while something goes on elsewhere, and waits for its end also when a look fails: what goes on must
 * not reach into the next case.
 */
export async function meanwhile(going: Promise<void>, look: () => void): Promise<void> {
  let ended = false;
  const end = going.finally(() => {
    ended = true;
  });
  try {
    while (!ended) {
      look();
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await end;
  }
}

/** Makes a new file. */
export function put(name: Name, content: string | Uint8Array = '', mode = 0o644): void {
  withFile(
    name,
    posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY,
    (fd) => {
      posix.fchmod(fd, mode);
      for (let at = 0; at < content.length; at += 65536) posix.write(fd, content.slice(at, at + 65536));
    },
    0o600,
  );
}

/** The content of a file as text, one character per byte. */
export function textOf(name: Name): string {
  return readFileSync(name, 'latin1');
}

/** The permission bits, with set-user-ID, set-group-ID and sticky. */
export function modeOf(name: Name): number {
  return posix.stat(name).mode & 0o7777;
}

export function sizeOf(name: Name): number {
  return posix.stat(name).size;
}

export function exists(name: Name): boolean {
  try {
    posix.lstat(name);
    return true;
  } catch {
    return false;
  }
}

/** The names in a directory, sorted by their bytes, one character per byte. */
export function namesIn(dir: Name): string[] {
  return posix
    .entriesOf(dir)
    .map((entry) => entry.name.toString('latin1'))
    .sort();
}

/** A name in a directory, for names that aren't UTF-8. */
export function bytesUnder(dir: string, name: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${dir}/`), name]);
}

/**
 * Waits until the kernel's coarse clock has moved: filesystems stamp times with it, at worst every 10 ms (CONFIG_HZ=100).
 */
export function tick(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 12);
}

/** Bytes that show where they came from: no two aligned groups of four are equal. */
export function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at / 4 + seed * 0x1000_0000) >>> 0, at);
  return bytes;
}
