/**
 * docs/benchmarks.md: a head, and the sections in their order. A run of some sections leaves the others in it as they are. Each
 * section stands between two comments:
 *
 *     <!-- section data -->
 *     …
 *     <!-- end of data -->
 */

const HEAD = `# Benchmarks

Written by \`npm run bench\`; \`npm run bench -- --only data,metadata\` writes these sections anew, and each says when it was measured, and
with what. Every figure is a ratio or a count within one run, or stands beside what it is to be compared with; nothing is subtracted.
`;

export interface Written {
  readonly name: string;
  readonly text: string;
}

function marked({ name, text }: Written): string {
  return `<!-- section ${name} -->\n\n${text.trim()}\n\n<!-- end of ${name} -->\n`;
}

function sectionsIn(document: string): Written[] {
  const found: Written[] = [];
  for (const match of document.matchAll(/<!-- section (\S+) -->\n([\s\S]*?)<!-- end of \1 -->/g))
    found.push({ name: match[1] ?? '', text: match[2] ?? '' });
  return found;
}

/** The document with some sections written anew; what isn't in the order any more goes. */
export function documentWith(document: string, written: readonly Written[], order: readonly string[]): string {
  const old = sectionsIn(document);
  const sections = order.flatMap((name) => {
    const section = written.find((one) => one.name === name) ?? old.find((one) => one.name === name);
    return section === undefined ? [] : [marked(section)];
  });
  return [HEAD, ...sections].join('\n');
}
