/** `/dev/fuse`: the connection's descriptor, and the registration of backing files on it. */

import { EMFILE, ENOENT } from '../base/errno.ts';
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
import { Fsetid } from './capabilities.ts';
import { ioctl, openat, poll, read, write } from './libc.ts';
import { allocate } from './memory.ts';

/** Opens `/dev/fuse` for a new connection; non-blocking, so that readiness can be waited for on the event loop. */
export function openFuseDevice(scratch: Memory): number {
  putString(scratch, 0, '/dev/fuse');
  return openat(AT_FDCWD, scratch.address, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
}

/** struct pollfd: poll(2). */
const POLLFD = { fd: 0, events: 4, bytes: 8 } as const;
const POLLIN = 1;

/** The device as a session wants it. */
export class FuseDevice {
  readonly fd: number;
  readonly #polled = allocate('poll', POLLFD.bytes);

  constructor(fd: number) {
    this.fd = fd;
    this.#polled.view.setInt32(POLLFD.fd, fd, true);
    this.#polled.view.setInt16(POLLFD.events, POLLIN, true);
  }

  /** Waits until there is something to read, or the conversation is over, but no longer than this; returns whether. */
  wait(timeoutMs: number): boolean {
    return poll(this.#polled.address, 1, timeoutMs) > 0;
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
 * itself from then on, also when this process is killed; each id is counted here until it is closed. The latest id is written
 * down at once: see `adopt`.
 */
export class FuseBackingFiles {
  /** Ids that are registered now, and the most that may be. */
  count = 0;
  readonly #fd: number;
  readonly #limit: number;
  readonly #map: Memory;
  readonly #words: Uint32Array;
  readonly #latest: number;
  readonly #fsetid = new Fsetid();
  /** Ids that could not be closed: they are tried again with the next one. */
  #owed: number[] = [];

  /** `scratch` is 20 bytes that nothing else uses; the latest id is kept in the word `latest` of `words`. */
  constructor(fd: number, limit: number, scratch: Memory, words: Uint32Array, latest: number) {
    this.#fd = fd;
    this.#limit = limit;
    this.#map = scratch;
    this.#words = words;
    this.#latest = latest;
  }

  /**
   * What is written to a `guarded` file takes its set-user-ID and set-group-ID away, also where they were set around the mount: the
   * kernel writes with the credentials that the file was registered with (fs/fuse/backing.c: fuse_backing_open), without
   * CAP_FSETID here.
   */
  open(fd: number, guarded = false): number {
    if (this.count >= this.#limit) return -EMFILE;
    this.#map.view.setInt32(0, fd, true);
    const register = (): number => ioctl(this.#fd, FUSE_DEV_IOC_BACKING_OPEN, this.#map.address);
    const id = guarded ? this.#fsetid.without(register) : register();
    if (id > 0) {
      this.count++;
      this.#words[this.#latest] = id;
    }
    return id;
  }

  close(backingId: number): number {
    const result = this.#close(backingId);
    // One that is not there was closed by a server that was killed before it could write that down.
    if (result >= 0 || result === -ENOENT) this.count--;
    else this.#owed.push(backingId);
    if (result >= 0 && this.#owed.length > 0) {
      const owed = this.#owed;
      this.#owed = [];
      for (const id of owed) this.close(id);
    }
    return result;
  }

  /**
   * Takes over from a server that was killed: `used` are the ids that the tables know. The one that it registered last, or the
   * one after it, may be in no table: then it is closed. The kernel gives ids in order (fs/fuse/backing.c: idr_alloc_cyclic).
   */
  adopt(used: ReadonlySet<number>): void {
    this.count = used.size;
    const latest = this.#words[this.#latest] ?? 0;
    for (const id of [latest, latest + 1]) if (id > 0 && !used.has(id)) this.#close(id);
  }

  #close(backingId: number): number {
    this.#map.view.setUint32(CLOSE_AT, backingId, true);
    return ioctl(this.#fd, FUSE_DEV_IOC_BACKING_CLOSE, this.#map.address + CLOSE_AT);
  }
}
