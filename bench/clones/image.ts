/**
 * The image that has many clones: a tree that programs are run in by chroot(8), as in a container. It is made of what this
 * machine has, copied byte by byte, so that nothing must be downloaded:
 *
 *     the programs, the libraries that they name (ldd), and Python's library, where this machine has them
 *     files/0, files/1, …      more real trees, until there is enough
 */

import { cpSync, existsSync, mkdirSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import { filesBelow, type Tree } from '../../src/demo/tree.ts';
import type { Extent } from '../section.ts';

const MIB = 1024 ** 2;
const PAGE_BYTES = 4096;
/** Files up to this size are kept in the tree of a btrfs that was mounted without max_inline=: btrfs(5). */
const MAX_INLINE = 2048;
const ENOUGH: Readonly<Record<Extent, number>> = { short: 4 * MIB, normal: 520 * MIB, full: 1024 * MIB };
/** A folder that would lead further beyond the size than this is left out. */
const TOO_MUCH = 1.15;

/** A program in the image. It says a word when it has started, and ends when its input does. */
export interface Program {
  readonly name: string;
  readonly words: readonly string[];
}

export interface Image {
  readonly folder: string;
  readonly tree: Tree;
  readonly programs: readonly Program[];
  /** What must be in memory at least when all of it was read: the pages of each file once. */
  readonly pageBytes: number;
  /** Of it, files that btrfs keeps in its tree, unless it was mounted with max_inline=0. */
  readonly inlineBytes: number;
}

const PYTHON = '/usr/bin/python3';

const PYTHON_PROGRAM = `
import sys, asyncio, csv, ctypes, decimal, email.message, hashlib, http.client, json, logging, sqlite3, ssl, unittest, urllib.request
import xml.etree.ElementTree
print('started', flush=True)
sys.stdin.read()`;

const NODE_PROGRAM = `
for (const name of require('module').builtinModules.filter((name) => !/^_|^trace_events|^wasi|^sys$|^punycode/.test(name))) require(name);
console.log('started');
process.stdin.resume();`;

/** The libraries that programs and libraries name, and the loader. Files that aren't dynamic name none. */
async function librariesOf(files: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  for (const file of files) {
    const said = await run('ldd', [file]).catch(() => '');
    for (const [, path] of said.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)) if (path !== undefined) found.add(path);
  }
  return [...found];
}

function put(path: string, target: string): void {
  mkdirSync(join(target, dirname(path)), { recursive: true });
  cpSync(path, join(target, path), { dereference: true, preserveTimestamps: true });
}

async function putProgram(path: string, target: string): Promise<void> {
  for (const file of [path, ...(await librariesOf([path]))]) put(file, target);
}

async function putPython(target: string): Promise<void> {
  await putProgram(PYTHON, target);
  const library = (await run(PYTHON, ['-c', 'import sysconfig; print(sysconfig.get_path("stdlib"))'])).trim();
  mkdirSync(join(target, dirname(library)), { recursive: true });
  await run('cp', ['-a', '--reflink=never', '--', library, join(target, library)]);
  const modules = join(library, 'lib-dynload');
  const natives = existsSync(modules) ? readdirSync(modules).map((name) => join(modules, name)) : [];
  for (const file of await librariesOf(natives)) put(file, target);
}

/** Trees that are found on many machines, those with programs and libraries first. */
function fillers(): string[] {
  const folders = [
    join(packageRoot, 'node_modules'),
    '/usr/lib/git-core',
    '/usr/lib/gcc',
    '/usr/share/perl',
    join(dirname(process.execPath), '../lib/node_modules'),
    '/usr/share/locale',
    '/usr/include',
    '/usr/libexec',
    '/usr/sbin',
    '/usr/share/doc',
    '/usr/bin',
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib64',
    '/usr/share/man',
    '/usr/lib/python3',
  ];
  return [...new Set(folders.filter((folder) => existsSync(folder)).map((folder) => realpathSync(folder)))];
}

async function fillUp(target: string, extent: Extent, signal: AbortSignal): Promise<void> {
  mkdirSync(join(target, 'files'));
  const enough = ENOUGH[extent];
  let { bytes } = filesBelow(target);
  let index = 0;
  for (const folder of extent === 'short' ? [join(packageRoot, 'node_modules/commander')] : fillers()) {
    signal.throwIfAborted();
    if (bytes >= enough) break;
    const found = filesBelow(folder).bytes;
    if (bytes + found > enough * TOO_MUCH) continue;
    await run('cp', ['-a', '--reflink=never', '--', folder, join(target, 'files', String(index++))], signal);
    bytes += found;
  }
}

interface Pages {
  readonly pageBytes: number;
  readonly inlineBytes: number;
}

/** The pages of all files, those of a file with several names once. */
function pagesOf(folder: string, { files }: Tree): Pages {
  const seen = new Set<number>();
  let pageBytes = 0;
  let inlineBytes = 0;
  for (const file of files) {
    const { ino, size } = statSync(join(folder, file));
    if (seen.has(ino)) continue;
    seen.add(ino);
    const bytes = Math.ceil(size / PAGE_BYTES) * PAGE_BYTES;
    pageBytes += bytes;
    if (size <= MAX_INLINE) inlineBytes += bytes;
  }
  return { pageBytes, inlineBytes };
}

/** Makes the image in a folder that exists and is empty. */
export async function makeImage(folder: string, extent: Extent, signal: AbortSignal): Promise<Image> {
  const programs: Program[] = [];
  if (extent === 'short') {
    await putProgram('/bin/sh', folder);
    programs.push({ name: 'sh', words: ['/bin/sh', '-c', 'echo started; read ended'] });
  } else {
    if (existsSync(PYTHON)) {
      await putPython(folder);
      programs.push({ name: 'python3', words: [PYTHON, '-S', '-c', PYTHON_PROGRAM] });
    }
    await putProgram(process.execPath, folder);
    programs.push({ name: 'node', words: [process.execPath, '-e', NODE_PROGRAM] });
  }
  for (const name of ['dev', 'proc', 'tmp']) mkdirSync(join(folder, name), { recursive: true });
  await fillUp(folder, extent, signal);
  await run('sync', ['-f', folder]);
  const tree = filesBelow(folder);
  return { folder, tree, programs, ...pagesOf(folder, tree) };
}
