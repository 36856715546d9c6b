/**
 * Access times move on a mount as they do on a bind mount of the source with the same options, which is the control: by reads on each
 * route that reads the file itself, and by listings.
 */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mounts } from '../../src/sys/mounts.ts';
import { tick } from '../conformance/case.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import type { FilesystemKind } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { onFilesystem, run } from './clones.ts';

after(() => assertNothingLeft());

/** What the source's own mount is told, and what its copies are. */
const OPTIONS: readonly (readonly [source: string, copy: string])[] = [
  ['relatime', ''],
  ['relatime', 'noatime'],
  ['relatime', 'nodiratime'],
  ['relatime', 'strictatime'],
  ['strictatime', ''],
  ['noatime', ''],
  ['noatime,nodiratime', 'relatime,diratime'],
];

/** An hour ago, so that the first access moves it even by `relatime`, which leaves it at the second. */
const PAST = BigInt(Date.now() - 3_600_000) * 1_000_000n;

const BLOCK = 4096;
const BLOCKS = 1024;

/** Whether two accesses move the access time. */
function moves(name: string, access: (fd: number) => unknown): readonly boolean[] {
  posix.setTimes(name, PAST, PAST);
  return [1, 2].map(() => {
    tick();
    const before = posix.stat(name).atimeNs;
    const fd = posix.open(name, posix.O_RDONLY);
    access(fd);
    posix.close(fd);
    return posix.stat(name).atimeNs !== before;
  });
}

function readBlock(fd: number): void {
  assert.equal(posix.read(fd, BLOCK, 8 * BLOCK).length, BLOCK);
}

function mapBlock(fd: number): void {
  posix.unmap(posix.map(fd, BLOCK, posix.PROT_READ));
}

function shownOf(mountpoint: string): readonly string[] {
  const words =
    mounts()
      .findLast((entry) => entry.mountpoint === mountpoint)
      ?.options.split(',') ?? [];
  return words.filter((word) => word.includes('atime'));
}

interface Observed {
  readonly shown: readonly string[];
  readonly read: readonly boolean[];
  readonly mapped: readonly boolean[];
  readonly listed: readonly boolean[];
}

function observe(folder: string): Observed {
  return {
    shown: shownOf(folder),
    read: moves(join(folder, 'own'), readBlock),
    mapped: moves(join(folder, 'own'), mapBlock),
    listed: moves(join(folder, 'folder'), (fd) => posix.readAllEntries(fd)),
  };
}

/** A file of which nothing is shared, and one that has diverged from another. */
function layOut(folder: string): void {
  writeFileSync(join(folder, 'own'), randomBytes(BLOCKS * BLOCK));
  writeFileSync(join(folder, 'original'), randomBytes(BLOCKS * BLOCK));
  const fd = posix.open(join(folder, 'original'), posix.O_RDONLY);
  posix.fsync(fd);
  posix.close(fd);
  posix.reflink(join(folder, 'original'), join(folder, 'diverged'));
  const diverged = posix.open(join(folder, 'diverged'), posix.O_RDWR);
  posix.write(diverged, randomBytes(BLOCK), 0);
  posix.fsync(diverged);
  posix.close(diverged);
  mkdirSync(join(folder, 'folder'));
}

async function compare(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, 400, async ({ dir, folder }) => {
    const source = join(dir, 'source');
    mkdirSync(source);
    layOut(source);
    const [control, mountpoint, relayed] = ['control', 'mounted', 'relayed'].map((name) => join(folder, name));
    assert.ok(control && mountpoint && relayed);
    mkdirSync(control);
    for (const [own, words] of OPTIONS) {
      await run('mount', '-o', `remount,bind,${own}`, dir);
      await run('mount', '--bind', source, control);
      if (words !== '') await run('mount', '--options-mode', 'ignore', '-o', `remount,bind,${words}`, control);
      const what = `a source with ${own}, mounted with ${words === '' ? 'no word' : words}`;
      const expected = observe(control);
      await run('umount', control);
      const more = words === '' ? '' : `,${words}`;
      const server = await mountSharedext(source, mountpoint, `settle=0,composed=1m${more}`);
      try {
        assert.deepEqual(observe(mountpoint), expected, what);
        assert.deepEqual(moves(join(mountpoint, 'diverged'), readBlock), expected.read, `composed, ${what}`);
        const { composed } = await server.status();
        assert.ok(composed !== null && composed.mappingBytes > 0, 'it was read from where it is shared');
      } finally {
        await server.umount();
      }
      const relaying = await mountSharedext(source, relayed, `nosharedext,backing=0${more}`);
      try {
        assert.deepEqual(moves(join(relayed, 'own'), readBlock), expected.read, `relayed, ${what}`);
      } finally {
        await relaying.umount();
      }
    }
  });
}

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`access times move as on a bind mount of ${kind} with the same options`, () => compare(kind));
}
