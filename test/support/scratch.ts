/**
 * What the typed wrappers of system calls in `posix.ts` stand on: memory with fixed places for a call's arguments, and
 * errors that carry the errno's name as `code`, as those of node:fs do.
 */

import { constants } from 'node:os';
import { type Memory, memoryAt, putString } from '../../src/base/memory.ts';
import { mmap, viewOf } from '../../src/sys/libc.ts';

/** A file name as the kernel has it: bytes. A string stands for its UTF-8. */
export type Name = string | Buffer;

const MAP_PRIVATE_ANONYMOUS = 0x22;
const PROT_READ_WRITE = 3;

/** Names may be longer than PATH_MAX (4096): that they are refused is tested. */
const NAME_SLOT_SIZE = 16 * 1024;
const STRUCT_SLOT = 3 * NAME_SLOT_SIZE;
const STRUCT_SLOT_SIZE = 4096;
export const DATA_SLOT = STRUCT_SLOT + STRUCT_SLOT_SIZE;
/** More than the largest extended attribute (64 KiB) and a good piece of a directory. */
export const DATA_SLOT_SIZE = 256 * 1024;
const SCRATCH_SIZE = DATA_SLOT + DATA_SLOT_SIZE;

function allocate(): Memory {
  const address = mmap(SCRATCH_SIZE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (address < 0) throw new Error(`Cannot map ${SCRATCH_SIZE} bytes of memory: errno ${-address}`);
  return memoryAt(address, viewOf(address, SCRATCH_SIZE));
}

/** One call at a time uses it: all calls of `posix.ts` are synchronous. */
export const scratch: Memory = allocate();

export const structAt: number = STRUCT_SLOT;
export const structAddress: number = scratch.address + STRUCT_SLOT;
export const dataAddress: number = scratch.address + DATA_SLOT;

/** Puts a name in the first, second or third place and returns its address. */
export function nameAddress(name: Name, slot: 0 | 1 | 2 = 0): number {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name;
  if (bytes.length >= NAME_SLOT_SIZE) throw new Error(`A name of ${bytes.length} bytes doesn't fit the test's memory`);
  putString(scratch, slot * NAME_SLOT_SIZE, bytes);
  return scratch.address + slot * NAME_SLOT_SIZE;
}

/** Puts bytes in the data place and returns their address. */
export function dataWith(bytes: Uint8Array): number {
  if (bytes.length > DATA_SLOT_SIZE) throw new Error(`${bytes.length} bytes don't fit the test's memory`);
  scratch.bytes.set(bytes, DATA_SLOT);
  return dataAddress;
}

/** A copy of the first bytes of the data place. */
export function dataOf(length: number): Buffer {
  return Buffer.from(scratch.bytes.subarray(DATA_SLOT, DATA_SLOT + length));
}

/** A system call that failed. `code` is the errno's name, such as `ENOENT`. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';

  readonly code: string;
  readonly call: string;
  readonly subject: string;

  constructor(code: string, call: string, subject: string) {
    super(`${call} ${subject}: ${code}`);
    this.code = code;
    this.call = call;
    this.subject = subject;
  }
}

/** Two names share one number on Linux (EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP): the kernel's own comes first. */
const codes: ReadonlyMap<number, string> = new Map([
  ...Object.entries(constants.errno).map(([name, number]): [number, string] => [number, name]),
  [constants.errno.EAGAIN, 'EAGAIN'],
  [constants.errno.EOPNOTSUPP, 'EOPNOTSUPP'],
  [26, 'ETXTBSY'],
  [116, 'ESTALE'],
]);

export function codeOf(errno: number): string {
  return codes.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`;
}

/** Passes a result through, or throws what a negative one means. */
export function check(result: number, call: string, subject: Name | number): number {
  if (result >= 0) return result;
  throw new SystemCallError(
    codeOf(result),
    call,
    typeof subject === 'object' ? subject.toString('latin1') : `${subject}`,
  );
}
