/**
 * Servers killed at random moments under a load. What every program sees, and what is on the disk in the end, is what the same
 * load leaves on the bare filesystem.
 *
 * SHAREDEXT_KILLS, SHAREDEXT_KILL_SEED: how many kills, and another load.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run, writeData } from '../mount/clones.ts';
import { Random } from '../mount/random.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause, until } from '../support/wait.ts';

const LOAD = fileURLToPath(new URL('./load-child.js', import.meta.url));
const KILLS = Number(process.env['SHAREDEXT_KILLS'] ?? 12);
const SEED = Number(process.env['SHAREDEXT_KILL_SEED'] ?? 4711);
const STEPS_PER_KILL = 400;
const LOADS = 2;
const MAX_PAUSE_MS = 30_000;

/** What each load finds: files that share all their extents, and large ones that have diverged. */
function layOut(root: string): void {
  const base = join(root, 'base');
  const disk = join(root, 'disk');
  writeData(base, 200_000, false);
  writeData(disk, 6 << 20, false);
  for (let load = 0; load < LOADS; load++) {
    const home = join(root, `load${load}`);
    mkdirSync(home);
    for (let i = 0; i < 4; i++) execFileSync('cp', ['--reflink=always', base, join(home, `shared-${i}`)]);
    for (let i = 0; i < 2; i++) {
      const copy = join(home, `disk-${i}`);
      execFileSync('cp', ['--reflink=always', disk, copy]);
      execFileSync('dd', ['if=/dev/zero', `of=${copy}`, 'bs=64k', 'seek=3', 'count=1', 'conv=notrunc', 'status=none']);
    }
  }
  execFileSync('sync', ['-f', root]);
}

function startLoad(root: string, load: number, log: string): ChildProcess {
  const args = [LOAD, join(root, `load${load}`), String(SEED + load), String(KILLS * STEPS_PER_KILL), log];
  return spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Programs that people run, in a folder of their own; what they say must be the same every time. */
const PROGRAMS = `
set -e
git init -q repository
cd repository
git config user.email a@b.c; git config user.name a; git config gc.auto 0
for i in 1 2 3 4 5 6 7 8; do
  for j in 1 2 3 4 5 6; do echo "$i $j $1" > file$j; mkdir -p d$i; echo "int f$i(void) { return $j; }" > d$i/s$j.c; done
  git add -A; GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z git commit -q -m "c$i"
done
git fsck --strict; git rev-parse HEAD; git status --short
cd ..
cp -r --reflink=auto repository copy
diff -r repository copy
printf '#include <stdio.h>\\nint main(void) { puts("built"); return 0; }\\n' > main.c
gcc -O1 -o program main.c && ./program
sqlite3 data.db 'create table t(a integer primary key, b text);'
for i in $(seq 1 25); do sqlite3 data.db "insert into t(b) values('row $i');"; done
sqlite3 data.db 'pragma integrity_check; select count(*), sum(a) from t;'
rm -rf copy
find . -path ./repository/.git -prune -o -type f -print | sort
`;

async function programs(root: string, round: number): Promise<string> {
  const home = join(root, `programs${round}`);
  mkdirSync(home);
  return await run('sh', '-c', `cd "${home}" && ${PROGRAMS}`, 'sh', String(round));
}

/** Contents, types and modes of a tree, for comparison. */
async function treeOf(root: string): Promise<string> {
  const listing = `cd "${root}" && find . -not -path './.sharedext*' -printf '%P %y %m %n %l\\n' | sort`;
  const sums = `cd "${root}" && find . -not -path './.sharedext*' -not -path '*/.git/*' -not -name data.db -not -name program -type f -print0 | sort -z | xargs -0 md5sum`;
  return (await run('sh', '-c', listing)).replace(/^.*\.git\/.*$/gm, '') + (await run('sh', '-c', sums));
}

/** Kills the server as often as asked, at random moments, and tells how long each successor let the mount wait. */
async function kill(server: MountedServer, count: number, isOver: () => boolean): Promise<number[]> {
  const random = new Random(SEED);
  const waits: number[] = [];
  for (let i = 0; i < count && !isOver(); i++) {
    await pause(20 + random.below(400));
    const { pid } = await server.status();
    const start = performance.now();
    process.kill(pid, 'SIGKILL');
    // A name that nobody has looked up before: the answer comes from a server.
    await assert.rejects(run('stat', join(server.mountpoint, `nothing-${i}`)), /No such file/);
    waits.push(performance.now() - start);
  }
  return waits;
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, nobody notices that servers are killed`, async (t) => {
    const filesystem = makeLoopFilesystem(kind, { sizeMb: 3000 });
    try {
      const [bare, source] = [join(filesystem.dir, 'bare'), join(filesystem.dir, 'source')];
      const mountpoint = join(filesystem.folder, 'mounted');
      for (const root of [bare, source]) {
        mkdirSync(root);
        layOut(root);
      }
      // The same bytes in both.
      for (const name of ['base', 'disk']) execFileSync('cp', [join(bare, name), join(source, name)]);
      execFileSync('rm', ['-rf', ...[0, 1].map((load) => join(source, `load${load}`))]);
      execFileSync('cp', ['-r', '--reflink=always', ...[0, 1].map((load) => join(bare, `load${load}`)), source]);
      execFileSync('sync', ['-f', source]);
      await pause(1100);

      const server = await mountSharedext(source, mountpoint, 'composed=1m');
      const logs = (place: string): string[] =>
        Array.from({ length: LOADS }, (_, load) => join(filesystem.folder, `${place}-${load}.log`));
      const children = logs('mounted').map((log, load) => startLoad(mountpoint, load, log));
      const ended = children.map(async (child) => (await once(child, 'exit'))[0] as unknown);
      let over = false;
      const said: string[] = [];
      const working = (async () => {
        for (let round = 0; !over; round++) said.push(await programs(mountpoint, round));
      })();
      const reader = spawn('tail', ['-f', '-c', '1', join(mountpoint, 'load0/shared-0')], { stdio: 'ignore' });
      let done = 0;
      for (const end of ended) void end.then(() => done++);
      const waits = await kill(server, KILLS, () => done === LOADS);
      over = true;
      assert.deepEqual(
        await Promise.all(ended),
        ended.map(() => 0),
      );
      await working;
      reader.kill();

      const controls = logs('bare').map((log, load) => startLoad(bare, load, log));
      await Promise.all(controls.map((child) => once(child, 'exit')));
      for (const [load, log] of logs('mounted').entries()) {
        const control = readFileSync(logs('bare')[load] ?? '', 'utf8').split('\n');
        for (const [step, line] of readFileSync(log, 'utf8').split('\n').entries()) {
          assert.equal(line, control[step], `load ${load} saw something else than on the bare filesystem`);
        }
      }
      for (const [round, text] of said.entries()) assert.equal(text, await programs(bare, round));
      const status = await server.status();
      assert.equal(status.takeovers, waits.length);
      assert.equal(status.bugs, 0);
      // What is left open and known when nobody uses the mount any more.
      await until('no file stays open', async () => (await server.status()).open.inodes === 0);
      const after = await server.status();
      assert.equal(after.descriptors.handles, 0);
      assert.equal(after.backing.count, 0);
      execFileSync('sh', ['-c', 'echo 2 > /proc/sys/vm/drop_caches']);
      await until('no node is left', async () => (await server.status()).nodes.count <= 1);
      await server.umount();
      assert.equal(await treeOf(source), await treeOf(bare));
      waits.sort((a, b) => a - b);
      const median = waits[waits.length >> 1] ?? 0;
      t.diagnostic(
        `${kind}: ${waits.length} kills under ${LOADS} loads of ${KILLS * STEPS_PER_KILL} steps and ${said.length} rounds of ` +
          `programs; the mount waited ${median.toFixed(0)} ms (median), ${(waits.at(-1) ?? 0).toFixed(0)} ms (worst)`,
      );
      assert.ok((waits.at(-1) ?? 0) < MAX_PAUSE_MS);
    } finally {
      filesystem.dispose();
    }
    await assertNothingLeft();
  });
}
