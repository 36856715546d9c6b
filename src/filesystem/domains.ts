/**
 * Domains bound who shares with whom: files of different domains never get the same mapping, so that what one domain has in
 * memory can't be told from another. A domain is a number below 2^32:
 *
 *     mount       one for all: 0
 *     uid         the owner of the file
 *     subvolume   the btrfs subvolume that holds the file
 *     dir         the directory directly below the source that the file is in, numbered as they come; 0 outside of all
 *
 * The first three follow from the file itself. A file's directory is known by the way that it was looked up: a node has the domain of
 * the directory that it was found in, and names can't be moved or linked into another one (EXDEV, as between XFS projects).
 */

import type { Journal, WordIndex } from '../base/journal.ts';
import { handleInode, handleSubvolume } from './handles.ts';
import { type NodeTable, ROOT } from './nodes.ts';

export type DomainRule = 'mount' | 'subvolume' | 'uid' | 'dir';

/** The most directories below the source that have numbers; a file of another one isn't shared. */
const MAX_DIRECTORIES = 65_536;
/** Words of a row: inode, subvolume (two each). */
const ROW_WORDS = 4;

export const DOMAINS_WORDS = 2 + MAX_DIRECTORIES * ROW_WORDS;

/** A file that belongs to no domain is shared with nobody. */
export const NO_DOMAIN = -1;
/** How a node says so, in its word. */
const NONE_WORD = 0xffff_ffff;

export class Domains {
  readonly rule: DomainRule;
  readonly #journal: Journal;
  readonly #at: WordIndex;
  readonly #nodes: NodeTable;
  /** Numbers by inode and subvolume. */
  readonly #numbers = new Map<string, number>();

  constructor(rule: DomainRule, journal: Journal, at: WordIndex, nodes: NodeTable) {
    this.rule = rule;
    this.#journal = journal;
    this.#at = at;
    this.#nodes = nodes;
    for (let row = 0; row < this.count; row++) {
      const words = at + 2 + row * ROW_WORDS;
      this.#numbers.set(`${journal.getLarge(words)} ${journal.getLarge(words + 2)}`, row + 1);
    }
  }

  /** Directories that have numbers. */
  get count(): number {
    return this.#journal.get(this.#at);
  }

  /** The domain of a node's file, which belongs to the user `uid`. */
  of(slot: number, uid: number): number {
    switch (this.rule) {
      case 'mount':
        return 0;
      case 'uid':
        return uid;
      case 'subvolume': {
        const subvolume = handleSubvolume(this.#nodes.memory.view, this.#nodes.handleOffset(slot));
        return subvolume < NONE_WORD ? subvolume : NO_DOMAIN;
      }
      case 'dir': {
        const domain = this.#nodes.domain(slot);
        return domain === NONE_WORD ? NO_DOMAIN : domain;
      }
    }
  }

  /** A node was found in a directory, and its handle and attributes are in `scratch`; `isNew` says that it wasn't known. */
  found(slot: number, parent: number, isDirectory: boolean, isNew: boolean): void {
    if (this.rule !== 'dir' || !isNew) return;
    const isDomain = parent === ROOT && isDirectory;
    this.#nodes.setDomain(slot, isDomain ? this.#numberOf(slot) : this.#within(parent));
  }

  /** Whether a node may get a name in a directory. */
  mayBeIn(slot: number, directory: number): boolean {
    return this.rule !== 'dir' || this.#nodes.domain(slot) === this.#within(directory);
  }

  /** The domain of what is in a directory, unless it is a domain's own. */
  #within(directory: number): number {
    return directory === ROOT ? 0 : this.#nodes.domain(directory);
  }

  #numberOf(slot: number): number {
    const { view } = this.#nodes.memory;
    const handle = this.#nodes.handleOffset(slot);
    const inode = handleInode(view, handle);
    const subvolume = handleSubvolume(view, handle);
    const key = `${inode} ${subvolume}`;
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const row = this.count;
    if (row >= MAX_DIRECTORIES) return NONE_WORD;
    const words = this.#at + 2 + row * ROW_WORDS;
    this.#journal.setLarge(words, inode);
    this.#journal.setLarge(words + 2, subvolume);
    this.#journal.set(this.#at, row + 1);
    this.#numbers.set(key, row + 1);
    return row + 1;
  }
}
