/** Attributes: how a node is found and described to the kernel, and GETATTR, STATX, SETATTR, STATFS. */

import { EAGAIN, EIO, ENFILE, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { Address } from '../base/memory.ts';
import { clipped, copyWords, type Exact, getExact, getU64, setU64 } from '../base/struct.ts';
import { type Finish, type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import * as fuse from '../fuse/wire/constants.ts';
import {
  fuse_attr,
  fuse_attr_out,
  fuse_entry_out,
  fuse_setattr_in,
  fuse_statfs_out,
  fuse_statx_in,
  fuse_statx_out,
  SIZE_OF_ENTRY,
  statx,
} from '../fuse/wire/structs.ts';
import { STORE_NAME } from '../mappings/place.ts';
import {
  F_HANDLE_BYTES,
  foldInode,
  HANDLE_BYTES,
  handleInode,
  handleSubvolume,
  PLACEHOLDER_INODE,
  writePlaceholder,
} from './handles.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { leaseWait, revisit } from './revisit.ts';
import { SCRATCH } from './scratch.ts';
import { clearSetIds } from './setids.ts';
import { statVanished } from './vanished.ts';

const LOOKUP_MASK = c.STATX_BASIC_STATS | c.STATX_SUBVOL;
/** How often a name that is being replaced is looked at again before ESTALE is passed on. */
const LOOKUP_ATTEMPTS = 8;

/** The node id of the protocol is the row's number plus one; ids that we never gave out become rows that are not in use. */
export function slotOf(m: Mount, nodeid: number): number {
  const slot = nodeid - 1;
  return m.nodes.has(slot) ? slot : NO_NODE;
}

export function statNode(m: Mount, slot: number, mask: number): number {
  const fd = m.descriptors.acquire(slot);
  if (fd < 0) return fd === -ESTALE ? statVanished(m, slot, fd) : fd;
  const result = statDescriptor(m, fd, mask);
  m.descriptors.release(slot, fd);
  return result;
}

/** Fills the scratch memory's struct statx from a descriptor of any kind. */
export function statDescriptor(m: Mount, fd: number, mask: number): number {
  const { address } = m.scratch;
  return m.calls.statx(fd, address + SCRATCH.empty, c.AT_EMPTY_PATH, mask, address + SCRATCH.statx);
}

/** Fills `at` of the scratch memory with the handle of `path` under `dirFd`: a negated errno when there is none. */
export function handleAt(m: Mount, dirFd: number, path: Address, flags: number, at: number): number {
  const { bytes, view, address } = m.scratch;
  bytes.fill(0, at, at + HANDLE_BYTES);
  view.setUint32(at, F_HANDLE_BYTES, true);
  return m.calls.nameToHandleAt(dirFd, path, address + at, address + SCRATCH.mountId, flags);
}

/** Whether the scratch memory's handle is the store's directory. */
function isStore(m: Mount, at: number): boolean {
  if (m.storeInode < 0) return false;
  const { view } = m.scratch;
  return handleInode(view, at) === m.storeInode && handleSubvolume(view, at) === m.storeSubvolume;
}

export const STORE_NAME_BYTES = Buffer.from(STORE_NAME);

/**
 * Whether what the scratch memory's handle stands for, found by `name`, isn't shown: the store, and the empty directory of
 * its name that a btrfs snapshot of the source has in its place.
 */
export function isHidden(m: Mount, at: number, name: Uint8Array): boolean {
  return isStore(m, at) || isStorePlaceholder(m, at, name);
}

/** Whether what the scratch memory's handle stands for, found by `name`, is what a btrfs snapshot has in a store's place. */
export function isStorePlaceholder(m: Mount, at: number, name: Uint8Array): boolean {
  const { view } = m.scratch;
  if (handleInode(view, at) !== PLACEHOLDER_INODE || handleSubvolume(view, at) === 0) return false;
  return STORE_NAME_BYTES.equals(name);
}

/**
 * Finds what `path` names under `dirFd`: its handle and its attributes, in the scratch memory. The two come from two calls,
 * between which someone may replace the name: they are read again until they belong together. Returns 0 or a negated errno.
 */
export function identify(m: Mount, dirFd: number, path: Address, empty: boolean): number {
  const { view, address } = m.scratch;
  const at = SCRATCH.statx;
  for (let attempt = 0; attempt < LOOKUP_ATTEMPTS; attempt++) {
    const named = handleAt(m, dirFd, path, empty ? c.AT_EMPTY_PATH : 0, SCRATCH.handle);
    if (named < 0) return named;
    const flags = empty ? c.AT_EMPTY_PATH : c.AT_SYMLINK_NOFOLLOW;
    const read = m.calls.statx(dirFd, path, flags, LOOKUP_MASK, address + at);
    if (read < 0) return read;
    const inode = handleInode(view, SCRATCH.handle);
    if (inode < 0) return -EIO;
    const subvolumeKnown = (statx.mask.get(view, at) & c.STATX_SUBVOL) !== 0;
    if (inode !== statx.ino.get(view, at)) continue;
    // Equal inode numbers may be of two subvolumes; a placeholder belongs to its parent's.
    if (subvolumeKnown && inode !== PLACEHOLDER_INODE) {
      if (statx.subvol.get(view, at) !== handleSubvolume(view, SCRATCH.handle)) continue;
    }
    return 0;
  }
  return -ESTALE;
}

/**
 * The node of what `identify` found, with one lookup more, or a negated errno. A btrfs placeholder, which has no handle of
 * its own, gets one of ours and is kept open.
 */
export function internIdentified(m: Mount, parent: number, dirFd: number, path: Address, name: Uint8Array): number {
  const { view } = m.scratch;
  const mode = statx.mode.get(view, SCRATCH.statx);
  const subvolume = handleSubvolume(view, SCRATCH.handle);
  if (subvolume === 0 || handleInode(view, SCRATCH.handle) !== PLACEHOLDER_INODE) {
    let slot = m.nodes.lookUp(m.scratch, SCRATCH.handle, mode);
    // A file that changed while it is open on the shared route gets a new node: its readers keep the old one.
    if (slot !== NO_NODE && m.routes.leaving?.seen(slot, m.stat) === false) {
      m.nodes.forget(slot, 1);
      slot = m.nodes.lookUp(m.scratch, SCRATCH.handle, mode);
    }
    if (slot === NO_NODE) return -ENFILE;
    const isNew = m.nodes.lookups(slot) === 1;
    m.domains.found(slot, parent, (mode & c.S_IFMT) === c.S_IFDIR, isNew);
    if (isNew) noteName(m, slot, parent, name);
    return slot;
  }
  const fd = m.calls.openat(dirFd, path, c.O_PATH | c.O_NOFOLLOW | c.O_CLOEXEC, 0);
  if (fd < 0) return fd;
  const parentInode = handleInode(m.nodes.memory.view, m.nodes.handleOffset(parent));
  writePlaceholder(view, SCRATCH.handle, parentInode, name);
  const slot = m.nodes.lookUp(m.scratch, SCRATCH.handle, mode);
  if (slot === NO_NODE) {
    m.calls.close(fd);
    return -ENFILE;
  }
  m.descriptors.pin(slot, fd);
  return slot;
}

const DOT = 46;

/**
 * A node got a name in a folder: it may be that of a file that is written in place, or of a folder of logs. A program may be called
 * git-log.
 */
export function noteName(m: Mount, slot: number, parent: number, name: Uint8Array): void {
  if (m.live === undefined || m.nodes.isLive(slot)) return;
  const amongLogs = m.nodes.isLive(parent);
  if (m.nodes.type(slot) === c.S_IFDIR) {
    if (amongLogs || m.live.isLogFolder(name)) m.nodes.setLive(slot);
  } else if (m.nodes.type(slot) === c.S_IFREG && m.live.isFile(name, amongLogs)) {
    if (name.includes(DOT) || statNode(m, slot, c.STATX_BASIC_STATS) < 0 || (m.stat.mode & 0o111) === 0)
      m.nodes.setLive(slot);
  }
}

/** Writes fuse_attr from the scratch memory's struct statx. */
function putAttributes(m: Mount, at: number, slot: number): void {
  const source = m.scratch.view;
  const from = SCRATCH.statx;
  const out = m.output.view;
  const inode = foldInode(
    statx.ino.get(source, from),
    handleSubvolume(m.nodes.memory.view, m.nodes.handleOffset(slot)),
    m.ownSubvolume,
  );
  out.setUint32(at, inode.low, true);
  out.setUint32(at + 4, inode.high, true);
  copyWords(out, at + fuse_attr.size.offset, source, from + statx.size.offset);
  putVisibleSize(m, slot, at + fuse_attr.size.offset);
  copyWords(out, at + fuse_attr.blocks.offset, source, from + statx.blocks.offset);
  copyWords(out, at + fuse_attr.atime.offset, source, from + statx.atime.offset);
  copyWords(out, at + fuse_attr.mtime.offset, source, from + statx.mtime.offset);
  copyWords(out, at + fuse_attr.ctime.offset, source, from + statx.ctime.offset);
  fuse_attr.atimensec.set(out, at, statx.atimensec.get(source, from));
  fuse_attr.mtimensec.set(out, at, statx.mtimensec.get(source, from));
  fuse_attr.ctimensec.set(out, at, statx.ctimensec.get(source, from));
  fuse_attr.mode.set(out, at, statx.mode.get(source, from));
  fuse_attr.nlink.set(out, at, statx.nlink.get(source, from));
  fuse_attr.uid.set(out, at, statx.uid.get(source, from));
  fuse_attr.gid.set(out, at, statx.gid.get(source, from));
  fuse_attr.rdev.set(out, at, encodeDevice(statx.rdev_major.get(source, from), statx.rdev_minor.get(source, from)));
  fuse_attr.blksize.set(out, at, statx.blksize.get(source, from));
  fuse_attr.flags.set(out, at, 0);
}

/** Replaces a file's size, in the output, by the one that callers of its node see, where that is another. */
function putVisibleSize(m: Mount, slot: number, at: number): void {
  const size = getU64(m.output.view, at);
  const visible = m.routes.visibleSize(slot, size);
  if (visible !== size) setU64(m.output.view, at, visible);
}

/** A device number in the kernel's 32-bit form: include/linux/kdev_t.h, new_encode_dev. */
function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/**
 * Two kinds of nodes have attributes that change without the kernel's knowledge, and that it may not keep: those open for
 * reading and writing, since it doesn't see what is written through a map of a backing file, and detached ones, since
 * their file may be changed through the node's successor.
 */
function attributeSeconds(m: Mount, slot: number): number {
  if (m.nodes.isDetached(slot)) return 0;
  const row = m.nodes.openRow(slot);
  const unseen = row >= 0 && m.opens.writableMaps(row) > 0 && m.routes.of(row).storesUnseen;
  return unseen ? 0 : m.cache.attributeSeconds;
}

/**
 * A file with several names that leaves the shared route is looked up anew only by the name that it is opened by. The
 * others must not go on leading to its detached node: the kernel asks for them each time.
 */
function entrySecondsOf(m: Mount, slot: number): number {
  const mayDetach = m.routes.leaving !== undefined && m.nodes.type(slot) === c.S_IFREG;
  return mayDetach && statx.nlink.get(m.scratch.view, SCRATCH.statx) > 1 ? 0 : m.cache.entrySeconds;
}

/** Writes fuse_entry_out and its attributes for the scratch memory's struct statx; returns the bytes written. */
export function putEntry(m: Mount, at: number, slot: number): number {
  const out = m.output.view;
  const entrySeconds = entrySecondsOf(m, slot);
  const attributes = attributeSeconds(m, slot);
  fuse_entry_out.nodeid.set(out, at, slot + 1);
  fuse_entry_out.generation.set(out, at, m.nodes.generation(slot));
  fuse_entry_out.entry_valid.set(out, at, Math.floor(entrySeconds));
  fuse_entry_out.attr_valid.set(out, at, Math.floor(attributes));
  fuse_entry_out.entry_valid_nsec.set(out, at, (entrySeconds % 1) * 1e9);
  fuse_entry_out.attr_valid_nsec.set(out, at, (attributes % 1) * 1e9);
  putAttributes(m, at + fuse_entry_out.structBytes, slot);
  return SIZE_OF_ENTRY;
}

/** Writes an entry that says that there is nothing of this name, for as long as entries may be kept. */
export function putNegativeEntry(m: Mount, at: number): number {
  const { entrySeconds } = m.cache;
  m.output.bytes.fill(0, at, at + SIZE_OF_ENTRY);
  fuse_entry_out.entry_valid.set(m.output.view, at, Math.floor(entrySeconds));
  fuse_entry_out.entry_valid_nsec.set(m.output.view, at, (entrySeconds % 1) * 1e9);
  return SIZE_OF_ENTRY;
}

function putAttributeReply(m: Mount, slot: number): number {
  const out = m.output.view;
  const seconds = attributeSeconds(m, slot);
  fuse_attr_out.attr_valid.set(out, PAYLOAD, Math.floor(seconds));
  fuse_attr_out.attr_valid_nsec.set(out, PAYLOAD, (seconds % 1) * 1e9);
  fuse_attr_out._dummy.set(out, PAYLOAD, 0);
  putAttributes(m, PAYLOAD + fuse_attr_out.structBytes, slot);
  return fuse_attr_out.structBytes + fuse_attr.structBytes;
}

export function getattr(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const result = statNode(m, slot, c.STATX_BASIC_STATS);
  if (result < 0) return result;
  m.routes.leaving?.seen(slot, m.stat);
  return putAttributeReply(m, slot);
}

/** The kernel asks by STATX where a caller wants a birth time; flags such as AT_STATX_DONT_SYNC change nothing here. */
export function getStatx(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const wanted = fuse_statx_in.sx_mask.get(m.input.view, r.at);
  const result = statNode(m, slot, (wanted | c.STATX_BASIC_STATS) & (c.STATX_BASIC_STATS | c.STATX_BTIME));
  if (result < 0) return result;
  m.routes.leaving?.seen(slot, m.stat);
  const out = m.output.view;
  const at = PAYLOAD + fuse_statx_out.structBytes;
  const seconds = attributeSeconds(m, slot);
  m.output.bytes.fill(0, PAYLOAD, at);
  fuse_statx_out.attr_valid.set(out, PAYLOAD, Math.floor(seconds));
  fuse_statx_out.attr_valid_nsec.set(out, PAYLOAD, (seconds % 1) * 1e9);
  m.output.bytes.set(m.scratch.bytes.subarray(SCRATCH.statx, SCRATCH.statx + statx.structBytes), at);
  const inode = foldInode(
    statx.ino.get(out, at),
    handleSubvolume(m.nodes.memory.view, m.nodes.handleOffset(slot)),
    m.ownSubvolume,
  );
  out.setUint32(at + statx.ino.offset, inode.low, true);
  out.setUint32(at + statx.ino.offset + 4, inode.high, true);
  putVisibleSize(m, slot, at + statx.size.offset);
  const mask = statx.mask.get(out, at) & (c.STATX_BASIC_STATS | c.STATX_BTIME);
  statx.mask.set(out, at, mask);
  // What follows the device numbers is reserved in this protocol; the kernel fills it itself.
  m.output.bytes.fill(0, at + statx.dev_major.offset, at + statx.structBytes);
  return fuse_statx_out.structBytes + statx.structBytes;
}

/** Writes a struct timespec whose seconds are in the request, at an offset of it. */
function putTime(m: Mount, at: number, seconds: number, nanoseconds: number): void {
  copyWords(m.scratch.view, at, m.input.view, seconds);
  setU64(m.scratch.view, at + 8, nanoseconds);
}

/** Writes a struct timespec without seconds, as the special values of utimensat(2) want it. */
function putSpecialTime(m: Mount, at: number, value: number): void {
  setU64(m.scratch.view, at, 0);
  setU64(m.scratch.view, at + 8, value);
}

export function setattr(m: Mount, r: Request): Outcome {
  return setattrNow(m, r, true);
}

/** Only a `patient` change of content waits for the file's readers. */
function setattrNow(m: Mount, r: Request, patient: boolean): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const input = m.input.view;
  const { at } = r;
  const valid = fuse_setattr_in.valid.get(input, at);
  const sizeWanted = (valid & fuse.FATTR_SIZE) !== 0;
  if (sizeWanted) {
    // A change of content breaks sharing: the kernel looks the name up again and gets the node that takes the change.
    const ready = m.routes.toWrite(slot, patient);
    if (typeof ready !== 'number') return revisit(m, r, ready, (again) => setattrNow(m, again, false));
    if (ready < 0) return ready;
  }

  const fd = m.descriptors.acquire(slot);
  if (fd < 0) return fd;
  const from = sizeWanted ? clipped(getExact(input, at + fuse_setattr_in.size.offset)) : Number.MAX_SAFE_INTEGER;
  const change = m.routes.change(slot, fd, from, Number.MAX_SAFE_INTEGER);
  let result = 0;
  if (changesNothing(valid)) result = clearSetIds(m, r, fd, m.opens.isWritten(slot) ? 'owner' : 'nothing');
  else if ((valid & OWNERS) !== 0) result = clearSetIds(m, r, fd, 'owner');
  else if ((valid & fuse.FATTR_KILL_SUIDGID) !== 0) result = clearSetIds(m, r, fd);
  if (result >= 0) result = changeOwnerAndMode(m, fd, at, valid);
  if (result >= 0 && sizeWanted) result = truncate(m, slot, at, valid);
  if (result >= 0 && (valid & TIMES) !== 0) result = changeTimes(m, fd, at, valid);
  if (result >= 0) result = statDescriptor(m, fd, c.STATX_BASIC_STATS);
  change.done();
  m.descriptors.release(slot, fd);
  if (result < 0) return leased(m, r, result, sizeWanted) ?? result;
  // What is kept was registered for a file of another mode: `routes/choose.ts: isGuarded`.
  if ((valid & (fuse.FATTR_MODE | OWNERS)) !== 0) m.backing.drop(slot, m.nodes.generation(slot));
  if (m.nodes.isDetached(slot)) {
    const successor = m.nodes.successor(slot);
    if (successor !== NO_NODE) m.invalidateAttributes(successor + 1);
  }
  return putAttributeReply(m, slot);
}

/** truncate(2) waits for somebody's lease, whatever is asked for: the request is dealt with again. */
function leased(m: Mount, r: Request, result: number, truncates: boolean, tries = 0): Outcome | undefined {
  if (result !== -EAGAIN || !truncates) return undefined;
  return revisit(m, r, leaseWait(tries), (again) => {
    const outcome = setattrNow(m, again, false);
    return typeof outcome === 'number' ? (leased(m, again, outcome, truncates, tries + 1) ?? outcome) : outcome;
  });
}

const OWNERS = fuse.FATTR_UID | fuse.FATTR_GID;
const TIMES = fuse.FATTR_ATIME | fuse.FATTR_MTIME;
const CHANGES = fuse.FATTR_MODE | OWNERS | fuse.FATTR_SIZE | TIMES;

/**
 * Whether nothing is to be changed but what any change of owner changes: set-user-id and set-group-id go, and ctime moves. It comes
 * for a chown that leaves both ids, and before a write that goes by passthrough, which has no request that could carry a flag to
 * clear the bits (measured on Linux 6.18: file_remove_privs comes to fuse_setattr, which leaves the bits to a server that took
 * FUSE_HANDLE_KILLPRIV_V2). The write moves ctime anyway. Who has the file open for writing may take the bits so; a chown by somebody
 * who doesn't own the file is refused if it would, and where nobody has it open for writing it is one.
 */
function changesNothing(valid: number): boolean {
  return (valid & CHANGES) === 0;
}

/** Leaves an id as it is: chown(2). */
const NO_ID = 0xffff_ffff;

/** Owner before mode: a change of owner clears the set-id bits, which the mode may set again. */
function changeOwnerAndMode(m: Mount, fd: number, at: number, valid: number): number {
  const input = m.input.view;
  const empty = m.scratch.address + SCRATCH.empty;
  if ((valid & OWNERS) !== 0 || changesNothing(valid)) {
    const uid = (valid & fuse.FATTR_UID) !== 0 ? fuse_setattr_in.uid.get(input, at) : NO_ID;
    const gid = (valid & fuse.FATTR_GID) !== 0 ? fuse_setattr_in.gid.get(input, at) : NO_ID;
    const result = m.calls.fchownat(fd, empty, uid, gid, c.AT_EMPTY_PATH);
    if (result < 0) return result;
  }
  if ((valid & fuse.FATTR_MODE) !== 0) {
    const mode = fuse_setattr_in.mode.get(input, at) & 0o7777;
    const result = m.calls.fchmodat2(fd, empty, mode, c.AT_EMPTY_PATH);
    if (result < 0) return result;
  }
  return 0;
}

function truncate(m: Mount, slot: number, at: number, valid: number): number {
  const input = m.input.view;
  const size = getExact(input, at + fuse_setattr_in.size.offset);
  const handle = (valid & fuse.FATTR_FH) !== 0 ? fuse_setattr_in.fh.get(input, at) : 0;
  const held = m.opens.descriptor(handle);
  if (held >= 0) return m.calls.ftruncate(held, size);
  const flags = c.O_WRONLY | c.O_NONBLOCK | c.O_CLOEXEC;
  const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), flags);
  if (fd < 0) return fd;
  const result = (valid & fuse.FATTR_FH) !== 0 || size === 0 ? m.calls.ftruncate(fd, size) : cutByName(m, fd, size);
  m.calls.close(fd);
  return result;
}

/**
 * truncate(2) to the size that a file has moves no time, while ftruncate(2), which names an open file, does; so does an
 * open with O_TRUNC, which asks for the size 0 as truncate(2) does.
 */
function cutByName(m: Mount, fd: number, size: Exact): number {
  const result = statDescriptor(m, fd, c.STATX_BASIC_STATS);
  if (result < 0 || getExact(m.scratch.view, SCRATCH.statx + statx.size.offset) === size) return result;
  return m.calls.ftruncate(fd, size);
}

function changeTimes(m: Mount, fd: number, at: number, valid: number): number {
  const input = m.input.view;
  const { times, empty } = SCRATCH;
  if ((valid & fuse.FATTR_ATIME) === 0) putSpecialTime(m, times, c.UTIME_OMIT);
  else if ((valid & fuse.FATTR_ATIME_NOW) !== 0) putSpecialTime(m, times, c.UTIME_NOW);
  else putTime(m, times, at + fuse_setattr_in.atime.offset, fuse_setattr_in.atimensec.get(input, at));
  if ((valid & fuse.FATTR_MTIME) === 0) putSpecialTime(m, times + 16, c.UTIME_OMIT);
  else if ((valid & fuse.FATTR_MTIME_NOW) !== 0) putSpecialTime(m, times + 16, c.UTIME_NOW);
  else putTime(m, times + 16, at + fuse_setattr_in.mtime.offset, fuse_setattr_in.mtimensec.get(input, at));
  const { address } = m.scratch;
  return m.calls.utimensat(fd, address + empty, address + times, c.AT_EMPTY_PATH);
}

/** struct statfs of 64-bit Linux (statfs(2)): every field is 8 bytes but f_fsid, which is two of 4. */
const STATFS = { bsize: 8, blocks: 16, bfree: 24, bavail: 32, files: 40, ffree: 48, namelen: 64, frsize: 72 } as const;

export function statfs(m: Mount): Outcome {
  const { address, view } = m.scratch;
  const result = m.calls.fstatfs(m.mountFd, address + SCRATCH.small);
  if (result < 0) return result;
  const out = m.output.view;
  const word = (offset: number): number => view.getUint32(SCRATCH.small + offset, true);
  m.output.bytes.fill(0, PAYLOAD, PAYLOAD + fuse_statfs_out.structBytes);
  for (const name of ['blocks', 'bfree', 'bavail', 'files', 'ffree'] as const) {
    const from = SCRATCH.small + STATFS[name];
    const to = PAYLOAD + fuse_statfs_out[name].offset;
    m.output.bytes.set(m.scratch.bytes.subarray(from, from + 8), to);
  }
  fuse_statfs_out.bsize.set(out, PAYLOAD, word(STATFS.bsize));
  fuse_statfs_out.namelen.set(out, PAYLOAD, word(STATFS.namelen));
  fuse_statfs_out.frsize.set(out, PAYLOAD, word(STATFS.frsize));
  return fuse_statfs_out.structBytes;
}

/** A finish that only passes a result on. */
export function finishWith(result: number): Finish {
  return () => Math.min(result, 0);
}
