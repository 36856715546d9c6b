/** The session over a fake device: what it accepts, how often it answers, and that nothing a device says makes it throw. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EAGAIN, EBADF, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS, EPERM } from '../../src/base/errno.ts';
import { requiredFlags, wantedFlags } from '../../src/fuse/server/init.ts';
import { Parked } from '../../src/fuse/server/parked.ts';
import { type Finish, PAYLOAD } from '../../src/fuse/server/session.ts';
import { initFlagBits } from '../../src/fuse/wire/constants.ts';
import { operations } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { message, pack, request } from './device.ts';
import { isHandled, makeSession, wellFormed } from './sessions.ts';

const low = (flags: readonly (keyof typeof initFlagBits)[]): number =>
  flags.reduce((sum, flag) => sum + (initFlagBits[flag] < 32 ? 2 ** initFlagBits[flag] : 0), 0);
const high = (flags: readonly (keyof typeof initFlagBits)[]): number =>
  flags.reduce((sum, flag) => sum + (initFlagBits[flag] >= 32 ? 2 ** (initFlagBits[flag] - 32) : 0), 0);

const everyFlag = Object.keys(initFlagBits).filter((name): name is keyof typeof initFlagBits => name in initFlagBits);

function init(minor: number, flags: number, flags2: number, major = 7): Uint8Array {
  return request(
    'INIT',
    { unique: 1, nodeid: 0 },
    pack(s.fuse_init_in, { major, minor, max_readahead: 131072, flags, flags2 }),
  );
}

for (const minor of [45, 41, 40, 46]) {
  test(`INIT of 7.${minor} is taken, and nothing is asked for that was not offered`, async () => {
    const { device, session } = makeSession();
    // Every bit that exists, and some that don't yet.
    device.queue.push(init(minor, 0xffff_ffff, 0xffff_ffff));
    session.drain();
    const ready = await session.ready;
    assert.ok(ready.ok);
    assert.deepEqual(ready.value.missing, []);
    assert.equal(ready.value.minor, minor);
    const [reply] = device.take();
    assert.ok(reply !== undefined);
    assert.equal(reply.error, 0);
    assert.equal(reply.payload.length, s.fuse_init_out.structBytes);
    const wanted = [...requiredFlags, ...wantedFlags];
    assert.ok(!wanted.includes('FUSE_EXPORT_SUPPORT'), 'with it the kernel looks up "." and ".." of any node id');
    assert.equal(s.fuse_init_out.flags.get(reply.view, 0), low(wanted), 'unknown flags are not echoed');
    assert.equal(s.fuse_init_out.flags2.get(reply.view, 0), high(wanted));
    assert.equal(s.fuse_init_out.max_stack_depth.get(reply.view, 0), 1);
    assert.equal(s.fuse_init_out.max_readahead.get(reply.view, 0), 131072);
    assert.equal(s.fuse_init_out.max_write.get(reply.view, 0), 1 << 20);
  });
}

test('a flag that is only wanted may be missing, and is reported', async () => {
  const { device, session } = makeSession();
  device.queue.push(init(45, low(requiredFlags), high(requiredFlags)));
  session.drain();
  const ready = await session.ready;
  assert.ok(ready.ok);
  assert.deepEqual(ready.value.missing, wantedFlags);
  const [reply] = device.take();
  assert.ok(reply !== undefined);
  assert.equal(s.fuse_init_out.flags.get(reply.view, 0), low(requiredFlags));
});

test('a kernel that is too old or lacks a required flag is refused with the reason', async () => {
  const refusals: [Uint8Array, RegExp][] = [
    [init(39, 0xffff_ffff, 0xffff_ffff), /FUSE 7\.39; passthrough needs 7\.40, Linux 6\.9/],
    [init(45, 0xffff_ffff, 0xffff_ffff, 8), /FUSE 8\.45/],
    [
      request('INIT', { unique: 1 }, pack(s.fuse_init_in, { major: 7, minor: 45 }).subarray(0, 16)),
      /FUSE_INIT_EXT, FUSE_PASSTHROUGH/,
    ],
  ];
  for (const flag of requiredFlags) {
    const offered = everyFlag.filter((name) => name !== flag);
    refusals.push([init(45, low(offered), high(offered)), new RegExp(`doesn't offer .*${flag}`)]);
  }
  for (const [bytes, why] of refusals) {
    const { device, session } = makeSession();
    device.queue.push(bytes, wellFormed('STATFS', 2));
    session.drain();
    const ready = await session.ready;
    assert.ok(!ready.ok);
    assert.match(ready.why, why);
    assert.match((await session.ended) ?? '', why);
    assert.deepEqual(
      device.take().map(({ unique, error }) => [unique, error]),
      [[1, -EIO]],
    );
  }
});

test('each operation that wants a reply gets exactly one, and the others none', () => {
  const { device, session } = makeSession(() => 8);
  let unique = 10;
  for (const name of Object.keys(operations)) {
    if (!isHandled(name) && name !== 'DESTROY' && name !== 'INTERRUPT') continue;
    unique += 2;
    device.queue.push(wellFormed(name, unique));
    session.drain();
    const replies = device.take();
    assert.equal(replies.length, operations[name].replies ? 1 : 0, name);
    for (const reply of replies) {
      assert.equal(reply.unique, unique);
      assert.equal(reply.error, 0);
      assert.equal(reply.payload.length, name === 'DESTROY' ? 0 : 8);
    }
    assert.equal(session.requests[operations[name].opcode], 1);
  }
  assert.ok(!['FORGET', 'BATCH_FORGET', 'INTERRUPT'].some((name) => isHandled(name) && operations[name].replies));
});

test('a unique with all its 64 bits comes back as it was', () => {
  const { device, session } = makeSession();
  const bytes = wellFormed('STATFS', 0);
  const unique = 0x8123_4567_89ab_cdefn;
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(8, unique, true);
  const seen: bigint[] = [];
  const write = device.write.bind(device);
  device.write = (memory, length) => {
    seen.push(memory.view.getBigUint64(8, true));
    return write(memory, length);
  };
  device.queue.push(bytes);
  session.drain();
  assert.deepEqual(seen, [unique]);
});

test('an opcode without a row is answered with ENOSYS', () => {
  const { device, session } = makeSession();
  for (const opcode of [0, 19, 34, 37, 40, 49, 54, 4096, 0xffff_ffff])
    device.queue.push(message(opcode, { unique: opcode + 1 }));
  session.drain();
  const replies = device.take();
  assert.equal(replies.length, 9);
  assert.ok(replies.every((reply) => reply.error === -ENOSYS));
  assert.equal(session.unknown, 9);
});

test('a request that is shorter than its operation says, or lacks a NUL, is answered with EINVAL', () => {
  let called = 0;
  const { device, session } = makeSession(() => {
    called++;
    return 0;
  });
  for (const name of Object.keys(operations)) {
    if (!isHandled(name)) continue;
    const row = operations[name];
    const whole = row.argumentBytes + row.names;
    if (whole === 0) continue;
    const shorts = [new Uint8Array(whole - 1).fill(0)];
    if (row.names > 0) shorts.push(Buffer.concat([new Uint8Array(row.argumentBytes), Buffer.from('no end')]));
    if (row.names === 2) shorts.push(Buffer.concat([new Uint8Array(row.argumentBytes), Buffer.from('a\0no end')]));
    for (const short of shorts) {
      device.queue.push(request(name, { unique: 5 }, short));
      session.drain();
      const replies = device.take();
      assert.equal(replies.length, row.replies ? 1 : 0, name);
      assert.ok(
        replies.every((reply) => reply.error === -EINVAL),
        name,
      );
    }
  }
  assert.equal(called, 0);
});

test('a request whose length is not what it says ends the session with a reason', async () => {
  for (const bytes of [
    wellFormed('STATFS', 1).subarray(0, 39),
    Buffer.concat([wellFormed('STATFS', 1), Buffer.alloc(1)]),
  ]) {
    const { device, session } = makeSession();
    device.queue.push(bytes, wellFormed('STATFS', 2));
    session.drain();
    assert.match((await session.ended) ?? '', /the kernel sent a request of \d+ bytes that says it has/);
    assert.equal(device.take().length, 0);
    assert.equal(device.queue.length, 1, 'nothing is read any more');
  }
});

test('a handler that throws is a bug of ours: what it changed is taken back, its caller gets EIO, and no other request is read', async () => {
  const seen: string[] = [];
  const { device, session, bugs, journal, table } = makeSession(({ operation }) => {
    seen.push(operation);
    journal.set(table, journal.get(table) + 1);
    if (operation === 'LOOKUP') throw new Error('broken');
    return 0;
  });
  device.queue.push(wellFormed('GETATTR', 1), wellFormed('LOOKUP', 2), wellFormed('STATFS', 3));
  session.drain();
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique, error }) => [unique, error]),
    [
      [1, 0],
      [2, -EIO],
    ],
  );
  assert.deepEqual(seen, ['GETATTR', 'LOOKUP']);
  assert.equal(journal.get(table), 1, 'the step before stays');
  assert.equal(journal.changed, 0);
  assert.equal(session.bugs, 1);
  assert.ok(session.over);
  assert.equal(session.failures[operations.LOOKUP.opcode], 1);
  assert.equal(bugs[0]?.[0], 'LOOKUP');
  await session.broken;
});

test('a request without a reply that throws is taken back, and not dealt with again by the next server', () => {
  const { device, session, progress, journal, table } = makeSession(() => {
    journal.set(table, 7);
    throw new Error('broken');
  });
  device.queue.push(wellFormed('FORGET', 5));
  session.drain();
  assert.deepEqual([journal.get(table), journal.changed, device.take().length], [0, 0, 0]);
  assert.ok(progress.isDone(5, 0));
});

test('work that is no request is a step, too: all of it, or nothing, and nothing more after that', () => {
  const { session, bugs, journal, table } = makeSession();
  session.step('tidying', () => journal.set(table, 1));
  assert.deepEqual([journal.get(table), journal.changed], [1, 0]);
  session.step('tidying', () => {
    journal.set(table, 2);
    throw new Error('broken');
  });
  assert.deepEqual([journal.get(table), journal.changed, session.over], [1, 0, true]);
  session.step('tidying', () => journal.set(table, 3));
  assert.deepEqual([journal.get(table), bugs.length, session.bugs], [1, 1, 1]);
});

test('handlers that wait are answered later, in the order in which they finish', async () => {
  const waiting = new Map<number, (finish: Finish) => void>();
  const { device, session, output } = makeSession(
    ({ nodeid }) => new Promise((resolve) => waiting.set(nodeid, resolve)),
  );
  for (const nodeid of [1, 2, 3]) device.queue.push(request('STATFS', { unique: 100 + nodeid, nodeid }));
  session.drain();
  assert.equal(session.waiting, 3);
  assert.equal(device.take().length, 0);
  for (const nodeid of [3, 1, 2]) {
    waiting.get(nodeid)?.(() => {
      output.view.setUint32(PAYLOAD, nodeid, true);
      return 4;
    });
  }
  await new Promise(setImmediate);
  const replies = device.take();
  assert.deepEqual(
    replies.map(({ unique, view }) => [unique, view.getUint32(0, true)]),
    [
      [103, 3],
      [101, 1],
      [102, 2],
    ],
  );
  assert.equal(session.waiting, 0);
});

for (const how of ['rejects', 'finishes badly'] as const) {
  test(`a request that waits and then ${how} is taken back alone, and those that wait still are the next server's`, async () => {
    const waiting = new Map<number, (finish: Finish) => void>();
    const failing = new Map<number, (error: Error) => void>();
    const { device, session, journal, table } = makeSession(({ operation, nodeid }) => {
      // What is changed before the wait is a step of its own.
      journal.set(table + 1, journal.get(table + 1) + 1);
      if (operation === 'STATFS') {
        journal.set(table, 5);
        return 0;
      }
      return new Promise((resolve, reject) => {
        waiting.set(nodeid, resolve);
        failing.set(nodeid, reject);
      });
    });
    for (const nodeid of [1, 2]) device.queue.push(request('FSYNC', { unique: nodeid, nodeid }, new Uint8Array(16)));
    device.queue.push(wellFormed('STATFS', 3));
    session.drain();
    const change = (): never => {
      journal.set(table, 9);
      throw new Error('broken');
    };
    if (how === 'rejects') {
      journal.set(table, 9);
      failing.get(2)?.(new Error('broken'));
    } else {
      waiting.get(2)?.(change);
    }
    waiting.get(1)?.(() => {
      journal.set(table, 10);
      return 0;
    });
    await new Promise(setImmediate);
    assert.deepEqual(
      device.take().map(({ unique, error }) => [unique, error]),
      [
        [3, 0],
        [2, -EIO],
      ],
    );
    assert.deepEqual([journal.get(table), journal.get(table + 1), journal.changed], [5, 3, 0]);
    assert.deepEqual([session.bugs, session.waiting], [1, 0]);
  });
}

test('an unmount ends the session without a reason', async () => {
  const { device, session } = makeSession();
  device.queue.push(-ENODEV, wellFormed('STATFS', 1));
  session.drain();
  assert.equal(await session.ended, undefined);
  const ready = await session.ready;
  assert.equal(ready.ok, false);
  session.drain();
  assert.equal(device.reads, 1);
});

test('the session ends only when nothing waits any more', async () => {
  let finish: (finish: Finish) => void = () => {};
  const { device, session } = makeSession(
    () =>
      new Promise((resolve) => {
        finish = resolve;
      }),
  );
  device.queue.push(wellFormed('FSYNC', 1), -ENODEV);
  session.drain();
  let ended = false;
  void session.ended.then(() => {
    ended = true;
  });
  await new Promise(setImmediate);
  assert.equal(ended, false, 'what the request uses must not be released under it');
  device.writeErrors.push(-ENODEV);
  finish(() => 0);
  await new Promise(setImmediate);
  assert.equal(ended, true);
});

/** A session whose SETLKWs are parked, by node id, and whose SETLKs end the wait of the one before. */
function makeParking() {
  const parked = new Map<number, Parked>();
  const made = makeSession(({ operation, nodeid }) => {
    if (operation === 'SETLK') parked.get(nodeid - 1)?.answer(0);
    if (operation !== 'SETLKW') return 0;
    const one = new Parked(() => one.answer(-EINTR));
    parked.set(nodeid, one);
    return one;
  });
  const lock = (operation: 'SETLK' | 'SETLKW', unique: number, nodeid: number): Uint8Array =>
    request(operation, { unique, nodeid }, pack(s.fuse_lk_in));
  return { ...made, parked, lock };
}

test('what is parked is answered right after the request that ends its wait, and only once', async () => {
  const { device, session, parked, lock } = makeParking();
  device.queue.push(lock('SETLKW', 10, 1), lock('SETLKW', 12, 5), wellFormed('STATFS', 14), lock('SETLK', 16, 2));
  device.queue.push(wellFormed('STATFS', 18));
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique }) => unique),
    [14, 16, 10, 18],
  );
  assert.deepEqual([session.parked, session.waiting], [1, 0], 'the event loop is free to wait');
  parked.get(1)?.answer(-EIO);
  parked.get(5)?.answer(-EAGAIN);
  await new Promise(setImmediate);
  assert.deepEqual(
    device.take().map(({ unique, error }) => [unique, error]),
    [[12, -EAGAIN]],
  );
  assert.equal(session.parked, 0);
});

test('INTERRUPT ends the wait that it names, also of a request that came again', () => {
  const { device, session, lock } = makeParking();
  const again = lock('SETLKW', 20, 3);
  new DataView(again.buffer, again.byteOffset).setUint32(12, 0x8000_0000, true);
  const interrupt = (unique: number, high: number): Uint8Array => {
    const bytes = request('INTERRUPT', { unique: unique + 1 }, pack(s.fuse_interrupt_in, { unique }));
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(s.fuse_interrupt_in.unique.offset + 44, high, true);
    return bytes;
  };
  device.queue.push(lock('SETLKW', 10, 1), again, interrupt(99, 0), interrupt(10, 0), interrupt(10, 0));
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique, error }) => [unique, error]),
    [[10, -EINTR]],
  );
  device.queue.push(interrupt(20, 0x8000_0000));
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique, error }) => [unique, error]),
    [[20 + 2 ** 63, -EINTR]],
  );
});

test('a parked request is none that servers die of, however many it outlives; one that ends each of them is refused', () => {
  const kinds = { SETLKW: [0, 0, 0, 0, 0, 0, 0, 0], STATFS: [1, 1, 1, 1, 1, 0, 0, 0] } as const;
  for (const operation of ['SETLKW', 'STATFS'] as const) {
    const { device, session, bugs, lock } = makeParking();
    const again = operation === 'SETLKW' ? lock(operation, 20, 3) : wellFormed(operation, 20);
    new DataView(again.buffer, again.byteOffset).setUint32(12, 0x8000_0000, true);
    const answers = kinds[operation].map(() => {
      device.queue.push(again);
      session.drain();
      return device.take().filter(({ error }) => error === 0).length;
    });
    assert.deepEqual(answers, kinds[operation]);
    assert.equal(bugs.length, operation === 'SETLKW' ? 0 : 3);
  }
});

test('what is parked does not keep a session from ending, and is not answered after that', async () => {
  const { device, session, parked, lock } = makeParking();
  device.queue.push(lock('SETLKW', 10, 1), -ENODEV);
  session.drain();
  assert.equal(await session.ended, undefined);
  parked.get(1)?.answer(0);
  await new Promise(setImmediate);
  assert.equal(device.take().length, 0);
});

test('any other error of the device ends the session with a reason', async () => {
  const reading = makeSession();
  reading.device.queue.push(-EPERM);
  reading.session.drain();
  assert.match((await reading.session.ended) ?? '', /reading \/dev\/fuse failed: EPERM/);
  const writing = makeSession();
  writing.device.writeErrors.push(-EBADF);
  writing.device.queue.push(wellFormed('STATFS', 1));
  writing.session.drain();
  assert.match((await writing.session.ended) ?? '', /answering on \/dev\/fuse failed: EBADF/);
});

test('a read that was interrupted or whose request was taken back is tried again; EAGAIN ends the turn', () => {
  const { device, session } = makeSession();
  device.queue.push(-EINTR, -ENOENT, wellFormed('STATFS', 1), -EAGAIN, wellFormed('STATFS', 2));
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique }) => unique),
    [1],
  );
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique }) => unique),
    [2],
  );
});

test('a reply that nobody waits for any more is no error', () => {
  const { device, session } = makeSession();
  device.writeErrors.push(-ENOENT);
  device.queue.push(wellFormed('STATFS', 1), wellFormed('STATFS', 2));
  session.drain();
  assert.deepEqual(
    device.take().map(({ unique }) => unique),
    [2],
  );
});

test('a turn serves a bounded number of requests, and the next turn goes on', () => {
  const { device, session } = makeSession();
  for (let unique = 1; unique <= 300; unique++) device.queue.push(wellFormed('STATFS', unique));
  session.drain();
  const first = device.take().length;
  assert.ok(first >= 32 && first < 300, `${first} in one turn`);
  for (let turn = 0; turn < 20; turn++) session.drain();
  assert.equal(first + device.take().length, 300);
});

test('random bytes as requests never throw, and get one reply at the most', () => {
  const opcode = fc.oneof(fc.integer({ min: 0, max: 60 }), fc.constant(0xffff_ffff));
  fc.assert(
    fc.property(opcode, fc.uint8Array({ maxLength: 300 }), fc.boolean(), (code, bytes, honest) => {
      const { device, session } = makeSession(({ at, data, end }) => {
        assert.ok(at <= data && data <= end, 'a handler sees offsets in order');
        return 0;
      });
      const sent = honest ? message(code, { unique: 9 }, bytes) : bytes;
      device.queue.push(sent);
      session.drain();
      const replies = device.take();
      assert.ok(replies.length <= 1);
      if (honest && !['FORGET', 'BATCH_FORGET', 'INTERRUPT'].some((name) => isOpcode(name, code))) {
        assert.equal(replies.length, 1);
      }
      assert.equal(session.bugs, 0);
    }),
    { numRuns: 2000 },
  );
});

function isOpcode(name: string, opcode: number): boolean {
  return Object.entries(operations).some(([known, row]) => known === name && row.opcode === opcode);
}
