/**
 * FSYNC, FSYNCDIR, SYNCFS: what waits for the device, on other threads. And what mounts with `sync` and `dirsync` have on the device
 * before a request is answered.
 *
 * A change of content waits on another thread. A change of names or extended attributes waits here, and everybody with it: what
 * tells a repeat of such a request from another one remembers only one (`repeats.ts`). Where the wait fails, the caller gets the error;
 * what the reply would have counted as looked up or open stays so until the mount's end, on a filesystem that is failing.
 */

import { EBADF, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FUSE_FSYNC_FDATASYNC } from '../fuse/wire/constants.ts';
import { fuse_fsync_in } from '../fuse/wire/structs.ts';
import { finishWith, slotOf } from './attributes.ts';
import { FIRST_SERIAL } from './locks/locks.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { SCRATCH } from './scratch.ts';

type Handler = (r: Request) => Outcome;

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
  const fd = openToSync(m, slotOf(m, r.nodeid));
  if (fd < 0) return fd;
  const dataOnly = (fuse_fsync_in.fsync_flags.get(m.input.view, r.at) & FUSE_FSYNC_FDATASYNC) !== 0;
  return sync(m, r.nodeid, fd, dataOnly, true);
}

/** A descriptor to sync a node by, or a negated errno. */
function openToSync(m: Mount, slot: number): number {
  if (slot === NO_NODE) return -ESTALE;
  const flags = c.O_RDONLY | c.O_NONBLOCK | c.O_CLOEXEC;
  return m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), flags);
}

/** Special files and links have nothing but attributes, which go with their names, and can't be opened for it. */
function isSyncable(m: Mount, slot: number): boolean {
  return slot !== NO_NODE && (m.nodes.type(slot) === c.S_IFREG || m.nodes.type(slot) === c.S_IFDIR);
}

/** Syncs nodes that the handler changes, when it has, before the reply: all that `nodes` names. */
export function syncingNodes(m: Mount, handle: Handler, nodes: (r: Request) => readonly number[]): Handler {
  return (r) => {
    // The request is another one by the time that a handler that waits is through.
    const changed = nodes(r);
    return afterwards(handle(r), (length) => {
      for (const nodeid of changed) {
        const slot = slotOf(m, nodeid);
        if (!isSyncable(m, slot)) continue;
        const fd = openToSync(m, slot);
        // A folder that was removed meanwhile has nothing to keep.
        if (fd === -ESTALE) continue;
        if (fd < 0) return fd;
        const synced = m.calls.fsync(fd);
        m.calls.close(fd);
        if (synced < 0) return synced;
      }
      return length;
    });
  };
}

/** Syncs a file whose content or attributes the handler changes, when it has, on another thread, before the reply. */
export function syncingFile(m: Mount, handle: Handler, node: (r: Request) => number): Handler {
  return (r) => {
    const slot = slotOf(m, node(r));
    return afterwards(handle(r), (length) => {
      if (!isSyncable(m, slot)) return length;
      // Other requests use the output while this one waits.
      const reply = m.output.bytes.slice(PAYLOAD, PAYLOAD + length);
      const fd = openToSync(m, slot);
      if (fd < 0) return fd;
      return m.calls.fsync.later(fd).then((synced) => () => {
        m.calls.close(fd);
        if (synced < 0) return synced;
        m.output.bytes.set(reply, PAYLOAD);
        return length;
      });
    });
  };
}

/** Goes on with an outcome that is no error, when it is there. */
function afterwards(outcome: Outcome, go: (length: number) => Outcome): Outcome {
  if (outcome instanceof Promise) return outcome.then((finish) => () => afterwards(finish(), go));
  return typeof outcome === 'number' && outcome >= 0 ? go(outcome) : outcome;
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
