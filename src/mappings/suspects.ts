/**
 * Which mappings are looked at, and when, since nobody else may have their extents any more: those whose file lost a name, some
 * times within seconds, and in turn all, a few at a time.
 */

import type { MappingRows } from './rows.ts';

/** When a mapping whose file was deleted is looked at: inodes die some time after their last name. */
const DELAYS_MS = [20, 100, 400, 2000, 10_000] as const;
/** Mappings looked at per step: of a pass that a deletion asked for, and of one that nothing asked for. */
const BUSY_STEP = 64;
const IDLE_STEP = 4;

export class Suspects {
  readonly #rows: MappingRows;
  readonly #monotonicMs: () => number;
  /** Looks at a mapping, and drops it if it isn't needed; returns whether it was dropped. */
  readonly #check: (row: number) => boolean;
  readonly #suspects = new Map<number, { attempt: number; dueMs: number }>();
  /** Rows still to be looked at in the pass that a deletion asked for. */
  #passLeft: number;
  #cursor = 0;

  constructor(rows: MappingRows, monotonicMs: () => number, check: (row: number) => boolean) {
    this.#rows = rows;
    this.#monotonicMs = monotonicMs;
    this.#check = check;
    // What an earlier server suspected isn't known any more.
    this.#passLeft = rows.touched;
  }

  /** A file lost a name: `row` is the mapping that it was found in, or -1 when it was never looked at, and may be any's. */
  add(row: number): void {
    if (row >= 0) this.#suspects.set(row, { attempt: 0, dueMs: this.#monotonicMs() + DELAYS_MS[0] });
    else this.#passLeft = this.#rows.touched;
  }

  /** The mapping is gone. */
  delete(row: number): void {
    this.#suspects.delete(row);
  }

  /** Looks at some. */
  tidy(): void {
    this.#tidySuspects();
    const steps = this.#passLeft > 0 ? Math.min(BUSY_STEP, this.#passLeft) : IDLE_STEP;
    this.#passLeft = Math.max(0, this.#passLeft - steps);
    const { touched } = this.#rows;
    for (let i = 0; i < steps && touched > 0; i++) {
      this.#cursor = (this.#cursor + 1) % touched;
      this.#check(this.#cursor);
    }
  }

  #tidySuspects(): void {
    const now = this.#monotonicMs();
    let left = BUSY_STEP;
    for (const [row, suspect] of this.#suspects) {
      if (suspect.dueMs > now) continue;
      if (left-- === 0) return;
      // Its file can't be gone while someone has it open: it is looked at after the last release.
      if (this.#rows.users(row) > 0) continue;
      if (!this.#rows.isAlive(row) || this.#check(row)) {
        this.#suspects.delete(row);
        continue;
      }
      suspect.attempt++;
      const delay = DELAYS_MS[suspect.attempt];
      if (delay === undefined) this.#suspects.delete(row);
      else suspect.dueMs = now + delay;
    }
  }
}
