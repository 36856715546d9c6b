/**
 * Every application on the bare filesystem and on a mount of it. SHAREDEXT_APPLICATIONS narrows the run to the cases whose
 * names contain it, and SHAREDEXT_APPLICATIONS_OPTIONS gives the mount other options than the default ones: with
 * `nosharedext` nothing is shared, and no exception is made.
 */

import { test } from 'node:test';
import { onFilesystem } from '../mount/clones.ts';
import type { FilesystemKind } from '../support/loopfs.ts';
import { casesOf, prepare, runCase, whySkipped } from './runner.ts';

const ONLY = process.env['SHAREDEXT_APPLICATIONS'] ?? '';
const OPTIONS = process.env['SHAREDEXT_APPLICATIONS_OPTIONS'] ?? '';
const KINDS: readonly FilesystemKind[] = ['btrfs', 'xfs'];
const SHARES = !OPTIONS.split(',').includes('nosharedext');
/** Sparse: it costs what is written to it. */
const FILESYSTEM_MIB = 3000;

for (const kind of KINDS) {
  test(`applications do on a mount of ${kind} what they do on bare ${kind}`, async (context) => {
    await onFilesystem(kind, FILESYSTEM_MIB, async (filesystem) => {
      const all = casesOf(ONLY);
      const possible = all.filter(({ one }) => whySkipped(one) === undefined);
      const prepared = await prepare(filesystem, possible, OPTIONS);
      try {
        for (const numbered of all) {
          const skip = whySkipped(numbered.one) ?? false;
          await context.test(numbered.name, { skip }, () => runCase(numbered, prepared, SHARES));
        }
      } finally {
        await prepared.server.umount();
      }
    });
  });
}
