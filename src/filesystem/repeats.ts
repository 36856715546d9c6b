/**
 * Requests that come again. When a server is killed between carrying out a request and answering it, the next one gets the request
 * again. Most can simply be carried out twice, since nobody could change anything in between: the kernel holds the directory's
 * or the inode's lock for as long as the request is unanswered. Those that can't (to make, remove or move a name, to create
 * or remove an attribute) first write down, in memory that outlives the process, what they are about to do.
 *
 *     words 0..1   the request: its unique
 *           2..3   when, in milliseconds since 1970
 *           4..10  the handle that its name led to, or zeros
 */

import type { Journal, WordIndex } from '../base/journal.ts';
import type { Memory } from '../base/memory.ts';
import type { Request } from '../fuse/server/session.ts';
import { HANDLE_BYTES } from './handles.ts';

const UNIQUE = 0;
const WHEN = 2;
const HANDLE = 4;
const HANDLE_WORDS = HANDLE_BYTES / 4;

/** Words of the record. */
export const INTENT_WORDS = 11;

/** Times of birth are read from a clock that ticks, at the slowest, so often. */
const CLOCK_TICK_MS = 20;

export class Repeats {
  readonly #words: Uint32Array;
  readonly #at: WordIndex;
  readonly #now: () => number;

  /** `now` is the wall clock, in milliseconds. */
  constructor(journal: Journal, at: WordIndex, now: () => number) {
    this.#words = journal.words;
    this.#at = at;
    this.#now = now;
  }

  /** Whether the request was about to be carried out, or was, by a server that was killed. */
  isRepeat(r: Request): boolean {
    return r.again && this.#get(UNIQUE) === r.uniqueLow && this.#get(UNIQUE + 1) === r.uniqueHigh;
  }

  /** The request is about to be carried out. The handle that its name leads to lies at this offset of `scratch`, or -1. */
  intend(r: Request, scratch: Memory, handle: number): void {
    this.#set(UNIQUE, 0);
    this.#set(UNIQUE + 1, 0);
    const now = this.#now();
    this.#set(WHEN, now % 0x1_0000_0000);
    this.#set(WHEN + 1, now / 0x1_0000_0000);
    for (let i = 0; i < HANDLE_WORDS; i++) {
      this.#set(HANDLE + i, handle < 0 ? 0 : scratch.view.getUint32(handle + i * 4, true));
    }
    this.#set(UNIQUE + 1, r.uniqueHigh);
    this.#set(UNIQUE, r.uniqueLow);
  }

  /** Whether the name led to anything. */
  get named(): boolean {
    return this.#get(HANDLE) !== 0;
  }

  /** Whether the handle at an offset of `scratch` is what the name led to. */
  led(scratch: Memory, at: number): boolean {
    for (let i = 0; i < HANDLE_WORDS; i++) {
      if (this.#get(HANDLE + i) !== scratch.view.getUint32(at + i * 4, true)) return false;
    }
    return true;
  }

  /** Whether something that was born at this time can have been made by the request. */
  bornSince(seconds: number, nanoseconds: number): boolean {
    const when = this.#get(WHEN) + this.#get(WHEN + 1) * 0x1_0000_0000;
    return seconds * 1000 + nanoseconds / 1e6 >= when - CLOCK_TICK_MS;
  }

  #get(word: number): number {
    return this.#words[this.#at + word] ?? 0;
  }

  #set(word: number, value: number): void {
    this.#words[this.#at + word] = value;
  }
}
