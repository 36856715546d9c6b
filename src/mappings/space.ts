/** Free space of the filesystem that holds the store, against the floor under which clones must go. */

import { EDQUOT, ENOSPC } from '../base/errno.ts';
import type { Memory } from '../base/memory.ts';
import { getU64 } from '../base/struct.ts';
import * as k from './calls.ts';

/** How often free space is looked at, at the most, and how many such intervals ahead. */
const INTERVAL_MS = 40;
const FORESIGHT = 2;

/** Whether a call failed for want of room: the filesystem's, or a quota's. */
export function hasNoRoom(result: number): boolean {
  return result === -ENOSPC || result === -EDQUOT;
}

export interface SpaceOptions {
  readonly calls: Pick<k.StoreCalls, 'fstatfs'>;
  readonly directoryFd: number;
  readonly scratch: Memory;
  /** Free bytes under which space is low. */
  readonly floorBytes: number;
  /** A clock that only goes forward, in milliseconds. */
  readonly monotonicMs: () => number;
}

export class Space {
  readonly #o: SpaceOptions;
  readonly #at: number;
  #checkedMs = Number.NEGATIVE_INFINITY;
  #low = false;
  #freeBytes = 0;

  /** A struct statfs fits at `at` of the scratch memory. */
  constructor(options: SpaceOptions, at: number) {
    this.#o = options;
    this.#at = at;
  }

  /**
   * Whether free space is under the floor, or will be before it is looked at again some times if it goes on falling as it
   * did: writers of passthrough files don't ask us, and a clone that is in their way must be gone before they get there.
   */
  isLow(): boolean {
    const { calls, directoryFd, scratch, floorBytes, monotonicMs } = this.#o;
    const now = monotonicMs();
    if (now - this.#checkedMs < INTERVAL_MS) return this.#low;
    this.#checkedMs = now;
    if (calls.fstatfs(directoryFd, scratch.address + this.#at) < 0) return this.#low;
    const blockBytes = getU64(scratch.view, this.#at + k.STATFS.bsize);
    const freeBytes = getU64(scratch.view, this.#at + k.STATFS.bavail) * blockBytes;
    const fallenBytes = Math.max(0, this.#freeBytes - freeBytes);
    this.#freeBytes = freeBytes;
    this.#low = freeBytes - FORESIGHT * fallenBytes < floorBytes;
    return this.#low;
  }
}
