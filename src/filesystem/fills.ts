/**
 * Which directories the kernel was told all of a moment ago. It asks for the attributes of a directory's entries (READDIRPLUS) whenever
 * a listing begins, also while it still has those that it got the last time; each costs two system calls then, and its name
 * alone none. So as long as they hold, a listing has names only but for directories, until the kernel shows by a LOOKUP that it has
 * forgotten some.
 *
 * Directories that take the same line displace one another: a listing too many with attributes does no harm, and neither does one too
 * few.
 */

const LINES = 4096;

export class Fills {
  readonly #holdsMs: number;
  readonly #now: () => number;
  readonly #slots = new Int32Array(LINES).fill(-1);
  readonly #generations = new Uint32Array(LINES);
  readonly #times = new Float64Array(LINES);

  /** `seconds` is for how long the kernel may keep what it is told; `now` is a clock in milliseconds. */
  constructor(seconds: number, now: () => number) {
    this.#holdsMs = seconds * 1000;
    this.#now = now;
  }

  /** Whether all that a listing of the directory would tell still holds. */
  holds(slot: number, generation: number): boolean {
    const line = slot & (LINES - 1);
    if (this.#slots[line] !== slot || this.#generations[line] !== generation) return false;
    const age = this.#now() - (this.#times[line] ?? 0);
    // A clock that was set back says nothing.
    return age >= 0 && age < this.#holdsMs;
  }

  /** A listing with attributes begins. */
  filled(slot: number, generation: number): void {
    const line = slot & (LINES - 1);
    this.#slots[line] = slot;
    this.#generations[line] = generation;
    this.#times[line] = this.#now();
  }

  /** The kernel doesn't know an entry of the directory any more. */
  missed(slot: number): void {
    const line = slot & (LINES - 1);
    if (this.#slots[line] === slot) this.#slots[line] = -1;
  }
}
