/** `/dev/fuse`: the connection's descriptor, and the registration of backing files on it. */

import {
  AT_FDCWD,
  FUSE_DEV_IOC_BACKING_CLOSE,
  FUSE_DEV_IOC_BACKING_OPEN,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
} from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { putString } from '../base/memory.ts';
import { ioctl, openat, read, write } from './libc.ts';

/** Opens `/dev/fuse` for a new connection; non-blocking, so that readiness can be waited for on the event loop. */
export function openFuseDevice(scratch: Memory): number {
  putString(scratch, 0, '/dev/fuse');
  return openat(AT_FDCWD, scratch.address, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
}

/** The device as a session wants it. */
export class FuseDevice {
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  read(memory: Memory): number {
    return read(this.fd, memory.address, memory.bytes.length);
  }

  write(memory: Memory, length: number): number {
    return write(this.fd, memory.address, length);
  }
}

/** The id to be closed lies behind the map, whose flags and padding must stay 0. */
const CLOSE_AT = 16;

/**
 * Registers backing files (struct fuse_backing_map: fd i32, flags u32, padding u64). The kernel keeps a file open by
 * itself from then on; each id is counted here until it is closed.
 */
export class FuseBackingFiles {
  /** Ids that are registered now, and the most that may be. */
  count = 0;
  readonly #fd: number;
  readonly #limit: number;
  readonly #map: Memory;

  /** `scratch` is 20 bytes that nothing else uses. */
  constructor(fd: number, limit: number, scratch: Memory) {
    this.#fd = fd;
    this.#limit = limit;
    this.#map = scratch;
  }

  open(fd: number): number {
    if (this.count >= this.#limit) return -24; // EMFILE
    this.#map.view.setInt32(0, fd, true);
    const id = ioctl(this.#fd, FUSE_DEV_IOC_BACKING_OPEN, this.#map.address);
    if (id > 0) this.count++;
    return id;
  }

  close(backingId: number): number {
    this.#map.view.setUint32(CLOSE_AT, backingId, true);
    const result = ioctl(this.#fd, FUSE_DEV_IOC_BACKING_CLOSE, this.#map.address + CLOSE_AT);
    if (result >= 0) this.count--;
    return result;
  }
}
