/** What a file was at one moment: a struct statx in memory of its own. */

import * as c from '../base/linux.ts';
import type { Address, Memory } from '../base/memory.ts';
import { statx } from '../fuse/wire/structs.ts';
import type { SourceCalls } from './calls.ts';
import { SCRATCH } from './scratch.ts';

export class Stat {
  readonly #memory: Memory;
  readonly #at: number;

  /** The structure's 256 bytes lie at `at` of the scratch memory, which has an empty string as well. */
  constructor(scratch: Memory, at: number) {
    this.#memory = scratch;
    this.#at = at;
  }

  /** Reads the attributes of what a descriptor of any kind stands for: 0 or a negated errno (statx(2)). */
  read(calls: Pick<SourceCalls, 'statx'>, fd: number): number {
    const { address } = this.#memory;
    return calls.statx(fd, address + SCRATCH.empty, c.AT_EMPTY_PATH, c.STATX_BASIC_STATS, this.address);
  }

  get address(): Address {
    return this.#memory.address + this.#at;
  }

  get size(): number {
    return statx.size.get(this.#memory.view, this.#at);
  }

  get inode(): number {
    return statx.ino.get(this.#memory.view, this.#at);
  }

  get mode(): number {
    return statx.mode.get(this.#memory.view, this.#at);
  }

  get uid(): number {
    return statx.uid.get(this.#memory.view, this.#at);
  }

  /** Seconds since 1970, and nanoseconds. */
  get ctime(): number {
    return statx.ctime.get(this.#memory.view, this.#at);
  }

  get ctimensec(): number {
    return statx.ctimensec.get(this.#memory.view, this.#at);
  }

  get mtime(): number {
    return statx.mtime.get(this.#memory.view, this.#at);
  }

  get mtimensec(): number {
    return statx.mtimensec.get(this.#memory.view, this.#at);
  }
}
