/**
 * The routes of one mount: which one an open file has, what each does, and how a file gets one and leaves it.
 *
 * Invariants: 1. A file that is open for writing through the mount isn't on the shared route. 2. A clone is never a
 * writable open's backing file. 3. While an inode is open its route and backing id don't change (a rule of the kernel).
 * 4. A detached node gets no more opens but those of its readers' own links (/proc/self/fd).
 */

import * as c from '../../base/linux.ts';
import type { BackingFiles } from '../calls.ts';
import { OPEN_FLAGS } from '../openflags.ts';
import type { OpenTable } from '../opens.ts';
import { SCRATCH } from '../scratch.ts';
import { Stat } from '../stat.ts';
import { type Choice, Chooser, type ChooserOptions } from './choose.ts';
import { composedRoute } from './composed.ts';
import { Leaving, type LeavingOptions } from './leaving.ts';
import { openFile, ownRoute, sharedRoute } from './passthrough.ts';
import { relayedRoute } from './relayed.ts';
import { type Change, NO_CHANGE, ROUTES, type Route, type RouteName } from './route.ts';

export interface RoutesOptions
  extends Omit<ChooserOptions, 'dropPages'>,
    Omit<LeavingOptions, 'mappings' | 'chooser' | 'calls' | 'nodes' | 'scratch' | 'monotonicMs'> {
  readonly opens: OpenTable;
  /** Backing files of nodes. */
  readonly backing: BackingFiles;
  /**
   * Whether every file that isn't shared is relayed. A write by passthrough goes to a backing file that isn't on this mount, and knows
   * nothing of its `sync`.
   */
  readonly relays: boolean;
}

export class Routes {
  readonly chooser: Chooser;
  /** Absent when sharing is off: nothing is on the shared route. */
  readonly leaving: Leaving | undefined;
  readonly #o: RoutesOptions;
  readonly #routes: ReadonlyMap<number, Route>;

  constructor(options: RoutesOptions) {
    this.#o = options;
    const { calls, nodes, opens, mappings, composing, mountFd, scratch, domains } = options;
    const stat = new Stat(scratch, SCRATCH.look);
    const routes = [ownRoute(options), relayedRoute(calls, nodes, mountFd)];
    if (composing !== undefined) {
      routes.push(composedRoute({ calls, nodes, mountFd, composing, domains, stat }));
    }
    this.chooser = new Chooser({ ...options, dropPages: (slot) => this.#dropPages(slot) });
    if (mappings !== undefined) {
      routes.push(sharedRoute(opens, mappings));
      this.leaving = new Leaving({ ...options, mappings, chooser: this.chooser });
    }
    this.#routes = new Map(routes.map((route) => [ROUTES[route.name], route]));
  }

  /** The route of a row of the table of open files. */
  of(row: number): Route {
    const route = this.#routes.get(this.#o.opens.route(row));
    if (route === undefined) throw new Error(`open file ${row} has no route`);
    return route;
  }

  /** The route of a node's file, or undefined when nobody has it open. */
  ofNode(slot: number): Route | undefined {
    const row = this.#o.nodes.openRow(slot);
    return row < 0 ? undefined : this.of(row);
  }

  /** Settles when it is decided how a node's file goes on. */
  pending(slot: number): Promise<unknown> | undefined {
    return this.chooser.pending(slot) ?? this.leaving?.pending(slot);
  }

  /** See `Leaving.toWrite`. */
  toWrite(slot: number, patient: boolean): number | Promise<void> {
    return this.leaving?.toWrite(slot, patient) ?? 0;
  }

  /** The bytes from..to of a node's file are about to be changed. `fd` is any descriptor of it, and open until that is done. */
  change(slot: number, fd: number, from: number, to: number): Change {
    const row = this.#o.nodes.openRow(slot);
    return row < 0 ? NO_CHANGE : this.of(row).change(row, fd, from, to);
  }

  /** The size that callers see of a node's file, which has this one: what its openers can read. */
  visibleSize(slot: number, size: number): number {
    const row = this.#o.nodes.openRow(slot);
    return row < 0 ? size : this.of(row).visibleSize(row, size);
  }

  /** A descriptor for reading what a node's openers read, to be closed by the caller, or a negated errno. */
  openForReading(slot: number): number {
    const { calls, nodes, mountFd } = this.#o;
    const row = nodes.openRow(slot);
    return row < 0 ? openFile(calls, nodes, mountFd, slot) : this.of(row).openForReading(slot, row);
  }

  /**
   * The row of a node that wasn't open and gets its first open, through `fd`, or -1 when the table is full. A choice that can't be
   * had gives way: to the file itself, and then to requests. `maps` says whether the open may map the file for writing.
   */
  admit(slot: number, fd: number, choice: Choice, maps: boolean): number {
    const { opens, nodes, composing } = this.#o;
    const row = this.#add(slot, fd, choice, maps);
    if (row < 0) return -1;
    if (choice.route === 'composed') composing?.admit(row, choice.open);
    nodes.setOpenRow(slot, row);
    if (choice.route === 'own' && choice.keep) opens.setKeeps(row, true);
    return row;
  }

  /** One more open of a file on its own route that was closed a moment ago, by the backing id that was kept; -1 as above. */
  readmit(slot: number, backingId: number): number {
    const { opens, nodes, backing } = this.#o;
    const row = opens.add(slot, ROUTES.own, false, backingId, -1);
    if (row < 0) {
      backing.close(backingId);
      return -1;
    }
    opens.setKeeps(row, true);
    nodes.setOpenRow(slot, row);
    this.chooser.count('kept');
    return row;
  }

  /** An open of a row is gone. */
  release(slot: number, row: number, maps: boolean): void {
    const { opens, nodes } = this.#o;
    if (opens.dropOpen(row, maps) > 0) return;
    const route = this.of(row);
    route.closed(slot, row);
    opens.free(row);
    nodes.setOpenRow(slot, -1);
    this.leaving?.closed(slot);
  }

  /** A name went away or content was replaced, and with it perhaps the last use of a mapping's extents by a file. */
  referencesDropped(slot: number): void {
    const { mappings, composing, nodes } = this.#o;
    if (mappings === undefined) return;
    composing?.packs.suspect();
    mappings.suspect(slot < 0 ? -1 : nodes.lastVerdict(slot));
  }

  #add(slot: number, fd: number, choice: Choice, maps: boolean): number {
    const { opens, backing, mappings } = this.#o;
    if (choice.route === 'composed') return opens.add(slot, ROUTES.composed, maps, 0, -1);
    if (choice.route === 'shared' && mappings !== undefined) {
      const backingId = this.#acquire(slot, choice.mapping);
      if (backingId >= 0) {
        const row = opens.add(slot, ROUTES.shared, maps, backingId, choice.mapping);
        if (row < 0) mappings.release(choice.mapping);
        return row;
      }
      this.chooser.count('backing');
    }
    const backingId = this.#o.relays ? -1 : this.#register(slot, fd, choice.route !== 'own' || choice.guarded);
    const route: RouteName = backingId < 0 ? 'relayed' : 'own';
    const row = opens.add(slot, ROUTES[route], maps, Math.max(0, backingId), -1);
    if (row < 0 && backingId >= 0) backing.close(backingId);
    return row;
  }

  /** The backing id of the file itself, or a negated errno. */
  #register(slot: number, fd: number, guarded: boolean): number {
    const { backing, nodes } = this.#o;
    const kept = backing.take(slot, nodes.generation(slot));
    return kept > 0 ? kept : backing.open(fd, guarded);
  }

  /** The backing id of the mapping that was chosen for the node, for one more inode, or a negated errno. */
  #acquire(slot: number, mapping: number): number {
    const { mappings, nodes } = this.#o;
    // Room may have been made since it was chosen: the row may be another mapping's by now.
    if (mappings === undefined || !mappings.isAlive(mapping, nodes.verdictGeneration(slot))) return -1;
    return mappings.acquire(mapping);
  }

  /** Drops what the page cache has of a node's own file, whose next open is looked at anew; false when there is no such file. */
  #dropPages(slot: number): boolean {
    const { calls, nodes, backing, mountFd } = this.#o;
    if (!nodes.has(slot) || nodes.type(slot) !== c.S_IFREG) return false;
    const fd = calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_RDONLY | OPEN_FLAGS);
    if (fd < 0) return false;
    calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_DONTNEED);
    calls.close(fd);
    backing.drop(slot, nodes.generation(slot));
    return true;
  }
}
