/**
 * What a report says, beside what is known of files that were laid out by random steps (writes, clones, parts of files shared
 * or deduplicated at other offsets, snapshots) and of which random pages are in memory. SHAREDEXT_REPORT_RUNS and
 * SHAREDEXT_REPORT_SEED ask for more layouts, or others.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Tree } from '../../src/report/tree.ts';
import { Random } from '../mount/random.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { expected, type Known, Layout, PAGE, type Step, steady, touch } from './layout.ts';
import { quickReport } from './reports.ts';

const seed = Number(process.env['SHAREDEXT_REPORT_SEED'] ?? 11);
const numRuns = Number(process.env['SHAREDEXT_REPORT_RUNS'] ?? 40);
const ROUNDS = 2;

const step: fc.Arbitrary<Step> = fc.record({
  act: fc.constantFrom('write', 'clone', 'share', 'dedupe'),
  from: fc.nat(100),
  to: fc.nat(100),
  first: fc.nat(100),
  count: fc.nat(40),
  at: fc.nat(100),
});

const layouts = fc.record({
  sizes: fc.array(fc.integer({ min: 2, max: 60 }), { minLength: 2, maxLength: 4 }),
  before: fc.array(step, { maxLength: 10 }),
  snapshot: fc.boolean(),
  after: fc.array(step, { maxLength: 5 }),
  touches: fc.nat(1_000_000),
});

type Given = typeof layouts extends fc.Arbitrary<infer T> ? T : never;

/** Every node's children are its bytes, and so is the whole tree. */
function assertAddsUp(tree: Tree): void {
  const { children, bytes, duplicate } = tree;
  assert.ok(duplicate <= bytes);
  if (children === undefined) return;
  assert.equal(
    children.reduce((sum, child) => sum + child.bytes, 0),
    bytes,
  );
  children.forEach(assertAddsUp);
}

function check(folder: string, files: readonly Known[], random: Random): void {
  touch(files, random);
  const paths = files.map(({ path }) => path);
  const { result, pages } = steady(paths, () => quickReport(folder));
  const { bytes, files: counts, groups, disk, notes, tree } = result;
  const wanted = expected(files, pages);
  assert.equal(bytes.cached, wanted.cached);
  assert.equal(bytes.duplicate, wanted.duplicate);
  assert.equal(bytes.distinct, wanted.cached - wanted.duplicate);
  assert.equal(bytes.unidentified, 0);
  assert.equal(notes.changed, 0);
  assert.equal(counts.seen, files.length);
  assert.equal(
    groups.reduce((sum, { duplicateBytes }) => sum + duplicateBytes, 0),
    wanted.duplicate,
  );
  assert.ok(groups.every(({ paths: named, copies }) => copies >= 2 && named.length >= 2));
  const onDisk = expected(
    files,
    files.map(({ pages: all }) => new Set(all.keys())),
  );
  assert.equal(disk?.bytes, onDisk.cached);
  assert.equal(disk?.duplicate, onDisk.duplicate);
  assert.ok(tree !== null);
  assert.equal(tree.bytes, bytes.cached);
  assertAddsUp(tree);
}

for (const kind of ['btrfs', 'btrfs-zstd', 'xfs', 'xfs-1k'] as const) {
  test(`on ${kind}, the numbers are those of the known layout, to the page, and looking changes nothing`, async () => {
    const filesystem = makeLoopFilesystem(kind);
    let run = 0;
    try {
      fc.assert(
        fc.property(layouts, (given) => oneLayout(filesystem, join(filesystem.dir, `run${run++}`), given)),
        { seed, numRuns, endOnFailure: true },
      );
    } finally {
      filesystem.dispose();
    }
    await assertNothingLeft();
  });
}

function oneLayout(
  { kind, dir }: LoopFilesystem,
  folder: string,
  { sizes, before, snapshot, after, touches }: Given,
): void {
  const btrfs = kind.startsWith('btrfs');
  const home = join(folder, 'home');
  posix.mkdir(folder);
  if (btrfs) posix.makeSubvolume(home);
  const layout = new Layout(home, kind === 'btrfs-zstd');
  for (const pages of sizes) layout.add(pages);
  for (const one of before) layout.step(one);
  if (btrfs && snapshot) layout.snapshot(join(folder, 'snapshot'));
  for (const one of after) layout.step(one);
  execFileSync('sync', ['-f', dir]);
  const random = new Random(touches);
  for (let round = 0; round < ROUNDS; round++) check(folder, layout.files, random);
}

test('groups by directory and by path add up to all that is held more than once', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const layout = new Layout(join(filesystem.dir, 'home'), false);
    const file = layout.add(40);
    for (let i = 0; i < 3; i++) layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
    posix.mkdir(join(filesystem.dir, 'other'));
    const moved = { path: join(filesystem.dir, 'other/clone'), pages: [...file.pages] };
    posix.reflink(file.path, moved.path);
    execFileSync('sync', ['-f', filesystem.dir]);
    const files = [...layout.files, moved];
    touch(files, new Random(3));
    const paths = files.map(({ path }) => path);
    for (const grouping of ['directory', 'path'] as const) {
      const { result, pages } = steady(paths, () => quickReport(filesystem.dir, grouping));
      const { duplicate } = expected(files, pages);
      const sum = result.groups.reduce((total, { duplicateBytes }) => total + duplicateBytes, 0);
      assert.ok(Math.abs(sum - duplicate) <= result.groups.length, `${sum} in groups, ${duplicate} in all`);
      assert.ok(duplicate > PAGE);
      assert.equal(result.groups.length, grouping === 'path' ? 1 : 2);
    }
  } finally {
    filesystem.dispose();
  }
});
