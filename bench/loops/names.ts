/** The timed loops on names, attributes and opens. Folders hold file-0, file-1 and so on. */

import * as c from '../../src/base/linux.ts';
import * as libc from '../../src/sys/libc.ts';
import {
  attributes,
  BUFFER_BYTES,
  buffer,
  type Given,
  good,
  type Loop,
  numbered,
  opened,
  openedPath,
  placed,
  statAt,
} from './given.ts';

/** linux/fcntl.h: ask the filesystem, whatever is cached. */
const AT_STATX_FORCE_SYNC = 0x2000;
const DT_DIR = 4;
const DOT = 46;

function each(paths: readonly number[], step: (path: number) => void): () => number {
  return () => {
    for (const path of paths) step(path);
    return paths.length;
  };
}

/** Has the names and attributes of files known before the clock starts. */
function known(paths: readonly number[]): () => void {
  return () => {
    for (const path of paths) statAt(path, 0);
  };
}

function makeFile(path: number): void {
  libc.close(opened(path, c.O_WRONLY | c.O_CREAT | c.O_EXCL));
}

function removeFile(path: number): void {
  good(libc.unlinkat(c.AT_FDCWD, path, 0));
}

/** Calls `found` with the offset in the buffer of each entry of an open folder. */
function readFolder(fd: number, address: number, view: DataView, found: (at: number) => void): void {
  for (let length = 1; length > 0; ) {
    length = good(libc.getdents64(fd, address, BUFFER_BYTES));
    for (let at = 0; at < length; at += view.getUint16(at + 16, true)) found(at);
  }
}

function list(path: string, withAttributes: boolean): number {
  const fd = openedPath(path, c.O_RDONLY | c.O_DIRECTORY);
  let count = 0;
  readFolder(fd, buffer.address, buffer.view, (at) => {
    count++;
    if (withAttributes) statIn(fd, buffer.address + at + 19);
  });
  libc.close(fd);
  return count;
}

function statIn(folder: number, name: number): void {
  good(libc.statx(folder, name, c.AT_SYMLINK_NOFOLLOW, c.STATX_BASIC_STATS, attributes.address));
}

/** Lists a folder and those directly below it, and has the attributes of all. */
function walk(path: string, depth: number): number {
  const folders: string[] = [];
  const fd = openedPath(path, c.O_RDONLY | c.O_DIRECTORY);
  let count = 0;
  readFolder(fd, buffer.address, buffer.view, (at) => {
    statIn(fd, buffer.address + at + 19);
    count++;
    if (depth === 0 || buffer.bytes[at + 18] !== DT_DIR || buffer.bytes[at + 19] === DOT) return;
    const end = buffer.bytes.indexOf(0, at + 19);
    folders.push(`${path}/${Buffer.from(buffer.bytes.subarray(at + 19, end)).toString()}`);
  });
  libc.close(fd);
  return folders.reduce((sum, below) => sum + walk(below, depth - 1), count);
}

/** Files that stay open until this process ends, or until `drop`. */
const held: number[] = [];

function hold(paths: readonly number[]): number {
  for (const path of paths) held.push(opened(path, c.O_RDONLY));
  return paths.length;
}

function drop(): number {
  const count = held.length;
  for (const fd of held.splice(0)) libc.close(fd);
  return count;
}

/** A package is three folders with so many files together; each is opened, written, dated and closed, as npm does. */
const FILES_PER_PACKAGE = 20;
const PACKAGED_BYTES = 2048;
const packageFolders = ['', '/lib', '/dist'] as const;

/** Unpacks `count` packages. */
function unpack({ path, count }: Given): Loop {
  const packages = Array.from({ length: count }, (_, index) => `${path}/package-${index}`);
  const folders = placed(packages.flatMap((name) => packageFolders.map((below) => `${name}${below}`)));
  const names = packages.flatMap((name) =>
    Array.from({ length: FILES_PER_PACKAGE }, (_, i) => `${name}${packageFolders[i % packageFolders.length]}/f${i}.js`),
  );
  const files = placed(names, 1);
  const timed = (): number => {
    for (const folder of folders) good(libc.mkdirat(c.AT_FDCWD, folder, 0o755));
    for (const file of files) {
      const fd = opened(file, c.O_WRONLY | c.O_CREAT | c.O_TRUNC);
      good(libc.write(fd, buffer.address, PACKAGED_BYTES));
      libc.close(fd);
      good(libc.utimensat(c.AT_FDCWD, file, 0, 0));
    }
    return files.length;
  };
  const after = (): void => {
    files.forEach(removeFile);
    for (const folder of [...folders].reverse()) good(libc.unlinkat(c.AT_FDCWD, folder, c.AT_REMOVEDIR));
  };
  return { timed, after };
}

export const nameLoops = {
  stat: (given) => {
    const paths = numbered(given);
    return { timed: each(paths, (path) => statAt(path, 0)) };
  },
  'stat-known': (given) => {
    const paths = numbered(given);
    return { before: known(paths), timed: each(paths, (path) => statAt(path, 0)) };
  },
  'stat-forced': ({ path, count }) => {
    const [address = 0] = placed([path]);
    const timed = (): number => {
      for (let i = 0; i < count; i++) statAt(address, AT_STATX_FORCE_SYNC);
      return count;
    };
    return { before: () => statAt(address, 0), timed };
  },
  'open-close': (given) => {
    const paths = numbered(given);
    return { before: known(paths), timed: each(paths, (path) => void libc.close(opened(path, c.O_RDONLY))) };
  },
  'open-one': ({ path, count }) => {
    const [address = 0] = placed([path]);
    const timed = (): number => {
      for (let i = 0; i < count; i++) libc.close(opened(address, c.O_RDONLY));
      return count;
    };
    return { before: () => statAt(address, 0), timed };
  },
  'open-read': (given) => {
    const paths = numbered(given);
    const step = (path: number): void => {
      const fd = opened(path, c.O_RDONLY);
      good(libc.read(fd, buffer.address, BUFFER_BYTES));
      libc.close(fd);
    };
    return { before: known(paths), timed: each(paths, step) };
  },
  list: ({ path }) => ({ timed: () => list(path, false) }),
  'list-long': ({ path }) => ({ timed: () => list(path, true) }),
  walk: ({ path }) => ({ timed: () => walk(path, 1) }),
  create: (given) => {
    const paths = numbered(given);
    return { timed: each(paths, makeFile), after: () => paths.forEach(removeFile) };
  },
  unlink: (given) => {
    const paths = numbered(given);
    return { before: () => paths.forEach(makeFile), timed: each(paths, removeFile) };
  },
  rename: (given) => {
    const from = numbered(given);
    const to = numbered(given, 1, 'other');
    const timed = (): number => {
      for (const [index, path] of from.entries()) good(libc.renameat2(c.AT_FDCWD, path, c.AT_FDCWD, to[index] ?? 0, 0));
      return from.length;
    };
    return { before: () => from.forEach(makeFile), timed, after: () => to.forEach(removeFile) };
  },
  mkdir: (given) => {
    const paths = numbered(given);
    const timed = each(paths, (path) => void good(libc.mkdirat(c.AT_FDCWD, path, 0o755)));
    const after = (): void => {
      for (const path of paths) good(libc.unlinkat(c.AT_FDCWD, path, c.AT_REMOVEDIR));
    };
    return { timed, after };
  },
  unpack,
  hold: (given) => ({ timed: () => hold(numbered(given)) }),
  drop: () => ({ timed: drop }),
} as const satisfies Readonly<Record<string, (given: Given) => Loop>>;
