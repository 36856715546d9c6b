/** Charts as SVG that needs nothing else and follows the reader's light or dark scheme: lines, and bars made of parts. */

const WIDTH = 860;
const LEFT = 74;
/** Lines end here; their names stand behind it. */
const LINES_RIGHT = 620;
const LINES_TOP = 116;
const LINES_HEIGHT = 330;
/** Where bars begin, at the least: further right where a name is longer. */
const BARS_LEFT = 250;
/** The width of a letter of ours, which are bold, with some room. */
const LETTER = 8;
const BARS_RIGHT = 740;
const BAR = 20;
const BAR_PITCH = 30;
const LABEL_PITCH = 16;

const STYLE = `
  .ground { fill: #ffffff; stroke: #d8dee4 } .grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #afb8c1 }
  .text { fill: #1f2328 } .soft { fill: #656d76 } .line { fill: none; stroke-width: 1.75 } .thick { stroke-width: 3 }
  .f0 { fill: #1a7f6b } .f1 { fill: #b6c0cc } .f2 { fill: #c77d0a } .f3 { fill: #3568b0 } .f4 { fill: #a3409b }
  .f5 { fill: #6b7280 } .f6 { fill: #b3392f } .f7 { fill: #0e7d9c } .f8 { fill: #85702b } .f9 { fill: #5a4fcf }
  .s0 { stroke: #1a7f6b } .s1 { stroke: #b6c0cc } .s2 { stroke: #c77d0a } .s3 { stroke: #3568b0 } .s4 { stroke: #a3409b }
  .s5 { stroke: #6b7280 } .s6 { stroke: #b3392f } .s7 { stroke: #0e7d9c } .s8 { stroke: #85702b } .s9 { stroke: #5a4fcf }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d } .grid { stroke: #21262d } .axis { stroke: #484f58 }
    .text { fill: #e6edf3 } .soft { fill: #8d96a0 }
    .f0 { fill: #2fb396 } .f1 { fill: #4c5663 } .f2 { fill: #e3a23c } .f3 { fill: #6ea2ee } .f4 { fill: #d67fce }
    .f5 { fill: #9aa4b2 } .f6 { fill: #ef7d73 } .f7 { fill: #4fbddb } .f8 { fill: #c2a94f } .f9 { fill: #9d94f5 }
    .s0 { stroke: #2fb396 } .s1 { stroke: #4c5663 } .s2 { stroke: #e3a23c } .s3 { stroke: #6ea2ee } .s4 { stroke: #d67fce }
    .s5 { stroke: #9aa4b2 } .s6 { stroke: #ef7d73 } .s7 { stroke: #4fbddb } .s8 { stroke: #c2a94f } .s9 { stroke: #9d94f5 }
  }
  text { font-family: system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', sans-serif; font-size: 13px }
  .title { font-size: 20px; font-weight: 650 } .small { font-size: 12px } .value { font-weight: 600 }`;

/** How many colours there are; the first is for what is ours, the second for what others are compared with. */
const COLOURS = 10;

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

function text(x: number, y: number, style: string, content: string, anchor = 'start'): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${style}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

interface Words {
  readonly title: string;
  readonly subtitle: string;
  /** How it was measured, in one line below. */
  readonly foot: string;
}

function sheet({ title, subtitle, foot }: Words, height: number, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}
</style>
<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="10" class="ground"/>
${text(28, 42, 'text title', title)}
${text(28, 66, 'soft', subtitle)}
${parts.join('\n')}
${text(28, height - 18, 'soft small', foot)}
</svg>
`;
}

type Scale = 'linear' | 'log';

/** The smallest of 1, 2, 2.5, 5 times a power of ten that divides the range into at most five steps. */
function niceStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power * 5 >= most) ?? 10);
}

function linearTicks(most: number): number[] {
  const step = niceStep(most);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** Powers of two from below the least to above the most. */
function logTicks(least: number, most: number): number[] {
  const first = Math.floor(Math.log2(least));
  const last = Math.ceil(Math.log2(most));
  return Array.from({ length: Math.max(last - first, 1) + 1 }, (_, i) => 2 ** (first + i));
}

export interface Line {
  readonly name: string;
  /** x and y. */
  readonly points: readonly (readonly [number, number])[];
  /** Drawn thick, in the first colour. */
  readonly ours?: boolean;
}

export interface LineChart extends Words {
  readonly x: { readonly label: string; readonly ticks: readonly number[]; readonly scale: Scale };
  readonly y: { readonly label: string; readonly tick: (value: number) => string; readonly scale: Scale };
  readonly lines: readonly Line[];
}

function position(value: number, least: number, most: number, scale: Scale): number {
  if (most <= least) return 0.5;
  if (scale === 'linear') return (value - least) / (most - least);
  return (Math.log(value) - Math.log(least)) / (Math.log(most) - Math.log(least));
}

/** Moves labels apart that would lie on one another; they keep their order. */
function spread(wanted: readonly number[], least: number, most: number): number[] {
  const order = wanted.map((_, index) => index).sort((a, b) => (wanted[a] ?? 0) - (wanted[b] ?? 0));
  const placed = [...wanted];
  let next = least;
  for (const index of order) {
    placed[index] = Math.max(wanted[index] ?? 0, next);
    next = (placed[index] ?? 0) + LABEL_PITCH;
  }
  let limit = most;
  for (const index of order.toReversed()) {
    placed[index] = Math.min(placed[index] ?? 0, limit);
    limit = (placed[index] ?? 0) - LABEL_PITCH;
  }
  return placed;
}

/** Lines with their names at their ends. */
export function lineChart(chart: LineChart): string {
  const { x, y } = chart;
  const lines = chart.lines.filter(({ points }) => points.length > 0);
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const largest = Math.max(...values);
  const ticks = y.scale === 'log' ? logTicks(Math.min(...values), largest) : linearTicks(largest * 1.05);
  const low = ticks[0] ?? 0;
  const high = y.scale === 'log' ? (ticks.at(-1) ?? 1) : largest * 1.05;
  const bottom = LINES_TOP + LINES_HEIGHT;
  const atX = (value: number): number =>
    LEFT + position(value, x.ticks[0] ?? 0, x.ticks.at(-1) ?? 1, x.scale) * (LINES_RIGHT - LEFT);
  const atY = (value: number): number => bottom - position(value, low, high, y.scale) * LINES_HEIGHT;
  const parts = [text(28, LINES_TOP - 20, 'soft small', y.label)];
  for (const tick of ticks) {
    const at = atY(tick).toFixed(1);
    parts.push(`<line x1="${LEFT}" x2="${LINES_RIGHT}" y1="${at}" y2="${at}" class="grid"/>`);
    parts.push(text(LEFT - 10, Number(at) + 4, 'soft small', y.tick(tick), 'end'));
  }
  for (const tick of x.ticks) parts.push(text(atX(tick), bottom + 20, 'soft small', String(tick), 'middle'));
  parts.push(text((LEFT + LINES_RIGHT) / 2, bottom + 40, 'soft small', x.label, 'middle'));
  const ends = lines.map(({ points }) => atY(points.at(-1)?.[1] ?? low) + 4);
  const labels = spread(ends, LINES_TOP, bottom + 4);
  let colour = 1;
  lines.forEach(({ name, points, ours }, index) => {
    const shade = ours === true ? 0 : 1 + (colour++ % (COLOURS - 1));
    const path = points.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`);
    parts.push(`<path d="${path.join('')}" class="line s${shade}${ours === true ? ' thick' : ''}"/>`);
    for (const [px, py] of points) {
      parts.push(`<circle cx="${atX(px).toFixed(1)}" cy="${atY(py).toFixed(1)}" r="3" class="f${shade}"/>`);
    }
    const from = `${(atX(points.at(-1)?.[0] ?? 0) + 5).toFixed(1)} ${((ends[index] ?? 0) - 4).toFixed(1)}`;
    const to = `${LINES_RIGHT + 12} ${((labels[index] ?? 0) - 4).toFixed(1)}`;
    parts.push(`<path d="M${from}L${to}" class="line s${shade}" stroke-dasharray="1 3"/>`);
    parts.push(text(LINES_RIGHT + 16, labels[index] ?? 0, `f${shade}${ours === true ? ' value' : ''}`, name));
  });
  return sheet(chart, bottom + 84, parts);
}

export interface Bar {
  readonly name: string;
  /** One for each of the chart's parts; they are put one behind the other. */
  readonly values: readonly number[];
  readonly ours?: boolean;
  /** Stands behind the bar. */
  readonly label: string;
}

export interface BarChart extends Words {
  /** What the bars are made of; a chart of one part has no legend. */
  readonly parts: readonly string[];
  readonly tick: (value: number) => string;
  readonly bars: readonly Bar[];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Bars that lie, one below the other. */
export function barChart(chart: BarChart): string {
  const longest = Math.max(0, ...chart.bars.map(({ values }) => sum(values)));
  const most = longest > 0 ? longest : 1;
  const left = Math.max(BARS_LEFT, Math.ceil(28 + LETTER * Math.max(0, ...chart.bars.map(({ name }) => name.length))));
  const scale = (BARS_RIGHT - left) / most;
  const several = chart.parts.length > 1;
  const top = several ? 120 : 92;
  const bottom = top + BAR_PITCH * chart.bars.length;
  const parts: string[] = [];
  if (several) {
    let x = 28;
    chart.parts.forEach((name, index) => {
      parts.push(`<rect x="${x}" y="84" width="12" height="12" rx="2" class="f${partColour(index)}"/>`);
      parts.push(text(x + 18, 95, 'soft small', name));
      x += 42 + name.length * 7;
    });
  }
  for (const tick of linearTicks(most)) {
    const x = Math.round(left + tick * scale) + 0.5;
    const style = tick === 0 ? 'axis' : 'grid';
    parts.push(`<line x1="${x}" x2="${x}" y1="${top - 6}" y2="${bottom}" class="${style}"/>`);
    parts.push(text(x, bottom + 16, 'soft small', chart.tick(tick), 'middle'));
  }
  chart.bars.forEach(({ name, values, ours, label }, index) => {
    const y = top + BAR_PITCH * index;
    parts.push(text(left - 12, y + 15, ours === true ? 'text value' : 'text', name, 'end'));
    let x = left + 1;
    values.forEach((value, part) => {
      const width = value * scale;
      const shade = several ? partColour(part) : ours === true ? 0 : 1;
      parts.push(`<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" class="f${shade}"/>`);
      x += width;
    });
    parts.push(text(x + 8, y + 15, 'text value', label));
  });
  return sheet(chart, bottom + 58, parts);
}

/** The parts' colours begin with the calm one. */
function partColour(part: number): number {
  return part + 1;
}
