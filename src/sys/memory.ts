/** Memory with a fixed address. Nothing here is ever unmapped: it lives as long as the server. */

import { errnoText } from '../base/errno.ts';
import {
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  MFD_CLOEXEC,
  PROT_READ,
  PROT_WRITE,
  SEEK_END,
} from '../base/linux.ts';
import { type Memory, memoryAt } from '../base/memory.ts';
import { ftruncate, lseek, memfdCreate, mmap, viewOf } from './libc.ts';

function mapped(what: string, address: number, bytes: number): Memory {
  if (address < 0) throw new Error(`Cannot map ${bytes} bytes for ${what}: ${errnoText(address)}`);
  return memoryAt(address, viewOf(address, bytes));
}

/** Zeroed memory that costs nothing until it is touched. */
export function allocate(what: string, bytes: number): Memory {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return mapped(what, mmap(bytes, PROT_READ | PROT_WRITE, flags, -1, 0), bytes);
}

/** The same, in a memory file, which a process that has its descriptor can map as well. */
export function allocateShared(what: string, bytes: number): { readonly memory: Memory; readonly fd: number } {
  const fd = memfdCreate(`sharedext-${what}`, MFD_CLOEXEC);
  if (fd < 0) throw new Error(`Cannot make a memory file for ${what}: ${errnoText(fd)}`);
  const sized = ftruncate(fd, bytes);
  if (sized < 0) throw new Error(`Cannot size the memory file for ${what}: ${errnoText(sized)}`);
  return { memory: mapShared(what, fd, bytes), fd };
}

/** Maps a memory file that another process made. */
export function mapShared(what: string, fd: number, bytes: number): Memory {
  const flags = MAP_SHARED | MAP_NORESERVE;
  return mapped(what, mmap(bytes, PROT_READ | PROT_WRITE, flags, fd, 0), bytes);
}

/** The size of a memory file, or a negated errno. */
export function sharedBytes(fd: number): number {
  return lseek(fd, 0, SEEK_END);
}
