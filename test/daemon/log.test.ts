/** The three forms of a line of the log. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatOf, lineOf } from '../../src/daemon/log.ts';

const now = (): Date => new Date(Date.UTC(2026, 0, 2, 3, 4, 5));

test('people read a level and what it is about', () => {
  assert.equal(lineOf('text', now, 'warning', 'takeover', 'it died'), 'sharedext: warning: takeover: it died');
});

test('the journal gets a priority for each line', () => {
  const line = lineOf('journal', now, 'error', 'request', 'READ failed\n  at somewhere');
  assert.equal(line, '<3>sharedext: request: READ failed\n<3>sharedext: request:   at somewhere');
});

test('programs get one object in one line, whatever the message', () => {
  const line = lineOf('json', now, 'notice', 'mount', 'two\n"lines"');
  assert.ok(!line.includes('\n'));
  assert.deepEqual(JSON.parse(line), {
    time: '2026-01-02T03:04:05.000Z',
    level: 'notice',
    event: 'mount',
    message: 'two\n"lines"',
  });
});

test('the journal is told from a terminal that inherited its variable', () => {
  assert.equal(formatOf({}, '8:1'), 'text');
  assert.equal(formatOf({ JOURNAL_STREAM: '8:1' }, '8:1'), 'journal');
  assert.equal(formatOf({ JOURNAL_STREAM: '8:1' }, '8:2'), 'text');
  assert.equal(formatOf({ JOURNAL_STREAM: '8:1', SHAREDEXT_LOG_FORMAT: 'json' }, '8:1'), 'json');
});
