/** Option strings, and lines on the control socket, that nobody in his right mind would write. */

import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { UserError } from '../../src/base/errno.ts';
import { askDaemon, openControlSocket } from '../../src/daemon/control.ts';
import { genericWords, ownOptions, parseOptions } from '../../src/daemon/options.ts';
import { socketPath } from '../../src/daemon/runtime.ts';

const seed = Number(process.env['SHAREDEXT_FUZZ_SEED'] ?? 5);
const numRuns = Number(process.env['SHAREDEXT_FUZZ_RUNS'] ?? 2000);

const names = [...ownOptions.map(({ name }) => name), ...genericWords];
const word = fc.oneof(
  fc.constantFrom(...names, 'constructor', '__proto__', 'toString', 'remount', 'x-', 'comment'),
  fc.string({ unit: 'binary', maxLength: 20 }),
);
const value = fc.oneof(
  fc.constantFrom(
    '',
    '-1',
    '0',
    '1e9',
    '0x10',
    'NaN',
    'Infinity',
    '9'.repeat(400),
    '100.5%',
    '101%',
    'off',
    'auto',
    '٣',
  ),
  fc.nat().map(String),
  fc.tuple(fc.nat(), fc.constantFrom('k', 'M', 'g', 'T', '%', 'x')).map(([number, suffix]) => `${number}${suffix}`),
  fc.string({ unit: 'binary', maxLength: 20 }),
);
const valued = ownOptions.filter((option) => option.value !== undefined).map(({ name }) => name);
const known = fc.tuple(fc.constantFrom(...valued), value).map(([name, given]) => `${name}=${given}`);
const any = fc.oneof(
  word,
  fc.tuple(word, value).map(([name, given]) => `${name}=${given}`),
);
const options = fc.oneof(fc.array(known, { maxLength: 2 }), fc.array(fc.oneof(any, known), { maxLength: 6 }));

test('option strings are understood, or refused in words; no number is out of bounds', () => {
  fc.assert(
    fc.property(options, (words) => {
      let parsed: ReturnType<typeof parseOptions>;
      try {
        parsed = parseOptions([words.join(',')]);
      } catch (error) {
        assert.ok(error instanceof UserError);
        assert.match(error.message, /^Cannot /);
        return;
      }
      const { cache, floor, settleMs, maxMappings, composed, composedShare, spinUs, maxBacking, maxNodes, flags } =
        parsed;
      const numbers = [
        settleMs,
        maxMappings,
        composedShare,
        spinUs,
        maxBacking,
        maxNodes,
        flags,
        ...Object.values(floor),
      ];
      if (composed !== undefined) numbers.push(composed);
      if (typeof cache === 'number') numbers.push(cache);
      for (const number of numbers) assert.ok(Number.isFinite(number) && number >= 0, `${number}`);
      assert.ok(maxMappings > 0 && maxNodes >= 1024);
    }),
    { seed, numRuns },
  );
});

test('names that every object has are no options', () => {
  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
    assert.throws(() => parseOptions([name]), /unknown/);
  }
});

/** No device of a mount has it. */
const MINOR = 1_048_575;

function send(bytes: Uint8Array): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const client = createConnection(socketPath(MINOR));
    client.setEncoding('utf8');
    client.on('data', (part) => {
      text += part;
    });
    client.on('error', () => resolve(text));
    client.on('close', () => resolve(text));
    client.end(bytes);
  });
}

test('whatever is sent to the control socket is answered line by line with JSON, or not at all', async () => {
  const socket = await openControlSocket(MINOR, { status: () => ({ fine: true }) }, () => {});
  try {
    const line = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.json().map((text) => Buffer.from(text)),
      fc
        .constantFrom('{"command":"status"}', '{"command":"constructor"}', '{"command":["status"]}', 'null', '[]', '')
        .map((text) => Buffer.from(text)),
      fc.integer({ min: 4000, max: 9000 }).map((length) => Buffer.alloc(length, '[')),
    );
    const lines = fc.array(line, { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(lines, async (given) => {
        const answer = await send(Buffer.concat(given.flatMap((bytes) => [bytes, Buffer.from('\n')])));
        for (const one of answer.split('\n').filter((text) => text !== '')) {
          const parsed: unknown = JSON.parse(one);
          assert.ok(typeof parsed === 'object' && parsed !== null && ('fine' in parsed || 'error' in parsed));
        }
      }),
      { seed, numRuns: Math.ceil(numRuns / 10) },
    );
    assert.deepEqual(await askDaemon(MINOR, 'status', 1000), { state: 'answered', value: { fine: true } });
  } finally {
    socket.close();
  }
});
