/** Reports by the command: what is dirty, what can't be identified, what changes meanwhile, and what isn't a regular file. */

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POSIX_FADV_RANDOM } from '../../src/base/linux.ts';
import type { ReportResult } from '../../src/report/result.ts';
import * as libc from '../../src/sys/libc.ts';
import { Random } from '../mount/random.ts';
import { bob } from '../support/asuser.ts';
import { type FilesystemKind, makeLoopFilesystem } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { expected, Layout, PAGE, steady } from './layout.ts';
import { PROGRAM, quickReport, report } from './reports.ts';

/** Reports made while files change. */
const REPORTS = 150;
let changes = 0;
const USER_CHILD = fileURLToPath(new URL('./user-child.js', import.meta.url));

test('dirty pages of clones are copies of nothing', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const random = new Random(9);
    const layout = new Layout(join(filesystem.dir, 'home'), false);
    const one = layout.add(64);
    layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
    const two = layout.files[1];
    assert.ok(two !== undefined);
    for (const { path } of [one, two]) {
      posix.dropPages(path);
      const fd = posix.open(path, posix.O_RDONLY);
      // Page by page: what is read at once is dirty at once, too (a large folio).
      libc.posixFadvise(fd, 0, 0, POSIX_FADV_RANDOM);
      for (let page = 0; page < 64; page++) posix.read(fd, PAGE, page * PAGE);
      posix.close(fd);
    }
    const paths = [one.path, two.path];
    const clean = steady(paths, () => report(filesystem.dir));
    assert.equal(clean.result.bytes.duplicate, expected([one, two], clean.pages).duplicate);
    const fd = posix.open(two.path, posix.O_RDWR);
    posix.write(fd, random.bytes(3 * PAGE), 10 * PAGE);
    // It may have been written back meanwhile: then it is private, and no copy either.
    for (const page of [10, 11, 12]) two.pages[page] = -page;
    const { result, pages } = steady(paths, () => report(filesystem.dir));
    assert.deepEqual(
      [result.bytes.cached, result.bytes.duplicate],
      [expected([one, two], pages).cached, expected([one, two], pages).duplicate],
    );
    posix.close(fd);
  } finally {
    filesystem.dispose();
  }
});

for (const kind of ['ext4', 'tmpfs'] as const satisfies readonly FilesystemKind[]) {
  test(`on ${kind}, nothing is shared: what is in memory is counted once`, () => {
    const filesystem = makeLoopFilesystem(kind);
    try {
      writeFileSync(join(filesystem.dir, 'file'), Buffer.alloc(100 * PAGE, 1));
      posix.link(join(filesystem.dir, 'file'), join(filesystem.dir, 'link'));
      execFileSync('sync', ['-f', filesystem.dir]);
      const { result, pages } = steady([join(filesystem.dir, 'file')], () => report(filesystem.dir));
      const { bytes, notes } = result;
      assert.equal(bytes.cached, (pages[0]?.size ?? 0) * PAGE);
      assert.equal(bytes.duplicate, 0);
      assert.equal(notes.links, 1);
      assert.equal(notes.unidentified, kind === 'tmpfs' ? 1 : 0);
    } finally {
      filesystem.dispose();
    }
  });
}

test('special files, dangling links and names that are not UTF-8 are walked over', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const at = (name: string): string => join(filesystem.dir, name);
    execFileSync('mkfifo', [at('fifo')]);
    symlinkSync('nowhere', at('dangling'));
    symlinkSync('.', at('loop'));
    execFileSync('mknod', [at('device'), 'c', '1', '3']);
    const name = Buffer.concat([Buffer.from(`${at('name')}-`), Buffer.from([0xff, 0x0a])]);
    for (const path of [name, Buffer.concat([name, Buffer.from('2')])]) {
      const fd = posix.open(path, posix.O_RDWR | posix.O_CREAT);
      posix.write(fd, Buffer.alloc(10 * PAGE, 3), 0);
      posix.close(fd);
    }
    execFileSync('sync', ['-f', filesystem.dir]);
    const { notes, files } = report(filesystem.dir);
    assert.equal(notes.special, 4);
    assert.equal(files.seen, 2);
    const text = execFileSync(process.execPath, [PROGRAM, 'report', filesystem.dir], { encoding: 'utf8' });
    assert.match(text, /in memory .* files \(2 looked at\)/);
    assert.throws(
      () => execFileSync(process.execPath, [PROGRAM, 'report', at('missing')], { stdio: 'pipe' }),
      /it does not exist/,
    );
  } finally {
    filesystem.dispose();
  }
});

test('a user sees what the kernel lets a user see, and how much that is not', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const at = (name: string): string => join(filesystem.dir, name);
    writeFileSync(at('open'), Buffer.alloc(PAGE, 1), { mode: 0o644 });
    writeFileSync(at('closed'), Buffer.alloc(PAGE, 1), { mode: 0o600 });
    mkdirSync(at('folder'), { mode: 0o700 });
    const { status, stdout } = spawnSync(process.execPath, [USER_CHILD, filesystem.dir], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(status, 1);
    const { notes, files }: ReportResult = JSON.parse(stdout);
    assert.equal(files.seen, 2);
    assert.equal(notes.outOfReach, 1);
    assert.equal(notes.denied, 2);
  } finally {
    filesystem.dispose();
  }
});

test('compressed clones are not identified for a user, who may not search the tree, and never guessed', () => {
  const filesystem = makeLoopFilesystem('btrfs-zstd');
  try {
    const home = join(filesystem.dir, 'home');
    const layout = new Layout(home, true);
    layout.add(40);
    layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
    execFileSync('chown', ['-R', `${bob.uid}:${bob.gid}`, home]);
    execFileSync('sync', ['-f', filesystem.dir]);
    const paths = layout.files.map(({ path }) => path);
    for (const path of paths) readFileSync(path);
    const { result, pages } = steady(paths, (): ReportResult => {
      const words = [USER_CHILD, filesystem.dir];
      return JSON.parse(spawnSync(process.execPath, words, { encoding: 'utf8', timeout: 60_000 }).stdout);
    });
    const cached = pages.reduce((sum, { size }) => sum + size * PAGE, 0);
    const { bytes, notes } = result;
    assert.deepEqual([bytes.cached, bytes.duplicate, bytes.unidentified], [cached, 0, cached]);
    assert.equal(notes.unidentified, 2);
    assert.equal(report(filesystem.dir).notes.unidentified, 0);
  } finally {
    filesystem.dispose();
  }
});

test('on squashfs, what is in memory is counted, and not identified', () => {
  const filesystem = makeLoopFilesystem('tmpfs');
  try {
    const [tree, image, mounted] = ['tree', 'image', 'mounted'].map((name) => join(filesystem.folder, name));
    assert.ok(tree !== undefined && image !== undefined && mounted !== undefined);
    mkdirSync(tree);
    mkdirSync(mounted);
    const path = join(mounted, 'file');
    writeFileSync(join(tree, 'file'), new Random(4).bytes(100 * PAGE));
    execFileSync('mksquashfs', [tree, image, '-quiet', '-no-progress'], { stdio: 'pipe' });
    execFileSync('mount', ['-o', 'loop', image, mounted]);
    readFileSync(path);
    const { result, pages } = steady([path], () => report(mounted));
    // Reading ahead, squashfs fills blocks behind the end of a file as well.
    assert.ok(result.bytes.cached >= (pages[0]?.size ?? 0) * PAGE);
    assert.equal(result.bytes.unidentified, result.bytes.cached);
    assert.equal(result.bytes.duplicate, 0);
    assert.equal(result.notes.unidentified, result.files.cached);
  } finally {
    filesystem.dispose();
  }
});

/** Changes files without pause, none of which shares anything with another, until its standard input ends. */
const CHANGER = fileURLToPath(new URL('./changer-child.js', import.meta.url));

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`on ${kind}, files that are written, grow, shrink, vanish and are replaced meanwhile are never taken for copies`, async () => {
    const filesystem = makeLoopFilesystem(kind);
    const changed = join(filesystem.dir, 'changed');
    mkdirSync(changed);
    const changer = spawn(process.execPath, [CHANGER, changed], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      const layout = new Layout(join(filesystem.dir, 'kept'), false);
      const one = layout.add(64);
      layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
      await once(changer.stdout, 'data');
      let seen = 0;
      for (let round = 0; round < REPORTS; round++) {
        for (const { path } of layout.files) readFileSync(path);
        const { bytes, groups, notes, files } = quickReport(filesystem.dir);
        const known = groups.filter(({ paths }) => paths.every((path) => path.includes('/kept/')));
        const bytesOf = (list: typeof groups): number =>
          list.reduce((sum, { duplicateBytes }) => sum + duplicateBytes, 0);
        assert.equal(bytesOf(groups), bytesOf(known), JSON.stringify(groups));
        assert.ok(bytes.duplicate <= one.pages.length * PAGE);
        assert.equal(notes.failed + notes.denied, 0);
        seen = Math.max(seen, files.seen);
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.ok(seen > layout.files.length, 'nothing was there to change');
      assert.equal(changer.exitCode, null);
    } finally {
      changer.stdin.end();
      await once(changer, 'exit');
      filesystem.dispose();
    }
  });
}

test('a file that changes while it is looked at is no copy, and is counted', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const layout = new Layout(join(filesystem.dir, 'home'), false);
    const file = layout.add(16);
    layout.step({ act: 'clone', from: 0, to: 0, first: 0, count: 0, at: 0 });
    execFileSync('sync', ['-f', filesystem.dir]);
    for (const { path } of layout.files) readFileSync(path);
    assert.ok(quickReport(filesystem.dir).bytes.duplicate > 0);
    const { bytes, notes } = quickReport(filesystem.dir, 'files', (fd) => {
      if (posix.fstat(fd).ino === posix.stat(file.path).ino) posix.chmod(file.path, 0o600 + (changes++ % 2));
    });
    assert.equal(bytes.duplicate, 0);
    assert.equal(notes.changed, 1);
  } finally {
    filesystem.dispose();
  }
});

test('filesystems of the kernel, folders in a circle, and paths given twice are walked once or not at all', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const inner = join(filesystem.dir, 'a/b');
    mkdirSync(inner, { recursive: true });
    writeFileSync(join(filesystem.dir, 'a/file'), Buffer.alloc(10 * PAGE, 1));
    execFileSync('mount', ['--bind', filesystem.dir, inner]);
    execFileSync('sync', ['-f', filesystem.dir]);
    const { files, bytes } = report(filesystem.dir, filesystem.dir, join(filesystem.dir, 'a/file'));
    assert.equal(files.cached, 1);
    assert.equal(bytes.duplicate, 0);
    const kernels = report('/proc', '/sys', '/dev/pts');
    assert.deepEqual([kernels.files.seen, kernels.notes.skipped], [0, 3]);
    const apart = report('-x', '/proc/self/..', filesystem.dir);
    assert.equal(apart.files.cached, 1);
  } finally {
    filesystem.dispose();
  }
});

test('the size of a sparse file does not matter', () => {
  const filesystem = makeLoopFilesystem('xfs');
  try {
    const places = [0, 5 * PAGE, 2 ** 30, 2 ** 42 + 7 * PAGE, 2 ** 52];
    const paths = ['one', 'two'].map((name) => join(filesystem.dir, name));
    const [one = '', two = ''] = paths;
    const fd = posix.open(one, posix.O_RDWR | posix.O_CREAT);
    for (const place of places) posix.write(fd, new Random(place % 1001).bytes(PAGE), place);
    posix.fsync(fd);
    posix.reflink(one, two);
    for (const path of paths) {
      posix.dropPages(path);
      const reader = posix.open(path, posix.O_RDONLY);
      libc.posixFadvise(reader, 0, 0, POSIX_FADV_RANDOM);
      for (const place of places) posix.read(reader, PAGE, place);
      posix.close(reader);
    }
    posix.close(fd);
    const { bytes } = report(filesystem.dir);
    assert.ok(bytes.cached <= 2 * places.length * PAGE);
    assert.ok(bytes.duplicate <= places.length * PAGE);
    assert.ok(bytes.duplicate > 0);
  } finally {
    filesystem.dispose();
  }
});
