/**
 * The one kernel call that this folder needs, and how its readers say that an answer of the kernel can't be used. A
 * reader's error is 0, a negated errno, or one of the two numbers here, which lie below every errno (MAX_ERRNO is 4095).
 */

import type { Address } from '../base/memory.ts';

export interface ExtentCalls {
  ioctl(fd: number, request: number, argument: Address): number;
}

/** The answer contradicts itself or an earlier one: extents that overlap, are empty, go backwards or wrap around. */
export const INCONSISTENT = -4096;

/** The file has more extents than the caller wants to hear of. */
export const TOO_MANY_EXTENTS = -4097;
