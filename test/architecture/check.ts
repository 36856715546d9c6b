/**
 * Checks the picture of the layers in ARCHITECTURE.md against the imports in `src`: run by `npm run lint`. Prints each
 * import that the picture doesn't allow, and exits 1 when there is one.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

/** What each folder of `src` may import, beside itself. */
const layers: Readonly<Record<string, readonly string[]>> = {
  base: [],
  'fuse/wire': ['base'],
  'fuse/server': ['base', 'fuse/wire'],
  extents: ['base'],
  pagecache: ['base'],
  report: ['base', 'extents', 'pagecache'],
  page: [],
  mappings: ['base', 'extents', 'pagecache'],
  filesystem: ['base', 'fuse/wire', 'fuse/server', 'extents', 'mappings', 'pagecache'],
  sys: ['base'],
  daemon: ['base', 'sys', 'fuse/wire', 'fuse/server', 'extents', 'pagecache', 'mappings', 'filesystem'],
  demo: ['base', 'sys', 'pagecache', 'daemon'],
  cli: ['base', 'sys', 'fuse/server', 'extents', 'pagecache', 'report', 'daemon', 'demo'],
};

/** Packages that only one folder may import. */
const fenced: Readonly<Record<string, readonly string[]>> = {
  koffi: ['sys'],
  commander: ['cli'],
  'cli-table3': ['cli', 'demo'],
  'd3-hierarchy': ['page'],
};

/** The longest that a source file may be, in lines: one subject each. */
const MAX_LINES = 480;

const root = resolve(import.meta.dirname, '../../..');
const source = join(root, 'src');

function layerOf(file: string): string | undefined {
  const folder = relative(source, dirname(file));
  return Object.keys(layers).find((layer) => folder === layer || folder.startsWith(`${layer}/`));
}

function check(file: string, text: string): string[] {
  const where = relative(root, file);
  const layer = layerOf(file);
  if (layer === undefined) return [`${where}: its folder has no place in the picture of the layers`];
  const problems: string[] = [];
  const lines = text.split('\n').length;
  if (lines > MAX_LINES) problems.push(`${where}: ${lines} lines, more than ${MAX_LINES}: split it by subject`);
  for (const match of text.matchAll(/(?:from|import\()\s*'([^']+)'/g)) {
    const name = match[1] ?? '';
    if (name.startsWith('.')) {
      const target = layerOf(resolve(dirname(file), name));
      if (target === undefined) problems.push(`${where}: imports ${name}, which lies outside of src`);
      else if (target !== layer && !layers[layer]?.includes(target)) {
        problems.push(`${where}: ${layer} may not import ${target}`);
      }
    } else {
      const only = fenced[name];
      if (only !== undefined && !only.includes(layer))
        problems.push(`${where}: only ${only.join(', ')} may import ${name}`);
    }
  }
  return problems;
}

const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
const problems = files.flatMap((name) => check(join(source, name), readFileSync(join(source, name), 'utf8')));
for (const problem of problems) console.error(problem);
if (files.length === 0) console.error(`no sources found in ${source}`);
console.error(`layers: ${files.length} files, ${problems.length} problems`);
process.exitCode = problems.length === 0 && files.length > 0 ? 0 : 1;
