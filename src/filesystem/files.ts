/** Open files: OPEN, CREATE, TMPFILE, RELEASE. Which backing file an open gets is decided in `routes.ts`. */

import { EEXIST, ENFILE, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FOPEN_DIRECT_IO, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH, FUSE_OPEN_KILL_SUIDGID } from '../fuse/wire/constants.ts';
import {
  fuse_create_in,
  fuse_open_in,
  fuse_open_out,
  fuse_release_in,
  SIZE_OF_ENTRY,
  statx,
} from '../fuse/wire/structs.ts';
import { clearSetIds, identify, internIdentified, putEntry, slotOf, statDescriptor } from './attributes.ts';
import type { Caller } from './callers.ts';
import { NO_DOMAIN } from './domains.ts';
import { isQuietSerial } from './locks/locks.ts';
import { type Mount, SCRATCH } from './mount.ts';
import { asCaller, forgetLookups, nameTaken, wasMade } from './namespace.ts';
import { NO_NODE } from './nodes.ts';
import {
  HANDLE_MAPS,
  HANDLE_QUIET,
  HANDLE_SYNCS,
  HANDLE_WRITES,
  ROUTE_COMPOSED,
  ROUTE_OWN,
  ROUTE_RELAYED,
  ROUTE_SHARED,
  type Route,
} from './opens.ts';
import { type Choice, OWN, OWN_FOR_NOW } from './routes.ts';

/** What of a caller's flags our own descriptor takes: what matters for files whose reads and writes come to us. */
const KEPT_FLAGS = c.O_ACCMODE | c.O_APPEND | c.O_SYNC | c.O_NOATIME;
const OUR_FLAGS = c.O_NONBLOCK | c.O_NOFOLLOW | c.O_CLOEXEC;

/** What an open is for, as far as it makes a difference here: reading, writing, or writing also through a map. */
type Access = 'reads' | 'writes' | 'maps';

const handleFlags = { reads: 0, writes: HANDLE_WRITES, maps: HANDLE_WRITES | HANDLE_MAPS } as const;

function accessOf(flags: number): Access {
  if ((flags & c.O_ACCMODE) === c.O_RDWR) return 'maps';
  return (flags & c.O_ACCMODE) !== c.O_RDONLY || (flags & c.O_TRUNC) !== 0 ? 'writes' : 'reads';
}

function putOpen(m: Mount, at: number, handle: number, openFlags: number, backingId: number): number {
  const out = m.output.view;
  fuse_open_out.fh.set(out, at, handle);
  fuse_open_out.open_flags.set(out, at, openFlags);
  fuse_open_out.backing_id.set(out, at, backingId);
  return fuse_open_out.structBytes;
}

/** The reply of an open for reading that needs no descriptor of ours. */
function putReader(m: Mount, at: number, slot: number, backingId: number): number {
  const quiet = m.locks.opensQuietly(slot);
  const flags = quiet ? FOPEN_PASSTHROUGH | FOPEN_NOFLUSH : FOPEN_PASSTHROUGH;
  return putOpen(m, at, m.locks.nameOpen(quiet), flags, backingId);
}

export function open(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const flags = fuse_open_in.flags.get(m.input.view, r.at);
  const clear = (fuse_open_in.open_flags.get(m.input.view, r.at) & FUSE_OPEN_KILL_SUIDGID) !== 0;
  // The open may have to wait, and the request is used again.
  const clearFor = clear ? { gid: r.gid, pid: r.pid } : undefined;
  if (m.routes.pending(slot) === undefined) return openNow(m, slot, flags, clearFor, true);
  return openAfter(m, slot, flags, clearFor);
}

/** Another open of this node is waiting for a clone: what it decides is this open's route too. */
async function openAfter(m: Mount, slot: number, flags: number, clearFor: Caller | undefined): Promise<Finish> {
  for (let other = m.routes.pending(slot); other !== undefined; other = m.routes.pending(slot)) await other;
  return () => {
    // Whoever opened it first decided; where that open failed, this one doesn't wait for another decision.
    const outcome = m.nodes.has(slot) ? openNow(m, slot, flags, clearFor, false) : -ESTALE;
    return typeof outcome === 'number' ? outcome : -ESTALE;
  };
}

function openNow(m: Mount, slot: number, flags: number, clearFor: Caller | undefined, mayWait: boolean): Outcome {
  const writing = accessOf(flags) !== 'reads';
  if (m.nodes.isDetached(slot)) return m.routes.elsewhere(slot, writing);
  if (writing) return openForWriting(m, slot, flags, clearFor, mayWait);
  const row = m.nodes.openRow(slot);
  const address = m.nodes.handleAddress(slot);
  if (row >= 0) {
    if (m.opens.route(row) === ROUTE_SHARED) {
      if (!m.routes.stillShared(slot)) return -ESTALE;
      m.opens.addOpen(row, false);
      return putReader(m, PAYLOAD, slot, m.opens.backingId(row));
    }
    if (m.opens.route(row) === ROUTE_OWN) {
      m.opens.addOpen(row, false);
      return putReader(m, PAYLOAD, slot, m.opens.backingId(row));
    }
    const fd = m.calls.openByHandleAt(m.mountFd, address, (flags & KEPT_FLAGS) | OUR_FLAGS);
    return fd < 0 ? fd : openWith(m, PAYLOAD, slot, row, fd, OWN, flags);
  }
  const kept = m.backing.take(slot, m.nodes.generation(slot));
  if (kept > 0) return openKept(m, slot, kept);
  const fd = m.calls.openByHandleAt(m.mountFd, address, (flags & KEPT_FLAGS) | OUR_FLAGS);
  if (fd < 0) return fd;
  const choice = mayWait ? m.routes.choose(slot, fd) : OWN;
  if (!(choice instanceof Promise)) return openWith(m, PAYLOAD, slot, -1, fd, choice, flags);
  return choice.then((chosen) => () => openWith(m, PAYLOAD, slot, m.nodes.openRow(slot), fd, chosen, flags));
}

/** Opens a file for reading that was closed a moment ago, when it was on its own route. */
function openKept(m: Mount, slot: number, backingId: number): number {
  const row = m.opens.add(slot, ROUTE_OWN, false, backingId, -1);
  if (row < 0) {
    m.backing.close(backingId);
    return -ENFILE;
  }
  m.opens.setKeeps(row, true);
  m.nodes.setOpenRow(slot, row);
  m.routes.countOwn('kept');
  return putReader(m, PAYLOAD, slot, backingId);
}

function openForWriting(
  m: Mount,
  slot: number,
  flags: number,
  clearFor: Caller | undefined,
  mayWait: boolean,
): Outcome {
  if (!m.routes.mayWrite(slot)) return -ESTALE;
  const row = m.nodes.openRow(slot);
  const composed = row < 0 ? undefined : m.composing?.of(row);
  const address = m.nodes.handleAddress(slot);
  // Truncated by its open, nothing of it is shared any more.
  if (composed !== undefined && (flags & c.O_TRUNC) !== 0) m.composing?.changes(composed, 0, Number.MAX_SAFE_INTEGER);
  const kept = flags & (KEPT_FLAGS | c.O_TRUNC);
  const fd = m.calls.openByHandleAt(m.mountFd, address, kept | OUR_FLAGS);
  if (composed !== undefined && (flags & c.O_TRUNC) !== 0) m.composing?.changed(composed);
  if (fd < 0) return fd;
  const cleared = clearFor === undefined ? 0 : clearSetIds(m, clearFor, fd);
  if (cleared < 0) {
    m.calls.close(fd);
    return cleared;
  }
  if (row >= 0 || !mayWait || (flags & c.O_TRUNC) !== 0 || !isLarge(m, fd)) return openWriter(m, slot, fd, OWN, flags);
  // Whether the file is written elsewhere can be told only while no descriptor of ours is open for writing.
  m.calls.close(fd);
  const look = m.calls.openByHandleAt(m.mountFd, address, c.O_RDONLY | OUR_FLAGS);
  if (look < 0) return look;
  const choice = m.routes.chooseForWriting(slot, look);
  if (!(choice instanceof Promise)) return openChosen(m, slot, look, choice, flags);
  return choice.then((chosen) => () => openChosen(m, slot, look, chosen, flags));
}

/** Opens for writing a file that a route was chosen for by a look through another descriptor. */
function openChosen(m: Mount, slot: number, look: number, choice: Choice, flags: number): number {
  m.calls.close(look);
  // Someone may have opened it meanwhile.
  if (!m.nodes.has(slot) || !m.routes.mayWrite(slot)) return -ESTALE;
  const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), (flags & KEPT_FLAGS) | OUR_FLAGS);
  return fd < 0 ? fd : openWriter(m, slot, fd, choice, flags);
}

function openWriter(m: Mount, slot: number, fd: number, choice: Choice, flags: number): number {
  const row = m.nodes.openRow(slot);
  if (row < 0 && choice === OWN) m.routes.countOwn('writing');
  // Attributes that the kernel has now would not show what comes through a map.
  if (accessOf(flags) === 'maps') m.invalidateAttributes(slot + 1);
  return openWith(m, PAYLOAD, slot, row, fd, choice, flags);
}

/** Whether an open file is large enough for the composed route. */
function isLarge(m: Mount, fd: number): boolean {
  if (m.composing === undefined || statDescriptor(m, fd, c.STATX_BASIC_STATS) < 0) return false;
  return m.composing.fits(statx.size.get(m.scratch.view, SCRATCH.statx));
}

/**
 * Registers the open that `fd` was made for, and writes the reply's fuse_open_out at `at`. Takes the descriptor over: it
 * is kept where the open is for writing, relayed or composed, and closed otherwise.
 */
function openWith(
  m: Mount,
  at: number,
  slot: number,
  existing: number,
  fd: number,
  choice: Choice,
  flags: number,
): number {
  const access = accessOf(flags);
  let row = existing;
  if (row < 0) {
    row = addRow(m, slot, fd, choice, access === 'maps');
    if (row < 0) {
      m.calls.close(fd);
      return -ENFILE;
    }
    // What a descriptor for writing was registered for would go on counting as open for writing; a file that is pinned has lost its
    // last name, and its room on the disk must be free when nobody uses it any more.
    if (choice === OWN_FOR_NOW && access === 'reads' && !m.descriptors.isPinned(slot)) m.opens.setKeeps(row, true);
  } else {
    m.opens.addOpen(row, access === 'maps');
  }
  const route = m.opens.route(row);
  if (access === 'reads' && route !== ROUTE_RELAYED && route !== ROUTE_COMPOSED) {
    m.calls.close(fd);
    return putReader(m, at, slot, m.opens.backingId(row));
  }
  const syncs = (flags & c.O_SYNC) !== 0 ? HANDLE_SYNCS : 0;
  const handle = m.opens.addHandle(fd, slot, handleFlags[access] | syncs, (flags & KEPT_FLAGS) | OUR_FLAGS);
  if (handle < 0) {
    m.calls.close(fd);
    dropOpen(m, slot, row, access === 'maps');
    return -ENFILE;
  }
  // Who writes to a file that was there before may well lock it.
  const noFlush =
    (access === 'reads' || (flags & (c.O_CREAT | c.O_TRUNC)) !== 0) && m.locks.opensQuietly(slot) ? FOPEN_NOFLUSH : 0;
  if (noFlush !== 0) m.opens.setQuiet(handle);
  if (route === ROUTE_RELAYED) return putOpen(m, at, handle, noFlush, 0);
  if (route === ROUTE_COMPOSED) {
    prepareComposed(m, fd, flags);
    const composed = m.composing?.of(row);
    if (composed !== undefined) m.composing?.lookAgain(composed, fd, true);
    return putOpen(m, at, handle, FOPEN_DIRECT_IO | noFlush, 0);
  }
  return putOpen(m, at, handle, FOPEN_PASSTHROUGH | noFlush, m.opens.backingId(row));
}

function prepareComposed(m: Mount, fd: number, flags: number): void {
  // Pages of a map have their place, which a descriptor that appends would not write to (pwrite(2), BUGS). An append-only
  // file doesn't let go of the flag, and is only ever appended to.
  if ((flags & c.O_APPEND) !== 0) m.calls.fcntl(fd, c.F_SETFL, (flags & c.O_NOATIME) | c.O_NONBLOCK);
  // The kernel's readahead would read the shared ranges between private ones into the file's own pages.
  m.calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_RANDOM);
}

/**
 * Opens again, in this process, what an earlier server had open. A file that can't be opened for writing any more, say because it
 * was made immutable since, is opened for reading: its data goes by passthrough, and fsync works.
 */
export function reopenHandles(m: Mount): void {
  for (const handle of m.opens.handles()) {
    const slot = m.opens.handleSlot(handle);
    m.opens.setDescriptor(handle, reopen(m, slot, m.opens.handleOpenFlags(handle)));
  }
  if (m.composing === undefined) return;
  for (const row of m.opens.rows()) {
    if (m.opens.route(row) !== ROUTE_COMPOSED) continue;
    const slot = m.opens.slot(row);
    const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), OUR_FLAGS);
    const known = fd >= 0 && statDescriptor(m, fd, c.STATX_BASIC_STATS) >= 0;
    m.composing.adopt(row, fd, known ? m.domains.of(slot, m.scratch) : NO_DOMAIN);
  }
}

function reopen(m: Mount, slot: number, flags: number): number {
  if (m.nodes.type(slot) === c.S_IFDIR) {
    const dirFd = m.descriptors.acquire(slot);
    if (dirFd < 0) return -1;
    const fd = m.calls.openat(dirFd, m.scratch.address + SCRATCH.dot, flags, 0);
    m.descriptors.release(slot, dirFd);
    return Math.max(fd, -1);
  }
  const address = m.nodes.handleAddress(slot);
  let fd = m.calls.openByHandleAt(m.mountFd, address, flags);
  if (fd < 0) fd = m.calls.openByHandleAt(m.mountFd, address, (flags & ~c.O_ACCMODE) | c.O_RDONLY);
  const row = m.nodes.openRow(slot);
  if (fd >= 0 && row >= 0 && m.opens.route(row) === ROUTE_COMPOSED) prepareComposed(m, fd, flags);
  return Math.max(fd, -1);
}

/** The row of a node that wasn't open: with the mapping's backing id, the file's own, or none. */
function addRow(m: Mount, slot: number, fd: number, choice: Choice, maps: boolean): number {
  const row =
    typeof choice === 'number' ? addBacked(m, slot, fd, choice, maps) : m.opens.add(slot, ROUTE_COMPOSED, maps, 0, -1);
  if (row < 0) return -1;
  if (typeof choice !== 'number') m.composing?.opened(row, choice);
  m.nodes.setOpenRow(slot, row);
  return row;
}

function addBacked(m: Mount, slot: number, fd: number, mapping: number, maps: boolean): number {
  let route: Route = ROUTE_SHARED;
  let shared = mapping;
  let backingId = mapping < 0 ? -1 : m.routes.acquire(slot, mapping);
  if (backingId < 0) {
    if (mapping >= 0) m.routes.countOwn('backing');
    shared = -1;
    const kept = m.backing.take(slot, m.nodes.generation(slot));
    backingId = kept > 0 ? kept : m.backing.open(fd);
    route = backingId < 0 ? ROUTE_RELAYED : ROUTE_OWN;
  }
  const row = m.opens.add(slot, route, maps, route === ROUTE_RELAYED ? 0 : backingId, shared);
  if (row < 0) {
    if (route === ROUTE_SHARED) m.routes.release(shared);
    else if (route === ROUTE_OWN) m.backing.close(backingId);
  }
  return row;
}

function dropOpen(m: Mount, slot: number, row: number, maps: boolean): void {
  if (m.opens.dropOpen(row, maps) > 0) return;
  const route = m.opens.route(row);
  if (route === ROUTE_SHARED) m.routes.release(m.opens.mapping(row));
  else if (route === ROUTE_OWN) closeOwn(m, slot, row);
  else if (route === ROUTE_COMPOSED) m.composing?.closed(row);
  m.opens.free(row);
  m.nodes.setOpenRow(slot, -1);
}

function closeOwn(m: Mount, slot: number, row: number): void {
  const backingId = m.opens.backingId(row);
  if (m.opens.keeps(row)) m.backing.keep(slot, m.nodes.generation(slot), backingId);
  else m.backing.close(backingId);
}

export function release(m: Mount, r: Request): Outcome {
  const handle = fuse_release_in.fh.get(m.input.view, r.at);
  const flags = m.opens.handleFlags(handle);
  const writes = (flags & HANDLE_WRITES) !== 0;
  const maps = (flags & HANDLE_MAPS) !== 0;
  const fd = m.opens.dropHandle(handle);
  if (fd >= 0) m.calls.close(fd);
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  m.locks.released(slot, handle, (flags & HANDLE_QUIET) !== 0 || isQuietSerial(handle));
  // What was written may have replaced the last use of a mapping's extents.
  if (writes) m.routes.referencesDropped(slot);
  const row = m.nodes.openRow(slot);
  if (row >= 0) dropOpen(m, slot, row, maps);
  // What was written through a map has changed the times, and the kernel has not seen it.
  if (maps) m.invalidateAttributes(r.nodeid);
  return 0;
}

/**
 * CREATE comes when the kernel's lookup found nothing. The file is always made anew: if someone else has made it since,
 * ESTALE has the kernel look the name up again and open what it finds.
 */
export function create(m: Mount, r: Request): Outcome {
  const parent = slotOf(m, r.nodeid);
  if (parent === NO_NODE) return -ESTALE;
  const { view } = m.input;
  const flags = fuse_create_in.flags.get(view, r.at);
  const mode = fuse_create_in.mode.get(view, r.at) & 0o7777;
  const umask = fuse_create_in.umask.get(view, r.at);
  const dirFd = m.descriptors.acquire(parent);
  if (dirFd < 0) return dirFd;
  const path = m.input.address + r.name;
  const made = (flags & KEPT_FLAGS) | c.O_CREAT | c.O_EXCL | OUR_FLAGS;
  const repeat = m.repeats.isRepeat(r);
  if (!repeat) m.repeats.intend(r, m.scratch, -1);
  let result = asCaller(m, r, umask, () => m.calls.openat(dirFd, path, made, mode));
  if (result === -EEXIST && repeat && wasMade(m, dirFd, path)) {
    result = m.calls.openat(dirFd, path, (flags & KEPT_FLAGS) | OUR_FLAGS, 0);
  }
  if (result === -EEXIST) result = nameTaken(m, dirFd, r.name, (flags & c.O_EXCL) !== 0);
  else if (result >= 0) result = replyCreated(m, parent, result, flags | c.O_CREAT);
  m.descriptors.release(parent, dirFd);
  return result;
}

/** A file without a name: it is found by its handle as long as it is open, and LINK may give it one. */
export function tmpfile(m: Mount, r: Request): Outcome {
  const parent = slotOf(m, r.nodeid);
  if (parent === NO_NODE) return -ESTALE;
  const { view } = m.input;
  const flags = fuse_create_in.flags.get(view, r.at);
  const mode = fuse_create_in.mode.get(view, r.at) & 0o7777;
  const umask = fuse_create_in.umask.get(view, r.at);
  const dirFd = m.descriptors.acquire(parent);
  if (dirFd < 0) return dirFd;
  const made = (flags & (KEPT_FLAGS | c.O_EXCL)) | c.O_TMPFILE | c.O_CLOEXEC;
  const path = m.scratch.address + SCRATCH.dot;
  const fd = asCaller(m, r, umask, () => m.calls.openat(dirFd, path, made, mode));
  const result = fd < 0 ? fd : replyCreated(m, parent, fd, flags | c.O_CREAT);
  m.descriptors.release(parent, dirFd);
  return result;
}

/** The reply of CREATE: an entry, and behind it the open. Takes the descriptor over. */
function replyCreated(m: Mount, parent: number, fd: number, flags: number): number {
  const empty = m.scratch.address + SCRATCH.empty;
  const found = identify(m, fd, empty, true);
  const slot = found < 0 ? found : internIdentified(m, parent, fd, empty, m.input.bytes.subarray(0, 0));
  if (slot < 0) {
    m.calls.close(fd);
    return slot;
  }
  const row = m.nodes.openRow(slot);
  const opened = openWith(m, PAYLOAD + SIZE_OF_ENTRY, slot, row, fd, OWN, flags);
  if (opened < 0) {
    forgetLookups(m, slot, 1);
    return opened;
  }
  return putEntry(m, PAYLOAD, slot) + opened;
}
