/** How many pages of a folder's files have the same content as others: the most that sharing could save. */

import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Tree } from '../../src/demo/tree.ts';

const PAGE_BYTES = 4096;
const FILES_PER_TURN = 64;

export interface SamePages {
  /** Each file that is there twice, once. */
  readonly distinctFilesBytes: number;
  /** Each page that is there twice, once, wherever in a file it is. */
  readonly distinctPagesBytes: number;
}

export async function samePages(folder: string, { files }: Tree, signal: AbortSignal): Promise<SamePages> {
  const buffer = new Uint8Array(PAGE_BYTES);
  const pages = new Set<string>();
  const whole = new Set<string>();
  const inodes = new Set<number>();
  let distinctFilesBytes = 0;
  for (const [index, file] of files.entries()) {
    if (index % FILES_PER_TURN === 0) {
      await turn();
      signal.throwIfAborted();
    }
    const path = join(folder, file);
    const { ino } = statSync(path);
    if (inodes.has(ino)) continue;
    inodes.add(ino);
    const all = createHash('sha1');
    let bytes = 0;
    const fd = openSync(path, 'r');
    try {
      for (;;) {
        buffer.fill(0);
        if (readSync(fd, buffer, 0, PAGE_BYTES, null) === 0) break;
        bytes += PAGE_BYTES;
        all.update(buffer);
        pages.add(createHash('sha1').update(buffer).digest('base64'));
      }
    } finally {
      closeSync(fd);
    }
    const content = all.digest('base64');
    if (whole.has(content)) continue;
    whole.add(content);
    distinctFilesBytes += bytes;
  }
  return { distinctFilesBytes, distinctPagesBytes: pages.size * PAGE_BYTES };
}
