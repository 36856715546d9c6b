/**
 * Watches (inotify(7)) of a node that was detached would never hear of the file again. Those who watch get one event, IN_ATTRIB, as
 * they do of a file that loses its name: they look the name up again, and watch what it leads to.
 *
 * Only the kernel makes such events, of changes through the mount. So an extended attribute is set that no file has: whichever server
 * answers the request changes nothing (`filesystem/xattrs.ts: setxattr`), be it late, or after the file has changed. The supervisor
 * does it, on a thread: a server that waited for its own answer could not even be killed.
 */

import { AT_EMPTY_PATH, AT_FDCWD, FUSE_SUPER_MAGIC, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import { WAKING_NAME } from '../filesystem/xattrs.ts';
import { statx } from '../fuse/wire/structs.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';

/** A handle of a FUSE inode (fs/fuse/inode.c: fuse_encode_fh): the node id's high and low word, and its generation. */
const FILEID_INO64_GEN = 0x81;
const HANDLE = { bytes: 0, type: 4, high: 8, low: 12, generation: 16, all: 12 } as const;
/** Behind the handle: an empty string, the attribute's name, what the kernel says of a folder, and a path. */
const EMPTY_AT = 64;
const ATTRIBUTE_AT = 72;
const RESULT_AT = 128;
const NAME_AT = 512;
const ROOM = NAME_AT + 4096;

export class Watches {
  readonly #mountpoint: string;
  readonly #minor: number;
  readonly #memory = allocate('watches', ROOM);
  #turn: Promise<void> = Promise.resolve();

  /** `minor` is the device number of the mount, which is looked at before anything is done to what its path leads to. */
  constructor(mountpoint: string, minor: number) {
    this.#mountpoint = mountpoint;
    this.#minor = minor;
  }

  /** Makes an event for those who watch a node, one node after the other. Never rejects. */
  wake(nodeid: number, generation: number): Promise<void> {
    this.#turn = this.#turn.then(() => this.#wake(nodeid, generation));
    return this.#turn;
  }

  async #wake(nodeid: number, generation: number): Promise<void> {
    const { address, view } = this.#memory;
    putString(this.#memory, NAME_AT, this.#mountpoint);
    const flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const root = await sys.openat.later(AT_FDCWD, address + NAME_AT, flags, 0);
    if (root < 0) return;
    if (await this.#isMount(root)) {
      view.setUint32(HANDLE.bytes, HANDLE.all, true);
      view.setUint32(HANDLE.type, FILEID_INO64_GEN, true);
      view.setUint32(HANDLE.high, Math.floor(nodeid / 2 ** 32), true);
      view.setUint32(HANDLE.low, nodeid >>> 0, true);
      view.setUint32(HANDLE.generation, generation, true);
      const fd = await sys.openByHandleAt.later(root, address, O_PATH | O_CLOEXEC);
      if (fd >= 0) {
        // fsetxattr(2) doesn't take an O_PATH descriptor; its link leads to the inode itself.
        putString(this.#memory, ATTRIBUTE_AT, WAKING_NAME);
        putString(this.#memory, NAME_AT, `/proc/self/fd/${fd}`);
        await sys.setxattr.later(address + NAME_AT, address + ATTRIBUTE_AT, address + EMPTY_AT, 0, 0);
        await sys.close.later(fd);
      }
    }
    await sys.close.later(root);
  }

  /** Whether a folder is of our mount: something else may be mounted on its path by now. */
  async #isMount(fd: number): Promise<boolean> {
    const { address, view } = this.#memory;
    if ((await sys.fstatfs.later(fd, address + RESULT_AT)) < 0) return false;
    if (view.getUint32(RESULT_AT, true) !== FUSE_SUPER_MAGIC) return false;
    putString(this.#memory, EMPTY_AT, '');
    if ((await sys.statx.later(fd, address + EMPTY_AT, AT_EMPTY_PATH, 0, address + RESULT_AT)) < 0) return false;
    return statx.dev_major.get(view, RESULT_AT) === 0 && statx.dev_minor.get(view, RESULT_AT) === this.#minor;
  }
}
