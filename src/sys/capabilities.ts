/** Capabilities of the calling thread: capset(2), include/uapi/linux/capability.h. */

import { CAP_FSETID } from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { struct } from '../base/struct.ts';
import { capget, capset } from './libc.ts';
import { allocate } from './memory.ts';

const header = struct('__user_cap_header_struct', 8, [
  ['version', 'u32'],
  ['pid', 'u32'],
]);

const data = struct('__user_cap_data_struct', 12, [
  ['effective', 'u32'],
  ['permitted', 'u32'],
  ['inheritable', 'u32'],
]);

const LINUX_CAPABILITY_VERSION_3 = 0x20080522;

/** Takes CAP_FSETID away from a thread and gives it back: what is written without it takes set-user-ID and set-group-ID away. */
export class Fsetid {
  readonly #memory: Memory = allocate('capabilities', header.structBytes + 2 * data.structBytes);
  readonly #all: number;

  constructor() {
    const { view } = this.#memory;
    header.version.set(view, 0, LINUX_CAPABILITY_VERSION_3);
    capget(this.#memory.address, this.#memory.address + header.structBytes);
    this.#all = data.effective.get(view, header.structBytes);
  }

  /** Calls `act` without it. Returns what `act` does, or a negated errno where the capability couldn't be laid down. */
  without(act: () => number): number {
    const laidDown = this.#set(this.#all & ~(1 << CAP_FSETID));
    if (laidDown < 0) return laidDown;
    const result = act();
    this.#set(this.#all);
    return result;
  }

  #set(effective: number): number {
    data.effective.set(this.#memory.view, header.structBytes, effective >>> 0);
    return capset(this.#memory.address, this.#memory.address + header.structBytes);
  }
}
