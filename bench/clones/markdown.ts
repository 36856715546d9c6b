/** Tables in Markdown that are readable as they are. */

/** Columns are padded, so that the text is a table in a terminal, too; the first is aligned to the left. */
export function table(rows: readonly (readonly string[])[]): string {
  const columns = rows[0]?.length ?? 0;
  const widths = Array.from({ length: columns }, (_, c) => Math.max(3, ...rows.map((row) => row[c]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c] ?? 0) : cell.padStart(widths[c] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, c) => (c === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  const [head = [], ...body] = rows;
  return [line(head), rule, ...body.map(line)].join('\n');
}

export function list(items: readonly string[]): string {
  return items.map((item) => `- ${item}`).join('\n');
}

export function mib(bytes: number): string {
  return Math.round(bytes / 1024 ** 2).toLocaleString('en-US');
}

/** A message as a sentence; some end with a question. */
export function sentence(text: string): string {
  return /[.?!]$/.test(text) ? text : `${text}.`;
}

/** What isn't in the tables, with the reasons. */
export function absences(leftOut: readonly { readonly name: string; readonly reason: string }[]): string[] {
  return leftOut.map(({ name, reason }) => `${name} was left out: ${sentence(reason)}`);
}

/** A list and an empty line after it; nothing where there is nothing to list. */
export function optionalList(items: readonly string[]): string {
  return items.length === 0 ? '' : `${list(items)}\n\n`;
}
