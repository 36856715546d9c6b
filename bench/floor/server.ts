/**
 * The least FUSE server that there can be on the same readiness loop and session: `server.js KIND MOUNTPOINT SOURCE`.
 *
 *     empty   every answer is a constant: what is left is the kernel's round trip, and reading and writing /dev/fuse
 *     calls   makes the system calls on the source that an answer needs, and looks at none of their results
 *
 * It shows a folder in which every name is a file; all of them are the source's file of the same name to the kind `calls`. It ends
 * when it is unmounted.
 */

import { ENOSYS } from '../../src/base/errno.ts';
import { Journal } from '../../src/base/journal.ts';
import * as c from '../../src/base/linux.ts';
import { putString } from '../../src/base/memory.ts';
import { parseOptions } from '../../src/daemon/options.ts';
import { spinOf } from '../../src/daemon/spinning.ts';
import { Progress } from '../../src/fuse/server/progress.ts';
import { BUFFER_BYTES, type Handlers, PAYLOAD, type Request, Session } from '../../src/fuse/server/session.ts';
import { FOPEN_PASSTHROUGH } from '../../src/fuse/wire/constants.ts';
import { operations } from '../../src/fuse/wire/operations.ts';
import { fuse_attr, fuse_attr_out, fuse_entry_out, fuse_open_out, SIZE_OF_ENTRY } from '../../src/fuse/wire/structs.ts';
import { FuseBackingFiles, FuseDevice, openFuseDevice } from '../../src/sys/fuse.ts';
import { IdleProcessors } from '../../src/sys/idle.ts';
import * as sys from '../../src/sys/libc.ts';
import { allocate } from '../../src/sys/memory.ts';

const [kind = 'empty', mountpoint = '', source = ''] = process.argv.slice(2);

const ROOT = 1;
const FILE = 2;
/** The kernel keeps attributes, and no names but this one: each use of another is a LOOKUP. */
const KEPT_NAME = 'one';
const LONG_SECONDS = 1_000_000;
const HANDLE_BYTES = 28;
const F_HANDLE_BYTES = 20;
const TICK_MS = 50;

const scratch = allocate('scratch', 8192);
const at = { empty: 1024, name: 1040, handle: 2048, mountId: 2112, statx: 4096 } as const;
const input = allocate('input', BUFFER_BYTES);
const output = allocate('output', BUFFER_BYTES);

function good(what: string, value: number): number {
  if (value < 0) throw new Error(`Cannot ${what}: error ${-value}`);
  return value;
}

const device = new FuseDevice(good('open /dev/fuse', openFuseDevice(scratch)));
const backing = new FuseBackingFiles(device.fd, 1 << 20, allocate('backing', 64), new Uint32Array(1), 0);
/** open_by_handle_at(2) wants a descriptor that isn't O_PATH. */
const folder = good(
  'open the source',
  sys.openat(c.AT_FDCWD, stringAt(at.name, source), c.O_RDONLY | c.O_DIRECTORY | c.O_CLOEXEC, 0),
);
putString(scratch, at.empty, '');

function stringAt(offset: number, text: string): number {
  putString(scratch, offset, text);
  return scratch.address + offset;
}

/** The two calls that tell what a name leads to. */
function handleOf(path: number): void {
  scratch.bytes.fill(0, at.handle, at.handle + HANDLE_BYTES);
  scratch.view.setUint32(at.handle, F_HANDLE_BYTES, true);
  const { address } = scratch;
  sys.nameToHandleAt(folder, path, address + at.handle, address + at.mountId, 0);
}

function attributesOf(fd: number, path: number, flags: number): void {
  sys.statx(fd, path, flags, c.STATX_BASIC_STATS, scratch.address + at.statx);
}

function byHandle(flags: number): number {
  return good('open by handle', sys.openByHandleAt(folder, scratch.address + at.handle, flags | c.O_CLOEXEC));
}

function putAttributes(offset: number, node: number): void {
  const out = output.view;
  fuse_attr.ino.set(out, offset, node);
  fuse_attr.mode.set(out, offset, node === ROOT ? 0o040755 : 0o100644);
  fuse_attr.nlink.set(out, offset, 1);
  fuse_attr.size.set(out, offset, 4096);
  fuse_attr.blksize.set(out, offset, 4096);
}

function nameIn(request: Request): string {
  return Buffer.from(input.bytes.subarray(request.name, input.bytes.indexOf(0, request.name))).toString();
}

const calls = kind === 'calls';
if (calls) handleOf(stringAt(at.name, KEPT_NAME));
let openFiles = 0;
let backingId = 0;

const answering: Partial<Handlers> = {
  LOOKUP(request) {
    if (calls) {
      handleOf(input.address + request.name);
      attributesOf(folder, input.address + request.name, c.AT_SYMLINK_NOFOLLOW);
    }
    const out = output.view;
    fuse_entry_out.nodeid.set(out, PAYLOAD, FILE);
    fuse_entry_out.entry_valid.set(out, PAYLOAD, nameIn(request) === KEPT_NAME ? LONG_SECONDS : 0);
    fuse_entry_out.attr_valid.set(out, PAYLOAD, LONG_SECONDS);
    putAttributes(PAYLOAD + fuse_entry_out.structBytes, FILE);
    return SIZE_OF_ENTRY;
  },
  GETATTR(request) {
    if (calls) {
      const fd = byHandle(c.O_PATH);
      attributesOf(fd, scratch.address + at.empty, c.AT_EMPTY_PATH);
      sys.close(fd);
    }
    fuse_attr_out.attr_valid.set(output.view, PAYLOAD, LONG_SECONDS);
    putAttributes(PAYLOAD + fuse_attr_out.structBytes, request.nodeid);
    return fuse_attr_out.structBytes + fuse_attr.structBytes;
  },
  OPEN() {
    if (calls && openFiles === 0) {
      const fd = byHandle(c.O_RDONLY);
      backingId = good('register a file', backing.open(fd));
      sys.close(fd);
    }
    openFiles++;
    fuse_open_out.open_flags.set(output.view, PAYLOAD, calls ? FOPEN_PASSTHROUGH : 0);
    fuse_open_out.backing_id.set(output.view, PAYLOAD, backingId);
    return fuse_open_out.structBytes;
  },
  RELEASE() {
    openFiles--;
    if (calls && openFiles === 0) backing.close(backingId);
    return 0;
  },
  FORGET: () => 0,
  BATCH_FORGET: () => 0,
};

/** What isn't asked for here is not implemented, which the kernel takes for an answer. */
const handlers: Partial<Record<string, Handlers[keyof Handlers]>> = {};
for (const name of Object.keys(operations)) handlers[name] = () => -ENOSYS;
Object.assign(handlers, answering);

function isComplete(some: object): some is Handlers {
  return Object.keys(operations).every((name) => name in some);
}
if (!isComplete(handlers)) throw new Error('the handlers are not complete');

// As the server of a mount does with the default options.
const spin = spinOf(parseOptions([]), new IdleProcessors());
setInterval(() => spin?.tick(), TICK_MS).unref();
const session = new Session({
  device,
  input,
  output,
  handlers,
  progress: new Progress(new Journal(allocate('journal', 65_536), 64)),
  ...(spin && { spin }),
  onBug: (operation, error) => console.error(operation, error),
});
const data = `fd=${device.fd},rootmode=40000,user_id=0,group_id=0,allow_other`;
good('mount', sys.mount('floor', mountpoint, 'fuse', 0, data));
const readiness = sys.onReadable(device.fd, () => {
  session.drain();
  if (session.over) readiness.close();
});
