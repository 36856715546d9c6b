/** Messages with descriptors, between two processes: unix(7), SCM_RIGHTS, on a pair of sockets that keep messages apart. */

import { EMSGSIZE } from '../base/errno.ts';
import {
  AF_UNIX,
  F_DUPFD_CLOEXEC,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from '../base/linux.ts';
import type { Memory } from '../base/memory.ts';
import { getU64, setU64 } from '../base/struct.ts';
import { close, fcntl, onWritable, type Readiness, recvmsg, sendmsg, socketpair } from './libc.ts';
import { allocate } from './memory.ts';

/** The longest message, in bytes: four paths (PATH_MAX, 4096 each) as JSON fit, and it fits into a socket (SO_SNDBUF, 208 KiB). */
export const MAX_MESSAGE = 131_072;

/** How often room is looked for when there is no descriptor left to watch the socket by. */
const RETRY_MS = 50;

/** struct msghdr of 64-bit Linux, then struct iovec, struct cmsghdr with one descriptor, and the text. */
const MSGHDR_BYTES = 56;
const IOV_AT = 64;
const CONTROL_AT = 128;
const CONTROL_BYTES = 24;
const CMSG_LEN = 20;
const TEXT_AT = 256;

export interface Message {
  readonly text: string;
  /** The descriptor that came with it, or -1. */
  readonly fd: number;
}

/** Memory for one message at a time. */
export function messageMemory(): Memory {
  return allocate('messages', TEXT_AT + MAX_MESSAGE);
}

/** Two connected sockets, or a negated errno. */
export function messageSockets(memory: Memory): readonly [number, number] | number {
  const made = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, memory.address);
  return made < 0 ? made : [memory.view.getInt32(0, true), memory.view.getInt32(4, true)];
}

/** One end of such a pair. */
export class MessageSocket {
  readonly fd: number;
  readonly #memory: Memory;

  constructor(fd: number, memory: Memory) {
    this.fd = fd;
    this.#memory = memory;
  }

  /** Sends a text, and a copy of a descriptor if that isn't -1. Doesn't wait unless asked to. Returns 0 or a negated errno. */
  send(text: string, fd: number, wait: boolean): number {
    const bytes = Buffer.from(text);
    if (bytes.length > MAX_MESSAGE) return -EMSGSIZE;
    const { view } = this.#memory;
    this.#memory.bytes.set(bytes, TEXT_AT);
    this.#head(bytes.length, fd >= 0);
    setU64(view, CONTROL_AT, CMSG_LEN);
    view.setInt32(CONTROL_AT + 8, SOL_SOCKET, true);
    view.setInt32(CONTROL_AT + 12, SCM_RIGHTS, true);
    view.setInt32(CONTROL_AT + 16, fd, true);
    return Math.min(0, sendmsg(this.fd, this.#memory.address, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT)));
  }

  /** The next message; 0 when the other end is closed, or a negated errno. */
  receive(wait: boolean): Message | number {
    const { view, bytes, address } = this.#memory;
    this.#head(MAX_MESSAGE, true);
    setU64(view, CONTROL_AT, 0);
    const length = recvmsg(this.fd, address, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    if (length <= 0) return length;
    const withFd = getU64(view, CONTROL_AT) === CMSG_LEN && view.getInt32(CONTROL_AT + 12, true) === SCM_RIGHTS;
    return {
      text: Buffer.from(bytes.subarray(TEXT_AT, TEXT_AT + length)).toString(),
      fd: withFd ? view.getInt32(CONTROL_AT + 16, true) : -1,
    };
  }

  /** Calls back when there is room for another message, on the event loop, until it is closed. */
  onWritable(callback: () => void): Readiness {
    // The event loop watches a descriptor once, and this one may be watched for reading.
    const copy = fcntl(this.fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
      const timer = setInterval(callback, RETRY_MS);
      return { close: () => clearInterval(timer) };
    }
    const watch = onWritable(copy, callback);
    return {
      close(): void {
        watch.close();
        close(copy);
      },
    };
  }

  #head(length: number, control: boolean): void {
    const { view, bytes, address } = this.#memory;
    bytes.fill(0, 0, MSGHDR_BYTES);
    setU64(view, 16, address + IOV_AT);
    setU64(view, 24, 1);
    if (control) {
      setU64(view, 32, address + CONTROL_AT);
      setU64(view, 40, CONTROL_BYTES);
    }
    setU64(view, IOV_AT, address + TEXT_AT);
    setU64(view, IOV_AT + 8, length);
  }
}
