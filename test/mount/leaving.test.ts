/** What the users of a mount see when a file leaves the shared route, and which files are never on it. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause, until } from '../support/wait.ts';
import { onFilesystem, run, settled } from './clones.ts';

const SHARED = 20_000;

/** Two files of the same extents, `NAME` and `NAME.clone`, settled. */
async function makeClones(source: string, name: string, content: string | Buffer): Promise<void> {
  writeFileSync(join(source, name), content);
  await run('sync', '-f', source);
  posix.reflink(join(source, name), join(source, `${name}.clone`));
  await run('sync', '-f', source);
  await settled();
}

/** Opens a file for reading in a child and says on which route that was. */
async function routeOf(server: MountedServer, name: string): Promise<'shared' | 'own' | 'composed' | 'none'> {
  const fd = posix.open(join(server.mountpoint, name), posix.O_RDONLY);
  try {
    const { open } = await server.status();
    for (const route of ['shared', 'own', 'composed'] as const) if (open[route] > 0) return route;
    return 'none';
  } finally {
    posix.close(fd);
  }
}

/** A reader, a watcher, and then a writer of one file; prints what they see as JSON. */
const WATCHED = `
import ctypes, json, os, select, struct, sys
path = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
reader = os.open(path, os.O_RDONLY)
old = os.read(reader, 3)
watch = libc.inotify_init1(0o4000)
libc.inotify_add_watch(watch, path.encode(), 0xfff)
before = os.stat(path)
writer = os.open(path, os.O_WRONLY | os.O_APPEND)
masks = []
while select.select([watch], [], [], 20)[0]:
    events = os.read(watch, 4096)
    at = 0
    while at < len(events):
        _, mask, _, length = struct.unpack_from('iIII', events, at)
        masks.append(mask)
        at += 16 + length
    if 4 in masks: break
after = os.stat(path)
os.write(writer, b'appended')
link = '/proc/self/fd/%d' % reader
again = os.open(link, os.O_RDONLY)
try:
    os.open(link, os.O_RDWR); refused = None
except OSError as error:
    refused = error.errno
print(json.dumps({
    'masks': masks,
    'sameTimes': [before.st_ctime_ns == after.st_ctime_ns, before.st_mode == after.st_mode],
    'sizes': [os.fstat(reader).st_size, len(os.pread(reader, 1 << 20, 0)), os.fstat(again).st_size, len(os.pread(again, 1 << 20, 0))],
    'fresh': len(open(path, 'rb').read()),
    'refused': refused,
}))
`;

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, who is left behind is told, reads what he opened, and can open it again`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      await makeClones(source, 'file', Buffer.alloc(SHARED, 'old'));
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const path = join(server.mountpoint, 'file.clone');
      const seen: unknown = JSON.parse(await run('/usr/bin/python3', '-c', WATCHED, path));
      assert.deepEqual(seen, {
        masks: [4], // IN_ATTRIB
        sameTimes: [true, true],
        sizes: [SHARED, SHARED, SHARED, SHARED],
        fresh: SHARED + 'appended'.length,
        refused: 116, // ESTALE
      });
      const { broken } = await server.status();
      assert.equal(broken, 1);
      await server.umount();
    }));

  test(`on ${kind}, it is said once who is left behind, and of nobody else, whatever names there are`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const name = 'a\nsharedext: error: mount: \x1b[2Jforged';
      await makeClones(source, name, Buffer.alloc(SHARED, 'old'));
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      const elsewhere = join(filesystem.folder, name);
      writeFileSync(elsewhere, '');
      const holders = [join(server.mountpoint, name), join(source, name), elsewhere].map((path) => {
        const fd = posix.open(path, posix.O_RDONLY);
        const holder = spawn('sleep', ['600'], { stdio: ['ignore', fd, fd] });
        posix.close(fd);
        return holder;
      });
      try {
        for (let times = 0; times < 2; times++) {
          posix.close(posix.open(join(server.mountpoint, name), posix.O_WRONLY));
        }
        const said = `${server.mountpoint}/a\\x0asharedext: error: mount: \\x1b[2Jforged was opened for writing while it was shared: sleep (${holders[0]?.pid}) keep what they opened`;
        await until('it is said', () => server.stderr().includes(said));
        assert.equal(server.stderr().split('\n').length, 2, server.stderr());
      } finally {
        for (const holder of holders) holder.kill();
        await Promise.all(holders.map((holder) => holder.exitCode ?? holder.signalCode ?? once(holder, 'exit')));
      }
      await server.umount();
    }));

  test(`on ${kind}, what happened to one clone doesn't happen to the next`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      await makeClones(source, 'file', Buffer.alloc(SHARED, 'text'));
      posix.reflink(join(source, 'file'), join(source, 'third'));
      await makeClones(source, 'program', Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(SHARED, 'code')]));
      posix.reflink(join(source, 'program'), join(source, 'another'));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0');
      for (const [name, other, then] of [
        ['file.clone', 'third', 'own'],
        ['program.clone', 'another', 'shared'],
      ] as const) {
        assert.equal(await routeOf(server, name), 'shared');
        const reader = posix.open(join(server.mountpoint, name), posix.O_RDONLY);
        posix.close(posix.open(join(server.mountpoint, name), posix.O_WRONLY));
        posix.close(reader);
        assert.equal(await routeOf(server, name), 'own', `${name} was fought for`);
        assert.equal(await routeOf(server, other), then);
      }
      await server.umount();
    }));

  test(`on ${kind}, databases, disk images, logs and named files are not on the shared route of a writable mount`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      const padding = Buffer.alloc(SHARED, 'x');
      const contents: Record<string, Buffer> = {
        sqlite: Buffer.concat([Buffer.from('SQLite format 3\0'), padding]),
        gdbm: Buffer.concat([Buffer.from([0xcf, 0x9a, 0x57, 0x13]), padding]),
        qcow: Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), padding]),
        lmdb: Buffer.concat([Buffer.alloc(16), Buffer.from([0xde, 0xc0, 0xef, 0xbe]), padding]),
        access_log: padding,
        'told.dat': padding,
        'plain.dat': Buffer.alloc(SHARED, 'y'),
      };
      for (const [name, content] of Object.entries(contents)) await makeClones(source, name, content);
      posix.reflink(join(source, 'access_log'), join(source, 'other.log'));
      await settled();
      const server = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0,live=told.*:nothing');
      for (const name of ['sqlite', 'gdbm', 'qcow', 'lmdb', 'access_log', 'other.log', 'told.dat', 'told.dat.clone']) {
        assert.equal(await routeOf(server, name), 'own', name);
        assert.equal(await routeOf(server, name), 'own', `${name}, once more`);
      }
      assert.equal(await routeOf(server, 'plain.dat'), 'shared');
      const { reasons, mappings } = await server.status();
      assert.ok((reasons['live'] ?? 0) >= 8, JSON.stringify(reasons));
      assert.equal(mappings?.count, 1, 'no clone is kept of what is not shared');
      await server.umount();
      const readOnly = await mountSharedext(source, join(filesystem.folder, 'shared'), 'settle=0,ro');
      assert.equal(await routeOf(readOnly, 'sqlite.clone'), 'shared', 'nobody can write to it');
      await readOnly.umount();
    }));

  test(`on ${kind}, share= bounds what is shared`, () =>
    onFilesystem(kind, 512, async (filesystem) => {
      const source = filesystem.dir;
      await makeClones(source, 'text', Buffer.alloc(SHARED, 'text'));
      await makeClones(source, 'library', Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(SHARED, 'code')]));
      await makeClones(source, 'script', Buffer.alloc(SHARED, '#!/bin/sh\n'));
      chmodSync(join(source, 'script'), 0o755);
      await makeClones(source, 'fixed', Buffer.alloc(SHARED, 'fixed'));
      await run('chattr', '+i', join(source, 'fixed'));
      await pause(100);
      const expected = {
        text: { text: 'own', library: 'shared', script: 'shared', fixed: 'own' },
        readonly: { text: 'own', library: 'own', script: 'own', fixed: 'shared' },
        none: { text: 'own', library: 'own', script: 'own', fixed: 'own' },
        all: { text: 'shared', library: 'shared', script: 'shared', fixed: 'shared' },
      } as const;
      try {
        for (const [rule, routes] of Object.entries(expected)) {
          const server = await mountSharedext(source, join(filesystem.folder, 'shared'), `settle=0,share=${rule}`);
          for (const [name, route] of Object.entries(routes)) {
            assert.equal(await routeOf(server, name), route, `${name} with share=${rule}`);
            assert.ok(readFileSync(join(server.mountpoint, name)).length >= SHARED);
          }
          await server.umount();
        }
      } finally {
        if (existsSync(join(source, 'fixed'))) await run('chattr', '-i', join(source, 'fixed'));
      }
    }));
}
