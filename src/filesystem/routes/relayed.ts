/** The relayed route: for want of a backing file, READ and WRITE come to us, and go to the file. */

import { EIO } from '../../base/errno.ts';
import * as c from '../../base/linux.ts';
import { addExact, getExact } from '../../base/struct.ts';
import { type Outcome, PAYLOAD, type Request } from '../../fuse/server/session.ts';
import { FUSE_WRITE_CACHE } from '../../fuse/wire/constants.ts';
import { fuse_read_in, fuse_write_in, fuse_write_out } from '../../fuse/wire/structs.ts';
import type { SourceCalls } from '../calls.ts';
import type { Mount } from '../mount.ts';
import type { NodeTable } from '../nodes.ts';
import { losePrivileges } from '../setids.ts';
import { openFile } from './passthrough.ts';
import { NO_CHANGE, type Route, type RouteIo } from './route.ts';
import { readAll, writeAll } from './transfer.ts';

export function relayedRoute(calls: Pick<SourceCalls, 'openByHandleAt'>, nodes: NodeTable, mountFd: number): Route {
  return {
    name: 'relayed',
    openFlags: 0,
    io: relayed,
    storesUnseen: true,
    holdsFile: false,
    prepare() {},
    opened() {},
    closed() {},
    change: () => NO_CHANGE,
    visibleSize: (_, size) => size,
    openForReading: (slot) => openFile(calls, nodes, mountFd, slot),
    adopt() {},
  };
}

/** Reads and writes of the file itself. */
export const relayed: RouteIo = { read, write };

function read(m: Mount, r: Request, _: number, fd: number): Outcome {
  const { view } = m.input;
  const size = Math.min(fuse_read_in.size.get(view, r.at), m.output.bytes.length - PAYLOAD);
  return readAll(m.calls, fd, m.output.address + PAYLOAD, size, getExact(view, r.at + fuse_read_in.offset.offset));
}

function write(m: Mount, r: Request, row: number, fd: number): Outcome {
  const { view } = m.input;
  const size = fuse_write_in.size.get(view, r.at);
  if (r.data + size > r.end) return -EIO;
  const writeFlags = fuse_write_in.write_flags.get(view, r.at);
  const lost = losePrivileges(m, r, fd, writeFlags);
  if (lost < 0) return lost;
  // What an append that comes again has written already is at its place.
  const before = appendedBefore(m, r, fd, row, size);
  const at = addExact(getExact(view, r.at + fuse_write_in.offset.offset), before);
  const whole = (writeFlags & FUSE_WRITE_CACHE) !== 0;
  const result = writeAll(m.calls, fd, m.input.address + r.data + before, size - before, at, whole);
  if (result < 0 && (before === 0 || whole)) return result;
  fuse_write_out.size.set(m.output.view, PAYLOAD, before + Math.max(0, result));
  fuse_write_out._padding.set(m.output.view, PAYLOAD, 0);
  return fuse_write_out.structBytes;
}

/** How many bytes of an append were written by a server that was killed before it answered. */
function appendedBefore(m: Mount, r: Request, fd: number, row: number, size: number): number {
  if ((fuse_write_in.flags.get(m.input.view, r.at) & c.O_APPEND) === 0) return 0;
  const end = m.calls.lseek(fd, 0, c.SEEK_END);
  // Beyond 2^53 the end isn't exact.
  if (end < 0 || end > Number.MAX_SAFE_INTEGER) return 0;
  return Math.min(size, Math.max(0, end - m.opens.appendAt(row, r.uniqueLow, r.uniqueHigh, end)));
}
