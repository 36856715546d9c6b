/** What a node remembers in its word of state: `nodes.ts`. */

export const USED = 1;
export const DETACHED = 2;
/** A descriptor keeps it alive, and a copy is handed over to later servers. */
export const PINNED = 4;
/** A lock was given through it. */
export const LOCKED = 8;
/** The file type, S_IFMT >> 12, in bits 4 to 7. */
export const TYPE_SHIFT = 4;
/** Readers of the file were left behind when it was opened for writing. */
export const CONTENDED = 0x100;
/** It was opened in such a way that a map may go on writing to it after its last close. */
export const MAPPED = 0x200;
/** It is written in place while others read it: a database, a disk image, a log, or so it was learned. */
export const LIVE = 0x400;
/** When it was last open for writing, in ticks plus one, in bits 11 to 31. */
export const WRITTEN_SHIFT = 11;
export const WRITTEN_RANGE = 2 ** 21 - 1;
export const FLAGS = (1 << WRITTEN_SHIFT) - 1;
/** The flags that a node hands on to the node that takes its place. */
export const INHERITED = LOCKED | LIVE | CONTENDED | MAPPED;

/** The unit in which a node remembers when its file was open for writing. It counts three days, and begins anew. */
export const WRITTEN_TICK_MS = 125;
