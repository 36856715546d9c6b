/** The result of a report as docs/report.md describes it; the number of the schema changes with its meaning. */

import type { Group } from './copies.ts';
import { readable } from './paths.ts';
import type { Reporter } from './reporter.ts';
import type { WalkCounts } from './walk.ts';

export const REPORT_SCHEMA = 1;

export interface ReportOptions {
  readonly roots: readonly string[];
  readonly complete: boolean;
  readonly version: string;
  readonly top: number;
  readonly groupBy: 'files' | 'directory';
}

export interface ReportGroup {
  readonly duplicateBytes: number;
  /** By files: how many hold the same bytes. By directory: 1. */
  readonly copies: number;
  /** Of all copies at most 16. */
  readonly paths: readonly string[];
}

export function resultOf(reporter: Reporter, walked: WalkCounts, options: ReportOptions) {
  const { groupBy, top } = options;
  const byFolder = new Float64Array(reporter.paths.folders);
  const { duplicateBytes, files, groups } = reporter.duplicates(groupBy === 'files' ? top : 0, (file, bytes) => {
    const folder = reporter.paths.folderOf(file);
    byFolder[folder] = (byFolder[folder] ?? 0) + bytes;
  });
  const { seen, cached, links, outOfReach, denied, failed, vanished, changed, unidentified } = reporter.files;
  const sums = reporter.bytes;
  return {
    schema: REPORT_SCHEMA,
    version: options.version,
    roots: options.roots,
    complete: options.complete,
    bytes: {
      cached: sums.cached,
      distinct: sums.cached - duplicateBytes,
      duplicate: duplicateBytes,
      dirty: sums.dirty,
      writeback: sums.writeback,
      unidentified: sums.unidentified,
    },
    files: { seen, cached, duplicate: files },
    groups: groupBy === 'files' ? groups.map((group) => named(reporter, group)) : folders(reporter, byFolder, top),
    notes: {
      links,
      outOfReach,
      denied: denied + walked.denied,
      failed: failed + walked.failed,
      vanished: vanished + walked.vanished,
      changed,
      unidentified,
      special: walked.special,
      skipped: walked.skipped,
    },
  };
}

export type ReportResult = ReturnType<typeof resultOf>;

function named(reporter: Reporter, { duplicateBytes, copies, files }: Group): ReportGroup {
  return { duplicateBytes, copies, paths: files.map((file) => reporter.paths.text(file)) };
}

/** The folders whose own files hold most of what others hold as well. */
function folders(reporter: Reporter, byFolder: Float64Array, top: number): ReportGroup[] {
  const order = [...byFolder.keys()].filter((folder) => (byFolder[folder] ?? 0) > 0);
  order.sort((a, b) => (byFolder[b] ?? 0) - (byFolder[a] ?? 0));
  return order.slice(0, top).map((folder) => ({
    duplicateBytes: Math.round(byFolder[folder] ?? 0),
    copies: 1,
    paths: [readable(reporter.paths.folderPath(folder))],
  }));
}
