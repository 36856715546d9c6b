/** What is found out of other processes' descriptors, and what is taken for so where nothing can be. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { OpenDescriptors } from '../../../src/sys/processes.ts';

function mountOf(fd: number): number {
  return Number(/^mnt_id:\t(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]);
}

test('a descriptor leads to its inode by its mount until it is closed, whichever thread of the process is asked', () => {
  const processes = new OpenDescriptors();
  const fd = openSync('/etc/passwd', 'r');
  const inode = fstatSync(fd, { bigint: true }).ino;
  const watch = { thread: process.pid, mount: mountOf(fd), descriptors: [fd] };
  assert.deepEqual(processes.descriptorsOn(process.pid, watch.mount, inode), [fd]);
  assert.equal(processes.areOn(watch, process.pid, inode), true);
  assert.equal(processes.areOn({ ...watch, thread: 2 ** 22 + 1 }, process.pid, inode), true, 'the thread has ended');
  assert.equal(processes.areOn({ ...watch, thread: 2 ** 22 + 1 }, 2 ** 22 + 1, inode), false, 'the process has ended');
  assert.equal(processes.areOn({ ...watch, mount: watch.mount + 1 }, process.pid, inode), false);
  assert.equal(processes.areOn(watch, process.pid, inode + 1n), false);
  closeSync(fd);
  assert.equal(processes.areOn(watch, process.pid, inode), false);
  assert.deepEqual(processes.descriptorsOn(process.pid, watch.mount, inode), []);
});

/** Has no descriptor left, and then has some again. */
const EXHAUSTED = `
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { OpenDescriptors } from '${fileURLToPath(new URL('../../../src/sys/processes.js', import.meta.url))}';
const processes = new OpenDescriptors();
const fd = openSync('/etc/passwd', 'r');
const inode = fstatSync(fd, { bigint: true }).ino;
const mount = Number(/^mnt_id:\\t(\\d+)$/m.exec(readFileSync('/proc/self/fdinfo/' + fd, 'latin1'))[1]);
const watch = { thread: process.pid, mount, descriptors: [fd] };
closeSync(fd);
const told = [processes.areOn(watch, process.pid, inode)];
execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=64:']);
const taken = [];
try { for (;;) taken.push(openSync('/dev/null', 'r')); } catch (error) { told.push(error.code); }
told.push(processes.areOn(watch, process.pid, inode), processes.asksFor(process.pid) ?? null);
told.push(processes.descriptorsOn(process.pid, mount, inode), processes.threadsOf(process.pid));
for (const one of taken) closeSync(one);
told.push(processes.areOn(watch, process.pid, inode));
console.log(JSON.stringify(told));
`;

test('who can look at nothing takes no lock away, and makes no mistake', () => {
  const args = ['--input-type=module', '-e', EXHAUSTED];
  const told: unknown = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 }));
  assert.deepEqual(told, [false, 'EMFILE', true, null, [], [], false]);
});
