/**
 * What reaches the bytes of an open file. READ and WRITE come only on routes that have them come (`routes/route.ts: RouteIo`);
 * FALLOCATE, LSEEK and COPY_FILE_RANGE come for all.
 */

import { EBADF, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { addExact, clipped, getExact, setExact } from '../base/struct.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import {
  fuse_copy_file_range_in,
  fuse_copy_file_range_out,
  fuse_fallocate_in,
  fuse_lseek_in,
  fuse_lseek_out,
  fuse_read_in,
  fuse_write_in,
  fuse_write_out,
} from '../fuse/wire/structs.ts';
import { finishWith, slotOf } from './attributes.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { isMapped } from './routes/composed.ts';
import { losePrivileges } from './setids.ts';

export function read(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  const fd = m.opens.descriptor(fuse_read_in.fh.get(m.input.view, r.at));
  const io = slot === NO_NODE ? undefined : m.routes.ofNode(slot)?.io;
  return fd < 0 || io === undefined ? -EBADF : io.read(m, r, m.nodes.openRow(slot), fd);
}

export function write(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  const fd = m.opens.descriptor(fuse_write_in.fh.get(m.input.view, r.at));
  const io = slot === NO_NODE ? undefined : m.routes.ofNode(slot)?.io;
  return fd < 0 || io === undefined ? -EBADF : io.write(m, r, m.nodes.openRow(slot), fd);
}

export function fallocate(m: Mount, r: Request): Outcome {
  const { view } = m.input;
  const fd = m.opens.descriptor(fuse_fallocate_in.fh.get(view, r.at));
  if (fd < 0) return -EBADF;
  const mode = fuse_fallocate_in.mode.get(view, r.at);
  const offset = getExact(view, r.at + fuse_fallocate_in.offset.offset);
  const length = getExact(view, r.at + fuse_fallocate_in.length.offset);
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const lost = losePrivileges(m, r, fd, 0);
  if (lost < 0) return lost;
  const change = m.routes.change(slot, fd, clipped(offset), clipped(Number(offset) + Number(length)));
  return m.calls.fallocate.later(fd, mode, offset, length).then((result) => {
    change.done();
    return finishWith(result);
  });
}

/** SEEK_DATA and SEEK_HOLE: the kernel answers the others itself. */
export function lseek(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const { view } = m.input;
  const fd = m.routes.openForReading(slot);
  if (fd < 0) return fd;
  const offset = getExact(view, r.at + fuse_lseek_in.offset.offset);
  const result = m.calls.lseekExact(fd, offset, fuse_lseek_in.whence.get(view, r.at));
  m.calls.close(fd);
  if (result < 0) return Number(result);
  setExact(m.output.view, PAYLOAD + fuse_lseek_out.offset.offset, result);
  return fuse_lseek_out.structBytes;
}

/** What one reply of COPY_FILE_RANGE can count: its field has 32 bits. Whole blocks of any size. */
const MAX_COPY_BYTES = 0x7fe0_0000;

/** So much is copied at once, where nothing of it has to be written back first. Another thread costs as much as a clone. */
const COPIED_AT_ONCE_BYTES = 1 << 20;

/**
 * copy_file_range(2) of the source makes a reflink where the filesystem can, and copies where it can't: so `cp` on the
 * mount makes clones. It may write a whole file back first, on another thread then. Both descriptors are its own, so that
 * their positions can stand for the offsets.
 */
export function copyFileRange(m: Mount, r: Request, reply64: boolean): Outcome {
  const { view } = m.input;
  const from = slotOf(m, r.nodeid);
  const to = slotOf(m, fuse_copy_file_range_in.nodeid_out.get(view, r.at));
  if (from === NO_NODE || to === NO_NODE) return -ESTALE;
  if (m.opens.descriptor(fuse_copy_file_range_in.fh_out.get(view, r.at)) < 0) return -EBADF;
  const input = m.routes.openForReading(from);
  if (input < 0) return input;
  const flags = c.O_WRONLY | c.O_NONBLOCK | c.O_CLOEXEC;
  const output = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(to), flags);
  if (output < 0) {
    m.calls.close(input);
    return output;
  }
  const length = Math.min(fuse_copy_file_range_in.len.get(view, r.at), MAX_COPY_BYTES);
  const copyFlags = fuse_copy_file_range_in.flags.get(view, r.at);
  const at = getExact(view, r.at + fuse_copy_file_range_in.off_out.offset);
  const offset = getExact(view, r.at + fuse_copy_file_range_in.off_in.offset);
  const sought = m.calls.lseek(input, offset, 0);
  const placed = m.calls.lseek(output, at, 0);
  if (sought < 0 || placed < 0) {
    m.calls.close(input);
    m.calls.close(output);
    return Math.min(sought, placed);
  }
  const lost = losePrivileges(m, r, output, 0);
  if (lost < 0) {
    m.calls.close(input);
    m.calls.close(output);
    return lost;
  }
  const change = m.routes.change(to, output, clipped(at), clipped(addExact(at, length)));
  const finish = (copied: number): number => {
    change.done();
    m.calls.close(input);
    m.calls.close(output);
    // What is kept of the source's own page cache was decided on before it was cloned.
    m.backing.drop(from, m.nodes.generation(from));
    return copied < 0 ? copied : putCopied(m, copied, reply64);
  };
  const atOnce = length <= COPIED_AT_ONCE_BYTES && isMapped(offset) && isMapped(at);
  const ready = atOnce && m.isClean(input, offset, length) && m.isClean(output, at, length);
  if (ready) return finish(m.calls.copyFileRange(input, 0, output, 0, length, copyFlags));
  return m.calls.copyFileRange.later(input, 0, output, 0, length, copyFlags).then(
    (copied): Finish =>
      () =>
        finish(copied),
  );
}

function putCopied(m: Mount, copied: number, reply64: boolean): number {
  if (reply64) {
    fuse_copy_file_range_out.bytes_copied.set(m.output.view, PAYLOAD, copied);
    return fuse_copy_file_range_out.structBytes;
  }
  fuse_write_out.size.set(m.output.view, PAYLOAD, copied);
  fuse_write_out._padding.set(m.output.view, PAYLOAD, 0);
  return fuse_write_out.structBytes;
}
