/** What the tests of this folder share: a reader with real memory, and a kernel made of a list of extents. */

import { closeSync, fstatSync, openSync } from 'node:fs';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../src/base/linux.ts';
import { type Memory, memoryAt } from '../../src/base/memory.ts';
import type { ExtentCalls } from '../../src/extents/calls.ts';
import type { ExtentMap } from '../../src/extents/extentmap.ts';
import { FIEMAP_EXTENT_LAST, FS_IOC_FIEMAP, fiemap, fiemapExtent } from '../../src/extents/fiemap.ts';
import { ExtentReader, type IdentifyOptions, type Identity, type Refusal } from '../../src/extents/identify.ts';
import {
  BTRFS_EXTENT_DATA_KEY,
  BTRFS_IOC_TREE_SEARCH_V2,
  searchArgs,
  searchHeader,
} from '../../src/extents/treesearch.ts';
import * as libc from '../../src/sys/libc.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Memory of this process, for as long as it runs. */
export function realMemory(length: number = 256 * KIB): Memory {
  const address = libc.mmap(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address < 0) throw new Error(`Cannot map ${length} bytes: errno ${-address}`);
  return memoryAt(address, libc.viewOf(address, length));
}

/** Memory for a fake kernel, which gets no address but knows the memory itself. */
export function fakeMemory(length: number): Memory {
  return memoryAt(0x1000, new ArrayBuffer(length));
}

export const reader: ExtentReader = new ExtentReader(libc, realMemory());

export function withFile<T>(path: string, use: (fd: number, size: number, inode: number) => T, flags = 'r'): T {
  const fd = openSync(path, flags);
  try {
    const stat = fstatSync(fd);
    return use(fd, stat.size, stat.ino);
  } finally {
    closeSync(fd);
  }
}

/** Identifies a file with its dirty pages written back, unless the options say otherwise. */
export function identifyFile(
  path: string,
  filesystem: 'btrfs' | 'xfs',
  options: Partial<IdentifyOptions> = {},
): Identity | Refusal {
  return withFile(path, (fd, size, inode) =>
    reader.identify(fd, { filesystem, size, inode, sync: true, limit: 100_000, ...options }),
  );
}

export type Row = readonly [offset: number, length: number, address: number, slice: number];

export function rowsOf(map: ExtentMap): Row[] {
  return Array.from({ length: map.count }, (_, row) => [
    map.offset(row),
    map.length(row),
    map.address(row),
    map.slice(row),
  ]);
}

/** One extent as FIEMAP reports it. */
export interface FakeExtent {
  readonly logical: number | bigint;
  readonly length: number | bigint;
  readonly physical: number | bigint;
  readonly flags: number;
}

/** One EXTENT_DATA item. An inline one has `numBytes` in place of its ram_bytes. */
export interface FakeItem {
  readonly offset: number | bigint;
  readonly type: number;
  readonly compression?: number;
  readonly encryption?: number;
  readonly otherEncoding?: number;
  readonly diskBytenr: number | bigint;
  readonly diskNumBytes: number | bigint;
  readonly offsetInExtent: number | bigint;
  readonly numBytes: number | bigint;
}

export const FAKE_INODE = 257;

function putU64(view: DataView, at: number, value: number | bigint): void {
  view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
}

export function putExtent(view: DataView, index: number, extent: FakeExtent): void {
  const at = fiemap.structBytes + index * fiemapExtent.structBytes;
  if (at + fiemapExtent.structBytes > view.byteLength) return;
  putU64(view, at + fiemapExtent.fe_logical.offset, extent.logical);
  putU64(view, at + fiemapExtent.fe_length.offset, extent.length);
  putU64(view, at + fiemapExtent.fe_physical.offset, extent.physical);
  fiemapExtent.fe_flags.set(view, at, extent.flags);
}

/** Writes a header and an item at `at` and returns where the next one goes, or -1 when this one doesn't fit. */
export function putItem(view: DataView, at: number, item: FakeItem, inode = FAKE_INODE): number {
  const size = item.type === 0 ? 21 + 10 : 53;
  if (at + searchHeader.structBytes + size > view.byteLength) return -1;
  searchHeader.transid.set(view, at, 7);
  searchHeader.objectid.set(view, at, inode);
  putU64(view, at + searchHeader.offset.offset, item.offset);
  searchHeader.type.set(view, at, BTRFS_EXTENT_DATA_KEY);
  searchHeader.len.set(view, at, size);
  const body = at + searchHeader.structBytes;
  putU64(view, body, 7);
  putU64(view, body + 8, item.numBytes);
  view.setUint8(body + 16, item.compression ?? 0);
  view.setUint8(body + 17, item.encryption ?? 0);
  view.setUint16(body + 18, item.otherEncoding ?? 0, true);
  view.setUint8(body + 20, item.type);
  if (item.type !== 0) {
    putU64(view, body + 21, item.diskBytenr);
    putU64(view, body + 29, item.diskNumBytes);
    putU64(view, body + 37, item.offsetInExtent);
    putU64(view, body + 45, item.numBytes);
  }
  return body + size;
}

/** A kernel with one file: answers FIEMAP and the tree search as the real one does, page by page. */
export class FakeKernel implements ExtentCalls {
  fiemapCalls = 0;
  searchCalls = 0;
  readonly fiemapFlags: number[] = [];
  readonly fiemapRooms: number[] = [];
  xflags = 0;

  readonly #memory: Memory;
  readonly #extents: readonly FakeExtent[];
  readonly #items: readonly FakeItem[];

  constructor(memory: Memory, extents: readonly FakeExtent[], items: readonly FakeItem[] = []) {
    this.#memory = memory;
    this.#extents = extents;
    this.#items = items;
  }

  ioctl(_fd: number, request: number): number {
    if (request === FS_IOC_FIEMAP) return this.#fiemap();
    if (request === BTRFS_IOC_TREE_SEARCH_V2) return this.#search();
    this.#memory.view.setUint32(0, this.xflags, true);
    return 0;
  }

  #fiemap(): number {
    const view = this.#memory.view;
    this.fiemapCalls++;
    const start = fiemap.fm_start.get(view, 0);
    const end = start + fiemap.fm_length.get(view, 0);
    const room = fiemap.fm_extent_count.get(view, 0);
    this.fiemapFlags.push(fiemap.fm_flags.get(view, 0));
    this.fiemapRooms.push(room);
    let mapped = 0;
    for (const [index, extent] of this.#extents.entries()) {
      if (Number(extent.logical) + Number(extent.length) <= start || Number(extent.logical) >= end) continue;
      if (mapped === room) break;
      const last = index === this.#extents.length - 1 ? FIEMAP_EXTENT_LAST : 0;
      putExtent(view, mapped, { ...extent, flags: extent.flags | last });
      mapped++;
    }
    fiemap.fm_mapped_extents.set(view, 0, mapped);
    return 0;
  }

  #search(): number {
    const view = this.#memory.view;
    this.searchCalls++;
    const from = searchArgs.min_offset.get(view, 0);
    const to = searchArgs.max_offset.get(view, 0);
    let at = searchArgs.structBytes;
    let count = 0;
    for (const item of this.#items) {
      if (Number(item.offset) < from || Number(item.offset) > to) continue;
      const next = putItem(view, at, item);
      if (next < 0) break;
      at = next;
      count++;
    }
    searchArgs.nr_items.set(view, 0, count);
    return 0;
  }
}
