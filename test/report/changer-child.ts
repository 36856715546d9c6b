/**
 * Writes, grows, truncates, deletes and replaces files of a folder without pause, until its standard input ends. What it writes is
 * different every time, and nothing is ever cloned: no two files share anything.
 */

import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../mount/random.ts';
import * as posix from '../support/posix.ts';

const PAGE = 4096;
const FILES = 40;
const MAX_PAGES = 32;
const STEPS_AT_ONCE = 20;
const TOLD_AFTER = 200;

const [, , folder = '.'] = process.argv;
const random = new Random(17);
let steps = 0;

function write(path: string, sync: boolean): void {
  const fd = posix.open(path, posix.O_RDWR | posix.O_CREAT);
  posix.write(fd, random.bytes((1 + random.below(8)) * PAGE), random.below(MAX_PAGES) * PAGE);
  if (sync) posix.fsync(fd);
  posix.close(fd);
}

function change(): void {
  const path = join(folder, `file${random.below(FILES)}`);
  const dice = random.next();
  if (dice < 0.1) rmSync(path, { force: true });
  else if (dice < 0.6) write(path, random.chance(0.5));
  else if (dice < 0.8) {
    const other = join(folder, 'new');
    write(other, true);
    renameSync(other, path);
  } else {
    const fd = posix.open(path, posix.O_RDWR | posix.O_CREAT);
    posix.ftruncate(fd, random.below(MAX_PAGES) * PAGE);
    posix.close(fd);
  }
  if (++steps === TOLD_AFTER) process.stdout.write('changing\n');
}

const changing = setInterval(() => {
  for (let i = 0; i < STEPS_AT_ONCE; i++) change();
}, 1);
process.stdin.on('end', () => clearInterval(changing));
process.stdin.resume();
