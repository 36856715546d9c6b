/**
 * What was acknowledged as durable survives a power cut: while files are changed through a mount, the image that the source lies
 * on is copied at random moments, by a reflink, which is one moment for the whole image. Each copy is mounted afterwards,
 * as after a cut, and has everything that had been acknowledged before the copy was begun, or something later.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Random } from '../mount/random.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { cutPower, mountImage } from './image.ts';
import { type Acknowledged, BLOCK, LARGE_BLOCKS, SMALL_BLOCKS, SMALL_FILES, stamped, versionOf } from './stamps.ts';

const WRITER = fileURLToPath(new URL('./writer-child.js', import.meta.url));
const CUTS = 5;
const SEED = 31;

/** By file and block: the version that must survive at least. */
type Durable = Map<string, Map<number, number>>;

function remember(durable: Durable, { name, blocks, version }: Acknowledged): void {
  const versions = durable.get(name) ?? new Map<number, number>();
  for (const block of blocks) versions.set(block, version);
  durable.set(name, versions);
}

function copyOf(durable: Durable): Durable {
  return new Map([...durable].map(([name, versions]) => [name, new Map(versions)]));
}

/** Files that share all their extents, and a large one of which a tenth is its own. */
function layOut(folder: string): void {
  const blocks = (count: number): Buffer =>
    Buffer.concat(Array.from({ length: count }, (_, block) => stamped('', block, 0)));
  for (const [name, count] of [
    ['small', SMALL_BLOCKS],
    ['large', LARGE_BLOCKS],
  ] as const) {
    writeFileSync(join(folder, `${name}-original`), blocks(count));
  }
  execFileSync('sync', ['-f', folder]);
  for (let i = 0; i < SMALL_FILES; i++) posix.reflink(join(folder, 'small-original'), join(folder, `small${i}`));
  posix.reflink(join(folder, 'large-original'), join(folder, 'large'));
  execFileSync('sync', ['-f', folder]);
}

function assertSurvived(folder: string, durable: Durable, latest: number): number {
  let checked = 0;
  for (const [name, versions] of durable) {
    const data = readFileSync(join(folder, name));
    for (const [block, version] of versions) {
      const found = versionOf(name, block, data.subarray(block * BLOCK, (block + 1) * BLOCK));
      assert.ok(found !== undefined, `${name}, block ${block}: nothing that was ever written there`);
      assert.ok(found >= version && found <= latest, `${name}, block ${block}: ${found}, acknowledged was ${version}`);
      checked++;
    }
    // What was never acknowledged is at least something that was written.
    for (let block = 0; block < data.length / BLOCK; block++) {
      const found = versionOf(name, block, data.subarray(block * BLOCK, (block + 1) * BLOCK));
      assert.ok(found !== undefined, `${name}, block ${block}: neither old nor new`);
    }
  }
  return checked;
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, what was acknowledged as durable is there after a power cut`, async (t) => {
    const host = makeLoopFilesystem('xfs', { sizeMb: 3000 });
    try {
      const { image, source, mountpoint } = mountImage(host, kind);
      layOut(source);
      const server = await mountSharedext(source, mountpoint, 'settle=0,composed=1m');
      const readers = ['small0', 'large'].map((name) => posix.open(join(mountpoint, name), posix.O_RDONLY));
      for (const reader of readers) posix.read(reader, BLOCK, 0);
      const writer = spawn(process.execPath, [WRITER, mountpoint, String(SEED)], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      const durable: Durable = new Map();
      let latest = 0;
      let rest = '';
      writer.stdout.setEncoding('utf8').on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const done: Acknowledged = JSON.parse(line);
          latest = done.version;
          remember(durable, done);
        }
      });
      const random = new Random(SEED);
      const cuts: { readonly image: string; readonly durable: Durable }[] = [];
      for (let i = 0; i < CUTS; i++) {
        const steps = latest + 30 + random.below(60);
        while (latest < steps) {
          assert.equal(writer.exitCode, null, 'the writer failed');
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        const acknowledged = copyOf(durable);
        cuts.push({ image: cutPower(host, image, `cut${i}`), durable: acknowledged });
      }
      writer.stdin.end();
      await once(writer, 'close');
      for (const reader of readers) posix.close(reader);
      const { composed, broken } = await server.status();
      await server.umount();
      execFileSync('umount', [source]);
      let checked = 0;
      for (const cut of cuts) {
        execFileSync('mount', ['-o', 'loop', cut.image, source]);
        checked += assertSurvived(source, cut.durable, latest + 1);
        execFileSync('umount', [source]);
      }
      t.diagnostic(
        `${kind}: ${latest} steps, ${CUTS} cuts, ${checked} blocks had survived; ${broken} files left a mapping`,
      );
      assert.ok(checked > CUTS && composed !== null);
    } finally {
      host.dispose();
    }
    await assertNothingLeft();
  });
}
