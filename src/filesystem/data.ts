/**
 * What reaches the bytes of an open file. READ and WRITE come only for composed files (`composedio.ts`) and for relayed ones:
 * those for which the kernel had no backing file to give. FALLOCATE, LSEEK and COPY_FILE_RANGE come for all.
 */

import { EBADF, EIO, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { addExact, clipped, type Exact, getExact, setExact } from '../base/struct.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FUSE_WRITE_CACHE, FUSE_WRITE_KILL_SUIDGID } from '../fuse/wire/constants.ts';
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
import { clearSetIds, finishWith, slotOf } from './attributes.ts';
import { readComposed, writeComposed } from './composedio.ts';
import type { ComposedOpen } from './composing.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { HANDLE_SYNCS } from './opens.ts';
import { readAll, writeAll } from './transfer.ts';

/** What the composed route keeps of a node's open file, if it is on that route. */
function composedOf(m: Mount, slot: number): ComposedOpen | undefined {
  const row = m.composing === undefined || slot === NO_NODE ? -1 : m.nodes.openRow(slot);
  return row < 0 ? undefined : m.composing?.of(row);
}

/** Whether the map of a composed file may have something there: so large a file doesn't take that route, though it may grow on it. */
function isMapped(offset: Exact): offset is number {
  return typeof offset === 'number';
}

export function read(m: Mount, r: Request): Outcome {
  const { view } = m.input;
  const fd = m.opens.descriptor(fuse_read_in.fh.get(view, r.at));
  if (fd < 0) return -EBADF;
  const offset = getExact(view, r.at + fuse_read_in.offset.offset);
  const composed = isMapped(offset) ? composedOf(m, slotOf(m, r.nodeid)) : undefined;
  if (m.composing !== undefined && composed !== undefined) return readComposed(m, r, m.composing, composed, fd);
  const size = Math.min(fuse_read_in.size.get(view, r.at), m.output.bytes.length - PAYLOAD);
  return readAll(m.calls, fd, m.output.address + PAYLOAD, size, offset);
}

export function write(m: Mount, r: Request): Outcome {
  const { view } = m.input;
  const handle = fuse_write_in.fh.get(view, r.at);
  const fd = m.opens.descriptor(handle);
  if (fd < 0) return -EBADF;
  const slot = slotOf(m, r.nodeid);
  const offset = getExact(view, r.at + fuse_write_in.offset.offset);
  const composed = isMapped(offset) ? composedOf(m, slot) : undefined;
  if (m.composing !== undefined && composed !== undefined) {
    const waits = (m.opens.handleFlags(handle) & HANDLE_SYNCS) !== 0;
    return writeComposed(m, r, m.composing, composed, fd, waits);
  }
  const size = fuse_write_in.size.get(view, r.at);
  if (r.data + size > r.end) return -EIO;
  const writeFlags = fuse_write_in.write_flags.get(view, r.at);
  if ((writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0) {
    const cleared = clearSetIds(m, r, fd);
    if (cleared < 0) return cleared;
  }
  // What an append that comes again has written already is at its place.
  const before = appendedBefore(m, r, fd, slot, size);
  const at = addExact(offset, before);
  const whole = (writeFlags & FUSE_WRITE_CACHE) !== 0;
  const result = writeAll(m.calls, fd, m.input.address + r.data + before, size - before, at, whole);
  if (result < 0 && (before === 0 || whole)) return result;
  const written = before + Math.max(0, result);
  fuse_write_out.size.set(m.output.view, PAYLOAD, written);
  fuse_write_out._padding.set(m.output.view, PAYLOAD, 0);
  return fuse_write_out.structBytes;
}

/** How many bytes of an append to a relayed file were written by a server that was killed before it answered. */
function appendedBefore(m: Mount, r: Request, fd: number, slot: number, size: number): number {
  if ((fuse_write_in.flags.get(m.input.view, r.at) & c.O_APPEND) === 0 || slot === NO_NODE) return 0;
  const row = m.nodes.openRow(slot);
  const end = m.calls.lseek(fd, 0, c.SEEK_END);
  // Beyond 2^53 the end isn't exact.
  if (row < 0 || end < 0 || end > Number.MAX_SAFE_INTEGER) return 0;
  return Math.min(size, Math.max(0, end - m.opens.appendAt(row, r.uniqueLow, r.uniqueHigh, end)));
}

export function fallocate(m: Mount, r: Request): Outcome {
  const { view } = m.input;
  const fd = m.opens.descriptor(fuse_fallocate_in.fh.get(view, r.at));
  if (fd < 0) return -EBADF;
  const mode = fuse_fallocate_in.mode.get(view, r.at);
  const offset = getExact(view, r.at + fuse_fallocate_in.offset.offset);
  const length = getExact(view, r.at + fuse_fallocate_in.length.offset);
  const composed = composedOf(m, slotOf(m, r.nodeid));
  if (composed !== undefined) m.composing?.changes(composed, clipped(offset), clipped(Number(offset) + Number(length)));
  return m.calls.fallocate.later(fd, mode, offset, length).then((result) => {
    if (composed !== undefined) m.composing?.changed(composed);
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
  const composed = composedOf(m, to);
  if (composed !== undefined) m.composing?.changes(composed, clipped(at), clipped(addExact(at, length)));
  const finish = (copied: number): number => {
    if (composed !== undefined) m.composing?.changed(composed);
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
