/**
 * How a file leaves the shared route, when somebody wants to write to it or it turns out to have changed.
 *
 *     shared ──a writer comes──► he waits for the readers, and those who come meanwhile wait for him
 *                 │ the last reader closes                    │ some stay (PATIENCE_MS)
 *                 ▼                                           ▼
 *              closed, and the writer goes on              detached
 *     shared ──found changed───────────────────────────────► detached
 *
 * A detached node keeps its readers and the mapping, and isn't found by its handle any more. The kernel is told ESTALE, looks the
 * name up again and gets a new node for the same file, which isn't shared for a while (`choose.ts: isLive`): so the second open
 * never meets a reader, and a name is looked up again once at the most, as the kernel does (fs/namei.c: do_filp_open).
 */

import { ESTALE } from '../../base/errno.ts';
import * as c from '../../base/linux.ts';
import type { Memory } from '../../base/memory.ts';
import type { SourceCalls } from '../calls.ts';
import type { NodeDescriptors } from '../descriptors.ts';
import { NO_NODE, type NodeTable } from '../nodes.ts';
import type { OpenTable } from '../opens.ts';
import { SCRATCH } from '../scratch.ts';
import { Stat } from '../stat.ts';
import type { Chooser, SharedMappings } from './choose.ts';
import { openFile } from './passthrough.ts';
import { ROUTES } from './route.ts';

/** How long a writer waits for readers. */
export const PATIENCE_MS = 100;
/** Within so long the kernel asks again for what it was told ESTALE of. */
const AGAIN_MS = 1000;
const REMEMBERED = 64;

export interface LeavingOptions {
  readonly calls: SourceCalls;
  readonly nodes: NodeTable;
  readonly opens: OpenTable;
  readonly descriptors: NodeDescriptors;
  readonly mountFd: number;
  readonly scratch: Memory;
  readonly mappings: SharedMappings;
  readonly chooser: Chooser;
  /** How long a writer waits, in milliseconds; 0 is not at all. */
  readonly patienceMs: number;
  readonly monotonicMs: () => number;
  readonly invalidateAttributes: (nodeid: number) => void;
  /** Told of a node that was detached, and an O_PATH descriptor of its file. */
  readonly onDetached: (slot: number, fd: number) => void;
}

interface Waiting {
  readonly over: Promise<void>;
  end(): void;
}

export class Leaving {
  /** Files that left readers behind. */
  detached = 0;
  /** Writers that waited, until the last reader had closed. */
  waited = 0;
  readonly #o: LeavingOptions;
  readonly #stat: Stat;
  /** Nodes that writers wait for. */
  readonly #waiting = new Map<number, Waiting>();
  /** Threads that were told ESTALE, the latest ones: of which detached node, and when. */
  readonly #told = new Map<number, { readonly slot: number; readonly ms: number }>();

  constructor(options: LeavingOptions) {
    this.#o = options;
    this.#stat = new Stat(options.scratch, SCRATCH.look);
  }

  /** Settles when the writers who wait for a node's readers go on. */
  pending(slot: number): Promise<void> | undefined {
    return this.#waiting.size === 0 ? undefined : this.#waiting.get(slot)?.over;
  }

  /**
   * A node is to be written to: 0 if it may be; ESTALE if it is, or has just been, detached; or when to ask again, not `patient`
   * any more.
   */
  toWrite(slot: number, patient: boolean): number | Promise<void> {
    const { nodes } = this.#o;
    if (nodes.isDetached(slot)) return this.elsewhere(slot, true);
    if (!this.#isShared(slot)) return 0;
    if (patient && this.#o.patienceMs > 0) return this.#wait(slot);
    this.#detach(slot);
    return -ESTALE;
  }

  /** The last open of a node is gone: writers who wait for its readers go on. */
  closed(slot: number): void {
    const waiting = this.#waiting.get(slot);
    if (waiting === undefined) return;
    this.waited++;
    waiting.end();
  }

  /**
   * A detached node was asked for, by a name that still leads to it. The answer is ESTALE, on which the kernel looks the name
   * up again, but only once: the node that it then finds must not have to leave the shared route in its turn.
   */
  elsewhere(slot: number, writing: boolean): number {
    const successor = this.#o.nodes.successor(slot);
    if (successor !== NO_NODE && this.#isShared(successor)) {
      if (writing) this.#detach(successor);
      else this.stillShared(successor);
    }
    return -ESTALE;
  }

  /**
   * Whether a thread asks for a detached node again right after it was told ESTALE. Then no name leads there, but a link of
   * /proc/self/fd, and the readers' open file is what it stands for.
   */
  asksAgain(slot: number, thread: number): boolean {
    const now = this.#o.monotonicMs();
    const told = this.#told.get(thread);
    this.#told.delete(thread);
    // Threads that the server can't see all have the number 0.
    if (thread !== 0 && told?.slot === slot && now - told.ms < AGAIN_MS) return true;
    for (const oldest of this.#told.keys()) {
      if (this.#told.size < REMEMBERED) break;
      this.#told.delete(oldest);
    }
    this.#told.set(thread, { slot, ms: now });
    return false;
  }

  /** A thread opens another node: it has looked the name up again. */
  goesOn(thread: number): void {
    if (this.#told.size > 0) this.#told.delete(thread);
  }

  /**
   * Whether a node that is open on the shared route still has the mapping's bytes, as far as its attributes tell; if not, it has
   * left the route. To be asked of attributes that callers are about to see: they must not show what the readers can't read.
   */
  seen(slot: number, stat: Pick<Stat, 'ctime' | 'ctimensec' | 'size'>): boolean {
    if ((this.#o.opens.byRoute[ROUTES.shared] ?? 0) === 0) return true;
    if (!this.#isShared(slot) || this.#o.nodes.isDetached(slot)) return true;
    return this.#o.chooser.known(slot, stat) >= 0 || this.#lookAgain(slot);
  }

  /** Whether a file that is open on the shared route still has the mapping's bytes; if not, it has left the route. */
  stillShared(slot: number): boolean {
    if (!this.#isShared(slot)) return true;
    const { calls, nodes, mountFd, chooser } = this.#o;
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC);
    if (fd >= 0) {
      const read = this.#stat.read(calls, fd);
      calls.close(fd);
      if (read >= 0 && chooser.known(slot, this.#stat) >= 0) return true;
    }
    return this.#lookAgain(slot);
  }

  /** Compares the file's extents with the mapping's: a change of mode moves ctime as well. */
  #lookAgain(slot: number): boolean {
    const { calls, nodes, opens, mountFd, chooser } = this.#o;
    const fd = openFile(calls, nodes, mountFd, slot);
    const same = fd >= 0 && chooser.holds(slot, fd, opens.mapping(nodes.openRow(slot)));
    if (fd >= 0) calls.close(fd);
    if (!same) this.#detach(slot);
    return same;
  }

  #isShared(slot: number): boolean {
    const { nodes, opens } = this.#o;
    const row = nodes.openRow(slot);
    return row >= 0 && opens.route(row) === ROUTES.shared;
  }

  #wait(slot: number): Promise<void> {
    const known = this.#waiting.get(slot);
    if (known !== undefined) return known.over;
    let end = (): void => {};
    const over = new Promise<void>((resolve) => {
      const timer = setTimeout(() => end(), this.#o.patienceMs);
      end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    // Whoever comes before the writers go on waits behind them.
    void over.then(() => this.#waiting.delete(slot));
    this.#waiting.set(slot, { over, end });
    return over;
  }

  #detach(slot: number): void {
    const { calls, nodes, opens, descriptors, mountFd, mappings, chooser } = this.#o;
    const { invalidateAttributes, onDetached } = this.#o;
    if (nodes.isDetached(slot)) return;
    this.detached++;
    nodes.detach(slot);
    chooser.leftBehind(slot);
    mappings.learnLive(opens.mapping(nodes.openRow(slot)));
    // Nothing finds the node when its file is deleted later, and its readers go on asking for its attributes.
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC);
    if (fd >= 0) {
      onDetached(slot, fd);
      descriptors.pin(slot, fd);
    }
    invalidateAttributes(slot + 1);
  }
}
