/** Which mappings of a running server hold pages for how many files; docs/status.md describes the answer. */

import type { Server } from './server.ts';

export const HELD_SCHEMA = 1;

/** Maps of open files are looked at up to so many runs in all: the mount waits meanwhile. */
const MAX_RUNS = 100_000;

/** The descriptor of the source, and pairs of inode numbers in the store and files, for mappings of more than one file. */
export function heldBy({ nodes, mappings, composing, source }: Server) {
  const files = new Map<number, number>();
  if (mappings !== undefined) {
    const byRow = new Map<number, number>();
    nodes.eachVerdict((row, generation) => {
      if (mappings.isAlive(row, generation)) byRow.set(row, (byRow.get(row) ?? 0) + 1);
    });
    for (const [row, count] of byRow) files.set(mappings.inode(row), count);
  }
  if (composing !== undefined) {
    const { packs } = composing;
    for (const [target, blocks] of composing.mappedBlocks(MAX_RUNS)) {
      const inode = packs.inode(target);
      const part = (blocks * packs.blockBytes) / Math.max(1, packs.bytes(target));
      files.set(inode, (files.get(inode) ?? 0) + part);
    }
  }
  return { schema: HELD_SCHEMA, sourceFd: source.mountFd, mappings: [...files].filter(([, count]) => count > 1) };
}

export type HeldAnswer = ReturnType<typeof heldBy>;
