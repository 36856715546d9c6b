/**
 * READ and WRITE of files on the composed route. A read is cut into pieces by the file's map: zeros, the file's own pages, and
 * pages of targets; all pieces go into one reply. What isn't resident, which RWF_NOWAIT tells without waiting, is
 * read on another thread, and the loop goes on meanwhile.
 */

import { EAGAIN, EBADF, EIO, ENOSPC, EOPNOTSUPP } from '../../base/errno.ts';
import * as c from '../../base/linux.ts';
import type { Address, Memory } from '../../base/memory.ts';
import { setU64 } from '../../base/struct.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../../fuse/server/session.ts';
import { FUSE_WRITE_CACHE } from '../../fuse/wire/constants.ts';
import { fuse_read_in, fuse_write_in, fuse_write_out } from '../../fuse/wire/structs.ts';
import { isPosition, UNKNOWN, ZERO_BLOCKS } from '../../mappings/composed.ts';
import type { Mount } from '../mount.ts';
import { HANDLE_SYNCS } from '../opens.ts';
import { losePrivileges } from '../setids.ts';
import type { ComposedOpen, Composing } from './composing.ts';
import type { Change } from './route.ts';
import { writeAll } from './transfer.ts';

/** Columns of a request's pieces. */
const FD = 0; // -1: zeros
const AT = 1; // byte offset in the file that FD is
const BYTES = 2;
const TARGET = 3; // or 0

const ZEROS = -1;
/** How far ahead a file's own pages are read for someone who reads them in order. */
const READAHEAD_BYTES = 131_072;

function readNow(m: Mount, iovec: Memory, fd: number, to: Address, bytes: number, at: number): number {
  setU64(iovec.view, 0, to);
  setU64(iovec.view, 8, bytes);
  return m.calls.preadv2(fd, iovec.address, 1, at, c.RWF_NOWAIT);
}

function wouldWait(result: number): boolean {
  return result === -EAGAIN || result === -EOPNOTSUPP;
}

/** Cuts the bytes from..to of an open file into pieces, and finds out where unknown ones are. */
function cut(composing: Composing, open: ComposedOpen, fd: number, from: number, to: number): void {
  const { pieces, composer, packs } = composing;
  const { map } = open.file;
  const { blockBytes } = composer;
  pieces.clear();
  for (let at = from; at < to; ) {
    const block = Math.floor(at / blockBytes);
    let value = map.find(block);
    if (value === UNKNOWN) {
      composer.resolve(open.file, fd, block);
      value = map.find(block);
    }
    const end = Math.min(to, map.end * blockBytes);
    const bytes = end - at;
    if (isPosition(value)) {
      const target = packs.target(value);
      const offset = packs.offset(value) + (at - block * blockBytes);
      pieces.push(packs.descriptor(target), offset, bytes, target);
      composing.mappingBytes += bytes;
    } else if (value === ZERO_BLOCKS) {
      pieces.push(ZEROS, 0, bytes, 0);
      composing.zeroBytes += bytes;
    } else {
      pieces.push(fd, at, bytes, 0);
    }
    at = end;
  }
}

export function readComposed(m: Mount, r: Request, composing: Composing, row: number, fd: number): Outcome {
  const open = composing.of(row);
  if (open === undefined) return -EBADF;
  const { view } = m.input;
  const from = fuse_read_in.offset.get(view, r.at);
  const size = Math.min(fuse_read_in.size.get(view, r.at), m.output.bytes.length - PAYLOAD);
  composing.lookAgain(open, fd, false);
  cut(composing, open, fd, from, from + size);
  const { pieces, iovec } = composing;
  const { address, bytes } = m.output;
  if (open.accessedMs !== open.checkedMs) access(m, open, fd);
  let done = 0;
  for (let piece = 0; piece < pieces.count; piece++) {
    const pieceFd = pieces.get(piece, FD);
    const length = pieces.get(piece, BYTES);
    if (pieceFd === ZEROS) {
      bytes.fill(0, PAYLOAD + done, PAYLOAD + done + length);
      done += length;
      continue;
    }
    for (let got = 0; got < length; ) {
      const at = pieces.get(piece, AT) + got;
      const result = readNow(m, iovec, pieceFd, address + PAYLOAD + done, length - got, at);
      if (wouldWait(result)) {
        pieces.set(piece, AT, at);
        pieces.set(piece, BYTES, length - got);
        return readSlowly(m, composing, open, piece, done, size);
      }
      if (result <= 0) return ended(open, done, result, pieces.get(piece, TARGET));
      got += result;
      done += result;
      if (pieces.get(piece, TARGET) === 0) composing.ownBytes += result;
    }
  }
  return done;
}

/**
 * What is read from a target moves the target's access time, which is none. A read at the end of the file moves the file's own, if its
 * mount wants that, and reads no page (mm/filemap.c: filemap_read). Once per look at the file: times are that coarse.
 */
function access(m: Mount, open: ComposedOpen, fd: number): void {
  open.accessedMs = open.checkedMs;
  m.calls.pread(fd, m.output.address + PAYLOAD, 1, open.size);
}

/**
 * A piece ended early. An error is the whole request's: an answer that is short is the end of the file to a map that the kernel
 * reads pages for. The end of the file is one only in the file itself.
 */
function ended(open: ComposedOpen, done: number, result: number, target: number): number {
  open.checkedMs = Number.NEGATIVE_INFINITY;
  if (result < 0) return result;
  return target === 0 ? done : -EIO;
}

/** Reads the rest of a request, from a piece that would have had to wait on, on other threads. */
function readSlowly(
  m: Mount,
  composing: Composing,
  open: ComposedOpen,
  first: number,
  done: number,
  size: number,
): Outcome {
  composing.slowReads++;
  const { pieces, packs, buffers } = composing;
  const rest: SlowPiece[] = [];
  for (let piece = first; piece < pieces.count; piece++) {
    const target = pieces.get(piece, TARGET);
    rest.push({ fd: pieces.get(piece, FD), at: pieces.get(piece, AT), bytes: pieces.get(piece, BYTES), target });
    if (target !== 0) packs.retain(target);
  }
  const buffer = buffers.take(size);
  if (buffer === undefined) {
    const result = readWaiting(m, composing, open, rest, done);
    for (const { target } of rest) if (target !== 0) packs.release(target);
    return result;
  }
  buffer.bytes.set(m.output.bytes.subarray(PAYLOAD, PAYLOAD + done));
  return readRest(m, composing, open, rest, buffer, done).then((result): Finish => {
    for (const { target } of rest) if (target !== 0) packs.release(target);
    return () => {
      if (result > 0) m.output.bytes.set(buffer.bytes.subarray(0, result), PAYLOAD);
      buffers.give(buffer);
      return result;
    };
  });
}

interface SlowPiece {
  readonly fd: number;
  readonly at: number;
  readonly bytes: number;
  readonly target: number;
}

/** Without a buffer the loop waits: more requests wait for the device than there are buffers. */
function readWaiting(
  m: Mount,
  composing: Composing,
  open: ComposedOpen,
  rest: readonly SlowPiece[],
  before: number,
): number {
  let done = before;
  for (const { fd, at, bytes, target } of rest) {
    if (fd === ZEROS) {
      m.output.bytes.fill(0, PAYLOAD + done, PAYLOAD + done + bytes);
      done += bytes;
      continue;
    }
    for (let got = 0; got < bytes; ) {
      const result = m.calls.pread(fd, m.output.address + PAYLOAD + done, bytes - got, at + got);
      if (result <= 0) return ended(open, done, result, target);
      got += result;
      done += result;
      if (target === 0) composing.ownBytes += result;
    }
  }
  return done;
}

async function readRest(
  m: Mount,
  composing: Composing,
  open: ComposedOpen,
  rest: readonly SlowPiece[],
  buffer: Memory,
  before: number,
): Promise<number> {
  let done = before;
  for (const { fd, at, bytes, target } of rest) {
    if (fd === ZEROS) {
      buffer.bytes.fill(0, done, done + bytes);
      done += bytes;
      continue;
    }
    for (let got = 0; got < bytes; ) {
      const to = buffer.address + done;
      let result = readNow(m, composing.iovec, fd, to, bytes - got, at + got);
      if (wouldWait(result)) {
        if (target === 0) readAhead(m, composing, open, fd, at + got, bytes - got);
        result = await m.calls.pread.later(fd, to, bytes - got, at + got);
      }
      if (result <= 0) return ended(open, done, result, target);
      got += result;
      done += result;
      if (target === 0) composing.ownBytes += result;
    }
  }
  return done;
}

/**
 * The kernel's readahead is off for the file's own pages: it would read the shared ranges between private ones into them. Who
 * reads in order gets the rest of the private range, some way ahead.
 */
function readAhead(m: Mount, composing: Composing, open: ComposedOpen, fd: number, at: number, bytes: number): void {
  const inOrder = at === open.ownReadEnd;
  open.ownReadEnd = at + bytes;
  if (!inOrder || bytes >= READAHEAD_BYTES) return;
  const { blockBytes } = composing.composer;
  const { map } = open.file;
  map.find(Math.floor(at / blockBytes));
  const end = Math.min(map.end * blockBytes, at + READAHEAD_BYTES);
  if (end <= at + bytes) return;
  m.calls.posixFadvise(fd, at, end - at, c.POSIX_FADV_WILLNEED);
  open.ownReadEnd = end;
}

/** Writes to the file itself. */
export function writeComposed(m: Mount, r: Request, composing: Composing, row: number, fd: number): Outcome {
  const { view, address } = m.input;
  const size = fuse_write_in.size.get(view, r.at);
  if (r.data + size > r.end) return -EIO;
  const writeFlags = fuse_write_in.write_flags.get(view, r.at);
  const lost = losePrivileges(m, r, fd, writeFlags);
  if (lost < 0) return lost;
  let at = fuse_write_in.offset.get(view, r.at);
  const ofMap = (writeFlags & FUSE_WRITE_CACHE) !== 0;
  // The kernel says where the end is by the size that it knows; pages of a map have their place.
  const appends = (fuse_write_in.flags.get(view, r.at) & c.O_APPEND) !== 0 && !ofMap;
  if (appends) at = m.calls.lseek(fd, 0, c.SEEK_END);
  if (at < 0) return at;
  if (appends) at = m.opens.appendAt(row, r.uniqueLow, r.uniqueHigh, at);
  const change = composing.change(row, fd, at, at + size);
  // Writes through a descriptor that syncs reach the device before they are done.
  const waits = (m.opens.handleFlags(fuse_write_in.fh.get(view, r.at)) & HANDLE_SYNCS) !== 0;
  let written = 0;
  if (!waits) {
    setU64(composing.iovec.view, 0, address + r.data);
    setU64(composing.iovec.view, 8, size);
    const result = m.calls.pwritev2(fd, composing.iovec.address, 1, at, c.RWF_NOWAIT);
    if (result < 0 && !wouldWait(result) && result !== -ENOSPC) {
      change.done();
      return result;
    }
    written = Math.max(0, result);
  }
  if (written < size) return writeSlowly(m, r, composing, change, fd, at, written, ofMap);
  change.done();
  return putWritten(m, size);
}

/** Writes what is left of a request, which has to wait, on another thread. */
function writeSlowly(
  m: Mount,
  r: Request,
  composing: Composing,
  change: Change,
  fd: number,
  at: number,
  written: number,
  ofMap: boolean,
): Outcome {
  composing.slowWrites++;
  const size = fuse_write_in.size.get(m.input.view, r.at);
  const left = size - written;
  const buffer = composing.buffers.take(left);
  if (buffer === undefined) {
    const result = writeAll(m.calls, fd, m.input.address + r.data + written, left, at + written, ofMap);
    change.done();
    return answer(m, written, result, ofMap);
  }
  buffer.bytes.set(m.input.bytes.subarray(r.data + written, r.data + size));
  return writeRest(m, composing, fd, buffer, left, at + written, ofMap).then((result): Finish => {
    change.done();
    composing.buffers.give(buffer);
    return () => answer(m, written, result, ofMap);
  });
}

/** As `writeAll`, on another thread, and with another try when there was no space and some could be made. */
async function writeRest(
  m: Mount,
  composing: Composing,
  fd: number,
  buffer: Memory,
  bytes: number,
  at: number,
  whole: boolean,
): Promise<number> {
  let done = 0;
  while (done < bytes) {
    const result = await m.calls.pwrite.later(fd, buffer.address + done, bytes - done, at + done);
    // Some packs go at a time: it ends when none is left that may go.
    if (result === -ENOSPC && composing.makeRoom()) {
      await composing.packs.buried();
      continue;
    }
    if (result <= 0) return done > 0 && !whole ? done : result;
    done += result;
  }
  return done;
}

/** The answer to a write of `before` bytes and then a result. An error of pages of a map must not hide behind the others. */
function answer(m: Mount, before: number, result: number, ofMap: boolean): number {
  return result < 0 && (before === 0 || ofMap) ? result : putWritten(m, before + Math.max(0, result));
}

function putWritten(m: Mount, bytes: number): number {
  fuse_write_out.size.set(m.output.view, PAYLOAD, bytes);
  fuse_write_out._padding.set(m.output.view, PAYLOAD, 0);
  return fuse_write_out.structBytes;
}
