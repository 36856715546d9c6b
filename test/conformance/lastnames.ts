/** Files that have lost their last name and are open nowhere: who has a descriptor of the path only has the file all the same. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { put, type Subject, sizeOf, withFile } from './case.ts';

const { O_PATH, O_RDONLY, O_NOFOLLOW } = posix;

const ends: readonly (readonly [string, (dir: string) => void])[] = [
  ['unlinked', (dir) => posix.unlink(join(dir, 'file'))],
  [
    'replaced',
    (dir) => {
      put(join(dir, 'new'), 'another');
      posix.rename(join(dir, 'new'), join(dir, 'file'));
    },
  ],
];

export const lastNames: Subject = {
  subject: 'last names',
  cases: [
    ...ends.map(([what, end]) => ({
      name: `a descriptor of the path of a file that is ${what} still tells its status, and opens and changes it`,
      run(dir: string) {
        put(join(dir, 'file'), 'content');
        withFile(join(dir, 'file'), O_PATH, (fd) => {
          end(dir);
          assert.deepEqual([posix.fstat(fd).nlink, posix.fstat(fd).size], [0, 7]);
          const path = `/proc/self/fd/${fd}`;
          assert.equal(readFileSync(path, 'latin1'), 'content');
          withFile(path, posix.O_RDWR, (writer) => posix.write(writer, 'C'));
          withFile(path, O_RDONLY, (reader) => assert.equal(posix.read(reader, 10).toString(), 'Content'));
          posix.chmod(path, 0o600);
          posix.truncate(path, 3);
          assert.deepEqual([posix.fstat(fd).mode & 0o7777, sizeOf(path)], [0o600, 3]);
        });
      },
    })),
    {
      name: 'a descriptor of the path of one of two names that go, one after the other, keeps the file',
      run(dir) {
        put(join(dir, 'file'), 'content');
        posix.link(join(dir, 'file'), join(dir, 'other'));
        withFile(join(dir, 'file'), O_PATH | O_NOFOLLOW, (fd) => {
          posix.unlink(join(dir, 'file'));
          assert.equal(posix.fstat(fd).nlink, 1);
          posix.unlink(join(dir, 'other'));
          assert.equal(posix.fstat(fd).nlink, 0);
          assert.equal(readFileSync(`/proc/self/fd/${fd}`, 'latin1'), 'content');
        });
      },
    },
  ],
};
