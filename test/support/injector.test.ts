/** The injector, on a process that does one system call after the other and tells its results. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { canInject, type Fault, startInjector } from './injector.ts';
import { assertNothingLeft } from './leaks.ts';
import type { CallName } from './syscalls.ts';

after(() => assertNothingLeft());

/** Answers each line with a result: of a call on a file of 10,000 bytes, in another thread if the line says so. */
const PROGRAM = `
import os, sys, threading
fd = os.memfd_create("bytes"); os.write(fd, bytes(range(250)) * 40)
buffer = bytearray(8192)
def preadv():
    buffer[:] = bytes(8192)
    n = os.preadv(fd, [memoryview(buffer)[:6000], memoryview(buffer)[6000:]], 0, os.RWF_HIPRI)
    assert buffer[:n] == (bytes(range(250)) * 40)[:n] and not any(buffer[n:])
    return n
calls = {"pread64": lambda: len(os.pread(fd, 8192, 0)), "pwrite64": lambda: os.pwrite(fd, bytes(4096), 20000), "preadv2": preadv}
def answer(name):
    try: print(calls[name](), flush=True)
    except OSError as e: print(-e.errno, flush=True)
for line in sys.stdin:
    name, where = line.split()
    if where == "here": answer(name)
    else:
        thread = threading.Thread(target=answer, args=(name,)); thread.start(); thread.join()
`;

async function withProgram(
  body: (
    pid: number,
    results: (name: CallName, count: number, where?: 'here' | 'thread') => Promise<number[]>,
  ) => Promise<void>,
): Promise<void> {
  const program = spawn('timeout', ['60', 'sh', '-c', 'echo $$; exec python3 -c "$1"', 'sh', PROGRAM], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface(program.stdout)[Symbol.asyncIterator]();
  const next = async () => Number((await lines.next()).value);
  const pid = await next();
  // Its first answer comes when it is python.
  program.stdin.write('pread64 here\n');
  assert.equal(await next(), 8192);
  try {
    await body(pid, async (name, count, where = 'here') => {
      const results: number[] = [];
      for (let i = 0; i < count; i++) {
        program.stdin.write(`${name} ${where}\n`);
        results.push(await next());
      }
      return results;
    });
  } finally {
    program.stdin.end();
    assert.deepEqual(await once(program, 'exit'), [0, null]);
  }
}

const cases: readonly (readonly [CallName, Fault, right: number, wrong: number])[] = [
  ['pread64', 'EIO', 8192, -5],
  ['pwrite64', 'EDQUOT', 4096, -122],
  ['preadv2', 'ESTALE', 8192, -116],
  ['pread64', 'short', 8192, 4096],
  ['pwrite64', 'short', 4096, 2048],
  ['preadv2', 'short', 8192, 3000],
];

for (const [call, fault, right, wrong] of canInject ? cases : []) {
  test(`${call} is made to fail: ${fault}`, () =>
    withProgram(async (pid, results) => {
      for (const where of ['here', 'thread'] as const) {
        const injector = await startInjector(pid, call, [fault], { times: 2 });
        assert.deepEqual(await results(call, 3, where), [wrong, wrong, right]);
        assert.deepEqual(await injector.stop(), [2]);
        assert.deepEqual(await results(call, 2, where), [right, right]);
      }
      const injector = await startInjector(pid, call, [fault, 'EIO'], { every: 2 });
      const some = await results(call, 30);
      const [first = 0, second = 0] = await injector.stop();
      assert.ok(first >= 5 && second >= 5 && first + second <= 20, `${first} ${second}`);
      assert.equal(some.filter((result) => result === right).length, 30 - first - second);
    }));
}

test('the process goes on when its tracer is killed', { skip: !canInject }, () =>
  withProgram(async (pid, results) => {
    const injector = await startInjector(pid, 'pread64', ['EIO'], { every: 1 });
    assert.deepEqual(await results('pread64', 2), [-5, -5]);
    const tracer = /^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    process.kill(Number(tracer), 'SIGKILL');
    await assert.rejects(injector.stop(), /ended with null/);
    assert.deepEqual(await results('pread64', 2), [8192, 8192]);
  }),
);
