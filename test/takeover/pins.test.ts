/**
 * Directories that are removed while they are held, and forgotten in bursts: more than a supervisor reads at a time, that is stopped
 * or not, with servers that are replaced and killed in between. Whatever becomes of them, no other file changes, and none is taken
 * for another.
 *
 * SHAREDEXT_PINS: how many directories.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sharedext } from '../cli/command.ts';
import { onFilesystem } from '../mount/clones.ts';
import { alice, asUser, type OtherProcess, stopUsers } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause, until } from '../support/wait.ts';

const PINS = Number(process.env['SHAREDEXT_PINS'] ?? 10_000);
const BYSTANDERS = 3000;

/** What a server says whose predecessor was killed before all was handed over. */
const LOST = /^sharedext: warning: takeover: \d+ removed files and directories in use are lost: ESTALE\n/gm;

/** All that can be seen of the files of a folder, and what they hold. */
function stateOf(folder: string): string[] {
  return fs.readdirSync(folder).map((name) => {
    const { mode, uid, gid, ino, nlink, size } = posix.lstat(join(folder, name));
    const sum = createHash('sha1')
      .update(fs.readFileSync(join(folder, name)))
      .digest('hex');
    return [name, mode.toString(8), uid, gid, ino, nlink, size, sum].join(' ');
  });
}

/** Has the kernel forget what isn't in use, and give the rows of nodes to the files of a folder. */
function look(folder: string): string[] {
  fs.writeFileSync('/proc/sys/vm/drop_caches', '2');
  return stateOf(folder);
}

const descriptorsOf = (pid: number): number => fs.readdirSync(`/proc/${pid}/fd`).length;

interface Scene {
  readonly source: string;
  readonly mnt: string;
  readonly server: MountedServer;
  readonly user: OtherProcess;
  /** Everything of the bystanders, which belong to root. */
  readonly before: readonly string[];
}

async function onScene(kind: 'btrfs' | 'xfs', body: (scene: Scene) => Promise<void>): Promise<void> {
  await onFilesystem(kind, 600, async ({ dir, folder }) => {
    const source = join(dir, 'source');
    fs.mkdirSync(join(source, 'by'), { recursive: true });
    fs.mkdirSync(join(source, 'play'));
    fs.chmodSync(join(source, 'play'), 0o777);
    for (let i = 0; i < BYSTANDERS; i++) {
      const name = join(source, 'by', `f${i}`);
      fs.writeFileSync(name, `bystander ${i}`);
      fs.chmodSync(name, i % 2 === 0 ? 0o644 : 0o600);
    }
    execFileSync('sync', ['-f', source]);
    const mnt = join(folder, 'mounted');
    const server = await mountSharedext(source, mnt, 'settle=0');
    try {
      await body({ source, mnt, server, user: asUser(alice), before: stateOf(join(source, 'by')) });
    } finally {
      process.kill(server.supervisor, 'SIGCONT');
      await stopUsers();
      await server.umount(LOST);
    }
  });
}

async function restart(mnt: string): Promise<void> {
  const { status, stderr } = await sharedext('restart', mnt);
  assert.equal(status, 0, stderr);
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, bursts of removed directories leave no descriptor, and no file is taken for another`, () =>
    onScene(kind, async ({ source, mnt, server, user, before }) => {
      const play = join(mnt, 'play');
      const idle = descriptorsOf(server.supervisor);
      const bystanders = (): void => {
        assert.deepEqual(look(join(mnt, 'by')), before, 'as the mount shows them');
        assert.deepEqual(stateOf(join(source, 'by')), before, 'as they are');
      };
      const settled = (pins: number): Promise<void> =>
        until(`${pins} are held`, async () => {
          // Its server may have been killed.
          const { waiting, pinned } = (await server.status().catch(() => undefined))?.descriptors ?? {};
          return waiting === 0 && pinned === pins && descriptorsOf(server.supervisor) === idle + pins;
        });

      // All are handed over, while the supervisor has other things to do; and given up, while it has.
      process.kill(server.supervisor, 'SIGSTOP');
      let held = await user.call('holdRemoved', play, PINS);
      assert.ok((await server.status()).descriptors.waiting > PINS / 2, 'the server serves on, and they wait');
      process.kill(server.supervisor, 'SIGCONT');
      await settled(PINS);
      const inodes = await user.call('inodesOf', held);
      await restart(mnt);
      assert.deepEqual(await user.call('compareInodes', held, inodes), { same: PINS, stale: 0, others: 0 });
      process.kill(server.supervisor, 'SIGSTOP');
      await user.call('closeAll', held);
      bystanders();
      await until('they wait', async () => (await server.status()).descriptors.pinned === 0);
      process.kill(server.supervisor, 'SIGCONT');
      await settled(0);
      await restart(mnt);
      bystanders();

      // A restart that comes while they wait hands them over first.
      process.kill(server.supervisor, 'SIGSTOP');
      held = await user.call('holdRemoved', play, 1000);
      const known = await user.call('inodesOf', held);
      const restarted = restart(mnt);
      await pause(100);
      process.kill(server.supervisor, 'SIGCONT');
      await restarted;
      assert.deepEqual(await user.call('compareInodes', held, known), { same: 1000, stale: 0, others: 0 });
      assert.equal((await server.status()).descriptors.lost, 0);
      await user.call('closeAll', held);
      await settled(0);

      // What a killed server had no time to hand over is gone, counted, and no other file.
      process.kill(server.supervisor, 'SIGSTOP');
      held = await user.call('holdRemoved', play, PINS / 5);
      const doomed = await user.call('inodesOf', held);
      const { pid, takeovers } = await server.status();
      process.kill(pid, 'SIGKILL');
      process.kill(server.supervisor, 'SIGCONT');
      await until('another serves', async () => {
        const now = await server.status().catch(() => undefined);
        return now !== undefined && now.takeovers > takeovers;
      });
      // The kernel keeps attributes for a second.
      await pause(1100);
      const { lost, refused } = (await server.status()).descriptors;
      const found = await user.call('compareInodes', held, doomed);
      assert.equal(found.others, 0);
      assert.ok(lost > 0 && found.stale > 0);
      assert.deepEqual([lost, refused], [found.stale, 0]);
      bystanders();
      await user.call('closeAll', held);
      await settled(0);

      // Forgotten in a burst, with a kill in the middle of it.
      held = await user.call('holdRemoved', play, PINS);
      await settled(PINS);
      process.kill(server.supervisor, 'SIGSTOP');
      const closing = user.call('closeAll', held);
      const victim = (await server.status()).pid;
      await pause(50);
      process.kill(victim, 'SIGKILL');
      process.kill(server.supervisor, 'SIGCONT');
      await closing;
      await settled(0);
      bystanders();
      await restart(mnt);
      bystanders();
      for (let i = 0; i < BYSTANDERS; i++) fs.chmodSync(join(mnt, 'by', `f${i}`), 0o640);
      const modes = new Set(stateOf(join(source, 'by')).map((line) => line.split(' ')[1]));
      assert.deepEqual([...modes], ['100640'], 'each change reached its file');
      const { bugs, unkept } = await server.status();
      assert.deepEqual([bugs, unkept], [0, 0]);
    }));

  test(`on ${kind}, a user who holds, forgets and waits for restarts changes nobody's files but his own`, () =>
    onScene(kind, async ({ source, mnt, server, user, before }) => {
      const play = join(mnt, 'play');
      const own = 2000;
      // Root's files are pinned when they leave the shared route with a reader.
      for (let i = 0; i < 300; i++) {
        const name = join(source, 'by', `f${i}`);
        fs.writeFileSync(name, Buffer.alloc(65_536, i));
        fs.chmodSync(name, 0o644);
        execFileSync('cp', ['--reflink=always', '--preserve=all', name, join(source, 'by', `f${i + 1000}`)]);
      }
      execFileSync('sync', ['-f', source]);
      await pause(100);
      assert.notDeepEqual(stateOf(join(source, 'by')), before);
      const readers: number[] = [];
      for (let i = 0; i < 300; i++) readers.push(await user.call('open', join(mnt, 'by', `f${i}`), posix.O_RDONLY));
      for (let i = 0; i < 300; i++) fs.appendFileSync(join(mnt, 'by', `f${i}`), 'more');
      assert.ok((await server.status()).nodes.detached > 0, 'files have left the shared route');
      const now = stateOf(join(source, 'by'));
      for (let round = 0; round < 2; round++) {
        process.kill(server.supervisor, 'SIGSTOP');
        const held = await user.call('holdRemoved', play, 3000);
        await user.call('closeAll', held);
        await user.call('closeAll', readers.splice(0));
        fs.writeFileSync('/proc/sys/vm/drop_caches', '2');
        await user.call('makeFiles', play, own);
        if (round === 0) {
          const { pid } = await server.status();
          process.kill(pid, 'SIGKILL');
          process.kill(server.supervisor, 'SIGCONT');
        } else {
          process.kill(server.supervisor, 'SIGCONT');
          await restart(mnt);
        }
        await user.call('chmodFiles', play, own, 0o777);
        assert.deepEqual(stateOf(join(source, 'by')), now, "nobody else's file has changed");
        for (let i = 0; i < own; i++) {
          const { mode, uid } = posix.lstat(join(source, 'play', `own${i}`));
          assert.deepEqual([mode & 0o777, uid], [0o777, alice.uid], 'and each of his own has');
        }
        for (let i = 0; i < own; i++) fs.unlinkSync(join(mnt, 'play', `own${i}`));
      }
    }));
}
