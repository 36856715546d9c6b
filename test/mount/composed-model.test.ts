/**
 * Random steps on files of which some extents are shared, through a mount that composes nearly all of them, compared byte
 * by byte with a model. SHAREDEXT_MODEL_STEPS sets how many on each filesystem, SHAREDEXT_MODEL_SEED which (a failure prints
 * its seed), and SHAREDEXT_MODEL_KIND on which filesystem.
 */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import { type FilesystemKind, makeLoopFilesystem } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';
import { ComposedWorld } from './composed-world.ts';

const STEPS = Number(process.env['SHAREDEXT_MODEL_STEPS'] ?? 2500);
const SEED = Number(process.env['SHAREDEXT_MODEL_SEED'] ?? 1);
const ONLY = process.env['SHAREDEXT_MODEL_KIND'];
const KINDS: readonly FilesystemKind[] = ['btrfs', 'btrfs-zstd', 'xfs', 'xfs-1k'];
/** Nothing is kept by the kernel: files are changed around the mount while they are closed. */
const OPTIONS = 'settle=0,cache=none,composed=16k,composedshare=0%';
const STEPS_PER_MOUNT = 2000;
const STEPS_PER_COMPARISON = 500;
const STEPS_PER_TURN = 50;

async function run(kind: FilesystemKind): Promise<{ world: ComposedWorld; shared: number; own: number }> {
  const filesystem = makeLoopFilesystem(kind);
  const source = join(filesystem.dir, 'tree');
  const mountpoint = join(filesystem.folder, 'shared');
  mkdirSync(source);
  const world = new ComposedWorld(SEED, source, mountpoint);
  let server = await mountSharedext(source, mountpoint, OPTIONS);
  const sums = { shared: 0, own: 0 };
  const endMount = async (): Promise<void> => {
    world.compareAll();
    const { composed } = await server.status();
    sums.shared += composed?.mappingBytes ?? 0;
    sums.own += composed?.ownBytes ?? 0;
    await server.umount();
  };
  let step = 0;
  try {
    for (step = 1; step <= STEPS; step++) {
      world.step();
      if (step % STEPS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
      if (step % STEPS_PER_COMPARISON === 0) world.compareAll();
      if (step % STEPS_PER_MOUNT === 0) {
        world.log('mount again');
        await endMount();
        server = await mountSharedext(source, mountpoint, OPTIONS);
      }
    }
    await endMount();
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const history = world.history.join('\n');
    throw new Error(`seed ${SEED}, ${kind}, step ${step}: ${what}\n${server.stderr()}\nlast steps:\n${history}`);
  } finally {
    world.closeAll();
    filesystem.dispose();
  }
  return { world, ...sums };
}

for (const kind of KINDS.filter((one) => ONLY === undefined || one === ONLY)) {
  test(`${STEPS} random steps on composed files on ${kind} show the bytes that the model has (seed ${SEED})`, async (t) => {
    const { world, shared, own } = await run(kind);
    t.diagnostic(`${kind}: ${shared} bytes from shared mappings, ${own} from files; ${JSON.stringify(world.tally)}`);
    assert.ok(shared > STEPS * 500, `only ${shared} bytes were read from shared mappings`);
    assert.ok(own > STEPS * 500, `only ${own} bytes were read from the files themselves`);
    await assertNothingLeft();
  });
}
