/** That the benchmark runs from end to end and answers with numbers. How large they are is no matter for a test. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const PROGRAM = join(import.meta.dirname, '../../bench/main.js');
const TIMEOUT_MS = 240_000;

interface Report {
  readonly rows: readonly {
    readonly name: string;
    readonly answers: Readonly<Record<string, { readonly us: number }>>;
  }[];
  readonly memory: { readonly bytesPerNode: number };
  readonly snapshots: readonly {
    readonly inMemory: string;
    readonly report: { readonly seconds: number; readonly peakBytes: number };
  }[];
}

function timeAt(answers: Readonly<Record<string, { readonly us: number }>>, place: string): number {
  return answers[place]?.us ?? Number.NaN;
}

test('the short benchmark asks every question at every place, and leaves nothing', { timeout: TIMEOUT_MS }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'sharedext-benchtest-'));
  try {
    const file = join(folder, 'report.json');
    const environment = { ...process.env, TMPDIR: folder };
    const words = [PROGRAM, '--short', '--json', file];
    const text = execFileSync(process.execPath, words, { encoding: 'utf8', env: environment, timeout: TIMEOUT_MS });
    assert.match(text, /^# Benchmarks/);
    const report: Report = JSON.parse(readFileSync(file, 'utf8'));
    assert.ok(report.rows.length >= 10);
    for (const { name, answers } of report.rows) {
      const bare = timeAt(answers, 'bare');
      for (const place of ['nosharedext', 'sharedext']) {
        const ratio = timeAt(answers, place) / bare;
        assert.ok(Number.isFinite(ratio) && ratio > 0, `${name}, ${place}: ${ratio}`);
      }
    }
    assert.ok(Number.isFinite(report.memory.bytesPerNode));
    assert.deepEqual(
      report.snapshots.map(({ inMemory }) => inMemory),
      ['nothing', 'everything'],
    );
    assert.ok(report.snapshots.every(({ report: ours }) => ours.seconds > 0 && ours.peakBytes > 0));
    assert.deepEqual(readdirSync(folder), ['report.json']);
  } finally {
    rmSync(join(folder, 'report.json'), { force: true });
    // Not recursively: a filesystem could still be mounted below.
    rmdirSync(folder);
  }
});
