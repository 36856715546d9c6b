/** GETLK, SETLK, SETLKW and FLUSH: what the kernel asks of locks (fs/fuse/file.c: fuse_getlk, fuse_setlk, fuse_flush). */

import { EINVAL, ESTALE } from '../../base/errno.ts';
import { F_RDLCK, F_UNLCK, F_WRLCK } from '../../base/linux.ts';
import { type Outcome, PAYLOAD, type Request } from '../../fuse/server/session.ts';
import { FUSE_LK_FLOCK } from '../../fuse/wire/constants.ts';
import { fuse_flush_in, fuse_lk_in, fuse_lk_out } from '../../fuse/wire/structs.ts';
import { slotOf } from '../attributes.ts';
import type { Mount } from '../mount.ts';
import { NO_NODE } from '../nodes.ts';
import type { LockRequest } from './locks.ts';
import { TO_THE_END } from './ranges.ts';

function typeOf(type: number): LockRequest['type'] | undefined {
  return type === F_RDLCK || type === F_WRLCK || type === F_UNLCK ? type : undefined;
}

/** The request, or a negated errno. */
function parse(m: Mount, r: Request, waits: boolean): LockRequest | number {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const { view } = m.input;
  const start = view.getBigUint64(r.at + fuse_lk_in.start.offset, true);
  const end = view.getBigUint64(r.at + fuse_lk_in.end.offset, true);
  const type = typeOf(fuse_lk_in.type.get(view, r.at));
  if (type === undefined || start > end || end > TO_THE_END) return -EINVAL;
  return {
    slot,
    handle: fuse_lk_in.fh.get(view, r.at),
    owner: view.getBigUint64(r.at + fuse_lk_in.owner.offset, true),
    start,
    end,
    type,
    pid: fuse_lk_in.pid.get(view, r.at),
    thread: r.pid,
    flock: (fuse_lk_in.lk_flags.get(view, r.at) & FUSE_LK_FLOCK) !== 0,
    waits,
  };
}

export function setlk(m: Mount, r: Request, waits: boolean): Outcome {
  const request = parse(m, r, waits);
  return typeof request === 'number' ? request : m.locks.set(request);
}

export function getlk(m: Mount, r: Request): Outcome {
  const request = parse(m, r, false);
  if (typeof request === 'number') return request;
  const { type } = request;
  if (type === F_UNLCK) return -EINVAL;
  const found = m.locks.test({ ...request, type });
  const out = m.output.view;
  // F_UNLCK says that nothing stands in the way; the rest of the answer is what was asked, then.
  const { start, end } = found?.range ?? request;
  out.setBigUint64(PAYLOAD + fuse_lk_out.start.offset, start, true);
  out.setBigUint64(PAYLOAD + fuse_lk_out.end.offset, end, true);
  fuse_lk_out.type.set(out, PAYLOAD, found?.range.type ?? F_UNLCK);
  // An open file description is no process: the kernel makes 0 of it, where a lock of its own shows -1.
  fuse_lk_out.pid.set(out, PAYLOAD, found?.owner.kind === 'process' ? found.owner.pid : 0);
  return fuse_lk_out.structBytes;
}

/** A process has closed a descriptor of the file, with which all its locks of the file end (fcntl(2)). */
export function flush(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  m.locks.closed(slot, m.input.view.getBigUint64(r.at + fuse_flush_in.lock_owner.offset, true));
  return 0;
}
