/** GNU dbm: readers and a writer exclude each other by flock(2) on the file, the reader by a descriptor opened for reading. */

import assert from 'node:assert/strict';
import type { Case, Subject } from './case.ts';
import { python } from './python.ts';

const KEYS = 300;

const database: Pick<Case, 'needs' | 'prepare'> = {
  needs: ['gdbm'],
  async prepare(dir) {
    const maker = await python(
      dir,
      `
import dbm.gnu
db = dbm.gnu.open('data.gdbm', 'n')
for n in range(${KEYS}):
    db[f'key {n}'] = f'value {n} ' * 20
db.close()
`,
    );
    await maker.end();
  },
};

const OPEN = `
import dbm.gnu
def opens(how):
    global db
    db = dbm.gnu.open('data.gdbm', how)
    return len(db)
`;

export const gdbm: Subject = {
  subject: 'gdbm',
  cases: [
    {
      ...database,
      name: 'a writer is refused beside a reader, and writes when the reader has closed',
      async run(dir) {
        const [reader, other, writer] = [await python(dir, OPEN), await python(dir, OPEN), await python(dir, OPEN)];
        const readers = [await reader.does("opens('r')"), await other.does("opens('r')")];
        const refused = await writer.attempt("opens('w')");
        await reader.does('db.close()');
        const stillRefused = await writer.attempt("opens('w')");
        const value = await other.does("db['key 7']");
        await other.does('db.close()');
        const opened = await writer.attempt("opens('w')");
        await writer.does("db['key 7'] = 'new'\ndb['one more'] = 'new'\ndb.close()");
        const again = await reader.attempt("opens('r')");
        const values = await reader.attempt("[db['key 7'], db['one more'], db['key 8']]");
        assert.deepEqual(readers, [KEYS, KEYS]);
        assert.match(String(refused), /Resource temporarily unavailable/);
        assert.equal(stillRefused, refused);
        assert.deepEqual([opened, again, values], [KEYS, KEYS + 1, ['new', 'new', 'value 8 '.repeat(20)]]);
        return { readers, refused, stillRefused, value, opened, again, values };
      },
    },
    {
      ...database,
      name: 'a reader is refused beside a writer, and sees what it wrote when it has closed',
      async run(dir) {
        const [reader, writer, late] = [await python(dir, OPEN), await python(dir, OPEN), await python(dir, OPEN)];
        await reader.does("opens('r')\ndb.close()");
        await writer.does("opens('w')\ndb['key 7'] = 'new'");
        const refused = [await reader.attempt("opens('r')"), await late.attempt("opens('w')")];
        await writer.does('db.close()');
        const values = [await reader.attempt("opens('r')\ndb['key 7']"), await late.attempt("opens('r')\ndb['key 7']")];
        for (const error of refused) assert.match(String(error), /Resource temporarily unavailable/);
        assert.deepEqual(values, ['new', 'new']);
        return { refused, values };
      },
    },
  ],
};
