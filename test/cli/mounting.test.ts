/** Mounting, serving and ending, by the command and by mount(8): what works, and that nothing is left. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { packageRoot } from '../../src/cli/package.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import { until } from '../support/wait.ts';
import { daemonsOf, directory, mountAt, PROGRAM, run, sharedext, untilGone } from './command.ts';

const btrfs = makeLoopFilesystem('btrfs');
const source = directory(btrfs.dir, 'source');
const mountpoint = directory(btrfs.folder, 'mountpoint');
writeFileSync(join(source, 'file'), 'content');

// A test that failed half-way must not take the others with it.
afterEach(async () => {
  while (mountAt(mountpoint) !== undefined) await run('umount', ['--lazy', mountpoint]);
});

after(async () => {
  btrfs.dispose();
  await assertNothingLeft();
});

/** Mounts in the background; the mount answers, or the test fails. Returns its minor. */
async function mount(...words: readonly string[]): Promise<number> {
  const outcome = await sharedext('mount', source, mountpoint, ...words);
  assert.deepEqual(outcome, { status: 0, stdout: '', stderr: '' });
  const entry = mountAt(mountpoint);
  assert.ok(entry, 'it is mounted');
  return entry.minor;
}

/** Mounts in the foreground, in a child whose life is bounded. */
async function mountInForeground(
  ...words: readonly string[]
): Promise<{ child: ChildProcess; minor: number; pid: number; stderr: () => string }> {
  const args = ['--signal=KILL', '60', process.execPath, PROGRAM, 'mount', '-f', source, mountpoint, ...words];
  const child = spawn('timeout', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data.toString();
  });
  await until('it is mounted', () => mountAt(mountpoint) !== undefined);
  const minor = mountAt(mountpoint)?.minor ?? -1;
  await until('it has a socket', () => existsSync(`/run/sharedext/${minor}.sock`));
  const [pid = -1] = daemonsOf(mountpoint).filter((found) => found !== child.pid);
  return { child, minor, pid, stderr: () => stderr };
}

function endOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    if (child.exitCode !== null) resolve(child.exitCode);
    else child.once('exit', resolve);
  });
}

async function cat(path: string): Promise<string> {
  return (await run('cat', [path])).stdout;
}

test('mount returns when the mount answers, and umount when everything is gone', async () => {
  const minor = await mount();
  assert.equal(await cat(join(mountpoint, 'file')), 'content');
  const [daemon] = daemonsOf(mountpoint);
  assert.ok(daemon !== undefined);
  assert.equal(readFileSync(`/proc/${daemon}/stat`, 'utf8').split(' ')[5], String(daemon), 'a session of its own');
  assert.equal((await run('readlink', [`/proc/${daemon}/cwd`])).stdout, '/\n');
  assert.deepEqual(await sharedext('umount', mountpoint), { status: 0, stdout: '', stderr: '' });
  assert.equal(mountAt(mountpoint), undefined);
  assert.ok(!existsSync(join(source, '.sharedext')));
  await untilGone(mountpoint, source, minor);
});

test('relative paths, in the form of mount(8) and with the options first, mean what they say', async () => {
  const words = ['-o', 'ro', '-n', '-v', '-t', 'fuse.sharedext', 'mnt/source', 'mountpoint', '-o', 'store=mnt,noatime'];
  const outcome = await run(process.execPath, [PROGRAM, ...words], btrfs.folder);
  assert.deepEqual(outcome, { status: 0, stdout: '', stderr: '' });
  assert.ok(existsSync(join(btrfs.dir, '.sharedext')), 'the store is where it was to be');
  const entry = mountAt(mountpoint);
  assert.match(entry?.options ?? '', /^ro,noatime/);
  assert.equal(entry?.source, source);
  assert.equal((await run('umount', [mountpoint])).status, 0);
  await untilGone(mountpoint, btrfs.dir, entry?.minor ?? -1);
});

test('a plain umount ends the daemon', async () => {
  const minor = await mount();
  assert.equal((await run('umount', [mountpoint])).status, 0);
  await untilGone(mountpoint, source, minor);
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} unmounts`, async () => {
    const { child, minor, pid, stderr } = await mountInForeground();
    const end = endOf(child);
    process.kill(pid, signal);
    assert.equal(await end, 0);
    assert.equal(stderr(), '');
    await untilGone(mountpoint, source, minor);
  });
}

test('SIGTERM detaches a mount that is in use, and the daemon ends when its last user does', async () => {
  const { child, minor, pid } = await mountInForeground();
  const end = endOf(child);
  const user = spawn('sleep', ['60'], { cwd: mountpoint });
  await until('it is in use', () => readdirSync('/proc').includes(String(user.pid)));
  process.kill(pid, 'SIGTERM');
  await until('it is detached', () => mountAt(mountpoint) === undefined);
  assert.equal(child.exitCode, null, 'the daemon still serves');
  user.kill('SIGKILL');
  assert.equal(await end, 0);
  await untilGone(mountpoint, source, minor);
});

test('a second signal ends the daemon of a mount in use at once', async () => {
  const { child, minor, pid, stderr } = await mountInForeground();
  const end = endOf(child);
  const user = spawn('sleep', ['60'], { cwd: mountpoint });
  await until('it is in use', () => readdirSync('/proc').includes(String(user.pid)));
  process.kill(pid, 'SIGTERM');
  await until('it is detached', () => mountAt(mountpoint) === undefined);
  await until('it says so', () => stderr().includes('still in use'));
  process.kill(pid, 'SIGTERM');
  assert.equal(await end, 1);
  assert.ok(!existsSync(`/run/sharedext/${minor}.sock`));
  user.kill('SIGKILL');
  // The store that it left is taken over by the next mount.
  const next = await mount();
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
  await untilGone(mountpoint, source, next);
});

test('umount of a mount in use names who uses it, and detaches it when asked to', async () => {
  const minor = await mount();
  const user = spawn('sleep', ['60'], { cwd: mountpoint });
  await until('it is in use', () => readdirSync('/proc').includes(String(user.pid)));
  const { status, stderr } = await sharedext('umount', mountpoint);
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`in use by .*sleep \\(${user.pid}, cwd\\).*umount -l`));
  assert.equal((await sharedext('umount', '-l', mountpoint)).status, 0);
  assert.equal(mountAt(mountpoint), undefined);
  user.kill('SIGKILL');
  await untilGone(mountpoint, source, minor);
});

test('a mount over the source itself hides it and serves it', async () => {
  assert.deepEqual(await sharedext('mount', source, source), { status: 0, stdout: '', stderr: '' });
  const minor = mountAt(source)?.minor ?? -1;
  assert.equal(await cat(join(source, 'file')), 'content');
  assert.equal((await run('ls', ['-A', source])).stdout, 'file\n', 'the store is hidden');
  assert.equal((await sharedext('umount', source)).status, 0);
  await untilGone(source, source, minor);
});

test('two mounts of the same source at the same time keep out of each other', async () => {
  const second = directory(btrfs.folder, 'second');
  const first = await mount();
  assert.equal((await sharedext('mount', source, second, '-o', 'nosubtype')).status, 0);
  const minor = mountAt(second)?.minor ?? -1;
  const { stdout } = await sharedext('status', '--json');
  const reports: { mountpoint: string; store: string }[] = JSON.parse(stdout);
  const stores = reports
    .filter((report) => [mountpoint, second].includes(report.mountpoint))
    .map((report) => report.store);
  assert.deepEqual(stores, [join(source, '.sharedext/0'), join(source, '.sharedext/1')]);
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
  assert.equal(await cat(join(second, 'file')), 'content');
  assert.equal((await sharedext('umount', second)).status, 0);
  await untilGone(mountpoint, source, first);
  await untilGone(second, source, minor);
});

test('status tells people and programs the same', async () => {
  const minor = await mount('-o', 'settle=0');
  await cat(join(mountpoint, 'file'));
  const status = JSON.parse((await sharedext('status', mountpoint, '--json')).stdout);
  assert.equal(status.schema, 1);
  assert.equal(status.state, 'serving');
  assert.equal(status.source, source);
  assert.equal(status.mountpoint, mountpoint);
  assert.equal(status.minor, minor);
  assert.equal(status.filesystem, 'btrfs');
  assert.deepEqual([status.supervisor, status.pid], daemonsOf(mountpoint));
  assert.equal(status.nodes.count, 2);
  assert.equal(status.requests.INIT, 1);
  assert.equal(status.requests.OPEN, 1);
  assert.equal(status.requests.READ, 0);
  assert.equal(status.bugs, 0);
  const documented = readFileSync(join(packageRoot, 'docs/status.md'), 'utf8');
  const { options: _options, reasons: _reasons, requests: _requests, failures: _failures, ...fields } = status;
  for (const [name, value] of Object.entries(fields)) {
    const parts = typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.keys(value) : [];
    for (const field of [name, ...parts.map((part) => `${name}.${part}`)]) {
      assert.ok(documented.includes(`\`${field}\``), `docs/status.md describes ${field}`);
    }
  }
  const table = (await sharedext('status')).stdout;
  assert.ok(table.includes(mountpoint) && table.includes(source) && table.includes(String(status.pid)), table);
  assert.match((await sharedext('status', mountpoint)).stdout, /requests .*OPEN 1/);
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
});

test('a dead mount is listed, refused as a mountpoint, and what to do is said', async () => {
  const minor = await mount();
  // Neither has time to notice, and to say, that the other is gone.
  for (const signal of ['SIGSTOP', 'SIGKILL']) {
    for (const daemon of daemonsOf(mountpoint)) process.kill(daemon, signal);
  }
  await until('it is gone', () => daemonsOf(mountpoint).length === 0);
  const { stdout } = await sharedext('status');
  assert.match(stdout, new RegExp(`${mountpoint}: its daemon is gone: try "umount -l ${mountpoint}"`));
  const single = await sharedext('status', mountpoint);
  assert.equal(single.status, 1);
  assert.match(single.stdout, /dead/);
  const again = await sharedext('mount', source, mountpoint);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /Transport endpoint is not connected\), try "umount -l/);
  assert.equal((await sharedext('umount', '-l', mountpoint)).status, 0);
  for (const kind of ['sock', 'log']) assert.ok(!existsSync(`/run/sharedext/${minor}.${kind}`), kind);
  // The next mount empties the store of the one that was killed.
  const next = await mount();
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
  await untilGone(mountpoint, source, next);
});

test('the control socket survives junk, crowds and clients that never read', async () => {
  const minor = await mount();
  const path = `/run/sharedext/${minor}.sock`;
  const say = (text: string | Buffer): Promise<string> =>
    new Promise((resolve) => {
      let answer = '';
      const client = createConnection(path, () => client.end(text));
      client.on('data', (data) => {
        answer += data.toString();
      });
      client.on('error', () => client.destroy());
      client.on('close', () => resolve(answer));
    });
  assert.match(await say('junk\n'), /^\{"error":"Cannot read the request: it is not JSON"\}\n$/);
  assert.match(await say('{"command":"constructor"}\n'), /known are status/);
  assert.match(await say('null\n[]\n{"command":7}\n'), /^(\{"error":[^\n]*\}\n){3}$/);
  assert.equal(await say(Buffer.alloc(100_000, 0xff)), '', 'a line that is too long gets no answer');
  const mute = createConnection(path);
  mute.on('error', () => mute.destroy());
  mute.pause();
  mute.write('{"command":"status"}\n'.repeat(20_000));
  const answers = await Promise.all(Array.from({ length: 40 }, () => say('{"command":"status"}\n')));
  for (const answer of answers) assert.equal(JSON.parse(answer).minor, minor);
  mute.destroy();
  assert.equal(await cat(join(mountpoint, 'file')), 'content');
  assert.equal((await sharedext('umount', mountpoint)).status, 0);
  await untilGone(mountpoint, source, minor);
});

test('-d prints requests and replies', async () => {
  const { child, minor, pid, stderr } = await mountInForeground('-d');
  const end = endOf(child);
  await cat(join(mountpoint, 'file'));
  process.kill(pid, 'SIGTERM');
  assert.equal(await end, 0);
  assert.match(stderr(), /^> \d+ LOOKUP n1 "file" (uid 0|pid \d+)$/m);
  assert.match(stderr(), /^< \d+ LOOKUP \d+ bytes$/m);
  await untilGone(mountpoint, source, minor);
});

test('a daemon whose messages nobody reads any more goes on serving', async () => {
  const { child, minor, pid } = await mountInForeground('-d');
  const end = endOf(child);
  child.stderr?.destroy();
  for (let attempt = 0; attempt < 3; attempt++) assert.equal(await cat(join(mountpoint, 'file')), 'content');
  process.kill(pid, 'SIGTERM');
  assert.equal(await end, 0);
  await untilGone(mountpoint, source, minor);
});

test('a daemon whose starter was killed takes its mount down again', async () => {
  const starter = spawn(process.execPath, [PROGRAM, 'mount', source, mountpoint], { stdio: 'ignore' });
  const end = endOf(starter);
  await until('the daemon is there', () => daemonsOf(mountpoint).length >= 2);
  starter.kill('SIGKILL');
  assert.equal(await end, null);
  await until('the daemon has ended', () => daemonsOf(mountpoint).length === 0);
  assert.equal(mountAt(mountpoint), undefined);
  assert.ok(!existsSync(join(source, '.sharedext')));
});

test('a service manager is told when the mount is ready and when it ends', async () => {
  const received = join(btrfs.folder, 'received');
  const socket = join(btrfs.folder, 'notify');
  const script =
    'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\ns.settimeout(30)\nf=open(sys.argv[2],"wb")\nfor i in range(2):\n  f.write(s.recv(100)+b"\\n"); f.flush()\n';
  const listener = spawn('python3', ['-c', script, socket, received], { stdio: 'ignore' });
  await until('the listener is there', () => existsSync(socket));
  const words = [PROGRAM, 'mount', '-f', source, mountpoint];
  const child = spawn(process.execPath, words, { stdio: 'ignore', env: { ...process.env, NOTIFY_SOCKET: socket } });
  const text = (): string => (existsSync(received) ? readFileSync(received, 'utf8') : '');
  await until('READY=1 has come', () => text() === 'READY=1\n');
  assert.equal(await cat(join(mountpoint, 'file')), 'content');
  const minor = mountAt(mountpoint)?.minor ?? -1;
  const ends = [endOf(child), endOf(listener)];
  child.kill('SIGTERM');
  assert.deepEqual(await Promise.all(ends), [0, 0]);
  assert.equal(text(), 'READY=1\nSTOPPING=1\n');
  await untilGone(mountpoint, source, minor);
});

test('doctor finds nothing missing for a good source, and says what to do about a bad one', async () => {
  const good = await sharedext('doctor', source, '--json');
  assert.equal(good.status, 0, good.stdout);
  const { ok, findings }: { ok: boolean; findings: { name: string; state: string }[] } = JSON.parse(good.stdout);
  assert.equal(ok, true);
  const names = findings.filter(({ state }) => state === 'ok').map(({ name }) => name);
  for (const name of ['root', '/dev/fuse', 'passthrough', 'backing files', 'file handles', 'reflinks', 'store']) {
    assert.ok(names.includes(name), name);
  }
  assert.ok(!existsSync(join(source, '.sharedext')), 'the probes leave nothing');
  assert.equal((await sharedext('doctor')).status, 0);
  const bad = await sharedext('doctor', '/proc');
  assert.equal(bad.status, 1);
  assert.match(bad.stdout, /missing {2}source .*\n.*→ use a directory on btrfs or XFS/);
});

test('install makes mount -t fuse.sharedext and a line of fstab work, and uninstall takes it away', async () => {
  const helper = '/sbin/mount.fuse.sharedext';
  assert.ok(!existsSync(helper), 'a helper is installed on this machine: this test would take it away');
  try {
    const installed = await sharedext('install');
    assert.equal(installed.status, 0, installed.stderr);
    assert.ok(installed.stdout.startsWith(`${helper}\n`));
    const mounted = await run('mount', ['-t', 'fuse.sharedext', source, mountpoint, '-o', 'noatime,nosuid,settle=5']);
    assert.deepEqual(mounted, { status: 0, stdout: '', stderr: '' });
    assert.equal(await cat(join(mountpoint, 'file')), 'content');
    assert.match(mountAt(mountpoint)?.options ?? '', /nosuid,noatime/);
    assert.equal((await sharedext('umount', mountpoint)).status, 0);
    const fstab = join(btrfs.folder, 'fstab');
    writeFileSync(fstab, `${source} ${mountpoint} fuse.sharedext ro,nofail,_netdev,x-mark 0 0\n`);
    assert.deepEqual(await run('mount', ['--fstab', fstab, '-a']), { status: 0, stdout: '', stderr: '' });
    const entry = mountAt(mountpoint);
    assert.match(entry?.options ?? '', /^ro/);
    assert.deepEqual(await run('mount', [mountpoint, '-o', 'remount,rw']), { status: 0, stdout: '', stderr: '' });
    assert.match(mountAt(mountpoint)?.options ?? '', /^rw/);
    const refused = await run('mount', [mountpoint, '-o', 'remount,ro,nosharedext']);
    assert.match(refused.stderr, /Cannot change nosharedext .*unmount/);
    assert.match(mountAt(mountpoint)?.options ?? '', /^rw/);
    // The server acts on these, and the kernel would tell it nothing.
    for (const word of ['noatime', 'strictatime', 'nodiratime', 'sync', 'dirsync']) {
      const { status, stderr } = await run('mount', [mountpoint, '-o', `remount,ro,${word}`]);
      assert.notEqual(status, 0);
      assert.ok(stderr.includes(`Cannot change ${word} of the mount on ${mountpoint}: unmount`), stderr);
      assert.match(mountAt(mountpoint)?.options ?? '', /^rw,relatime/);
      assert.doesNotMatch(mountAt(mountpoint)?.superOptions ?? '', /sync/);
    }
    for (const word of ['relatime', 'async', 'atime']) {
      const same = await run('mount', [mountpoint, '-o', `remount,rw,${word}`]);
      assert.deepEqual(same, { status: 0, stdout: '', stderr: '' }, word);
    }
    assert.equal((await run('umount', [mountpoint])).status, 0);
    await untilGone(mountpoint, source, entry?.minor ?? -1);
    const pretended = await run('mount', ['-f', '-t', 'fuse.sharedext', source, mountpoint]);
    assert.deepEqual(
      { ...pretended, entry: mountAt(mountpoint) },
      { status: 0, stdout: '', stderr: '', entry: undefined },
    );
  } finally {
    assert.equal((await sharedext('install', '--uninstall')).status, 0);
  }
  assert.ok(!existsSync(helper));
});

test("install below a prefix writes there and nowhere else, and overwrites nobody else's file", async () => {
  const prefix = directory(btrfs.folder, 'prefix');
  const { stdout } = await sharedext('install', '--prefix', prefix);
  const files = stdout.trim().split('\n');
  assert.equal(files.length, 3);
  for (const file of files) {
    assert.ok(file.startsWith(`${prefix}/`), file);
    assert.doesNotMatch(readFileSync(file, 'utf8'), /@[A-Z]+@/, 'no placeholder is left');
  }
  assert.equal((await sharedext('install', '--prefix', prefix, '--uninstall')).status, 0);
  assert.deepEqual(
    files.filter((file) => existsSync(file)),
    [],
  );
  const helper = join(prefix, 'sbin/mount.fuse.sharedext');
  writeFileSync(helper, 'of someone else');
  for (const more of [[], ['--uninstall']]) {
    const refused = await sharedext('install', '--prefix', prefix, ...more);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /Cannot touch .*mount\.fuse\.sharedext/);
  }
  assert.equal(readFileSync(helper, 'utf8'), 'of someone else');
});
