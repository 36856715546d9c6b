/**
 * Directory streams: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.
 *
 * A stream is a descriptor of the source's directory, and the offsets that callers see are the source's own d_off, so that
 * seekdir and a directory that changes meanwhile behave as they do there.
 *
 * A stream seeks only for a caller that does. btrfs lists the entries that a directory has when the stream is opened, and looks
 * again at each lseek(2) (since Linux 6.7, btrfs_dir_llseek): a seek per request would show a caller who renames what is listed each
 * name anew, for ever. So what the last getdents64 brought is kept: the reply may not hold all of it, and the kernel drops what its
 * caller's buffer doesn't hold of the reply, and asks for that again.
 */

import { EBADF, EINVAL, ENFILE, ENOENT, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { getU64 } from '../base/struct.ts';
import { type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import {
  fuse_dirent,
  fuse_open_out,
  fuse_read_in,
  fuse_release_in,
  SIZE_OF_ENTRY,
  statx,
} from '../fuse/wire/structs.ts';
import { STORE_NAME } from '../mappings/place.ts';
import { identify, internIdentified, isHidden, putEntry, slotOf } from './attributes.ts';
import { syncDescriptor } from './durability.ts';
import { foldInode, handleSubvolume } from './handles.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { SCRATCH } from './scratch.ts';

/** struct linux_dirent64: d_ino u64, d_off i64, d_reclen u16, d_type u8, d_name: getdents64(2). */
const DIRENT = { ino: 0, off: 8, reclen: 16, type: 18, name: 19 } as const;

/**
 * The entries that a stream's last getdents64 brought: a copy, since the memory they came in is shared. Behind the last of them is
 * where the stream's descriptor is. Offsets are small numbers on btrfs and XFS, but for the end of a directory, which btrfs calls
 * 2^63 - 1.
 */
interface Batch {
  /** The offset before the first entry. */
  readonly start: number;
  readonly bytes: Uint8Array;
}

const DT_DIR = 4;

const DIRECTORY_FLAGS = c.O_RDONLY | c.O_DIRECTORY | c.O_CLOEXEC;

/** By file handle. Streams are few, and gone with their RELEASEDIR. One that isn't here has its descriptor anywhere. */
export type Batches = Map<number, Batch>;

export function opendir(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const dirFd = m.descriptors.acquire(slot);
  if (dirFd < 0) return dirFd;
  const path = m.scratch.address + SCRATCH.dot;
  const fd = m.calls.openat(dirFd, path, DIRECTORY_FLAGS, 0);
  m.descriptors.release(slot, dirFd);
  if (fd < 0) return fd;
  const handle = m.opens.addHandle(fd, slot, 0, DIRECTORY_FLAGS);
  if (handle < 0) {
    m.calls.close(fd);
    return -ENFILE;
  }
  fuse_open_out.fh.set(m.output.view, PAYLOAD, handle);
  // Without FOPEN_CACHE_DIR: from a cache, a listing would go on showing what was removed or renamed behind its position.
  fuse_open_out.open_flags.set(m.output.view, PAYLOAD, 0);
  fuse_open_out.backing_id.set(m.output.view, PAYLOAD, 0);
  return fuse_open_out.structBytes;
}

export function releasedir(m: Mount, r: Request, batches: Batches): Outcome {
  const handle = fuse_release_in.fh.get(m.input.view, r.at);
  batches.delete(handle);
  const fd = m.opens.dropHandle(handle);
  if (fd < 0) return -EBADF;
  m.calls.close(fd);
  return 0;
}

export function fsyncdir(m: Mount, r: Request): Outcome {
  return syncDescriptor(m, r);
}

export function readdir(m: Mount, r: Request, batches: Batches, plus: boolean): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const handle = fuse_read_in.fh.get(m.input.view, r.at);
  const offset = fuse_read_in.offset.get(m.input.view, r.at);
  const room = Math.min(fuse_read_in.size.get(m.input.view, r.at), m.output.bytes.length - PAYLOAD);
  const fd = m.opens.descriptor(handle);
  if (fd < 0) return -EBADF;

  if (offset > Number.MAX_SAFE_INTEGER) return 0;
  const generation = m.nodes.generation(slot);
  const details = plus && !(offset === 0 && m.fills.holds(slot, generation));
  if (details && offset === 0) m.fills.filled(slot, generation);
  let length = takeUp(m, batches, handle, offset);
  if (length === ELSEWHERE) {
    const sought = m.calls.lseek(fd, offset, c.SEEK_SET);
    if (sought < 0) return sought;
    length = 0;
  }
  for (let start = offset; ; ) {
    if (length === 0) {
      // What a reply of names has no room for comes next time: no more than that is read.
      length = m.calls.getdents64(fd, m.entries.address, Math.min(room, m.entries.bytes.length));
      if (length < 0) {
        batches.delete(handle);
        return length;
      }
      // At the end the descriptor stays where this caller is.
      batches.set(handle, { start: length === 0 ? offset : start, bytes: m.entries.bytes.slice(0, length) });
      if (length === 0) return 0;
    }
    const { written, consumed, next } = putEntries(m, slot, fd, length, PAYLOAD, room, plus, details);
    // An answer that holds something leaves: the next request comes only if the caller wants more.
    if (written > 0) return written;
    // Not even one entry fits: the caller's buffer is too small for its name. (No bytes at all would mean the end.)
    if (consumed < length) return -EINVAL;
    start = next;
    length = 0;
  }
}

/** The stream's descriptor isn't where the caller goes on. */
const ELSEWHERE = -1;

/**
 * Puts back what the stream's last getdents64 brought behind the offset, and returns its bytes: 0 when the descriptor is there. A
 * caller at offset 0 has just opened the directory or has rewound it, and must see what is new.
 */
function takeUp(m: Mount, batches: Batches, handle: number, offset: number): number {
  const batch = batches.get(handle);
  if (offset === 0 || batch === undefined) return ELSEWHERE;
  const { bytes } = batch;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  for (let here = batch.start; here !== offset; at += view.getUint16(at + DIRENT.reclen, true)) {
    if (at === bytes.length) return ELSEWHERE;
    here = getU64(view, at + DIRENT.off);
  }
  m.entries.bytes.set(bytes.subarray(at));
  return bytes.length - at;
}

/**
 * Writes as many of the entries in `m.entries` as fit into `room` bytes of the output. `consumed` is how many bytes of
 * entries were dealt with, `next` the offset behind the last of them.
 */
function putEntries(
  m: Mount,
  slot: number,
  fd: number,
  length: number,
  out: number,
  room: number,
  plus: boolean,
  details: boolean,
): { written: number; consumed: number; next: number } {
  const { view, bytes } = m.entries;
  let written = 0;
  let at = 0;
  let next = 0;
  while (at < length) {
    const nameAt = at + DIRENT.name;
    const nameLength = bytes.indexOf(0, nameAt) - nameAt;
    const padded = (fuse_dirent.structBytes + nameLength + 7) & ~7;
    const need = plus ? SIZE_OF_ENTRY + padded : padded;
    if (written + need > room) break;
    const dots = isDots(bytes, nameAt, nameLength);
    // A directory may be a btrfs subvolume, whose number a listing of the source doesn't have.
    const told = details || view.getUint8(at + DIRENT.type) === DT_DIR;
    const put = putOne(m, slot, fd, at, nameLength, out + written, plus, plus && told && !dots);
    written += put;
    next = getU64(view, at + DIRENT.off);
    at += view.getUint16(at + DIRENT.reclen, true);
  }
  return { written, consumed: at, next };
}

function isDots(bytes: Uint8Array, at: number, length: number): boolean {
  const dot = 46;
  return (length === 1 && bytes[at] === dot) || (length === 2 && bytes[at] === dot && bytes[at + 1] === dot);
}

/** Whether an open directory's listing, which begins here, has no name but one; false when it can't be read. */
export function holdsNothingElse(m: Mount, fd: number, name: Uint8Array): boolean {
  const { view, bytes, address } = m.entries;
  for (;;) {
    const length = m.calls.getdents64(fd, address, bytes.length);
    if (length <= 0) return length === 0;
    for (let at = 0; at < length; at += view.getUint16(at + DIRENT.reclen, true)) {
      const from = at + DIRENT.name;
      const to = bytes.indexOf(0, from);
      if (!isDots(bytes, from, to - from) && !Buffer.from(name).equals(bytes.subarray(from, to))) return false;
    }
  }
}

/**
 * Writes one entry and returns its bytes: 0 for one that the mount doesn't show, or that is gone already. With `plus` there is room for
 * its attributes, which stay empty without `details`: it is a name only then.
 */
function putOne(
  m: Mount,
  slot: number,
  fd: number,
  at: number,
  nameLength: number,
  out: number,
  plus: boolean,
  details: boolean,
): number {
  const { view, bytes, address } = m.entries;
  const nameAt = at + DIRENT.name;
  let inode = getU64(view, at + DIRENT.ino);
  let subvolume = handleSubvolume(m.nodes.memory.view, m.nodes.handleOffset(slot));
  let type = view.getUint8(at + DIRENT.type);
  let dirent = out;
  if (plus) {
    dirent += SIZE_OF_ENTRY;
    // The kernel doesn't look "." and ".." up from here, and expects no lookup to be counted for them.
    m.output.bytes.fill(0, out, dirent);
    if (details) {
      const found = identify(m, fd, address + nameAt, false);
      const name = bytes.subarray(nameAt, nameAt + nameLength);
      // One that can't be looked at is a name only, but a name that may be the store's is none.
      if (found === -ENOENT || (found < 0 && isStoreName(name))) return 0;
      if (found >= 0) {
        if (isHidden(m, SCRATCH.handle, name)) return 0;
        const child = internIdentified(m, slot, fd, address + nameAt, name);
        // Without a node the entry is a name only, and the kernel looks it up when it is used.
        if (child >= 0) {
          putEntry(m, out, child);
          subvolume = handleSubvolume(m.nodes.memory.view, m.nodes.handleOffset(child));
          inode = statx.ino.get(m.scratch.view, SCRATCH.statx);
          type = m.nodes.type(child) >>> 12;
        }
      }
    }
  }
  if (!details && nameLength === STORE_NAME.length) {
    const name = bytes.subarray(nameAt, nameAt + nameLength);
    const found = identify(m, fd, address + nameAt, false);
    if (found < 0 ? isStoreName(name) : isHidden(m, SCRATCH.handle, name)) return 0;
  }
  const folded = foldInode(inode, subvolume, m.ownSubvolume);
  const target = m.output;
  target.view.setUint32(dirent, folded.low, true);
  target.view.setUint32(dirent + 4, folded.high, true);
  const off = dirent + fuse_dirent.off.offset;
  target.view.setBigUint64(off, view.getBigUint64(at + DIRENT.off, true), true);
  fuse_dirent.namelen.set(target.view, dirent, nameLength);
  fuse_dirent.type.set(target.view, dirent, type);
  const padded = (fuse_dirent.structBytes + nameLength + 7) & ~7;
  target.bytes.fill(0, dirent + padded - 8, dirent + padded);
  target.bytes.set(bytes.subarray(nameAt, nameAt + nameLength), dirent + fuse_dirent.structBytes);
  return dirent + padded - out;
}

function isStoreName(name: Uint8Array): boolean {
  return name.length === STORE_NAME.length && Buffer.from(name).toString('latin1') === STORE_NAME;
}
