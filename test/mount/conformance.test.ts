/**
 * The conformance cases on mounts: every case that the bare filesystem passes must pass here (`test/conformance` runs them
 * there). What the kernel's FUSE client can't do at all is named below, with the place that says so.
 */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runConformance, summaryOf } from '../conformance/runner.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';

after(() => assertNothingLeft());

/** docs/semantics.md, "What the kernel doesn't pass on". */
const beyondAnyServer = [
  'flags: appending cannot be turned off on a descriptor of an append-only file',
  'flags: statx shows immutable and append-only',
];

/** Features that a FUSE mount lacks, beside those that its source lacks. */
const lacks: Readonly<Record<'btrfs' | 'xfs', readonly string[]>> = {
  btrfs: ['reflink', 'collapse-range', 'insert-range', 'unshare-range'],
  xfs: ['reflink', 'collapse-range', 'insert-range', 'unshare-range', 'nocow'],
};

interface Way {
  readonly name: string;
  readonly kind: 'btrfs' | 'xfs';
  readonly options: string;
  readonly overSource?: boolean;
}

const ways: readonly Way[] = [
  { name: 'a mount of btrfs', kind: 'btrfs', options: 'settle=0' },
  { name: 'a mount of XFS', kind: 'xfs', options: 'settle=0' },
  {
    name: 'a mount of btrfs over its own source, where the kernel keeps everything',
    kind: 'btrfs',
    options: 'settle=0',
    overSource: true,
  },
  {
    name: 'a mount of btrfs whose files are all composed',
    kind: 'btrfs',
    options: 'settle=0,composed=0,composedshare=0%',
  },
  {
    name: 'a mount of XFS whose files are all composed',
    kind: 'xfs',
    options: 'settle=0,composed=0,composedshare=0%',
  },
  { name: 'a mount of btrfs whose files are all relayed', kind: 'btrfs', options: 'nosharedext,backing=0' },
];

for (const way of ways) {
  test(`every case holds on ${way.name}`, async (context) => {
    const filesystem = makeLoopFilesystem(way.kind);
    try {
      const source = join(filesystem.dir, 'source');
      const mountpoint = way.overSource ? source : join(filesystem.dir, 'mountpoint');
      mkdirSync(source);
      mkdirSync(mountpoint, { recursive: true });
      const server = await mountSharedext(source, mountpoint, way.options);
      try {
        const results = await runConformance(mountpoint, way.kind);
        context.diagnostic(summaryOf(results));
        const failed = results.filter(({ ok, skipped }) => !ok && skipped === undefined);
        const unexpected = failed.filter(({ name }) => !beyondAnyServer.includes(name));
        assert.deepEqual(
          unexpected.map(({ name, error }) => `${name}: ${error?.stack}`),
          [],
        );
        const skipped = results.flatMap((result) => (result.skipped === undefined ? [] : [result.skipped]));
        const known = lacks[way.kind];
        assert.deepEqual(
          skipped.filter((why) => !known.some((feature) => why.startsWith(`${feature}:`))),
          [],
        );
        assert.ok(results.length - skipped.length > 300, 'the cases were run');
      } finally {
        await server.umount();
      }
    } finally {
      filesystem.dispose();
    }
  });
}
