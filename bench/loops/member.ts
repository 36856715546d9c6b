/** One of many processes that read or write a file at once: it does its part when it is told, and says when it was done. */

import { contentLoops } from './content.ts';

export interface Part {
  readonly loop: 'read-random' | 'write-flush';
  readonly path: string;
  readonly count: number;
}

/** By the machine's monotonic clock, which all processes have in common; in microseconds. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

const now = (): number => Number(process.hrtime.bigint()) / 1000;

process.on('message', (part: Part) => {
  try {
    const loop = contentLoops[part.loop](part);
    loop.before?.();
    const from = now();
    loop.timed();
    const span: Span = { from, to: now() };
    loop.after?.();
    process.send?.(span);
  } catch (error) {
    process.send?.({ error: `Cannot do ${part.loop} on ${part.path}: ${String(error)}` });
  }
});
