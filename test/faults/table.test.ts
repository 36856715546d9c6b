/**
 * Every system call of a running server fails now and then, with every error, or does less than it was asked for, under a load.
 * Programs get errors or right results; afterwards the mount shows what the disk has, nothing is left open, and the server is the same.
 *
 * SHAREDEXT_FAULTS=all runs all of it, and prints the tables of docs/faults.md; a list of calls runs those; otherwise a few.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onFilesystem, run, writeData } from '../mount/clones.ts';
import { canInject, type Fault, startInjector } from '../support/injector.ts';
import type { LoopFilesystem } from '../support/loopfs.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { type CallName, isCallName, systemCalls } from '../support/syscalls.ts';
import { pause } from '../support/wait.ts';

const LOAD = fileURLToPath(new URL('../takeover/load-child.js', import.meta.url));
const STEPS = 200;
/** The load's step that reads a file which nobody changes. */
const READS_SHARED = 17;
const ERRORS: readonly Fault[] = ['EIO', 'ENOSPC', 'EDQUOT', 'EMFILE', 'ENOMEM', 'EINTR', 'ESTALE'];
/** Far more than any call takes until each error was its result. */
const MAX_ROUNDS = 10;

/**
 * What the server calls. Those of Node and of the C library on their own account are not here, nor close, which the kernel carries
 * out even where it fails.
 */
const CALLS: readonly CallName[] = [
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
  'cachestat',
  'fchmodat2',
];

/** Errors that Node has no names for. */
const unnamed = new Map<Fault, string>([
  ['EDQUOT', 'Unknown system error -122'],
  ['ESTALE', 'Unknown system error -116'],
]);

/** Made many times a second: one of four fails. Of the others two of three do. */
const COMMON = new Set<CallName>(['openat', 'open_by_handle_at', 'name_to_handle_at', 'statx', 'ioctl', 'getxattr']);

interface Part {
  readonly kind: 'btrfs' | 'xfs';
  readonly calls: readonly CallName[];
  readonly errors: readonly Fault[];
}

function partsOf(wanted: string | undefined): readonly Part[] {
  if (wanted === undefined) {
    return [
      { kind: 'btrfs', calls: ['openat'], errors: ['EIO', 'ENOMEM'] },
      { kind: 'xfs', calls: ['preadv2'], errors: [] },
    ];
  }
  const calls = wanted === 'all' ? CALLS : wanted.split(',').filter(isCallName);
  return [
    { kind: 'btrfs', calls, errors: ERRORS },
    { kind: 'xfs', calls, errors: ERRORS },
  ];
}

/** What the load doesn't do, on the mount; the source's pages are dropped now and then. Every command may fail. */
const PROGRAMS = `
cd "$1" || cd "$1" || cd "$1" || cd "$1" || exit
for i in 1 2 3 4 5; do
  sync -f .; for f in "$2"/home/disk-* "$2"/.sharedext/*/*; do dd if="$f" iflag=nocache count=0 status=none; done
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

interface Counts {
  readonly injected: readonly number[];
  /** What the random steps answered. */
  readonly answers: readonly string[];
}

/** The two programs work once, while the faults take turns; afterwards the mount is right. */
async function failing(server: MountedServer, call: CallName, faults: readonly Fault[], seed: number): Promise<Counts> {
  const { pid } = await server.status();
  const home = join(server.mountpoint, 'home');
  const log = `${server.mountpoint}.log`;
  const injector = await startInjector(pid, call, faults, { every: COMMON.has(call) ? 4 : 1.5 });
  const load = spawn(process.execPath, [LOAD, home, String(seed), String(STEPS), log], { stdio: 'ignore' });
  const programs = spawn('sh', ['-c', PROGRAMS, 'sh', home, server.source], { stdio: 'ignore' });
  await Promise.all([once(load, 'exit'), once(programs, 'exit')]);
  const what = `${call} with ${faults.join(', ')}, seed ${seed}`;
  // All that is there is read and listed rightly while counts are short, too.
  if (faults.includes('short')) assert.equal(await listing(server.mountpoint), await listing(server.source), what);
  const injected = await injector.stop();
  const steps = readFileSync(log, 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const right = execFileSync('md5sum', [join(server.source, 'base')], { encoding: 'utf8' }).slice(0, 32);
  const allowed = faults.includes('short') ? right : `${right}|E[A-Z]+|Unknown`;
  for (const [, kind, digest] of steps) {
    if (kind === String(READS_SHARED)) assert.match(digest ?? '', new RegExp(`^(${allowed})$`), what);
  }
  const status = await server.status();
  assert.equal(status.pid, pid, `${what} ended the server`);
  assert.equal(status.bugs, 0, `${what}: ${server.stderr()}`);
  assert.equal(await listing(server.mountpoint), await listing(server.source), what);
  return { injected, answers: steps.map(([, , ...words]) => words.join(' ')) };
}

/** Goes on until each of the faults was injected, those first that were least; returns a cell for each. */
async function cellsOf(
  server: MountedServer,
  call: CallName,
  faults: readonly Fault[],
  seed: number,
): Promise<string[]> {
  const rows = faults.map((fault) => ({ fault, injected: 0, seen: 0 }));
  for (let round = 0; rows.some(({ injected }) => injected === 0); round++) {
    assert.ok(round < MAX_ROUNDS, `${call} is made too rarely: ${JSON.stringify(rows)}`);
    const order = rows.toSorted((a, b) => a.injected - b.injected);
    const { injected, answers } = await failing(
      server,
      call,
      order.map(({ fault }) => fault),
      seed + round,
    );
    for (const [i, row] of order.entries()) {
      row.injected += injected[i] ?? 0;
      const shown = unnamed.get(row.fault) ?? row.fault;
      row.seen += answers.filter((answer) => answer === shown).length;
    }
  }
  return rows.map(({ fault, injected, seen }) => (fault === 'short' ? `${injected}` : `${injected} / ${seen}`));
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

/** Makes one call of a server of its own fail in each way there is; returns a row of the table. */
async function rowOf(filesystem: LoopFilesystem, part: Part, call: CallName): Promise<string> {
  const number = part.calls.indexOf(call);
  const source = join(filesystem.dir, `source${number}`);
  layOut(source);
  await pause(60);
  const mountpoint = join(filesystem.folder, `mounted${number}`);
  const server = await mountSharedext(source, mountpoint, 'settle=0,composed=1m,cache=none');
  const seed = number * 100;
  const cells = await cellsOf(server, call, part.errors, seed);
  const isShort = systemCalls[call].shortening !== undefined;
  cells.push(...(isShort ? await cellsOf(server, call, ['short'], seed + MAX_ROUNDS) : ['–']));
  // What could not be given back is, with the next file that is closed.
  await run('cat', join(server.mountpoint, 'base'));
  for (let wait = 0; wait < 100 && (await server.status()).open.inodes > 0; wait++) await pause(20);
  const { open, descriptors, backing } = await server.status();
  assert.deepEqual([open.inodes, descriptors.handles, backing.count], [0, 0, 0], `${call} leaves something open`);
  await server.umount();
  rmSync(source, { recursive: true });
  return `| \`${call}\` | ${cells.join(' | ')} |`;
}

for (const part of partsOf(process.env['SHAREDEXT_FAULTS'])) {
  test(`calls that fail on ${part.kind} leave programs with errors or right results`, { skip: !canInject }, (t) =>
    onFilesystem(part.kind, 1000, async (filesystem) => {
      const rows = [
        `| call | ${part.errors.join(' | ')} | short |`,
        `| --- |${' --- |'.repeat(part.errors.length + 1)}`,
      ];
      for (const call of part.calls) {
        await t.test(call, async () => {
          rows.push(await rowOf(filesystem, part, call));
        });
      }
      t.diagnostic(`\n${rows.join('\n')}`);
    }),
  );
}
