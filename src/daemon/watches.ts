/**
 * Watches (inotify(7)) of a node that was detached would never hear of the file again. Those who watch get one event, IN_ATTRIB, as
 * they do of a file that loses its name: they look the name up again, and watch what it leads to.
 *
 * Only the kernel makes such events, of changes through the mount. So an extended attribute is set that no file has: whichever server
 * answers the request changes nothing (`filesystem/xattrs.ts: setxattr`), be it late, or after the file has changed. A process of its
 * own does it (`wakechild.ts`), which holds nothing of the mount: one with /dev/fuse open that waited for the mount, when it was
 * killed together with the server, could neither end nor let the connection end.
 */

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('./wakechild.js', import.meta.url));
/** Nodes whose watchers wait for their turn: the others hear nothing. */
const MOST_WAITING = 64;

export class Watches {
  readonly #mountpoint: string;
  readonly #minor: number;
  readonly #waiting: string[] = [];
  #running = false;

  /** `minor` is the device number of the mount, which is looked at before anything is done to what its path leads to. */
  constructor(mountpoint: string, minor: number) {
    this.#mountpoint = mountpoint;
    this.#minor = minor;
  }

  /** Makes an event for those who watch a node, named by its id and generation, one node after the other. */
  wake(node: string): void {
    if (this.#waiting.length < MOST_WAITING) this.#waiting.push(node);
    if (!this.#running) this.#next();
  }

  #next(): void {
    const node = this.#waiting.shift();
    this.#running = node !== undefined;
    if (node === undefined) return;
    const child = spawn(process.execPath, [PROGRAM, this.#mountpoint, String(this.#minor), ...node.split(' ')], {
      stdio: 'ignore',
      detached: true,
    });
    child.unref();
    child.on('error', () => this.#next());
    child.on('exit', () => this.#next());
  }
}
