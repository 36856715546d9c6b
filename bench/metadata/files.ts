/** The content of the metadata section: many small files, a real tree, the same tree as an archive and in a repository. */

import { randomFillSync } from 'node:crypto';
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { packageRoot } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import type { PlaceName } from '../places.ts';
import type { MetadataSizes } from './questions.ts';

/** More than btrfs keeps inline. */
const SMALL_BYTES = 6000;
/** Files of a source tree are small; a few large ones would make a row about data. */
const LARGEST_BYTES = 65_536;
/** Every so many files differ between the two commits. */
const CHANGED_EVERY = 3;
const FILES_PER_TURN = 500;

/** Real trees: Python's library where it is installed, and what this project uses. */
function realTrees(): string[] {
  const python = readdirSync('/usr/lib').find((name) => /^python3\.\d+$/.test(name));
  const trees = [join(packageRoot, 'node_modules'), join(packageRoot, 'src')];
  if (python !== undefined) trees.unshift(join('/usr/lib', python));
  return trees.filter((tree) => existsSync(tree));
}

/** Copies small files of real trees, with their folders, until there are enough. */
async function copyTree(target: string, most: number): Promise<number> {
  let count = 0;
  for (const [index, tree] of realTrees().entries()) {
    for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
      if (count >= most) return count;
      const from = join(entry.parentPath, entry.name);
      if (!entry.isFile() || statSync(from).size > LARGEST_BYTES) continue;
      const to = join(target, String(index), relative(tree, from));
      mkdirSync(dirname(to), { recursive: true });
      copyFileSync(from, to);
      if (++count % FILES_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return count;
}

const git = (folder: string, ...words: readonly string[]): Promise<string> =>
  run('git', ['-C', folder, '-c', 'user.name=bench', '-c', 'user.email=bench@localhost', ...words]);

/** A repository with the tree, in which `before` and `after` differ in many files. */
async function makeRepository(folder: string, tree: string): Promise<void> {
  await run('cp', ['-a', tree, folder]);
  await git(folder, 'init', '-q', '-b', 'before');
  await git(folder, 'add', '-A', '-f');
  await git(folder, 'commit', '-q', '-m', 'before');
  await git(folder, 'checkout', '-q', '-b', 'after');
  let index = 0;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || path.includes('/.git/') || ++index % CHANGED_EVERY !== 0) continue;
    appendFileSync(path, 'changed\n');
  }
  await git(folder, 'commit', '-q', '-a', '-m', 'after');
  await git(folder, 'checkout', '-q', 'before');
}

/**
 *     one                    a file
 *     small/, clones/        files that share nothing, and clones of others
 *     listed/                many empty files
 *     tree/, tree.tar        a real tree
 *     repository-PLACE/      the tree as a repository, for each place its own
 *     scratch-PLACE/         empty, for what a place makes
 *
 * Returns how many files the tree has.
 */
export async function fillForMetadata(
  source: string,
  sizes: MetadataSizes,
  places: readonly PlaceName[],
): Promise<number> {
  const at = (name: string): string => join(source, name);
  for (const name of ['small', 'origins', 'listed', 'tree', ...places.map((place) => `scratch-${place}`)])
    mkdirSync(at(name));
  writeFileSync(at('one'), 'one');
  const content = randomFillSync(new Uint8Array(SMALL_BYTES));
  for (const folder of ['small', 'origins'])
    for (let i = 0; i < sizes.small; i++) writeFileSync(at(`${folder}/file-${i}`), content);
  for (let i = 0; i < sizes.listed; i++) writeFileSync(at(`listed/file-${i}`), '');
  const files = await copyTree(at('tree'), sizes.tree);
  await run('sync', ['-f', source]);
  await run('cp', ['-a', '--reflink=always', at('origins'), at('clones')]);
  await run('tar', ['-cf', at('tree.tar'), '-C', at('tree'), '.']);
  const [first = 'bare', ...others] = places;
  await makeRepository(at(`repository-${first}`), at('tree'));
  await run('sync', ['-f', source]);
  for (const place of others)
    await run('cp', ['-a', '--reflink=always', at(`repository-${first}`), at(`repository-${place}`)]);
  await run('sync', ['-f', source]);
  return files;
}
