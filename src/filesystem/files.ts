/** Open files: OPEN, CREATE, TMPFILE, RELEASE. Which route an open gets is decided in `routes/`. */

import { EAGAIN, EEXIST, ENFILE, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FOPEN_NOFLUSH, FUSE_OPEN_KILL_SUIDGID } from '../fuse/wire/constants.ts';
import { fuse_create_in, fuse_open_in, fuse_open_out, fuse_release_in, SIZE_OF_ENTRY } from '../fuse/wire/structs.ts';
import { identify, internIdentified, putEntry, slotOf } from './attributes.ts';
import type { Caller } from './callers.ts';
import { isQuietSerial } from './locks/locks.ts';
import type { Mount } from './mount.ts';
import { asCaller, forgetLookups, nameTaken, wasMade } from './namespace.ts';
import { NO_NODE } from './nodes.ts';
import { KEPT_FLAGS, OPEN_FLAGS } from './openflags.ts';
import { HANDLE_MAPS, HANDLE_QUIET, HANDLE_SYNCS, HANDLE_WRITES } from './opens.ts';
import { leaseWait } from './revisit.ts';
import type { Choice } from './routes/choose.ts';
import { SCRATCH } from './scratch.ts';
import { clearSetIds } from './setids.ts';

/** What an open is for, as far as it makes a difference here: reading, writing, or writing also through a map. */
type Access = 'reads' | 'writes' | 'maps';

const handleFlags = { reads: 0, writes: HANDLE_WRITES, maps: HANDLE_WRITES | HANDLE_MAPS } as const;

function accessOf(flags: number): Access {
  if ((flags & c.O_ACCMODE) === c.O_RDWR) return 'maps';
  return (flags & c.O_ACCMODE) !== c.O_RDONLY || (flags & c.O_TRUNC) !== 0 ? 'writes' : 'reads';
}

/** An OPEN: what of the request is needed beyond a wait. */
interface Opening {
  readonly slot: number;
  /** The caller's flags. */
  readonly flags: number;
  readonly caller: Caller;
  /** Whether the caller loses the file's set-user-ID and set-group-ID by it. */
  readonly clears: boolean;
}

function putOpen(m: Mount, at: number, handle: number, openFlags: number, backingId: number): number {
  const out = m.output.view;
  fuse_open_out.fh.set(out, at, handle);
  fuse_open_out.open_flags.set(out, at, openFlags);
  fuse_open_out.backing_id.set(out, at, backingId);
  return fuse_open_out.structBytes;
}

/** The reply of an open for reading that needs no descriptor of ours. */
function putReader(m: Mount, at: number, slot: number, row: number): number {
  const quiet = m.locks.opensQuietly(slot);
  const { openFlags } = m.routes.of(row);
  return putOpen(m, at, m.locks.nameOpen(quiet), quiet ? openFlags | FOPEN_NOFLUSH : openFlags, m.opens.backingId(row));
}

export function open(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const flags = fuse_open_in.flags.get(m.input.view, r.at);
  const clears = (fuse_open_in.open_flags.get(m.input.view, r.at) & FUSE_OPEN_KILL_SUIDGID) !== 0;
  return openNow(m, { slot, flags, clears, caller: { uid: r.uid, gid: r.gid, pid: r.pid } }, true);
}

/** Goes on with an open, unless it has to wait for others first. Only a `patient` one waits for a file's readers. */
function openNow(m: Mount, o: Opening, patient: boolean): Outcome {
  const { slot, flags } = o;
  if (!m.nodes.has(slot)) return -ESTALE;
  const pending = m.routes.pending(slot);
  if (pending !== undefined) return pending.then(() => () => openNow(m, o, patient));
  const detached = m.nodes.isDetached(slot);
  if (!detached) m.routes.leaving?.goesOn(o.caller.pid);
  if (accessOf(flags) === 'reads') return detached ? openDetached(m, o) : openForReading(m, o);
  const ready = m.routes.toWrite(slot, patient);
  if (ready instanceof Promise) return ready.then(() => () => openNow(m, o, false));
  return ready < 0 ? ready : openForWriting(m, o);
}

/** What a detached node's readers have open may be opened again by their own links to it; every name leads to the file. */
function openDetached(m: Mount, o: Opening): number {
  const { leaving } = m.routes;
  const row = m.nodes.openRow(o.slot);
  if (leaving === undefined) return -ESTALE;
  if (row < 0 || !leaving.asksAgain(o.slot, o.caller.pid)) return leaving.elsewhere(o.slot, false);
  m.opens.addOpen(row, false);
  return putReader(m, PAYLOAD, o.slot, row);
}

function openForReading(m: Mount, o: Opening): Outcome {
  const { slot, flags } = o;
  const row = m.nodes.openRow(slot);
  if (row >= 0) {
    if (m.routes.leaving?.stillShared(slot) === false) return -ESTALE;
    const route = m.routes.of(row);
    if (route.io === undefined) {
      m.opens.addOpen(row, false);
      return putReader(m, PAYLOAD, slot, row);
    }
  } else {
    const kept = m.backing.take(slot, m.nodes.generation(slot));
    if (kept > 0)
      return m.routes.readmit(slot, kept) < 0 ? -ENFILE : putReader(m, PAYLOAD, slot, m.nodes.openRow(slot));
  }
  return withDescriptor(m, o, (flags & KEPT_FLAGS) | OPEN_FLAGS, (fd) => {
    if (row >= 0) return openWith(m, PAYLOAD, slot, fd, undefined, flags);
    const choice = m.routes.chooser.choose(slot, fd);
    if (!(choice instanceof Promise)) return openWith(m, PAYLOAD, slot, fd, choice, flags);
    return choice.then((chosen) => () => openWith(m, PAYLOAD, slot, fd, chosen, flags));
  });
}

/**
 * Opens a node's file and goes on with the descriptor, which `go` takes over. A lease of somebody's is waited for, as the
 * kernel would, unless the caller doesn't want to wait.
 */
function withDescriptor(m: Mount, o: Opening, flags: number, go: (fd: number) => Outcome, tries = 0): Outcome {
  const fd = attempt(m, o.slot, flags);
  if (fd >= 0) return go(fd);
  if (fd !== -EAGAIN || (o.flags & c.O_NONBLOCK) !== 0) return fd;
  return leaseWait(tries).then(() => (): Outcome => {
    if (!m.nodes.has(o.slot)) return -ESTALE;
    // Others may have opened the file meanwhile, and decided on its route.
    const known = m.nodes.openRow(o.slot) >= 0 || m.routes.pending(o.slot) !== undefined;
    return known ? openNow(m, o, false) : withDescriptor(m, o, flags, go, tries + 1);
  });
}

/** Opens a node's file by its handle. With O_TRUNC nothing of it is shared any more. */
function attempt(m: Mount, slot: number, flags: number): number {
  const handle = m.nodes.handleAddress(slot);
  if ((flags & c.O_TRUNC) === 0) return m.calls.openByHandleAt(m.mountFd, handle, flags);
  const path = m.descriptors.acquire(slot);
  if (path < 0) return path;
  const change = m.routes.change(slot, path, 0, Number.MAX_SAFE_INTEGER);
  const fd = m.calls.openByHandleAt(m.mountFd, handle, flags);
  change.done();
  m.descriptors.release(slot, path);
  return fd;
}

function openForWriting(m: Mount, o: Opening): Outcome {
  const { slot, flags } = o;
  const truncates = (flags & c.O_TRUNC) !== 0;
  const kept = (flags & KEPT_FLAGS) | OPEN_FLAGS;
  return withDescriptor(m, o, truncates ? kept | c.O_TRUNC : kept, (fd) => {
    const cleared = o.clears ? clearSetIds(m, o.caller, fd) : 0;
    if (cleared < 0) {
      m.calls.close(fd);
      return cleared;
    }
    if (m.nodes.openRow(slot) >= 0 || truncates || !m.routes.chooser.mayCompose(fd))
      return openWriter(m, o, fd, undefined);
    // Whether the file is written elsewhere can be told only while no descriptor of ours is open for writing.
    m.calls.close(fd);
    return openLarge(m, o, kept);
  });
}

/** Opens a large file for writing, for which a route is chosen by a look through another descriptor. */
function openLarge(m: Mount, o: Opening, flags: number): Outcome {
  const { slot } = o;
  const look = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), c.O_RDONLY | OPEN_FLAGS);
  if (look < 0) return look;
  const openChosen = (choice: Choice): Outcome => {
    m.calls.close(look);
    if (!m.nodes.has(slot)) return -ESTALE;
    // Someone may have opened it meanwhile.
    const ready = m.routes.toWrite(slot, false);
    if (typeof ready !== 'number' || ready < 0) return -ESTALE;
    return withDescriptor(m, o, flags, (fd) => openWriter(m, o, fd, choice));
  };
  const choice = m.routes.chooser.chooseForWriting(slot, look);
  return choice instanceof Promise ? choice.then((chosen) => () => openChosen(chosen)) : openChosen(choice);
}

/** `choice` is what was decided on; undefined where nothing but the file's own route comes into question. */
function openWriter(m: Mount, o: Opening, fd: number, choice: Choice | undefined): number {
  const { slot, flags } = o;
  const maps = accessOf(flags) === 'maps';
  m.routes.chooser.written(slot, maps);
  const isOpen = m.nodes.openRow(slot) >= 0;
  const taken = isOpen ? undefined : (choice ?? m.routes.chooser.ownForWriting(fd));
  // Attributes that the kernel has now would not show what comes through a map.
  if (maps) m.invalidateAttributes(slot + 1);
  return openWith(m, PAYLOAD, slot, fd, taken, flags);
}

/**
 * Registers the open that `fd` was made for, and writes the reply's fuse_open_out at `at`. `choice` is for a file that nobody had open
 * when it was made. Takes the descriptor over: it is kept where the open is for writing or reads come to us, and closed otherwise.
 */
function openWith(m: Mount, at: number, slot: number, fd: number, choice: Choice | undefined, flags: number): number {
  const access = accessOf(flags);
  const maps = access === 'maps';
  let row = m.nodes.openRow(slot);
  if (row >= 0) {
    m.opens.addOpen(row, maps);
  } else {
    row = choice === undefined ? -1 : m.routes.admit(slot, fd, choice, maps);
    if (row < 0) {
      m.calls.close(fd);
      return choice === undefined ? -ESTALE : -ENFILE;
    }
    // What a descriptor for writing was registered for would go on counting as open for writing; a file that is pinned has lost its
    // last name, and its room on the disk must be free when nobody uses it any more.
    if (access !== 'reads' || m.descriptors.isPinned(slot)) m.opens.setKeeps(row, false);
    // One that lost it on its way to this open is kept alive by nothing else, where the kernel doesn't hold it open.
    if (!m.routes.of(row).holdsFile) m.descriptors.pinOn(slot);
  }
  const route = m.routes.of(row);
  if (access === 'reads' && route.io === undefined) {
    m.calls.close(fd);
    return putReader(m, at, slot, row);
  }
  const syncs = (flags & c.O_SYNC) !== 0 ? HANDLE_SYNCS : 0;
  const handle = m.opens.addHandle(fd, slot, handleFlags[access] | syncs, (flags & KEPT_FLAGS) | OPEN_FLAGS);
  if (handle < 0) {
    m.calls.close(fd);
    m.routes.release(slot, row, maps);
    return -ENFILE;
  }
  // Who writes to a file that was there before may well lock it.
  const unlikely = access === 'reads' || (flags & (c.O_CREAT | c.O_TRUNC)) !== 0;
  const noFlush = unlikely && m.locks.opensQuietly(slot) ? FOPEN_NOFLUSH : 0;
  if (noFlush !== 0) m.opens.setQuiet(handle);
  route.prepare(fd, flags);
  route.opened(row, fd);
  return putOpen(m, at, handle, route.openFlags | noFlush, m.opens.backingId(row));
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
  for (const row of m.opens.rows()) m.routes.of(row).adopt(m.opens.slot(row), row);
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
  if (fd >= 0) m.routes.ofNode(slot)?.prepare(fd, flags);
  return Math.max(fd, -1);
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
  if (writes) {
    // What was written may have replaced the last use of a mapping's extents.
    m.routes.referencesDropped(slot);
    m.routes.chooser.written(slot, maps);
  }
  const row = m.nodes.openRow(slot);
  if (row >= 0) m.routes.release(slot, row, maps);
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
  const made = (flags & KEPT_FLAGS) | c.O_CREAT | c.O_EXCL | OPEN_FLAGS;
  const repeat = m.repeats.isRepeat(r);
  if (!repeat) m.repeats.intend(r, m.scratch, -1);
  let result = asCaller(m, r, umask, () => m.calls.openat(dirFd, path, made, mode));
  if (result === -EEXIST && repeat && wasMade(m, dirFd, path)) {
    result = m.calls.openat(dirFd, path, (flags & KEPT_FLAGS) | OPEN_FLAGS, 0);
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
  const writing = accessOf(flags) !== 'reads';
  if (writing) m.routes.chooser.written(slot, accessOf(flags) === 'maps');
  const choice = m.routes.chooser.ownForCreated(fd);
  const opened = openWith(m, PAYLOAD + SIZE_OF_ENTRY, slot, fd, choice, flags);
  if (opened < 0) {
    forgetLookups(m, slot, 1);
    return opened;
  }
  return putEntry(m, PAYLOAD, slot) + opened;
}
