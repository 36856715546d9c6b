/**
 * A real database: one PostgreSQL cluster, cloned four times by reflink, and four servers that run on the clones at the same time,
 * on the bare filesystem and on the mount. Runs with SHAREDEXT_POSTGRES=1, where PostgreSQL and its contrib programs are installed;
 * SHAREDEXT_POSTGRES_SCALE (80: some 1.2 GiB) and SHAREDEXT_POSTGRES_SECONDS set how much, SHAREDEXT_MODEL_KIND on what.
 */

import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { dropPages, onFilesystem, PAGE_BYTES, residentPages, run, storeFiles } from './clones.ts';

const SCALE = process.env['SHAREDEXT_POSTGRES_SCALE'] ?? '80';
const SECONDS = process.env['SHAREDEXT_POSTGRES_SECONDS'] ?? '20';
const KIND = process.env['SHAREDEXT_MODEL_KIND'] === 'xfs' ? 'xfs' : 'btrfs';
const SERVERS = [0, 1, 2, 3] as const;
const VERSIONS = '/usr/lib/postgresql';

function whySkipped(): string | false {
  if (process.env['SHAREDEXT_POSTGRES'] !== '1') return 'SHAREDEXT_POSTGRES is not 1';
  return existsSync(VERSIONS) ? false : 'PostgreSQL is not installed';
}

/** Runs one of PostgreSQL's programs as its user. */
function pg(program: string, ...args: readonly string[]): Promise<string> {
  const version = readdirSync(VERSIONS).at(-1) ?? '';
  return run('runuser', '-u', 'postgres', '--', join(VERSIONS, version, 'bin', program), ...args);
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => !path.includes('/.sharedext/') && statSync(path).isFile());
}

interface Figures {
  readonly reads: number;
  readonly writes: number;
  readonly pages: number;
}

/** Four servers on `root`/c0 … c3, busy at the same time: reading only, then writing as well. */
async function busy(root: string, sockets: string, resident: () => number): Promise<Figures> {
  const start = (n: number): Promise<string> => {
    const options = `-c listen_addresses='' -k ${sockets} -p ${6000 + n}`;
    return pg('pg_ctl', '-D', join(root, `c${n}`), '-w', '-s', '-l', join(sockets, `log${n}`), '-o', options, 'start');
  };
  const bench = async (...words: readonly string[]): Promise<number> => {
    const told = await Promise.all(
      SERVERS.map((n) =>
        pg('pgbench', '-h', sockets, '-p', String(6000 + n), '-n', '-c', '4', '-T', SECONDS, ...words, 'postgres'),
      ),
    );
    return told.reduce((sum, text) => sum + Number(/^tps = ([\d.]+)/m.exec(text)?.[1]), 0);
  };
  await Promise.all(SERVERS.map(start));
  // Everything is read once, by a scan of each table and index.
  const scan = 'select sum(abalance) from pgbench_accounts';
  for (const n of SERVERS) await pg('psql', '-h', sockets, '-p', String(6000 + n), '-qAtc', scan, 'postgres');
  const reads = await bench('-S');
  const pages = resident();
  const writes = await bench();
  for (const n of SERVERS) await pg('pg_amcheck', '-h', sockets, '-p', String(6000 + n), '--install-missing', '--all');
  for (const n of SERVERS) await pg('pg_ctl', '-D', join(root, `c${n}`), '-w', '-s', '-m', 'fast', 'stop');
  for (const n of SERVERS) await pg('pg_checksums', '--check', '-D', join(root, `c${n}`));
  return { reads, writes, pages };
}

async function databases(t: TestContext): Promise<void> {
  await onFilesystem(KIND, 12_000, async (filesystem) => {
    const source = join(filesystem.dir, 'clusters');
    const sockets = join(filesystem.folder, 'sockets');
    const mountpoint = join(filesystem.folder, 'shared');
    for (const folder of [source, sockets]) mkdirSync(folder);
    const user = Number((await run('id', '-u', 'postgres')).trim());
    for (const folder of [source, sockets]) chownSync(folder, user, user);
    const base = join(source, 'base');
    await pg('initdb', '-D', base, '--data-checksums', '-A', 'trust');
    await pg(
      'pg_ctl',
      '-D',
      base,
      '-w',
      '-s',
      '-l',
      join(sockets, 'log'),
      '-o',
      `-c listen_addresses='' -k ${sockets}`,
      'start',
    );
    await pg('pgbench', '-h', sockets, '-q', '-i', '-s', SCALE, 'postgres');
    await pg('psql', '-h', sockets, '-qAtc', 'vacuum freeze analyze', 'postgres');
    await pg('pg_ctl', '-D', base, '-w', '-s', '-m', 'fast', 'stop');
    const clone = async (): Promise<void> => {
      await run(
        'sh',
        '-c',
        'cd "$0" && rm -rf c? && for n in 0 1 2 3; do cp -a --reflink=always base c$n; done && sync',
        source,
      );
      dropPages(filesBelow(source));
      await pause(1100);
    };
    await clone();
    const bare = await busy(source, sockets, () => residentPages(filesBelow(source)));
    await clone();
    const server = await mountSharedext(source, mountpoint);
    const shared = await busy(mountpoint, sockets, () => residentPages([...filesBelow(source), ...storeFiles(source)]));
    const { reasons, composed } = await server.status();
    await server.umount();
    const mib = (pages: number): string => `${Math.round((pages * PAGE_BYTES) / 2 ** 20)} MiB`;
    t.diagnostic(`${KIND}, scale ${SCALE}: page cache ${mib(bare.pages)} bare, ${mib(shared.pages)} on the mount`);
    t.diagnostic(
      `reading ${bare.reads.toFixed(0)} and ${shared.reads.toFixed(0)} tps: ${(shared.reads / bare.reads).toFixed(2)}`,
    );
    t.diagnostic(
      `writing ${bare.writes.toFixed(0)} and ${shared.writes.toFixed(0)} tps: ${(shared.writes / bare.writes).toFixed(2)}`,
    );
    t.diagnostic(JSON.stringify({ reasons, composed }));
    assert.ok(shared.pages < 0.5 * bare.pages);
  });
}

test(
  'four PostgreSQL servers on clones of one cluster keep their data, in less memory',
  { skip: whySkipped() },
  databases,
);
