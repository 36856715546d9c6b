/** What clones in the store mean for quota groups of btrfs, and that doctor says so: docs/semantics.md. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readFiles, settled, writeData } from '../mount/clones.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { sharedext } from './command.ts';

const MIB = 1 << 20;
const filesystem = makeLoopFilesystem('btrfs');
const tenant = join(filesystem.dir, 'tenant');
posix.makeSubvolume(tenant);

after(async () => {
  filesystem.dispose();
  await assertNothingLeft();
});

function btrfs(...args: readonly string[]): string {
  return execFileSync('btrfs', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Referenced and exclusive bytes of the tenant. */
function usage(): { readonly referenced: number; readonly exclusive: number } {
  execFileSync('sync', ['-f', filesystem.dir]);
  const line = btrfs('qgroup', 'show', '-f', '--raw', tenant).trim().split('\n').at(-1) ?? '';
  const [, referenced, exclusive] = line.trim().split(/\s+/).map(Number);
  return { referenced: referenced ?? -1, exclusive: exclusive ?? -1 };
}

async function finding(): Promise<
  { readonly state: string; readonly found: string; readonly advice: string } | undefined
> {
  const { stdout } = await sharedext('doctor', filesystem.dir, '--json');
  const { findings }: { findings: { name: string; state: string; found: string; advice: string }[] } =
    JSON.parse(stdout);
  return findings.find(({ name }) => name === 'quotas');
}

test('what has a clone is referenced and not exclusive until the mount ends, and doctor names the groups for which it matters', async () => {
  assert.equal(await finding(), undefined, 'nothing to say where quotas are off');
  btrfs('quota', 'enable', filesystem.dir);
  writeData(join(tenant, 'one'), 4 * MIB, false);
  posix.reflink(join(tenant, 'one'), join(tenant, 'two'));
  btrfs('quota', 'rescan', '-w', filesystem.dir);
  assert.equal((await finding())?.state, 'ok');
  btrfs('qgroup', 'limit', '-e', '1G', tenant);
  const { state, found, advice } = (await finding()) ?? assert.fail('doctor says nothing of quotas');
  assert.equal(state, 'warn');
  assert.match(found, /^limits of exclusive bytes: 0\/\d+$/);
  assert.match(advice, /limit referenced bytes/);

  await settled();
  const before = usage();
  assert.ok(before.exclusive >= 4 * MIB);
  const server = await mountSharedext(filesystem.dir, join(filesystem.folder, 'mountpoint'), 'settle=0');
  await readFiles(['one', 'two'].map((name) => join(server.mountpoint, 'tenant', name)));
  assert.equal((await server.status()).mappings?.count, 1);
  const during = usage();
  assert.equal(during.referenced, before.referenced, 'limits of referenced bytes hold');
  assert.ok(during.exclusive <= before.exclusive - 4 * MIB);
  await server.umount();
  btrfs('subvolume', 'sync', filesystem.dir);
  assert.deepEqual(usage(), before);
});
