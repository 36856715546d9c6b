/** The tests' own tools, tried on every kind of filesystem. */

import assert from 'node:assert/strict';
import { existsSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { alice, asUser, carol, OtherProcess, root, stopUsers } from './asuser.ts';
import { assertNothingLeft, newSince, takeStock } from './leaks.ts';
import {
  dropCaches,
  type FilesystemKind,
  type LoopFilesystem,
  makeLoopFilesystem,
  mountAgain,
  remount,
  sectorsRead,
} from './loopfs.ts';
import * as posix from './posix.ts';

after(async () => {
  await stopUsers();
  await assertNothingLeft();
});

function withFilesystem(kind: FilesystemKind, use: (filesystem: LoopFilesystem) => void): void {
  const filesystem = makeLoopFilesystem(kind);
  try {
    use(filesystem);
  } finally {
    filesystem.dispose();
  }
}

const magics: readonly (readonly [FilesystemKind, number, number])[] = [
  ['btrfs', 0x9123683e, 1],
  ['btrfs-zstd', 0x9123683e, 1],
  ['btrfs-raid1', 0x9123683e, 2],
  ['btrfs-nodatacow', 0x9123683e, 1],
  ['xfs', 0x58465342, 1],
  ['xfs-1k', 0x58465342, 1],
  ['ext4', 0xef53, 1],
  ['tmpfs', 0x01021994, 0],
];

for (const [kind, magic, devices] of magics) {
  test(`a ${kind} filesystem is made, is of its type, and leaves nothing`, async () => {
    const before = takeStock();
    withFilesystem(kind, ({ dir, devices: made, folder }) => {
      assert.equal(statfsSync(dir).type, magic);
      assert.equal(made.length, devices);
      for (const device of made) {
        assert.equal(readFileSync(`/sys/block/${basename(device)}/loop/dio`, 'utf8').trim(), '1');
      }
      assert.equal(newSince(before).mounts.length, 1);
      assert.deepEqual(newSince(before).folders, [basename(folder)]);
      writeFileSync(join(dir, 'file'), 'content');
    });
    await assertNothingLeft(before);
  });
}

for (const kind of ['btrfs', 'xfs', 'xfs-1k'] as const) {
  test(`reading a dropped file on ${kind} costs sectors once, and pages of its own although it is a clone`, () => {
    withFilesystem(kind, ({ dir, devices: [device = ''] }) => {
      const first = join(dir, 'first');
      const clone = join(dir, 'clone');
      writeFileSync(first, Buffer.alloc(1 << 20, 'x'));
      posix.reflink(first, clone);
      dropCaches();
      assert.equal(posix.residentPages(first), 0);
      const before = sectorsRead(device);
      readFileSync(first);
      const cold = sectorsRead(device) - before;
      assert.ok(cold >= 2048, `${cold} sectors`);
      assert.equal(posix.residentPages(first), 256);
      assert.equal(posix.residentPages(clone), 0);
      readFileSync(first);
      assert.equal(sectorsRead(device) - before, cold);
      posix.dropPages(first);
      assert.equal(posix.residentPages(first), 0);
    });
  });
}

test('remount changes an option, and mountAgain keeps the content and drops the cache', () => {
  withFilesystem('btrfs', (filesystem) => {
    const file = join(filesystem.dir, 'file');
    writeFileSync(file, Buffer.alloc(8192));
    remount(filesystem, 'ro');
    assert.throws(() => writeFileSync(file, 'no'), { code: 'EROFS' });
    remount(filesystem, 'rw');
    mountAgain(filesystem);
    assert.equal(posix.residentPages(file), 0);
    assert.equal(readFileSync(file).length, 8192);
  });
});

test('dispose also removes mounts that were left below the folder, and open files only delay it', () => {
  const filesystem = makeLoopFilesystem('xfs');
  posix.mkdir(join(filesystem.dir, 'inner'));
  const fd = posix.open(join(filesystem.dir, 'busy'), posix.O_CREAT | posix.O_RDWR);
  try {
    filesystem.dispose();
  } finally {
    posix.close(fd);
  }
  assert.equal(existsSync(filesystem.folder), false);
  filesystem.dispose();
});

test('a snapshot of a subvolume shares nothing in memory and has a device number of its own', () => {
  withFilesystem('btrfs', ({ dir }) => {
    posix.makeSubvolume(join(dir, 'one'));
    writeFileSync(join(dir, 'one', 'file'), Buffer.alloc(65536, 'y'));
    posix.snapshot(join(dir, 'one'), join(dir, 'two'), { readOnly: true });
    const [one, two] = [posix.stat(join(dir, 'one', 'file')), posix.stat(join(dir, 'two', 'file'))];
    assert.equal(one.ino, two.ino);
    assert.notEqual(one.device, two.device);
    assert.notEqual(one.subvolume, two.subvolume);
    assert.throws(() => writeFileSync(join(dir, 'two', 'file'), 'no'), { code: 'EROFS' });
  });
});

test('another process has the ids it was given, keeps its descriptors, and reports errors by name', async () => {
  const filesystem = makeLoopFilesystem('tmpfs');
  try {
    const file = join(filesystem.dir, 'file');
    await asUser(root).call('writeFile', file, 'secret', 0o640);
    await asUser(root).call('chown', file, 0, 61001);
    const refused = asUser(alice).call('open', join(filesystem.dir, 'new'), posix.O_CREAT | posix.O_WRONLY);
    await assert.rejects(refused, { code: 'EACCES' });
    for (const user of [alice, carol]) {
      const fd = await asUser(user).call('open', file, posix.O_RDONLY);
      assert.equal((await asUser(user).call('read', fd, 100)).toString(), 'secret');
      assert.deepEqual(await asUser(user).call('descriptorsBelow', filesystem.dir), [fd]);
      await asUser(user).call('close', fd);
    }
    const id = await asUser(carol).call('exec', 'id', '-G');
    assert.equal(id.stdout.trim(), '61003 61001');
  } finally {
    filesystem.dispose();
  }
});

test('a process that is stopped while it waits fails its call and is gone', async () => {
  const filesystem = makeLoopFilesystem('tmpfs');
  const fd = posix.open(join(filesystem.dir, 'file'), posix.O_CREAT | posix.O_RDWR);
  const other = new OtherProcess(root);
  try {
    posix.flock(fd, posix.LOCK_EX);
    const theirs = await other.call('open', join(filesystem.dir, 'file'), posix.O_RDWR);
    const waiting = other.call('flock', theirs, posix.LOCK_EX).catch((error: Error) => error.message);
    await other.stop();
    assert.match(String(await waiting), /ended: SIGKILL/);
    assert.deepEqual(await other.ended, { status: null, signal: 'SIGKILL' });
  } finally {
    posix.close(fd);
    filesystem.dispose();
  }
});
