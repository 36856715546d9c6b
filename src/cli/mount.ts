/** `sharedext mount`, also in the form in which mount(8) calls its helpers. */

import { Command } from 'commander';
import { genericWords, type OptionHelp, ownOptions, parseOptions } from '../daemon/options.ts';
import { programPath, version } from './package.ts';
import { requireRoot } from './privilege.ts';

interface MountFlags {
  readonly options?: readonly string[];
  readonly foreground?: true;
  readonly debug?: true;
  readonly s?: true;
}

const examples = `
Examples:
  sharedext mount /srv/clones /mnt/shared
  sharedext mount /srv/clones /srv/clones -o noatime,floor=5%
  mount -t fuse.sharedext /srv/clones /mnt/shared    (after "sharedext install")
`;

export function mountCommand(): Command {
  return new Command('mount')
    .summary('mount a directory so that its reflinked files share one page cache')
    .description(
      'Mounts SOURCE, a directory on btrfs or XFS, on MOUNTPOINT, and serves it in the background.\n' +
        'Exit status 0 means that the mount answers. MOUNTPOINT may be SOURCE itself.',
    )
    .argument('<source>', 'the directory to show')
    .argument('<mountpoint>', 'an empty directory outside of it, or the same directory')
    .option('-o, --options <words>', 'mount options, comma-separated (see below)', collect)
    .option('-f, --foreground', 'stay in the foreground')
    .option('-d, --debug', 'print each request and reply; stays in the foreground')
    .option('-t, --types <type>', 'for mount(8); says nothing here')
    .option('-n', 'for mount(8); says nothing here')
    .option('-s', 'leave unknown mount options out')
    .option('-v', 'for mount(8); says nothing here')
    .addHelpText('after', `\n${optionLines()}\n${examples}`)
    .action(run);
}

function collect(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}

function optionLines(): string {
  const nameOf = ({ name, value }: OptionHelp): string => (value === undefined ? name : `${name}=${value}`);
  const own = ownOptions.map((option) => `  ${nameOf(option)}\n      ${option.help}`);
  return ['Mount options:', ...own, `  and the generic ${genericWords.join(', ')}`].join('\n');
}

/** The words that are known, with their values: what is left of options under `-s`. */
function knownWords(text: string): string {
  const known = new Set([...ownOptions.map((option) => option.name), ...genericWords]);
  return text
    .split(',')
    .filter((word) => known.has(word.split('=')[0] ?? ''))
    .join(',');
}

async function run(source: string, mountpoint: string, flags: MountFlags): Promise<void> {
  requireRoot(`mount on ${mountpoint}`);
  const given = flags.options ?? [];
  const words = flags.s === true ? given.map(knownWords) : given;
  if (words.flatMap((text) => text.split(',')).includes('remount')) {
    const { remount } = await import('./remount.ts');
    await remount(mountpoint, words);
    return;
  }
  const options = parseOptions(words);
  if (flags.foreground !== true && flags.debug !== true) {
    const { startInBackground } = await import('../daemon/background.ts');
    await startInBackground(programPath, [
      'mount',
      '-f',
      ...words.flatMap((text) => ['-o', text]),
      '--',
      source,
      mountpoint,
    ]);
    return;
  }
  const { log } = await import('../daemon/log.ts');
  const { KEEPER_VARIABLE } = await import('../daemon/keeping.ts');
  const keeperFd = process.env[KEEPER_VARIABLE];
  if (keeperFd === undefined) {
    const { superviseMount } = await import('../daemon/background.ts');
    process.exit(await superviseMount(programPath, process.argv.slice(2), log));
  }
  const { live } = await import('../daemon/life.ts');
  const trace = flags.debug === true;
  // Nothing that is still open keeps the process: its mount has ended.
  process.exit(await live({ source, mountpoint, options, keeperFd: Number(keeperFd), trace, version, log }));
}
