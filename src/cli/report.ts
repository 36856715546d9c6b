/** `sharedext report`: the command line of it; `reporting.ts` does the work. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { GROUPINGS, type Grouping } from '../report/result.ts';

export interface ReportFlags {
  readonly json?: true;
  readonly html?: string;
  readonly top: number;
  readonly groupBy: Grouping;
  readonly disk?: true;
  readonly oneFileSystem?: true;
  /** Seconds between rounds; true for the default. */
  readonly watch?: number | true;
}

const MAX_TOP = 100_000;
const MAX_SECONDS = 86_400;

function wholeNumber(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > MAX_TOP)
    throw new InvalidArgumentError(`it wants a whole number up to ${MAX_TOP}.`);
  return number;
}

function seconds(text: string): number {
  const number = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || number > MAX_SECONDS) {
    throw new InvalidArgumentError(
      `it wants seconds, up to ${MAX_SECONDS}; what else follows it may be a path: put it first.`,
    );
  }
  return number;
}

export function reportCommand(): Command {
  return new Command('report')
    .summary('show what the page cache holds twice')
    .description(
      'Walks PATHs, and shows what of their files is in memory, and what of it more than once: pages of files that share extents. Needs no mount, changes nothing, and reads no file. docs/report.md explains each number.',
    )
    .argument('<path...>')
    .option('--json', 'print everything as JSON')
    .addOption(new Option('--html <file>', 'write a page to look at, too, which needs nothing else').conflicts('watch'))
    .option('--top <n>', 'how many of the worst groups to show', wholeNumber, 10)
    .addOption(
      new Option('--group-by <what>', 'what a group is: files that hold the same bytes, or all in a directory or PATH')
        .choices(GROUPINGS)
        .default('files'),
    )
    .option('--disk', 'show what is shared on disk, too; takes longer, since the extents of all files are looked at')
    .option('-x, --one-file-system', 'leave out what is mounted below a PATH (btrfs subvolumes are, too)')
    .option('--watch [seconds]', 'repeat in place, with what has changed, until Ctrl-C', seconds)
    .addHelpText(
      'after',
      '\nExamples:\n  sharedext report /srv/clones\n  sharedext report --top 3 --json / -x\n' +
        '  sharedext report /srv/clones --html report.html\n  sharedext report /srv/clones --watch 5\n',
    )
    .action(async (paths: readonly string[], flags: ReportFlags) => {
      const { report } = await import('./reporting.ts');
      await report(paths, flags);
    });
}
