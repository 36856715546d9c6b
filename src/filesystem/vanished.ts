/**
 * Files that were deleted around the mount while they are open on the shared route: nothing holds their inode, and their readers go on
 * reading the clone. What the file's attributes were isn't known any more but for its size; it is shown as a file without a name,
 * which root alone may read.
 */

import * as c from '../base/linux.ts';
import { setU64 } from '../base/struct.ts';
import { statx } from '../fuse/wire/structs.ts';
import { handleInode } from './handles.ts';
import type { Mount } from './mount.ts';
import { SCRATCH } from './scratch.ts';

/** Fills the scratch memory's struct statx for such a node: 0 or a negated errno, also for any other node. */
export function statVanished(m: Mount, slot: number, error: number): number {
  if (m.routes.ofNode(slot)?.name !== 'shared') return error;
  const fd = m.routes.openForReading(slot);
  if (fd < 0) return error;
  const read = m.stat.read(m.calls, fd);
  m.calls.close(fd);
  if (read < 0) return error;
  const { view } = m.scratch;
  const at = SCRATCH.statx;
  setU64(view, at + statx.ino.offset, handleInode(m.nodes.memory.view, m.nodes.handleOffset(slot)));
  statx.mode.set(view, at, c.S_IFREG | 0o400);
  statx.nlink.set(view, at, 0);
  statx.uid.set(view, at, 0);
  statx.gid.set(view, at, 0);
  return 0;
}
