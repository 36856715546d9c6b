/** The runner itself: that a case which fails, or forgets something, is reported as failed. */

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { alice, asUser } from '../support/asuser.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeFolder } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type Case, namesIn, put, refused } from './case.ts';
import { type CaseResult, failuresIn, runConformance, summaryOf } from './runner.ts';

after(() => assertNothingLeft());

async function resultsOf(cases: readonly Case[], only?: string): Promise<CaseResult[]> {
  const folder = makeFolder();
  try {
    const options = { subjects: [{ subject: 'subject', cases }], ...(only === undefined ? {} : { only }) };
    const results = await runConformance(folder, 'label', options);
    assert.deepEqual(namesIn(folder), []);
    return results;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const good: Case = { name: 'is good', run: (dir) => put(join(dir, 'file')) };

test('a case that throws is reported with its error, and those around it run', async () => {
  const bad: Case = {
    name: 'is bad',
    run: () => assert.equal(1, 2),
  };
  const results = await resultsOf([good, bad, good]);
  assert.deepEqual(
    results.map(({ name, ok }) => [name, ok]),
    [
      ['subject: is good', true],
      ['subject: is bad', false],
      ['subject: is good', true],
    ],
  );
  assert.match(failuresIn(results), /^subject: is bad\n {4}AssertionError/);
  assert.match(summaryOf(results), /^2 passed, 1 failed, 0 skipped, slowest: /);
});

test('a call that should be refused and is not fails its case', async () => {
  const [result] = await resultsOf([
    { name: 'expects too much', run: (dir) => refused('EACCES', asUser(alice).call('stat', dir)) },
  ]);
  assert.equal(result?.ok, false);
});

test('a case that leaves a descriptor open fails, here and in another process, and the descriptor is closed', async () => {
  const results = await resultsOf([
    {
      name: 'forgets its own',
      run(dir) {
        posix.open(join(dir, 'file'), posix.O_CREAT | posix.O_RDWR);
      },
    },
    {
      name: 'forgets one elsewhere',
      async run(dir) {
        await asUser(alice).call('open', dir, posix.O_RDONLY);
      },
    },
    good,
  ]);
  assert.match(results[0]?.error?.message ?? '', /^descriptors \d+ were left open$/);
  assert.match(results[1]?.error?.message ?? '', /^descriptors \d+ were left open in another process$/);
  assert.equal(results[2]?.ok, true);
});

test('a case that leaves the umask changed fails, and the next one has the usual mask', async () => {
  const results = await resultsOf([
    {
      name: 'changes it',
      async run() {
        await asUser(alice).call('umask', 0);
      },
    },
    {
      name: 'finds it as it should be',
      async run() {
        assert.equal(await asUser(alice).call('umask', 0o022), 0o022);
      },
    },
  ]);
  assert.match(results[0]?.error?.message ?? '', /umask of another process/);
  assert.equal(results[1]?.ok, true);
});

test('a case whose need is not met is skipped with the reason, and the rest of its kind as well', async () => {
  const needy: Case = { name: 'needs it', needs: ['whiteout', 'reflink'], run: () => assert.fail('it ran') };
  const folder = '/dev/shm';
  const results = await runConformance(folder, `runner-${process.pid}`, {
    subjects: [{ subject: 'subject', cases: [needy, needy, good] }],
  });
  assert.deepEqual(
    results.map(({ ok, skipped }) => [ok, skipped?.startsWith('reflink: ioctl(FICLONE)') ?? false]),
    [
      [false, true],
      [false, true],
      [true, false],
    ],
  );
});

test('only the cases whose names contain a text are run when one is given', async () => {
  const results = await resultsOf([good, { name: 'is other', run: () => assert.fail('it ran') }], 'is good');
  assert.deepEqual(
    results.map(({ ok }) => ok),
    [true],
  );
});
