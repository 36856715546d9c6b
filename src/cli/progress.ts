/** A line on a terminal's standard error that says how far long work is; nothing where there is no terminal. */

import { stripVTControlCharacters } from 'node:util';

const INTERVAL_MS = 200;
const BAR_CELLS = 20;
const DEFAULT_COLUMNS = 80;
/** No estimate is given before so much time and so much of the work: it would be wild. */
const ESTIMATE_AFTER_MS = 1000;
const ESTIMATE_FROM = 0.02;

export class Progress {
  readonly #isShown: boolean;
  readonly #started = performance.now();
  #shownMs = this.#started;

  constructor(isShown = process.stderr.isTTY === true) {
    this.#isShown = isShown;
  }

  /** How long the work has taken until now. */
  get elapsedMs(): number {
    return performance.now() - this.#started;
  }

  /** `done` is the part of the work that is done, from 0 to 1; `text` is asked for what else there is to say. */
  show(done: number, text: (elapsedMs: number) => string): void {
    const now = performance.now();
    if (!this.#isShown || now - this.#shownMs < INTERVAL_MS) return;
    this.#shownMs = now;
    const part = Math.min(1, Math.max(0, done));
    const full = Math.round(part * BAR_CELLS);
    const bar = `${'█'.repeat(full)}${'░'.repeat(BAR_CELLS - full)} ${String(Math.floor(part * 100)).padStart(2)}%`;
    const line = `${bar}  ${text(this.elapsedMs)}${this.#estimate(part)}`;
    const columns = process.stderr.columns ?? DEFAULT_COLUMNS;
    process.stderr.write(`\r\u001b[K${stripVTControlCharacters(line).slice(0, columns - 1)}`);
  }

  end(): void {
    if (this.#isShown) process.stderr.write('\r\u001b[K');
  }

  #estimate(part: number): string {
    if (this.elapsedMs < ESTIMATE_AFTER_MS || part < ESTIMATE_FROM || part >= 1) return '';
    const seconds = (this.elapsedMs * (1 - part)) / part / 1000;
    return seconds < 100 ? `, some ${Math.ceil(seconds)} s left` : `, some ${Math.ceil(seconds / 60)} min left`;
  }
}
