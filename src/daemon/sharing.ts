/** What a mount that shares has beside its files: the store of shared mappings, and what composes large files of extents. */

import { EXDEV, errnoText, UserError } from '../base/errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  MS_RDONLY,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  POSIX_FADV_DONTNEED,
  STATX_BASIC_STATS,
} from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import { EXTENT_READER_MEMORY_BYTES, ExtentReader } from '../extents/identify.ts';
import { OWNERS_MEMORY_BYTES, Owners } from '../extents/owners.ts';
import { RANGE_READER_MEMORY_BYTES, RangeReader } from '../extents/ranges.ts';
import { Buffers } from '../filesystem/routes/buffers.ts';
import { COMPOSING_SCRATCH_BYTES, Composing } from '../filesystem/routes/composing.ts';
import { BUFFER_BYTES } from '../fuse/server/session.ts';
import type { MappingBacking } from '../mappings/calls.ts';
import { Composer } from '../mappings/composed.ts';
import { ExtentIndex } from '../mappings/extentindex.ts';
import { PACKS_SCRATCH_BYTES, Packs } from '../mappings/packs.ts';
import { adoptPlace, PLACE_SCRATCH_BYTES, type Place, strayNames, takePlace } from '../mappings/place.ts';
import { MappingStore, STORE_SCRATCH_BYTES } from '../mappings/store.ts';
import { Residency } from '../pagecache/residency.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { readOnlyMount } from '../sys/mounts.ts';
import { type Facts, KEPT, type Keeper } from './keeping.ts';
import type { Log } from './log.ts';
import type { MountOptions } from './options.ts';
import { existingDirectory, identityOf, probeReflink, probeSameFilesystem, type Source } from './source.ts';
import type { State } from './state.ts';
import type { Undo } from './undo.ts';

const MAX_FLOOR_BYTES = 2 ** 30;
const RESIDENCY_BYTES = 4096;

export interface Sharing {
  /** Where the clones are, for people: the directory that holds the store, and the mount's folder in it. */
  readonly path: string;
  readonly parentPath: string;
  readonly place: string;
  readonly mappings: MappingStore;
  /** Absent when no file is to be composed. */
  readonly composed: ComposedParts | undefined;
  /** The store's directory, which the mount must not show. */
  readonly inode: number;
  readonly subvolume: number;
}

export interface ComposedParts {
  readonly index: ExtentIndex;
  readonly packs: Packs;
  readonly composer: Composer;
  readonly ranges: RangeReader;
  readonly reader: ExtentReader;
}

/**
 * Takes a place in the store, or that of the server before, and puts together what shares.
 *
 * @throws UserError
 */
export function openSharing(
  source: Source,
  options: MountOptions,
  backing: MappingBacking,
  state: State,
  keeper: Keeper,
  undo: Undo,
  log: Log,
): Sharing {
  const scratch = allocate('the store', PLACE_SCRATCH_BYTES);
  const adopted = keeper.facts !== undefined;
  const { place, parentPath } = adopted
    ? heldPlace(source, scratch, keeper.facts, keeper, undo, log)
    : openPlace(source, options, scratch, keeper, undo, log);
  const readOnlyFd = adopted ? keeper.take(KEPT.readOnly) : readOnlyMount(place.directoryFd, scratch);
  if (readOnlyFd < 0) throw new UserError(`Cannot make a read-only mount of the store: ${errnoText(readOnlyFd)}`);
  undo.push(() => sys.close(readOnlyFd));
  if (!adopted) keeper.keep(KEPT.readOnly, readOnlyFd);
  const { floor } = options;
  // A stricter rule keeps diverged files to themselves.
  const minBytes = options.share === 'all' ? options.composed : undefined;
  const reader = new ExtentReader({ ioctl: sys.ioctl }, allocate('extents', EXTENT_READER_MEMORY_BYTES));
  const folders = { directoryFd: place.directoryFd, readOnlyFd, filesystem: source.filesystem };
  const identity = identityOf(place.storeFd, scratch);
  const ownSubvolume = identity.subvolume !== identityOf(source.mountFd, scratch).subvolume;
  const storeRoot = source.filesystem === 'btrfs' && ownSubvolume ? identity.subvolume : undefined;
  const residency = new Residency(sys, allocate('residency', RESIDENCY_BYTES));
  let mappings: MappingStore | undefined;
  const composed =
    minBytes === undefined
      ? undefined
      : makeComposer(source, folders, reader, residency, storeRoot, state.takeovers * 2 ** 32, {
          openClone: (row) => mappings?.openClone(row) ?? -EXDEV,
          isSpaceLow: () => mappings?.isSpaceLow() ?? false,
        });
  if (composed !== undefined) undo.push(() => composed.packs.close());
  mappings = new MappingStore({
    calls: sys,
    reader,
    backing,
    ...folders,
    scratch: allocate('clones', STORE_SCRATCH_BYTES),
    rows: state.mappings,
    isClean: (fd) => residency.isClean(fd),
    writable: (options.flags & MS_RDONLY) === 0,
    maxMappings: options.maxMappings,
    floorBytes: 'bytes' in floor ? floor.bytes : Math.min((source.totalBytes * floor.percent) / 100, MAX_FLOOR_BYTES),
    monotonicMs: () => performance.now(),
    ...(composed !== undefined &&
      minBytes !== undefined && {
        composer: {
          minBytes,
          indexedBytes: (map, domain) => composed.composer.indexedBytes(map, domain),
          addClone: (row, size, inode, map, domain) => composed.composer.addClone(row, size, inode, map, domain),
          dropClone: (row) => composed.packs.dropClone(row),
        },
      }),
  });
  if (adopted) {
    mappings.adopt(() => state.journal.commit());
    // Packs were known to the server before alone.
    const known = mappings;
    void removeNames(
      place.directoryFd,
      strayNames(sys, scratch, place.directoryFd, (name) => known.isClone(name)),
    );
  }
  return {
    path: `${parentPath}/${place.name}`,
    parentPath,
    place: place.name,
    mappings,
    composed,
    ...identity,
  };
}

/** Deletes files of the store on another thread: one of many extents takes long. */
async function removeNames(directoryFd: number, names: readonly string[]): Promise<void> {
  const memory = allocate('a name', 128);
  for (const name of names) {
    putString(memory, 0, name);
    await sys.unlinkat.later(directoryFd, memory.address, 0);
  }
}

/** The composed route of a mount. `scratch` is the mount's own. */
export function makeComposing(source: Source, options: MountOptions, parts: ComposedParts, scratch: Memory): Composing {
  return new Composing(
    {
      calls: sys,
      ranges: parts.ranges,
      residency: new Residency(sys, allocate('residency', RESIDENCY_BYTES)),
      composer: parts.composer,
      packs: parts.packs,
      buffers: new Buffers((bytes) => allocate('a waiting request', bytes), BUFFER_BYTES),
      filesystem: source.filesystem,
      scratch,
      minBytes: options.composed ?? Number.POSITIVE_INFINITY,
      minShare: options.composedShare,
      isRealtime: (fd) => parts.reader.isRealtime(fd),
      monotonicMs: () => performance.now(),
    },
    allocate('composed reads', COMPOSING_SCRATCH_BYTES),
  );
}

function leave(place: Place, log: Log): void {
  const left = place.remove();
  if (left !== undefined) log('warning', 'unmount', left);
}

interface StoreFolders {
  readonly directoryFd: number;
  readonly readOnlyFd: number;
  readonly filesystem: 'btrfs' | 'xfs';
}

function makeComposer(
  source: Source,
  folders: StoreFolders,
  reader: ExtentReader,
  residency: Residency,
  storeRoot: number | undefined,
  firstPack: number,
  store: { readonly openClone: (row: number) => number; readonly isSpaceLow: () => boolean },
): ComposedParts {
  const { blockBytes, filesystem } = source;
  const statxMemory = allocate('inode numbers', 512);
  const ranges = new RangeReader({ ioctl: sys.ioctl }, allocate('ranges', RANGE_READER_MEMORY_BYTES));
  const index = new ExtentIndex(blockBytes);
  const packs = new Packs({
    calls: sys,
    ranges,
    blockBytes,
    ...folders,
    owners:
      storeRoot === undefined
        ? undefined
        : { of: new Owners({ ioctl: sys.ioctl }, allocate('owners', OWNERS_MEMORY_BYTES)), storeRoot },
    scratch: allocate('packs', PACKS_SCRATCH_BYTES),
    openClone: store.openClone,
    inodeOf: (fd) => inodeOf(fd, statxMemory),
    firstName: firstPack,
    monotonicMs: () => performance.now(),
    onFree: (from, to) => index.dropTargets(from, to),
  });
  const composer = new Composer({
    ranges,
    packs,
    index,
    filesystem,
    blockBytes,
    isSpaceLow: store.isSpaceLow,
    cachedPages: (fd, offset, length) => residency.cachedPages(fd, offset, length),
    dropPages: (fd, offset, length) => sys.posixFadvise(fd, offset, length, POSIX_FADV_DONTNEED),
  });
  return { index, packs, composer, ranges, reader };
}

/** Offset of stx_ino in struct statx (statx(2)). */
const STATX_INO = 32;

function inodeOf(fd: number, memory: Memory): number {
  const at = 128;
  const read = sys.statx(fd, memory.address, AT_EMPTY_PATH, STATX_BASIC_STATS, memory.address + at);
  return read < 0 ? read : getU64(memory.view, at + STATX_INO);
}

/** The place of the server before. */
function heldPlace(source: Source, scratch: Memory, facts: Facts, keeper: Keeper, undo: Undo, log: Log) {
  const parentPath = facts.storeParent;
  const parentFd = keeper.take(KEPT.storeParent);
  undo.push(() => sys.close(parentFd));
  const options = { calls: sys, scratch, parentFd, parentPath, filesystem: source.filesystem };
  const place = adoptPlace(options, keeper.take(KEPT.store), keeper.take(KEPT.place), facts.place);
  undo.push(() => leave(place, log));
  return { place, parentPath };
}

function openPlace(source: Source, options: MountOptions, scratch: Memory, keeper: Keeper, undo: Undo, log: Log) {
  const parentPath = options.store === undefined ? source.path : existingDirectory('store', options.store);
  putString(scratch, 0, parentPath);
  const parentFd = sys.openat(AT_FDCWD, scratch.address, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (parentFd < 0) throw new UserError(`Cannot open the store's directory ${parentPath}: ${errnoText(parentFd)}`);
  undo.push(() => sys.close(parentFd));
  if (options.store === undefined && source.readOnly) {
    throw new UserError(
      `Cannot make the store: the source ${source.path} is read-only, mount with store=DIR, a directory on the same filesystem that can be written`,
    );
  }
  const place: Place = takePlace({ calls: sys, scratch, parentFd, parentPath, filesystem: source.filesystem });
  undo.push(() => leave(place, log));
  const cloned = probeReflink(place.directoryFd, scratch);
  if (cloned < 0) {
    throw new UserError(
      `Cannot share: ${parentPath} makes no reflinks (${errnoText(cloned)}); for XFS make the filesystem with "mkfs.xfs -m reflink=1", or mount with nosharedext`,
    );
  }
  if (probeSameFilesystem(source.directoryFd, place.directoryFd, scratch) === -EXDEV) {
    throw new UserError(`Cannot use the store ${parentPath}: it is not on the filesystem of the source ${source.path}`);
  }
  keeper.keep(KEPT.storeParent, parentFd);
  keeper.keep(KEPT.store, place.storeFd);
  keeper.keep(KEPT.place, place.directoryFd);
  return { place, parentPath };
}
