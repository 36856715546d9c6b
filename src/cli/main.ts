#!/usr/bin/env node
/**
 * The command. Exit status: 0 done, 1 it couldn't be done (the reason is one line on standard error), 2 it was called in a
 * wrong way. Each command loads what it needs when it runs, so that `--help` needs no library.
 */

import { Command, CommanderError } from 'commander';
import { UserError } from '../base/errno.ts';
import { demoCommand } from './demo.ts';
import { doctorCommand } from './doctor.ts';
import { installCommand } from './install.ts';
import { mountCommand } from './mount.ts';
import { version } from './package.ts';
import { reportCommand } from './report.ts';
import { restartCommand } from './restart.ts';
import { statusCommand } from './status.ts';
import { umountCommand } from './umount.ts';

const commands = [
  mountCommand(),
  umountCommand(),
  restartCommand(),
  statusCommand(),
  reportCommand(),
  doctorCommand(),
  demoCommand(),
  installCommand(),
];

const program = new Command('sharedext')
  .description('One page cache for reflinked files, on an unmodified Linux kernel.')
  .version(version, '-V, --version', 'print the version')
  .helpCommand(true)
  .exitOverride()
  .addHelpText(
    'after',
    '\nExamples:\n' +
      '  sharedext doctor /srv/clones               what this machine can do\n' +
      '  sharedext mount /srv/clones /mnt/shared    mount\n' +
      '  sharedext status                           what is mounted, and what it shares\n' +
      '  sharedext report /srv/clones               what the page cache holds twice\n' +
      '  sharedext umount /mnt/shared               unmount\n' +
      '  sharedext SOURCE MOUNTPOINT -o OPTIONS     the form in which mount(8) calls a helper\n',
  );
for (const command of commands) program.addCommand(command.exitOverride().showHelpAfterError('(see --help)'));

/**
 * mount(8) calls `sharedext SOURCE MOUNTPOINT -o …` when no helper is installed, and people may put the options first.
 * One word alone is no such call but a command's name that was mistyped.
 */
function withCommand(words: readonly string[]): readonly string[] {
  const [first] = words;
  const names = [...commands.map((command) => command.name()), 'help'];
  const general = ['-h', '--help', '-V', '--version'];
  if (words.length < 2 || first === undefined || names.includes(first) || general.includes(first)) return words;
  return ['mount', ...words];
}

// A reader that has seen enough, such as head(1), is no error.
process.stdout.on('error', (error) => process.exit('code' in error && error.code === 'EPIPE' ? 0 : 1));

try {
  const words = withCommand(process.argv.slice(2));
  await program.parseAsync([...words], { from: 'user' });
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else if (error instanceof UserError) {
    process.stderr.write(`sharedext: ${error.message}\n`);
    process.exitCode = 1;
  } else {
    const text = error instanceof Error ? error.message : String(error);
    process.stderr.write(`sharedext: ${text} (this is a mistake of sharedext: please report it)\n`);
    process.exitCode = 1;
  }
}
