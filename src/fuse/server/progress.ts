/**
 * How far a session has come, in memory that outlives its process: what a later server needs in order to go on.
 *
 * A reply is announced before it is sent and taken back afterwards. If the process is killed in between, the later server
 * sends it again from the output memory, which is part of the same memory: the kernel takes it, or has it already and says
 * ENOENT. So at any moment it is certain whether a request was answered, and with it whether what it changed is to stay.
 */

import type { Journal, WordIndex } from '../../base/journal.ts';

const REPLYING = 0;
const DONE = 1;
const MINOR = 3;
const FLAGS = 4;
const AGAIN = 6;
const ATTEMPTS = 8;
const PART = 9;
const PARTS = 11;
const BUGS = 12;
const WORDS = 13;

export class Progress {
  readonly journal: Journal;
  readonly #at: WordIndex;

  constructor(journal: Journal) {
    this.journal = journal;
    this.#at = journal.take(WORDS);
  }

  /** Length of the reply that is being sent, or 0. */
  get replying(): number {
    return this.journal.get(this.#at + REPLYING);
  }

  set replying(length: number) {
    this.journal.words[this.#at + REPLYING] = length;
  }

  /** The request that was read last is dealt with: what it changed stays. It is named by the two words of its unique. */
  done(uniqueLow: number, uniqueHigh: number): void {
    const { journal } = this;
    journal.set(this.#at + DONE, uniqueLow);
    journal.set(this.#at + DONE + 1, uniqueHigh);
    journal.commit();
  }

  isDone(uniqueLow: number, uniqueHigh: number): boolean {
    const { words } = this.journal;
    return words[this.#at + DONE] === uniqueLow && words[this.#at + DONE + 1] === uniqueHigh;
  }

  /**
   * So many parts of the request that was read last are dealt with, a step each or several: a later server that deals with it
   * again goes on behind them.
   */
  partsDone(uniqueLow: number, uniqueHigh: number, parts: number): void {
    const { journal } = this;
    journal.set(this.#at + PART, uniqueLow);
    journal.set(this.#at + PART + 1, uniqueHigh);
    journal.set(this.#at + PARTS, parts);
    journal.commit();
  }

  /** How many parts of a request are dealt with. */
  parts(uniqueLow: number, uniqueHigh: number): number {
    const { words } = this.journal;
    const same = words[this.#at + PART] === uniqueLow && words[this.#at + PART + 1] === uniqueHigh;
    return same ? (words[this.#at + PARTS] ?? 0) : 0;
  }

  /** Steps that failed by a mistake of ours, since the mount: the server that makes one is replaced. */
  get bugs(): number {
    return this.journal.get(this.#at + BUGS);
  }

  /** Not journaled: what failed is taken back, and this stays. */
  countBug(): void {
    this.journal.words[this.#at + BUGS] = this.bugs + 1;
  }

  /** A request that came again is about to be dealt with: how often that was tried in a row. */
  attempt(uniqueLow: number, uniqueHigh: number): number {
    const { words } = this.journal;
    const same = words[this.#at + AGAIN] === uniqueLow && words[this.#at + AGAIN + 1] === uniqueHigh;
    const attempts = same ? (words[this.#at + ATTEMPTS] ?? 0) + 1 : 1;
    words[this.#at + AGAIN] = uniqueLow;
    words[this.#at + AGAIN + 1] = uniqueHigh;
    words[this.#at + ATTEMPTS] = attempts;
    return attempts;
  }

  /** A step of a request ends with a wait for another program: whatever ends servers from here on, it isn't the request. */
  survived(uniqueLow: number, uniqueHigh: number): void {
    const { words } = this.journal;
    this.journal.commit();
    const same = words[this.#at + AGAIN] === uniqueLow && words[this.#at + AGAIN + 1] === uniqueHigh;
    if (same) words[this.#at + ATTEMPTS] = 0;
  }

  /** What INIT agreed on: the kernel's minor version, and the flags that it offered. It is asked only once in a mount's life. */
  get agreed(): { readonly minor: number; readonly low: number; readonly high: number } {
    const get = (word: number): number => this.journal.get(this.#at + word);
    return { minor: get(MINOR), low: get(FLAGS), high: get(FLAGS + 1) };
  }

  agree(minor: number, low: number, high: number): void {
    const { words } = this.journal;
    words[this.#at + MINOR] = minor;
    words[this.#at + FLAGS] = low;
    words[this.#at + FLAGS + 1] = high;
  }
}
