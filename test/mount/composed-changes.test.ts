/** What happens to a file while it is open on the composed route: many writers, maps, changes around the mount, balance, errors. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canInject, startInjector } from '../support/injector.ts';
import type { FilesystemKind, LoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { dropPages, onFilesystem, run, settled, startWaiting, storeFiles, writeData } from './clones.ts';

const MIB = 1 << 20;
const BLOCK = 4096;
const BYTES = 16 * MIB;

/** A base of 16 MiB and diverged clones of it, on a mount: `disk0`, `disk1`, … differ from it in one block each. */
async function onDisks(
  kind: FilesystemKind,
  count: number,
  body: (server: MountedServer, source: string, filesystem: LoopFilesystem) => Promise<void>,
  options = 'settle=0',
  sizeMb = 512,
): Promise<void> {
  await onFilesystem(kind, sizeMb, async (filesystem) => {
    const source = join(filesystem.dir, 'tree');
    mkdirSync(source);
    writeData(join(source, 'base'), BYTES, false);
    for (let disk = 0; disk < count; disk++) {
      const name = join(source, `disk${disk}`);
      posix.reflink(join(source, 'base'), name);
      put(name, disk * BLOCK, `disk ${disk}`);
    }
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), options);
    await body(server, source, filesystem);
    await server.umount();
  });
}

/** Overwrites the start of a block, and waits until it is on disk. */
function put(file: string, offset: number, text: string): void {
  const fd = posix.open(file, posix.O_RDWR);
  posix.write(fd, text, offset);
  posix.fsync(fd);
  posix.close(fd);
}

function get(file: string, offset: number, length: number): string {
  const fd = posix.open(file, posix.O_RDONLY);
  const data = posix.read(fd, length, offset);
  posix.close(fd);
  return data.toString();
}

async function composed(server: MountedServer): Promise<number> {
  return (await server.status()).open.composed;
}

const BLOCKWRITER = `
import mmap, os, random, sys
path, worker, workers, steps, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
rnd = random.Random(worker)
fds = [os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)]
m = mmap.mmap(fds[0], blocks * 4096)
mine = {}
def expect(block, data):
    if block in mine and data != mine[block]:
        at = next(i for i in range(4096) if data[i] != mine[block][i])
        print(f"worker {worker}: block {block} differs at {at}: {data[:16]} for {mine[block][:16]}"); sys.exit(1)
for step in range(steps):
    block = rnd.randrange(blocks // workers) * workers + worker
    kind = rnd.randrange(5)
    if kind == 0: expect(block, os.pread(rnd.choice(fds), 4096, block * 4096))
    elif kind == 1: expect(block, m[block * 4096:(block + 1) * 4096])
    elif kind == 2:
        first = max(0, block - 20); data = os.pread(fds[1], 41 * 4096, first * 4096)
        for b in range(first, first + len(data) // 4096): 
            if b % workers == worker: expect(b, data[(b - first) * 4096:(b - first + 1) * 4096])
    else:
        new = (b"%d.%d.%d " % (worker, block, step)).ljust(4096, bytes([rnd.randrange(256)]))
        if kind == 3: os.pwrite(rnd.choice(fds), new, block * 4096)
        else: m[block * 4096:(block + 1) * 4096] = new
        mine[block] = new
m.flush(); os.fsync(fds[0])
fresh = os.open(path, os.O_RDONLY)
for block, data in mine.items(): expect(block, os.pread(fresh, 4096, block * 4096))
`;

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, processes that read, write and map one file at the same time see what they wrote`, () =>
    onDisks(kind, 1, async (server, source) => {
      const file = join(server.mountpoint, 'disk0');
      const workers = 4;
      const args = [file, String(workers), '1500', String(BYTES / BLOCK)];
      const [path = '', ...rest] = args;
      await Promise.all(
        Array.from({ length: workers }, (_, worker) =>
          run('timeout', '100', 'python3', '-c', BLOCKWRITER, path, String(worker), ...rest),
        ),
      );
      assert.ok(((await server.requests())['WRITE'] ?? 0) > 1000, 'the file was not composed');
      await run('cmp', file, join(source, 'disk0'));
    }));

  test(`on ${kind}, several writers append to one file, and nothing is lost`, () =>
    onDisks(kind, 1, async (server, source) => {
      const file = join(server.mountpoint, 'disk0');
      const writer = `
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for i in range(200): assert os.write(fd, b"%s %03d\\n" % (sys.argv[2].encode(), i)) == 6`;
      const names = ['a', 'b', 'c', 'd'];
      await Promise.all(names.map((name) => run('timeout', '100', 'python3', '-c', writer, file, name)));
      const tail = get(join(source, 'disk0'), BYTES, 200_000);
      const lines = tail.trimEnd().split('\n');
      assert.equal(lines.length, 800);
      for (const name of names) {
        const own = lines.filter((line) => line.startsWith(name));
        assert.deepEqual(
          own,
          Array.from({ length: 200 }, (_, i) => `${name} ${String(i).padStart(3, '0')}`),
        );
      }
    }));

  test(`on ${kind}, a change around the mount shows at the next open, and an open file sees one state or the other`, () =>
    onDisks(kind, 1, async (server, source) => {
      const file = join(server.mountpoint, 'disk0');
      const fd = posix.open(file, posix.O_RDONLY);
      const before = posix.read(fd, BLOCK, 4 * MIB);
      assert.equal(await composed(server), 1);
      put(join(source, 'disk0'), 4 * MIB, 'around');
      assert.equal(get(file, 4 * MIB, 6), 'around');
      const now = posix.read(fd, BLOCK, 4 * MIB);
      assert.ok(now.equals(before) || now.subarray(0, 6).toString() === 'around');
      assert.equal((await server.status()).composed?.resets, 1);

      // It shrinks under the open file: the end moves, and no byte comes from anywhere else.
      posix.truncate(join(source, 'disk0'), 4 * MIB + 3);
      await pause(100);
      assert.equal(posix.read(fd, BLOCK, 4 * MIB).toString(), 'aro');
      assert.equal(posix.read(fd, BLOCK, 8 * MIB).length, 0);
      posix.close(fd);
    }));

  test(`on ${kind}, a file takes every route in its life, with the same bytes`, () =>
    onDisks(kind, 0, async (server, source) => {
      const file = join(server.mountpoint, 'life');
      const expected = join(source, 'base');
      const openStatus = async () => {
        const fd = posix.open(file, posix.O_RDONLY);
        posix.read(fd, BLOCK, 0);
        const { open } = await server.status();
        await run('cmp', file, expected);
        posix.close(fd);
        return open;
      };
      writeData(file, 0, false);
      await run('cp', '--reflink=never', expected, file);
      await run('sync', '-f', source);
      await settled();
      assert.equal((await openStatus()).own, 1);
      await run('cp', join(server.mountpoint, 'base'), file);
      await settled();
      assert.equal((await openStatus()).shared, 1);
      // Written with what was there: private now, and equal.
      const block = posix.open(expected, posix.O_RDONLY);
      const data = posix.read(block, BLOCK, 5 * BLOCK);
      posix.close(block);
      const writer = posix.open(file, posix.O_RDWR);
      assert.equal(await composed(server), 1);
      posix.write(writer, data, 5 * BLOCK);
      posix.fsync(writer);
      await run('cmp', file, expected);
      posix.close(writer);
      await settled();
      assert.equal((await openStatus()).composed, 1);
      await run('cp', '--reflink=never', expected, join(source, 'other'));
      posix.rename(join(server.mountpoint, 'other'), file);
      await run('sync', '-f', source);
      await settled();
      assert.equal((await openStatus()).own, 1);
    }));

  test(`on ${kind}, a full disk answers ENOSPC as it would without us, and what packs hold is given up first`, () =>
    onDisks(
      kind,
      2,
      async (server, source) => {
        const readers = ['disk0', 'disk1'].map((name) => posix.open(join(server.mountpoint, name), posix.O_RDWR));
        for (const fd of readers) for (let at = 0; at < BYTES; at += 128 * 1024) posix.read(fd, 128 * 1024, at);
        const filler = `
import errno, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
try:
    while True: os.write(fd, os.urandom(1 << 20))
except OSError as error: assert error.errno == errno.ENOSPC, error
os.close(fd)`;
        await run('timeout', '100', 'python3', '-c', filler, join(server.mountpoint, 'filler'));
        for (const [disk, fd] of readers.entries()) {
          const name = join(source, `disk${disk}`);
          for (let at = 0; at < BYTES; at += 200_000) {
            const data = posix.read(fd, 200_000, at);
            const bare = posix.open(name, posix.O_RDONLY);
            assert.ok(data.equals(posix.read(bare, 200_000, at)));
            posix.close(bare);
          }
          posix.close(fd);
        }
        posix.unlink(join(server.mountpoint, 'filler'));
      },
      'settle=0,floor=20m',
      350,
    ));
}

test('balance moves the extents of open and mapped files, and their bytes stay', () =>
  onDisks('btrfs', 3, async (server, source, filesystem) => {
    const files = [0, 1, 2].map((disk) => join(server.mountpoint, `disk${disk}`));
    const child = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ); m[:4096]
print("ready", flush=True); sys.stdin.read()
with open(sys.argv[2], "rb") as f: assert f.read() == m[:], "the map differs"`;
    const args = (disk: number) => ['-c', child, files[disk] ?? '', join(source, `disk${disk}`)];
    const mapped = await startWaiting('python3', args(0));
    const fds = files.map((file) => posix.open(file, posix.O_RDONLY));
    // Half of each is looked up before, the rest after.
    for (const fd of fds) for (let at = 0; at < BYTES / 2; at += 200_000) posix.read(fd, 200_000, at);
    await run('btrfs', 'balance', 'start', '-f', '--full-balance', filesystem.dir);
    writeData(join(source, 'reuse'), 64 * MIB, false);
    dropPages([...storeFiles(source), join(source, 'reuse')]);
    for (const [disk, file] of files.entries()) await run('cmp', file, join(source, `disk${disk}`));
    await mapped.end();
    for (const fd of fds) posix.close(fd);
    for (const [disk, file] of files.entries()) await run('cmp', file, join(source, `disk${disk}`));
  }));

test('an error of the disk reaches the reader of that range, and nobody else', { skip: !canInject }, () =>
  onDisks('xfs', 2, async (server) => {
    const one = posix.open(join(server.mountpoint, 'disk0'), posix.O_RDONLY);
    const other = posix.open(join(server.mountpoint, 'disk1'), posix.O_RDONLY);
    const before = posix.read(other, BLOCK, MIB);
    posix.read(one, BLOCK, MIB);
    const injector = await startInjector(server.pid, 'preadv2', ['EIO'], { times: 1 });
    assert.throws(() => posix.read(one, BLOCK, MIB), /EIO|errno 5/);
    assert.ok(posix.read(other, BLOCK, MIB).equals(before));
    assert.ok(posix.read(one, BLOCK, MIB).equals(before));
    assert.deepEqual(await injector.stop(), [1]);
    posix.close(one);
    posix.close(other);
  }),
);

test('an error in the middle of a read for a map is not the end of the file', { skip: !canInject }, () =>
  onDisks('xfs', 1, async (server, source) => {
    const bare = posix.open(join(source, 'disk0'), posix.O_RDWR);
    posix.fallocate(bare, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE, 0, BLOCK);
    posix.write(bare, 'its own', 8 * BLOCK);
    posix.fsync(bare);
    posix.close(bare);
    await settled();
    const child = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
print("ready", flush=True); sys.stdin.read()
with open(sys.argv[2], "rb") as f: assert f.read() == m[:], "the map differs"
assert os.fstat(fd).st_size == len(m), "the size differs"`;
    const mapped = await startWaiting('python3', [
      '-c',
      child,
      join(server.mountpoint, 'disk0'),
      join(source, 'disk0'),
    ]);
    // The first piece of the first request is a hole, which takes no call. The kernel asks again, for less, when it failed.
    const injector = await startInjector(server.pid, 'preadv2', ['EIO'], { times: 1 });
    await mapped.end();
    assert.deepEqual(await injector.stop(), [1]);
  }),
);

test('four clones of a disk with an ext4 inside are mounted from the mount at once, written, and clean afterwards', () =>
  onFilesystem('btrfs', 1024, async (filesystem) => {
    const source = filesystem.dir;
    const image = join(source, 'image');
    await run('truncate', '-s', '96M', image);
    await run('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', image);
    const inner = join(filesystem.folder, 'inner');
    mkdirSync(inner);
    await run('mount', '-o', 'loop', image, inner);
    writeData(join(inner, 'data'), 24 * MIB, false);
    await run('umount', inner);
    for (let disk = 0; disk < 4; disk++) {
      posix.reflink(image, join(source, `disk${disk}`));
      put(join(source, `disk${disk}`), 0, `boot ${disk}`);
    }
    await settled();
    const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
    const points = [0, 1, 2, 3].map((disk) => `${inner}${disk}`);
    for (const [disk, point] of points.entries()) {
      mkdirSync(point);
      await run('mount', '-o', 'loop', join(server.mountpoint, `disk${disk}`), point);
    }
    assert.equal(await composed(server), 4);
    const work =
      'cd "$1" && cp data copy && sync && cmp data copy && rm data && for i in $(seq 200); do echo $i > f$i; done';
    await Promise.all(points.map((point) => run('sh', '-c', work, 'sh', point)));
    for (const point of points) await run('umount', point);
    for (const [disk] of points.entries()) {
      await run('e2fsck', '-fn', join(server.mountpoint, `disk${disk}`));
      await run('cmp', join(server.mountpoint, `disk${disk}`), join(source, `disk${disk}`));
    }
    const { composed: counts } = await server.status();
    assert.ok((counts?.mappingBytes ?? 0) > 4 * 20 * MIB, JSON.stringify(counts));
    await server.umount();
  }));
