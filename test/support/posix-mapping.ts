/**
 * Memory mappings of files: mmap(2). A mapping is named by its address, a number that can be sent to another process.
 */

import { MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE } from '../../src/base/linux.ts';
import { type Memory, memoryAt } from '../../src/base/memory.ts';
import * as libc from '../../src/sys/libc.ts';
import { check } from './scratch.ts';

export { MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE };
export const PROT_EXEC = 4;

const MS_SYNC = 4;

const mappings = new Map<number, Memory>();

function mappingAt(address: number): Memory {
  const mapping = mappings.get(address);
  if (mapping === undefined) throw new Error(`Nothing is mapped at ${address.toString(16)}`);
  return mapping;
}

/** Maps the first `length` bytes from `offset` on, to be read (and written) through one page cache unless it is private. */
export function map(
  fd: number,
  length: number,
  protection: number = PROT_READ | PROT_WRITE,
  flags: number = MAP_SHARED,
  offset = 0,
): number {
  const address = check(libc.mmap(length, protection, flags, fd, offset), 'mmap', fd);
  mappings.set(address, memoryAt(address, libc.viewOf(address, length)));
  return address;
}

export function unmap(address: number): void {
  const { bytes } = mappingAt(address);
  mappings.delete(address);
  check(libc.munmap(address, bytes.length), 'munmap', address);
}

/** Reads mapped bytes. Beyond the end of the file that kills the process, by SIGBUS. */
export function peek(address: number, offset: number, length: number): Buffer {
  return Buffer.from(mappingAt(address).bytes.subarray(offset, offset + length));
}

export function poke(address: number, offset: number, content: string | Uint8Array): void {
  mappingAt(address).bytes.set(typeof content === 'string' ? Buffer.from(content) : content, offset);
}

/** Writes a mapping's dirty pages back: msync(2) with MS_SYNC. */
export function syncMapping(address: number): void {
  check(libc.msync(address, mappingAt(address).bytes.length, MS_SYNC), 'msync', address);
}

/** Writes mapped bytes to a descriptor, from where they are: the kernel itself may meet the page faults. */
export function writeMapped(fd: number, position: number, address: number, offset: number, length: number): number {
  return check(libc.pwrite(fd, address + offset, length, position), 'pwrite', fd);
}

/** Reads from a descriptor into mapped memory. */
export function readMapped(fd: number, position: number, address: number, offset: number, length: number): number {
  return check(libc.pread(fd, address + offset, length, position), 'pread', fd);
}
