/** What a supervisor does when a server can't go on, and what `restart` does when it can. */

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { journalBytes } from '../../src/base/journal.ts';
import { PAIRS } from '../../src/daemon/state.ts';
import { sharedext } from '../cli/command.ts';
import { run, writeData } from '../mount/clones.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { type LoopFilesystem, makeLoopFilesystem } from '../support/loopfs.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause, until } from '../support/wait.ts';

const DISK_BYTES = 8 << 20;
const TIMEOUT_MS = 20_000;
/** Words of the state's header, and the one that aligns what follows. */
const HEADER_WORDS = 20;

let filesystem: LoopFilesystem;
let source: string;
let mountpoint: string;

before(async () => {
  filesystem = makeLoopFilesystem('btrfs', { sizeMb: 1000 });
  source = join(filesystem.dir, 'source');
  mountpoint = join(filesystem.folder, 'mounted');
  fs.mkdirSync(source);
  fs.mkdirSync(mountpoint);
  writeData(join(source, 'disk'), DISK_BYTES, false);
  writeData(join(source, 'small'), 100_000, false);
  for (const name of ['disk', 'small']) {
    for (let i = 0; i < 2; i++)
      execFileSync('cp', ['--reflink=always', join(source, name), join(source, `${name}${i}`)]);
  }
  // A diverged disk.
  for (const name of ['disk0', 'disk1']) {
    execFileSync(
      'dd',
      ['if=/dev/zero', `of=${join(source, name)}`, 'bs=64k', 'seek=2', 'count=1', 'conv=notrunc,fsync'],
      {
        stdio: 'ignore',
      },
    );
  }
  await pause(100);
});

after(async () => {
  filesystem.dispose();
  await assertNothingLeft();
});

function serverOf(supervisor: number): number {
  try {
    const children = fs.readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, 'utf8');
    return Number(children.trim().split(' ')[0] ?? 0);
  } catch {
    return 0;
  }
}

/** Resolves with the exit status and the messages of a command that may fail. */
function outcomeOf(command: string, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout: TIMEOUT_MS, killSignal: 'SIGKILL' }, (error, _stdout, stderr) =>
      resolve(error === null ? 'done' : error.killed === true ? 'hung' : stderr),
    );
  });
}

async function assertEnded(server: MountedServer, reason: RegExp): Promise<void> {
  const late = new Promise((resolve) => {
    setTimeout(() => resolve('it goes on'), TIMEOUT_MS).unref();
  });
  assert.deepEqual(await Promise.race([server.ended, late]), { code: 1, signal: null });
  assert.match(server.stderr(), reason);
  const left = fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountpoint} `);
  assert.equal(left, false, 'the mount is gone');
  // The next mount takes the store over.
  const next = await mountSharedext(source, mountpoint);
  await next.umount();
}

test('restart replaces the server of a mount in use, and what was open goes on being shared', async () => {
  const server = await mountSharedext(source, mountpoint, 'settle=0,composed=1m');
  const small = fs.openSync(join(mountpoint, 'small0'), 'r');
  const disks = ['disk0', 'disk1'].map((name) => fs.openSync(join(mountpoint, name), 'r+'));
  const buffer = Buffer.alloc(DISK_BYTES);
  for (const disk of disks) fs.readSync(disk, buffer, 0, DISK_BYTES, 0);
  const written = Buffer.alloc(4096, 'w');
  for (const disk of disks) fs.writeSync(disk, written, 0, 4096, 1 << 20);
  const before = await server.status();
  assert.equal(before.open.composed, 2);

  const { status, stdout } = await sharedext('restart', mountpoint, '--json');
  assert.equal(status, 0);
  const said: unknown = JSON.parse(stdout);
  assert.ok(typeof said === 'object' && said !== null && 'pid' in said && said.pid !== before.pid);
  const now = await server.status();
  assert.equal(now.takeovers, 1);
  assert.deepEqual([now.open.shared, now.open.composed], [1, 2]);

  const expected = fs.readFileSync(join(source, 'disk1'));
  await until('extents are looked at again', async () => {
    fs.readSync(disks[1] ?? -1, buffer, 0, DISK_BYTES, 0);
    assert.ok(buffer.equals(expected), 'the bytes are those of the source');
    return ((await server.status()).composed?.mappingBytes ?? 0) > DISK_BYTES / 2;
  });
  fs.readSync(small, buffer, 0, 100_000, 0);
  assert.ok(buffer.subarray(0, 100_000).equals(fs.readFileSync(join(source, 'small0'))));
  fs.writeSync(disks[0] ?? -1, written, 0, 4096, 2 << 20);
  for (const fd of [small, ...disks]) fs.closeSync(fd);
  await server.umount();
  assert.ok(
    fs
      .readFileSync(join(source, 'disk0'))
      .subarray(2 << 20, (2 << 20) + 4096)
      .equals(written),
  );
});

test('directories, streams and deleted files that are in use outlive their server', async () => {
  const server = await mountSharedext(source, mountpoint, 'settle=0,composed=1m');
  fs.mkdirSync(join(mountpoint, 'gone'));
  for (let i = 0; i < 300; i++) fs.writeFileSync(join(source, `entry${i}`), '');
  fs.cpSync(join(source, 'small'), join(mountpoint, 'unlinked'), { mode: fs.constants.COPYFILE_FICLONE });
  await pause(100);
  const unlinked = fs.openSync(join(mountpoint, 'unlinked'), 'r');
  fs.cpSync(join(source, 'disk'), join(source, 'lost'), { mode: fs.constants.COPYFILE_FICLONE });
  execFileSync('cp', ['--reflink=always', join(source, 'disk0'), join(source, 'lost')]);
  const lost = fs.openSync(join(mountpoint, 'lost'), 'r');
  const stream = fs.opendirSync(mountpoint, { bufferSize: 1 });
  const seen = [stream.readSync()?.name];
  const user = execFile('sh', [
    '-c',
    `cd "${mountpoint}/gone" && read line && stat . > /dev/null && ls -A . && echo well`,
  ]);
  let answer = '';
  user.stdout?.on('data', (data) => {
    answer += String(data);
  });
  await until('the directory is in use', () => fs.readlinkSync(`/proc/${user.pid}/cwd`).endsWith('gone'));
  fs.rmdirSync(join(mountpoint, 'gone'));
  for (const name of ['unlinked', 'lost']) fs.unlinkSync(join(mountpoint, name));
  process.kill((await server.status()).pid, 'SIGKILL');

  for (let entry = stream.readSync(); entry !== null; entry = stream.readSync()) seen.push(entry.name);
  stream.closeSync();
  assert.deepEqual(
    // What was read ahead before it was removed may be seen.
    seen.filter((name) => name !== undefined && !['gone', 'lost', 'unlinked'].includes(name)).sort(),
    fs
      .readdirSync(source)
      .filter((name) => name !== '.sharedext')
      .sort(),
  );
  user.stdin?.end('\n');
  await until('the directory answers', () => answer !== '' || user.exitCode !== null);
  assert.equal(answer, 'well\n');
  const buffer = Buffer.alloc(DISK_BYTES);
  assert.equal(fs.readSync(unlinked, buffer, 0, DISK_BYTES, 0), 100_000);
  assert.ok(buffer.subarray(0, 100_000).equals(fs.readFileSync(join(source, 'small'))));
  assert.equal(fs.readSync(lost, buffer, 0, DISK_BYTES, 0), DISK_BYTES);
  assert.ok(buffer.equals(fs.readFileSync(join(source, 'disk0'))));
  for (const fd of [unlinked, lost]) fs.closeSync(fd);
  for (let i = 0; i < 300; i++) fs.unlinkSync(join(source, `entry${i}`));
  await server.umount();
});

test('a server that dies at once again and again is given up, and whoever waits gets an error', async () => {
  const server = await mountSharedext(source, mountpoint);
  let over = false;
  const killing = (async () => {
    for (let killed = 0; !over; ) {
      const pid = serverOf(server.supervisor);
      if (pid > 0 && pid !== killed) {
        // It counts as early whether it was ready or not.
        killed = pid;
        process.kill(pid, 'SIGKILL');
      }
      await pause(1);
    }
  })();
  const waiting = outcomeOf('stat', join(mountpoint, 'nobody-answers'));
  const end = await server.ended;
  over = true;
  await killing;
  assert.equal(end.code, 1);
  assert.match(await waiting, /not connected|connection abort/);
  await assertEnded(server, /Cannot go on serving .*: it ended \d+ times within \d+ ms.*mount it again/);
});

for (const [what, word, reason] of [
  ['was not made by sharedext', 0, /was not made by sharedext/],
  ['is of another version', 1, /has version \d+, and this program knows version/],
  ['contradicts itself', HEADER_WORDS, /the table of nodes is damaged/],
] as const) {
  test(`a state that ${what} is refused, and the mount ended`, async () => {
    const server = await mountSharedext(source, mountpoint);
    await run('ls', mountpoint);
    // While the supervisor stands still, nobody takes over.
    process.kill(server.supervisor, 'SIGSTOP');
    const pid = serverOf(server.supervisor);
    process.kill(pid, 'SIGKILL');
    const memory = fs
      .readdirSync(`/proc/${server.supervisor}/fd`)
      .find((fd) => fs.readlinkSync(`/proc/${server.supervisor}/fd/${fd}`).includes('sharedext-state'));
    assert.ok(memory !== undefined);
    damage(`/proc/${server.supervisor}/fd/${memory}`, word);
    process.kill(server.supervisor, 'SIGCONT');
    await assertEnded(server, reason);
  });
}

/** Overwrites a word of the header, which lies behind the journal, or, further on, what the table of nodes begins with. */
function damage(path: string, word: number): void {
  const header = journalBytes(PAIRS);
  const fd = fs.openSync(path, 'r+');
  const junk = word < HEADER_WORDS ? Buffer.alloc(4, 9) : Buffer.alloc(32, 7);
  fs.writeSync(fd, junk, 0, junk.length, header + word * 4);
  fs.closeSync(fd);
}

test('a mount whose supervisor was killed is served on, and says so', async () => {
  const server = await mountSharedext(source, mountpoint);
  process.kill(server.supervisor, 'SIGKILL');
  assert.equal(await run('cat', join(mountpoint, 'small')).then((text) => text.length > 0), true);
  const { pid } = await server.status();
  execFileSync('umount', [mountpoint]);
  await until('the server ends', () => !fs.existsSync(`/proc/${pid}`));
  assert.match(server.stderr(), /supervisor .* is gone/);
  assert.ok(!fs.existsSync(join(source, '.sharedext')));
});
