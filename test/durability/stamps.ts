/** Blocks of which each says whose it is, and when it was written: what is read after a power cut tells by itself what it is. */

import { Random } from '../mount/random.ts';

export const BLOCK = 4096;
/** Blocks of small files, which are clones of one another at first, and of the large one, which is composed. */
export const SMALL_BLOCKS = 16;
export const LARGE_BLOCKS = 512;
export const SMALL_FILES = 6;
/** Version 0 is what all clones have in common. */
const EVERYBODY = 0xffff;

export function blocksOf(name: string): number {
  return name.startsWith('large') ? LARGE_BLOCKS : SMALL_BLOCKS;
}

function ownerOf(name: string): number {
  return [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % EVERYBODY, 7);
}

/** The bytes of a block of a file; the name doesn't matter to version 0. */
export function stamped(name: string, block: number, version: number): Buffer {
  const owner = version === 0 ? EVERYBODY : ownerOf(name);
  const data = new Random(owner * 65_537 + block * 257 + version).bytes(BLOCK);
  data.writeUInt32LE(version, 0);
  return data;
}

/** The version of a block of a file, or undefined when it is nothing that was ever written there. */
export function versionOf(name: string, block: number, data: Buffer): number | undefined {
  if (data.length !== BLOCK) return;
  const version = data.readUInt32LE(0);
  return stamped(name, block, version).equals(data) ? version : undefined;
}

/** What one step of the writer has made durable: these blocks of a file have this version or a later one. */
export interface Acknowledged {
  readonly name: string;
  readonly blocks: readonly number[];
  readonly version: number;
}
