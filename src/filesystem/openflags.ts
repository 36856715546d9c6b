/** Flags of open(2) for descriptors of ours. */

import * as c from '../base/linux.ts';

/** What of a caller's flags our own descriptor takes: what matters for files whose reads and writes come to us. */
export const KEPT_FLAGS = c.O_ACCMODE | c.O_APPEND | c.O_SYNC | c.O_NOATIME;
/** A descriptor that never waits, be it for a fifo's other end or for somebody's lease (then it is EAGAIN). */
export const OPEN_FLAGS = c.O_NONBLOCK | c.O_NOFOLLOW | c.O_CLOEXEC;
