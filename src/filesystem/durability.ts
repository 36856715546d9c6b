/** FSYNC, FSYNCDIR, SYNCFS: what waits for the device, on other threads. */

import { EBADF, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { Finish, Outcome, Request } from '../fuse/server/session.ts';
import { FUSE_FSYNC_FDATASYNC } from '../fuse/wire/constants.ts';
import { fuse_fsync_in } from '../fuse/wire/structs.ts';
import { finishWith, slotOf } from './attributes.ts';
import { FIRST_SERIAL } from './locks/locks.ts';
import { type Mount, SCRATCH } from './mount.ts';
import { NO_NODE } from './nodes.ts';

async function sync(m: Mount, nodeid: number, fd: number, dataOnly: boolean, close: boolean): Promise<Finish> {
  const result = dataOnly ? await m.calls.fdatasync.later(fd) : await m.calls.fsync.later(fd);
  if (close) m.calls.close(fd);
  // Writing back what was written through a map has changed the times, and the kernel has not seen it.
  m.invalidateAttributes(nodeid);
  return finishWith(result);
}

/** Through the open's own descriptor, which sees each write error once, as the caller's would. */
export function syncDescriptor(m: Mount, r: Request): Outcome {
  const handle = fuse_fsync_in.fh.get(m.input.view, r.at);
  const fd = m.opens.descriptor(handle);
  if (fd < 0) return -EBADF;
  const dataOnly = (fuse_fsync_in.fsync_flags.get(m.input.view, r.at) & FUSE_FSYNC_FDATASYNC) !== 0;
  return sync(m, r.nodeid, fd, dataOnly, false);
}

/** An open without a descriptor of ours is read-only; fsync of it still writes the whole file. */
export function fsync(m: Mount, r: Request): Outcome {
  const handle = fuse_fsync_in.fh.get(m.input.view, r.at);
  if (handle !== 0 && handle < FIRST_SERIAL) return syncDescriptor(m, r);
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), c.O_RDONLY | c.O_NONBLOCK | c.O_CLOEXEC);
  if (fd < 0) return fd;
  const dataOnly = (fuse_fsync_in.fsync_flags.get(m.input.view, r.at) & FUSE_FSYNC_FDATASYNC) !== 0;
  return sync(m, r.nodeid, fd, dataOnly, true);
}

export function syncfs(m: Mount): Outcome {
  const path = m.scratch.address + SCRATCH.dot;
  const fd = m.calls.openat(m.mountFd, path, c.O_RDONLY | c.O_DIRECTORY | c.O_CLOEXEC, 0);
  if (fd < 0) return fd;
  return m.calls.syncfs.later(fd).then((result) => {
    m.calls.close(fd);
    return finishWith(result);
  });
}
