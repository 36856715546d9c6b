/**
 * The program that wakes those who watch a node: `watches.ts` starts it with the mountpoint, the mount's device number, the node's id and
 * its generation.
 */

import { AT_EMPTY_PATH, FUSE_SUPER_MAGIC, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import { WAKING_NAME } from '../filesystem/xattrs.ts';
import { statx } from '../fuse/wire/structs.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { privateMount } from '../sys/mounts.ts';

/** A handle of a FUSE inode (fs/fuse/inode.c: fuse_encode_fh): the node id's high and low word, and its generation. */
const FILEID_INO64_GEN = 0x81;
const HANDLE = { bytes: 0, type: 4, high: 8, low: 12, generation: 16, all: 12 } as const;
/** Behind the handle: an empty string, the attribute's name, what the kernel says of a folder, and a path. */
const EMPTY_AT = 64;
const ATTRIBUTE_AT = 72;
const RESULT_AT = 128;
const NAME_AT = 512;
const ROOM = NAME_AT + 4096;

const memory = allocate('watches', ROOM);
const { address, view } = memory;

/** Whether a folder is of the mount with this device number: something else may be mounted on its path by now. */
function isMount(fd: number, minor: number): boolean {
  if (sys.fstatfs(fd, address + RESULT_AT) < 0) return false;
  if (view.getUint32(RESULT_AT, true) !== FUSE_SUPER_MAGIC) return false;
  if (sys.statx(fd, address + EMPTY_AT, AT_EMPTY_PATH, 0, address + RESULT_AT) < 0) return false;
  return statx.dev_major.get(view, RESULT_AT) === 0 && statx.dev_minor.get(view, RESULT_AT) === minor;
}

function wake(mountpoint: string, minor: number, nodeid: number, generation: number): void {
  // Through a copy of the mount: nobody is to find the mount itself busy.
  const tree = privateMount(mountpoint, memory);
  if (tree < 0) return;
  memory.bytes.fill(0);
  if (!isMount(tree, minor)) return;
  // open_by_handle_at(2) wants a descriptor that isn't O_PATH.
  putString(memory, NAME_AT, '.');
  const root = sys.openat(tree, address + NAME_AT, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (root >= 0) wakeNode(root, nodeid, generation);
}

function wakeNode(root: number, nodeid: number, generation: number): void {
  view.setUint32(HANDLE.bytes, HANDLE.all, true);
  view.setUint32(HANDLE.type, FILEID_INO64_GEN, true);
  view.setUint32(HANDLE.high, Math.floor(nodeid / 2 ** 32), true);
  view.setUint32(HANDLE.low, nodeid >>> 0, true);
  view.setUint32(HANDLE.generation, generation, true);
  const fd = sys.openByHandleAt(root, address, O_PATH | O_CLOEXEC);
  if (fd < 0) return;
  // fsetxattr(2) doesn't take an O_PATH descriptor; its link leads to the inode itself.
  putString(memory, ATTRIBUTE_AT, WAKING_NAME);
  putString(memory, NAME_AT, `/proc/self/fd/${fd}`);
  sys.setxattr(address + NAME_AT, address + ATTRIBUTE_AT, address + EMPTY_AT, 0, 0);
}

const [mountpoint = '', ...numbers] = process.argv.slice(2);
const [minor = -1, nodeid = 0, generation = 0] = numbers.map(Number);
wake(mountpoint, minor, nodeid, generation);
