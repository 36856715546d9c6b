/**
 * Extended attributes, ACLs among them, and the flags of lsattr and chattr.
 *
 * An O_PATH descriptor's attributes are reached through its link under /proc/self/fd, which leads to the inode itself, be
 * it a symbolic link or a device.
 */

import { E2BIG, EEXIST, ENODATA, ENOTTY, ERANGE, ESTALE } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import { type Address, putString } from '../base/memory.ts';
import { type Outcome, PAYLOAD, type Request } from '../fuse/server/session.ts';
import { FUSE_SETXATTR_ACL_KILL_SGID } from '../fuse/wire/constants.ts';
import {
  fuse_getxattr_in,
  fuse_getxattr_out,
  fuse_ioctl_in,
  fuse_ioctl_out,
  fuse_setxattr_in,
  statx,
} from '../fuse/wire/structs.ts';
import { slotOf, statDescriptor } from './attributes.ts';
import type { Mount } from './mount.ts';
import { NO_NODE } from './nodes.ts';
import { SCRATCH } from './scratch.ts';

/**
 * The attribute that nobody has: setting it changes nothing, and makes an event for those who watch the node (`daemon/watches.ts`).
 * Only CAP_SYS_ADMIN sets names of `trusted.` (xattr(7)).
 */
export const WAKING_NAME = 'trusted.sharedext.wake';
const WAKING = Buffer.from(`${WAKING_NAME}\0`);

/** XATTR_SIZE_MAX and XATTR_LIST_MAX, include/uapi/linux/limits.h. */
const MAX_BYTES = 65_536;

function withPath(m: Mount, r: Request, act: (path: Address, fd: number) => number): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const fd = m.descriptors.acquire(slot);
  if (fd < 0) return fd;
  putString(m.scratch, SCRATCH.path, `/proc/self/fd/${fd}`);
  const result = act(m.scratch.address + SCRATCH.path, fd);
  m.descriptors.release(slot, fd);
  return result;
}

/** A size of 0 asks how large the value is. */
function replySized(m: Mount, wanted: number, length: number): number {
  if (length < 0) return length;
  if (wanted !== 0) return length > wanted ? -ERANGE : length;
  fuse_getxattr_out.size.set(m.output.view, PAYLOAD, length);
  fuse_getxattr_out._padding.set(m.output.view, PAYLOAD, 0);
  return fuse_getxattr_out.structBytes;
}

export function getxattr(m: Mount, r: Request): Outcome {
  const wanted = fuse_getxattr_in.size.get(m.input.view, r.at);
  return withPath(m, r, (path) => {
    const size = Math.min(wanted, MAX_BYTES);
    const length = m.calls.getxattr(path, m.input.address + r.name, m.output.address + PAYLOAD, size);
    return replySized(m, wanted, length);
  });
}

/** With the names of `trusted.`, whoever asks: overlayfs lists them for a caller whose file it copies up, and must not lose any. */
export function listxattr(m: Mount, r: Request): Outcome {
  const wanted = fuse_getxattr_in.size.get(m.input.view, r.at);
  return withPath(m, r, (path) => {
    const length = m.calls.listxattr(path, m.output.address + PAYLOAD, MAX_BYTES);
    if (length < 0) return length === -ERANGE ? -E2BIG : length;
    return replySized(m, wanted, length);
  });
}

export function setxattr(m: Mount, r: Request): Outcome {
  const { view, bytes } = m.input;
  if (WAKING.equals(bytes.subarray(r.name, r.name + WAKING.length))) return 0;
  const size = fuse_setxattr_in.size.get(view, r.at);
  const flags = fuse_setxattr_in.flags.get(view, r.at);
  const clearSetGid = (fuse_setxattr_in.setxattr_flags.get(view, r.at) & FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
  return withPath(m, r, (path, fd) => {
    const name = m.input.address + r.name;
    const value = m.input.address + r.data;
    const length = Math.min(size, r.end - r.data);
    const repeat = m.repeats.isRepeat(r);
    if (!repeat) m.repeats.intend(r, m.scratch, -1);
    let result = m.calls.setxattr(path, name, value, length, flags);
    if (result === -EEXIST && repeat && hasValue(m, r, path, length)) result = 0;
    if (result < 0 || !clearSetGid || statDescriptor(m, fd, c.STATX_BASIC_STATS) < 0) return result;
    const mode = statx.mode.get(m.scratch.view, SCRATCH.statx);
    if ((mode & c.S_ISGID) === 0) return result;
    return m.calls.fchmodat2(fd, m.scratch.address + SCRATCH.empty, mode & 0o7777 & ~c.S_ISGID, c.AT_EMPTY_PATH);
  });
}

/** Whether the attribute has the value that the request gives it. */
function hasValue(m: Mount, r: Request, path: Address, length: number): boolean {
  const { bytes, address } = m.output;
  const got = m.calls.getxattr(path, m.input.address + r.name, address + PAYLOAD, MAX_BYTES);
  if (got !== length) return false;
  const value = m.input.bytes.subarray(r.data, r.data + length);
  return Buffer.from(value).equals(bytes.subarray(PAYLOAD, PAYLOAD + length));
}

export function removexattr(m: Mount, r: Request): Outcome {
  return withPath(m, r, (path) => {
    const name = m.input.address + r.name;
    const repeat = m.repeats.isRepeat(r);
    // Only one that is there can have been removed when the request comes again.
    const there = repeat ? 0 : m.calls.getxattr(path, name, 0, 0);
    if (there < 0 && there !== -ENODATA) return there;
    if (!repeat && there >= 0) m.repeats.intend(r, m.scratch, -1);
    const result = m.calls.removexattr(path, name);
    if (result === -ENODATA && repeat) return 0;
    // Removing an ACL that isn't there is no error, but for filesystems that say so: posix_acl(7) callers expect none.
    return result === -ENODATA && isAcl(m, r.name) ? 0 : result;
  });
}

function isAcl(m: Mount, at: number): boolean {
  const prefix = Buffer.from('system.posix_acl_');
  return prefix.equals(m.input.bytes.subarray(at, at + prefix.length));
}

/** The ioctls that are passed on, with the bytes that each reads and writes. All others get ENOTTY. */
const ioctls: ReadonlyMap<number, { readonly input: number; readonly output: number }> = new Map([
  [0x80086601, { input: 0, output: 4 }], // FS_IOC_GETFLAGS: an int, whatever the number says
  [0x40086602, { input: 4, output: 0 }], // FS_IOC_SETFLAGS
  [0x80087601, { input: 0, output: 8 }], // FS_IOC_GETVERSION
  [0x801c581f, { input: 0, output: 28 }], // FS_IOC_FSGETXATTR
  [0x401c5820, { input: 28, output: 0 }], // FS_IOC_FSSETXATTR
]);

export function ioctl(m: Mount, r: Request): Outcome {
  const slot = slotOf(m, r.nodeid);
  if (slot === NO_NODE) return -ESTALE;
  const { view, bytes } = m.input;
  const command = fuse_ioctl_in.cmd.get(view, r.at);
  const shape = ioctls.get(command);
  if (shape === undefined) return -ENOTTY;
  const given = Math.min(fuse_ioctl_in.in_size.get(view, r.at), r.end - r.data);
  const taken = fuse_ioctl_in.out_size.get(view, r.at);
  if (given < shape.input || taken < shape.output) return -ENOTTY;
  const flags = c.O_RDONLY | c.O_NONBLOCK | c.O_CLOEXEC;
  const fd = m.calls.openByHandleAt(m.mountFd, m.nodes.handleAddress(slot), flags);
  if (fd < 0) return fd;
  const argument = SCRATCH.small;
  m.scratch.bytes.fill(0, argument, argument + 64);
  m.scratch.bytes.set(bytes.subarray(r.data, r.data + shape.input), argument);
  const result = m.calls.ioctl(fd, command, m.scratch.address + argument);
  m.calls.close(fd);
  if (result < 0) return result;
  // A change of flags is a change of ctime, and the kernel expects none of an ioctl.
  if (shape.input > 0) m.invalidateAttributes(r.nodeid);
  m.output.bytes.fill(0, PAYLOAD, PAYLOAD + fuse_ioctl_out.structBytes + taken);
  fuse_ioctl_out.result.set(m.output.view, PAYLOAD, result);
  const answer = m.scratch.bytes.subarray(argument, argument + shape.output);
  m.output.bytes.set(answer, PAYLOAD + fuse_ioctl_out.structBytes);
  return fuse_ioctl_out.structBytes + taken;
}
