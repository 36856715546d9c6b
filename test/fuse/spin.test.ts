/** When the next request is looked for before the server sleeps: only where that pays. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EAGAIN } from '../../src/base/errno.ts';
import { Spin, STREAM } from '../../src/fuse/server/spin.ts';
import { makeSession, wellFormed } from './sessions.ts';

/** How many of so many requests are looked for, when each try ends like this. */
function looks(spin: Spin, requests: number, end: (spin: Spin) => void): number {
  let tried = 0;
  for (let i = 0; i < requests; i++) {
    if (spin.milliseconds === 0) continue;
    tried++;
    end(spin);
  }
  return tried;
}

test('requests that are found are looked for every time', () => {
  assert.equal(
    looks(new Spin(200), 1000, (spin) => spin.hit()),
    1000,
  );
  assert.equal(new Spin(200).milliseconds, 0.2);
});

test('requests that never come in time are looked for less and less often', () => {
  const spin = new Spin(200);
  assert.ok(looks(spin, 1000, () => spin.miss()) <= 10);
  assert.ok(looks(spin, 100_000, () => spin.miss()) <= 100);
});

test('a few misses among hits change nothing, and the first hit after a pause ends the pauses', () => {
  const spin = new Spin(200);
  let turn = 0;
  const mixed = (): void => (turn++ % 3 === 0 ? spin.miss() : spin.hit());
  assert.equal(looks(spin, 999, mixed), 999);
  looks(spin, 5000, () => spin.miss());
  const waited = looks(spin, 3000, () => spin.hit());
  assert.ok(waited > 1900, `${waited} of 3000`);
});

test('who takes the processor from others stops for long', () => {
  const spin = new Spin(200);
  spin.preempted();
  spin.miss();
  assert.equal(
    looks(spin, 1000, () => spin.hit()),
    0,
  );
});

test('processors are kept awake while requests come in a stream, and no longer', () => {
  const said: string[] = [];
  const spin = new Spin(200, { keepAwake: () => said.push('awake'), letSleep: () => said.push('sleep') });
  for (let i = 1; i < STREAM; i++) spin.hit();
  spin.miss();
  assert.deepEqual(said, []);
  spin.hit();
  assert.deepEqual(said, ['awake']);
  for (let i = 0; i < 10 * STREAM; i++) spin.hit();
  spin.tick();
  for (let i = 0; i < STREAM; i++) spin.hit();
  spin.tick();
  assert.deepEqual(said, ['awake', 'awake'], 'the stream lasts');
  for (let i = 1; i < STREAM; i++) spin.hit();
  spin.tick();
  assert.deepEqual(said, ['awake', 'awake', 'sleep']);
});

test('a request that comes while it is looked for is served in the same turn, without a wait', () => {
  const spin = new Spin(1_000_000);
  const { device, session } = makeSession(undefined, spin);
  device.wait = () => assert.fail('it was waited for');
  device.queue.push(
    wellFormed('STATFS', 1),
    -EAGAIN,
    -EAGAIN,
    wellFormed('STATFS', 2),
    -EAGAIN,
    wellFormed('STATFS', 3),
  );
  let left = 3;
  device.beforeWrite = () => {
    // The last reply ends the test's queue: nothing comes any more.
    if (--left === 0) device.queue.push(-19);
  };
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique }) => unique),
    [1, 2, 3],
  );
});

test('a request that does not come is waited for', () => {
  const spin = new Spin(100);
  const { device, session } = makeSession(undefined, spin);
  let waits = 0;
  device.wait = () => {
    waits++;
    return false;
  };
  device.queue.push(wellFormed('STATFS', 1));
  session.drain();
  assert.equal(waits, 1);
  assert.ok(device.reads > 2, 'it was looked for before');
});
