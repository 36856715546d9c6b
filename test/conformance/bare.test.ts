/** The conformance cases on bare filesystems: the control, against which a mount is held. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mountIdmapped, usersElsewhere } from '../support/idmapped.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import type { Feature } from './features.ts';
import { failuresIn, runConformance, summaryOf } from './runner.ts';

after(() => assertNothingLeft());

/** What the filesystem really can't do: a skip for any other reason is a failure. */
const lacks: Readonly<Record<'btrfs' | 'xfs', readonly Feature[]>> = {
  // fs/btrfs/file.c: btrfs_fallocate knows no such modes.
  btrfs: ['collapse-range', 'insert-range', 'unshare-range'],
  // fs/xfs/xfs_ioctl.c: there is no flag for writing in place.
  xfs: ['nocow'],
};

for (const kind of ['btrfs', 'xfs'] as const) {
  for (const idmapped of [false, true]) {
    const where = idmapped ? `bare ${kind} that is idmapped` : `bare ${kind}`;
    test(`every case holds on ${where}, or is skipped because ${kind} can't do it`, async (context) => {
      const filesystem = makeLoopFilesystem(kind);
      try {
        const dir = idmapped ? join(filesystem.folder, 'idmapped') : filesystem.dir;
        const second = idmapped ? await mountIdmapped(filesystem.dir, dir, usersElsewhere) : undefined;
        const results = await runConformance(dir, kind);
        second?.umount();
        context.diagnostic(summaryOf(results));
        assert.equal(failuresIn(results), '');
        const unexpected = results.filter(
          ({ skipped }) => skipped !== undefined && !lacks[kind].some((feature) => skipped.startsWith(`${feature}:`)),
        );
        assert.deepEqual(unexpected, []);
      } finally {
        filesystem.dispose();
      }
    });
  }
}
