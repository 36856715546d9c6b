/**
 * Every system call of a running server fails now and then, with every error, under a load. Programs get errors or right
 * results; afterwards the mount shows what the disk has, nothing is left open, and the server is the same.
 *
 * SHAREDEXT_FAULTS=all runs all of it, and prints the table of docs/faults.md; a list of calls runs those; otherwise a few.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onFilesystem, pause, run, writeData } from '../mount/clones.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { startTracer } from '../support/tracer.ts';

const LOAD = fileURLToPath(new URL('../takeover/load-child.js', import.meta.url));
const STEPS = 250;
/** The load's step that reads a file which nobody changes. */
const READS_SHARED = 17;
const ERRORS = ['EIO', 'ENOSPC', 'EDQUOT', 'EMFILE', 'ENOMEM', 'EINTR', 'ESTALE'];

/**
 * What the server calls. Those of Node and of the C library on their own account are not here, nor close, which the kernel carries
 * out even where it fails. cachestat and fchmodat2, which strace 6.1 doesn't know, fail in `test/filesystem/faults.test.ts` and
 * `test/mappings/store.test.ts` only.
 */
const CALLS = [
  'openat',
  'open_by_handle_at',
  'name_to_handle_at',
  'statx',
  'getdents64',
  'pread64',
  'pwrite64',
  'preadv2',
  'pwritev2',
  'lseek',
  'fcntl',
  'fadvise64',
  'ioctl',
  'mkdirat',
  'mknodat',
  'symlinkat',
  'readlinkat',
  'unlinkat',
  'linkat',
  'renameat2',
  'fchownat',
  'utimensat',
  'ftruncate',
  'fallocate',
  'fsync',
  'fdatasync',
  'copy_file_range',
  'fstatfs',
  'getxattr',
  'setxattr',
  'listxattr',
  'removexattr',
  'sendmsg',
];

/** Errors that Node has no names for. */
const unnamed = new Map([
  ['EDQUOT', 'Unknown system error -122'],
  ['ESTALE', 'Unknown system error -116'],
]);

/** Made many times a second: one of four fails. Of the others every other one does. */
const COMMON = new Set(['openat', 'open_by_handle_at', 'name_to_handle_at', 'statx', 'ioctl', 'getxattr']);

const wanted = process.env['SHAREDEXT_FAULTS'];
const all = wanted !== undefined;
const calls = wanted === 'all' ? CALLS : (wanted ?? 'openat,statx,pwritev2,renameat2').split(',');
const errors = all ? ERRORS : ['EIO', 'ENOMEM'];

/** What the load doesn't do; every command may fail. */
const PROGRAMS = `
cd "$1" || cd "$1" || cd "$1" || cd "$1" || exit
for i in 1 2 3 4 5 6; do
  sync -f .; echo 1 > /proc/sys/vm/drop_caches
  mkfifo fifo$i; ln -s target$i link$i; readlink link$i; touch -d 2020-01-01 file$i; chown 5:6 file$i; chmod 640 file$i
  fallocate -l 8192 file$i; fallocate -p -o 0 -l 4096 file$i; truncate -s 100 file$i
  setfattr -n user.a -v $i file$i; getfattr -d file$i; setfattr -x user.a file$i
  cp --reflink=auto shared-0 copy$i; stat -f .; ls -la; sync -d file$i; sync file$i
  mv file$i moved$i; ln moved$i other$i; lsattr moved$i; rm -f other$i fifo$i link$i copy$i; mkdir dir$i; rmdir dir$i
  dd if=/dev/zero of=disk-0 bs=4k seek=$i count=1 conv=notrunc,fdatasync; cat disk-1 moved$i
done
`;

function listing(root: string): Promise<string> {
  return run(
    'sh',
    '-c',
    `cd "${root}" && find . -not -path './.sharedext*' -printf '%P %y %m %n %s %l %U\\n' | sort && find . -not -path './.sharedext*' -type f -print0 | sort -z | xargs -0 md5sum`,
  );
}

async function failing(server: MountedServer, call: string, error: string, seed: number, log: string): Promise<string> {
  const { pid } = await server.status();
  const home = join(server.mountpoint, 'home');
  const tracer = await startTracer(pid, call, `error=${error}:when=${COMMON.has(call) ? '3+4' : '1+2'}`);
  const load = spawn(process.execPath, [LOAD, home, String(seed), String(STEPS), log], { stdio: 'ignore' });
  const programs = spawn('sh', ['-c', PROGRAMS, 'sh', home], { stdio: 'ignore' });
  await Promise.all([once(load, 'exit'), once(programs, 'exit')]);
  const injected = await tracer.stop();
  const seen = readFileSync(log, 'utf8').split('\n');
  const digests = seen.filter((line) => line.split(' ')[1] === String(READS_SHARED)).map((line) => line.split(' ')[2]);
  const right = execFileSync('md5sum', [join(server.source, 'base')], { encoding: 'utf8' }).slice(0, 32);
  for (const digest of digests)
    assert.match(digest ?? '', new RegExp(`^(${right}|E[A-Z]+|Unknown)$`), `${call} with ${error}`);
  const status = await server.status();
  assert.equal(status.pid, pid, `${call} with ${error} ended the server`);
  assert.equal(status.bugs, 0, `${call} with ${error}: ${server.stderr()}`);
  assert.equal(await listing(server.mountpoint), await listing(server.source), `${call} with ${error}`);
  const shown = unnamed.get(error) ?? error;
  return `${injected} / ${seen.filter((line) => line.endsWith(` ${shown}`)).length}`;
}

function layOut(source: string): void {
  const home = join(source, 'home');
  mkdirSync(home, { recursive: true });
  writeData(join(source, 'base'), 200_000, false);
  writeData(join(source, 'disk'), 6 << 20, false);
  for (let i = 0; i < 4; i++) execFileSync('cp', ['--reflink=always', join(source, 'base'), join(home, `shared-${i}`)]);
  for (let i = 0; i < 2; i++) {
    execFileSync('cp', ['--reflink=always', join(source, 'disk'), join(home, `disk-${i}`)]);
    execFileSync('dd', [
      'if=/dev/zero',
      `of=${join(home, `disk-${i}`)}`,
      'bs=4k',
      'count=1',
      'conv=notrunc',
      'status=none',
    ]);
  }
  execFileSync('sync', ['-f', source]);
}

test('calls that fail leave programs with errors or right results', { skip: !existsSync('/usr/bin/strace') }, (t) =>
  onFilesystem('btrfs', 1000, async (filesystem) => {
    const rows: string[] = [];
    for (const [i, call] of calls.entries()) {
      const source = join(filesystem.dir, `source${i}`);
      layOut(source);
      await pause(60);
      const server = await mountSharedext(
        source,
        join(filesystem.folder, 'mounted'),
        'settle=0,composed=1m,cache=none',
      );
      const cells: string[] = [];
      for (const [j, error] of errors.entries()) {
        cells.push(await failing(server, call, error, i * 100 + j, join(filesystem.folder, 'log')));
      }
      // What could not be given back is, with the next file that is closed.
      await run('cat', join(server.mountpoint, 'base'));
      for (let wait = 0; wait < 100 && (await server.status()).open.inodes > 0; wait++) await pause(20);
      const { open, descriptors, backing } = await server.status();
      assert.deepEqual([open.inodes, descriptors.handles, backing.count], [0, 0, 0], `${call} leaves something open`);
      await server.umount();
      rmSync(source, { recursive: true });
      rows.push(`| \`${call}\` | ${cells.join(' | ')} |`);
      if (all) console.log(rows.at(-1));
    }
    t.diagnostic(`\n| call | ${errors.join(' | ')} |\n| --- |${' --- |'.repeat(errors.length)}\n${rows.join('\n')}`);
  }),
);
