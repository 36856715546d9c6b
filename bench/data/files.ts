/** The content of the data section: large files that share nothing, are clones, or are clones that have diverged. */

import { randomFillSync } from 'node:crypto';
import { closeSync, copyFileSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../src/demo/commands.ts';
import type { PlaceName } from '../places.ts';

/** What part of a diverged file differs from its origin. */
export const CHANGED = 0.02;
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;
/** A small program that needs nothing but the C library. */
const PROGRAM = '/bin/true';

function writeRandom(path: string, bytes: number): void {
  const chunk = new Uint8Array(CHUNK_BYTES);
  const fd = openSync(path, 'w');
  for (let done = 0; done < bytes; done += chunk.length)
    writeSync(fd, randomFillSync(chunk), 0, Math.min(chunk.length, bytes - done));
  closeSync(fd);
}

/** Overwrites some blocks, others in each file. */
function diverge(path: string, bytes: number, seed: number): void {
  const fd = openSync(path, 'r+');
  const block = new Uint8Array(BLOCK_BYTES);
  const blocks = Math.floor(bytes / BLOCK_BYTES);
  let state = seed;
  for (let i = 0; i < blocks * CHANGED; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    writeSync(fd, randomFillSync(block), 0, BLOCK_BYTES, (state % blocks) * BLOCK_BYTES);
  }
  closeSync(fd);
}

function clone(from: string, to: string): Promise<string> {
  return run('cp', ['-a', '--reflink=always', from, to]);
}

export interface FileSizes {
  readonly fileBytes: number;
  readonly ballastBytes: number;
}

/**
 *     own                        shares nothing
 *     origin, clone, sibling     equal
 *     disk, other-disk           clones of the origin that have diverged
 *     own-PLACE, disk-PLACE      the same, to be written to by one place each
 *     bin/program, bin/clone     a program, and a clone of it
 *     ballast                    what takes the scattered pages
 */
export async function fillForData(source: string, sizes: FileSizes, places: readonly PlaceName[]): Promise<void> {
  const bytes = sizes.fileBytes;
  const at = (name: string): string => join(source, name);
  writeRandom(at('own'), bytes);
  writeRandom(at('origin'), bytes);
  writeRandom(at('ballast'), sizes.ballastBytes);
  mkdirSync(at('bin'));
  for (const name of ['bin/program', 'bin/origin']) copyFileSync(PROGRAM, at(name));
  for (const name of places) writeRandom(at(`own-${name}`), bytes);
  await run('sync', ['-f', source]);
  for (const name of ['clone', 'sibling']) await clone(at('origin'), at(name));
  await clone(at('bin/origin'), at('bin/clone'));
  for (const [seed, name] of ['disk', 'other-disk', ...places.map((place) => `disk-${place}`)].entries()) {
    await clone(at('origin'), at(name));
    diverge(at(name), bytes, seed);
  }
  await run('sync', ['-f', source]);
}

/**
 * Leaves nothing in memory but the ballast. The kernel gives out first what was freed last, page by page: a file that is read right after
 * much was dropped lies in pages of which each is before the other, and is read up to three times slower than in neighbouring ones (70
 * to 213 µs per MiB, by the runs that /proc/kpageflags shows; a virtual machine with nested page tables). The ballast takes those pages.
 */
export async function useUpScattered(source: string): Promise<void> {
  writeFileSync('/proc/sys/vm/drop_caches', '1');
  await run('dd', [`if=${join(source, 'ballast')}`, 'of=/dev/null', 'bs=1M']);
}
