/**
 * The steps of the model test that meet the page cache and the source in other ways than by read and write: direct I/O, maps that
 * outlive their descriptors, and leases of somebody around the mount.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { lengthUpTo, offsetIn } from './model-names.ts';
import { assertSame, BLOCK, MAX_FILE_BYTES, type World } from './model-world.ts';

const MAX_ORPHANS = 6;
/** For how long a lease is held at the most, and how long its holder takes his time when it is asked for. */
const LEASE_MS = 40;
const LEASE_PATIENCE_MS = 8;

/** Whole blocks of random bytes, and where they go in a file of this size. */
function blocksIn(w: World, room: number): { readonly offset: number; readonly bytes: Buffer } {
  const blocks = Math.floor(room / BLOCK);
  const at = w.random.below(blocks);
  const count = 1 + w.random.below(Math.min(blocks - at, 4));
  return { offset: at * BLOCK, bytes: w.bytes(count * BLOCK) };
}

export function writeDirectly(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const inode = w.inodeAt(path);
  const { offset, bytes } = blocksIn(w, Math.min(inode.content.length + 2 * BLOCK, MAX_FILE_BYTES));
  w.log(`write directly to ${path} (inode ${inode.id}) ${offset}+${bytes.length}`);
  w.both((root) => {
    const fd = posix.open(join(root, path), posix.O_WRONLY | posix.O_DIRECT);
    assert.equal(posix.write(fd, bytes, offset), bytes.length);
    posix.close(fd);
  });
  w.closedHere(inode);
  w.changeRange(inode, offset, bytes);
}

/** The size stays, which may be cached. */
export function writeDirectlyOnSource(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const inode = w.inodeAt(path);
  if (inode.content.length < BLOCK) return;
  const { offset, bytes } = blocksIn(w, inode.content.length);
  w.log(`write directly to ${path} (inode ${inode.id}) on the source ${offset}+${bytes.length}`);
  for (const file of [w.onSource(path), w.onControl(path)]) {
    const fd = posix.open(file, posix.O_WRONLY | posix.O_DIRECT);
    assert.equal(posix.write(fd, bytes, offset), bytes.length);
    posix.close(fd);
  }
  w.changeRange(inode, offset, bytes);
}

export function readDirectly(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const inode = w.inodeAt(path);
  w.log(`read ${path} (inode ${inode.id}) directly`);
  const fd = posix.open(w.on(path), posix.O_RDONLY | posix.O_DIRECT);
  const bytes = posix.read(fd, MAX_FILE_BYTES, 0);
  posix.close(fd);
  w.closedHere(inode);
  assertSame(bytes, inode.content, `${path} (inode ${inode.id}), read directly,`);
}

/** A map for writing whose descriptor is closed, made through the mount or around it. */
export function leaveMap(w: World): void {
  const path = w.anyPath();
  if (path === undefined || w.orphans.length >= MAX_ORPHANS) return;
  const inode = w.inodeAt(path);
  const { length } = inode.content;
  if (length === 0) return;
  const around = w.random.chance(0.5);
  w.log(`map ${path} (inode ${inode.id}) for writing ${around ? 'on the source' : 'through the mount'}, and close it`);
  const fd = posix.open(around ? w.onSource(path) : w.on(path), posix.O_RDWR);
  const address = posix.map(fd, length);
  posix.close(fd);
  if (!around) {
    inode.writers++;
    w.closedHere(inode);
  }
  const controlFd = posix.open(w.onControl(path), posix.O_RDWR);
  w.orphans.push({ inode, address, length, around, controlFd });
  if (w.random.chance(0.5)) storeThroughMap(w);
}

/** Beyond the end of the file a store would be a SIGBUS. */
export function storeThroughMap(w: World, orphan = w.random.ofOrNone(w.orphans)): void {
  if (orphan === undefined) return;
  const { inode, address, length, around, controlFd } = orphan;
  const limit = Math.min(length, inode.content.length);
  if (limit === 0) return;
  const offset = offsetIn(w, limit);
  const bytes = w.bytes(Math.min(limit - offset, lengthUpTo(w, limit)));
  const sync = w.random.chance(0.2);
  w.log(
    `store through a map ${around ? 'around' : 'of'} the mount to inode ${inode.id} ${offset}+${bytes.length}${sync ? ', msync' : ''}`,
  );
  posix.poke(address, offset, bytes);
  if (sync) posix.syncMapping(address);
  assert.equal(posix.write(controlFd, bytes, offset), bytes.length);
  w.changeRange(inode, offset, bytes);
  const path = w.pathOf(inode);
  if (path !== undefined && w.random.chance(0.5)) w.compareFresh(path, inode);
}

/** Who opens a file that hasn't changed for long, but may be stored to through a map of the mount, sees it be stored to. */
export function storeUnderReaders(w: World): void {
  for (const orphan of w.orphans) {
    const path = w.pathOf(orphan.inode);
    if (path === undefined) continue;
    w.log(`open ${path} (inode ${orphan.inode.id}) for reading, which is mapped`);
    const reader = w.open(path, posix.O_RDONLY);
    storeThroughMap(w, orphan);
    if (reader !== undefined) w.settleFrozen(reader);
  }
}

export function dropMap(w: World): void {
  const orphan = w.random.ofOrNone(w.orphans);
  if (orphan === undefined) return;
  w.log(`unmap inode ${orphan.inode.id}`);
  w.unmapOrphan(orphan);
}

/** Somebody takes a lease on the source, and gives it back when it is asked for; opens through the mount wait for him. */
export async function lease(w: World): Promise<void> {
  // What is open for writing can't be leased (fcntl(2)).
  const [path, inode] = w.random.ofOrNone([...w.names].filter(([, one]) => one.writers === 0)) ?? [];
  if (path === undefined || inode === undefined) return;
  const type = w.random.chance(0.5) ? posix.F_RDLCK : posix.F_WRLCK;
  const patience = w.random.below(LEASE_PATIENCE_MS);
  const name = type === posix.F_RDLCK ? 'read' : 'write';
  const taken = await w.leaser.call('holdLease', w.onSource(path), type, LEASE_MS, patience);
  w.log(`a ${name} lease on ${path} (inode ${inode.id}) on the source ${taken ? `for ${LEASE_MS}` : 'is refused'}`);
  if (!taken) return;
  w.tally.leases++;
  const next = w.random.next();
  if (next < 0.4) w.compareFresh(path, inode);
  else if (next < 0.7) w.open(path, w.random.chance(0.5) ? posix.O_RDWR : posix.O_RDONLY);
  else if (next < 0.8) w.open(path, posix.O_RDWR | posix.O_TRUNC);
}
