/** Files found by their handle instead of by a name: open_by_handle_at(2). */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { fails, put, type Subject, withFile } from './case.ts';

const { O_RDONLY, O_RDWR, O_PATH, O_DIRECTORY } = posix;

/** Opens by a handle, with the directory as the descriptor that names the filesystem. */
function withHandle<T>(dir: string, handle: Buffer, flags: number, use: (fd: number) => T): T {
  return withFile(dir, O_RDONLY | O_DIRECTORY, (mount) => {
    const fd = posix.openHandle(mount, handle, flags);
    try {
      return use(fd);
    } finally {
      posix.close(fd);
    }
  });
}

const cases: Subject['cases'] = [
  {
    name: 'a file is opened by its handle, to read and to write, and is the same file',
    run(dir) {
      put(join(dir, 'file'), 'content');
      const handle = posix.handleOf(join(dir, 'file'));
      withHandle(dir, handle, O_RDWR, (fd) => {
        assert.equal(posix.fstat(fd).ino, posix.stat(join(dir, 'file')).ino);
        assert.equal(posix.read(fd, 10).toString(), 'content');
        posix.write(fd, 'CON', 0);
      });
      withFile(join(dir, 'file'), O_RDONLY, (fd) => assert.equal(posix.read(fd, 10).toString(), 'CONtent'));
    },
  },
  {
    name: 'a handle finds its file after a rename, and two names have one handle',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'file'), 'content');
      posix.link(join(dir, 'file'), join(dir, 'link'));
      const handle = posix.handleOf(join(dir, 'file'));
      assert.deepEqual(posix.handleOf(join(dir, 'link')), handle);
      posix.rename(join(dir, 'file'), join(dir, 'sub', 'moved'));
      posix.unlink(join(dir, 'link'));
      assert.deepEqual(posix.handleOf(join(dir, 'sub', 'moved')), handle);
      withHandle(dir, handle, O_RDONLY, (fd) => assert.equal(posix.read(fd, 10).toString(), 'content'));
    },
  },
  {
    name: 'a directory and a link are found by their handles',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'sub', 'file'));
      posix.symlink('target', join(dir, 'link'));
      withHandle(dir, posix.handleOf(join(dir, 'sub')), O_RDONLY | O_DIRECTORY, (fd) => {
        posix.close(posix.openAt(fd, 'file', O_RDONLY));
      });
      withHandle(dir, posix.handleOf(join(dir, 'link')), O_PATH, (fd) => {
        assert.equal(posix.fstat(fd).mode & posix.S_IFMT, posix.S_IFLNK);
      });
    },
  },
  {
    name: 'the handle of a file that is gone is stale, also when its name is taken again',
    run(dir) {
      put(join(dir, 'file'), 'old');
      const handle = posix.handleOf(join(dir, 'file'));
      posix.unlink(join(dir, 'file'));
      put(join(dir, 'file'), 'new');
      withFile(dir, O_RDONLY | O_DIRECTORY, (mount) => {
        fails('ESTALE', () => posix.openHandle(mount, handle, O_RDONLY));
      });
    },
  },
];

export const handles: Subject = {
  subject: 'handles',
  cases: cases.map((one): Subject['cases'][number] => ({ ...one, needs: ['file-handles'] })),
};
