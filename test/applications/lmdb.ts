/** LMDB: readers map the file, the writer writes to it beside them, and a new transaction finds the newest root in the map. */

import assert from 'node:assert/strict';
import type { Case, Subject } from './case.ts';
import { python } from './python.ts';

const KEYS = 2000;

function opening(path: string, options: string): string {
  return `
import lmdb
env = lmdb.open('${path}', map_size=1 << 24, subdir=${path === 'folder' ? 'True' : 'False'}, ${options})
def get(key):
    with env.begin() as txn:
        return txn.get(key)
def entries():
    return env.stat()['entries']
def scan():
    with env.begin() as txn:
        return sum(1 for key, value in txn.cursor() if value.startswith(b'value') or value.startswith(b'new'))
`;
}

/** Before the application starts: one of its environments, as a folder or as a file. */
function environment(path: string): Pick<Case, 'needs' | 'prepare'> {
  return {
    needs: ['lmdb'],
    async prepare(dir) {
      const maker = await python(
        dir,
        `${opening(path, 'sync=False')}
with env.begin(write=True) as txn:
    for n in range(${KEYS}):
        txn.put(b'key %d' % n, b'value %d ' % n * 10)
env.close()
`,
      );
      await maker.end();
    },
  };
}

function cases(path: string, writing: string, how: string): Case[] {
  return [
    {
      ...environment(path),
      name: `readers that opened ${path} first see what a writer commits ${how}`,
      async run(dir) {
        const readers = [
          await python(dir, opening(path, 'readonly=True')),
          await python(dir, opening(path, 'readonly=True')),
        ];
        const before = await Promise.all(readers.map((reader) => reader.does("[entries(), get(b'key 7')]")));
        const writer = await python(dir, opening(path, writing));
        const seen = [];
        for (let round = 0; round < 5; round++) {
          await writer.does(`
with env.begin(write=True) as txn:
    txn.put(b'key 7', b'new %d' % ${round})
    for n in range(200):
        txn.put(b'more %d %d' % (${round}, n), b'new')
`);
          for (const reader of readers) seen.push(await reader.attempt("[entries(), get(b'key 7'), scan()]"));
        }
        const expected = [0, 1, 2, 3, 4].map((round) => {
          const count = KEYS + 200 * (round + 1);
          return [count, `new ${round}`, count];
        });
        assert.deepEqual(
          seen,
          expected.flatMap((sight) => [sight, sight]),
        );
        return { before, seen };
      },
    },
    {
      ...environment(path),
      name: `a transaction in ${path} keeps what it saw while a writer commits ${how}`,
      async run(dir) {
        const reader = await python(dir, opening(path, 'readonly=True'));
        await reader.does('txn = env.begin()');
        const writer = await python(dir, opening(path, writing));
        for (let round = 0; round < 20; round++) {
          await writer.does(
            "with env.begin(write=True) as txn:\n    txn.put(b'key 7', b'new %d')".replace('%d', String(round)),
          );
        }
        const during = await reader.attempt("[txn.get(b'key 7'), sum(1 for _ in txn.cursor())]");
        await reader.does('txn.abort()');
        const after = await reader.attempt("get(b'key 7')");
        assert.deepEqual([during, after], [['value 7 '.repeat(10), KEYS], 'new 19']);
        return { during, after };
      },
    },
  ];
}

export const lmdb: Subject = {
  subject: 'lmdb',
  cases: [
    ...cases('folder', 'sync=True', 'by write(2)'),
    ...cases('folder', 'sync=True, writemap=True', 'through a writable map'),
    ...cases('plain.lmdb', 'sync=True', 'by write(2)'),
  ],
};
