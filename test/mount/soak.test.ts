/**
 * Churn: trees are cloned, read, changed and deleted without pause. Nothing of the server grows with the number of rounds, and
 * when all is gone, all is given back.
 *
 * SHAREDEXT_SOAK_SECONDS: how long (the table of docs/soak.md is one of 600).
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mountSharedext, type Status } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem, writeData } from './clones.ts';

const SECONDS = Number(process.env['SHAREDEXT_SOAK_SECONDS'] ?? 8);
const SAMPLES = 12;
const FILES = 60;
const WORKERS = 2;
/** What a server's memory may vary by from the middle of the soak on. */
const SLACK_BYTES = 32 << 20;

/** One worker's rounds: clone the tree, read it, change some of it, read a diverged disk, delete it. */
const CHURN = `
while [ -e running ]; do
  cp -r --reflink=auto base work$1
  cat work$1/* > /dev/null
  for i in 1 2 3 4 5; do echo changed >> work$1/file$i; done
  dd if=/dev/zero of=work$1/disk bs=4k seek=7 count=1 conv=notrunc status=none
  cat work$1/* > /dev/null
  mv work$1 old$1
  rm -rf old$1
  echo round
done
`;

interface Sample {
  readonly seconds: number;
  readonly rounds: number;
  readonly nodes: number;
  readonly mappings: number;
  readonly packs: number;
  readonly indexed: number;
  readonly backing: number;
  readonly descriptors: number;
  readonly serverBytes: number;
  readonly supervisorBytes: number;
}

function privateBytes(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Private_Dirty:\s+(\d+)/m.exec(text)?.[1]) * 1024;
}

function sample(status: Status, supervisor: number, seconds: number, rounds: number): Sample {
  return {
    seconds,
    rounds,
    nodes: status.nodes.count,
    mappings: status.mappings?.count ?? 0,
    packs: status.composed?.packs ?? 0,
    indexed: status.composed?.indexed ?? 0,
    backing: status.backing.count,
    descriptors: readdirSync(`/proc/${status.pid}/fd`).length,
    serverBytes: privateBytes(status.pid),
    supervisorBytes: privateBytes(supervisor),
  };
}

function row(values: readonly (string | number)[]): string {
  return `| ${values.join(' | ')} |`;
}

function table(samples: readonly Sample[]): string {
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const heads = [
    's',
    'rounds',
    'nodes',
    'mappings',
    'packs',
    'extents',
    'backing',
    'fds',
    'server MiB',
    'supervisor MiB',
  ];
  const lines = samples.map((s) =>
    row([
      Math.round(s.seconds),
      s.rounds,
      s.nodes,
      s.mappings,
      s.packs,
      s.indexed,
      s.backing,
      s.descriptors,
      mib(s.serverBytes),
      mib(s.supervisorBytes),
    ]),
  );
  return [row(heads), row(heads.map(() => '---')), ...lines].join('\n');
}

test(`nothing grows without end over ${SECONDS} s of churn`, async (t) => {
  await onFilesystem('btrfs', 2000, async (filesystem) => {
    const source = join(filesystem.dir, 'source');
    const base = join(source, 'base');
    mkdirSync(base, { recursive: true });
    for (let i = 0; i < FILES; i++) writeData(join(base, `file${i}`), 20_000 + i * 1000, false);
    writeData(join(base, 'disk'), 8 << 20, false);
    const server = await mountSharedext(source, join(filesystem.folder, 'mounted'), 'settle=0', SECONDS + 300);
    const at = (name: string): string => join(server.mountpoint, name);
    execFileSync('touch', [at('running')]);
    const [before] = [sample(await server.status(), server.supervisor, 0, 0)];
    let rounds = 0;
    const workers = Array.from({ length: WORKERS }, (_, worker) => {
      const child = spawn('sh', ['-c', CHURN, 'sh', String(worker)], {
        cwd: server.mountpoint,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      child.stdout.on('data', (text) => {
        rounds += String(text).split('round').length - 1;
      });
      return once(child, 'exit');
    });
    const start = performance.now();
    const samples: Sample[] = [before];
    for (let i = 1; i <= SAMPLES; i++) {
      await pause((SECONDS * 1000) / SAMPLES);
      samples.push(sample(await server.status(), server.supervisor, (performance.now() - start) / 1000, rounds));
    }
    execFileSync('rm', [at('running')]);
    assert.deepEqual(
      (await Promise.all(workers)).map(([code]) => code as unknown),
      workers.map(() => 0),
    );

    // The trees are gone: so are their clones and packs, and what the kernel forgets.
    execFileSync('rm', ['-rf', at('base')]);
    execFileSync('sync', ['-f', source]);
    let last = await server.status();
    for (
      let i = 0;
      i < 400 && (last.nodes.count > 1 || last.mappings?.count !== 0 || last.composed?.packs !== 0);
      i++
    ) {
      execFileSync('sh', ['-c', 'echo 2 > /proc/sys/vm/drop_caches']);
      await pause(100);
      last = await server.status();
    }
    samples.push(sample(last, server.supervisor, (performance.now() - start) / 1000, rounds));
    t.diagnostic(`\n${table(samples)}`);
    assert.ok(rounds > WORKERS);
    assert.equal(last.nodes.count, 1, 'no node is left');
    assert.equal(last.mappings?.count, 0, 'no mapping is left');
    assert.equal(last.composed?.packs, 0, 'no pack is left');
    assert.equal(last.backing.count, 0, 'no backing file is left');
    const middle = samples[SAMPLES >> 1];
    const end = samples[SAMPLES];
    assert.ok(middle !== undefined && end !== undefined);
    assert.ok(end.serverBytes < middle.serverBytes + SLACK_BYTES, 'the server grows');
    assert.ok(end.mappings <= (WORKERS + 1) * (FILES + 1) * 2, 'mappings are dropped while it goes on');
    assert.ok(
      end.descriptors < before.descriptors + 700,
      'descriptors are closed: what stays open is the cache of directories',
    );
    await server.umount();
  });
});
