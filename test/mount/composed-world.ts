/**
 * Files that share extents, a mount of them, and a model of what each should read as: random steps on them for
 * `composed-model.test.ts`. Each step does one thing through the mount (or, to files that nobody has open there, around it) and
 * compares what it sees with the model, byte by byte.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { O_SYNC } from '../../src/base/linux.ts';
import * as posix from '../support/posix.ts';
import { Random } from './random.ts';

/** What is read or written at once in tests, less a page. */
export const MAX_BYTES = 250_000;
const BLOCK = 4096;
const FILES = 6;
const MAX_OPEN = 8;
const HISTORY = 40;

/** What a reader that was opened read-only sees: its file as it is, or, after its sharing was broken, as it was (docs/semantics.md). */
interface Reader {
  before: Buffer | undefined;
  state: 'either' | 'follows' | 'keeps';
}

interface Descriptor extends Reader {
  readonly fd: number;
  readonly file: number;
  readonly writes: boolean;
  readonly appends: boolean;
}

interface Mapped {
  readonly address: number;
  readonly file: number;
  readonly bytes: number;
  /** The descriptor may be closed by now. */
  readonly owner: Descriptor;
}

export class ComposedWorld {
  readonly random: Random;
  readonly contents: Buffer[] = [];
  readonly tally: Record<string, number> = {};
  readonly history: string[] = [];
  readonly #mountpoint: string;
  readonly #source: string;
  #descriptors: Descriptor[] = [];
  #maps: Mapped[] = [];

  constructor(seed: number, source: string, mountpoint: string) {
    this.random = new Random(seed);
    this.#source = source;
    this.#mountpoint = mountpoint;
    for (let file = 0; file < FILES; file++) {
      const bytes = 60_000 + this.random.below(MAX_BYTES - 60_000);
      // Some of it compresses.
      const content = this.#bytes(bytes);
      for (let at = 0; at + 8192 < bytes; at += 16_384) content.fill(at % 251, at, at + 8192);
      const fd = posix.open(join(source, `f${file}`), posix.O_WRONLY | posix.O_CREAT);
      posix.write(fd, content, 0);
      posix.fsync(fd);
      posix.close(fd);
      this.contents.push(content);
    }
  }

  step(): void {
    const total = steps.reduce((sum, [weight]) => sum + weight, 0);
    let at = this.random.below(total);
    for (const [weight, name, act] of steps) {
      at -= weight;
      if (at >= 0) continue;
      this.tally[name] = (this.tally[name] ?? 0) + 1;
      act(this);
      return;
    }
  }

  log(text: string): void {
    this.history.push(text);
    if (this.history.length > HISTORY) this.history.shift();
  }

  closeAll(): void {
    for (const map of this.#maps.splice(0)) posix.unmap(map.address);
    for (const { fd } of this.#descriptors.splice(0)) posix.close(fd);
  }

  /** Compares all files, read through the mount from beginning to end, and then in the source. */
  compareAll(): void {
    this.closeAll();
    for (let file = 0; file < FILES; file++) {
      for (const root of [this.#mountpoint, this.#source]) {
        const fd = posix.open(join(root, `f${file}`), posix.O_RDONLY);
        const content = this.#content(file);
        assert.equal(posix.fstat(fd).size, content.length, `the size of f${file} in ${root}`);
        this.#same(posix.read(fd, content.length + 1, 0), content, `f${file} in ${root}`, 0);
        posix.close(fd);
      }
    }
  }

  open(): void {
    if (this.#descriptors.length >= MAX_OPEN) {
      this.close();
      return;
    }
    const file = this.random.below(FILES);
    const writes = this.random.chance(0.6);
    const appends = writes && this.random.chance(0.2);
    const sync = this.random.chance(0.1) ? O_SYNC : 0;
    const mode = writes ? posix.O_RDWR : posix.O_RDONLY;
    this.log(`open f${file} ${writes ? 'rw' : 'ro'}${appends ? ' append' : ''}`);
    const fd = posix.open(this.#path(file), mode | sync | (appends ? posix.O_APPEND : 0));
    const before = writes ? undefined : Buffer.from(this.#content(file));
    this.#descriptors.push({ fd, file, writes, appends, before, state: writes ? 'follows' : 'either' });
  }

  close(): void {
    const index = this.random.below(this.#descriptors.length);
    const [descriptor] = this.#descriptors.splice(index, 1);
    if (descriptor === undefined) return;
    this.log(`close f${descriptor.file}`);
    // A map may outlive its descriptor, but not its writes' visibility to readers of the other routes (docs/composed.md).
    const kept = descriptor.writes && this.random.chance(0.3);
    if (!kept) {
      for (const map of this.#maps.filter(({ owner }) => owner === descriptor)) this.#unmap(map);
    }
    posix.close(descriptor.fd);
  }

  read(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors);
    if (descriptor === undefined) {
      this.open();
      return;
    }
    const content = this.#content(descriptor.file);
    const at = this.random.below(content.length + 5000);
    const length = 1 + this.random.below(this.random.chance(0.2) ? 200_000 : 12_000);
    this.log(`read f${descriptor.file} ${at}+${length}`);
    const got = posix.read(descriptor.fd, length, at);
    this.#compare(descriptor, got, at, length, `read of f${descriptor.file}`);
  }

  write(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors.filter(({ writes }) => writes));
    if (descriptor === undefined) {
      this.open();
      return;
    }
    const { fd, file, appends } = descriptor;
    const data = this.#bytes(1 + this.random.below(this.random.chance(0.1) ? 60_000 : 9000));
    let at = this.random.below(this.#content(file).length + 6000);
    if (this.random.chance(0.3)) at -= at % BLOCK;
    if (appends) at = this.#content(file).length;
    if (at + data.length > MAX_BYTES) return;
    this.log(`write f${file} ${at}+${data.length}${appends ? ' append' : ''}`);
    assert.equal(posix.write(fd, data, appends ? 0 : at), data.length);
    this.#put(file, at, data);
  }

  map(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors);
    if (descriptor === undefined || this.#maps.length >= 4) {
      this.unmap();
      return;
    }
    const { size } = posix.fstat(descriptor.fd);
    if (size === 0) return;
    this.log(`map f${descriptor.file} ${descriptor.writes ? 'rw' : 'ro'} ${size}`);
    const protection = descriptor.writes ? posix.PROT_READ | posix.PROT_WRITE : posix.PROT_READ;
    const address = posix.map(descriptor.fd, size, protection);
    this.#maps.push({ address, file: descriptor.file, bytes: size, owner: descriptor });
  }

  unmap(): void {
    const map = this.random.ofOrNone(this.#maps);
    if (map !== undefined) this.#unmap(map);
  }

  peek(): void {
    const map = this.random.ofOrNone(this.#maps);
    if (map === undefined) {
      this.map();
      return;
    }
    // A map of a file that was truncated ends where the file does; what keeps its content may end earlier.
    const end = Math.min(map.bytes, this.#content(map.file).length, map.owner.before?.length ?? map.bytes);
    if (end === 0) return;
    const at = this.random.below(end);
    const length = Math.min(end - at, 1 + this.random.below(9000));
    this.log(`peek f${map.file} ${at}+${length}`);
    this.#compare(map.owner, posix.peek(map.address, at, length), at, length, `map of f${map.file}`);
  }

  poke(): void {
    const map = this.random.ofOrNone(this.#maps.filter(({ owner }) => owner.writes));
    if (map === undefined) {
      this.map();
      return;
    }
    const end = Math.min(map.bytes, this.#content(map.file).length);
    if (end === 0) return;
    const at = this.random.below(end);
    const data = this.#bytes(Math.min(end - at, 1 + this.random.below(5000)));
    this.log(`poke f${map.file} ${at}+${data.length}`);
    posix.poke(map.address, at, data);
    this.#put(map.file, at, data);
    if (this.random.chance(0.3)) posix.syncMapping(map.address);
  }

  truncate(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors.filter(({ writes }) => writes));
    const file = descriptor?.file ?? this.random.below(FILES);
    const size = this.random.chance(0.2) ? this.random.below(BLOCK) : this.random.below(MAX_BYTES);
    this.log(`truncate f${file} ${size}`);
    if (descriptor !== undefined && this.random.chance(0.5)) posix.ftruncate(descriptor.fd, size);
    else posix.truncate(this.#path(file), size);
    const content = Buffer.alloc(size);
    this.#content(file).copy(content, 0, 0, size);
    this.contents[file] = content;
  }

  punch(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors.filter(({ writes }) => writes));
    if (descriptor === undefined) {
      this.open();
      return;
    }
    const { file, fd } = descriptor;
    const content = this.#content(file);
    const at = this.random.below(content.length + 1);
    const length = 1 + this.random.below(40_000);
    const zero = this.random.chance(0.3) ? posix.FALLOC_FL_ZERO_RANGE : posix.FALLOC_FL_PUNCH_HOLE;
    this.log(`${zero === posix.FALLOC_FL_ZERO_RANGE ? 'zero' : 'punch'} f${file} ${at}+${length}`);
    posix.fallocate(fd, zero | posix.FALLOC_FL_KEEP_SIZE, at, length);
    content.fill(0, at, Math.min(content.length, at + length));
  }

  copy(): void {
    const to = this.random.ofOrNone(this.#descriptors.filter(({ writes, appends }) => writes && !appends));
    const from = this.random.ofOrNone(
      this.#descriptors.filter(({ file, state }) => file !== to?.file && state !== 'keeps'),
    );
    if (to === undefined || from === undefined) {
      this.open();
      return;
    }
    // A reader that may keep what it opened would copy that.
    if (from.state === 'either') return;
    const { offset, length, into } = this.#piece(from.file);
    if (length <= 0) return;
    this.log(`copy f${from.file} ${offset}+${length} to f${to.file} ${into}`);
    const copied = posix.copyFileRange(from.fd, offset, to.fd, into, length);
    assert.ok(copied > 0 && copied <= length);
    this.#put(to.file, into, Buffer.from(this.#content(from.file).subarray(offset, offset + copied)));
  }

  /** Around the mount, between files that nobody has open there: whole blocks, at another offset. */
  reflink(): void {
    const closed = this.contents.map((_, file) => file).filter((file) => !this.#inUse(file));
    const from = this.random.ofOrNone(closed);
    const to = this.random.ofOrNone(closed.filter((file) => file !== from));
    if (from === undefined || to === undefined) {
      this.close();
      return;
    }
    const { offset, length, into } = this.#piece(from);
    if (length < BLOCK) return;
    this.log(`reflink f${from} ${offset}+${length} to f${to} ${into}`);
    const fromFd = posix.open(join(this.#source, `f${from}`), posix.O_RDONLY);
    const toFd = posix.open(join(this.#source, `f${to}`), posix.O_RDWR);
    posix.reflinkRange(fromFd, offset, length, toFd, into);
    posix.close(fromFd);
    posix.close(toFd);
    this.#put(to, into, Buffer.from(this.#content(from).subarray(offset, offset + length)));
  }

  /** Makes one file a whole clone of another, around the mount or by the mount's copy_file_range. */
  clone(): void {
    const closed = this.contents.map((_, file) => file).filter((file) => !this.#inUse(file));
    const from = this.random.ofOrNone(closed);
    const to = this.random.ofOrNone(closed.filter((file) => file !== from));
    if (from === undefined || to === undefined) {
      this.close();
      return;
    }
    const around = this.random.chance(0.6);
    this.log(`clone f${from} to f${to} ${around ? 'around' : 'through'} the mount`);
    const root = around ? this.#source : this.#mountpoint;
    const fromFd = posix.open(join(root, `f${from}`), posix.O_RDONLY);
    const toFd = posix.open(join(root, `f${to}`), posix.O_RDWR | posix.O_TRUNC);
    if (around) {
      posix.reflinkDescriptor(fromFd, toFd);
    } else {
      const { length } = this.#content(from);
      for (let done = 0; done < length; ) done += posix.copyFileRange(fromFd, done, toFd, done, length - done);
    }
    posix.close(fromFd);
    posix.close(toFd);
    this.contents[to] = Buffer.from(this.#content(from));
  }

  sync(): void {
    const descriptor = this.random.ofOrNone(this.#descriptors);
    if (descriptor === undefined) return;
    this.log(`fsync f${descriptor.file}`);
    posix.fsync(descriptor.fd);
  }

  stat(): void {
    const file = this.random.below(FILES);
    this.log(`stat f${file}`);
    assert.equal(posix.stat(this.#path(file)).size, this.#content(file).length, `the size of f${file}`);
  }

  #path(file: number): string {
    return join(this.#mountpoint, `f${file}`);
  }

  #content(file: number): Buffer {
    return this.contents[file] ?? Buffer.alloc(0);
  }

  #inUse(file: number): boolean {
    return this.#descriptors.some((one) => one.file === file) || this.#maps.some((one) => one.file === file);
  }

  /** Whole blocks of a file, and a block of another that they may go to. */
  #piece(file: number): { offset: number; length: number; into: number } {
    const blocks = Math.floor(this.#content(file).length / BLOCK);
    const first = this.random.below(Math.max(1, blocks));
    const most = Math.min(blocks - first, 1 + this.random.below(40));
    const into = this.random.below(Math.floor(MAX_BYTES / BLOCK) - Math.max(0, most));
    return { offset: first * BLOCK, length: most * BLOCK, into: into * BLOCK };
  }

  #bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.random.below(256);
    return bytes;
  }

  #put(file: number, at: number, data: Buffer): void {
    let content = this.#content(file);
    if (at + data.length > content.length) content = Buffer.concat([content], at + data.length);
    data.copy(content, at);
    this.contents[file] = content;
  }

  #unmap(map: Mapped): void {
    this.log(`unmap f${map.file}`);
    this.#maps = this.#maps.filter((one) => one !== map);
    posix.unmap(map.address);
  }

  #compare(reader: Reader & { readonly file: number }, got: Buffer, at: number, length: number, what: string): void {
    const now = this.#content(reader.file).subarray(at, at + length);
    const before = reader.before?.subarray(at, at + length);
    if (before === undefined || reader.state === 'follows' || (reader.state === 'either' && got.equals(now))) {
      if (reader.state === 'either' && before !== undefined && !before.equals(now)) reader.state = 'follows';
      this.#same(got, now, what, at);
      return;
    }
    if (reader.state === 'either') {
      reader.state = 'keeps';
      this.tally['kept'] = (this.tally['kept'] ?? 0) + 1;
    }
    this.#same(got, before, `${what}, which keeps what it opened`, at);
  }

  #same(got: Buffer, expected: Buffer, what: string, at: number): void {
    if (got.equals(expected)) return;
    const length = Math.min(got.length, expected.length);
    let first = 0;
    while (first < length && got[first] === expected[first]) first++;
    let last = length - 1;
    while (last > first && got[last] === expected[last]) last--;
    assert.fail(
      `${what}: bytes ${at + first} to ${at + last} differ, of ${got.length} read and ${expected.length} expected`,
    );
  }
}

const steps: readonly (readonly [weight: number, name: string, act: (w: ComposedWorld) => void])[] = [
  [8, 'open', (w) => w.open()],
  [6, 'close', (w) => w.close()],
  [30, 'read', (w) => w.read()],
  [20, 'write', (w) => w.write()],
  [4, 'map', (w) => w.map()],
  [3, 'unmap', (w) => w.unmap()],
  [10, 'peek', (w) => w.peek()],
  [8, 'poke', (w) => w.poke()],
  [3, 'truncate', (w) => w.truncate()],
  [4, 'punch', (w) => w.punch()],
  [4, 'copy', (w) => w.copy()],
  [6, 'reflink', (w) => w.reflink()],
  [3, 'clone', (w) => w.clone()],
  [2, 'fsync', (w) => w.sync()],
  [3, 'stat', (w) => w.stat()],
];
