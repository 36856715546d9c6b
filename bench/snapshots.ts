/**
 * The section `reports`: `sharedext report` beside vmtouch, which counts resident pages and knows nothing of extents, on a tree and nine snapshots of
 * it: with nothing of them in memory, and right after all of them were read.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { programPath } from '../src/cli/package.ts';
import { run } from '../src/demo/commands.ts';
import { dropCaches } from '../src/demo/measure.ts';
import { type FilesystemName, makeStage, type Stage } from '../src/demo/stage.ts';
import type { Asked, Extent, Section, SectionResult } from './section.ts';
import { bytes, table, time, times, whole } from './tables.ts';

const TREES = 10;
const FILES_PER_FOLDER = 50;
/** Files are of one to so many blocks. */
const MAX_BLOCKS = 8;
const BLOCK_BYTES = 4096;
const IMAGE_BYTES = 16 * 1024 ** 3;
/** Files of a tree that has nine snapshots. */
const treeSizes: Readonly<Record<Extent, readonly number[]>> = {
  short: [200],
  normal: [5000, 10_000, 20_000],
  full: [5000, 10_000, 20_000, 40_000],
};
const rounds: Readonly<Record<Extent, number>> = { short: 1, normal: 3, full: 5 };
const KIB = 1024;

/** Runs a command; prints how long it took in seconds, and the most memory that it had, in KiB. */
const METER = `
import resource, subprocess, sys, time
start = time.monotonic()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
`;

interface Metered {
  readonly seconds: number;
  readonly peakBytes: number;
}

interface SnapshotsAnswer {
  /** Of one tree, of ten. */
  readonly files: number;
  readonly inMemory: 'nothing' | 'everything';
  readonly report: Metered;
  /** Absent where it isn't installed. */
  readonly vmtouch: Metered | undefined;
}

async function reportsOfSnapshots(
  stage: Stage,
  filesystem: FilesystemName,
  extent: Extent,
  signal: AbortSignal,
): Promise<SnapshotsAnswer[]> {
  const answers: SnapshotsAnswer[] = [];
  for (const files of treeSizes[extent]) {
    const folder = join(stage.source, `snapshots-${files}`);
    const trees = await makeTrees(folder, filesystem, files, signal);
    // vmtouch takes the root of a btrfs subvolume for a loop: it is given what is in it.
    const given = trees.map((tree) => join(tree, 'files'));
    for (const inMemory of ['nothing', 'everything'] as const) {
      const before = async (): Promise<void> => {
        if (inMemory === 'nothing') await dropCaches();
        // The first walk after that reads the folders from the disk.
        await run('find', [...given, '-size', '0'], signal);
        if (inMemory === 'everything') await run('grep', ['-rq', 'not to be found', ...given], signal).catch(() => '');
      };
      const vmtouch = await hasVmtouch();
      answers.push({
        files,
        inMemory,
        report: await median(rounds[extent], before, process.execPath, [programPath, 'report', folder], signal),
        vmtouch: vmtouch ? await median(rounds[extent], before, 'vmtouch', given, signal) : undefined,
      });
    }
  }
  return answers;
}

async function makeTrees(
  folder: string,
  filesystem: FilesystemName,
  files: number,
  signal: AbortSignal,
): Promise<string[]> {
  const trees = Array.from({ length: TREES }, (_, i) => join(folder, String(i)));
  const [first = '', ...others] = trees;
  mkdirSync(folder);
  if (filesystem === 'btrfs') await run('btrfs', ['-q', 'subvolume', 'create', first]);
  else mkdirSync(first);
  for (let made = 0; made < files; made += FILES_PER_FOLDER) {
    signal.throwIfAborted();
    const below = join(first, 'files', String(made));
    mkdirSync(below, { recursive: true });
    for (let i = 0; i < Math.min(FILES_PER_FOLDER, files - made); i++) {
      const blocks = 1 + ((made + i) % MAX_BLOCKS);
      writeFileSync(join(below, `f${i}`), Buffer.alloc(blocks * BLOCK_BYTES, `${made} ${i} `));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await run('sync', ['-f', first]);
  for (const tree of others) {
    if (filesystem === 'btrfs') await run('btrfs', ['-q', 'subvolume', 'snapshot', first, tree]);
    else await run('cp', ['-a', '--reflink=always', first, tree], signal);
  }
  await run('sync', ['-f', first]);
  return trees;
}

async function hasVmtouch(): Promise<boolean> {
  try {
    await run('vmtouch', ['-q', '/dev/null']);
    return true;
  } catch {
    return false;
  }
}

async function median(
  count: number,
  before: () => Promise<void>,
  command: string,
  words: readonly string[],
  signal: AbortSignal,
): Promise<Metered> {
  const runs: Metered[] = [];
  for (let round = 0; round < count; round++) {
    await before();
    const printed = await run('python3', ['-c', METER, command, ...words], signal);
    const [seconds = Number.NaN, peak = Number.NaN] = printed.trim().split(' ').map(Number);
    runs.push({ seconds, peakBytes: peak * KIB });
  }
  runs.sort((a, b) => a.seconds - b.seconds);
  return runs[Math.floor(count / 2)] ?? { seconds: Number.NaN, peakBytes: Number.NaN };
}

function text(answers: readonly SnapshotsAnswer[]): string {
  const cells = (metered: Metered | undefined): string[] =>
    metered === undefined ? ['–', '–'] : [time(metered.seconds * 1_000_000), bytes(metered.peakBytes)];
  const body = answers.map(({ files, inMemory, report, vmtouch }) => {
    const ratio = vmtouch === undefined ? '–' : times(report.seconds / vmtouch.seconds);
    return [`10 × ${whole(files)} files, ${inMemory}`, ...cells(report), ...cells(vmtouch), ratio];
  });
  return `\`sharedext report\` on a tree and nine snapshots of it, beside vmtouch, which counts the pages of files and doesn't know which
are copies. Whole processes, with their start; the folders were in memory. Right after all files were read ("everything";
what the kernel reclaims meanwhile isn't counted) each file's extents must be looked at as well. A peak of some 14 MiB is that of the
meter itself: what is measured had that or less.

${table([['in memory', 'report', 'peak', 'vmtouch', 'peak', 'ratio of times'], ...body])}`;
}

async function measure({ filesystem, extent, signal, tell }: Asked): Promise<SectionResult> {
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('reports of snapshots');
    const answers = await reportsOfSnapshots(stage, filesystem, extent, signal);
    return { text: text(answers), plots: [], numbers: answers };
  } finally {
    await stage.dispose();
  }
}

export const reportsSection: Section = { name: 'reports', title: 'Reports', run: measure };
