/** The installed package: where it is, and its version. */

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The compiled program lies in dist/src/cli of the package, or in src/cli of another output folder. */
const levels = ['../../..', '../..'] as const;

function findRoot(): string {
  for (const level of levels) {
    const folder = resolve(import.meta.dirname, level);
    try {
      readFileSync(join(folder, 'package.json'));
      return folder;
    } catch {
      // The other one has it.
    }
  }
  throw new Error(`no package.json above ${import.meta.dirname}`);
}

export const packageRoot: string = findRoot();

function readVersion(): string {
  const description: unknown = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
  if (typeof description === 'object' && description !== null && 'version' in description) {
    return String(description.version);
  }
  return 'unknown';
}

export const version: string = readVersion();

/** The program itself. */
export const programPath: string = fileURLToPath(new URL('./main.js', import.meta.url));
