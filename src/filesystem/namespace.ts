/** Names: LOOKUP and FORGET, and what makes, moves and removes directory entries. */

import { EACCES, EEXIST, ENOENT, ENOTEMPTY, EOVERFLOW, ESTALE, EXDEV } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Address, putString } from '../base/memory.ts';
import { type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FUSE_INVALID_UIDGID } from '../fuse/wire/constants.ts';
import {
  fuse_batch_forget_in,
  fuse_forget_in,
  fuse_forget_one,
  fuse_link_in,
  fuse_mkdir_in,
  fuse_mknod_in,
  fuse_rename_in,
  fuse_rename2_in,
  statx,
} from '../fuse/wire/structs.ts';
import {
  handleAt,
  identify,
  internIdentified,
  isHidden,
  isStorePlaceholder,
  noteName,
  putEntry,
  putNegativeEntry,
  STORE_NAME_BYTES,
  slotOf,
  statNode,
} from './attributes.ts';
import { holdsNothingElse } from './directories.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { SCRATCH } from './scratch.ts';

const RENAME_EXCHANGE = 2;
const RENAME_WHITEOUT = 4;

/** The address of something in the request, for a system call to read in place. */
function inRequest(m: Mount, at: number): Address {
  return m.input.address + at;
}

function nameBytes(m: Mount, at: number): Uint8Array {
  const { bytes } = m.input;
  return bytes.subarray(at, bytes.indexOf(0, at));
}

/**
 * Looks `name` (an offset in the request) up in an open directory and writes its entry as the reply: the payload's length,
 * or a negated errno. Every entry that reaches the kernel counts as one lookup of its node.
 */
function replyEntry(m: Mount, parent: number, dirFd: number, name: number): number {
  const path = inRequest(m, name);
  const found = identify(m, dirFd, path, false);
  if (found < 0) return found;
  const bytes = nameBytes(m, name);
  if (isHidden(m, SCRATCH.handle, bytes)) return -ENOENT;
  const slot = internIdentified(m, parent, dirFd, path, bytes);
  return slot < 0 ? slot : putEntry(m, PAYLOAD, slot);
}

export function lookup(m: Mount, r: Request): Outcome {
  const parent = slotOf(m, r.nodeid);
  if (parent === NO_NODE) return -ESTALE;
  const dirFd = m.descriptors.acquire(parent);
  if (dirFd < 0) return dirFd;
  const result = replyEntry(m, parent, dirFd, r.name);
  if (result >= 0) m.fills.missed(parent);
  m.descriptors.release(parent, dirFd);
  return result === -ENOENT && m.cache.entrySeconds > 0 ? putNegativeEntry(m, PAYLOAD) : result;
}

/** Takes lookups of a node back, and what is kept of it with the last of them. */
export function forgetLookups(m: Mount, slot: number, count: number): void {
  const generation = m.nodes.generation(slot);
  if (!m.nodes.forget(slot, count)) return;
  m.descriptors.forget(slot);
  m.backing.drop(slot, generation);
}

function forgetNode(m: Mount, nodeid: number, count: number): void {
  const slot = slotOf(m, nodeid);
  if (slot !== NO_NODE) forgetLookups(m, slot, count);
}

export function forget(m: Mount, r: Request): Outcome {
  forgetNode(m, r.nodeid, fuse_forget_in.nlookup.get(m.input.view, r.at));
  return 0;
}

/** How many nodes are forgotten in one step; each changes some ten words. A message may have 69,000. */
const FORGETS_PER_STEP = 1024;

export function batchForget(m: Mount, r: Request): Outcome {
  const { view } = m.input;
  const bytes = fuse_forget_one.structBytes;
  const count = Math.min(fuse_batch_forget_in.count.get(view, r.at), Math.floor((r.end - r.data) / bytes));
  for (let i = m.progress.parts(r.uniqueLow, r.uniqueHigh); i < count; ) {
    for (const end = Math.min(count, i + FORGETS_PER_STEP); i < end; i++) {
      const at = r.data + i * bytes;
      forgetNode(m, fuse_forget_one.nodeid.get(view, at), fuse_forget_one.nlookup.get(view, at));
    }
    m.progress.partsDone(r.uniqueLow, r.uniqueHigh, i);
  }
  return 0;
}

/**
 * Runs a call that makes an inode with the caller's ids and umask. Capabilities stay ours: the kernel has checked the
 * caller's permission on the mount, and has cleared a set-group-id bit that the caller may not set. The umask is left to
 * the source, since a default ACL replaces it.
 */
export function asCaller(m: Mount, r: Request, umask: number, make: () => number): number {
  // Without a caller the inode would be root's. The kernel refuses such callers itself (may_create(), fsuidgid_has_mapping()).
  if (r.uid === FUSE_INVALID_UIDGID || r.gid === FUSE_INVALID_UIDGID) return -EOVERFLOW;
  if (m.currentUmask !== umask) {
    m.calls.umask(umask);
    m.currentUmask = umask;
  }
  if (r.uid === 0 && r.gid === 0) return make();
  m.calls.setfsgid(r.gid);
  m.calls.setfsuid(r.uid);
  try {
    return make();
  } finally {
    m.calls.setfsuid(0);
    m.calls.setfsgid(0);
  }
}

/** Whether what a name leads to can have been made by this request, when a server had it that was killed. */
export function wasMade(m: Mount, dirFd: number, path: Address): boolean {
  const { address, view } = m.scratch;
  const at = SCRATCH.statx;
  const mask = c.STATX_BASIC_STATS | c.STATX_BTIME;
  if (m.calls.statx(dirFd, path, c.AT_SYMLINK_NOFOLLOW, mask, address + at) < 0) return false;
  return m.repeats.bornSince(statx.btime.get(view, at), statx.btimensec.get(view, at));
}

/** What MKDIR, MKNOD, SYMLINK and LINK have in common: a new name in a directory, answered with its entry. */
function makeEntry(
  m: Mount,
  r: Request,
  name: number,
  make: (dirFd: number, path: Address) => number,
  isOurs = (dirFd: number, path: Address): boolean => wasMade(m, dirFd, path),
): Outcome {
  const parent = slotOf(m, r.nodeid);
  if (parent === NO_NODE) return -ESTALE;
  const dirFd = m.descriptors.acquire(parent);
  if (dirFd < 0) return dirFd;
  const path = inRequest(m, name);
  const repeat = m.repeats.isRepeat(r);
  if (!repeat) m.repeats.intend(r, m.scratch, -1);
  let made = make(dirFd, path);
  if (made === -EEXIST && repeat && isOurs(dirFd, path)) made = 0;
  const result = made < 0 ? made : replyEntry(m, parent, dirFd, name);
  m.descriptors.release(parent, dirFd);
  return result;
}

export function mkdir(m: Mount, r: Request): Outcome {
  const mode = fuse_mkdir_in.mode.get(m.input.view, r.at) & 0o7777;
  const umask = fuse_mkdir_in.umask.get(m.input.view, r.at);
  return makeEntry(m, r, r.name, (dirFd, path) => asCaller(m, r, umask, () => m.calls.mkdirat(dirFd, path, mode)));
}

export function mknod(m: Mount, r: Request): Outcome {
  const mode = fuse_mknod_in.mode.get(m.input.view, r.at);
  const device = fuse_mknod_in.rdev.get(m.input.view, r.at);
  const umask = fuse_mknod_in.umask.get(m.input.view, r.at);
  return makeEntry(m, r, r.name, (dirFd, path) =>
    asCaller(m, r, umask, () => m.calls.mknodat(dirFd, path, mode, device)),
  );
}

/** The request's two strings are the new name and the link's text. */
export function symlink(m: Mount, r: Request): Outcome {
  const target = inRequest(m, r.secondName);
  return makeEntry(m, r, r.name, (dirFd, path) =>
    asCaller(m, r, m.currentUmask, () => m.calls.symlinkat(target, dirFd, path)),
  );
}

export function link(m: Mount, r: Request): Outcome {
  const old = slotOf(m, fuse_link_in.oldnodeid.get(m.input.view, r.at));
  if (old === NO_NODE) return -ESTALE;
  if (!m.domains.mayBeIn(old, slotOf(m, r.nodeid))) return -EXDEV;
  const oldFd = m.descriptors.acquire(old);
  if (oldFd < 0) return oldFd;
  const result = makeEntry(
    m,
    r,
    r.name,
    (dirFd, path) => m.calls.linkat(oldFd, m.scratch.address + SCRATCH.empty, dirFd, path, c.AT_EMPTY_PATH),
    (dirFd, path) =>
      handleAt(m, dirFd, path, 0, SCRATCH.handle) >= 0 && m.nodes.find(m.scratch, SCRATCH.handle) === old,
  );
  m.descriptors.release(old, oldFd);
  if (typeof result === 'number' && result >= 0) noteName(m, old, slotOf(m, r.nodeid), nameBytes(m, r.name));
  return result;
}

export function readlink(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const fd = m.descriptors.acquire(slot);
  if (fd < 0) return fd;
  const result = m.calls.readlinkat(fd, m.scratch.address + SCRATCH.empty, m.output.address + PAYLOAD, 4096);
  m.descriptors.release(slot, fd);
  return result;
}

/**
 * A node that is about to lose a name, perhaps its last. Whoever still uses it (a working directory, an open fifo, a file
 * open on a shared mapping) must go on finding it, and its handle dies with its inode: such a node is kept open until the kernel
 * forgets it. Any other file is kept briefly: its lookup may have been answered and its open be on the way, which finds it, as it
 * would on the source, and so does who has an O_PATH descriptor of it.
 *
 * Keeps the node open, if need be. It is opened by its handle: the name may be another file's by now, if someone else renames
 * things as well. Returns the node if that is new, and NO_NODE otherwise.
 */
function holdVictim(m: Mount, slot: number): number {
  if (slot === NO_NODE || m.descriptors.isPinned(slot)) return NO_NODE;
  const flags = c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC;
  const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), flags);
  if (fd < 0) return NO_NODE;
  if (isFileItself(m, slot)) m.descriptors.pinBriefly(slot, fd, m.now());
  else m.descriptors.pin(slot, fd);
  return slot;
}

/** Whether a node is a regular file that isn't open, or is backed by itself: the kernel holds it as a backing file then. */
function isFileItself(m: Mount, slot: number): boolean {
  if (m.nodes.type(slot) !== c.S_IFREG) return false;
  return m.routes.ofNode(slot)?.holdsFile ?? true;
}

/** `held` is the node if it was pinned for this. One that has another name is found by its handle as before. */
function settleVictim(m: Mount, slot: number, held: number, removed: boolean): void {
  if (held !== NO_NODE && !(removed && hasNoName(m, held))) m.descriptors.unpin(held);
  if (!removed) return;
  m.routes.referencesDropped(slot);
  if (slot !== NO_NODE) dontKeep(m, slot);
}

/** The file may have lost its last name: its room on the disk is free when its last user has closed it, and not later. */
function dontKeep(m: Mount, slot: number): void {
  m.backing.drop(slot, m.nodes.generation(slot));
  const row = m.nodes.openRow(slot);
  if (row >= 0) m.opens.setKeeps(row, false);
}

function hasNoName(m: Mount, slot: number): boolean {
  if (m.nodes.type(slot) === c.S_IFDIR) return true;
  if (statNode(m, slot, c.STATX_NLINK) < 0) return true;
  return statx.nlink.get(m.scratch.view, SCRATCH.statx) === 0;
}

/**
 * Takes a name from a directory, by removing it or by moving another one over it. A directory that holds nothing but what a
 * btrfs snapshot has in the store's place is empty as far as anyone sees: the placeholder goes first. It is nobody's, so nothing
 * is lost if the server is killed in between, or if the name can't be taken after all.
 */
function takeName(m: Mount, dirFd: number, path: Address, take: () => number): number {
  const result = take();
  if (result !== -ENOTEMPTY) return result;
  const fd = m.calls.openat(dirFd, path, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW | c.O_CLOEXEC, 0);
  if (fd < 0) return result;
  const removed = removeOnlyPlaceholder(m, fd);
  m.calls.close(fd);
  return removed < 0 ? removed : take();
}

/** Removes the store's placeholder if it is all that an open directory holds; -ENOTEMPTY if it isn't. */
function removeOnlyPlaceholder(m: Mount, fd: number): number {
  putString(m.scratch, SCRATCH.path, STORE_NAME_BYTES);
  const name = m.scratch.address + SCRATCH.path;
  if (handleAt(m, fd, name, 0, SCRATCH.handle) < 0) return -ENOTEMPTY;
  if (!isStorePlaceholder(m, SCRATCH.handle, STORE_NAME_BYTES)) return -ENOTEMPTY;
  if (!holdsNothingElse(m, fd, STORE_NAME_BYTES)) return -ENOTEMPTY;
  return m.calls.unlinkat(fd, name, c.AT_REMOVEDIR);
}

function remove(m: Mount, r: Request, flags: number): Outcome {
  const parent = slotOf(m, r.nodeid);
  if (parent === NO_NODE) return -ESTALE;
  const dirFd = m.descriptors.acquire(parent);
  if (dirFd < 0) return dirFd;
  const path = inRequest(m, r.name);
  const { handle } = SCRATCH;
  const named = handleAt(m, dirFd, path, 0, handle) >= 0;
  if (named && isHidden(m, handle, nameBytes(m, r.name))) {
    m.descriptors.release(parent, dirFd);
    return -ENOENT;
  }
  let result = 0;
  let victim = NO_NODE;
  let held = NO_NODE;
  const { repeats } = m;
  const repeat = repeats.isRepeat(r);
  if (!repeat || !repeats.named || (named && repeats.led(m.scratch, handle))) {
    if (!repeat) repeats.intend(r, m.scratch, named ? handle : -1);
    victim = named ? m.nodes.find(m.scratch, handle) : NO_NODE;
    held = holdVictim(m, victim);
    result = takeName(m, dirFd, path, () => m.calls.unlinkat(dirFd, path, flags));
  }
  settleVictim(m, victim, held, result >= 0);
  m.descriptors.release(parent, dirFd);
  return result;
}

export function unlink(m: Mount, r: Request): Outcome {
  return remove(m, r, 0);
}

export function rmdir(m: Mount, r: Request): Outcome {
  return remove(m, r, c.AT_REMOVEDIR);
}

function move(m: Mount, r: Request, newDirectory: number, flags: number): Outcome {
  const from = slotOf(m, r.nodeid);
  const to = slotOf(m, newDirectory);
  if (from === NO_NODE || to === NO_NODE) return -ESTALE;
  const fromFd = m.descriptors.acquire(from);
  if (fromFd < 0) return fromFd;
  const toFd = m.descriptors.acquire(to);
  if (toFd < 0) {
    m.descriptors.release(from, fromFd);
    return toFd;
  }
  const result = moveBetween(m, r, from, fromFd, to, toFd, flags);
  m.descriptors.release(to, toFd);
  m.descriptors.release(from, fromFd);
  return result;
}

function moveBetween(
  m: Mount,
  r: Request,
  from: number,
  fromFd: number,
  to: number,
  toFd: number,
  flags: number,
): number {
  const oldPath = inRequest(m, r.name);
  const newPath = inRequest(m, r.secondName);
  const { handle, secondHandle } = SCRATCH;
  const there = handleAt(m, toFd, newPath, 0, handle) >= 0;
  // The kernel takes a hidden name for free, and would let an empty directory be moved over it.
  if (there && isHidden(m, handle, nameBytes(m, r.secondName))) return -EACCES;
  const moving = handleAt(m, fromFd, oldPath, 0, secondHandle) >= 0;
  if (moving && isHidden(m, secondHandle, nameBytes(m, r.name))) return -ENOENT;
  const { repeats } = m;
  if (repeats.isRepeat(r)) {
    const arrived = repeats.named && there && repeats.led(m.scratch, handle);
    const left = !moving || !repeats.led(m.scratch, secondHandle);
    if (arrived && left) return 0;
  } else {
    repeats.intend(r, m.scratch, moving ? secondHandle : -1);
  }
  const victim = there ? m.nodes.find(m.scratch, handle) : NO_NODE;
  const moved = moving ? m.nodes.find(m.scratch, secondHandle) : NO_NODE;
  if (from !== to) {
    if (moved !== NO_NODE && !m.domains.mayBeIn(moved, to)) return -EXDEV;
    const back = (flags & RENAME_EXCHANGE) !== 0 ? victim : NO_NODE;
    if (back !== NO_NODE && !m.domains.mayBeIn(back, from)) return -EXDEV;
  }
  const held = holdVictim(m, victim);
  const change = (): number => m.calls.renameat2(fromFd, oldPath, toFd, newPath, flags);
  const whiteout = (flags & RENAME_WHITEOUT) !== 0;
  const result = takeName(m, toFd, newPath, () =>
    // It makes a device node, which belongs to the caller.
    whiteout ? asCaller(m, r, m.currentUmask, change) : change(),
  );
  // An exchange takes no name away.
  settleVictim(m, victim, held, result >= 0 && (flags & RENAME_EXCHANGE) === 0);
  if (result >= 0 && moved !== NO_NODE) noteName(m, moved, to, nameBytes(m, r.secondName));
  return result;
}

export function rename(m: Mount, r: Request): Outcome {
  return move(m, r, fuse_rename_in.newdir.get(m.input.view, r.at), 0);
}

export function rename2(m: Mount, r: Request): Outcome {
  return move(m, r, fuse_rename2_in.newdir.get(m.input.view, r.at), fuse_rename2_in.flags.get(m.input.view, r.at));
}

/**
 * CREATE found its name (an offset in the request) taken: by the store, which nobody may use, or by someone since the kernel's
 * lookup.
 */
export function nameTaken(m: Mount, dirFd: number, name: number, exclusive: boolean): number {
  if (exclusive) return -EEXIST;
  const found = handleAt(m, dirFd, inRequest(m, name), 0, SCRATCH.handle);
  return found >= 0 && isHidden(m, SCRATCH.handle, nameBytes(m, name)) ? -EACCES : -ESTALE;
}
