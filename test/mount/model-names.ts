/** The steps of the model test that are about names: files come and go, move, get links, and are in snapshots. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { BLOCK, type Inode, MAX_FILE_BYTES, MAX_FILES, type World } from './model-world.ts';

/** Names are kept for a second (the option `cache`). */
const NAME_CACHE_MS = 1100;

/** Offsets and lengths, half of them whole blocks: only whole blocks share extents. */
export function offsetIn(w: World, limit: number): number {
  const offset = w.random.below(Math.max(1, limit));
  return w.random.chance(0.5) ? offset - (offset % BLOCK) : offset;
}

export function lengthUpTo(w: World, limit: number): number {
  const most = Math.max(1, Math.min(limit, w.random.chance(0.3) ? MAX_FILE_BYTES : 3 * BLOCK));
  return 1 + w.random.below(most);
}

export function renameFile(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  const over = w.random.chance(0.5) ? w.anyPath() : undefined;
  const to = over ?? w.freshPath();
  w.log(`rename ${path} to ${to}`);
  // Directories may be of different subvolumes: then both refuse (EXDEV).
  if (!w.both((root) => posix.rename(join(root, path), join(root, to)))) return;
  const [inode, replaced] = [w.inodeAt(path), w.names.get(to)];
  if (inode === replaced) return;
  if (replaced) replaced.links--;
  w.names.delete(path);
  w.names.set(to, inode);
}

export function unlinkFile(w: World): void {
  const path = w.anyPath();
  if (path === undefined || w.names.size < MAX_FILES / 3) return;
  w.log(`unlink ${path}`);
  w.both((root) => posix.unlink(join(root, path)));
  w.inodeAt(path).links--;
  w.names.delete(path);
}

export function linkFile(w: World): void {
  const path = w.anyPath();
  if (path === undefined || w.names.size >= MAX_FILES) return;
  const to = w.freshPath();
  w.log(`link ${path} to ${to}`);
  if (!w.both((root) => posix.link(join(root, path), join(root, to)))) return;
  const inode = w.inodeAt(path);
  inode.links++;
  inode.linkedMs = Date.now();
  w.names.set(to, inode);
}

export function createFile(w: World): void {
  if (w.names.size >= MAX_FILES) return;
  const path = w.freshPath();
  const content = Buffer.from(w.bytes(lengthUpTo(w, MAX_FILE_BYTES)));
  w.log(`create ${path} with ${content.length} bytes`);
  w.both((root) => {
    const fd = posix.open(join(root, path), posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL);
    assert.equal(posix.write(fd, content), content.length);
    posix.close(fd);
  });
  w.names.set(path, w.makeInode(content, path));
}

export function statFile(w: World): void {
  const path = w.anyPath();
  if (path === undefined) return;
  w.log(`stat ${path}`);
  const inode = w.inodeAt(path);
  // The kernel may know the first name of a new link for as long as names are kept, even if it is opened by the second.
  if (Date.now() - inode.linkedMs < NAME_CACHE_MS) return;
  const status = posix.stat(w.on(path));
  assert.equal(status.size, inode.content.length, `the size of ${path} (inode ${inode.id})`);
  assert.equal(status.nlink, inode.links, `the links of ${path} (inode ${inode.id})`);
}

const MAX_SNAPSHOTS = 2;

export function takeSnapshot(w: World): void {
  if (!w.snapshots || w.names.size >= MAX_FILES) return;
  const snapshots = w.directories.filter((name) => name.startsWith('snapshot'));
  if (snapshots.length >= MAX_SNAPSHOTS) {
    const unused = snapshots.filter((name) => !isOpenElsewhere(w, name));
    const chosen = w.random.ofOrNone(unused);
    if (chosen !== undefined) removeSnapshot(w, chosen);
    return;
  }
  const from = w.random.of(w.directories);
  const to = `snapshot${w.nextId()}`;
  w.log(`snapshot ${from} as ${to}`);
  posix.snapshot(w.onSource(from), w.onSource(to));
  posix.snapshot(w.onControl(from), w.onControl(to));
  const copies = new Map<number, Inode>();
  for (const [path, inode] of [...w.names]) {
    if (!path.startsWith(`${from}/`)) continue;
    const known = copies.get(inode.id);
    if (known) known.links++;
    const copy = known ?? w.makeInode(inode.content, to);
    copies.set(inode.id, copy);
    w.names.set(`${to}/${path.slice(from.length + 1)}`, copy);
  }
  w.directories.push(to);
}

/** Whether another process has a file of a directory open. */
function isOpenElsewhere(w: World, name: string): boolean {
  return w.peers.some(({ files }) => files.some(({ inode }) => inode.directory === name));
}

/** Empties a snapshot and removes it as a directory, all through the mount. */
function removeSnapshot(w: World, name: string): void {
  w.log(`remove ${name}`);
  // A file of a subvolume that is gone can't be found by its handle any more, although it is open.
  for (const d of w.descriptors.filter(({ inode }) => inode.directory === name)) w.close(d);
  for (const orphan of w.orphans.filter(({ inode }) => inode.directory === name)) w.unmapOrphan(orphan);
  for (const [path, inode] of [...w.names]) {
    if (!path.startsWith(`${name}/`)) continue;
    w.both((root) => posix.unlink(join(root, path)));
    inode.links--;
    w.names.delete(path);
  }
  w.both((root) => posix.rmdir(join(root, name)));
  w.directories.splice(w.directories.indexOf(name), 1);
}
