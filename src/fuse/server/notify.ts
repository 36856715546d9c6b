/** Messages to the kernel that no request asked for. */

import type { Memory } from '../../base/memory.ts';
import { FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_RESEND } from '../wire/constants.ts';
import { fuse_notify_inval_inode_out, fuse_out_header } from '../wire/structs.ts';

/** Room for any of these messages, in bytes. They have memory of their own: a reply may be half written when one is sent. */
export const NOTICE_BYTES = 64;

/**
 * Writes, at the start of `output`, the message that makes the kernel forget a node's attributes and keep its pages
 * (a negative offset, fs/fuse/inode.c: fuse_reverse_inval_inode), and returns its length.
 */
export function invalidateAttributes(output: Memory, nodeid: number): number {
  const { view } = output;
  const at = fuse_out_header.structBytes;
  const length = at + fuse_notify_inval_inode_out.structBytes;
  fuse_out_header.len.set(view, 0, length);
  fuse_out_header.error.set(view, 0, FUSE_NOTIFY_INVAL_INODE);
  fuse_out_header.unique.set(view, 0, 0);
  fuse_notify_inval_inode_out.ino.set(view, at, nodeid);
  fuse_notify_inval_inode_out.off.set(view, at, -1);
  fuse_notify_inval_inode_out.len.set(view, at, 0);
  return length;
}

/**
 * Writes the message that makes the kernel hand out again, in front of all others, what was read and not answered
 * (fs/fuse/dev.c: fuse_notify_resend), and returns its length.
 */
export function resendRequests(output: Memory): number {
  const { view } = output;
  fuse_out_header.len.set(view, 0, fuse_out_header.structBytes);
  fuse_out_header.error.set(view, 0, FUSE_NOTIFY_RESEND);
  fuse_out_header.unique.set(view, 0, 0);
  return fuse_out_header.structBytes;
}
