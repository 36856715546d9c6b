/**
 * The conformance cases on mounts: every case that the bare filesystem passes must pass here (`test/conformance` runs them
 * there). What the kernel's FUSE client can't do at all is named below, with the place that says so.
 */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runConformance, summaryOf } from '../conformance/runner.ts';
import { mountIdmapped, usersElsewhere } from '../support/idmapped.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';

after(() => assertNothingLeft());

/** docs/semantics.md, "What the kernel doesn't pass on". */
const beyondAnyServer = [
  'flags: appending cannot be turned off on a descriptor of an append-only file',
  'flags: statx shows immutable and append-only',
];

/** The same, where the mount is idmapped: the kernel tells neither the caller's ids as the idmap has them, nor the idmap. */
const beyondWhereIdmapped = [
  'changes of content: a write by a member',
  'changes of content: a truncation by name by a member',
  'changes of content: a truncation by descriptor by a member',
  'changes of content: opening with O_TRUNC by a member',
  'changes of content: a copy into it by a member',
].map((start) => `${start} of the group leaves set-group-ID of a file that the group may not execute`);
beyondWhereIdmapped.push(
  'privileges: set-group-ID without permission to run for the group stays on a change by a member',
  'privileges: where set-user-ID goes with a member’s change, set-group-ID without permission to run for the group stays',
  'privileges: a change of owner that leaves both ids takes set-user-ID and set-group-ID all the same',
);

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
  readonly idmapped?: boolean;
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
  { name: 'an idmapped mount of btrfs', kind: 'btrfs', options: 'settle=0', idmapped: true },
  { name: 'an idmapped mount of XFS', kind: 'xfs', options: 'settle=0', idmapped: true },
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
        const idmapped = way.idmapped ? join(filesystem.folder, 'idmapped') : undefined;
        const second = idmapped === undefined ? undefined : await mountIdmapped(mountpoint, idmapped, usersElsewhere);
        const results = await runConformance(idmapped ?? mountpoint, way.kind);
        second?.umount();
        context.diagnostic(summaryOf(results));
        const beyond = [...beyondAnyServer, ...(way.idmapped ? beyondWhereIdmapped : [])];
        const failed = results.filter(({ ok, skipped }) => !ok && skipped === undefined);
        // Their tables have the rows that `beyondWhereIdmapped` names, among others that hold.
        const tables = way.idmapped ? 'set-id bits: ' : undefined;
        const unexpected = failed.filter(
          ({ name }) => !beyond.includes(name) && (tables === undefined || !name.startsWith(tables)),
        );
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
