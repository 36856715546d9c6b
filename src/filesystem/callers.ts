/** What is known of the process that a request comes from: its number and first group by the request, its other groups by /proc. */

import * as c from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import type { Mount } from './mount.ts';

/** As much of a request as says who asks. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
}

/** Capabilities by number: linux/capability.h. */
export const CAP_FOWNER = 3;
export const CAP_FSETID = 4;

/**
 * What /proc says of the caller, which waits for this request, so it is still there. Nothing of one in another PID namespace (number
 * 0), nor of one of more groups than fit the memory.
 */
function statusOf(m: Mount, caller: Caller): string {
  const { address, bytes } = m.entries;
  putString(m.entries, 0, `/proc/${caller.pid}/status`);
  const fd = m.calls.openat(c.AT_FDCWD, address, c.O_RDONLY | c.O_CLOEXEC, 0);
  if (fd < 0) return '';
  const length = m.calls.pread(fd, address, bytes.length, 0);
  m.calls.close(fd);
  return length <= 0 ? '' : Buffer.from(bytes.subarray(0, length)).toString('latin1');
}

/** Whether the caller belongs to a group, also by a supplementary one. Of whom nothing is known doesn't. */
export function isInGroup(m: Mount, caller: Caller, gid: number): boolean {
  if (caller.gid === gid) return true;
  const groups = /^Groups:\t([\d ]*)\n/m.exec(statusOf(m, caller))?.[1] ?? '';
  return groups.split(' ').includes(String(gid));
}

/** Whether the caller holds a capability that counts for files here: in our own user namespace. Of whom nothing is known doesn't. */
export function holdsCapability(m: Mount, caller: Caller, capability: number): boolean {
  const effective = BigInt(`0x${/^CapEff:\t([\da-f]+)\n/m.exec(statusOf(m, caller))?.[1] ?? '0'}`);
  if (((effective >> BigInt(capability)) & 1n) === 0n) return false;
  return userNamespace(m, caller.pid) === userNamespace(m, 'self');
}

/** What names a process's user namespace. */
function userNamespace(m: Mount, process: number | 'self'): string {
  const { address, bytes } = m.entries;
  const [path, target, room] = [0, 64, 64];
  putString(m.entries, path, `/proc/${process}/ns/user`);
  const length = m.calls.readlinkat(c.AT_FDCWD, address + path, address + target, room);
  return length < 0 ? `unknown of ${process}` : Buffer.from(bytes.subarray(target, target + length)).toString('latin1');
}
