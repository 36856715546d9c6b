/**
 * What a server hands over to its supervisor: nothing is lost in a socket that is full, and a later server never takes a descriptor
 * for another inode's, whatever was pinned, forgotten and killed.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EAGAIN, EBADF, ECONNRESET } from '../../src/base/errno.ts';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import * as c from '../../src/base/linux.ts';
import { Outbox, type Sending } from '../../src/daemon/outbox.ts';
import { NodeDescriptors } from '../../src/filesystem/descriptors.ts';
import { NodeTable, nodeTableWords } from '../../src/filesystem/nodes.ts';
import { SCRATCH } from '../../src/filesystem/scratch.ts';
import { MAX_MESSAGE } from '../../src/sys/rights.ts';
import { FakeKernel, type Inode, MOUNT_FD } from '../filesystem/fake.ts';
import { fakeCalls } from '../filesystem/fakecalls.ts';
import { Arena } from '../fuse/device.ts';

/** A socket that holds so many messages; what is sent of descriptors are copies, as a kernel's are. */
class Socket implements Sending {
  readonly messages: { readonly text: string; readonly fd: number }[] = [];
  readonly sent: string[] = [];
  error = 0;
  readonly #room: number;
  readonly #copy: (fd: number) => number;
  readonly #watches = new Set<() => void>();

  constructor(room: number, copy = (fd: number): number => fd) {
    this.#room = room;
    this.#copy = copy;
  }

  send(text: string, fd: number, wait: boolean): number {
    assert.equal(wait, false, 'the loop never waits for the other side');
    assert.ok(Buffer.byteLength(text) <= MAX_MESSAGE);
    if (this.error < 0) return this.error;
    if (this.messages.length >= this.#room) return -EAGAIN;
    const copy = fd < 0 ? -1 : this.#copy(fd);
    if (fd >= 0 && copy < 0) return copy;
    this.messages.push({ text, fd: copy });
    this.sent.push(text);
    return 0;
  }

  onWritable(callback: () => void): { close(): void } {
    this.#watches.add(callback);
    return { close: () => void this.#watches.delete(callback) };
  }

  get watched(): number {
    return this.#watches.size;
  }

  /** The other side reads so many messages, and the event loop tells of the room. */
  read(count: number, take: (text: string, fd: number) => void = () => {}): void {
    for (const { text, fd } of this.messages.splice(0, count)) take(text, fd);
    if (this.messages.length < this.#room) for (const watch of this.#watches) watch();
  }
}

test('messages beyond the room of the socket wait, and follow in their order as soon as there is room', () => {
  const socket = new Socket(3);
  const outbox = new Outbox(socket);
  for (let i = 0; i < 10; i++) outbox.keep(`n${i}`, i);
  outbox.say('ready');
  assert.deepEqual([socket.sent.length, outbox.waiting, socket.watched], [3, 8, 1]);
  outbox.flush();
  assert.deepEqual([socket.sent.length, socket.watched], [3, 1], 'one watch, however often it is tried');
  socket.read(1);
  assert.equal(socket.sent.length, 4);
  while (outbox.waiting > 0) socket.read(3);
  assert.deepEqual(socket.sent, [...Array.from({ length: 10 }, (_, i) => `keep n${i}`), 'ready']);
  assert.equal(socket.watched, 0, 'nothing is watched any more');
  assert.equal(outbox.unkept, 0);
});

test('drops that wait are sent many at a time, in messages that fit', () => {
  const socket = new Socket(100_000);
  const names = Array.from({ length: 50_000 }, (_, i) => `pin-${i}-1`);
  const outbox = new Outbox(socket, names);
  socket.error = -EAGAIN;
  for (const name of names) outbox.drop(name);
  assert.equal(socket.sent.length, 0);
  socket.error = 0;
  socket.read(0);
  assert.ok(socket.sent.length < 10, `${socket.sent.length} messages`);
  assert.deepEqual(
    socket.sent.flatMap((text) => text.split(' ').slice(1)),
    names,
  );
});

test('what is dropped before it was sent is sent neither way, unless the other side has an older one', () => {
  const socket = new Socket(1);
  const outbox = new Outbox(socket, ['old']);
  outbox.say('first');
  outbox.keep('new', 7);
  outbox.keep('old', 8);
  outbox.drop('new');
  outbox.drop('old');
  outbox.drop('never');
  socket.read(1);
  socket.read(1);
  assert.deepEqual(socket.sent, ['first', 'drop old']);
  outbox.keep('old', 9);
  outbox.drop('old');
  socket.read(1);
  socket.read(1);
  assert.deepEqual(socket.sent, ['first', 'drop old', 'keep old', 'drop old']);
});

test('what the other side will never have is counted, and nothing is tried for ever', () => {
  const socket = new Socket(2, (fd) => (fd === 5 ? -EBADF : fd));
  const outbox = new Outbox(socket);
  outbox.keep('closed', 5);
  assert.deepEqual([outbox.unkept, outbox.waiting], [1, 0], 'the others may still be sent');
  for (const name of ['a', 'b', 'c', 'd']) outbox.keep(name, 1);
  outbox.lost('a');
  assert.equal(outbox.unkept, 2);
  socket.error = -ECONNRESET;
  socket.read(2);
  assert.deepEqual([outbox.unkept, outbox.waiting, socket.watched], [4, 0, 0]);
  outbox.keep('e', 1);
  outbox.drop('b');
  assert.deepEqual([outbox.unkept, outbox.waiting], [5, 0]);
});

const CAPACITY = 64;
const PAIRS = 4096;

/** Servers that follow one another, and their supervisor, on a fake kernel. */
class World {
  readonly kernel = new FakeKernel(new Arena(1 << 16));
  readonly held = new Map<string, number>();
  /** Nodes that the kernel knows, with what they are. */
  readonly known = new Map<number, Inode>();
  descriptors: NodeDescriptors;
  nodes: NodeTable;
  journal: Journal;
  outbox: Outbox;
  socket: Socket;
  lost = 0;
  readonly #calls = fakeCalls(this.kernel);
  readonly #scratch = this.kernel.arena.allocate(8192);
  readonly #memory = this.kernel.arena.allocate(journalBytes(PAIRS) + 4 * nodeTableWords(CAPACITY) + 64);
  readonly #room: number;

  constructor(room: number) {
    this.#room = room;
    ({
      journal: this.journal,
      nodes: this.nodes,
      socket: this.socket,
      outbox: this.outbox,
      descriptors: this.descriptors,
    } = this.#server());
    this.#lookUp(this.kernel.root);
  }

  #server() {
    const journal = new Journal(this.#memory, PAIRS);
    const nodes = new NodeTable(journal, CAPACITY);
    const socket = new Socket(this.#room, (fd) => this.kernel.duplicate(fd));
    const outbox = new Outbox(socket, this.held.keys());
    return { journal, nodes, socket, outbox, descriptors: new NodeDescriptors(this.#calls, nodes, MOUNT_FD, outbox) };
  }

  #lookUp(inode: Inode): number {
    const fd = this.kernel.openInode(inode, c.O_PATH);
    const { address, view } = this.#scratch;
    view.setUint32(SCRATCH.handle, 20, true);
    this.#calls.nameToHandleAt(fd, address + SCRATCH.empty, address + SCRATCH.handle, 0, c.AT_EMPTY_PATH);
    this.kernel.close(fd);
    const slot = this.nodes.lookUp(this.#scratch, SCRATCH.handle, inode.mode);
    this.journal.commit();
    return slot;
  }

  make(): void {
    if (this.known.size >= CAPACITY - 2) return;
    const inode = this.kernel.add(this.kernel.root, `d${this.kernel.log.length}`, c.S_IFREG | 0o755);
    this.known.set(this.#lookUp(inode), inode);
  }

  /** A node by any number. */
  slot(any: number): number | undefined {
    return [...this.known.keys()][any % Math.max(1, this.known.size)];
  }

  pin(slot: number, briefly: boolean): void {
    if (this.descriptors.isPinned(slot)) return;
    const fd = this.#calls.openByHandleAt(MOUNT_FD, this.nodes.handleAddress(slot), c.O_PATH);
    if (fd < 0) return;
    if (briefly) this.descriptors.pinBriefly(slot, fd, this.kernel.nowMs);
    else this.descriptors.pin(slot, fd);
  }

  /** It loses its name. */
  remove(slot: number): void {
    const inode = this.known.get(slot);
    if (inode !== undefined && inode.nlink > 0) this.kernel.unlinked(inode);
  }

  forget(slot: number): void {
    assert.ok(this.nodes.forget(slot, this.nodes.lookups(slot)));
    this.descriptors.forget(slot);
    this.known.delete(slot);
    this.journal.commit();
  }

  read(count: number): void {
    this.socket.read(count, (text, fd) => {
      const [word, ...names] = text.split(' ');
      for (const name of names) {
        const old = this.held.get(name);
        if (old !== undefined) this.kernel.close(old);
        if (word === 'keep') this.held.set(name, fd);
        else this.held.delete(name);
      }
    });
  }

  /** The server is killed in the middle of a step; what it has sent is still read, and another takes over. */
  kill(): void {
    const { messages } = this.socket;
    this.outbox.clear();
    this.kernel.endProcess(new Set([...this.held.values(), ...messages.map(({ fd }) => fd)]));
    this.read(messages.length);
    Object.assign(this, this.#server());
    this.journal.rollback();
    const given = new Map([...this.held].map(([name, fd]) => [name, this.kernel.duplicate(fd)]));
    this.descriptors.adopt(given, this.#scratch, () => this.journal.commit());
    this.descriptors.countLost(() => this.journal.commit());
    this.lost += this.descriptors.lost;
    this.check();
  }

  /** Whatever is used for a node is its inode; what is gone is gone. */
  check(): void {
    for (const [slot, inode] of this.known) {
      const fd = this.descriptors.acquire(slot);
      if (fd >= 0) assert.equal(this.kernel.inodeOf(fd), inode, 'a node is its own inode');
      else assert.equal(this.kernel.inodes.has(inode.ino), false, 'what exists is found');
      if (fd >= 0) this.descriptors.release(slot, fd);
    }
  }

  /** Once everything is read, the supervisor holds the pins of living nodes, and nothing else is open anywhere. */
  settle(): void {
    this.journal.commit();
    while (this.outbox.waiting > 0 || this.socket.messages.length > 0) this.read(1);
    const wanted = [...this.nodes.slots()]
      .filter((slot) => this.nodes.isPinned(slot))
      .map((slot) => `pin-${slot}-${this.nodes.generation(slot)}`);
    assert.deepEqual([...this.held.keys()].sort(), wanted.sort());
    for (const [name, fd] of this.held) {
      const slot = Number(name.split('-')[1]);
      assert.equal(this.kernel.inodeOf(fd), this.known.get(slot));
      assert.ok(this.descriptors.isPinned(slot));
    }
    this.check();
    assert.equal(this.outbox.unkept, 0);
    assert.equal(this.kernel.descriptors.size, this.held.size + this.descriptors.pinnedCount);
    assert.deepEqual(this.kernel.violations, []);
  }
}

type Step = {
  readonly kind: 'make' | 'pin' | 'brief' | 'unpin' | 'remove' | 'forget' | 'commit' | 'read' | 'kill';
  readonly n: number;
};

test('after any sequence of pins and deaths the supervisor holds the pins of living nodes, and no node is another inode', () => {
  let kept = 0;
  let lost = 0;
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.oneof(
      { weight: 5, arbitrary: fc.constantFrom('make' as const, 'pin' as const, 'remove' as const, 'commit' as const) },
      { weight: 2, arbitrary: fc.constantFrom('forget' as const, 'unpin' as const, 'brief' as const, 'read' as const) },
      { weight: 1, arbitrary: fc.constant('kill' as const) },
    ),
    n: fc.nat(1000),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), fc.integer({ min: 1, max: 6 }), (steps, room) => {
      const world = new World(room);
      for (const { kind, n } of steps) {
        const slot = world.slot(n);
        if (kind === 'make') world.make();
        else if (kind === 'read') world.read(n % 4);
        else if (kind === 'kill') world.kill();
        else if (kind === 'commit') world.journal.commit();
        else if (slot === undefined) continue;
        else if (kind === 'pin' || kind === 'brief') world.pin(slot, kind === 'brief');
        else if (kind === 'unpin') world.descriptors.unpin(slot);
        else if (kind === 'remove') world.remove(slot);
        else world.forget(slot);
      }
      world.settle();
      kept += world.held.size;
      lost += world.lost;
      for (const slot of [...world.known.keys()]) world.forget(slot);
      world.settle();
      assert.equal(world.held.size, 0);
    }),
    { numRuns: 600 },
  );
  assert.ok(kept > 0 && lost > 0, `${kept} pins were kept, and ${lost} lost with their server`);
});

test('a descriptor under the name of another node, or of another life of its row, is closed, dropped and counted', () => {
  const world = new World(100);
  for (let i = 0; i < 4; i++) world.make();
  const [a = -1, b = -1, d = -1] = world.known.keys();
  const copy = (slot: number): number => world.kernel.openInode(world.known.get(slot) ?? world.kernel.root, c.O_PATH);
  const generation = world.nodes.generation(a);
  // Of another inode, of an earlier life of the row, of a row that isn't in use, and the right one.
  world.held.set(`pin-${a}-${generation}`, copy(b));
  world.held.set(`pin-${b}-${world.nodes.generation(b) + 1}`, copy(b));
  world.held.set('pin-60-1', copy(a));
  world.held.set(`pin-${d}-${world.nodes.generation(d)}`, copy(d));
  world.kill();
  assert.equal(world.descriptors.refused, 3);
  assert.equal(world.descriptors.pinnedCount, 1);
  assert.ok(world.nodes.isPinned(d) && !world.nodes.isPinned(a));
  world.settle();
});
