/** The random steps of the model test: each does something to the mount, the control and the model, and compares. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import {
  dropMap,
  lease,
  leaveMap,
  readDirectly,
  storeThroughMap,
  storeUnderReaders,
  writeDirectly,
  writeDirectlyOnSource,
} from './model-around.ts';
import { lockAcross, lockHere, stepOfPeer } from './model-locking.ts';
import {
  createFile,
  lengthUpTo,
  linkFile,
  offsetIn,
  renameFile,
  statFile,
  takeSnapshot,
  unlinkFile,
} from './model-names.ts';
import { assertSame, BLOCK, type Descriptor, MAX_FILE_BYTES, MAX_FILES, type World } from './model-world.ts';

/** How often a step is taken, its name, and what it does. A step that finds nothing to do does nothing. */
export type Step = readonly [weight: number, name: string, run: (w: World) => void | Promise<void>];

/** A ctime younger than this proves nothing (routes.ts), so nothing is shared before. */
const CTIME_MS = 60;

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function anyDescriptor(w: World, wanted: (d: Descriptor) => boolean): Descriptor | undefined {
  return w.random.ofOrNone(w.descriptors.filter(wanted));
}

function readSome(w: World, d: Descriptor): void {
  const offset = offsetIn(w, d.opened.length + BLOCK);
  const length = w.random.chance(0.2) ? MAX_FILE_BYTES : lengthUpTo(w, MAX_FILE_BYTES);
  w.log(`read fd ${d.fd} inode ${d.inode.id} ${offset}+${length}`);
  w.expectBytes(d, posix.read(d.fd, length, offset), offset, length);
  const wanted = d.inode.content.subarray(offset, offset + length);
  assertSame(posix.read(d.controlFd, length, offset), wanted, `the control of inode ${d.inode.id}`);
}

function readAny(w: World): void {
  const d = anyDescriptor(w, () => true);
  if (d) readSome(w, d);
}

function openForReading(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  w.log(`open ${path} for reading`);
  const d = w.open(path, posix.O_RDONLY);
  if (!d) return;
  readSome(w, d);
  if (w.random.chance(0.4)) mapDescriptor(w, d);
}

function mapDescriptor(w: World, d: Descriptor): void {
  if (d.mapping || d.opened.length === 0) return;
  w.log(`map fd ${d.fd} inode ${d.inode.id}`);
  const length = d.opened.length;
  const flags = w.random.chance(0.5) ? posix.MAP_SHARED : posix.MAP_PRIVATE;
  d.mapping = { address: posix.map(d.fd, length, posix.PROT_READ, flags), length };
  peekSome(w, d);
}

/** Bytes beyond the end of the file would be a SIGBUS: only what both possible contents have is looked at. */
function peekSome(w: World, d: Descriptor): void {
  const { mapping } = d;
  if (!mapping) return;
  const current = Math.min(mapping.length, d.inode.content.length);
  const limit = d.frozen === true ? mapping.length : current;
  if (limit === 0) return;
  const offset = offsetIn(w, limit);
  const length = Math.min(limit - offset, w.random.chance(0.3) ? limit : lengthUpTo(w, limit));
  w.log(`look at the map of fd ${d.fd} inode ${d.inode.id} ${offset}+${length}`);
  w.expectBytes(d, posix.peek(mapping.address, offset, length), offset, length);
}

function peekAny(w: World): void {
  const d = anyDescriptor(w, (one) => one.mapping !== undefined);
  if (d) peekSome(w, d);
}

function openForWriting(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const truncating = w.random.chance(0.1) ? posix.O_TRUNC : 0;
  w.log(
    `open ${path} (inode ${w.inodeAt(path).id}, ${w.inodeAt(path).links} links) for writing${truncating ? ', truncating' : ''}`,
  );
  const d = w.open(path, posix.O_RDWR | truncating);
  if (d && w.random.chance(0.7)) writeTo(w, d);
}

function append(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const { content } = w.inodeAt(path);
  const room = MAX_FILE_BYTES - content.length;
  if (room <= 0) return;
  const bytes = w.bytes(lengthUpTo(w, room));
  w.log(`append ${bytes.length} bytes to ${path}`);
  const inode = w.inodeAt(path);
  w.both((root) => {
    const fd = posix.open(join(root, path), posix.O_WRONLY | posix.O_APPEND);
    assert.equal(posix.write(fd, bytes), bytes.length);
    posix.close(fd);
  });
  w.closedHere(inode);
  w.changeRange(inode, inode.content.length, bytes);
}

function writeTo(w: World, d: Descriptor): void {
  const offset = offsetIn(w, Math.min(d.inode.content.length + 2 * BLOCK, MAX_FILE_BYTES - 1));
  const bytes = w.bytes(lengthUpTo(w, MAX_FILE_BYTES - offset));
  w.log(`write fd ${d.fd} inode ${d.inode.id} ${offset}+${bytes.length}`);
  assert.equal(posix.write(d.fd, bytes, offset), bytes.length);
  assert.equal(posix.write(d.controlFd, bytes, offset), bytes.length);
  w.changeRange(d.inode, offset, bytes);
}

/** A change around the mount: whoever opens the file later must see it, and its size stays, which may be cached. */
function writeOnSource(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const inode = w.inodeAt(path);
  if (inode.content.length === 0) return;
  const offset = offsetIn(w, inode.content.length);
  const bytes = w.bytes(Math.min(inode.content.length - offset, lengthUpTo(w, MAX_FILE_BYTES)));
  w.log(`write to ${path} (inode ${inode.id}) on the source ${offset}+${bytes.length}`);
  for (const file of [w.onSource(path), w.onControl(path)]) {
    const fd = posix.open(file, posix.O_WRONLY);
    assert.equal(posix.write(fd, bytes, offset), bytes.length);
    posix.close(fd);
  }
  w.changeRange(inode, offset, bytes);
}

function withWriter(w: World, act: (d: Descriptor) => void): void {
  const d = anyDescriptor(w, (one) => one.writable);
  if (d) act(d);
}

function mapAndWrite(w: World, d: Descriptor): void {
  const size = d.inode.content.length;
  if (size === 0) return;
  const offset = offsetIn(w, size);
  const bytes = w.bytes(Math.min(size - offset, lengthUpTo(w, size)));
  const sync = w.random.chance(0.5);
  w.log(`write to a map of fd ${d.fd} inode ${d.inode.id} ${offset}+${bytes.length}${sync ? ', msync' : ''}`);
  for (const fd of [d.fd, d.controlFd]) {
    const address = posix.map(fd, size);
    posix.poke(address, offset, bytes);
    if (sync) posix.syncMapping(address);
    posix.unmap(address);
  }
  w.changeRange(d.inode, offset, bytes);
}

function newSize(w: World, old: number): number {
  return w.random.chance(0.6) ? w.random.below(old + 1) : w.random.below(MAX_FILE_BYTES);
}

function truncateDescriptor(w: World, d: Descriptor): void {
  const size = newSize(w, d.inode.content.length);
  w.log(`ftruncate fd ${d.fd} inode ${d.inode.id} to ${size}`);
  posix.ftruncate(d.fd, size);
  posix.ftruncate(d.controlFd, size);
  w.changeSize(d.inode, size);
}

function truncatePath(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const inode = w.inodeAt(path);
  const size = newSize(w, inode.content.length);
  w.log(`truncate ${path} to ${size}`);
  w.both((root) => posix.truncate(join(root, path), size));
  w.changeSize(inode, size);
}

function punchHole(w: World, d: Descriptor): void {
  const offset = offsetIn(w, d.inode.content.length);
  const length = lengthUpTo(w, MAX_FILE_BYTES);
  w.log(`punch a hole fd ${d.fd} inode ${d.inode.id} ${offset}+${length}`);
  const mode = posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE;
  posix.fallocate(d.fd, mode, offset, length);
  posix.fallocate(d.controlFd, mode, offset, length);
  const end = Math.min(d.inode.content.length, offset + length);
  if (end > offset) w.changeRange(d.inode, offset, Buffer.alloc(end - offset));
}

/** What `cp --reflink` does, beside the mount. */
function reflinkOnSource(w: World): void {
  const path = w.anyPath();
  if (path === undefined || w.names.size >= MAX_FILES) return;
  const to = w.freshPath();
  w.log(`reflink ${path} to ${to} on the source`);
  posix.reflink(w.onSource(path), w.onSource(to));
  posix.reflink(w.onControl(path), w.onControl(to));
  w.names.set(to, w.makeInode(w.inodeAt(path).content, to));
}

/** What `cp` does on the mount. */
function copyOnMount(w: World): void {
  const path = w.anyPath();
  if (path === undefined || w.names.size >= MAX_FILES) return;
  const to = w.freshPath();
  w.log(`copy ${path} to ${to}`);
  const inode = w.inodeAt(path);
  const { content } = inode;
  w.both((root) => {
    const from = posix.open(join(root, path), posix.O_RDONLY);
    const into = posix.open(join(root, to), posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL);
    copyAll(from, 0, into, 0, content.length);
    posix.close(from);
    posix.close(into);
  });
  w.closedHere(inode);
  w.names.set(to, w.makeInode(content, to));
}

function copyAll(from: number, fromOffset: number, into: number, toOffset: number, length: number): void {
  for (let done = 0; done < length; ) {
    const copied = posix.copyFileRange(from, fromOffset + done, into, toOffset + done, length - done);
    assert.ok(copied > 0, 'copy_file_range copied nothing');
    done += copied;
  }
}

function copyRange(w: World, to: Descriptor): void {
  const from = anyDescriptor(w, (d) => !d.writable && d.inode !== to.inode);
  if (!from) return;
  w.settleFrozen(from);
  const content = w.visible(from);
  if (content.length === 0) return;
  const whole = w.random.chance(0.4);
  const fromOffset = whole ? 0 : offsetIn(w, content.length);
  const toOffset = whole ? 0 : offsetIn(w, to.inode.content.length + BLOCK);
  const length = Math.min(
    content.length - fromOffset,
    MAX_FILE_BYTES - toOffset,
    whole ? MAX_FILE_BYTES : lengthUpTo(w, MAX_FILE_BYTES),
  );
  if (length <= 0) return;
  w.log(
    `copy fd ${from.fd} inode ${from.inode.id} ${fromOffset}+${length} to fd ${to.fd} inode ${to.inode.id} ${toOffset}`,
  );
  const bytes = content.subarray(fromOffset, fromOffset + length);
  copyAll(from.fd, fromOffset, to.fd, toOffset, length);
  // The control's reader sees the current content, which may be another.
  posix.write(to.controlFd, bytes, toOffset);
  w.changeRange(to.inode, toOffset, bytes);
}

function statDescriptor(w: World): void {
  const d = anyDescriptor(w, () => true);
  if (!d) return;
  w.log(`fstat fd ${d.fd} inode ${d.inode.id}`);
  w.settleFrozen(d);
  assert.equal(posix.fstat(d.fd).size, w.visible(d).length, `the size by fd ${d.fd} (inode ${d.inode.id})`);
}

/**
 * Writes back what was changed and waits until its ctime is old enough, so that the next opens may share; then opens some
 * files, and has some of them written to.
 */
export function settle(w: World): void {
  w.log('write all back and wait');
  for (const [path, inode] of w.names) {
    if (!inode.dirty) continue;
    inode.dirty = false;
    const fd = posix.open(w.onSource(path), posix.O_RDONLY);
    posix.fsync(fd);
    posix.close(fd);
  }
  pause(CTIME_MS);
  storeUnderReaders(w);
  for (let opens = 0; opens < 10; opens++) openForReading(w);
  for (let opens = 0; opens < 3; opens++) openForWriting(w);
}

export const steps: readonly Step[] = [
  [200, 'read', readAny],
  [120, 'open for reading', openForReading],
  [60, 'look at a map', peekAny],
  [40, 'open for writing', openForWriting],
  [50, 'write', (w) => withWriter(w, (d) => writeTo(w, d))],
  [30, 'write to a map', (w) => withWriter(w, (d) => mapAndWrite(w, d))],
  [15, 'append', append],
  [15, 'ftruncate', (w) => withWriter(w, (d) => truncateDescriptor(w, d))],
  [15, 'truncate', truncatePath],
  [10, 'write on the source', writeOnSource],
  [15, 'punch a hole', (w) => withWriter(w, (d) => punchHole(w, d))],
  [10, 'write directly', writeDirectly],
  [10, 'write directly on the source', writeDirectlyOnSource],
  [15, 'read directly', readDirectly],
  [8, 'leave a map', leaveMap],
  [30, 'store through a map that was left', (w) => storeThroughMap(w)],
  [6, 'drop a map that was left', dropMap],
  [15, 'lease', lease],
  [60, 'lock', lockHere],
  [15, 'lock across nodes', lockAcross],
  [40, 'step of another process', stepOfPeer],
  [60, 'reflink', reflinkOnSource],
  [40, 'copy', copyOnMount],
  [30, 'copy a range', (w) => withWriter(w, (d) => copyRange(w, d))],
  [25, 'rename', renameFile],
  [70, 'unlink', unlinkFile],
  [15, 'link', linkFile],
  [15, 'create', createFile],
  [60, 'stat', statFile],
  [30, 'fstat', statDescriptor],
  [
    110,
    'close',
    (w) => {
      const d = w.random.ofOrNone(w.descriptors);
      if (d) w.close(d);
    },
  ],
  [20, 'settle', settle],
  [4, 'snapshot', takeSnapshot],
  [6, 'compare all', (w) => w.compareAll()],
];
