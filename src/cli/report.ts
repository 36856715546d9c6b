/** `sharedext report`: the command line of it; `reporting.ts` does the work. */

import { Command, InvalidArgumentError, Option } from 'commander';

export interface ReportFlags {
  readonly json?: true;
  readonly top: number;
  readonly groupBy: 'files' | 'directory';
  readonly oneFileSystem?: true;
}

function wholeNumber(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > 100_000) throw new InvalidArgumentError('it wants a whole number up to 100000.');
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
    .option('--top <n>', 'how many of the worst groups to show', wholeNumber, 10)
    .addOption(
      new Option('--group-by <what>', 'what a group is: files that hold the same bytes, or directories')
        .choices(['files', 'directory'])
        .default('files'),
    )
    .option('-x, --one-file-system', 'leave out what is mounted below a PATH (btrfs subvolumes are, too)')
    .addHelpText('after', '\nExamples:\n  sharedext report /srv/clones\n  sharedext report --top 3 --json / -x\n')
    .action(async (paths: readonly string[], flags: ReportFlags) => {
      const { report } = await import('./reporting.ts');
      await report(paths, flags);
    });
}
