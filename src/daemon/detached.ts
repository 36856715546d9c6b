/**
 * Says of a file that left its readers behind when somebody opened it for writing, once for each file: they go on reading what they
 * opened, and whoever administers the mount wants to know who they are.
 */

import { readlinkSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import type { Log } from './log.ts';

/** So many files are remembered to have been named, and so many readers are named for each. */
const REMEMBERED = 1024;
const MOST_READERS = 5;
/** The supervisor holds a descriptor of each such file as well. */
const OURS: ReadonlySet<number> = new Set([process.pid, process.ppid]);

export class DetachedFiles {
  readonly #mountpoint: string;
  readonly #log: Log;
  readonly #named = new Set<string>();
  #looking = false;

  constructor(mountpoint: string, log: Log) {
    this.#mountpoint = mountpoint;
    this.#log = log;
  }

  /** `fd` is an O_PATH descriptor of the file, through the private mount of the source. */
  tell(fd: number): void {
    // Readers are looked for in all processes: for one file at a time.
    if (this.#looking || this.#named.size >= REMEMBERED) return;
    let path: string;
    try {
      path = readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return; // it has just been deleted
    }
    if (this.#named.has(path)) return;
    this.#named.add(path);
    this.#looking = true;
    void readersOf(path).then((readers) => {
      this.#looking = false;
      const who = readers.length === 0 ? 'its readers' : readers.join(', ');
      this.#log(
        'notice',
        'sharing',
        `${this.#mountpoint}${path} was opened for writing while it was shared: ${who} ` +
          'keep what they opened; open it again to see the change, or mount with live= to keep such files live',
      );
    });
  }
}

/** Some processes that have a file of the mount open, by its path there, as far as /proc tells. */
async function readersOf(path: string): Promise<string[]> {
  const readers: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || OURS.has(Number(pid))) continue;
    if (!(await hasOpen(pid, path))) continue;
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?');
    readers.push(`${name.trim()} (${pid})`);
    if (readers.length === MOST_READERS) break;
  }
  return readers;
}

async function hasOpen(pid: string, path: string): Promise<boolean> {
  for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
    // The old node has lost its name, and a process may see the mount elsewhere.
    if (target.replace(/ \(deleted\)$/, '').endsWith(path)) return true;
  }
  return false;
}
