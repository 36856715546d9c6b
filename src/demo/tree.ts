/**
 * What the demo clones: real programs and real files of this machine, copied into one tree.
 *
 *     bin/node                 the interpreter that runs this program; it is executed from every clone
 *     files/0, files/1, …      trees such as the project's node_modules, npm, Python's library
 */

import { existsSync, mkdirSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './commands.ts';

/** Trees are added until there is this much. */
const ENOUGH_BYTES = 320 * 1024 * 1024;
/** A single tree may not be larger, so that the demo ends in time on any machine. */
const LARGEST_TREE_BYTES = 256 * 1024 * 1024;
const MOST_FILES = 30_000;

export interface Tree {
  /** The regular files with content, relative to the tree. */
  readonly files: readonly string[];
  readonly bytes: number;
}

/** The regular files below a folder that aren't empty. Symbolic links aren't followed. */
export function filesBelow(folder: string): Tree {
  const files: string[] = [];
  let bytes = 0;
  const walk = (relative: string): void => {
    for (const entry of readdirSync(join(folder, relative), { withFileTypes: true })) {
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) {
        const { size } = statSync(join(folder, path));
        if (size === 0) continue;
        files.push(path);
        bytes += size;
      }
    }
  };
  walk('');
  return { files, bytes };
}

/** Where real trees are found: what this project uses, then what distributions install. */
function candidates(packageRoot: string): string[] {
  const python = existsSync('/usr/lib')
    ? readdirSync('/usr/lib')
        .filter((name) => /^python3(\.\d+)?$/.test(name))
        .map((name) => `/usr/lib/${name}`)
    : [];
  const folders = [
    join(packageRoot, 'node_modules'),
    join(dirname(process.execPath), '../lib/node_modules'),
    ...python,
    '/usr/lib/gcc',
    '/usr/lib/git-core',
    '/usr/share/perl',
    '/usr/include',
    '/usr/share/locale',
    '/usr/share/doc',
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib64',
    '/usr/bin',
  ];
  return folders.filter((folder) => existsSync(folder)).map((folder) => realpathSync(folder));
}

/** Copies the tree into `target`, an empty folder, and returns what it holds. */
export async function fill(target: string, packageRoot: string, signal: AbortSignal): Promise<Tree> {
  mkdirSync(join(target, 'bin'));
  await run('cp', ['-L', '--preserve=mode,timestamps', process.execPath, join(target, 'bin/node')], signal);
  mkdirSync(join(target, 'files'));
  let { size: bytes } = statSync(process.execPath);
  let count = 0;
  let index = 0;
  for (const folder of candidates(packageRoot)) {
    if (bytes >= ENOUGH_BYTES) break;
    const found = filesBelow(folder);
    if (found.bytes > LARGEST_TREE_BYTES || count + found.files.length > MOST_FILES) continue;
    await run('cp', ['-a', '--reflink=never', '--', folder, join(target, 'files', String(index++))], signal);
    bytes += found.bytes;
    count += found.files.length;
  }
  return filesBelow(target);
}
