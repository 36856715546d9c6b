/**
 * Random steps on files that share extents, through the mount, compared byte by byte with a model and with the same steps
 * on the bare filesystem. SHAREDEXT_MODEL_STEPS sets how many, SHAREDEXT_MODEL_SEED which (a failure prints its seed), and
 * SHAREDEXT_MODEL_KIND on which filesystem.
 */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { OtherProcess, root } from '../support/asuser.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { type FilesystemKind, makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { Peer } from './model-locking.ts';
import { createFile } from './model-names.ts';
import { type Step, settle, steps } from './model-steps.ts';
import { World } from './model-world.ts';

const STEPS = Number(process.env['SHAREDEXT_MODEL_STEPS'] ?? 1500);
const SEED = Number(process.env['SHAREDEXT_MODEL_SEED'] ?? 1);
const KINDS: readonly FilesystemKind[] = ['btrfs', 'xfs'];
/** One of them, for long runs side by side. */
const ONLY = process.env['SHAREDEXT_MODEL_KIND'];
/** settle=0: files are shared as soon as their ctime proves something, not only a second after their last change. */
const OPTIONS = 'settle=0';
const STEPS_PER_MOUNT = 1200;
/** What the server says of readers that keep what they opened. */
const NOTICES = /^sharedext: notice: sharing: .* was opened for writing while it was shared: .*\n/gm;
/** Processes that lock beside this one. */
const PEERS = 2;
/** The event loop gets a turn this often, for what the server writes to its standard error. */
const STEPS_PER_TURN = 100;

const totalWeight = steps.reduce((sum, [weight]) => sum + weight, 0);

function chooseStep(w: World): Step {
  let at = w.random.below(totalWeight);
  for (const step of steps) {
    at -= step[0];
    if (at < 0) return step;
  }
  throw new Error('The weights do not add up');
}

function makeTrees(w: World): void {
  for (const root of [w.source, w.control]) {
    for (const name of w.directories) {
      if (w.snapshots) posix.makeSubvolume(join(root, name));
      else mkdirSync(join(root, name));
    }
  }
}

async function run(kind: FilesystemKind): Promise<World> {
  const filesystem = makeLoopFilesystem(kind);
  const source = join(filesystem.dir, 'tree');
  const control = join(filesystem.dir, 'control');
  const mountpoint = join(filesystem.folder, 'shared');
  mkdirSync(source);
  mkdirSync(control);
  const peers = Array.from({ length: PEERS }, () => new Peer(new OtherProcess(root)));
  const leaser = new OtherProcess(root);
  const snapshots = kind.startsWith('btrfs');
  const w = new World({ seed: SEED, mountpoint, source, control, snapshots, peers, leaser });
  w.directories.push('one', 'two', 'three');
  makeTrees(w);
  let server = await mountSharedext(source, mountpoint, OPTIONS);
  const unmount = async (): Promise<void> => {
    w.compareAll();
    w.closeAll();
    for (const peer of peers) await peer.closeAll(w);
    await server.umount(NOTICES);
  };
  try {
    for (let i = 0; i < 6; i++) createFile(w);
    settle(w);
    while (w.tally.steps < STEPS) {
      w.tally.steps++;
      const [, , act] = chooseStep(w);
      await act(w);
      if (w.tally.steps % STEPS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
      if (w.tally.steps % STEPS_PER_MOUNT === 0) {
        w.log('mount again');
        await unmount();
        server = await mountSharedext(source, mountpoint, OPTIONS);
      }
    }
    await unmount();
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Error(
      `seed ${SEED}, ${kind}, step ${w.tally.steps}: ${what}\n${server.stderr()}\nlast steps:\n${w.history}`,
    );
  } finally {
    w.abandonAll();
    for (const { process } of peers) await process.stop();
    await leaser.stop();
    filesystem.dispose();
  }
  return w;
}

for (const kind of KINDS.filter((one) => ONLY === undefined || one === ONLY)) {
  test(`${STEPS} random steps on ${kind} show the bytes that the model has (seed ${SEED})`, async (t) => {
    const { tally } = await run(kind);
    t.diagnostic(`${kind}: ${JSON.stringify(tally)}`);
    // Both routes were taken, and sharing was broken under readers, many times.
    assert.ok(tally.frozen >= STEPS / 250, `only ${tally.frozen} descriptors kept their content`);
    assert.ok(tally.followed >= STEPS / 250, `only ${tally.followed} descriptors followed their file`);
    assert.ok(
      tally.lockedApart >= Math.floor(STEPS / 1000),
      `only ${tally.lockedApart} locks of files with old readers`,
    );
    assert.ok(tally.leases >= Math.floor(STEPS / 1000), `only ${tally.leases} leases around the mount`);
    await assertNothingLeft();
  });
}
