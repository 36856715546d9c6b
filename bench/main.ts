/**
 * `npm run bench`: each question at each place in one run, as ratios to the bare filesystem; what requests cost the server;
 * what nodes cost its memory. Prints tables, and writes docs/benchmarks.md unless the run was a short one.
 */

import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { packageRoot, programPath, version } from '../src/cli/package.ts';
import { run } from '../src/demo/commands.ts';
import { type FilesystemName, makeStage, type Stage } from '../src/demo/stage.ts';
import { type Answer, ask, warmUp } from './answers.ts';
import { type MemoryAnswer, memoryOfNodes } from './memory.ts';
import { partsOfARead } from './parts.ts';
import { openPlace, type Place, places } from './places.ts';
import { fillSource, normal, questions, short } from './questions.ts';
import { type Report, reportText } from './report.ts';
import { residencyByTime, residencyText } from './residency.ts';
import { reportsOfSnapshots } from './snapshots.ts';

const IMAGE_BYTES = 16 * 1024 ** 3;
/** Files of a tree that has nine snapshots. */
const SHORT_TREES = [500] as const;
const NORMAL_TREES = [5000, 10_000, 20_000] as const;
const SHORT_NODES = 5000;
const NORMAL_NODES = 100_000;
const FULL_NODES = 1_000_000;
/** Of each kind, about half of them with a read by the other. */
const RESIDENCY_TRIALS = 240;
const SHORT_RESIDENCY_TRIALS = 10;

interface Flags {
  readonly fs: FilesystemName;
  readonly short?: true;
  readonly full?: true;
  readonly spread?: true;
  readonly residency?: true;
  readonly json?: string;
}

/** A real tree: Python's library where it is installed, or the type checker that this project uses. */
function realTree(): string {
  const python = readdirSync('/usr/lib').find((name) => /^python3\.\d+$/.test(name));
  if (python !== undefined) return join('/usr/lib', python);
  const own = join(packageRoot, 'node_modules/@types');
  return existsSync(own) ? own : packageRoot;
}

async function bindfsVersion(): Promise<string | undefined> {
  try {
    return (await run('bindfs', ['--version'])).trim().split('\n')[0];
  } catch {
    return;
  }
}

async function measured(stage: Stage, flags: Flags, signal: AbortSignal): Promise<Report> {
  const sizes = flags.short === true ? short : normal;
  const bindfs = await bindfsVersion();
  const used = places.filter((place) => place !== 'bindfs' || bindfs !== undefined);
  const tell = (text: string): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text} …`);
  };
  tell('making files');
  await fillSource(stage.source, sizes, realTree(), signal);
  const asked = questions(sizes);
  const answers = new Map<string, Map<Place, Answer>>(asked.map(({ name }) => [name, new Map()]));
  for (const place of used) {
    const open = await openPlace(place, stage);
    await warmUp(open, sizes, signal);
    for (const question of asked) {
      signal.throwIfAborted();
      tell(`${place}: ${question.name}`);
      answers.get(question.name)?.set(place, await ask(question, open, stage.source, sizes, signal));
    }
    await open.end();
  }
  tell('walking many files');
  const nodes = flags.short === true ? SHORT_NODES : flags.full === true ? FULL_NODES : NORMAL_NODES;
  const memory: MemoryAnswer = await memoryOfNodes(stage, nodes, signal);
  tell('taking a read apart');
  const parts = await partsOfARead(join(stage.source, 'own'), stage.folder);
  tell('reports of snapshots');
  const trees = flags.short === true ? SHORT_TREES : NORMAL_TREES;
  const snapshots = await reportsOfSnapshots(stage, flags.fs, trees, signal);
  tell('cleaning up');
  return {
    date: new Date().toISOString().slice(0, 10),
    kernel: release(),
    processor: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    node: process.version,
    version,
    bindfs: bindfs ?? 'not installed',
    filesystem: flags.fs,
    placement: flags.spread === true ? 'spread over all processors' : 'on one processor',
    rounds: sizes.rounds,
    rows: asked.map(({ name }) => ({ name, answers: Object.fromEntries(answers.get(name) ?? []) })),
    memory,
    parts,
    snapshots,
  };
}

/**
 * Puts this process, and with it everything that it starts, on one processor. A request wakes its server and its answer
 * wakes the caller: across processors of a virtual machine that took 76 µs, on one 6 µs, and which of the two a round gets
 * is chance. With all places on one processor the rows compare what the places do.
 */
async function stayOnOneProcessor(): Promise<void> {
  await run('taskset', ['--all-tasks', '--pid', '1', String(process.pid)]);
}

async function bench(flags: Flags): Promise<void> {
  if (flags.spread !== true) await stayOnOneProcessor();
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => controller.abort());
  const stage = await makeStage(flags.fs, IMAGE_BYTES, programPath, 'sharedext-bench-');
  let report: Report;
  try {
    if (flags.residency === true) {
      const trials = flags.short === true ? SHORT_RESIDENCY_TRIALS : RESIDENCY_TRIALS;
      const rows = await residencyByTime(stage, trials, controller.signal);
      console.log(`${flags.fs}, Linux ${release()}, ${trials} trials for each row\n\n${residencyText(rows)}`);
      return;
    }
    report = await measured(stage, flags, controller.signal);
  } finally {
    await stage.dispose();
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }
  const text = reportText(report);
  console.log(text);
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`);
  if (flags.short !== true) writeFileSync(join(packageRoot, 'docs/benchmarks.md'), text);
}

const program = new Command('bench')
  .description('Measures sharedext beside the bare filesystem and bindfs. Needs root.')
  .addOption(new Option('--fs <type>').choices(['btrfs', 'xfs']).default('btrfs'))
  .option('--short', 'small sizes, to see that it runs; docs/benchmarks.md stays as it is')
  .option('--full', 'walk a million nodes, not a hundred thousand')
  .option('--spread', 'leave it to the kernel which processor what runs on')
  .option('--residency', 'only what one domain can find out by time about what another has read: docs/security.md')
  .option('--json <file>', 'write the numbers to a file, too')
  .action(bench);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
