/**
 * A request that waits for what another program does. It is answered without a payload, and after the reply of the request in
 * which its wait ends. A parked request of a mount that has ended needs no answer, and a later server gets it again.
 */
export class Parked {
  /** The caller was sent a signal, or killed: the wait is to end now. Answers, or lets what is done already stand. */
  readonly interrupted: () => void;
  #outcome: number | undefined;
  #answer: ((outcome: number) => void) | undefined;

  constructor(interrupted: () => void) {
    this.interrupted = interrupted;
  }

  /** Zero or a negated errno; the first answer counts. */
  answer(outcome: number): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    this.#answer?.(outcome);
  }

  /** Says who sends the answer, once: at once if there is one. */
  onAnswer(answer: (outcome: number) => void): void {
    this.#answer = answer;
    if (this.#outcome !== undefined) answer(this.#outcome);
  }
}
