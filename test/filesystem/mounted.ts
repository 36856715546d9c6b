/**
 * The filesystem with a session, mounted on nothing: requests go in as bytes, as the kernel would send them, and the
 * kernel's own rules about opens are checked with every reply.
 */

import assert from 'node:assert/strict';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import * as c from '../../src/base/linux.ts';
import type { Memory } from '../../src/base/memory.ts';
import { NodeDescriptors } from '../../src/filesystem/descriptors.ts';
import { Domains } from '../../src/filesystem/domains.ts';
import { reopenHandles } from '../../src/filesystem/files.ts';
import { filesystem } from '../../src/filesystem/filesystem.ts';
import { Fills } from '../../src/filesystem/fills.ts';
import { LiveNames } from '../../src/filesystem/livenames.ts';
import { Locks } from '../../src/filesystem/locks/locks.ts';
import { LockRows, lockTableWords } from '../../src/filesystem/locks/rows.ts';
import type { Mount } from '../../src/filesystem/mount.ts';
import { NodeTable, nodeTableWords } from '../../src/filesystem/nodes.ts';
import { OpenTable, openTableWords } from '../../src/filesystem/opens.ts';
import { INTENT_WORDS, Repeats } from '../../src/filesystem/repeats.ts';
import { Routes } from '../../src/filesystem/routes/routes.ts';
import { SCRATCH, SCRATCH_BYTES } from '../../src/filesystem/scratch.ts';
import { Stat } from '../../src/filesystem/stat.ts';
import { BackingFiles, KEPT_WORDS } from '../../src/fuse/server/backing.ts';
import { settleInterrupted } from '../../src/fuse/server/interrupted.ts';
import { Progress } from '../../src/fuse/server/progress.ts';
import { Session } from '../../src/fuse/server/session.ts';
import { FOPEN_PASSTHROUGH } from '../../src/fuse/wire/constants.ts';
import type { OperationName } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { Arena, FakeDevice, names, pack, type Reply, request } from '../fuse/device.ts';
import { FakeBacking, FakeKernel, type Inode, Killed, MOUNT_FD } from './fake.ts';
import { fakeCalls } from './fakecalls.ts';
import { FakeProcesses } from './fakeprocesses.ts';
import { FakeMappings } from './fakestore.ts';

const CAPACITY = 2048;
const BUFFER = 70_000;
const MAX_OPEN = 2048;
const MAX_LOCKS = 64;
const PAIRS = 4096;
const SHARED_BYTES =
  journalBytes(PAIRS) +
  4 * (nodeTableWords(CAPACITY) + openTableWords(MAX_OPEN) + KEPT_WORDS + lockTableWords(MAX_LOCKS)) +
  256;

export interface Entry {
  readonly error: number;
  readonly nodeid: number;
  readonly ino: number;
  readonly size: number;
}

export interface Opened {
  readonly error: number;
  readonly nodeid: number;
  readonly fh: number;
  readonly openFlags: number;
  readonly backingId: number;
  readonly writing: boolean;
}

export interface MountedOptions {
  readonly share: boolean;
  readonly entrySeconds: number;
  /** How long a writer waits for readers, in milliseconds of the real clock. */
  readonly patienceMs?: number;
}

export class Mounted {
  readonly kernel: FakeKernel;
  readonly backing: FakeBacking;
  /** What is kept of it for a moment. */
  readonly kept: BackingFiles;
  readonly mappings: FakeMappings;
  readonly device = new FakeDevice();
  readonly mount: Mount;
  readonly session: Session;
  readonly root: Inode;
  /** What outlives a server: its memory, and the descriptors that its supervisor holds. */
  readonly outliving: { readonly shared: Memory; readonly input: Memory; readonly output: Memory };
  readonly held = new Map<string, number>();
  readonly store: Inode;
  /** What other processes have open. */
  readonly processes: FakeProcesses;
  /** Node ids whose attributes the kernel was told to ask for again. */
  readonly invalidated: number[] = [];
  readonly bugs: unknown[] = [];
  /** Whether files have nothing in memory that isn't on the disk. */
  clean = false;
  /** What the kernel knows: lookups and opens by node id, and the inode of each node. */
  readonly lookups = new Map<number, number>();
  readonly opens = new Map<number, Opened[]>();
  readonly inodeNumbers = new Map<number, number>();
  #unique = 1;

  /** With `before`, the server that takes over from it. */
  constructor(options: MountedOptions, before?: Mounted) {
    const kernel = before?.kernel ?? new FakeKernel(new Arena(1 << 20));
    this.kernel = kernel;
    this.backing = before?.backing ?? new FakeBacking(kernel);
    this.mappings = before?.mappings ?? new FakeMappings(kernel, this.backing);
    this.root = kernel.root;
    this.processes = before?.processes ?? new FakeProcesses();
    const { arena } = kernel;
    const calls = fakeCalls(kernel);
    this.store = before?.store ?? kernel.add(this.root, '.sharedext', c.S_IFDIR | 0o700);
    this.store.nlink = 2;
    this.outliving = before?.outliving ?? {
      shared: arena.allocate(SHARED_BYTES),
      input: arena.allocate(BUFFER),
      output: arena.allocate(BUFFER),
    };
    const { shared, input, output } = this.outliving;
    const scratch = arena.allocate(SCRATCH_BYTES);
    scratch.bytes[SCRATCH.dot] = 46;
    const journal = new Journal(shared, PAIRS);
    const progress = new Progress(journal);
    const intent = journal.take(INTENT_WORDS);
    const nodes = new NodeTable(journal, CAPACITY);
    const handle = scratch.address + SCRATCH.handle;
    scratch.view.setUint32(SCRATCH.handle, 20, true);
    calls.nameToHandleAt(MOUNT_FD, scratch.address + SCRATCH.empty, handle, 0, c.AT_EMPTY_PATH);
    if (before === undefined) assert.equal(nodes.lookUp(scratch, SCRATCH.handle, c.S_IFDIR), 0);
    else settleInterrupted(this.device, output, progress);
    journal.commit();
    const opens = new OpenTable(journal, MAX_OPEN);
    const descriptors = new NodeDescriptors(calls, nodes, MOUNT_FD, this);
    const invalidateAttributes = (nodeid: number): void => {
      this.invalidated.push(nodeid);
    };
    const domains = new Domains('mount', journal, journal.take(2), nodes);
    this.kept = new BackingFiles(this.backing, journal, journal.take(KEPT_WORDS), () => kernel.nowMs);
    const routes = new Routes({
      domains,
      calls,
      nodes,
      opens,
      descriptors,
      backing: this.kept.ofNodes,
      mountFd: MOUNT_FD,
      scratch,
      mappings: options.share ? this.mappings : undefined,
      composing: undefined,
      share: 'all',
      writable: true,
      settleMs: 1000,
      relays: false,
      patienceMs: options.patienceMs ?? 0,
      now: () => kernel.nowMs,
      monotonicMs: () => kernel.nowMs,
      invalidateAttributes,
      onDetached: () => {},
    });
    this.mount = {
      calls,
      backing: this.kept.ofNodes,
      mountFd: MOUNT_FD,
      nodes,
      opens,
      routes,
      locks: new Locks({ nodes, rows: new LockRows(journal, MAX_LOCKS), processes: this.processes, ownSubvolume: 0 }),
      domains,
      live: options.share ? new LiveNames(['*.told']) : undefined,
      repeats: new Repeats(journal, intent, () => kernel.nowMs),
      progress,
      now: () => kernel.nowMs,
      descriptors,
      input,
      output,
      scratch,
      stat: new Stat(scratch, SCRATCH.statx),
      entries: arena.allocate(4096),
      cache: { entrySeconds: options.entrySeconds, attributeSeconds: 1 },
      syncs: { files: false, names: false },
      fills: new Fills(options.entrySeconds, () => kernel.nowMs),
      ownSubvolume: 0,
      storeInode: this.store.ino,
      storeSubvolume: 0,
      currentUmask: 0o77,
      isClean: () => this.clean,
      invalidateAttributes,
    };
    this.session = new Session({
      progress,
      device: this.device,
      input,
      output,
      handlers: filesystem(this.mount),
      onBug: (_operation, error) => {
        if (error instanceof Killed) throw error;
        this.bugs.push(error);
      },
    });
    if (before === undefined) kernel.nowMs += 10_000;
    else this.#takeOver(before, journal);
  }

  /** What `daemon/server.ts` does when it takes over. */
  #takeOver(before: Mounted, journal: Journal): void {
    const { kernel, mount } = this;
    this.#unique = before.#unique;
    const given = new Map([...before.held].map(([name, fd]) => [name, kernel.duplicate(fd)]));
    for (const [name, fd] of before.held) this.held.set(name, fd);
    mount.descriptors.adopt(given, mount.scratch, () => journal.commit());
    const used = new Set([...mount.opens.rows()].map((row) => mount.opens.backingId(row)));
    for (const id of this.kept.ids()) used.add(id);
    for (const id of this.backing.ids.keys()) if (!used.has(id)) this.backing.close(id);
    this.kept.dropAll();
    reopenHandles(mount);
    for (const [nodeid, count] of before.lookups) this.lookups.set(nodeid, count);
    for (const [nodeid, opens] of before.opens) this.opens.set(nodeid, opens);
    for (const [nodeid, ino] of before.inodeNumbers) this.inodeNumbers.set(nodeid, ino);
    this.session.takeUp(kernel.arena.allocate(64));
    mount.descriptors.countLost(() => journal.commit());
    // The message that asks for what wasn't answered.
    this.device.replies.pop();
  }

  /** The supervisor's side. */
  keep(name: string, fd: number): void {
    this.held.set(name, this.kernel.duplicate(fd));
  }

  drop(name: string): void {
    const fd = this.held.get(name);
    if (fd !== undefined) this.kernel.close(fd);
    this.held.delete(name);
  }

  /** The server was killed: another takes over. */
  successor(options: MountedOptions): Mounted {
    this.kernel.killAfter = Number.POSITIVE_INFINITY;
    this.kernel.endProcess(new Set(this.held.values()));
    return new Mounted(options, this);
  }

  /** The request comes again, with the bit that says so. */
  resend(operation: OperationName, unique: number, nodeid: number, ...parts: readonly Uint8Array[]): Reply {
    const again = request(operation, { unique, nodeid }, ...parts);
    new DataView(again.buffer, again.byteOffset).setUint32(12, 0x8000_0000, true);
    this.device.queue.push(again);
    this.session.drain();
    const [reply] = this.device.take();
    assert.ok(reply !== undefined, `${operation} has a reply`);
    return reply;
  }

  /** The unique id of the last request. */
  get lastUnique(): number {
    return this.#unique - 1;
  }

  /** Sends a request; its reply is among the device's replies now or later. Returns its unique id. */
  send(operation: OperationName, nodeid: number, parts: readonly Uint8Array[], uid = 0, gid = 0): number {
    const unique = this.#unique++;
    // Each request comes from a thread of its own.
    this.device.queue.push(request(operation, { unique, nodeid, uid, gid, pid: unique }, ...parts));
    this.session.drain();
    return unique;
  }

  /** The same, from a thread of this number. */
  sendAs(pid: number, operation: OperationName, nodeid: number, parts: readonly Uint8Array[]): number {
    const unique = this.#unique++;
    this.device.queue.push(request(operation, { unique, nodeid, pid }, ...parts));
    this.session.drain();
    return unique;
  }

  /** Sends a request that is answered at once. */
  call(operation: OperationName, nodeid: number, ...parts: readonly Uint8Array[]): Reply {
    const unique = this.send(operation, nodeid, parts);
    const [reply, ...more] = this.device.take();
    assert.ok(reply !== undefined && more.length === 0 && reply.unique === unique, `${operation} has one reply`);
    return reply;
  }

  /** Sends a request whose reply comes from another thread. */
  async later(operation: OperationName, nodeid: number, ...parts: readonly Uint8Array[]): Promise<Reply> {
    const unique = this.send(operation, nodeid, parts);
    await new Promise(setImmediate);
    const [reply] = this.device.take();
    assert.ok(reply !== undefined && reply.unique === unique, `${operation} has a reply`);
    return reply;
  }

  /** What the kernel takes from a reply with an entry: one more lookup of its node. */
  entry(reply: Reply): Entry {
    if (reply.error !== 0) return { error: reply.error, nodeid: 0, ino: 0, size: 0 };
    const nodeid = s.fuse_entry_out.nodeid.get(reply.view, 0);
    const at = s.fuse_entry_out.structBytes;
    const ino = s.fuse_attr.ino.get(reply.view, at);
    if (nodeid !== 0) {
      this.lookups.set(nodeid, (this.lookups.get(nodeid) ?? 0) + 1);
      this.inodeNumbers.set(nodeid, ino);
    }
    return { error: 0, nodeid, ino, size: s.fuse_attr.size.get(reply.view, at) };
  }

  lookup(name: string, parent = 1): Entry {
    return this.entry(this.call('LOOKUP', parent, names(name)));
  }

  /** Forgets all lookups of a node, or some. */
  forget(nodeid: number, count = this.lookups.get(nodeid) ?? 0): void {
    this.send('FORGET', nodeid, [pack(s.fuse_forget_in, { nlookup: count })]);
    const left = (this.lookups.get(nodeid) ?? 0) - count;
    if (left > 0) this.lookups.set(nodeid, left);
    else this.lookups.delete(nodeid);
  }

  open(nodeid: number, flags: number): Opened {
    const wasDetached = this.mount.nodes.isDetached(nodeid - 1);
    const reply = this.call('OPEN', nodeid, pack(s.fuse_open_in, { flags }));
    if (reply.error === 0) assert.ok(!wasDetached, 'a detached node was opened by a name');
    return this.opened(reply, nodeid, flags, 0);
  }

  /** What the kernel takes from an OPEN's or CREATE's reply, by its rules (fs/fuse/iomode.c, fs/fuse/passthrough.c). */
  opened(reply: Reply, nodeid: number, flags: number, at: number): Opened {
    const writing = (flags & c.O_ACCMODE) !== c.O_RDONLY;
    if (reply.error !== 0) return { error: reply.error, nodeid, fh: 0, openFlags: 0, backingId: 0, writing };
    const openFlags = s.fuse_open_out.open_flags.get(reply.view, at);
    const backingId = s.fuse_open_out.backing_id.get(reply.view, at);
    const fh = s.fuse_open_out.fh.get(reply.view, at);
    const opened = { error: 0, nodeid, fh, openFlags, backingId, writing };
    const others = this.opens.get(nodeid) ?? [];
    for (const other of others) {
      assert.equal(
        openFlags & FOPEN_PASSTHROUGH,
        other.openFlags & FOPEN_PASSTHROUGH,
        'opens of an inode are all passthrough, or none is',
      );
      assert.equal(backingId, other.backingId, 'an open inode has one backing id');
    }
    this.opens.set(nodeid, [...others, opened]);
    const file = this.kernel.inodes.get(this.inodeNumbers.get(nodeid) ?? -1);
    assert.ok(file !== undefined, 'what was opened exists');
    if ((openFlags & FOPEN_PASSTHROUGH) !== 0) {
      const backed = this.backing.ids.get(backingId);
      assert.ok(backed !== undefined, 'the backing id of an open is registered');
      assert.equal(backed.data.toString(), file.data.toString(), 'an open reads what the file holds');
      if (writing || (flags & c.O_TRUNC) !== 0) assert.equal(backed, file, 'a writable open is backed by the file');
    } else {
      assert.notEqual(fh, 0, 'a relayed open has a handle');
    }
    return opened;
  }

  release(opened: Opened): void {
    const reply = this.call('RELEASE', opened.nodeid, pack(s.fuse_release_in, { fh: opened.fh }));
    assert.equal(reply.error, 0);
    const left = (this.opens.get(opened.nodeid) ?? []).filter((other) => other !== opened);
    if (left.length > 0) this.opens.set(opened.nodeid, left);
    else this.opens.delete(opened.nodeid);
  }

  /** Whether reads of an open go to a clone. */
  isShared(opened: Opened): boolean {
    return this.backing.ids.get(opened.backingId)?.clone === true;
  }

  /** What the kernel would read through an open. */
  content(opened: Opened): string {
    return this.backing.ids.get(opened.backingId)?.data.toString() ?? '';
  }

  setSize(nodeid: number, size: number): Reply {
    return this.call('SETATTR', nodeid, pack(s.fuse_setattr_in, { valid: 8, size }));
  }

  /** Lets time pass, so that what was just written counts as settled. */
  settle(): void {
    this.kernel.nowMs += 10_000;
  }

  /** Invariants 1 to 3 of routes.ts, over everything that is open now. */
  checkOpens(): void {
    assert.deepEqual(this.kernel.violations, []);
    assert.deepEqual(this.bugs, []);
    for (const [nodeid, opens] of this.opens) {
      const row = this.mount.nodes.openRow(nodeid - 1);
      assert.ok(row >= 0, 'an open node has a row');
      const [first] = opens;
      assert.ok(first !== undefined);
      if (!this.isShared(first)) continue;
      assert.ok(
        opens.every((open) => !open.writing),
        'a file open for writing is not on the shared route',
      );
    }
    assert.equal(this.mount.opens.inodes, this.opens.size);
  }

  /** Closes and forgets everything as an unmount does, and finds nothing left. */
  end(): void {
    for (const opens of [...this.opens.values()]) for (const open of opens) this.release(open);
    assert.equal(this.mappings.users, 0);
    assert.equal(this.backing.ids.size, this.kept.kept, 'after the last RELEASE backing ids are kept or closed');
    for (const nodeid of [...this.lookups.keys()]) this.forget(nodeid);
    assert.equal(this.backing.ids.size, 0, 'no backing id is left of a node that is forgotten');
    assert.equal(this.mount.nodes.count, 1, 'only the root is left');
    assert.equal(this.mount.nodes.detachedCount, 0);
    assert.equal(this.mount.descriptors.pinnedCount, 0, 'nothing is pinned any more');
    assert.equal(this.mount.opens.inodes, 0);
    assert.equal(this.mount.opens.descriptors, 0);
    assert.equal(this.mount.locks.count, 0, 'no lock is left');
    this.mount.descriptors.closeAll();
    assert.deepEqual([...this.kernel.descriptors.keys()], [], 'no descriptor is left');
    assert.deepEqual(this.kernel.violations, []);
    assert.deepEqual(this.bugs, []);
  }
}

export function makeMounted(options: Partial<MountedOptions> = {}): Mounted {
  return new Mounted({ share: true, entrySeconds: 0, ...options });
}

export const REGULAR = c.S_IFREG | 0o644;

/** A file `a` and its reflinks `b` and `c`, all of them settled. */
export function withClones(m: Mounted): { a: Inode; b: Inode; c: Inode } {
  const a = m.kernel.add(m.root, 'a', REGULAR, 'shared bytes');
  const b = m.kernel.reflink(m.root, 'b', a);
  const third = m.kernel.reflink(m.root, 'c', a);
  m.settle();
  return { a, b, c: third };
}
