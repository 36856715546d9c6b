/** Programs that are run from the filesystem: execve(2), and how it protects what is running. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { alice, asUser, bob } from '../support/asuser.ts';
import { type ExecResult, exec } from '../support/operations.ts';
import * as posix from '../support/posix.ts';
import { fails, put, type Subject, textOf, withFile } from './case.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_TRUNC } = posix;

/** A copy of one of the system's own programs. */
function install(program: string, name: string, mode = 0o755): void {
  copyFileSync(realpathSync(`/usr/bin/${program}`), name);
  posix.chmod(name, mode);
}

/** Runs `sleep` from here, while `use` looks at it. It runs when this returns from waiting for its exec. */
async function whileRunning(program: string, use: () => void | Promise<void>): Promise<void> {
  const child: ChildProcess = spawn(program, ['60'], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  try {
    // spawn returns, and the event comes, when execve has succeeded.
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    await use();
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

function output(result: ExecResult): string {
  assert.deepEqual([result.error, result.status, result.stderr], [undefined, 0, '']);
  return result.stdout.trim();
}

const running: Subject['cases'] = [
  {
    name: 'a binary and a script run, as root and as another user',
    async run(dir) {
      install('echo', join(dir, 'binary'));
      put(join(dir, 'script'), '#!/bin/sh\necho "script $1"\n', 0o755);
      for (const run of [
        async (file: string) => exec(file, 'argument'),
        async (file: string) => asUser(alice).call('exec', file, 'argument'),
      ]) {
        assert.equal(output(await run(join(dir, 'binary'))), 'argument');
        assert.equal(output(await run(join(dir, 'script'))), 'script argument');
      }
    },
  },
  {
    name: 'a script may have an interpreter from here, and a script for a link',
    run(dir) {
      install('dash', join(dir, 'shell'));
      put(join(dir, 'script'), `#!${join(dir, 'shell')}\necho "$0"\n`, 0o755);
      posix.symlink('script', join(dir, 'link'));
      assert.equal(output(exec(join(dir, 'link'))), join(dir, 'link'));
    },
  },
  {
    name: 'without an executable bit nobody runs a file, not even root',
    async run(dir) {
      install('echo', join(dir, 'program'), 0o644);
      assert.equal(exec(join(dir, 'program')).error, 'EACCES');
      posix.chmod(join(dir, 'program'), 0o744);
      assert.equal(output(exec(join(dir, 'program'), 'x')), 'x');
      assert.equal((await asUser(alice).call('exec', join(dir, 'program'))).error, 'EACCES');
    },
  },
  {
    name: 'a program that may be run but not read is run',
    async run(dir) {
      install('echo', join(dir, 'program'), 0o711);
      const result = await asUser(alice).call('exec', join(dir, 'program'), 'x');
      assert.equal(output(result), 'x');
    },
  },
  {
    name: 'what is no program is not run',
    run(dir) {
      put(join(dir, 'empty'), '', 0o755);
      put(join(dir, 'lost'), '#!/missing/interpreter\n', 0o755);
      posix.mkdir(join(dir, 'sub'));
      posix.mknod(join(dir, 'fifo'), posix.S_IFIFO | 0o755);
      assert.equal(exec(join(dir, 'lost')).error, 'ENOENT');
      assert.equal(exec(join(dir, 'missing')).error, 'ENOENT');
      assert.equal(exec(join(dir, 'sub')).error, 'EACCES');
      assert.equal(exec(join(dir, 'fifo')).error, 'EACCES');
    },
  },
  {
    name: 'a program that was just written runs at once, also over an older one',
    run(dir) {
      const program = join(dir, 'program');
      for (let round = 0; round < 5; round++) {
        put(`${program}.new`, `#!/bin/sh\necho ${round}\n`, 0o755);
        posix.rename(`${program}.new`, program);
        assert.equal(output(exec(program)), `${round}`);
      }
    },
  },
  {
    name: 'a set-user-ID program runs as its owner, and a set-group-ID program as its group',
    async run(dir) {
      install('id', join(dir, 'id'));
      posix.chown(join(dir, 'id'), bob.uid, bob.gid);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-u')), `${alice.uid}`);
      posix.chmod(join(dir, 'id'), 0o4755);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-u')), `${bob.uid}`);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-g')), `${alice.gid}`);
      posix.chmod(join(dir, 'id'), 0o2755);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-u')), `${alice.uid}`);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-g')), `${bob.gid}`);
      posix.chown(join(dir, 'id'), 0, 0);
      posix.chmod(join(dir, 'id'), 0o4755);
      assert.equal(output(await asUser(alice).call('exec', join(dir, 'id'), '-u')), '0');
    },
  },
  {
    name: 'the working directory of a program may be here',
    run(dir) {
      posix.mkdir(join(dir, 'sub'));
      put(join(dir, 'sub', 'file'), 'content');
      const result = exec('/bin/sh', '-c', `cd "${join(dir, 'sub')}" && pwd -P && cat file`);
      assert.equal(output(result), `${realpathSync(join(dir, 'sub'))}\ncontent`);
    },
  },
];

const protecting: Subject['cases'] = [
  {
    name: 'a running program is not opened for writing nor cut, until it ends',
    async run(dir) {
      const program = join(dir, 'sleep');
      install('sleep', program);
      await whileRunning(program, () => {
        fails('ETXTBSY', () => posix.open(program, O_WRONLY));
        fails('ETXTBSY', () => posix.open(program, O_RDWR));
        fails('ETXTBSY', () => posix.open(program, O_WRONLY | O_TRUNC));
        fails('ETXTBSY', () => posix.truncate(program, 0));
        posix.close(posix.open(program, O_RDONLY));
      });
      posix.close(posix.open(program, O_WRONLY));
    },
  },
  {
    name: 'a program that is open for writing is not run, until it is closed',
    run(dir) {
      const program = join(dir, 'program');
      install('echo', program);
      withFile(program, O_WRONLY, () => {
        assert.equal(exec(program, 'x').error, 'ETXTBSY');
      });
      assert.equal(output(exec(program, 'x')), 'x');
    },
  },
  {
    name: 'a running program may be renamed, replaced, unlinked and changed in mode',
    async run(dir) {
      const program = join(dir, 'sleep');
      install('sleep', program);
      await whileRunning(program, () => {
        posix.rename(program, `${program}.moved`);
        posix.chmod(`${program}.moved`, 0o700);
        put(program, 'replaced');
        posix.rename(program, `${program}.moved`);
        assert.equal(textOf(`${program}.moved`), 'replaced');
        posix.unlink(`${program}.moved`);
      });
    },
  },
  {
    name: 'a program that was replaced while it ran is written again at once',
    async run(dir) {
      const program = join(dir, 'sleep');
      install('sleep', program);
      await whileRunning(program, () => {
        install('echo', `${program}.new`);
        posix.rename(`${program}.new`, program);
        posix.close(posix.open(program, O_RDWR));
        assert.equal(output(exec(program, 'new one')), 'new one');
      });
    },
  },
];

export const programs: Subject = { subject: 'programs', cases: [...running, ...protecting] };
