/**
 * O_PATH descriptors of nodes. A node is opened by its handle for one operation and closed again; two kinds stay open:
 * directories that were used lately (a direct-mapped cache, since every LOOKUP and CREATE needs its parent's), and nodes
 * that nothing else keeps alive: directories removed while the kernel still knows them, unlinked special files, unlinked
 * files that are open on a shared mapping, detached nodes, and btrfs placeholders, which can't be opened by handle at all.
 * The latter are pinned until the kernel forgets them; a copy of each is
 * held elsewhere, so that they outlive this process.
 *
 * A file that loses its last name while it may be on its way from a lookup to an open, or is known by an O_PATH descriptor
 * only, is pinned briefly: without a copy, since the kernel forgets nearly all of them with the next request, and for a
 * minute at the most. The kernel goes by its own count of links, which may be too high when somebody removed names around
 * the mount; it then remembers the file as long as it has memory, and the file's space must not be held for so long.
 */

import { EMFILE } from '../base/errno.ts';
import { O_CLOEXEC, O_NOFOLLOW, O_PATH, S_IFDIR } from '../base/linux.ts';
import type { SourceCalls } from './calls.ts';
import type { NodeTable } from './nodes.ts';

const CACHED_DIRECTORIES = 512;

/** Who holds copies of descriptors for a later server. */
export interface Holder {
  keep(name: string, fd: number): void;
  drop(name: string): void;
}

const PIN = 'pin-';

/** How long, in milliseconds, and how many files at a time are pinned briefly. */
const BRIEF_MS = 60_000;
const BRIEF_COUNT = 4096;

export class NodeDescriptors {
  readonly #calls: SourceCalls;
  readonly #nodes: NodeTable;
  readonly #mountFd: number;
  readonly #holder: Holder;
  readonly #cachedSlots = new Int32Array(CACHED_DIRECTORIES).fill(-1);
  readonly #cachedFds = new Int32Array(CACHED_DIRECTORIES).fill(-1);
  readonly #pinned = new Map<number, number>();
  /** When what is pinned briefly was pinned, the oldest first. */
  readonly #brief = new Map<number, number>();
  /** The directory acquired last, and the descriptor evicted last: an operation uses two directories at the most. */
  #latest = -1;
  #evicted = -1;

  constructor(calls: SourceCalls, nodes: NodeTable, mountFd: number, holder: Holder) {
    this.#holder = holder;
    this.#calls = calls;
    this.#nodes = nodes;
    this.#mountFd = mountFd;
  }

  get pinnedCount(): number {
    return this.#pinned.size;
  }

  /** An O_PATH descriptor of the node, or a negated errno. To be given back by `release`. */
  acquire(slot: number): number {
    const directory = this.#nodes.type(slot) === S_IFDIR;
    const line = slot & (CACHED_DIRECTORIES - 1);
    if (directory && this.#cachedSlots[line] === slot) {
      this.#latest = slot;
      return this.#cachedFds[line] ?? -1;
    }
    const pinned = this.#pinned.size > 0 ? this.#pinned.get(slot) : undefined;
    if (pinned !== undefined) return pinned;
    let fd = this.#open(slot);
    if (fd === -EMFILE && this.#dropCached()) fd = this.#open(slot);
    if (fd < 0 || !directory) return fd;
    const evicted = this.#cachedFds[line] ?? -1;
    if (evicted >= 0) {
      // It may be the first of the two that this operation uses: it is closed when the next one is evicted.
      if (this.#evicted >= 0) this.#calls.close(this.#evicted);
      this.#evicted = evicted;
    }
    this.#cachedSlots[line] = slot;
    this.#cachedFds[line] = fd;
    this.#latest = slot;
    return fd;
  }

  release(slot: number, fd: number): void {
    if (this.#nodes.type(slot) === S_IFDIR) return; // cached or pinned
    if (this.#pinned.size > 0 && this.#pinned.get(slot) === fd) return;
    this.#calls.close(fd);
  }

  isPinned(slot: number): boolean {
    return this.#pinned.has(slot);
  }

  /** Keeps the node alive, by a descriptor that it takes over, until it is forgotten. */
  pin(slot: number, fd: number): void {
    if (this.#pinned.has(slot)) {
      this.#calls.close(fd);
      return;
    }
    this.#pinned.set(slot, fd);
    this.#holder.keep(`${PIN}${slot}`, fd);
  }

  /** Keeps a file alive that nobody has open, by a descriptor that is taken over, until it is forgotten, or for a minute. */
  pinBriefly(slot: number, fd: number, now: number): void {
    for (const oldest of this.#brief.keys()) {
      if (this.#brief.size < BRIEF_COUNT) break;
      this.unpin(oldest);
    }
    this.#pinned.set(slot, fd);
    this.#brief.set(slot, now);
  }

  /** Lets go of what was pinned briefly a minute ago. */
  expire(now: number): void {
    for (const [slot, since] of this.#brief) {
      if (since <= now && now - since < BRIEF_MS) return;
      this.unpin(slot);
    }
  }

  unpin(slot: number): void {
    const pinned = this.#pinned.get(slot);
    if (pinned === undefined) return;
    this.#pinned.delete(slot);
    this.#calls.close(pinned);
    if (!this.#brief.delete(slot)) this.#holder.drop(`${PIN}${slot}`);
  }

  /** Takes over what an earlier server pinned, if the name is that of a pin; what it is of no use to is closed. */
  adopt(name: string, fd: number): void {
    if (!name.startsWith(PIN)) return;
    const slot = Number(name.slice(PIN.length));
    if (this.#nodes.has(slot)) {
      this.#pinned.set(slot, fd);
      return;
    }
    this.#calls.close(fd);
    this.#holder.drop(name);
  }

  /** The kernel has forgotten the node. */
  forget(slot: number): void {
    const line = slot & (CACHED_DIRECTORIES - 1);
    if (this.#cachedSlots[line] === slot) this.#drop(line);
    if (this.#pinned.size > 0) this.unpin(slot);
  }

  closeAll(): void {
    this.#latest = -1;
    this.#dropCached();
    if (this.#evicted >= 0) this.#calls.close(this.#evicted);
    this.#evicted = -1;
    for (const fd of this.#pinned.values()) this.#calls.close(fd);
    this.#pinned.clear();
    this.#brief.clear();
  }

  #open(slot: number): number {
    return this.#calls.openByHandleAt(this.#mountFd, this.#nodes.handleAddress(slot), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  }

  #drop(line: number): void {
    const fd = this.#cachedFds[line] ?? -1;
    this.#cachedSlots[line] = -1;
    this.#cachedFds[line] = -1;
    if (fd >= 0) this.#calls.close(fd);
  }

  /** Gives back all cached descriptors but the one in use, and what is pinned briefly; returns whether there were any. */
  #dropCached(): boolean {
    let dropped = false;
    for (let line = 0; line < CACHED_DIRECTORIES; line++) {
      if ((this.#cachedFds[line] ?? -1) < 0 || this.#cachedSlots[line] === this.#latest) continue;
      this.#drop(line);
      dropped = true;
    }
    for (const slot of this.#brief.keys()) {
      this.unpin(slot);
      dropped = true;
    }
    return dropped;
  }
}
