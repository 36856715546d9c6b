/**
 * Who has locked what of one file, as flock(2) and fcntl(2) have it. Locks of whole open files (flock) and of ranges, which
 * processes and open file descriptions take, don't see each other.
 */

/** What is asked for: `end` is the first byte that isn't wanted any more, or infinity. */
export interface Wanted {
  readonly owner: object;
  readonly exclusive: boolean;
  readonly start: number;
  readonly end: number;
}

function excludes(one: Wanted, other: Wanted): boolean {
  if (one.owner === other.owner || (!one.exclusive && !other.exclusive)) return false;
  return one.start < other.end && other.start < one.end;
}

export class ModelLocks {
  #flocks: Wanted[] = [];
  #ranges: Wanted[] = [];

  /** How many locks there are. */
  get count(): number {
    return this.#flocks.length + this.#ranges.length;
  }

  /** Whether an open file gets a flock. One that it has in the other mode is lost even if it doesn't (flock(2)). */
  flock(owner: object, exclusive: boolean): boolean {
    const wanted = { owner, exclusive, start: 0, end: Number.POSITIVE_INFINITY };
    if (this.#flocks.some((held) => held.owner === owner && held.exclusive === exclusive)) return true;
    this.unflock(owner);
    if (this.#flocks.some((held) => excludes(held, wanted))) return false;
    this.#flocks.push(wanted);
    return true;
  }

  unflock(owner: object): void {
    this.#flocks = this.#flocks.filter((held) => held.owner !== owner);
  }

  /** Whether a lock of a range is in the way. */
  blocks(wanted: Wanted): boolean {
    return this.#ranges.some((held) => excludes(held, wanted));
  }

  /** Whether an owner gets a range. What it had there is replaced. */
  lock(wanted: Wanted): boolean {
    if (this.blocks(wanted)) return false;
    this.unlock(wanted.owner, wanted.start, wanted.end);
    this.#ranges.push(wanted);
    return true;
  }

  unlock(owner: object, start: number, end: number): void {
    this.#ranges = this.#ranges.flatMap((held) => {
      if (held.owner !== owner || held.end <= start || end <= held.start) return [held];
      const before = { ...held, end: start };
      const after = { ...held, start: end };
      return [before, after].filter((rest) => rest.start < rest.end);
    });
  }

  /** An open file was closed. */
  drop(owner: object): void {
    this.unflock(owner);
    this.unlock(owner, 0, Number.POSITIVE_INFINITY);
  }
}
