/**
 * The process that runs the timed loops, for all places alike: so they find the same compiled code. It is told by messages
 * what to prepare, and when to go.
 */

import { contentLoops } from './content.ts';
import type { Loop, MakeLoop } from './given.ts';
import { nameLoops } from './names.ts';

export const loops = { ...contentLoops, ...nameLoops } as const satisfies Readonly<Record<string, MakeLoop>>;
export type LoopName = keyof typeof loops;

export type Word =
  | { readonly say: 'prepare'; readonly loop: LoopName; readonly path: string; readonly count: number }
  | { readonly say: 'go' }
  | { readonly say: 'finish' };

/** What is said back: how long the steps took in all, in microseconds. */
export interface Timed {
  readonly us: number;
  readonly steps: number;
}
export type Reply = Timed | { readonly error: string };

let loop: Loop | undefined;
let what = '';

function obey(word: Word): Timed {
  switch (word.say) {
    case 'prepare':
      what = `${word.loop} at ${word.path}`;
      loop = loops[word.loop](word);
      loop.before?.();
      return { us: 0, steps: 0 };
    case 'go': {
      const start = performance.now();
      const steps = loop?.timed() ?? 0;
      return { us: (performance.now() - start) * 1000, steps };
    }
    case 'finish':
      loop?.after?.();
      return { us: 0, steps: 0 };
  }
}

function reply(word: Word): Reply {
  try {
    return obey(word);
  } catch (error) {
    return { error: `Cannot ${word.say} ${what}: ${error instanceof Error ? error.message : String(error)}` };
  }
}

process.on('message', (word: Word) => process.send?.(reply(word)));
