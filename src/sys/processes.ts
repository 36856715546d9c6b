/** What /proc tells of other processes' descriptors. Nothing here asks a filesystem: the files may be on a mount of ours. */

import { readdirSync, readFileSync } from 'node:fs';
import { AT_FDCWD, AT_STATX_DONT_SYNC, F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW } from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { statx } from './libc.ts';

/** Bytes of memory that an object of this file uses. */
export const PROCESSES_BYTES = 512;
/** struct statx (include/uapi/linux/stat.h): where the inode number and the device's minor number are. */
const STATX_AT = 128;
const STX_INO = STATX_AT + 32;
const STX_DEV_MINOR = STATX_AT + 140;

/** fcntl64(2) of 32-bit programs has numbers of its own for these two (include/uapi/asm-generic/fcntl.h). */
const F_SETLK64 = 13;
const F_SETLKW64 = 14;

export class OpenDescriptors {
  readonly #memory: Memory;
  readonly #minor: () => number;

  /** `minor` is the minor device number of the mount whose inodes are meant. */
  constructor(memory: Memory, minor: () => number) {
    this.#memory = memory;
    this.#minor = minor;
  }

  /** Which sort of record lock a thread asks for that waits in fcntl(2): by the command, in proc_pid_syscall(5). */
  asksFor(thread: number): 'process' | 'description' | 'running' | undefined {
    let text: string;
    try {
      text = readFileSync(`/proc/${thread}/syscall`, 'latin1');
    } catch {
      return undefined;
    }
    if (text.startsWith('running')) return 'running';
    switch (Number(text.split(' ')[2])) {
      case F_SETLK:
      case F_SETLKW:
      case F_SETLK64:
      case F_SETLKW64:
        return 'process';
      case F_OFD_SETLK:
      case F_OFD_SETLKW:
        return 'description';
      default:
        return undefined;
    }
  }

  descriptorsOn(thread: number, inode: { readonly low: number; readonly high: number }): number[] {
    return numbersIn(`/proc/${thread}/fd`).filter((fd) => this.#isOn(thread, fd, inode));
  }

  areOn(
    thread: number,
    descriptors: readonly number[],
    inode: { readonly low: number; readonly high: number },
  ): boolean {
    return descriptors.every((fd) => this.#isOn(thread, fd, inode));
  }

  threadsOf(process: number): number[] {
    return numbersIn(`/proc/${process}/task`);
  }

  /** No field is asked for, and no request sent for those that there are: the inode's number and device always are. */
  #isOn(thread: number, fd: number, inode: { readonly low: number; readonly high: number }): boolean {
    const { address, view } = this.#memory;
    putString(this.#memory, 0, `/proc/${thread}/fd/${fd}`);
    if (statx(AT_FDCWD, address, AT_STATX_DONT_SYNC, 0, address + STATX_AT) < 0) return false;
    return (
      view.getUint32(STX_INO, true) === inode.low &&
      view.getUint32(STX_INO + 4, true) === inode.high &&
      view.getUint32(STX_DEV_MINOR, true) === this.#minor()
    );
  }
}

function numbersIn(path: string): number[] {
  try {
    return readdirSync(path).map(Number);
  } catch {
    return [];
  }
}
