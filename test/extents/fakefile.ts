/** Files of a fake kernel, in whole blocks, and what is asked of them. */

import { FIEMAP_EXTENT_ENCODED, FIEMAP_EXTENT_SHARED } from '../../src/extents/fiemap.ts';
import {
  EXTENT_READER_MEMORY_BYTES,
  ExtentReader,
  type IdentifyOptions,
  type Identity,
  type RefusalReason,
} from '../../src/extents/identify.ts';
import { BTRFS_FILE_EXTENT_REG } from '../../src/extents/treesearch.ts';
import { FAKE_INODE, type FakeExtent, type FakeItem, FakeKernel, fakeMemory } from './support.ts';

export const BLOCK = 4096;
export const SHARED = FIEMAP_EXTENT_SHARED;
export const ENCODED = FIEMAP_EXTENT_ENCODED;

export function readerOver(extents: readonly FakeExtent[], items: readonly FakeItem[] = []) {
  const memory = fakeMemory(EXTENT_READER_MEMORY_BYTES);
  const kernel = new FakeKernel(memory, extents, items);
  return { kernel, reader: new ExtentReader(kernel, memory) };
}

export const options = (changes: Partial<IdentifyOptions> = {}): IdentifyOptions => ({
  filesystem: 'btrfs',
  size: 100 * BLOCK,
  inode: FAKE_INODE,
  sync: false,
  limit: 1000,
  ...changes,
});

/** In blocks, since every other number is the same. */
export const extent = (logical: number, length: number, physical: number, flags = 0): FakeExtent => ({
  logical: logical * BLOCK,
  length: length * BLOCK,
  physical: physical * BLOCK,
  flags,
});

export const item = (
  offset: number,
  length: number,
  disk: number,
  into: number,
  changes: Partial<FakeItem> = {},
): FakeItem => ({
  offset: offset * BLOCK,
  type: BTRFS_FILE_EXTENT_REG,
  diskBytenr: disk * BLOCK,
  diskNumBytes: 64 * BLOCK,
  offsetInExtent: into * BLOCK,
  numBytes: length * BLOCK,
  ...changes,
});

export const compressed = (offset: number, length: number, disk: number, into: number): FakeItem =>
  item(offset, length, disk, into, { compression: 3, diskNumBytes: BLOCK });

export function identified(result: ReturnType<ExtentReader['identify']>): Identity {
  if (result.map === null) throw new Error(`refused: ${result.reason} ${result.errno}`);
  return result;
}

export function reasonOf(result: ReturnType<ExtentReader['identify']>): RefusalReason | null {
  return result.map === null ? result.reason : null;
}
