/** `sharedext demo`: real programs and files in one page cache, measured beside the same work without us. */

import { writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import { UserError } from '../base/errno.ts';
import type { FilesystemName } from '../demo/stage.ts';
import { hasColours } from './colour.ts';
import { packageRoot, programPath, version } from './package.ts';
import { requireRoot } from './privilege.ts';

const MOST_CLONES = 64;
/** 128 plus the number of the signal, as shells say it. */
const endings = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

interface DemoFlags {
  readonly fs: FilesystemName;
  readonly clones: number;
  readonly control?: true;
  readonly json?: true;
  readonly html?: string;
  readonly svg?: string;
}

function cloneCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 2 && count <= MOST_CLONES) return count;
  throw new InvalidArgumentError(`A number from 2 to ${MOST_CLONES} is needed.`);
}

export function demoCommand(): Command {
  return new Command('demo')
    .summary('show what sharing saves, on real programs and files')
    .description(
      'Makes a filesystem in a temporary image, clones a real tree, reads and runs all clones without and with\n' +
        'sharedext, and prints what each left in the page cache. It takes about a minute, drops the caches of the\n' +
        'machine before each measurement, and removes what it made, also when interrupted.',
    )
    .addOption(new Option('--fs <type>', 'the filesystem').choices(['btrfs', 'xfs']).default('btrfs'))
    .option('--clones <n>', 'how many clones', cloneCount, 8)
    .option('--control', 'measure a nosharedext mount as well')
    .option('--json', 'print the numbers as JSON, and no picture unless it is asked for')
    .option('--svg <file>', 'where to write the picture (default: sharedext-demo.svg)')
    .option('--html <file>', 'write the picture and the table as a web page')
    .addHelpText('after', '\nExamples:\n  sharedext demo\n  sharedext demo --fs xfs --clones 16 --html demo.html\n')
    .action(run);
}

/** Steps are for people who wait at a terminal: one line that is written over. */
function progress(): { step: (text: string) => void; end: () => void } {
  const { stderr } = process;
  if (!stderr.isTTY) return { step: () => {}, end: () => {} };
  const [dim, plain] = hasColours(stderr) ? ['\u001b[2m', '\u001b[0m'] : ['', ''];
  const clear = '\r\u001b[K';
  return {
    step: (text) => stderr.write(`${clear}${dim}${text} …${plain}`),
    end: () => stderr.write(clear),
  };
}

function save(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new UserError(`Cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

async function run(flags: DemoFlags): Promise<void> {
  requireRoot('show the demo');
  const { play } = await import('../demo/play.ts');
  const { picture, page } = await import('../demo/picture.ts');
  const { tableOf } = await import('../demo/table.ts');
  const controller = new AbortController();
  let ending: number | undefined;
  const stop = (signal: NodeJS.Signals): void => {
    ending ??= signal === 'SIGHUP' ? endings.SIGHUP : signal === 'SIGINT' ? endings.SIGINT : endings.SIGTERM;
    controller.abort();
  };
  const signals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.on(signal, stop);
  const { step, end } = progress();
  try {
    const result = await play({
      filesystem: flags.fs,
      clones: flags.clones,
      control: flags.control === true,
      program: programPath,
      packageRoot,
      version,
      signal: controller.signal,
      step,
    });
    end();
    const svg = flags.svg ?? (flags.html === undefined && flags.json !== true ? 'sharedext-demo.svg' : undefined);
    if (svg !== undefined) save(svg, picture(result));
    if (flags.html !== undefined) save(flags.html, page(result));
    if (flags.json === true) console.log(JSON.stringify(result, null, 2));
    else {
      console.log(tableOf(result, hasColours(process.stdout)));
      for (const path of [svg, flags.html]) if (path !== undefined) console.log(`Picture: ${path}`);
    }
  } catch (error) {
    end();
    if (ending === undefined) throw error;
    process.stderr.write('sharedext: interrupted, everything that was made is removed\n');
    process.exitCode = ending;
  } finally {
    for (const signal of signals) process.off(signal, stop);
  }
}
