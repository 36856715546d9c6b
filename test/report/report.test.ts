/** What a report says, beside what is known of files that were laid out at random and of which random pages are in memory. */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POSIX_FADV_RANDOM } from '../../src/base/linux.ts';
import { Residency } from '../../src/pagecache/residency.ts';
import type { ReportResult } from '../../src/report/result.ts';
import * as libc from '../../src/sys/libc.ts';
import { allocate } from '../../src/sys/memory.ts';
import { Random } from '../mount/random.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { type FilesystemKind, type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';

const PROGRAM = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const USER_CHILD = fileURLToPath(new URL('./user-child.js', import.meta.url));
const PAGE = 4096;
const residency = new Residency(libc, allocate('residency', 65_536));

function report(...words: readonly string[]): ReportResult {
  const text = execFileSync(process.execPath, [PROGRAM, 'report', '--json', ...words], {
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(text);
}

/** A file by the numbers of its pages' contents: equal numbers lie on the same extent at the same place. */
interface Known {
  readonly path: string;
  readonly pages: number[];
}

let contents = 0;

function write(file: Known, first: number, count: number, random: Random, compressible: boolean): void {
  const data = random.bytes(count * PAGE);
  if (compressible) for (let page = 0; page < count; page++) data.fill(7, page * PAGE, page * PAGE + 3500);
  const fd = posix.open(file.path, posix.O_RDWR | posix.O_CREAT);
  posix.write(fd, data, first * PAGE);
  posix.fsync(fd);
  posix.close(fd);
  for (let page = 0; page < count; page++) file.pages[first + page] = contents++;
}

function clone(from: Known, path: string): Known {
  posix.reflink(from.path, path);
  return { path, pages: [...from.pages] };
}

function cloneRange(from: Known, first: number, count: number, to: Known, at: number): void {
  const fromFd = posix.open(from.path, posix.O_RDONLY);
  const toFd = posix.open(to.path, posix.O_RDWR);
  posix.reflinkRange(fromFd, first * PAGE, count * PAGE, toFd, at * PAGE);
  posix.fsync(toFd);
  posix.close(fromFd);
  posix.close(toFd);
  for (let page = 0; page < count; page++) to.pages[at + page] = from.pages[first + page] ?? -1;
}

function layOut(filesystem: LoopFilesystem, random: Random): Known[] {
  const compressible = filesystem.kind === 'btrfs-zstd';
  const btrfs = filesystem.kind.startsWith('btrfs');
  const home = join(filesystem.dir, 'home');
  if (btrfs) posix.makeSubvolume(home);
  else mkdirSync(home);
  const files: Known[] = [];
  for (let i = 0; i < 3; i++) {
    const file: Known = { path: join(home, `file${i}`), pages: [] };
    write(file, 0, 24 + random.below(40), random, compressible);
    files.push(file);
  }
  for (let step = 0; step < 12; step++) {
    const from = random.of(files);
    if (random.chance(0.4)) {
      files.push(clone(from, join(home, `clone${step}`)));
    } else if (random.chance(0.5)) {
      const first = random.below(from.pages.length - 8);
      write(from, first, 1 + random.below(8), random, compressible);
    } else {
      const to = random.of(files.filter((file) => file !== from));
      const count = 1 + random.below(Math.min(from.pages.length, to.pages.length) - 1);
      cloneRange(from, random.below(from.pages.length - count), count, to, random.below(to.pages.length - count));
    }
  }
  if (btrfs) {
    const snapshot = join(filesystem.dir, 'snapshot');
    posix.snapshot(home, snapshot);
    files.push(...files.map(({ path, pages }) => ({ path: path.replace(home, snapshot), pages: [...pages] })));
  }
  return files;
}

/** Puts random pages of the files into memory, and no others that can be helped. */
function touch(files: readonly Known[], random: Random): void {
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

const ATTEMPTS = 20;

/**
 * A report, and the pages that were in memory before and after it. It must not bring any into memory. The kernel may reclaim
 * some at any time: then another report is made.
 */
function steady(paths: readonly string[], ...words: readonly string[]): { result: ReportResult; pages: Set<number>[] } {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const pages = paths.map(resident);
    const result = report(...words);
    const after = paths.map(resident);
    const brought = after.flatMap((now, i) => [...now].filter((page) => pages[i]?.has(page) !== true));
    assert.deepEqual(brought, [], 'the report brought pages into memory');
    if (after.every((now, i) => now.size === pages[i]?.size)) return { result, pages };
  }
  throw new Error(`the kernel reclaimed pages during each of ${ATTEMPTS} reports`);
}

function resident(path: string): Set<number> {
  const fd = posix.open(path, posix.O_RDONLY);
  const { size } = posix.fstat(fd);
  const bitmap = new Uint8Array(residency.bitmapBytes(size));
  assert.ok(residency.residentPages(fd, size, bitmap) >= 0);
  posix.close(fd);
  const pages = new Set<number>();
  for (let page = 0; page < Math.ceil(size / PAGE); page++) {
    if (((bitmap[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0) pages.add(page);
  }
  return pages;
}

function expected(files: readonly Known[], pages: readonly Set<number>[]): { cached: number; duplicate: number } {
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

for (const kind of ['btrfs', 'btrfs-zstd', 'xfs', 'xfs-1k'] as const) {
  test(`on ${kind}, the numbers are those of the known layout, to the page, and looking changes nothing`, async () => {
    const filesystem = makeLoopFilesystem(kind);
    try {
      const random = new Random(5);
      const files = layOut(filesystem, random);
      execFileSync('sync', ['-f', filesystem.dir]);
      for (let round = 0; round < 4; round++) {
        touch(files, random);
        const paths = files.map(({ path }) => path);
        const { result, pages } = steady(paths, filesystem.dir);
        const { bytes, files: counts, groups } = result;
        const wanted = expected(files, pages);
        assert.equal(bytes.cached, wanted.cached);
        assert.equal(bytes.duplicate, wanted.duplicate);
        assert.equal(bytes.distinct, wanted.cached - wanted.duplicate);
        assert.equal(bytes.unidentified, 0);
        assert.equal(counts.seen, files.length);
        assert.ok(groups.every(({ paths, copies }) => copies >= 2 && paths.length >= 1));
        const byFolder = steady(paths, filesystem.dir, '--group-by', 'directory', '--top', '1000');
        const folders = byFolder.result.groups;
        const sum = folders.reduce((total, { duplicateBytes }) => total + duplicateBytes, 0);
        const all = expected(files, byFolder.pages).duplicate;
        assert.ok(Math.abs(sum - all) <= folders.length, `${sum} by folders, ${all} in all`);
      }
    } finally {
      filesystem.dispose();
    }
    await assertNothingLeft();
  });
}

test('dirty pages of clones are copies of nothing', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const random = new Random(9);
    const one: Known = { path: join(filesystem.dir, 'one'), pages: [] };
    write(one, 0, 64, random, false);
    const two = clone(one, join(filesystem.dir, 'two'));
    for (const { path } of [one, two]) {
      posix.dropPages(path);
      const fd = posix.open(path, posix.O_RDONLY);
      // Page by page: what is read at once is dirty at once, too (a large folio).
      libc.posixFadvise(fd, 0, 0, POSIX_FADV_RANDOM);
      for (let page = 0; page < 64; page++) posix.read(fd, PAGE, page * PAGE);
      posix.close(fd);
    }
    const paths = [one.path, two.path];
    const clean = steady(paths, filesystem.dir);
    assert.equal(clean.result.bytes.duplicate, expected([one, two], clean.pages).duplicate);
    const fd = posix.open(two.path, posix.O_RDWR);
    posix.write(fd, random.bytes(3 * PAGE), 10 * PAGE);
    // It may have been written back meanwhile: then it is private, and no copy either.
    for (const page of [10, 11, 12]) two.pages[page] = contents++;
    const { result, pages } = steady(paths, filesystem.dir);
    assert.deepEqual(
      [result.bytes.cached, result.bytes.duplicate],
      [expected([one, two], pages).cached, expected([one, two], pages).duplicate],
    );
    posix.close(fd);
  } finally {
    filesystem.dispose();
  }
});

for (const kind of ['ext4', 'tmpfs'] as const satisfies readonly FilesystemKind[]) {
  test(`on ${kind}, nothing is shared: what is in memory is counted once`, () => {
    const filesystem = makeLoopFilesystem(kind);
    try {
      writeFileSync(join(filesystem.dir, 'file'), Buffer.alloc(100 * PAGE, 1));
      posix.link(join(filesystem.dir, 'file'), join(filesystem.dir, 'link'));
      execFileSync('sync', ['-f', filesystem.dir]);
      const { result, pages } = steady([join(filesystem.dir, 'file')], filesystem.dir);
      const { bytes, notes } = result;
      assert.equal(bytes.cached, (pages[0]?.size ?? 0) * PAGE);
      assert.equal(bytes.duplicate, 0);
      assert.equal(notes.links, 1);
      assert.equal(notes.unidentified, kind === 'tmpfs' ? 1 : 0);
    } finally {
      filesystem.dispose();
    }
  });
}

test('special files, dangling links and names that are not UTF-8 are walked over', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const at = (name: string): string => join(filesystem.dir, name);
    execFileSync('mkfifo', [at('fifo')]);
    symlinkSync('nowhere', at('dangling'));
    symlinkSync('.', at('loop'));
    execFileSync('mknod', [at('device'), 'c', '1', '3']);
    const name = Buffer.concat([Buffer.from(`${at('name')}-`), Buffer.from([0xff, 0x0a])]);
    for (const path of [name, Buffer.concat([name, Buffer.from('2')])]) {
      const fd = posix.open(path, posix.O_RDWR | posix.O_CREAT);
      posix.write(fd, Buffer.alloc(10 * PAGE, 3), 0);
      posix.close(fd);
    }
    execFileSync('sync', ['-f', filesystem.dir]);
    const { notes, files } = report(filesystem.dir);
    assert.equal(notes.special, 4);
    assert.equal(files.seen, 2);
    const text = execFileSync(process.execPath, [PROGRAM, 'report', filesystem.dir], { encoding: 'utf8' });
    assert.match(text, /in memory .* files \(2 looked at\)/);
    assert.throws(
      () => execFileSync(process.execPath, [PROGRAM, 'report', at('missing')], { stdio: 'pipe' }),
      /it does not exist/,
    );
  } finally {
    filesystem.dispose();
  }
});

test('a user sees what the kernel lets a user see, and how much that is not', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const at = (name: string): string => join(filesystem.dir, name);
    writeFileSync(at('open'), Buffer.alloc(PAGE, 1), { mode: 0o644 });
    writeFileSync(at('closed'), Buffer.alloc(PAGE, 1), { mode: 0o600 });
    mkdirSync(at('folder'), { mode: 0o700 });
    const { status, stdout } = spawnSync(process.execPath, [USER_CHILD, filesystem.dir], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(status, 1);
    const { notes, files }: ReportResult = JSON.parse(stdout);
    assert.equal(files.seen, 2);
    assert.equal(notes.outOfReach, 1);
    assert.equal(notes.denied, 2);
  } finally {
    filesystem.dispose();
  }
});
