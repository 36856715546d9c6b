/** Telling systemd how a service is doing: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET names. */

import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from '../base/linux.ts';
import { close, sendto, socket } from './libc.ts';
import { allocate } from './memory.ts';

/** unix(7): the family, then the path, whose first byte is NUL for an abstract name. */
const SUN_PATH = 2;
const SUN_PATH_BYTES = 108;

/**
 * Sends `state`, such as `READY=1`. Returns 0, also when no service manager asked to be told, or a negated errno: it never
 * is a reason to stop.
 */
export function notifyServiceManager(state: string): number {
  const { NOTIFY_SOCKET } = process.env;
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return 0;
  const path = Buffer.from(NOTIFY_SOCKET);
  if (path.length >= SUN_PATH_BYTES) return -22; // EINVAL
  if (path[0] === '@'.charCodeAt(0)) path[0] = 0;
  const text = Buffer.from(state);
  const memory = allocate('a notification', 4096);
  const textAt = 128;
  memory.view.setUint16(0, AF_UNIX, true);
  memory.bytes.set(path, SUN_PATH);
  memory.bytes.set(text, textAt);
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  const sent = sendto(fd, memory.address + textAt, text.length, 0, memory.address, SUN_PATH + path.length);
  close(fd);
  return Math.min(sent, 0);
}
