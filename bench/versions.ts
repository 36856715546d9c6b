/** What a run was made with. */

import { cpus, release } from 'node:os';
import { version } from '../src/cli/package.ts';
import { run } from '../src/demo/commands.ts';
import type { FilesystemName } from '../src/demo/stage.ts';

export interface Circumstances {
  readonly date: string;
  readonly version: string;
  readonly kernel: string;
  readonly filesystem: FilesystemName;
  readonly processor: string;
  readonly node: string;
  /** Each with its version; without those that aren't installed. */
  readonly programs: readonly string[];
}

const programs: readonly (readonly [string, readonly string[]])[] = [
  ['bindfs', ['--version']],
  ['fuse-overlayfs', ['--version']],
  ['mergerfs', ['--version']],
  ['git', ['--version']],
  ['tar', ['--version']],
];

/** The first number with dots in the line that names the program. */
async function versionOf(name: string, words: readonly string[]): Promise<string | undefined> {
  try {
    const lines = (await run(name, words)).split('\n');
    const line = lines.find((text) => text.startsWith(name)) ?? lines[0] ?? '';
    return `${name} ${/\d+(?:\.\d+)+/.exec(line)?.[0] ?? 'of an unknown version'}`;
  } catch {
    return;
  }
}

export async function circumstances(filesystem: FilesystemName): Promise<Circumstances> {
  const found = await Promise.all(programs.map(([name, words]) => versionOf(name, words)));
  return {
    date: new Date().toISOString().slice(0, 10),
    version,
    kernel: release(),
    filesystem,
    processor: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    node: process.version,
    programs: found.filter((text) => text !== undefined),
  };
}

export function circumstancesText(c: Circumstances): string {
  return `*${c.date}: sharedext ${c.version}, Linux ${c.kernel}, ${c.filesystem}, Node ${c.node}, ${c.processor}; ${c.programs.join(', ')}.*`;
}
