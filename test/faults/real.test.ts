/** What really happens to servers: few descriptors, little memory, a source that turns read-only, a device that goes away. */

import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onFilesystem, run, writeData } from '../mount/clones.ts';
import { remount } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';

const LOAD = fileURLToPath(new URL('../takeover/load-child.js', import.meta.url));
const STEPS = 3000;
const MEMORY_BYTES = 150 << 20;
const FEW_DESCRIPTORS = 256;
const MEMORY_CGROUP = '/sys/fs/cgroup/memory';
const DEADLINE_MS = 20_000;

function layOut(root: string): void {
  mkdirSync(root);
  writeData(join(root, 'shared-0'), 200_000, false);
  writeData(join(root, 'disk-0'), 6 << 20, false);
  for (const name of ['shared-1', 'shared-2', 'shared-3', 'disk-1']) {
    execFileSync('cp', ['--reflink=always', join(root, `${name.slice(0, -1)}0`), join(root, name)]);
  }
  for (let i = 0; i < 40; i++) mkdirSync(join(root, `many${i}`));
}

async function load(root: string, log: string): Promise<string> {
  const child = spawn(process.execPath, [LOAD, root, '77', String(STEPS), log], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
  return readFileSync(log, 'utf8');
}

/** The same load on the mount, on whose server something was imposed, and on the bare filesystem answers the same. */
async function assertSame(impose: (pids: readonly number[]) => void): Promise<void> {
  await onFilesystem('xfs', 1000, async (filesystem) => {
    const [source, bare] = [join(filesystem.dir, 'source'), join(filesystem.dir, 'bare')];
    layOut(source);
    execFileSync('cp', ['-r', '--reflink=always', source, bare]);
    execFileSync('sync', ['-f', source]);
    await pause(100);
    const server = await mountSharedext(source, join(filesystem.folder, 'mounted'), 'settle=0,composed=1m');
    impose([server.pid, server.supervisor]);
    await run('find', server.mountpoint, '-type', 'd', '-exec', 'ls', '{}', ';');
    const answers = await load(server.mountpoint, join(filesystem.folder, 'log'));
    assert.equal(answers, await load(bare, join(filesystem.folder, 'bare-log')));
    const { pid, bugs } = await server.status();
    assert.deepEqual([pid, bugs], [server.pid, 0], 'it is the same server');
    await server.umount();
    await run('diff', '-r', '--no-dereference', '--exclude=.sharedext', source, bare);
  });
}

test(`a server with ${FEW_DESCRIPTORS} descriptors answers as the bare filesystem does`, () =>
  assertSame((pids) => {
    for (const pid of pids) execFileSync('prlimit', ['--pid', String(pid), `--nofile=${FEW_DESCRIPTORS}`]);
  }));

test(`a server in a memory cgroup of ${MEMORY_BYTES >> 20} MiB answers as the bare filesystem does`, {
  skip: !existsSync(join(MEMORY_CGROUP, 'memory.limit_in_bytes')),
}, async () => {
  const group = join(MEMORY_CGROUP, `sharedext-test-${process.pid}`);
  mkdirSync(group);
  try {
    await assertSame((pids) => {
      writeFileSync(join(group, 'memory.limit_in_bytes'), String(MEMORY_BYTES));
      for (const pid of pids) writeFileSync(join(group, 'cgroup.procs'), String(pid));
    });
  } finally {
    rmdirSync(group);
  }
});

test('a source that turns read-only can be read, refuses changes, and takes them again afterwards', () =>
  onFilesystem('btrfs', 500, async (filesystem) => {
    const source = join(filesystem.dir, 'source');
    layOut(source);
    execFileSync('sync', ['-f', source]);
    await pause(100);
    const server = await mountSharedext(source, join(filesystem.folder, 'mounted'), 'settle=0,composed=1m,cache=none');
    const at = (name: string): string => join(server.mountpoint, name);
    // The store is open for nobody, so nothing keeps the filesystem from turning.
    remount(filesystem, 'ro');
    assert.equal(readFileSync(at('shared-1')).length, 200_000);
    assert.throws(() => writeFileSync(at('new'), 'x'), /EROFS/);
    assert.throws(() => writeFileSync(at('shared-0'), 'x'), /EROFS/);
    assert.throws(() => mkdirSync(at('dir')), /EROFS/);
    remount(filesystem, 'rw');
    writeFileSync(at('new'), 'x');
    assert.equal(readFileSync(join(source, 'new'), 'utf8'), 'x');
    await server.umount();
  }));

test('when the device is gone, programs get errors, and the mount can be taken away', async () => {
  await onFilesystem('xfs', 500, async (filesystem) => {
    const source = join(filesystem.dir, 'source');
    layOut(source);
    execFileSync('sync', ['-f', source]);
    await pause(100);
    const server = await mountSharedext(source, join(filesystem.folder, 'mounted'), 'settle=0,composed=1m');
    await run('ls', server.mountpoint);
    truncateSync(filesystem.images[0] ?? '', 0);
    execFileSync('sh', ['-c', 'echo 3 > /proc/sys/vm/drop_caches']);
    for (const command of ['cat disk-0 shared-0', 'ls -lR .', 'echo x > new; sync new', 'rm -rf many0']) {
      const outcome = await new Promise<string>((resolve) => {
        const options = { cwd: '/', timeout: DEADLINE_MS, killSignal: 'SIGKILL' } as const;
        execFile('sh', ['-c', `cd "$1" && { ${command}; }`, 'sh', server.mountpoint], options, (error) =>
          resolve(error?.killed === true ? 'hung' : 'answered'),
        );
      });
      assert.equal(outcome, 'answered', command);
    }
    execFileSync('umount', ['-l', server.mountpoint]);
    await server.ended;
  });
});
