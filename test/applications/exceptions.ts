/**
 * Where a mount that shares doesn't do what the bare filesystem does, and documents it: each case by its full name, with
 * what is seen instead and why. A case that sees something else fails, also when it sees what it does on the bare filesystem:
 * then it has no place here any more.
 */

import type { Seen } from './case.ts';

export interface Exception {
  readonly why: string;
  readonly seen: Seen;
}

/** docs/semantics.md, "Through the mount". */
const KEEPS = 'readers of a shared file keep what they opened';
const NO_NAME = 'a descriptor that was opened read-only on the shared route is not opened again for writing';

/** A shell goes on with the script that it opened; the next one runs the new one. */
function scriptOf(again: string): Seen {
  return { stdout: 'starts\nold end\n', again: `starts\n${again}` };
}

/** Editors that open the file for writing. */
const inPlace = ['ed', 'vim', 'Python with r+', 'a shell that writes into it'];

export const exceptions: Readonly<Record<string, Exception>> = {
  'tail: a file without the name of a log is read on, after something was appended to it': {
    why: KEEPS,
    seen: { more: '', now: 'the last\nnew\n' },
  },
  'descriptors: cat /dev/stdin of chapter works after somebody appended to it': { why: KEEPS, seen: '' },
  'descriptors: chapter is opened again for writing by a descriptor that was opened for reading': {
    why: NO_NAME,
    seen: 'ESTALE',
  },
  ...Object.fromEntries(
    ['bash', 'dash'].flatMap((shell) => [
      [
        `scripts: ${shell} runs a script that is appended to meanwhile`,
        { why: KEEPS, seen: scriptOf('old end\nnew end\n') },
      ],
      [`scripts: ${shell} runs a script that is written over meanwhile`, { why: KEEPS, seen: scriptOf('new end\n') }],
    ]),
  ),
  ...Object.fromEntries(
    inPlace.map((editor) => [
      `editors: who has half read a file when ${editor} edits it reads the rest of one whole text`,
      { why: KEEPS, seen: 'old' },
    ]),
  ),
};
