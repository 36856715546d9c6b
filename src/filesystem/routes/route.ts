/**
 * What a route is: the way on which the bytes of an open file are reached. An inode has one route while it is open anywhere,
 * by a rule of the kernel; `choose.ts` says which. What differs between routes is here, so that hardly anybody asks which one a file has.
 *
 *     own        the kernel reads, writes and maps the file itself (passthrough)
 *     shared     the kernel reads and maps a clone that many files have in common (passthrough); never written
 *     relayed    READ and WRITE come to us and go to the file: for want of a backing file
 *     composed   READ and WRITE come to us and go to the file, and to where its extents are shared
 */

import type { Outcome, Request } from '../../fuse/server/session.ts';
import type { Mount } from '../mount.ts';

/** How the table of open files names the routes: `opens.ts`. */
export const ROUTES = { own: 1, shared: 2, relayed: 3, composed: 4 } as const;
export type RouteName = keyof typeof ROUTES;

/** A change of an open file's bytes that is on its way: from before its first system call until `done`, to be called once. */
export interface Change {
  done(): void;
}

export const NO_CHANGE: Change = { done() {} };

/** READ and WRITE of files whose bytes the kernel doesn't reach by itself. `fd` is the open's own. */
export interface RouteIo {
  read(m: Mount, r: Request, row: number, fd: number): Outcome;
  write(m: Mount, r: Request, row: number, fd: number): Outcome;
}

export interface Route {
  readonly name: RouteName;
  /** OPEN's flags in the reply: FOPEN_*. */
  readonly openFlags: number;
  /** Present where reads and writes come to us: each open has a descriptor then. */
  readonly io: RouteIo | undefined;
  /** Whether stores through a map reach the file without the kernel's FUSE inode, whose attributes don't move. */
  readonly storesUnseen: boolean;
  /** Whether the kernel holds the file itself open, as a backing file, so that it outlives its last name without us. */
  readonly holdsFile: boolean;
  /** Makes a descriptor of ours, which was opened with the caller's flags, fit for the requests that it will serve. */
  prepare(fd: number, flags: number): void;
  /** There is one more open, through this descriptor of ours. */
  opened(row: number, fd: number): void;
  /** The last open is gone. */
  closed(slot: number, row: number): void;
  /**
   * The bytes from..to (exclusive) are about to be changed through the mount. `fd` is any descriptor of the file, and open until the
   * change is done.
   */
  change(row: number, fd: number, from: number, to: number): Change;
  /** The size that callers see of a file that has this size now. */
  visibleSize(row: number, size: number): number;
  /** A descriptor for reading what the node's openers read, to be closed by the caller, or a negated errno. */
  openForReading(slot: number, row: number): number;
  /** A server takes over what another one had open. */
  adopt(slot: number, row: number): void;
}
