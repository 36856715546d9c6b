/**
 * What mounts with `sync` and `dirsync` promise: a power cut right after a call, which is a copy of the image, leaves what the call
 * changed. The control is the same mount without the word, of which a cut leaves less.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { mountSharedext } from '../support/server.ts';
import { cutPower, mountImage } from './image.ts';

const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND, O_CREAT, O_EXCL, O_TRUNC } = posix;

function using(name: string, flags: number, use: (fd: number) => void): void {
  const fd = posix.open(name, flags);
  use(fd);
  posix.close(fd);
}

/** What is there before; a reader keeps `read` open. */
function layOut(folder: string): void {
  for (const name of [
    'written',
    'read',
    'appended',
    'cut',
    'emptied',
    'source',
    'copy',
    'mode',
    'old',
    'gone',
    'diverged',
  ]) {
    writeFileSync(join(folder, name), 'before'.repeat(20_000));
  }
  mkdirSync(join(folder, 'from'));
  mkdirSync(join(folder, 'to'));
  mkdirSync(join(folder, 'emptydir'));
  writeFileSync(join(folder, 'from', 'moved'), 'moved');
  execFileSync('cp', ['--reflink=always', join(folder, 'source'), join(folder, 'clone')]);
  execFileSync('sync', ['-f', folder]);
}

/** Changes of files, with what tells afterwards that each is there. None syncs anything itself. */
const changesOfFiles: Readonly<
  Record<
    string,
    readonly [act: (at: (name: string) => string) => void, holds: (at: (name: string) => string) => boolean]
  >
> = {
  'a write': [
    (at) => using(at('written'), O_WRONLY, (fd) => posix.write(fd, 'after', 0)),
    (at) => readFileSync(at('written'), 'latin1').startsWith('after'),
  ],
  'a write to a file that is being read': [
    (at) => using(at('read'), O_RDONLY, () => using(at('read'), O_RDWR, (fd) => posix.write(fd, 'after', 0))),
    (at) => readFileSync(at('read'), 'latin1').startsWith('after'),
  ],
  'a write to a clone': [
    (at) => using(at('clone'), O_RDONLY, () => using(at('clone'), O_WRONLY, (fd) => posix.write(fd, 'after', 0))),
    (at) => readFileSync(at('clone'), 'latin1').startsWith('after'),
  ],
  'an append': [
    (at) => using(at('appended'), O_WRONLY | O_APPEND, (fd) => posix.write(fd, 'after')),
    (at) => readFileSync(at('appended'), 'latin1').endsWith('after'),
  ],
  'a truncation': [(at) => posix.truncate(at('cut'), 10), (at) => readFileSync(at('cut')).length === 10],
  'an open that empties': [
    (at) => using(at('emptied'), O_WRONLY | O_TRUNC, () => {}),
    (at) => readFileSync(at('emptied')).length === 0,
  ],
  'a change of mode': [(at) => posix.chmod(at('mode'), 0o611), (at) => (posix.stat(at('mode')).mode & 0o777) === 0o611],
  'a copy': [
    (at) =>
      using(at('source'), O_RDONLY, (from) =>
        using(at('copy'), O_RDWR, (to) => posix.copyFileRange(from, 6, to, 0, 12)),
      ),
    (at) => readFileSync(at('copy'), 'latin1').length === 120_000,
  ],
  'an allocation': [
    (at) => using(at('diverged'), O_RDWR, (fd) => posix.fallocate(fd, 0, 0, 300_000)),
    (at) => posix.stat(at('diverged')).size === 300_000,
  ],
};

const changesOfNames: typeof changesOfFiles = {
  'a file': [(at) => using(at('created'), O_WRONLY | O_CREAT | O_EXCL, () => {}), (at) => existsSync(at('created'))],
  'a folder': [(at) => posix.mkdir(at('made')), (at) => existsSync(at('made'))],
  'a fifo': [(at) => posix.mknod(at('fifo'), posix.S_IFIFO | 0o600), (at) => existsSync(at('fifo'))],
  'a link': [
    (at) => posix.symlink('target', at('symlink')),
    (at) => posix.readlink(at('symlink')).toString() === 'target',
  ],
  'a second name': [(at) => posix.link(at('source'), at('second')), (at) => posix.stat(at('source')).nlink === 2],
  'a rename': [(at) => posix.rename(at('old'), at('new')), (at) => existsSync(at('new')) && !existsSync(at('old'))],
  'a move': [
    (at) => posix.rename(at('from/moved'), at('to/moved')),
    (at) => existsSync(at('to/moved')) && !existsSync(at('from/moved')),
  ],
  'a removal': [(at) => posix.unlink(at('gone')), (at) => !existsSync(at('gone'))],
  'a removal of a folder': [(at) => posix.rmdir(at('emptydir')), (at) => !existsSync(at('emptydir'))],
};

interface Way {
  readonly option: string;
  readonly changes: typeof changesOfFiles;
}

/** Which changes a cut right after the last of them leaves. */
async function surviving(kind: 'btrfs' | 'xfs', { option, changes }: Way): Promise<string[]> {
  const host = makeLoopFilesystem('btrfs', { sizeMb: 2000 });
  try {
    const { image, source, mountpoint } = mountImage(host, kind);
    layOut(source);
    const server = await mountSharedext(source, mountpoint, `settle=0,composed=64k${option}`);
    for (const [act] of Object.values(changes)) act((name) => join(mountpoint, name));
    const cut = cutPower(host, image, 'cut');
    await server.umount();
    execFileSync('umount', [source]);
    execFileSync('mount', ['-o', 'loop', cut, source]);
    const left = Object.entries(changes).filter(([, [, holds]]) => {
      try {
        return holds((name) => join(source, name));
      } catch {
        return false;
      }
    });
    execFileSync('umount', [source]);
    return left.map(([what]) => what);
  } finally {
    host.dispose();
  }
}

for (const kind of ['btrfs', 'xfs'] as const) {
  for (const [option, changes] of [
    ['sync', { ...changesOfNames, ...changesOfFiles }],
    ['dirsync', changesOfNames],
  ] as const) {
    test(`on ${kind} mounted with ${option}, what a call has changed is there after a power cut`, async () => {
      const control = await surviving(kind, { option: '', changes });
      assert.ok(control.length < Object.keys(changes).length, 'without the word all of it survives: nothing is tested');
      assert.deepEqual(await surviving(kind, { option: `,${option}`, changes }), Object.keys(changes));
      await assertNothingLeft();
    });
  }
}
