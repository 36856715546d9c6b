/** A store of shared mappings in memory: clones are inodes of the fake kernel, found by the extents they hold. */

import { ENOENT } from '../../src/base/errno.ts';
import * as c from '../../src/base/linux.ts';
import type { SharedMappings } from '../../src/filesystem/routes/choose.ts';
import type { SharedFile } from '../../src/mappings/content.ts';
import type { FakeBacking, FakeKernel, Inode } from './fake.ts';

interface Row {
  readonly clone: Inode;
  alive: boolean;
  generation: number;
  users: number;
  backingId: number;
}

export class FakeMappings implements SharedMappings {
  readonly rows: Row[] = [];
  readonly suspects: number[] = [];
  /** Mappings whose files were opened for writing while others read them. */
  readonly learned: number[] = [];
  /** Clones are made later, when `finish` is called. */
  slow = false;
  readonly #kernel: FakeKernel;
  readonly #backing: FakeBacking;
  readonly #waiting: (() => void)[] = [];

  constructor(kernel: FakeKernel, backing: FakeBacking) {
    this.#kernel = kernel;
    this.#backing = backing;
  }

  share(file: SharedFile): number | string | Promise<number | string> {
    if (this.#kernel.inodeOf(file.fd)?.shared !== true) return 'unshared';
    if (!this.slow) return this.#make(file.fd);
    return new Promise((resolve) => {
      this.#waiting.push(() => resolve(this.#make(file.fd)));
    });
  }

  finish(): void {
    for (const waiting of this.#waiting.splice(0)) waiting();
  }

  #make(fd: number): number | string {
    const inode = this.#kernel.inodeOf(fd);
    if (inode === undefined) {
      this.#kernel.violations.push('the descriptor of a file that is being cloned was closed');
      return 'clone-failed';
    }
    if (this.#kernel.fails('clone')) return 'clone-failed';
    const known = this.rows.findIndex((row) => row.alive && row.clone.extents === inode.extents);
    if (known >= 0) return known;
    const clone = this.#kernel.make(c.S_IFREG | 0o400, 1, true);
    clone.data = Buffer.from(inode.data);
    clone.extents = inode.extents;
    const free = this.rows.findIndex((row) => !row.alive);
    if (free < 0) return this.rows.push({ clone, alive: true, generation: 0, users: 0, backingId: 0 }) - 1;
    const generation = this.rows[free]?.generation ?? 0;
    this.rows[free] = { clone, alive: true, generation, users: 0, backingId: 0 };
    return free;
  }

  #row(mapping: number): Row {
    const row = this.rows[mapping];
    if (row === undefined) throw new Error(`${mapping} is no mapping`);
    return row;
  }

  size(mapping: number): number {
    return this.#row(mapping).clone.data.length;
  }

  generation(mapping: number): number {
    return this.#row(mapping).generation;
  }

  isAlive(mapping: number, generation: number): boolean {
    const row = this.rows[mapping];
    return row?.alive === true && row.generation === generation;
  }

  acquire(mapping: number): number {
    const row = this.#row(mapping);
    if (!row.alive) this.#kernel.violations.push('a dropped mapping was acquired');
    if (row.users === 0) {
      const fd = this.openClone(mapping);
      if (fd < 0) return fd;
      const id = this.#backing.open(fd);
      this.#kernel.close(fd);
      if (id < 0) return id;
      row.backingId = id;
    }
    row.users++;
    return row.backingId;
  }

  release(mapping: number): void {
    const row = this.#row(mapping);
    row.users--;
    if (row.users < 0) this.#kernel.violations.push('a mapping was released that nobody used');
    if (row.users === 0) this.#backing.close(row.backingId);
  }

  openClone(mapping: number): number {
    if (this.#kernel.fails('openClone')) return -this.#kernel.failWith;
    const row = this.#row(mapping);
    return row.alive ? this.#kernel.openInode(row.clone, c.O_RDONLY) : -ENOENT;
  }

  suspect(mapping: number): void {
    this.suspects.push(mapping);
  }

  holds(mapping: number, file: { readonly fd: number }): boolean {
    return this.#row(mapping).clone.extents === this.#kernel.inodeOf(file.fd)?.extents;
  }

  learnLive(mapping: number): void {
    this.learned.push(mapping);
  }

  /** Drops what nobody uses, as the store does when it needs room. */
  dropIdle(): void {
    for (const row of this.rows) {
      if (!row.alive || row.users > 0) continue;
      row.alive = false;
      row.generation++;
      this.#kernel.unlinked(row.clone);
    }
  }

  get users(): number {
    return this.rows.reduce((sum, row) => sum + row.users, 0);
  }
}
