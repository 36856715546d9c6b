/** Reports for tests: by the command, and in this process. */

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { RANGE_READER_MEMORY_BYTES, RangeReader } from '../../src/extents/ranges.ts';
import { Residency } from '../../src/pagecache/residency.ts';
import { REPORTER_SCRATCH_BYTES } from '../../src/report/addresses.ts';
import { Reporter } from '../../src/report/reporter.ts';
import { type Grouping, type ReportResult, resultOf } from '../../src/report/result.ts';
import { Views } from '../../src/report/views.ts';
import { WALK_MEMORY_BYTES, Walker } from '../../src/report/walk.ts';
import * as libc from '../../src/sys/libc.ts';
import { allocate } from '../../src/sys/memory.ts';

export const PROGRAM: string = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** What `sharedext report --json` says. */
export function report(...words: readonly string[]): ReportResult {
  const text = execFileSync(process.execPath, [PROGRAM, 'report', '--json', ...words], {
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(text);
}

const names = allocate('names', WALK_MEMORY_BYTES);
const scratch = allocate('a file', REPORTER_SCRATCH_BYTES);
const residency = new Residency(libc, allocate('residency', 65_536));
const extents = allocate('extents', RANGE_READER_MEMORY_BYTES);

/** A report by this process; `looked` is called with each file after its extents were asked for. */
export function quickReport(
  folder: string,
  groupBy: Grouping = 'files',
  looked: (fd: number) => void = () => {},
): ReportResult {
  const calls = {
    ...libc,
    ioctl(fd: number, request: number, argument: number): number {
      const result = libc.ioctl(fd, request, argument);
      looked(fd);
      return result;
    },
  };
  const ranges = new RangeReader(calls, extents);
  const reporter = new Reporter({ calls, residency, ranges, names, scratch, pageBytes: 4096, disk: true });
  const views = new Views([], () => undefined);
  const walker = new Walker({ calls: libc, memory: names, visitor: reporter, views, oneFilesystem: false });
  walker.add([folder]);
  while (walker.step());
  const options = { roots: [folder], complete: true, version: '', top: 1000, groupBy, disk: true, tree: true } as const;
  return resultOf(reporter, walker.counts, { ...options, met: [], seconds: 0 });
}
