/**
 * The steps of the model test that lock: this process by descriptors and as a process, and other processes, through whichever
 * of a file's nodes they have opened. None waits: the model says which are refused.
 */

import assert from 'node:assert/strict';
import type { OtherProcess } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { isGranted } from '../support/posix-locks.ts';
import type { Wanted } from './model-locks.ts';
import type { Descriptor, Inode, World } from './model-world.ts';

const MAX_PEER_FILES = 8;
/** Requests that are made at once. */
const MAX_REQUESTS = 4;
/** Ranges are taken from so few bytes that they meet. */
const LOCKED_BYTES = 64;

interface PeerFile {
  readonly fd: number;
  readonly inode: Inode;
  readonly writable: boolean;
}

/** Another process that locks files. */
export class Peer {
  readonly process: OtherProcess;
  readonly files: PeerFile[] = [];

  constructor(process: OtherProcess) {
    this.process = process;
  }

  async open(w: World): Promise<PeerFile | undefined> {
    const known = ofLocked(w, w.descriptors)?.inode;
    const path = known && w.random.chance(0.8) ? w.pathOf(known) : w.anyPath();
    if (path === undefined || this.files.length >= MAX_PEER_FILES) return undefined;
    const inode = w.inodeAt(path);
    const writable = w.random.chance(0.4);
    w.log(`process ${this.process.pid} opens ${path} (inode ${inode.id})${writable ? ' for writing' : ''}`);
    const fd = await this.process.call('open', w.on(path), writable ? posix.O_RDWR : posix.O_RDONLY);
    if (writable) inode.writers++;
    const file = { fd, inode, writable };
    this.files.push(file);
    return file;
  }

  async close(w: World, file: PeerFile): Promise<void> {
    w.log(`process ${this.process.pid} closes fd ${file.fd} inode ${file.inode.id}`);
    this.files.splice(this.files.indexOf(file), 1);
    await this.process.call('close', file.fd);
    if (file.writable) file.inode.writers--;
    // A process loses its records of a file with any descriptor of it (fcntl(2)).
    file.inode.locks.drop(this);
  }

  async closeAll(w: World): Promise<void> {
    for (const file of [...this.files]) await this.close(w, file);
  }
}

async function flock(w: World, d: Descriptor): Promise<void> {
  const { locks, id } = d.inode;
  if (w.random.chance(0.3)) {
    w.log(`let go of the flock of fd ${d.fd} inode ${id}`);
    posix.flock(d.fd, posix.LOCK_UN);
    locks.unflock(d);
    return;
  }
  const exclusive = w.random.chance(0.5);
  w.log(`flock fd ${d.fd} inode ${id} ${exclusive ? 'exclusively' : 'shared'}`);
  const wanted = locks.flock(d, exclusive);
  const operation = exclusive ? posix.LOCK_EX : posix.LOCK_SH;
  const granted = await isGranted(() => posix.flock(d.fd, operation | posix.LOCK_NB));
  w.countLock(d.inode, granted);
  assert.equal(granted, wanted, `whether fd ${d.fd} (inode ${id}) gets its flock`);
}

/** How an owner of ranges asks for them. */
interface Asking {
  readonly name: string;
  readonly owner: object;
  readonly inode: Inode;
  readonly writable: boolean;
  readonly set: (type: number, start: number, length: number) => unknown;
  readonly test: (type: number, start: number, length: number) => unknown;
}

async function lockRange(w: World, { name, owner, inode, writable, set, test }: Asking): Promise<void> {
  const start = w.random.below(LOCKED_BYTES);
  const length = w.random.chance(0.1) ? 0 : 1 + w.random.below(LOCKED_BYTES / 2);
  const end = length === 0 ? Number.POSITIVE_INFINITY : start + length;
  const range = `${start}+${length || 'all'} of inode ${inode.id}`;
  if (w.random.chance(0.3)) {
    w.log(`${name} lets go of ${range}`);
    await set(posix.F_UNLCK, start, length);
    inode.locks.unlock(owner, start, end);
    return;
  }
  const exclusive = writable && w.random.chance(0.5);
  const type = exclusive ? posix.F_WRLCK : posix.F_RDLCK;
  w.log(`${name} locks ${range} ${exclusive ? 'exclusively' : 'shared'}`);
  const wanted: Wanted = { owner, exclusive, start, end };
  const found = await test(type, start, length);
  assert.equal(found !== undefined, inode.locks.blocks(wanted), `whether ${name} is shown what keeps it from ${range}`);
  const expected = inode.locks.lock(wanted);
  const granted = await isGranted(() => set(type, start, length));
  w.countLock(inode, granted);
  assert.equal(granted, expected, `whether ${name} gets ${range}`);
}

function byDescription(w: World, d: Descriptor): Promise<void> {
  return lockRange(w, {
    name: `the open file ${d.fd}`,
    owner: d,
    inode: d.inode,
    writable: d.writable,
    set: (type, start, length) => posix.lockDescription(d.fd, type, start, length),
    test: (type, start, length) => posix.conflictingDescription(d.fd, type, start, length),
  });
}

function byThisProcess(w: World, d: Descriptor): Promise<void> {
  return lockRange(w, {
    name: `this process by fd ${d.fd}`,
    owner: w,
    inode: d.inode,
    writable: d.writable,
    set: (type, start, length) => posix.lockRecord(d.fd, type, start, length),
    test: (type, start, length) => posix.conflictingRecord(d.fd, type, start, length),
  });
}

function byPeer(w: World, peer: Peer, { fd, inode, writable }: PeerFile): Promise<void> {
  return lockRange(w, {
    name: `process ${peer.process.pid} by fd ${fd}`,
    owner: peer,
    inode,
    writable,
    set: (type, start, length) => peer.process.call('lockRecord', fd, type, start, length),
    test: (type, start, length) => peer.process.call('conflictingRecord', fd, type, start, length),
  });
}

/** One of some files that are open: rather one of a file that is locked, where it may be refused. */
function ofLocked<T extends { readonly inode: Inode }>(w: World, files: readonly T[]): T | undefined {
  const locked = files.filter(({ inode }) => inode.locks.count > 0);
  return w.random.ofOrNone(locked.length > 0 && w.random.chance(0.8) ? locked : files);
}

/** Requests for locks of one file by several of its descriptors: by a flock, an open file, or as this process. */
export async function lockHere(w: World): Promise<void> {
  const first = ofLocked(w, w.descriptors);
  if (first === undefined) return;
  await lockSome(w, first.inode);
}

async function lockSome(w: World, inode: Inode): Promise<void> {
  const all = w.descriptors.filter((d) => d.inode === inode);
  for (let requests = 1 + w.random.below(MAX_REQUESTS); requests > 0; requests--) {
    const way = w.random.of([flock, byDescription, byThisProcess]);
    await way(w, w.random.of(all));
  }
}

/** Locks of a reader, and then of him and a writer: the file may have got a second node between them. */
export async function lockAcross(w: World): Promise<void> {
  const reader = w.random.ofOrNone(
    w.descriptors.filter(({ frozen, inode }) => frozen === undefined && inode.links > 0),
  );
  const path = reader && w.pathOf(reader.inode);
  if (reader === undefined || path === undefined) return;
  await w.random.of([flock, byDescription, byThisProcess])(w, reader);
  w.log(`open ${path} (inode ${reader.inode.id}) for writing`);
  const writer = w.open(path, posix.O_RDWR);
  // One is closed where there are too many.
  if (writer === undefined || !w.descriptors.includes(reader)) return;
  const { content } = reader.inode;
  if (content.length > 0) {
    const bytes = w.bytes(content.length);
    assert.equal(posix.write(writer.fd, bytes, 0), bytes.length);
    assert.equal(posix.write(writer.controlFd, bytes, 0), bytes.length);
    w.changeRange(reader.inode, 0, bytes);
    w.settleFrozen(reader);
  }
  for (let rounds = 0; rounds < 2; rounds++) await lockSome(w, reader.inode);
}

/** A step of another process. */
export async function stepOfPeer(w: World): Promise<void> {
  const peer = w.random.of(w.peers);
  const what = w.random.next();
  const file = ofLocked(w, peer.files);
  if (file === undefined || what < 0.2) {
    const opened = await peer.open(w);
    if (opened !== undefined) await byPeer(w, peer, opened);
  } else if (what < 0.35) await peer.close(w, file);
  else for (let requests = 1 + w.random.below(MAX_REQUESTS); requests > 0; requests--) await byPeer(w, peer, file);
}
