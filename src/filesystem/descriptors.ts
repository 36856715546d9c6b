/**
 * O_PATH descriptors of nodes. A node is opened by its handle for one operation and closed again; two kinds stay open:
 * directories that were used lately (a direct-mapped cache, since every LOOKUP and CREATE needs its parent's), and nodes
 * that nothing else keeps alive: directories removed while the kernel still knows them, unlinked special files, unlinked
 * files that are open on a shared mapping, detached nodes, and btrfs placeholders, which can't be opened by handle at all.
 * The latter are pinned until the kernel forgets them; a copy of each is
 * held elsewhere, so that they outlive this process, under the name of the node: its slot and generation. What a later server gets
 * under such a name is used only if it is the node's inode. A node that has lost its descriptor has lost its inode: ESTALE.
 *
 * A file that loses its last name while it may be on its way from a lookup to an open, or is known by an O_PATH descriptor
 * only, is pinned briefly: without a copy, since the kernel forgets nearly all of them with the next request, and for a
 * minute at the most. The kernel goes by its own count of links, which may be too high when somebody removed names around
 * the mount; it then remembers the file as long as it has memory, and the file's space must not be held for so long.
 */

import { EMFILE } from '../base/errno.ts';
import { AT_EMPTY_PATH, O_CLOEXEC, O_NOFOLLOW, O_PATH, S_IFDIR } from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import type { SourceCalls } from './calls.ts';
import { F_HANDLE_BYTES, HANDLE_BYTES, isSameInode } from './handles.ts';
import type { NodeTable } from './nodes.ts';
import { SCRATCH } from './scratch.ts';

const CACHED_DIRECTORIES = 512;

/** Who holds copies of descriptors for a later server. What is to be kept stays open until it is dropped. */
export interface Holder {
  keep(name: string, fd: number): void;
  drop(name: string): void;
}

const PIN = /^pin-(\d+)-(\d+)$/;

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
  /** Pins of an earlier server that were of no use: their node is gone, or another inode by now. */
  refused = 0;
  /** Nodes that an earlier server had pinned and whose descriptor wasn't handed over. */
  lost = 0;
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
      this.pinOn(slot);
      return;
    }
    this.#pinned.set(slot, fd);
    this.#hold(slot, fd);
  }

  /** What was pinned briefly, if the node was, is needed until it is forgotten. */
  pinOn(slot: number): void {
    const fd = this.#pinned.get(slot);
    if (this.#brief.delete(slot) && fd !== undefined) this.#hold(slot, fd);
  }

  #hold(slot: number, fd: number): void {
    this.#nodes.setPinned(slot, true);
    this.#holder.keep(this.#name(slot), fd);
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
    if (!this.#brief.delete(slot)) {
      this.#nodes.setPinned(slot, false);
      this.#holder.drop(this.#name(slot));
    }
    this.#calls.close(pinned);
  }

  /**
   * Takes over what an earlier server pinned, of all that it has handed over by names. What is of no use is closed and dropped.
   * Each is a step of its own, which `commit` ends: there may be more than a step can change.
   */
  adopt(held: ReadonlyMap<string, number>, scratch: Memory, commit: () => void): void {
    for (const [name, fd] of held) {
      const [, slot, generation] = PIN.exec(name) ?? [];
      if (slot === undefined) continue;
      if (this.#isOf(Number(slot), Number(generation), fd, scratch)) {
        this.#pinned.set(Number(slot), fd);
        this.#nodes.setPinned(Number(slot), true);
      } else {
        this.refused++;
        this.#holder.drop(name);
        this.#calls.close(fd);
      }
      commit();
    }
  }

  /** Counts what an earlier server had pinned and that is lost, once the requests that it had begun to deal with are dealt with. */
  countLost(commit: () => void): void {
    for (const slot of this.#nodes.slots()) {
      if (!this.#nodes.isPinned(slot) || this.#pinned.has(slot)) continue;
      this.lost++;
      this.#nodes.setPinned(slot, false);
      commit();
    }
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
    for (const [slot, fd] of this.#pinned) {
      if (!this.#brief.has(slot)) this.#holder.drop(this.#name(slot));
      this.#calls.close(fd);
    }
    this.#pinned.clear();
    this.#brief.clear();
  }

  /** What a node's copy is held under: no other node ever has the same. */
  #name(slot: number): string {
    return `pin-${slot}-${this.#nodes.generation(slot)}`;
  }

  /** Whether a descriptor is one of this node's inode. */
  #isOf(slot: number, generation: number, fd: number, scratch: Memory): boolean {
    if (!this.#nodes.has(slot) || this.#nodes.generation(slot) !== generation) return false;
    const { bytes, view, address } = scratch;
    const at = SCRATCH.handle;
    bytes.fill(0, at, at + HANDLE_BYTES);
    view.setUint32(at, F_HANDLE_BYTES, true);
    const empty = address + SCRATCH.empty;
    if (this.#calls.nameToHandleAt(fd, empty, address + at, address + SCRATCH.mountId, AT_EMPTY_PATH) < 0) return false;
    return isSameInode(this.#nodes.memory, this.#nodes.handleOffset(slot), scratch, at);
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
