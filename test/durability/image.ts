/** A filesystem in an image on another one: a reflink of the image is what a power cut at that moment would leave. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LoopFilesystem } from '../support/loopfs.ts';

const IMAGE_BYTES = 400 * 1024 * 1024;

export interface Image {
  readonly image: string;
  /** Where it is mounted. */
  readonly source: string;
  /** For a mount of sharedext; not there yet. */
  readonly mountpoint: string;
}

export function mountImage(host: LoopFilesystem, kind: 'btrfs' | 'xfs'): Image {
  const image = join(host.dir, 'image');
  const source = join(host.folder, 'source');
  mkdirSync(source);
  writeFileSync(image, '');
  truncateSync(image, IMAGE_BYTES);
  execFileSync(`mkfs.${kind}`, kind === 'btrfs' ? ['-q', image] : ['-q', '-m', 'reflink=1', image]);
  execFileSync('mount', ['-o', 'loop', image, source]);
  return { image, source, mountpoint: join(host.folder, 'mounted') };
}

/** Copies an image as a power cut would leave it now, and returns the copy. */
export function cutPower(host: LoopFilesystem, image: string, name: string): string {
  const cut = join(host.dir, name);
  execFileSync('cp', ['--reflink=always', image, cut]);
  return cut;
}
