/**
 * Whether to look for the next request for a moment before sleeping. A program makes one call after another: its next request comes
 * some microseconds after a reply, and to be woken for it costs more than to have looked for it meanwhile; on virtual machines, whose
 * idle processors are left to the host, ten times as much (docs/benchmarks.md, "floor").
 *
 * It pays only if the program runs on another processor, makes its next call soon, and nobody else wants this processor. So looking
 * stops after some misses in a row, for a number of requests that doubles as long as the next try is a miss as well, and at once
 * when it was interrupted.
 *
 * While requests come in a stream, the program's processor has nothing to do for the microseconds that each takes here. If it falls
 * asleep, the reply has to wake it: so idle processors may be kept awake as long as the stream lasts.
 */

/** Misses in a row that it takes to stop. */
const MISSES = 3;
const SHORTEST_PAUSE = 16;
const LONGEST_PAUSE = 1024;
/** So many hits between two ticks are a stream. */
export const STREAM = 64;

export interface Processors {
  keepAwake(): void;
  letSleep(): void;
}

export class Spin {
  /** How long to look, in milliseconds; 0 is never. */
  readonly #ms: number;
  readonly #processors: Processors | undefined;
  /** Since the last tick. */
  #hits = 0;
  #misses = 0;
  /** Requests for which nothing is looked for, and how many it will be next time. */
  #pause = 0;
  #nextPause = SHORTEST_PAUSE;

  /** `processors` are kept awake while requests come in a stream; absent if they are to sleep as they like. */
  constructor(microseconds: number, processors?: Processors) {
    this.#ms = microseconds / 1000;
    this.#processors = processors;
  }

  /** To be asked once after each reply: for how many milliseconds to look. */
  get milliseconds(): number {
    if (this.#pause === 0) return this.#ms;
    this.#pause--;
    return 0;
  }

  /** A request came while it was looked for. */
  hit(): void {
    this.#misses = 0;
    this.#nextPause = SHORTEST_PAUSE;
    if (++this.#hits === STREAM) this.#processors?.keepAwake();
  }

  /** To be called some times a second: a stream that is over lets processors sleep. */
  tick(): void {
    if (this.#hits < STREAM) this.#processors?.letSleep();
    this.#hits = 0;
  }

  /** Somebody else was given the processor meanwhile: looking would take it from him. */
  preempted(): void {
    this.#misses = MISSES - 1;
    this.#nextPause = LONGEST_PAUSE;
  }

  /** None came. */
  miss(): void {
    this.#misses++;
    if (this.#misses < MISSES) return;
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(2 * this.#nextPause, LONGEST_PAUSE);
    // The try after the pause decides.
    this.#misses = MISSES - 1;
  }
}
