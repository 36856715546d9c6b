/** SQLite: it locks ranges of its file, maps a file beside it, and believes its own cache as long as a counter doesn't move. */

import assert from 'node:assert/strict';
import type { Case, Seen, Subject } from './case.ts';
import { output, start } from './processes.ts';
import { meanwhile, type Python, python } from './python.ts';

const ACCOUNTS = 3000;
const SUM = 100 * ACCOUNTS;
const TRANSFERS = 150;

type Mode = 'wal' | 'delete';

async function makeBank(dir: string, mode: Mode): Promise<void> {
  const maker = await python(
    dir,
    `
import sqlite3
db = sqlite3.connect('bank.db')
db.execute('pragma journal_mode = ${mode}')
db.execute('create table accounts (id integer primary key, balance int, pad text)')
db.executemany('insert into accounts values (?, 100, ?)', [(i, 'p' * 200) for i in range(${ACCOUNTS})])
db.execute('create index balances on accounts (balance)')
db.execute('create table counter (n int)')
db.execute('insert into counter values (0)')
db.commit()
db.close()
`,
  );
  await maker.end();
}

/** A read-only connection that has read: it holds what it knows of the file. */
async function openReader(dir: string): Promise<Python> {
  const reader = await python(
    dir,
    `
import sqlite3
db = sqlite3.connect('file:bank.db?mode=ro', uri=True, timeout=20, isolation_level=None)
def look():
    try:
        total, = db.execute('select sum(balance) from accounts').fetchone()
        return 'right' if total == ${SUM} else f'wrong sum {total}'
    except sqlite3.Error as error:
        return f'{type(error).__name__}: {error}'
def rows():
    return db.execute('select count(*) from accounts').fetchone()[0]
def check():
    return db.execute('pragma integrity_check').fetchone()[0]
`,
  );
  assert.equal(await reader.does('look()'), 'right');
  return reader;
}

async function openWriter(dir: string): Promise<Python> {
  return await python(
    dir,
    `
import random, sqlite3
db = sqlite3.connect('bank.db', timeout=20, isolation_level=None)
db.execute('pragma synchronous = off')
db.execute('pragma wal_autocheckpoint = 20')
chance = random.Random(1)
def transfer(times):
    for n in range(times):
        db.execute('begin immediate')
        for change in (-1, 1):
            db.execute('update accounts set balance = balance + ? where id = ?', (change, chance.randrange(${ACCOUNTS})))
        if n % 7 == 0:
            db.execute('insert into accounts (balance, pad) values (0, ?)', ('q' * 3000,))
        db.execute('commit')
    return times
def count(times):
    for n in range(times):
        db.execute('begin immediate')
        n, = db.execute('select n from counter').fetchone()
        db.execute('update counter set n = ?', (n + 1,))
        db.execute('commit')
    return times
def checkpoint(kind):
    return db.execute(f'pragma wal_checkpoint({kind})').fetchone()
`,
  );
}

/** What a reader sees while something goes on, each sight once. */
async function sights(reader: Python, going: Promise<unknown>): Promise<Seen> {
  const seen = new Set<Seen>();
  await meanwhile(going, async () => {
    seen.add(await reader.attempt('look()'));
  });
  seen.add(await reader.attempt('look()'));
  return [...seen];
}

const INSERTED = Math.ceil(TRANSFERS / 7);

function cases(mode: Mode): Case[] {
  const how = mode === 'wal' ? 'with a write-ahead log' : 'with a rollback journal';
  const bank: Pick<Case, 'needs' | 'prepare'> = { needs: ['python'], prepare: (dir) => makeBank(dir, mode) };
  return [
    {
      ...bank,
      name: `${how}, a reader that opened first sees right sums and new rows while another process writes`,
      async run(dir) {
        const reader = await openReader(dir);
        const writer = await openWriter(dir);
        const transfers = writer.attempt(`transfer(${TRANSFERS})`);
        const seen = await sights(reader, transfers);
        assert.equal(await transfers, TRANSFERS);
        const late = await openReader(dir);
        const states = [];
        for (const one of [reader, late]) {
          states.push([await one.attempt('look()'), await one.attempt('rows()'), await one.attempt('check()')]);
        }
        assert.deepEqual(states, Array(2).fill(['right', ACCOUNTS + INSERTED, 'ok']));
        return { seen, states };
      },
    },
    {
      ...bank,
      name: `${how}, two writers beside a reader lose no update`,
      async run(dir) {
        const reader = await openReader(dir);
        const writers = [await openWriter(dir), await openWriter(dir)];
        const done = await Promise.all(writers.map((writer) => writer.attempt('count(60)')));
        const counted = await reader.attempt("db.execute('select n from counter').fetchone()[0]");
        assert.deepEqual([done, counted], [[60, 60], 120]);
        return { done, counted };
      },
    },
    {
      ...bank,
      name: `${how}, a backup that is made while another process writes is whole`,
      async run(dir) {
        const reader = await openReader(dir);
        const writer = await openWriter(dir);
        const transfers = writer.attempt(`transfer(${TRANSFERS})`);
        await reader.does(`
copy = sqlite3.connect('copy.db')
db.backup(copy, pages=20, sleep=0.001)
`);
        assert.equal(await transfers, TRANSFERS);
        const sum = await reader.does("copy.execute('select sum(balance) from accounts').fetchone()[0]");
        const check = await reader.does("copy.execute('pragma integrity_check').fetchone()[0]");
        assert.deepEqual([sum, check], [SUM, 'ok']);
        return { sum, check };
      },
    },
    {
      ...bank,
      name: `${how}, a reader's transaction keeps what it saw, and the next one sees what was written`,
      async run(dir) {
        const reader = await openReader(dir);
        const writer = await openWriter(dir);
        const before = await reader.does("db.execute('begin')\nrows()");
        // With a rollback journal the writer waits for the reader, and gives up after its timeout.
        await writer.does("db.execute('pragma busy_timeout = 100')");
        const writing = await writer.attempt('transfer(8)');
        const during = await reader.attempt('rows()');
        const sum = await reader.attempt('look()');
        await reader.does("db.execute('commit')");
        const later = mode === 'wal' ? null : await writer.attempt("db.execute('commit')\ntransfer(7)");
        const after = await reader.attempt('rows()');
        assert.deepEqual([during, sum], [before, 'right']);
        return { before, writing, during, later, after };
      },
    },
    {
      ...bank,
      needs: ['python', 'sqlite3'],
      name: `${how}, a sqlite3 -readonly that opened first prints the rows that another sqlite3 inserts`,
      async run(dir) {
        const reader = start(dir, 'sqlite3', '-readonly', '-batch', '-cmd', '.timeout 20000', 'bank.db');
        reader.write('select count(*) from accounts;\n');
        await reader.says(new RegExp(`^${ACCOUNTS}\n`));
        const insert = "insert into accounts (balance, pad) values (0, 'new');";
        for (let row = 0; row < 3; row++) await output(dir, 'sqlite3', '-cmd', '.timeout 20000', 'bank.db', insert);
        reader.write('select count(*), sum(balance) from accounts;\npragma integrity_check;\n');
        const { status, stdout, stderr } = await reader.end();
        assert.equal(stdout, `${ACCOUNTS}\n${ACCOUNTS + 3}|${SUM}\nok\n`);
        return { status, stdout, stderr };
      },
    },
  ];
}

export const sqlite: Subject = {
  subject: 'sqlite',
  cases: [
    ...cases('delete'),
    ...cases('wal'),
    {
      name: 'a checkpoint beside a reader moves what the reader does not need, and the rest when it has ended',
      needs: ['python'],
      prepare: (dir) => makeBank(dir, 'wal'),
      async run(dir) {
        const reader = await openReader(dir);
        const writer = await openWriter(dir);
        await writer.does("db.execute('pragma wal_autocheckpoint = 0')\ntransfer(7)");
        await reader.does("db.execute('begin')\nrows()");
        await writer.does("db.execute('pragma busy_timeout = 100')\ntransfer(7)");
        const [busy] = [await writer.attempt("checkpoint('truncate')[0]")];
        const during = [await reader.attempt('rows()'), await reader.attempt('look()')];
        await reader.does("db.execute('commit')");
        const truncated = await writer.attempt("checkpoint('truncate')");
        const after = [await reader.attempt('rows()'), await reader.attempt('look()'), await reader.attempt('check()')];
        assert.deepEqual(busy, 1);
        assert.deepEqual(during, [ACCOUNTS + 1, 'right']);
        assert.deepEqual(after, [ACCOUNTS + 2, 'right', 'ok']);
        return { busy, during, truncated, after };
      },
    },
  ],
};
