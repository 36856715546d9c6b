/**
 * That every section of the benchmark runs from end to end, answers with numbers, and leaves nothing. How large they are is no
 * matter for a test.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { documentWith } from '../../bench/report.ts';
import { assertNothingLeft } from '../support/leaks.ts';

const PROGRAM = join(import.meta.dirname, '../../bench/main.js');
const TIMEOUT_MS = 600_000;
/** Sections whose every number is known: JSON has null for what is none. */
const complete = ['data', 'metadata', 'floor', 'profile', 'scale', 'parts'] as const;

interface Answered {
  readonly date: string;
  readonly seconds: number;
  readonly numbers: unknown;
}

/** Where there is something that isn't a number, a text or a truth. */
function holes(value: unknown, path: string): string[] {
  if (value === null || value === undefined) return [path];
  if (typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([name, below]) => holes(below, `${path}.${name}`));
}

test('the short benchmark answers in every section, and leaves nothing', { timeout: TIMEOUT_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sharedext-benchtest-'));
  try {
    const file = join(folder, 'report.json');
    const environment = { ...process.env, TMPDIR: folder };
    const words = [PROGRAM, '--short', '--json', file];
    const text = execFileSync(process.execPath, words, { encoding: 'utf8', env: environment, timeout: TIMEOUT_MS });
    const report: Readonly<Record<string, Answered>> = JSON.parse(readFileSync(file, 'utf8'));
    for (const name of [...complete, 'reports']) assert.ok(name in report, `${name} is missing`);
    for (const [name, { seconds, numbers }] of Object.entries(report)) {
      assert.ok(seconds > 0);
      assert.ok(typeof numbers === 'object' && numbers !== null, `${name} has no numbers`);
    }
    for (const name of complete) assert.deepEqual(holes(report[name]?.numbers, name), []);
    assert.equal(text.match(/^## /gm)?.length, Object.keys(report).length, 'a heading for each section');
    assert.doesNotMatch(text, /NaN|undefined|Infinity/);
    assert.deepEqual(readdirSync(folder), ['report.json']);
  } finally {
    rmSync(join(folder, 'report.json'), { force: true });
    // Not recursively: a filesystem could still be mounted below.
    rmdirSync(folder);
  }
  await assertNothingLeft();
});

test('a section that is written anew leaves the others in the document', () => {
  const order = ['one', 'two', 'three'];
  const first = documentWith('', [{ name: 'three', text: '## Three\n\nold' }], order);
  const second = documentWith(first, [{ name: 'one', text: '## One' }], order);
  assert.match(second, /^# Benchmarks\n[\s\S]*## One[\s\S]*## Three\n\nold/);
  const third = documentWith(second, [{ name: 'three', text: '## Three\n\nnew' }], order);
  assert.match(third, /## One[\s\S]*## Three\n\nnew/);
  assert.doesNotMatch(third, /old/);
  assert.equal(documentWith(third, [], order), third);
  assert.doesNotMatch(documentWith(third, [], ['two', 'three']), /## One/);
});
