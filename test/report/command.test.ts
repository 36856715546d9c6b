/** What the command of a report does beside counting: stopping, repeating, the page, and refusing nonsense. */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ReportResult } from '../../src/report/result.ts';
import type { Tree } from '../../src/report/tree.ts';
import { type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { Layout } from './layout.ts';
import { PROGRAM } from './reports.ts';

function withClones(act: (filesystem: LoopFilesystem) => Promise<void> | void): () => Promise<void> {
  return async () => {
    const filesystem = makeLoopFilesystem('xfs');
    try {
      const layout = new Layout(join(filesystem.dir, 'home'), false);
      layout.add(60);
      layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
      posix.fsync(posix.open(filesystem.dir, posix.O_RDONLY));
      for (const { path } of layout.files) readFileSync(path);
      await act(filesystem);
    } finally {
      filesystem.dispose();
    }
  };
}

function run(...words: readonly string[]): {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
} {
  const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, 'report', ...words], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, out: stdout, err: stderr };
}

test(
  '--watch repeats, says what has changed, and ends with Ctrl-C',
  withClones(async ({ dir }) => {
    const watching = spawn(process.execPath, [PROGRAM, 'report', '--json', '--watch', '0.05', dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(watching, 'exit');
    let text = '';
    watching.stdout.setEncoding('utf8');
    for await (const part of watching.stdout) {
      text += part;
      if (text.split('\n').length > 3) break;
    }
    watching.kill('SIGINT');
    const [code] = await exited;
    assert.equal(code, 0);
    const rounds: ReportResult[] = text
      .split('\n')
      .slice(0, 3)
      .map((line) => JSON.parse(line));
    assert.ok(rounds.every(({ files, complete }) => complete && files.seen === 2));
  }),
);

test(
  '--watch shows the difference to the round before',
  withClones(async ({ dir }) => {
    const watching = spawn(process.execPath, [PROGRAM, 'report', '--watch', '0.2', dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NO_COLOR: '1' },
    });
    const exited = once(watching, 'exit');
    let text = '';
    let size = 0;
    watching.stdout.setEncoding('utf8');
    for await (const part of watching.stdout) {
      text += part;
      if (/in memory +\S+ \S+ \+\S+ [KM]iB of/.test(text)) break;
      // More comes into memory all the time, whatever the kernel reclaims.
      size += 1 << 20;
      writeFileSync(join(dir, 'more'), Buffer.alloc(size, 1));
    }
    watching.kill('SIGINT');
    await exited;
    assert.match(text, /in memory +\S+ \S+ \+/);
  }),
);

/** Waits until a process has a folder open that lies below a path. */
async function walking(pid: number, path: string): Promise<void> {
  for (;;) {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      try {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith(path) && statSync(`/proc/${pid}/fd/${fd}`).isDirectory())
          return;
      } catch {
        // It was closed meanwhile.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test(
  'Ctrl-C prints what was seen until then',
  withClones(async ({ dir }) => {
    const reporting = spawn(process.execPath, [PROGRAM, 'report', '--json', '/usr', dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(reporting, 'exit');
    let text = '';
    reporting.stdout.setEncoding('utf8');
    reporting.stdout.on('data', (part) => {
      text += part;
    });
    const closed = once(reporting.stdout, 'end');
    await walking(reporting.pid ?? 0, '/usr');
    reporting.kill('SIGINT');
    const [code] = await exited;
    await closed;
    const result: ReportResult = JSON.parse(text);
    assert.equal(result.complete, false);
    assert.equal(code, 130);
  }),
);

test(
  '--html writes a page that needs nothing else',
  withClones(({ dir, folder }) => {
    const odd = join(dir, '<b>&<!--<script>');
    posix.mkdir(odd);
    posix.reflink(join(dir, 'home/file0'), join(odd, '"clone"'));
    readFileSync(join(odd, '"clone"'));
    const page = join(folder, 'report.html');
    const { status, out } = run(dir, '--html', page, '--json');
    assert.equal(status, 0);
    const result: ReportResult = JSON.parse(out);
    const text = readFileSync(page, 'utf8');
    assert.doesNotMatch(text.replaceAll('http://www.w3.org', ''), /(src|href)=|@import|url\(|https?:\/\/(?!d3js)/);
    assert.doesNotMatch(text, /<b>&/);
    const data = /<script type="application\/json" id="tree">(.*?)<\/script>/.exec(text)?.[1] ?? '';
    const tree: Tree = JSON.parse(data);
    assert.equal(tree.bytes, result.bytes.cached);
    assert.deepEqual(tree, result.tree);
    assert.match(text, /<th>too much<\/th>/);
    const refused = run(dir, '--html', join(folder, 'missing/report.html'));
    assert.equal(refused.status, 1);
    assert.match(refused.err, /^sharedext: Cannot write the page .*: ENOENT\n$/);
  }),
);

test('a report of nothing in memory has a page, too', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const page = join(filesystem.folder, 'report.html');
    const { status, out } = run(filesystem.dir, '--html', page);
    assert.equal(status, 0);
    assert.match(out, /in memory +0 B/);
    assert.match(readFileSync(page, 'utf8'), /Nothing of it is in memory/);
  } finally {
    filesystem.dispose();
  }
});

test('words that make no sense are refused in a line', () => {
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /missing required argument/],
    [['/', '--top', 'many'], /whole number/],
    [['/', '--group-by', 'colour'], /Allowed choices/],
    [['/', '--watch', '/tmp'], /seconds/],
    [['/', '--watch', '1', '--html', 'page'], /conflict|cannot be used/],
    [['/nowhere'], /it does not exist/],
  ];
  for (const [words, expected] of wrong) {
    const { status, err } = run(...words);
    assert.ok(status === 1 || status === 2, `${words.join(' ')}: ${status}`);
    assert.match(err, expected);
    assert.doesNotMatch(err, /\n +at /);
  }
});
