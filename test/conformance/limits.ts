/** A process's limit to the size of files (RLIMIT_FSIZE): setrlimit(2). Programs run with it, since it is a process's own. */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pattern, put, type Subject, sizeOf, textOf } from './case.ts';

const LIMIT = 8192;

/** Runs a command whose files may not grow beyond the limit, and that doesn't mind the signal; returns what it complained. */
function limited(command: string, ...args: readonly string[]): string {
  const script = 'trap "" XFSZ; exec "$@"';
  const all = [`--fsize=${LIMIT}`, 'sh', '-c', script, 'sh', command, ...args];
  return spawnSync('prlimit', all, { encoding: 'utf8' }).stderr;
}

export const limits: Subject = {
  subject: 'limits',
  cases: [
    {
      name: 'a write beyond the limit is cut at it, and the next one is EFBIG',
      run(dir) {
        const file = join(dir, 'file');
        put(join(dir, 'from'), pattern(20_000));
        const why = limited('dd', `if=${join(dir, 'from')}`, `of=${file}`, 'bs=5000', 'status=none');
        assert.match(why, /File too large/);
        assert.equal(sizeOf(file), LIMIT);
        assert.ok(Buffer.from(textOf(file), 'latin1').equals(pattern(20_000).subarray(0, LIMIT)));
      },
    },
    {
      name: 'a write that starts beyond the limit is EFBIG and leaves the file',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        put(join(dir, 'from'), 'more');
        const args = [`if=${join(dir, 'from')}`, `of=${file}`, 'bs=1', 'seek=10000', 'conv=notrunc', 'status=none'];
        assert.match(limited('dd', ...args), /File too large/);
        assert.equal(textOf(file), 'content');
      },
    },
    {
      name: 'without a handler a write beyond the limit ends the process by SIGXFSZ',
      run(dir) {
        const command = [
          '--fsize=8192',
          'dd',
          'if=/dev/zero',
          `of=${join(dir, 'file')}`,
          'bs=4096',
          'count=4',
          'status=none',
        ];
        assert.equal(spawnSync('prlimit', command).signal, 'SIGXFSZ');
        assert.equal(sizeOf(join(dir, 'file')), LIMIT);
      },
    },
    {
      name: 'growing by truncate beyond the limit is EFBIG, cutting a larger file is not',
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        assert.match(limited('truncate', '--size=8193', file), /File too large/);
        assert.equal(sizeOf(file), 7);
        assert.equal(limited('truncate', '--size=8192', file), '');
        execFileSync('truncate', ['--size=30000', file]);
        assert.equal(limited('truncate', '--size=8192', file), '');
        assert.equal(sizeOf(file), LIMIT);
      },
    },
    {
      name: 'a preallocation beyond the limit is EFBIG',
      needs: ['preallocation'],
      run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        assert.match(limited('fallocate', '--length=100000', file), /File too large/);
        assert.equal(sizeOf(file), 7);
      },
    },
    {
      name: 'what is above the limit may be read and written over by who has none',
      run(dir) {
        const file = join(dir, 'file');
        put(file, pattern(20_000));
        assert.equal(limited('cp', file, '/dev/null'), '');
        assert.match(
          limited('dd', 'if=/dev/zero', `of=${file}`, 'bs=4', 'seek=4000', 'count=1', 'conv=notrunc', 'status=none'),
          /File too large/,
        );
        assert.equal(
          limited('dd', 'if=/dev/zero', `of=${file}`, 'bs=4', 'seek=1', 'count=1', 'conv=notrunc', 'status=none'),
          '',
        );
        const expected = pattern(20_000).fill(0, 4, 8);
        assert.ok(Buffer.from(textOf(file), 'latin1').equals(expected));
      },
    },
  ],
};
