/** What is known of the process that a request comes from: its number and first group by the request, its other groups by /proc. */

import * as c from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import type { Mount } from './mount.ts';

/** As much of a request as says who asks. */
export interface Caller {
  readonly gid: number;
  readonly pid: number;
}

/**
 * Whether the caller belongs to a group, also by a supplementary one. Of a caller in another PID namespace (number 0), or of more
 * groups than fit the memory, nothing is known: it doesn't belong. The caller waits for this request, so it is still there.
 */
export function isInGroup(m: Mount, caller: Caller, gid: number): boolean {
  if (caller.gid === gid) return true;
  const { address, bytes } = m.entries;
  putString(m.entries, 0, `/proc/${caller.pid}/status`);
  const fd = m.calls.openat(c.AT_FDCWD, address, c.O_RDONLY | c.O_CLOEXEC, 0);
  if (fd < 0) return false;
  const length = m.calls.pread(fd, address, bytes.length, 0);
  m.calls.close(fd);
  if (length <= 0) return false;
  const status = Buffer.from(bytes.subarray(0, length)).toString('latin1');
  const groups = /^Groups:\t([\d ]*)\n/m.exec(status)?.[1] ?? '';
  return groups.split(' ').includes(String(gid));
}
