/**
 * The benchmark is made of sections. Each answers one question, on filesystems that it makes itself and takes away again, and
 * gives back what docs/benchmarks.md says of it: text, plots, and the same numbers for programs.
 */

import type { FilesystemName } from '../src/demo/stage.ts';

/** How much is done: to see that it runs, for the document, and with the largest sizes. */
export type Extent = 'short' | 'normal' | 'full';

export interface Asked {
  readonly filesystem: FilesystemName;
  readonly extent: Extent;
  readonly signal: AbortSignal;
  /** Says what is being done, where somebody watches. */
  readonly tell: (doing: string) => void;
}

export interface Plot {
  /** The file below docs/ that the text shows: `bench-memory.svg`. */
  readonly file: string;
  readonly svg: string;
}

export interface SectionResult {
  /** Markdown below the section's heading: how it was measured, tables, pictures, and what follows from them. */
  readonly text: string;
  readonly plots: readonly Plot[];
  /** The numbers, for `--json`. */
  readonly numbers: unknown;
}

export interface Section {
  /** For `--only`. */
  readonly name: string;
  readonly title: string;
  run(asked: Asked): Promise<SectionResult>;
}
