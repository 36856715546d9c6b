/** What can't be proven equal, or isn't worth sharing, takes its own route and is counted with the reason. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { FilesystemKind } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem, settled, storeFiles, writeData } from './clones.ts';

const BYTES = 64 * 1024;

interface Refused {
  readonly reason: string;
  readonly kinds: readonly FilesystemKind[];
  /** Makes the file on the source. */
  readonly make: (file: string) => void;
  /** How it is opened through the mount, where that is not for reading. */
  readonly flags?: number;
  /** Makes it when the mount is there, and right before it is opened. */
  readonly late?: true;
}

const both = ['btrfs', 'xfs'] as const;

function makePair(file: string): void {
  writeData(`${file}.twin`, BYTES, false);
  posix.reflink(`${file}.twin`, file);
}

const refused: readonly Refused[] = [
  { reason: 'empty', kinds: both, make: (file) => writeFileSync(file, '') },
  { reason: 'unshared', kinds: both, make: (file) => writeData(file, BYTES, false) },
  {
    // Only a part of it is shared.
    reason: 'unshared',
    kinds: both,
    make(file) {
      makePair(file);
      const fd = posix.open(file, posix.O_WRONLY);
      posix.write(fd, Buffer.alloc(BYTES / 4, 'x'), BYTES / 2);
      posix.fsync(fd);
      posix.close(fd);
    },
  },
  {
    reason: 'inline',
    kinds: ['btrfs'],
    make(file) {
      writeData(file, 1000, false);
    },
  },
  {
    reason: 'nocow',
    kinds: ['btrfs'],
    make(file) {
      const nocow = `${file}.twin`;
      writeFileSync(nocow, '');
      execFileSync('chattr', ['+C', nocow]);
      writeFileSync(nocow, Buffer.alloc(BYTES, 'n'));
      writeFileSync(file, '');
      execFileSync('chattr', ['+C', file]);
      execFileSync('sync', [nocow]);
      const [from, to] = [posix.open(nocow, posix.O_RDONLY), posix.open(file, posix.O_WRONLY)];
      posix.reflinkDescriptor(from, to);
      posix.close(from);
      posix.close(to);
    },
  },
  {
    // A write that isn't on disk yet, over extents that are shared.
    reason: 'dirty',
    kinds: both,
    make(file) {
      makePair(file);
      const fd = posix.open(file, posix.O_WRONLY);
      posix.write(fd, 'dirty', 0);
      posix.close(fd);
    },
    late: true,
  },
  { reason: 'recent', kinds: both, make: makePair, late: true },
  { reason: 'writing', kinds: both, make: makePair, flags: posix.O_RDWR },
];

async function reasonsAfter(server: MountedServer, name: string, flags: number): Promise<Map<string, number>> {
  const before = (await server.status()).reasons;
  const fd = posix.open(join(server.mountpoint, name), flags);
  const content = posix.read(fd, BYTES, 0);
  assert.ok(content.equals(readFileSync(join(server.source, name))), `${name} shows other bytes`);
  posix.close(fd);
  const after = (await server.status()).reasons;
  const added = Object.entries(after).map(([reason, count]): [string, number] => [
    reason,
    count - (before[reason] ?? 0),
  ]);
  return new Map(added.filter(([, count]) => count > 0));
}

for (const kind of both) {
  test(`on ${kind}, what isn't shared takes its own route and is counted with its reason`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const cases = refused.filter(({ kinds }) => kinds.includes(kind));
      const nameOf = (index: number) => `file${index}`;
      for (const [index, one] of cases.entries()) if (!one.late) one.make(join(source, nameOf(index)));
      execFileSync('sync', ['-f', source]);
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      for (const [index, one] of cases.entries()) {
        if (one.late) one.make(join(source, nameOf(index)));
        // Old enough to be looked at, too young to have been written back.
        if (one.reason === 'dirty') await settled();
        const reasons = await reasonsAfter(server, nameOf(index), one.flags ?? posix.O_RDONLY);
        assert.deepEqual([...reasons], [[one.reason, 1]], `file ${index}`);
      }
      assert.deepEqual(storeFiles(source), []);
      await server.umount();
    }));
}

test('a file is shared only when its content has not changed for a while', () =>
  onFilesystem('xfs', 512, async (filesystem) => {
    const server = await mountSharedext(filesystem.dir, join(filesystem.folder, 'shared'), 'settle=1500');
    makePair(join(filesystem.dir, 'file'));
    await settled();
    assert.deepEqual([...(await reasonsAfter(server, 'file', posix.O_RDONLY))], [['recent', 1]]);
    await pause(1600);
    assert.deepEqual([...(await reasonsAfter(server, 'file', posix.O_RDONLY))], []);
    assert.equal(storeFiles(filesystem.dir).length, 1);
    await server.umount();
  }));

test('with nosharedext nothing is shared, no store is made, and every open is counted', () =>
  onFilesystem('btrfs', 512, async (filesystem) => {
    makePair(join(filesystem.dir, 'file'));
    await settled();
    const server = await mountSharedext(filesystem.dir, join(filesystem.folder, 'shared'), 'nosharedext');
    assert.deepEqual([...(await reasonsAfter(server, 'file', posix.O_RDONLY))], [['nosharedext', 1]]);
    assert.deepEqual(storeFiles(filesystem.dir), []);
    assert.equal((await server.status()).mappings, null);
    await server.umount();
  }));
