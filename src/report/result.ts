/** The result of a report as docs/report.md describes it; the number of the schema changes with its meaning. */

import { readable } from '../base/text.ts';
import { Groups } from './groups.ts';
import { NO_FOLDER } from './paths.ts';
import type { Held, Reporter } from './reporter.ts';
import { treeOf } from './tree.ts';
import type { View } from './views.ts';
import type { WalkCounts } from './walk.ts';

export const REPORT_SCHEMA = 1;
/** A group names so many of its files. */
export const FILES_NAMED = 16;

export const GROUPINGS = ['files', 'directory', 'path'] as const;
export type Grouping = (typeof GROUPINGS)[number];

/** A mount that was met, and what of it was looked at. */
export interface Met {
  readonly view: View;
  /** What its mappings hold, for mounts of sharedext that answered. */
  readonly held: Held | undefined;
}

export interface ReportOptions {
  readonly roots: readonly string[];
  readonly complete: boolean;
  readonly version: string;
  readonly top: number;
  readonly groupBy: Grouping;
  readonly disk: boolean;
  /** Whether the tree of what is where is made. */
  readonly tree: boolean;
  readonly met: readonly Met[];
  /** How long it took. */
  readonly seconds: number;
}

export interface ReportGroup {
  readonly duplicateBytes: number;
  /** By files: how many hold the same bytes. Otherwise 1. */
  readonly copies: number;
  /** Of all copies at most 16. */
  readonly paths: readonly string[];
}

export function resultOf(reporter: Reporter, walked: WalkCounts, options: ReportOptions) {
  const { groupBy, top } = options;
  const { paths } = reporter;
  const duplicateOf = new Float64Array(paths.files);
  const groups = new Groups();
  const duplicate = reporter.copies.duplicates((files, bytes) => {
    for (const file of files)
      duplicateOf[file] = (duplicateOf[file] ?? 0) + (bytes * (files.length - 1)) / files.length;
    if (groupBy === 'files') groups.add(files, bytes);
  });
  const { seen, cached, links, outOfReach, denied, failed, vanished, changed, unidentified, layerless } =
    reporter.files;
  const sums = reporter.bytes;
  const grouped = {
    files: () => groups.worst(top).map((row) => named(reporter, groups, row)),
    directory: () => folders(reporter, byFolder(reporter, duplicateOf), top),
    path: () => folders(reporter, byRoot(reporter, duplicateOf), top),
  };
  return {
    schema: REPORT_SCHEMA,
    version: options.version,
    roots: options.roots,
    complete: options.complete,
    seconds: options.seconds,
    bytes: {
      cached: sums.cached,
      distinct: sums.cached - duplicate,
      duplicate,
      dirty: sums.dirty,
      writeback: sums.writeback,
      unidentified: sums.unidentified,
    },
    files: { seen, cached, duplicate: duplicateOf.reduce((count, bytes) => count + (bytes > 0 ? 1 : 0), 0) },
    disk: options.disk ? diskOf(reporter) : null,
    mounts: options.met.map(({ view, held }) => ({
      mountpoint: view.mountpoint,
      type: view.type,
      folders: [...view.folders, ...view.beside],
      unreachable: view.unreachable ?? null,
      sharedBytes: held?.cached ?? 0,
      savedBytes: Math.round(held?.saved ?? 0),
    })),
    groups: grouped[groupBy](),
    tree: options.tree ? treeOf(reporter, duplicateOf) : null,
    notes: {
      links,
      outOfReach,
      denied: denied + walked.denied,
      failed: failed + walked.failed,
      vanished: vanished + walked.vanished,
      changed,
      unidentified,
      layerless,
      special: walked.special,
      skipped: walked.skipped,
    },
  };
}

export type ReportResult = ReturnType<typeof resultOf>;

function diskOf({ disk, diskCopies }: Reporter) {
  const duplicate = diskCopies.duplicates(() => {});
  return {
    bytes: disk.bytes,
    distinct: disk.bytes - duplicate,
    duplicate,
    shared: disk.shared,
    unidentified: disk.unidentified,
  };
}

function named(reporter: Reporter, groups: Groups, row: number): ReportGroup {
  const paths = groups.files(row, FILES_NAMED).map((file) => reporter.paths.text(file));
  return { duplicateBytes: groups.duplicateBytes(row), copies: groups.copies(row), paths };
}

/** Sums over the files that lie in each folder itself. */
function byFolder({ paths }: Reporter, duplicateOf: Float64Array): Float64Array {
  const sums = new Float64Array(paths.folders);
  duplicateOf.forEach((bytes, file) => {
    const folder = paths.folderOf(file);
    sums[folder] = (sums[folder] ?? 0) + bytes;
  });
  return sums;
}

/** Sums over everything below each path that the walk began with. */
function byRoot({ paths }: Reporter, duplicateOf: Float64Array): Float64Array {
  const roots = new Uint32Array(paths.folders);
  for (let folder = 0; folder < roots.length; folder++) {
    const parent = paths.parentOf(folder);
    roots[folder] = parent === NO_FOLDER ? folder : (roots[parent] ?? 0);
  }
  const sums = new Float64Array(paths.folders);
  duplicateOf.forEach((bytes, file) => {
    const root = roots[paths.folderOf(file)] ?? 0;
    sums[root] = (sums[root] ?? 0) + bytes;
  });
  return sums;
}

/** The folders with the largest sums. */
function folders({ paths }: Reporter, sums: Float64Array, top: number): ReportGroup[] {
  const order = [...sums.keys()].filter((folder) => (sums[folder] ?? 0) > 0);
  order.sort((a, b) => (sums[b] ?? 0) - (sums[a] ?? 0));
  return order.slice(0, top).map((folder) => ({
    duplicateBytes: Math.round(sums[folder] ?? 0),
    copies: 1,
    paths: [readable(paths.folderPath(folder))],
  }));
}
