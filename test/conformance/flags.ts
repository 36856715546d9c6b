/** Flags of inodes: chattr(1), ioctl_iflags(2). */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { alice, asUser } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { fails, namesIn, pattern, put, refused, type Subject, textOf, tick, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_TRUNC } = posix;
const { FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NODUMP_FL, FS_NOATIME_FL, FS_NOCOW_FL } = posix;

/** A flag that would keep a file from being deleted is taken away again, however the use ends. */
async function withFlag(name: string, flag: number, use: () => void | Promise<void>): Promise<void> {
  posix.setFlags(name, posix.getFlags(name) | flag);
  try {
    await use();
  } finally {
    posix.setFlags(name, posix.getFlags(name) & ~flag);
  }
}

export const flags: Subject = {
  subject: 'flags',
  cases: [
    {
      name: 'flags are read back as they were set, on files and directories',
      needs: ['inode-flags'],
      run(dir) {
        put(join(dir, 'file'));
        posix.mkdir(join(dir, 'sub'));
        for (const name of ['file', 'sub']) {
          const before = posix.getFlags(join(dir, name));
          for (const flag of [FS_NODUMP_FL, FS_NOATIME_FL, FS_NODUMP_FL | FS_NOATIME_FL]) {
            posix.setFlags(join(dir, name), before | flag);
            assert.equal(posix.getFlags(join(dir, name)), before | flag);
          }
          posix.setFlags(join(dir, name), before);
          assert.equal(posix.getFlags(join(dir, name)), before);
        }
      },
    },
    {
      name: 'chattr and lsattr see the same flags',
      needs: ['inode-flags'],
      run(dir) {
        put(join(dir, 'file'));
        execFileSync('chattr', ['+d', join(dir, 'file')]);
        assert.equal(posix.getFlags(join(dir, 'file')) & FS_NODUMP_FL, FS_NODUMP_FL);
        const shown = execFileSync('lsattr', [join(dir, 'file')], { encoding: 'utf8' });
        assert.match(shown.split(' ')[0] ?? '', /d/);
      },
    },
    {
      name: 'setting a flag moves ctime and leaves the content',
      needs: ['inode-flags'],
      run(dir) {
        put(join(dir, 'file'), 'content');
        const before = posix.stat(join(dir, 'file'));
        tick();
        posix.setFlags(join(dir, 'file'), posix.getFlags(join(dir, 'file')) | FS_NODUMP_FL);
        const after = posix.stat(join(dir, 'file'));
        assert.ok(after.ctimeNs > before.ctimeNs);
        assert.equal(after.mtimeNs, before.mtimeNs);
        assert.equal(textOf(join(dir, 'file')), 'content');
      },
    },
    {
      name: 'the owner sets harmless flags, and nobody but root immutable or append-only',
      needs: ['immutable'],
      async run(dir) {
        put(join(dir, 'file'), '', 0o644);
        await refused('EPERM', asUser(alice).call('setFlags', join(dir, 'file'), FS_NODUMP_FL));
        posix.chown(join(dir, 'file'), alice.uid, alice.gid);
        const before = posix.getFlags(join(dir, 'file'));
        await asUser(alice).call('setFlags', join(dir, 'file'), before | FS_NODUMP_FL);
        await refused('EPERM', asUser(alice).call('setFlags', join(dir, 'file'), before | FS_IMMUTABLE_FL));
        await refused('EPERM', asUser(alice).call('setFlags', join(dir, 'file'), before | FS_APPEND_FL));
        assert.equal(posix.getFlags(join(dir, 'file')), before | FS_NODUMP_FL);
      },
    },
    {
      name: 'an immutable file is not changed in any way, not even by root',
      needs: ['immutable'],
      async run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        posix.setXattr(file, 'user.name', 'value');
        await withFlag(file, FS_IMMUTABLE_FL, () => {
          fails('EPERM', () => posix.open(file, O_WRONLY));
          fails('EPERM', () => posix.open(file, O_RDWR | O_TRUNC));
          fails('EPERM', () => posix.truncate(file, 0));
          fails('EPERM', () => posix.unlink(file));
          fails('EPERM', () => posix.rename(file, join(dir, 'moved')));
          fails('EPERM', () => posix.link(file, join(dir, 'linked')));
          fails('EPERM', () => posix.chmod(file, 0o600));
          fails('EPERM', () => posix.chown(file, 1, 1));
          fails('EPERM', () => posix.setTimes(file, 1n, 1n));
          fails('EPERM', () => posix.setXattr(file, 'user.name', 'other'));
          fails('EPERM', () => posix.removeXattr(file, 'user.name'));
          assert.equal(textOf(file), 'content');
          assert.equal(posix.getXattr(file, 'user.name').toString(), 'value');
        });
        posix.truncate(file, 3);
        assert.deepEqual(namesIn(dir), ['file']);
      },
    },
    {
      name: 'in an immutable directory nothing is made, moved or removed, but files are changed',
      needs: ['immutable'],
      async run(dir) {
        const sub = join(dir, 'sub');
        posix.mkdir(sub);
        put(join(sub, 'file'), 'content');
        await withFlag(sub, FS_IMMUTABLE_FL, () => {
          fails('EPERM', () => posix.open(join(sub, 'new'), O_CREAT | O_WRONLY));
          fails('EPERM', () => posix.mkdir(join(sub, 'new')));
          fails('EPERM', () => posix.rmdir(sub));
          fails('EPERM', () => posix.unlink(join(sub, 'file')));
          fails('EPERM', () => posix.rename(join(sub, 'file'), join(dir, 'moved')));
          fails('EPERM', () => posix.rename(sub, join(dir, 'moved')));
          withFile(join(sub, 'file'), O_WRONLY, (fd) => posix.write(fd, 'CON'));
        });
        assert.equal(textOf(join(sub, 'file')), 'CONtent');
      },
    },
    {
      name: 'an append-only file grows, and nothing else',
      needs: ['immutable'],
      async run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        await withFlag(file, FS_APPEND_FL, () => {
          fails('EPERM', () => posix.open(file, O_WRONLY));
          fails('EPERM', () => posix.open(file, O_WRONLY | O_APPEND | O_TRUNC));
          fails('EPERM', () => posix.truncate(file, 0));
          fails('EPERM', () => posix.unlink(file));
          fails('EPERM', () => posix.rename(file, join(dir, 'moved')));
          withFile(file, O_WRONLY | O_APPEND, (fd) => {
            posix.write(fd, ' grows');
            fails('EPERM', () => posix.ftruncate(fd, 0));
          });
        });
        assert.equal(textOf(file), 'content grows');
      },
    },
    {
      name: 'appending cannot be turned off on a descriptor of an append-only file',
      needs: ['immutable'],
      async run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        await withFlag(file, FS_APPEND_FL, () => {
          withFile(file, O_WRONLY | O_APPEND, (fd) => fails('EPERM', () => posix.setStatusFlags(fd, 0)));
        });
      },
    },
    {
      name: 'a descriptor that was open before goes on writing an immutable file',
      needs: ['immutable'],
      async run(dir) {
        const file = join(dir, 'file');
        put(file, 'content');
        const fd = posix.open(file, O_RDWR);
        try {
          await withFlag(file, FS_IMMUTABLE_FL, () => {
            assert.equal(posix.read(fd, 7, 0).toString(), 'content');
            fails('EPERM', () => posix.open(file, O_WRONLY));
          });
          posix.write(fd, 'CON', 0);
        } finally {
          posix.close(fd);
        }
        assert.equal(textOf(file), 'CONtent');
      },
    },
    {
      name: 'an empty file may be made NOCOW, and then works as any other',
      needs: ['nocow'],
      run(dir) {
        const file = join(dir, 'file');
        put(file);
        posix.setFlags(file, posix.getFlags(file) | FS_NOCOW_FL);
        withFile(file, O_RDWR, (fd) => {
          posix.write(fd, pattern(100_000));
          posix.fsync(fd);
          posix.write(fd, 'changed', 50_000);
        });
        assert.equal(posix.getFlags(file) & FS_NOCOW_FL, FS_NOCOW_FL);
        assert.equal(textOf(file).slice(50_000, 50_007), 'changed');
        const expected = pattern(100_000).toString('latin1');
        assert.equal(textOf(file).slice(50_007), expected.slice(50_007));
      },
    },
    {
      name: 'statx shows immutable and append-only',
      needs: ['immutable'],
      async run(dir) {
        const file = join(dir, 'file');
        put(file);
        const attributes = () => posix.stat(file).attributes & (posix.STATX_ATTR_IMMUTABLE | posix.STATX_ATTR_APPEND);
        assert.equal(attributes(), 0);
        await withFlag(file, FS_IMMUTABLE_FL, () => assert.equal(attributes(), posix.STATX_ATTR_IMMUTABLE));
        await withFlag(file, FS_APPEND_FL, () => assert.equal(attributes(), posix.STATX_ATTR_APPEND));
      },
    },
    {
      name: 'flags follow the file through a rename and a hard link, and a new file has none of them',
      needs: ['inode-flags'],
      run(dir) {
        put(join(dir, 'file'));
        posix.setFlags(join(dir, 'file'), posix.getFlags(join(dir, 'file')) | FS_NODUMP_FL);
        posix.rename(join(dir, 'file'), join(dir, 'moved'));
        posix.link(join(dir, 'moved'), join(dir, 'linked'));
        put(join(dir, 'file'));
        assert.equal(posix.getFlags(join(dir, 'linked')) & FS_NODUMP_FL, FS_NODUMP_FL);
        assert.equal(posix.getFlags(join(dir, 'file')) & FS_NODUMP_FL, 0);
        withFile(join(dir, 'linked'), O_RDONLY, (fd) => posix.fsync(fd));
      },
    },
  ],
};
