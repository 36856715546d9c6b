/** The page that shows a report: one file of HTML that needs nothing else, and no network. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../base/errno.ts';
import type { ReportResult } from '../report/result.ts';
import { packageRoot } from './package.ts';
import { mountLines, noteLines, share } from './reporttext.ts';
import { bytes } from './units.ts';

/** Paths of a group that are shown before the others are asked for. */
const PATHS_SHOWN = 2;

/** Writes the page. @throws UserError when the file can't be written. */
export function writePage(file: string, result: ReportResult): void {
  const page = pageOf(result);
  try {
    writeFileSync(file, page);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`Cannot write the page ${file}: ${code}`);
  }
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** JSON that can't end the script element it is in. */
function scriptData(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}

function library(): string {
  const main = fileURLToPath(import.meta.resolve('d3-hierarchy'));
  return readFileSync(join(main, '../../dist/d3-hierarchy.min.js'), 'utf8');
}

export function pageOf(result: ReportResult): string {
  const style = readFileSync(join(packageRoot, 'share/report/page.css'), 'utf8');
  const script = readFileSync(new URL('../page/treemap.js', import.meta.url), 'utf8');
  const { bytes: sums } = result;
  const roots = result.roots.map((root) => `<code>${escaped(root)}</code>`).join(', ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Page cache of ${escaped(result.roots.join(', '))}</title>
<style>
${style}</style>
</head>
<body>
<main>
<h1>What the page cache holds twice</h1>
<p class="about">${roots}, ${new Date().toLocaleString('sv-SE')}; ${count(result.files.seen)} files looked at in ${result.seconds.toFixed(1)} s${result.complete ? '' : ', stopped before the end'}</p>
${summary(result)}
${
  sums.cached === 0
    ? '<p>Nothing of it is in memory.</p>'
    : `<section>
<h2>Where it is</h2>
<p class="legend"><i class="none"></i> held once <i class="scale"></i> all of it held again elsewhere. Area: bytes in memory. Click a folder to open it.</p>
<nav id="crumbs" aria-label="Folder"></nav>
<div id="map"></div>
<p id="detail" aria-live="polite"></p>
<noscript><p>The map needs JavaScript; the numbers above and below don't.</p></noscript>
</section>
${groupTable(result)}`
}
${remarks(result)}
</main>
<script type="application/json" id="tree">${scriptData(result.tree)}</script>
${sums.cached === 0 ? '' : `<script>${library()}</script>\n<script type="module">\n${script}</script>`}
</body>
</html>
`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function summary({ bytes: sums, files, disk }: ReportResult): string {
  const cards: [string, string, string][] = [
    ['in memory', bytes(sums.cached), `of ${count(files.cached)} files`],
    ['different', bytes(sums.distinct), 'what one cache for all would hold'],
    [
      'more than once',
      bytes(sums.duplicate),
      `${share(sums.duplicate, sums.cached)}, in ${count(files.duplicate)} files`,
    ],
  ];
  if (sums.dirty + sums.writeback > 0) cards.push(['dirty', bytes(sums.dirty), 'not on disk yet']);
  if (sums.unidentified > 0) cards.push(['not identified', bytes(sums.unidentified), 'may be copies, too']);
  if (disk !== null) cards.push(['on disk', bytes(disk.distinct), `for ${bytes(disk.bytes)} in files`]);
  const part = sums.cached === 0 ? 0 : (100 * sums.duplicate) / sums.cached;
  return `<div class="cards">
${cards.map(([name, value, more]) => `<div class="card${name === 'more than once' ? ' copies' : ''}"><h2>${name}</h2><b>${value}</b><span>${escaped(more)}</span></div>`).join('\n')}
</div>
<div class="bar" role="img" aria-label="${share(sums.duplicate, sums.cached)} of what is in memory is held more than once"><i style="width:${(100 - part).toFixed(2)}%"></i></div>`;
}

function groupTable({ groups }: ReportResult): string {
  if (groups.length === 0) return '<p>Nothing is held more than once.</p>';
  const rows = groups.map(({ duplicateBytes, copies, paths }) => {
    const shown = paths.slice(0, PATHS_SHOWN).map(pathLine).join('');
    const rest = paths.slice(PATHS_SHOWN).map(pathLine).join('');
    const unnamed = copies - paths.length;
    const more = unnamed > 0 ? `<div>and ${count(unnamed)} more</div>` : '';
    const hidden = copies - Math.min(PATHS_SHOWN, paths.length);
    const others =
      rest + more === '' ? '' : `<details><summary>${count(hidden)} more</summary>${rest}${more}</details>`;
    return `<tr><td>${bytes(duplicateBytes)}</td><td>${copies > 1 ? count(copies) : ''}</td><td>${shown}${others}</td></tr>`;
  });
  return `<section>
<h2>Held more than once, the worst first</h2>
<table>
<thead><tr><th>too much</th><th>copies</th><th>files</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table>
</section>`;
}

function pathLine(path: string): string {
  return `<div><code>${escaped(path)}</code></div>`;
}

function remarks(result: ReportResult): string {
  const lines = [...mountLines(result), ...noteLines(result)];
  if (lines.length === 0) return '';
  return `<section>
<h2>Notes</h2>
<ul>
${lines.map((line) => `<li>${escaped(line)}</li>`).join('\n')}
</ul>
</section>
<footer>sharedext ${escaped(result.version)}</footer>`;
}
