/**
 * The demo's result as a picture: an SVG that needs nothing else and follows the reader's light or dark scheme, and a web
 * page around it.
 */

import type { Measurement } from './measure.ts';
import type { Result } from './play.ts';
import { mebibytes, rowsOf, seconds, summaryOf, waysOf } from './table.ts';

const WIDTH = 860;
/** Without the bars of the first chart. */
const HEIGHT = 338;
const LEFT = 178;
const RIGHT = 724;
const BAR = 30;
const PITCH = 46;

const STYLE = `
  .ground { fill: #ffffff; stroke: #d8dee4 } .grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #afb8c1 }
  .text { fill: #1f2328 } .soft { fill: #656d76 } .plain { fill: #b6c0cc } .ours { fill: #1a7f6b }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d } .grid { stroke: #21262d } .axis { stroke: #484f58 }
    .text { fill: #e6edf3 } .soft { fill: #8d96a0 } .plain { fill: #4c5663 } .ours { fill: #2fb396 }
  }
  text { font-family: system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', sans-serif; font-size: 14px }
  .title { font-size: 24px; font-weight: 650 } .small { font-size: 12px } .value { font-weight: 600 }
  .heading { font-size: 13px; font-weight: 600 }`;

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

function text(x: number, y: number, style: string, content: string, anchor = 'start'): string {
  return `<text x="${x}" y="${y}" class="${style}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

/** The smallest of 1, 2, 2.5, 5 times a power of ten that divides the range into at most five steps. */
function niceStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power * 5 >= most) ?? 10);
}

interface Chart {
  readonly top: number;
  readonly heading: string;
  readonly ways: readonly Measurement[];
  readonly of: (way: Measurement) => number;
  readonly label: (value: number) => string;
  readonly tick: (value: number) => string;
  /** What one unit of the grid is. */
  readonly unit: number;
}

function chart({ top, heading, ways, of, label, tick, unit }: Chart): string {
  const most = Math.max(...ways.map(of)) / unit;
  const step = niceStep(most);
  const scale = (RIGHT - LEFT) / most;
  const parts = [text(32, top, 'text heading', heading)];
  const first = top + 16;
  const last = first + PITCH * (ways.length - 1) + BAR + 6;
  for (let value = 0; value <= most; value += step) {
    const x = Math.round(LEFT + value * scale) + 0.5;
    parts.push(`<line x1="${x}" x2="${x}" y1="${first - 4}" y2="${last}" class="${value === 0 ? 'axis' : 'grid'}"/>`);
    parts.push(text(x, last + 15, 'soft small', tick(value), 'middle'));
  }
  ways.forEach((way, index) => {
    const y = first + PITCH * index;
    const width = Math.max((of(way) / unit) * scale, 2);
    const style = index === ways.length - 1 ? 'ours' : 'plain';
    parts.push(text(LEFT - 14, y + 20, 'text', way.name, 'end'));
    parts.push(`<path d="${bar(LEFT + 1, y, width, BAR)}" class="${style}"/>`);
    parts.push(text(LEFT + width + 11, y + 20, 'text value', label(of(way))));
  });
  return parts.join('\n');
}

/** A bar whose right corners are round. */
function bar(x: number, y: number, width: number, height: number): string {
  const r = Math.min(4, width / 2);
  return `M${x} ${y}h${(width - r).toFixed(1)}q${r} 0 ${r} ${r}v${height - 2 * r}q0 ${r} ${-r} ${r}h${(r - width).toFixed(1)}z`;
}

export function picture(result: Result): string {
  const { bare, shared, clones, ratio, uniqueBytes, filesystem, kernel, date, version } = result;
  const ways = waysOf(result);
  const height = HEIGHT + PITCH * ways.length;
  const title = `${clones} clones, one page cache: ${ratio.toFixed(1)}× smaller`;
  const subtitle = `${result.files.toLocaleString('en-US')} real files read and ${clones} programs run; their unique content is ${mebibytes(uniqueBytes)}`;
  const foot = `Linux ${kernel}, ${filesystem}, sharedext ${version}, ${date}. Pages counted with cachestat(2). READ requests to the daemon: ${shared.readRequests ?? 0}.`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}
</style>
<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="10" class="ground"/>
${text(32, 48, 'text title', title)}
${text(32, 73, 'soft', subtitle)}
${chart({
  top: 112,
  heading: 'Page cache after reading all clones',
  ways,
  of: (way) => way.pageCacheBytes,
  label: mebibytes,
  tick: (value) => (value === 0 ? '0' : `${value.toLocaleString('en-US')} MiB`),
  unit: 1024 ** 2,
})}
${chart({
  top: 166 + PITCH * ways.length,
  heading: 'First read of the second clone',
  ways: [bare, shared],
  of: (way) => way.secondCloneMs,
  label: seconds,
  tick: (value) => (value === 0 ? '0' : `${value.toLocaleString('en-US')} ms`),
  unit: 1,
})}
${text(32, height - 20, 'soft small', foot)}
</svg>
`;
}

export function page(result: Result): string {
  const { clones } = result;
  const head = ['', ...waysOf(result).map((way) => way.name)].map((name) => `<th>${escaped(name)}</th>`).join('');
  const rows = rowsOf(result).map((row) => `<tr>${row.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sharedext: ${clones} clones, one page cache</title>
<style>
  :root { color-scheme: light dark }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 40px auto; padding: 0 16px }
  svg { width: 100%; height: auto }
  table { border-collapse: collapse; width: 100%; margin: 24px 0; font-variant-numeric: tabular-nums }
  th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #8884 }
  th:first-child, td:first-child { text-align: left }
</style>
${picture(result)}
<p>${escaped(summaryOf(result))}</p>
<table><tr>${head}</tr>
${rows.join('\n')}
</table>
</html>
`;
}
