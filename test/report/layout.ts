/** Files of which it is known which of their pages lie on the same bytes of the filesystem, and which are in memory. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { POSIX_FADV_RANDOM } from '../../src/base/linux.ts';
import { Residency } from '../../src/pagecache/residency.ts';
import * as libc from '../../src/sys/libc.ts';
import { allocate } from '../../src/sys/memory.ts';
import { Random } from '../mount/random.ts';
import * as posix from '../support/posix.ts';

export const PAGE = 4096;
const residency = new Residency(libc, allocate('residency', 65_536));

/** A file by the numbers of its pages' contents: equal numbers lie on the same extent at the same place. */
export interface Known {
  readonly path: string;
  readonly pages: number[];
}

/** One change of the files; numbers are taken modulo what there is. */
export interface Step {
  readonly act: 'write' | 'clone' | 'share' | 'dedupe';
  readonly from: number;
  readonly to: number;
  readonly first: number;
  readonly count: number;
  readonly at: number;
}

/** Lays out files below a folder. Equal content with different numbers isn't shared. */
export class Layout {
  readonly files: Known[] = [];
  readonly #folder: string;
  readonly #compressible: boolean;
  #contents = 0;
  /** What a content's bytes are made from: contents with the same bytes have the same. */
  readonly #seeds: number[] = [];

  constructor(folder: string, compressible: boolean) {
    this.#folder = folder;
    this.#compressible = compressible;
    mkdirSync(folder, { recursive: true });
  }

  add(pages: number): Known {
    const file: Known = { path: join(this.#folder, `file${this.files.length}`), pages: [] };
    this.write(file, 0, pages);
    this.files.push(file);
    return file;
  }

  step({ act, from, to, first, count, at }: Step): void {
    const source = this.#file(from);
    const target = this.#file(to);
    const pages = 1 + (count % Math.min(source.pages.length, target.pages.length));
    const start = first % (source.pages.length - pages + 1);
    const place = at % (target.pages.length - pages + 1);
    if (act === 'write') this.write(target, place, pages);
    else if (act === 'clone') this.#clone(source);
    else if (source === target && Math.abs(start - place) < pages) this.write(target, place, pages);
    else if (act === 'share') this.#share(source, start, pages, target, place);
    else this.#dedupe(source, start, pages, target, place);
  }

  /** What a snapshot of the folder, which is a subvolume, has. */
  snapshot(path: string): void {
    posix.snapshot(this.#folder, path);
    this.files.push(
      ...this.files.map((file) => ({ path: file.path.replace(this.#folder, path), pages: [...file.pages] })),
    );
  }

  write(file: Known, first: number, count: number): void {
    const seeds = Array.from({ length: count }, () => this.#contents + this.#seeds.length + 1);
    this.#write(
      file,
      first,
      seeds.map((seed, i) => seed * 1000 + i),
    );
  }

  #file(number: number): Known {
    const file = this.files[number % this.files.length];
    assert.ok(file !== undefined);
    return file;
  }

  #write(file: Known, first: number, seeds: readonly number[]): void {
    const data = Buffer.concat(seeds.map((seed) => this.#bytes(seed)));
    const fd = posix.open(file.path, posix.O_RDWR | posix.O_CREAT);
    posix.write(fd, data, first * PAGE);
    posix.fsync(fd);
    posix.close(fd);
    seeds.forEach((seed, i) => {
      this.#seeds[this.#contents] = seed;
      file.pages[first + i] = this.#contents++;
    });
  }

  #bytes(seed: number): Buffer {
    const data = new Random(seed).bytes(PAGE);
    return this.#compressible ? data.fill(7, 0, 3500) : data;
  }

  #clone(from: Known): void {
    const path = join(this.#folder, `file${this.files.length}`);
    posix.reflink(from.path, path);
    this.files.push({ path, pages: [...from.pages] });
  }

  #share(from: Known, first: number, count: number, to: Known, at: number): void {
    withBoth(from, to, (fromFd, toFd) => posix.reflinkRange(fromFd, first * PAGE, count * PAGE, toFd, at * PAGE));
    this.#same(from, first, count, to, at);
  }

  /** Writes the same bytes again, and has the filesystem find that out. */
  #dedupe(from: Known, first: number, count: number, to: Known, at: number): void {
    const seeds = from.pages.slice(first, first + count).map((content) => this.#seeds[content] ?? 0);
    this.#write(to, at, seeds);
    let shared = 0;
    withBoth(from, to, (fromFd, toFd) => {
      shared = posix.dedupeRange(fromFd, first * PAGE, count * PAGE, toFd, at * PAGE);
    });
    this.#same(from, first, shared / PAGE, to, at);
  }

  #same(from: Known, first: number, count: number, to: Known, at: number): void {
    const contents = from.pages.slice(first, first + count);
    contents.forEach((content, i) => {
      to.pages[at + i] = content;
    });
  }
}

function withBoth(from: Known, to: Known, act: (fromFd: number, toFd: number) => void): void {
  const fromFd = posix.open(from.path, posix.O_RDONLY);
  const toFd = posix.open(to.path, posix.O_RDWR);
  try {
    act(fromFd, toFd);
    posix.fsync(toFd);
  } finally {
    posix.close(fromFd);
    posix.close(toFd);
  }
}

/** Puts random pages of the files into memory, and no others that can be helped. */
export function touch(files: readonly Known[], random: Random): void {
  for (const { path } of files) {
    posix.dropPages(path);
    const fd = posix.open(path, posix.O_RDONLY);
    libc.posixFadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    const { size } = posix.fstat(fd);
    const part = random.next();
    for (let page = 0; page < size / PAGE; page++) if (random.chance(part)) posix.read(fd, PAGE, page * PAGE);
    posix.close(fd);
  }
}

/** The pages of a file that are in memory. */
export function resident(path: string): Set<number> {
  const fd = posix.open(path, posix.O_RDONLY);
  const { size } = posix.fstat(fd);
  const bitmap = new Uint8Array(residency.bitmapBytes(size));
  assert.ok(residency.residentPages(fd, 0, size, bitmap) >= 0);
  posix.close(fd);
  const pages = new Set<number>();
  for (let page = 0; page < Math.ceil(size / PAGE); page++) {
    if (((bitmap[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0) pages.add(page);
  }
  return pages;
}

const ATTEMPTS = 20;

/**
 * A report, and the pages that were in memory before and after it. It must not bring any into memory. The kernel may reclaim
 * some at any time: then another report is made.
 */
export function steady<T>(paths: readonly string[], report: () => T): { result: T; pages: Set<number>[] } {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const pages = paths.map(resident);
    const result = report();
    const after = paths.map(resident);
    const brought = after.flatMap((now, i) => [...now].filter((page) => pages[i]?.has(page) !== true));
    assert.deepEqual(brought, [], 'the report brought pages into memory');
    if (after.every((now, i) => now.size === pages[i]?.size)) return { result, pages };
  }
  throw new Error(`the kernel reclaimed pages during each of ${ATTEMPTS} reports`);
}

/** Bytes in memory, and those of them that are copies, of files whose pages in memory are known. */
export function expected(
  files: readonly Known[],
  pages: readonly Set<number>[],
): { readonly cached: number; readonly duplicate: number } {
  const held = new Map<number, number>();
  let cached = 0;
  files.forEach((file, i) => {
    for (const page of pages[i] ?? []) {
      cached++;
      const content = file.pages[page] ?? -1;
      held.set(content, (held.get(content) ?? 0) + 1);
    }
  });
  let duplicate = 0;
  for (const count of held.values()) duplicate += count - 1;
  return { cached: cached * PAGE, duplicate: duplicate * PAGE };
}
