/**
 * The world of the model test: the same tree three times. The mount shows one copy, a plain directory of the same
 * filesystem is the control, and the model holds what both must contain. Every step is done to all three.
 *
 * What a descriptor must read (design, coherence): one that is open for writing reads the current content. One that was
 * opened for reading reads either the current content (its file has its own route) or the content that the file had when
 * the descriptor was opened (its file was on the shared route, and somebody has opened it for writing since). Which of
 * the two it is shows when they first differ, and holds from then on: for read, for mmap, for fstat and for
 * copy_file_range alike.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { OtherProcess } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import type { Peer } from './model-locking.ts';
import { ModelLocks } from './model-locks.ts';
import { Random } from './random.ts';

export const MAX_FILE_BYTES = 128 * 1024;
/** Filesystem blocks: what can be shared. */
export const BLOCK = 4096;
export const MAX_FILES = 28;
const MAX_DESCRIPTORS = 40;
const LOG_LENGTH = 100;

export interface Inode {
  readonly id: number;
  /** Never changed in place: descriptors keep the content that they were opened with. */
  content: Buffer;
  /** Descriptors that are open for writing through the mount, of all processes, and maps that such have left. */
  writers: number;
  readonly locks: ModelLocks;
  /** Names. */
  links: number;
  /** The subvolume, where directories are subvolumes: no rename or link leaves it. */
  readonly directory: string;
  /** When it last got a second name, by Date.now(). */
  linkedMs: number;
  /** Written to since everything was last written back. */
  dirty: boolean;
}

export interface Mapping {
  readonly address: number;
  readonly length: number;
}

export interface Descriptor {
  readonly fd: number;
  readonly controlFd: number;
  readonly inode: Inode;
  readonly writable: boolean;
  /** The content when it was opened. */
  readonly opened: Buffer;
  /** Whether it goes on reading that content; undefined as long as it makes no difference. */
  frozen: boolean | undefined;
  mapping: Mapping | undefined;
}

/** A map for writing whose descriptor is closed. */
export interface Orphan {
  readonly inode: Inode;
  readonly address: number;
  readonly length: number;
  /** Made on the source. */
  readonly around: boolean;
  readonly controlFd: number;
}

/** What the run has seen: that the routes were really taken. */
export interface Tally {
  steps: number;
  /** Descriptors that were seen to keep their content while the file changed. */
  frozen: number;
  /** Descriptors for reading that were seen to follow the file. */
  followed: number;
  compared: number;
  /** Requests for locks that were granted, and that were refused. */
  locked: number;
  refused: number;
  /** Those of a file that has readers who kept their content. */
  lockedApart: number;
  /** Leases that somebody held around the mount. */
  leases: number;
}

const NO_TALLY: Tally = {
  steps: 0,
  frozen: 0,
  followed: 0,
  compared: 0,
  locked: 0,
  refused: 0,
  lockedApart: 0,
  leases: 0,
};

export interface WorldOptions {
  readonly seed: number;
  readonly mountpoint: string;
  readonly source: string;
  readonly control: string;
  readonly snapshots: boolean;
  readonly peers: readonly Peer[];
  readonly leaser: OtherProcess;
}

export class World {
  readonly random: Random;
  readonly mountpoint: string;
  readonly source: string;
  readonly control: string;
  readonly snapshots: boolean;
  readonly names = new Map<string, Inode>();
  readonly descriptors: Descriptor[] = [];
  /** Directories, relative to the three roots. */
  readonly directories: string[] = [];
  /** Maps that outlived their descriptors. */
  readonly orphans: Orphan[] = [];
  /** Other processes that lock. */
  readonly peers: readonly Peer[];
  /** The process that takes leases on the source. */
  readonly leaser: OtherProcess;
  readonly tally: Tally = { ...NO_TALLY };
  readonly #pool: Buffer;
  readonly #log: string[] = [];
  #lastId = 0;

  constructor(options: WorldOptions) {
    this.random = new Random(options.seed);
    this.mountpoint = options.mountpoint;
    this.source = options.source;
    this.control = options.control;
    this.snapshots = options.snapshots;
    this.peers = options.peers;
    this.leaser = options.leaser;
    this.#pool = this.random.bytes(1 << 20);
  }

  log(text: string): void {
    this.#log.push(`${this.tally.steps} ${text}`);
    if (this.#log.length > LOG_LENGTH) this.#log.shift();
  }

  get history(): string {
    return this.#log.join('\n');
  }

  on(path: string): string {
    return join(this.mountpoint, path);
  }

  onControl(path: string): string {
    return join(this.control, path);
  }

  onSource(path: string): string {
    return join(this.source, path);
  }

  /** A number for names that were never used before: the kernel may still remember that an old one was gone. */
  nextId(): number {
    return ++this.#lastId;
  }

  freshPath(): string {
    return `${this.random.of(this.directories)}/f${this.nextId()}`;
  }

  makeInode(content: Buffer, path: string): Inode {
    const directory = path.split('/')[0] ?? '';
    return {
      id: this.nextId(),
      directory,
      content,
      writers: 0,
      locks: new ModelLocks(),
      links: 1,
      linkedMs: 0,
      dirty: true,
    };
  }

  anyPath(): string | undefined {
    return this.random.ofOrNone([...this.names.keys()]);
  }

  inodeAt(path: string): Inode {
    const inode = this.names.get(path);
    if (inode === undefined) throw new Error(`The model has no ${path}`);
    return inode;
  }

  bytes(length: number): Buffer {
    const from = this.random.below(this.#pool.length - length);
    return this.#pool.subarray(from, from + length);
  }

  /** Does the same to the mount and to the control, and has both succeed or fail alike. */
  both<T>(act: (root: string) => T): { readonly real: T; readonly control: T } | undefined {
    const control = outcomeOf(() => act(this.control));
    const real = outcomeOf(() => act(this.mountpoint));
    assert.equal(real.code, control.code, 'the mount and the bare filesystem fail differently');
    if (real.code !== undefined) return undefined;
    return { real: real.value as T, control: control.value as T };
  }

  open(path: string, flags: number): Descriptor | undefined {
    if (this.descriptors.length >= MAX_DESCRIPTORS) this.close(this.random.of(this.descriptors));
    const inode = this.inodeAt(path);
    const writable = (flags & (posix.O_WRONLY | posix.O_RDWR)) !== 0;
    const opened = this.both((root) => posix.open(join(root, path), flags));
    if (opened === undefined) return undefined;
    if (writable) inode.writers++;
    if ((flags & posix.O_TRUNC) !== 0) this.change(inode, Buffer.alloc(0));
    // A file that somebody has open for writing isn't on the shared route.
    const frozen = writable || inode.writers > 0 ? false : undefined;
    const descriptor: Descriptor = {
      fd: opened.real,
      controlFd: opened.control,
      inode,
      writable,
      opened: inode.content,
      frozen,
      mapping: undefined,
    };
    this.descriptors.push(descriptor);
    return descriptor;
  }

  close(descriptor: Descriptor): void {
    this.descriptors.splice(this.descriptors.indexOf(descriptor), 1);
    if (descriptor.mapping) posix.unmap(descriptor.mapping.address);
    posix.close(descriptor.fd);
    posix.close(descriptor.controlFd);
    const { inode } = descriptor;
    if (descriptor.writable) inode.writers--;
    inode.locks.drop(descriptor);
    this.closedHere(inode);
  }

  /** This process closed a descriptor of a file on the mount, and lost its records of it (fcntl(2)). */
  closedHere(inode: Inode): void {
    inode.locks.drop(this);
  }

  closeAll(): void {
    for (const descriptor of [...this.descriptors]) this.close(descriptor);
    for (const orphan of [...this.orphans]) this.unmapOrphan(orphan);
  }

  /** Closes everything, whatever has failed before: a mount without a server answers no close. */
  abandonAll(): void {
    while (this.descriptors.length + this.orphans.length > 0) {
      try {
        this.closeAll();
      } catch (error) {
        if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOTCONN') throw error;
      }
    }
  }

  unmapOrphan(orphan: Orphan): void {
    this.orphans.splice(this.orphans.indexOf(orphan), 1);
    posix.unmap(orphan.address);
    posix.close(orphan.controlFd);
    if (!orphan.around) orphan.inode.writers--;
  }

  countLock(inode: Inode, granted: boolean): void {
    if (granted) this.tally.locked++;
    else this.tally.refused++;
    if (this.descriptors.some((d) => d.inode === inode && d.frozen === true)) this.tally.lockedApart++;
  }

  pathOf(inode: Inode): string | undefined {
    for (const [path, one] of this.names) if (one === inode) return path;
    return undefined;
  }

  change(inode: Inode, content: Buffer): void {
    inode.content = content;
    inode.dirty = true;
  }

  /** Writes bytes into the content; a gap before them is zeros. */
  changeRange(inode: Inode, offset: number, bytes: Uint8Array): void {
    const content = Buffer.alloc(Math.max(inode.content.length, offset + bytes.length));
    inode.content.copy(content);
    content.set(bytes, offset);
    this.change(inode, content);
  }

  changeSize(inode: Inode, size: number): void {
    const content = Buffer.alloc(size);
    inode.content.copy(content);
    this.change(inode, content);
  }

  /**
   * What the descriptor must show of its file, `look` being a way to see part of it: the current content or, if it is
   * allowed and equal, the content when it was opened. Settles which of the two if they differ in this part.
   */
  expect<T>(descriptor: Descriptor, real: T, part: (content: Buffer) => T, equal: (a: T, b: T) => boolean): void {
    this.tally.compared++;
    const { inode, opened } = descriptor;
    const now = part(inode.content);
    const then = part(opened);
    if (descriptor.frozen === undefined && !equal(now, then)) {
      if (equal(real, then)) {
        descriptor.frozen = true;
        this.tally.frozen++;
      } else if (equal(real, now)) {
        descriptor.frozen = false;
        this.tally.followed++;
      }
    }
    const wanted = descriptor.frozen === true ? then : now;
    if (equal(real, wanted)) return;
    const other = descriptor.frozen === true ? now : then;
    const state = `fd ${descriptor.fd}, inode ${inode.id}, frozen ${descriptor.frozen}`;
    const otherwise = equal(real, other) ? 'it shows the other content' : 'it shows neither content';
    throw new Error(`A descriptor shows what it must not (${state}): ${otherwise}: ${differenceOf(real, wanted)}`);
  }

  expectBytes(descriptor: Descriptor, real: Buffer, offset: number, length: number): void {
    this.expect(
      descriptor,
      real,
      (content) => content.subarray(offset, offset + length),
      (a, b) => a.equals(b),
    );
  }

  /** Makes sure that `frozen` is known wherever it makes a difference. */
  settleFrozen(descriptor: Descriptor): void {
    this.expectBytes(descriptor, posix.read(descriptor.fd, MAX_FILE_BYTES, 0), 0, MAX_FILE_BYTES);
  }

  /** What the descriptor reads now. */
  visible(descriptor: Descriptor): Buffer {
    return descriptor.frozen === true ? descriptor.opened : descriptor.inode.content;
  }

  /** Who opens a name on the mount afresh sees what the file has now. */
  compareFresh(path: string, inode: Inode): void {
    const fd = posix.open(this.on(path), posix.O_RDONLY);
    const content = posix.read(fd, MAX_FILE_BYTES + 1, 0);
    posix.close(fd);
    this.closedHere(inode);
    assertSame(content, inode.content, `${this.on(path)} (inode ${inode.id})`);
  }

  /** Compares every name by a fresh open, the source and the control directly, and every descriptor. */
  compareAll(): void {
    for (const [path, inode] of this.names) {
      for (const root of [this.control, this.source]) {
        const fd = posix.open(join(root, path), posix.O_RDONLY);
        const content = posix.read(fd, MAX_FILE_BYTES + 1, 0);
        posix.close(fd);
        assertSame(content, inode.content, `${join(root, path)} (inode ${inode.id})`);
      }
      this.compareFresh(path, inode);
    }
    for (const descriptor of this.descriptors) this.settleFrozen(descriptor);
  }
}

export function assertSame(real: Buffer, wanted: Buffer, what: string): void {
  if (!real.equals(wanted)) throw new Error(`${what} has other bytes: ${differenceOf(real, wanted)}`);
}

function differenceOf(real: unknown, wanted: unknown): string {
  if (!Buffer.isBuffer(real) || !Buffer.isBuffer(wanted)) return `${real} instead of ${wanted}`;
  const length = Math.min(real.length, wanted.length);
  let first = 0;
  while (first < length && real[first] === wanted[first]) first++;
  return `${real.length} bytes instead of ${wanted.length}, different from byte ${first} on`;
}

function outcomeOf<T>(act: () => T): { readonly code?: string; readonly value?: T } {
  try {
    return { value: act() };
  } catch (error) {
    if (error instanceof Error && 'code' in error) return { code: String(error.code) };
    throw error;
  }
}
