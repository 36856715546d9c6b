/**
 * Says of a file that left its readers behind when somebody opened it for writing, once for each file: they go on reading what they
 * opened, and whoever administers the mount wants to know who they are.
 */

import { readlinkSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { readable } from '../base/text.ts';
import type { Log } from './log.ts';

/** So many files are remembered to have been named, and so many readers are named for each. */
const REMEMBERED = 1024;
const MOST_READERS = 5;

export class DetachedFiles {
  readonly #mountpoint: string;
  readonly #log: Log;
  readonly #named = new Set<string>();
  #looking = false;

  constructor(mountpoint: string, log: Log) {
    this.#mountpoint = mountpoint;
    this.#log = log;
  }

  /** `fd` is an O_PATH descriptor of the file, through the private mount of the source, and `inode` the number that the mount shows of it. */
  tell(fd: number, inode: bigint): void {
    // Readers are looked for in all processes: for one file at a time.
    if (this.#looking || this.#named.size >= REMEMBERED) return;
    let path: string;
    try {
      path = readlinkSync(`/proc/self/fd/${fd}`, 'latin1');
    } catch {
      return; // it has just been deleted
    }
    if (this.#named.has(path)) return;
    this.#named.add(path);
    this.#looking = true;
    void readersOf({ path, inode }).then((readers) => {
      this.#looking = false;
      const who = readers.length === 0 ? 'its readers' : readers.join(', ');
      this.#log(
        'notice',
        'sharing',
        `${this.#mountpoint}${readable(Buffer.from(path, 'latin1'))} was opened for writing while it was shared: ${who} ` +
          'keep what they opened; open it again to see the change, or mount with live= to keep such files live',
      );
    });
  }
}

interface File {
  /** Below the mountpoint: a letter for each byte. */
  readonly path: string;
  readonly inode: bigint;
}

/** Some processes that have a file of the mount open, as far as /proc tells. */
async function readersOf(file: File): Promise<string[]> {
  const readers: string[] = [];
  // A server holds the file for its readers, and its supervisor for the next server.
  const ours = new Set([process.pid, process.ppid]);
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || ours.has(Number(pid))) continue;
    if (!(await hasOpen(pid, file))) continue;
    const name = await readFile(`/proc/${pid}/comm`).catch(() => Buffer.from('?\n'));
    readers.push(`${readable(name.subarray(0, -1))} (${pid})`);
    if (readers.length === MOST_READERS) break;
  }
  return readers;
}

async function hasOpen(pid: string, file: File): Promise<boolean> {
  for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`, 'latin1').catch(() => '');
    // The old node has lost its name, and a process may see the mount elsewhere.
    if (target.replace(/ \(deleted\)$/, '').endsWith(file.path) && (await leadsTo(pid, fd, file))) return true;
  }
  return false;
}

/** Whether a descriptor leads to the file by a FUSE mount: others have files of that name, and the source has the file itself. */
async function leadsTo(pid: string, fd: string, { inode }: File): Promise<boolean> {
  const details = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'latin1').catch(() => '');
  const mount = /^mnt_id:\t(\d+)$/m.exec(details)?.[1];
  if (mount === undefined || !details.includes(`\nino:\t${inode}\n`)) return false;
  const mounts = await readFile(`/proc/${pid}/mountinfo`, 'latin1').catch(() => '');
  return new RegExp(`^${mount} .* - fuse`, 'm').test(mounts);
}
