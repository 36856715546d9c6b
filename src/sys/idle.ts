/**
 * How deep processors without work may sleep, as far as this process has a say: a request of zero latency on /dev/cpu_dma_latency keeps
 * all of them polling (Documentation/power/pm_qos_interface.rst). The kernel drops it with the descriptor, however this process ends.
 */

import { existsSync, readFileSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_WRONLY } from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import { close, openat, write } from './libc.ts';
import { allocate } from './memory.ts';

/**
 * How long a virtual machine's idle processor looks for work before it is left to the host, in nanoseconds
 * (drivers/cpuidle/governors/haltpoll.c).
 */
export const HALT_POLL = '/sys/module/haltpoll/parameters/guest_halt_poll_ns';

/** Whether idle processors of this virtual machine are left to the host at once, and each reply has to wake one. */
export function sleepsAtOnce(): boolean {
  return existsSync(HALT_POLL) && readFileSync(HALT_POLL, 'utf8').trim() === '0';
}

/** A s32: microseconds that a wake-up may take. */
const LATENCY_BYTES = 4;
const PATH_AT = 8;

export class IdleProcessors {
  /** How often they were kept awake. */
  times = 0;
  #fd = -1;
  readonly #scratch = allocate('latency', 64);

  get awake(): boolean {
    return this.#fd >= 0;
  }

  /** Keeps them awake from now on; does nothing where there is no such device. */
  keepAwake(): void {
    if (this.#fd >= 0) return;
    const { address, view } = this.#scratch;
    putString(this.#scratch, PATH_AT, '/dev/cpu_dma_latency');
    const fd = openat(AT_FDCWD, address + PATH_AT, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return;
    view.setInt32(0, 0, true);
    if (write(fd, address, LATENCY_BYTES) !== LATENCY_BYTES) {
      close(fd);
      return;
    }
    this.#fd = fd;
    this.times++;
  }

  letSleep(): void {
    if (this.#fd < 0) return;
    close(this.#fd);
    this.#fd = -1;
  }
}
