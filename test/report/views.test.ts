/** Reports through mounts that show other folders' files: overlays, and mounts of sharedext. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { overlayView, Views } from '../../src/report/views.ts';
import { Random } from '../mount/random.ts';
import { assertNothingLeft } from '../support/leaks.ts';
import { makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { PAGE, steady } from './layout.ts';
import { PROGRAM, report } from './reports.ts';

const MIB = 1 << 20;

function sharedext(...words: readonly string[]): void {
  execFileSync(process.execPath, [PROGRAM, ...words], { stdio: 'pipe', timeout: 60_000 });
}

function overlay(folder: string, name: string, lower: readonly string[], options: string): string {
  const [upper, work, merged] = ['upper', 'work', 'merged'].map((kind) => join(folder, `${name}-${kind}`));
  assert.ok(upper !== undefined && work !== undefined && merged !== undefined);
  for (const dir of [upper, work, merged]) mkdirSync(dir);
  const data = `lowerdir=${lower.join(':')},upperdir=${upper},workdir=${work}${options}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', data, merged], { cwd: folder });
  return merged;
}

test('two overlays over one lower layer hold its pages once, and copied-up files as clones', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const { dir } = filesystem;
    const lower = [join(dir, 'lower, with:colon'), join(dir, 'below')];
    const random = new Random(6);
    for (const layer of lower) mkdirSync(join(layer, 'sub'), { recursive: true });
    writeFileSync(join(lower[0] ?? '', 'kept'), random.bytes(MIB));
    writeFileSync(join(lower[0] ?? '', 'changed'), random.bytes(MIB));
    writeFileSync(join(lower[1] ?? '', 'kept'), random.bytes(2 * MIB));
    writeFileSync(join(lower[1] ?? '', 'sub/deep'), random.bytes(MIB));
    const escaped = lower.map((layer) => layer.replace(/[,:]/g, (one) => `\\${one}`));
    const merged = ['one', 'two'].map((name) => overlay(dir, name, escaped, ''));
    // Copying up makes a clone where the filesystem can.
    for (const one of merged) posix.chmod(join(one, 'changed'), 0o600);
    execFileSync('sync', ['-f', dir]);
    for (const one of merged) for (const name of ['kept', 'changed', 'sub/deep']) readFileSync(join(one, name));
    const real = [
      join(lower[0] ?? '', 'kept'),
      join(lower[1] ?? '', 'sub/deep'),
      join(dir, 'one-upper/changed'),
      join(dir, 'two-upper/changed'),
    ];
    const { result, pages } = steady(real, () => report(...merged));
    const held = pages.map((set) => set.size * PAGE);
    assert.equal(
      result.bytes.cached,
      held.reduce((sum, bytes) => sum + bytes, 0),
    );
    assert.ok(result.bytes.duplicate > 0 && result.bytes.duplicate <= MIB);
    assert.deepEqual([result.notes.layerless, result.bytes.unidentified, result.notes.links], [0, 0, 2]);
    assert.deepEqual(
      result.mounts.map(({ type, unreachable, folders }) => [type, unreachable, folders.length]),
      [
        ['overlay', null, 3],
        ['overlay', null, 3],
      ],
    );
    assert.ok(result.groups[0]?.paths.every((path) => path.endsWith('merged/changed')));
    const file = steady(real, () => report(join(merged[0] ?? '', 'sub/deep')));
    assert.equal(file.result.bytes.cached, (file.pages[1]?.size ?? 0) * PAGE);
    // All of it at once, layers and overlays: every file counts once.
    const every = [...real, join(lower[0] ?? '', 'changed'), join(lower[1] ?? '', 'kept')];
    const all = steady(every, () => report(dir));
    assert.equal(
      all.result.bytes.cached,
      all.pages.reduce((sum, { size }) => sum + size * PAGE, 0),
    );
  } finally {
    filesystem.dispose();
  }
});

test('where a layer is out of reach, pages of an overlay count, and are not identified', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const { dir } = filesystem;
    mkdirSync(join(dir, 'lower'));
    const path = join(dir, 'lower/file');
    writeFileSync(path, new Random(8).bytes(MIB));
    execFileSync('sync', ['-f', dir]);
    const merged = overlay(dir, 'one', ['lower'], '');
    const named = overlay(dir, 'two', [join(dir, 'lower')], ',redirect_dir=on');
    mkdirSync(join(dir, 'two-merged/folder'));
    for (const [from, to] of [['file', 'folder/renamed']] as const) renameSync(join(named, from), join(named, to));
    readFileSync(path);
    const { result, pages } = steady([path], () => report(merged));
    assert.equal(result.bytes.cached, (pages[0]?.size ?? 0) * PAGE);
    assert.equal(result.bytes.unidentified, result.bytes.cached);
    assert.equal(result.notes.layerless, 1);
    assert.match(result.mounts[0]?.unreachable ?? '', /relative paths/);
    const metacopy = overlay(dir, 'three', [join(dir, 'lower')], ',metacopy=on');
    assert.match(report(metacopy).mounts[0]?.unreachable ?? '', /metacopy/);
    const renamed = report(named);
    assert.equal(renamed.notes.layerless, 0, 'a file that was renamed was copied up, and has its own name there');
  } finally {
    filesystem.dispose();
  }
});

test('a mount of sharedext is looked at where its pages are, with what sharing saves', async () => {
  const filesystem = makeLoopFilesystem('btrfs');
  try {
    const [source, mounted] = [join(filesystem.dir, 'source'), join(filesystem.folder, 'mounted')];
    mkdirSync(source);
    mkdirSync(mounted);
    writeFileSync(join(source, 'clone0'), new Random(2).bytes(2 * MIB));
    execFileSync('sync', ['-f', filesystem.dir]);
    for (const i of [1, 2, 3]) posix.reflink(join(source, 'clone0'), join(source, `clone${i}`));
    writeFileSync(join(source, 'alone'), new Random(3).bytes(MIB));
    execFileSync('sync', ['-f', filesystem.dir]);
    sharedext('mount', '-o', 'settle=0', source, mounted);
    try {
      for (const i of [0, 1, 2, 3]) posix.dropPages(join(source, `clone${i}`));
      for (const i of [0, 1, 2, 3]) readFileSync(join(mounted, `clone${i}`));
      readFileSync(join(mounted, 'alone'));
      const { bytes, mounts, files } = report(mounted);
      const [mount] = mounts;
      assert.ok(mount !== undefined);
      assert.deepEqual([mount.type, mount.unreachable, mount.folders[0]], ['sharedext', null, source]);
      assert.equal(mount.folders.length, 2);
      assert.equal(bytes.duplicate, 0);
      assert.ok(bytes.cached > 0 && bytes.cached <= 3 * MIB, `${bytes.cached} bytes in memory`);
      assert.ok(mount.sharedBytes > 0 && mount.sharedBytes <= 2 * MIB);
      assert.equal(mount.savedBytes, 3 * mount.sharedBytes);
      assert.ok(files.seen >= 6);
      // Read around the mount, a clone is a second copy of what the store has.
      readFileSync(join(source, 'clone1'));
      assert.ok(report(mounted).bytes.duplicate > 0);
      // The source on the way is counted once.
      assert.equal(report('-x', mounted, source).files.seen, report('-x', mounted).files.seen);
      const text = execFileSync(process.execPath, [PROGRAM, 'report', mounted], { encoding: 'utf8' });
      assert.match(text, /is a mount of sharedext: looked at .*, which saves up to/);
    } finally {
      sharedext('umount', mounted);
    }
  } finally {
    filesystem.dispose();
  }
  await assertNothingLeft();
});

test('a mount over its own source is looked through, too', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const source = join(filesystem.dir, 'source');
    mkdirSync(join(source, 'sub'), { recursive: true });
    writeFileSync(join(source, 'sub/clone0'), new Random(2).bytes(MIB));
    execFileSync('sync', ['-f', filesystem.dir]);
    posix.reflink(join(source, 'sub/clone0'), join(source, 'sub/clone1'));
    execFileSync('sync', ['-f', filesystem.dir]);
    for (const i of [0, 1]) posix.dropPages(join(source, `sub/clone${i}`));
    sharedext('mount', '-o', 'settle=0', source, source);
    try {
      for (const i of [0, 1]) readFileSync(join(source, `sub/clone${i}`));
      for (const path of [source, filesystem.dir]) {
        const { bytes, mounts, files } = report(path);
        assert.deepEqual(mounts[0]?.folders.slice(0, 1), [source]);
        assert.ok(bytes.cached > 0 && bytes.cached <= MIB, `${bytes.cached} bytes in memory`);
        assert.equal(mounts[0]?.savedBytes, mounts[0]?.sharedBytes);
        assert.equal(files.seen, 4, 'two clones, the one in the store, and the tag of the store');
      }
      const one = report(join(source, 'sub/clone1'), '--group-by', 'directory');
      assert.equal(one.files.seen, 2);
    } finally {
      sharedext('umount', source);
    }
  } finally {
    filesystem.dispose();
  }
});

test('a mount of sharedext whose daemon is gone is said not to be looked at', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const [source, mounted] = [join(filesystem.dir, 'source'), join(filesystem.folder, 'mounted')];
    mkdirSync(source);
    mkdirSync(mounted);
    sharedext('mount', source, mounted);
    const status = JSON.parse(
      execFileSync(process.execPath, [PROGRAM, 'status', mounted, '--json'], { encoding: 'utf8' }),
    );
    process.kill(status.supervisor, 'SIGKILL');
    process.kill(status.pid, 'SIGKILL');
    try {
      for (const path of [filesystem.folder, mounted])
        assert.throws(
          () => execFileSync(process.execPath, [PROGRAM, 'report', path], { stdio: 'pipe', encoding: 'utf8' }),
          (error: unknown) =>
            typeof error === 'object' &&
            error !== null &&
            'status' in error &&
            error.status === 1 &&
            'stdout' in error &&
            /was not looked at: its daemon is gone/.test(String(error.stdout)),
        );
    } finally {
      execFileSync('umount', ['-l', mounted]);
      rmSync(`/run/sharedext/${status.minor}.sock`, { force: true });
    }
  } finally {
    filesystem.dispose();
  }
});

test('the mount that a path lies on is the latest that is still to be seen', () => {
  const mounted = (mountpoint: string, type = 'xfs', superOptions = 'rw'): Parameters<typeof overlayView>[0] => ({
    id: 0,
    root: '/',
    mountpoint,
    type,
    superOptions,
  });
  const layers = 'rw,lowerdir=/l\\0401:/l2\\134:b,upperdir=/up';
  const views = new Views(
    [
      mounted('/'),
      mounted('/m', 'overlay', layers),
      mounted('/m/proc', 'proc'),
      mounted('/n/o', 'overlay', layers),
      mounted('/n'),
    ],
    (mount) => (mount.type === 'overlay' ? overlayView(mount, false) : undefined),
  );
  assert.deepEqual(views.around('/m/a/b')?.view.folders, ['/up', '/l 1', '/l2:b']);
  assert.equal(views.around('/m/a/b')?.rest, 'a/b');
  assert.equal(views.around('/m')?.rest, '');
  assert.equal(views.around('/mother'), undefined);
  assert.equal(views.around('/m/proc/1'), undefined);
  assert.equal(views.around('/n/o/x'), undefined);
  assert.deepEqual(views.below('/m'), ['/m/proc']);
});
