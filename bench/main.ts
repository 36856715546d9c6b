/**
 * `npm run bench`: what is gained and what is paid with sharedext, beside what one would use instead, and where the time goes.
 * Prints the sections, and puts them and their plots into docs/ unless the run was a short one.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { UserError } from '../src/base/errno.ts';
import { packageRoot } from '../src/cli/package.ts';
import type { FilesystemName } from '../src/demo/stage.ts';
import { memory } from './clones/memory.ts';
import { start } from './clones/start.ts';
import { versions } from './clones/versions.ts';
import { dataSection } from './data/section.ts';
import { floorSection } from './floor/section.ts';
import { metadataSection } from './metadata/section.ts';
import { partsSection } from './parts.ts';
import { profileSection } from './profile/section.ts';
import { documentWith, type Written } from './report.ts';
import { residencySection } from './residency.ts';
import { scaleSection } from './scale/section.ts';
import type { Extent, Section } from './section.ts';
import { reportsSection } from './snapshots.ts';
import { circumstances, circumstancesText } from './versions.ts';

/** All there is, in the order of the document. */
const sections: readonly Section[] = [
  memory,
  versions,
  start,
  dataSection,
  metadataSection,
  floorSection,
  profileSection,
  scaleSection,
  partsSection,
  reportsSection,
  residencySection,
];

interface Flags {
  readonly fs: FilesystemName;
  readonly only?: string;
  readonly short?: true;
  readonly full?: true;
  readonly json?: string;
}

function chosen(only: string | undefined): readonly Section[] {
  if (only === undefined) return sections;
  const names = only.split(',');
  const known = sections.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UserError(`Cannot run the section ${unknown}: there are ${known.join(', ')}`);
  return sections.filter(({ name }) => names.includes(name));
}

function tell(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}${text === '' ? '' : ' …'}`);
}

async function bench(flags: Flags): Promise<void> {
  const wanted = chosen(flags.only);
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => controller.abort());
  const extent: Extent = flags.short === true ? 'short' : flags.full === true ? 'full' : 'normal';
  const made = await circumstances(flags.fs);
  const written: Written[] = [];
  const numbers: Record<string, unknown> = {};
  for (const { name, title, run } of wanted) {
    controller.signal.throwIfAborted();
    const start = performance.now();
    const result = await run({
      filesystem: flags.fs,
      extent,
      signal: controller.signal,
      tell: (doing) => tell(`${name}: ${doing}`),
    });
    tell('');
    const seconds = (performance.now() - start) / 1000;
    const text = `## ${title}\n\n${circumstancesText(made)}\n\n${result.text}`;
    console.log(`${text}\n`);
    numbers[name] = { ...made, seconds, numbers: result.numbers };
    written.push({ name, text });
    if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(numbers, null, 2)}\n`);
    // Section by section: what is done stays, should a later one fail.
    if (extent !== 'short') {
      for (const { file, svg } of result.plots) writeFileSync(join(packageRoot, 'docs', file), svg);
      writeDocument(written);
    }
  }
}

function writeDocument(written: readonly Written[]): void {
  const file = join(packageRoot, 'docs/benchmarks.md');
  const before = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const order = sections.map(({ name }) => name);
  writeFileSync(file, documentWith(before, written, order));
}

const program = new Command('bench')
  .description('Measures sharedext beside the bare filesystem and what one would use instead. Needs root.')
  .addOption(new Option('--fs <type>').choices(['btrfs', 'xfs']).default('btrfs'))
  .option('--only <names>', `some sections, separated by commas, of ${sections.map(({ name }) => name).join(', ')}`)
  .addOption(new Option('--short', 'small sizes, to see that it runs; docs/ stays as it is').conflicts('full'))
  .option('--full', 'the largest sizes: a million nodes, ten million extents')
  .option('--json <file>', 'write the numbers to a file, too')
  .action(bench);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
