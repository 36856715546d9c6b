/** What the timed loops have in common: they call the C library on paths that lie in memory before the clock starts. */

import * as c from '../../src/base/linux.ts';
import { putString } from '../../src/base/memory.ts';
import * as libc from '../../src/sys/libc.ts';
import { allocate } from '../../src/sys/memory.ts';

export interface Given {
  readonly path: string;
  readonly count: number;
}

export interface Loop {
  /** Whatever must be so before each run, and isn't timed. */
  readonly before?: () => void;
  /** Returns how many steps it took. */
  readonly timed: () => number;
  readonly after?: () => void;
}

export type MakeLoop = (given: Given) => Loop;

export const BUFFER_BYTES = 1 << 20;
const PATH_BYTES = 256;
/** Memory that nobody touches costs nothing. */
const MOST_PATHS = 1 << 18;
/** Two for loops, and one for the path of a single open. */
const AREAS = 3;
const SINGLE = 2;

export const buffer = allocate('buffer', BUFFER_BYTES);
export const attributes = allocate('statx', 512);
const areas = Array.from({ length: AREAS }, () => allocate('paths', MOST_PATHS * PATH_BYTES));

export function good(value: number): number {
  if (value < 0) throw new Error(`error ${-value}`);
  return value;
}

/** Puts NUL-terminated paths into memory, where they stay until the area is used again, and returns the addresses. */
export function placed(paths: readonly string[], area = 0): readonly number[] {
  const memory = areas[area];
  if (memory === undefined || paths.length > MOST_PATHS) throw new Error(`no room for ${paths.length} paths`);
  return paths.map((path, index) => {
    putString(memory, index * PATH_BYTES, path);
    return memory.address + index * PATH_BYTES;
  });
}

/** The files of a folder that has file-0, file-1 and so on: it needn't be read for their names. */
export function numbered({ path, count }: Given, area = 0, name = 'file'): readonly number[] {
  return placed(
    Array.from({ length: count }, (_, index) => `${path}/${name}-${index}`),
    area,
  );
}

export function opened(path: number, flags: number): number {
  return good(libc.openat(c.AT_FDCWD, path, flags, 0o644));
}

export function openedPath(path: string, flags: number): number {
  const [address = 0] = placed([path], SINGLE);
  return opened(address, flags);
}

export function statAt(path: number, flags: number): void {
  good(libc.statx(c.AT_FDCWD, path, flags, c.STATX_BASIC_STATS, attributes.address));
}
