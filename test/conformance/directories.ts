/** Directories: making and removing them, and listing them while they change. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { asUser, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { bytesUnder, fails, namesIn, put, type Subject, whileOpen, withFile } from './case.ts';

const { O_RDONLY, O_DIRECTORY } = posix;

/** Enough for a listing to take several calls, with every buffer size used here. */
const MANY = 1000;

/** Room for about ten entries. */
const SMALL = 320;

function numbered(count: number, prefix = 'entry-'): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}`);
}

function fill(dir: string, names: readonly string[]): void {
  for (const name of names) put(join(dir, name));
}

function withListing<T>(dir: string, use: (fd: number) => T): T {
  return withFile(dir, O_RDONLY | O_DIRECTORY, use);
}

function texts(entries: readonly posix.DirectoryEntry[]): string[] {
  return entries.map((entry) => entry.name.toString('latin1')).filter((name) => name !== '.' && name !== '..');
}

const making: Subject['cases'] = [
  {
    name: 'a new directory is empty, but for itself and its parent',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      const entries = withListing(join(dir, 'sub'), (fd) => posix.readAllEntries(fd));
      const inodes = new Map(entries.map((entry) => [entry.name.toString(), entry.ino]));
      assert.deepEqual([...inodes.keys()].sort(), ['.', '..']);
      assert.equal(inodes.get('.'), posix.stat(join(dir, 'sub')).ino);
      assert.equal(inodes.get('..'), posix.stat(dir).ino);
      assert.deepEqual([...new Set(entries.map((entry) => entry.type))], [posix.DT_DIR]);
    },
  },
  {
    name: 'a name that is taken takes no directory',
    run(dir) {
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('missing', join(dir, 'link'));
      for (const name of ['file', 'sub', 'link']) fails('EEXIST', () => posix.mkdir(join(dir, name)));
      fails('ENOENT', () => posix.mkdir(join(dir, 'missing', 'sub')));
    },
  },
  {
    name: 'only an empty directory is removed, and only by rmdir',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'sub', 'file'));
      fails('ENOTEMPTY', () => posix.rmdir(join(dir, 'sub')));
      fails('EISDIR', () => posix.unlink(join(dir, 'sub')));
      fails('ENOTDIR', () => posix.rmdir(join(dir, 'sub', 'file')));
      fails('ENOENT', () => posix.rmdir(join(dir, 'missing')));
      posix.unlink(join(dir, 'sub', 'file'));
      posix.rmdir(join(dir, 'sub'));
      assert.deepEqual(namesIn(dir), []);
    },
  },
  {
    name: 'a hidden name keeps a directory from being empty',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'sub', '.hidden'));
      fails('ENOTEMPTY', () => posix.rmdir(join(dir, 'sub')));
    },
  },
];

const listing: Subject['cases'] = [
  {
    name: 'each entry comes once, with the inode number and type that stat gives',
    run(dir) {
      put(join(dir, 'file'));
      posix.mkdir(join(dir, 'sub'));
      posix.symlink('x', join(dir, 'link'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o600);
      posix.mknod(join(dir, 'socket'), posix.S_IFSOCK | 0o600);
      posix.mknod(join(dir, 'device'), posix.S_IFCHR | 0o600, 1, 3);
      const entries = posix.entriesOf(dir);
      assert.equal(entries.length, 6);
      for (const entry of entries) {
        const status = posix.lstat(bytesUnder(dir, entry.name));
        assert.deepEqual([entry.ino, entry.type], [status.ino, (status.mode & posix.S_IFMT) >> 12], `${entry.name}`);
      }
    },
  },
  {
    name: 'a thousand entries come once each, in buffers of any size',
    run(dir) {
      const names = numbered(MANY).sort();
      fill(dir, names);
      for (const size of [SMALL, 4096, 65536, 262144]) {
        const listed = withListing(dir, (fd) => texts(posix.readAllEntries(fd, size)));
        assert.deepEqual(listed.sort(), names, `${size}`);
      }
    },
  },
  {
    name: 'names of 255 bytes are listed whole',
    run(dir) {
      const names = Array.from({ length: 300 }, (_, index) => `${index}-`.padEnd(255, 'n')).sort();
      fill(dir, names);
      assert.deepEqual(namesIn(dir), names);
    },
  },
  {
    name: 'a buffer that has no room for an entry is refused',
    run(dir) {
      put(join(dir, 'n'.repeat(100)));
      withListing(dir, (fd) => {
        fails('EINVAL', () => posix.readEntries(fd, 10));
        assert.ok(posix.readEntries(fd, 4096).length > 0);
      });
    },
  },
  {
    name: 'from every position that was reported the listing goes on as it did',
    run(dir) {
      fill(dir, numbered(200));
      withListing(dir, (fd) => {
        const entries = posix.readAllEntries(fd, 4096);
        // Back and forth, so that no position is the one where the stream already is.
        for (let index = entries.length - 2; index >= 0; index -= 13) {
          posix.seekDirectory(fd, entries[index]?.next ?? 0n);
          assert.deepEqual(texts(posix.readAllEntries(fd, 1024)), texts(entries.slice(index + 1)), `${index}`);
        }
      });
    },
  },
  {
    name: 'a listing that is rewound starts again, and shows what is new',
    run(dir) {
      fill(dir, numbered(50));
      withListing(dir, (fd) => {
        assert.equal(texts(posix.readAllEntries(fd)).length, 50);
        put(join(dir, 'new'));
        posix.unlink(join(dir, 'entry-7'));
        posix.seekDirectory(fd, 0n);
        const again = texts(posix.readAllEntries(fd));
        assert.equal(again.length, 50);
        assert.ok(again.includes('new') && !again.includes('entry-7'));
      });
    },
  },
  {
    name: 'two listings of one directory go on independently',
    run(dir) {
      const names = numbered(300).sort();
      fill(dir, names);
      withListing(dir, (first) => {
        withListing(dir, (second) => {
          const lists: [string[], string[]] = [[], []];
          for (let more = true; more; ) {
            const one = posix.readEntries(first, SMALL);
            const two = posix.readEntries(second, 2 * SMALL);
            lists[0].push(...texts(one));
            lists[1].push(...texts(two));
            more = one.length + two.length > 0;
          }
          assert.deepEqual([lists[0].sort(), lists[1].sort()], [names, names]);
        });
      });
    },
  },
  {
    name: 'ten thousand entries are made, listed and removed',
    run(dir) {
      // Names of one file cost less than as many files, and fill the directory as well.
      const names = numbered(10_000).sort();
      put(join(dir, 'first'));
      for (const name of names) posix.link(join(dir, 'first'), join(dir, name));
      assert.deepEqual(namesIn(dir), [...names, 'first']);
      for (const name of names) posix.unlink(join(dir, name));
      assert.deepEqual(namesIn(dir), ['first']);
    },
  },
];

/** What someone does to a name that is listed, so that it is listed anew behind the position: the directory keeps its names. */
const renewals: readonly (readonly [string, (dir: string, name: string) => void])[] = [
  [
    'is renamed and renamed back',
    (dir, name) => {
      posix.rename(join(dir, name), join(dir, 'other'));
      posix.rename(join(dir, 'other'), join(dir, name));
    },
  ],
  [
    'is replaced by a new file',
    (dir, name) => {
      put(join(dir, 'other'));
      posix.rename(join(dir, 'other'), join(dir, name));
    },
  ],
  [
    'is removed and made again',
    (dir, name) => {
      posix.unlink(join(dir, name));
      put(join(dir, name));
    },
  ],
];

/** Smaller than what the kernel reads ahead for it, as large as that, and larger. */
const SIZES = [SMALL, 4096, 32_768];

const renewing: Subject['cases'] = renewals.map(([what, renew]) => ({
  name: `a listing ends of which each name ${what}`,
  run(dir) {
    const names = numbered(MANY).sort();
    fill(dir, names);
    for (const size of SIZES) {
      const seen: string[] = [];
      withListing(dir, (fd) => {
        for (;;) {
          const listed = texts(posix.readEntries(fd, size));
          if (listed.length === 0) break;
          seen.push(...listed);
          assert.ok(seen.length <= 3 * MANY, `${size}: the listing goes on and on`);
          for (const name of listed) renew(dir, name);
        }
        // The end is the end, until someone rewinds it.
        assert.deepEqual(texts(posix.readEntries(fd, size)), []);
        posix.seekDirectory(fd, 0n);
        assert.deepEqual(texts(posix.readAllEntries(fd, size)).sort(), names);
      });
      assert.deepEqual([...new Set(seen)].filter((name) => name !== 'other').sort(), names);
    }
  },
}));

const changing: Subject['cases'] = [
  ...renewing,
  {
    name: 'entries that stay come once each, while others come and go',
    run(dir) {
      const staying = numbered(300, 'stays-').sort();
      fill(dir, staying);
      fill(dir, numbered(300, 'goes-'));
      const seen: string[] = [];
      withListing(dir, (fd) => {
        for (let round = 0; ; round++) {
          const entries = posix.readEntries(fd, SMALL);
          if (entries.length === 0) break;
          seen.push(...texts(entries));
          if (round < 300) {
            posix.unlink(join(dir, `goes-${round}`));
            put(join(dir, `comes-${round}`));
          }
        }
      });
      assert.deepEqual(seen.filter((name) => name.startsWith('stays-')).sort(), staying);
      assert.equal(new Set(seen).size, seen.length);
    },
  },
  {
    name: 'a tree is emptied by removing what each piece of the listing shows',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      fill(join(dir, 'sub'), numbered(MANY));
      withListing(join(dir, 'sub'), (fd) => {
        for (;;) {
          const entries = posix.readEntries(fd, SMALL);
          if (entries.length === 0) break;
          for (const name of texts(entries)) posix.unlink(join(dir, 'sub', name));
        }
      });
      posix.rmdir(join(dir, 'sub'));
    },
  },
  {
    name: 'an entry removed behind the position does not make another one disappear',
    run(dir) {
      fill(dir, numbered(100));
      withListing(dir, (fd) => {
        const first = texts(posix.readEntries(fd, SMALL));
        for (const name of first) posix.unlink(join(dir, name));
        const rest = texts(posix.readAllEntries(fd, SMALL));
        assert.deepEqual([...first, ...rest].sort(), numbered(100).sort());
      });
    },
  },
  {
    name: 'what another process makes and removes shows in the next listing',
    async run(dir) {
      const other = asUser(root);
      await whileOpen(dir, O_RDONLY | O_DIRECTORY, async (fd) => {
        assert.deepEqual(texts(posix.readAllEntries(fd)), []);
        for (let round = 0; round < 5; round++) {
          await other.call('writeFile', join(dir, `file-${round}`), 'x');
          if (round > 0) await other.call('unlink', join(dir, `file-${round - 1}`));
          posix.seekDirectory(fd, 0n);
          assert.deepEqual(texts(posix.readAllEntries(fd)), [`file-${round}`]);
          assert.deepEqual(namesIn(dir), [`file-${round}`]);
        }
      });
    },
  },
  {
    name: 'a directory that is renamed while it is listed goes on being listed',
    run(dir) {
      posix.mkdir(join(dir, 'before'));
      const names = numbered(100).sort();
      fill(join(dir, 'before'), names);
      withListing(join(dir, 'before'), (fd) => {
        const listed = texts(posix.readEntries(fd, SMALL));
        posix.rename(join(dir, 'before'), join(dir, 'after'));
        listed.push(...texts(posix.readAllEntries(fd, SMALL)));
        assert.deepEqual(listed.sort(), names);
      });
    },
  },
  {
    name: 'a listing of a directory that is removed ends',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      withListing(join(dir, 'sub'), (fd) => {
        posix.rmdir(join(dir, 'sub'));
        fails('ENOENT', () => posix.readEntries(fd));
      });
    },
  },
];

export const directories: Subject = { subject: 'directories', cases: [...making, ...listing, ...changing] };
