/**
 * Runs in the page that `sharedext report --html` writes: draws the tree of what is in memory as a treemap into #map, again
 * whenever the width changes. A folder is opened by a click or Enter; the path above the map leads back.
 *
 * The page has the tree as JSON in #tree, and d3-hierarchy as the global `d3`.
 */

import type * as hierarchy from 'd3-hierarchy';

declare const d3: typeof hierarchy;

interface Tree {
  readonly name: string | null;
  readonly bytes: number;
  readonly duplicate: number;
  readonly children?: readonly Tree[];
}

/** A part of the tree, as deep as it is drawn. */
interface Cut {
  readonly node: Tree;
  readonly children: readonly Cut[];
}

type Node = hierarchy.HierarchyRectangularNode<Cut>;

const TITLE_HEIGHT = 20;
const GAP = 2;
/** Tiles narrower or lower than this have no text. */
const TEXT_WIDTH = 46;
const TEXT_HEIGHT = 18;
const TWO_LINES = 36;
/** A map at least so wide is wider than high, and shows one level of folders more inside one another. */
const WIDE = 700;
const LEVELS = 2;

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

const map = element('map');
const crumbs = element('crumbs');
const detail = element('detail');
const tree: Tree = JSON.parse(element('tree').textContent ?? 'null');

function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
  let [value, unit] = [bytes, 0];
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

function percent({ bytes, duplicate }: Tree): number {
  return bytes === 0 ? 0 : Math.round((100 * duplicate) / bytes);
}

function title({ name }: Tree): string {
  return name ?? 'many small ones';
}

function describe(path: readonly Tree[]): string {
  const last = path.at(-1);
  if (last === undefined) return '';
  const names = path.map(title).join('/').replace('//', '/');
  return `${names}: ${size(last.bytes)} in memory, ${size(last.duplicate)} of it copies (${percent(last)}%)`;
}

function tile(node: Node, path: readonly Tree[], open: (path: readonly Tree[]) => void): HTMLElement {
  const data = node.data.node;
  const isFolder = data.children !== undefined;
  const box = document.createElement(isFolder ? 'button' : 'div');
  const [width, height] = [node.x1 - node.x0, node.y1 - node.y0];
  box.className = node.children === undefined ? 'tile' : 'tile frame';
  box.style.left = `${node.x0}px`;
  box.style.top = `${node.y0}px`;
  box.style.width = `${width}px`;
  box.style.height = `${height}px`;
  box.style.setProperty('--copies', `${percent(data)}%`);
  const text = describe(path);
  box.setAttribute('aria-label', text);
  box.title = text;
  if (width >= TEXT_WIDTH && height >= TEXT_HEIGHT) {
    const name = document.createElement('span');
    name.textContent = title(data);
    box.append(name);
    if (node.children !== undefined || height >= TWO_LINES) {
      const sum = document.createElement('small');
      sum.textContent = `${size(data.bytes)}${data.duplicate > 0 ? `, ${percent(data)}% copies` : ''}`;
      box.append(sum);
    }
  }
  const tell = (): void => {
    detail.textContent = text;
  };
  box.addEventListener('mouseenter', tell);
  box.addEventListener('focus', tell);
  box.addEventListener('click', () => {
    tell();
    if (isFolder) open(path);
  });
  return box;
}

/** Draws the last of a path of nodes, each inside the one before it. */
function draw(path: readonly Tree[]): void {
  const top = path.at(-1) ?? tree;
  const width = map.clientWidth;
  const height = width >= WIDE ? Math.round(width * 0.5) : Math.round(width * 1.25);
  map.style.height = `${height}px`;
  const levels = width >= WIDE ? LEVELS + 1 : LEVELS;
  const isDrawn = (node: Tree, depth: number): boolean => depth < levels && node.children !== undefined;
  const cut = (node: Tree, depth: number): Cut => ({
    node,
    children: isDrawn(node, depth) ? (node.children ?? []).map((child) => cut(child, depth + 1)) : [],
  });
  const root = d3
    .hierarchy<Cut>(cut(top, 0), (one) => (one.children.length === 0 ? null : one.children))
    .sum((one) => (one.children.length === 0 ? one.node.bytes : 0))
    .sort((a, b) => (b.value ?? 0) - (a.value ?? 0));
  const laidOut = d3
    .treemap<Cut>()
    .size([width, height])
    .paddingInner(GAP)
    .paddingOuter((node) => (node.depth === 0 ? 0 : GAP))
    .paddingTop((node) => (node.depth === 0 ? 0 : TITLE_HEIGHT))
    .round(true)(root);
  map.replaceChildren();
  for (const node of laidOut.descendants()) {
    if (node.depth === 0 || node.x1 - node.x0 < 1 || node.y1 - node.y0 < 1) continue;
    const inside = node
      .ancestors()
      .reverse()
      .slice(1)
      .map(({ data }) => data.node);
    map.append(tile(node, [...path, ...inside], show));
  }
  drawCrumbs(path);
  detail.textContent = describe(path);
}

function drawCrumbs(path: readonly Tree[]): void {
  crumbs.replaceChildren();
  path.forEach((node, i) => {
    const step = document.createElement('button');
    step.textContent = i === 0 && node.name === null ? 'everything' : title(node);
    step.disabled = i === path.length - 1;
    step.addEventListener('click', () => show(path.slice(0, i + 1)));
    crumbs.append(step);
  });
}

let shown: readonly Tree[] = [];

function show(path: readonly Tree[]): void {
  shown = path;
  draw(path);
}

/** A folder with nothing but one folder in it says nothing: begin below it. */
function start(): readonly Tree[] {
  const path = [tree];
  for (;;) {
    const [only, ...others] = path.at(-1)?.children ?? [];
    if (only?.children === undefined || others.length > 0)
      return tree.name === null && path.length > 1 ? path.slice(1) : path;
    path.push(only);
  }
}

let width = 0;
new ResizeObserver(() => {
  if (map.clientWidth === width) return;
  width = map.clientWidth;
  draw(shown);
}).observe(map);
show(start());
