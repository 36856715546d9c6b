/** Processors without work: kept awake while requests come in a stream, and no longer, on a real mount. */

import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem } from './clones.ts';

after(() => assertNothingLeft());

const DEVICE = '/dev/cpu_dma_latency';
/** A stream needs requests that come while they are looked for: on a busy machine some tries fail. */
const TRIES = 200;
const CALLS = 2000;

const nothingToTest = existsSync(DEVICE) ? 'on one processor no request is looked for' : `there is no ${DEVICE}`;
const skip = availableParallelism() > 1 && existsSync(DEVICE) ? false : nothingToTest;

const holds = ({ pid }: MountedServer): boolean =>
  readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === DEVICE;
    } catch {
      // It was closed meanwhile.
      return false;
    }
  });

/** Asks the mount for names that it doesn't have, one right after another. */
function stream(mountpoint: string): void {
  for (let i = 0; i < CALLS; i++) lstatSync(join(mountpoint, `nobody-${i}`), { throwIfNoEntry: false });
}

async function onMount(options: string, body: (server: MountedServer) => Promise<void>): Promise<void> {
  await onFilesystem('btrfs', 600, async ({ dir }) => {
    const [source, mountpoint] = [join(dir, 'source'), join(dir, 'mountpoint')];
    for (const path of [source, mountpoint]) mkdirSync(path);
    const server = await mountSharedext(source, mountpoint, options);
    try {
      await body(server);
    } finally {
      await server.umount();
    }
  });
}

test('with idle=poll they are kept awake while requests come in a stream, and sleep soon after', { skip }, async () => {
  await onMount('idle=poll,cache=none', async (server) => {
    assert.equal(holds(server), false, 'nobody asked for anything');
    for (let i = 0; i < TRIES && !holds(server); i++) stream(server.mountpoint);
    assert.ok((await server.status()).idle.times > 0);
    for (let i = 0; i < TRIES && holds(server); i++) await pause(20);
    assert.equal(holds(server), false, 'the stream is over');
    assert.equal((await server.status()).idle.awake, false);
  });
});

test('with idle=sleep, or where no request is looked for, they never are', { skip }, async () => {
  for (const options of ['idle=sleep,cache=none', 'idle=poll,spin=0,cache=none']) {
    await onMount(options, async (server) => {
      for (let i = 0; i < 10; i++) stream(server.mountpoint);
      assert.deepEqual((await server.status()).idle, { awake: false, times: 0 });
    });
  }
});
