/**
 * What /proc tells of other processes' descriptors. Nothing here may wait for a filesystem, which may be ours, nor for a process
 * that waits for us: `/proc/PID/fd/N` does while the process is in execve(2), which closes files (exec_update_lock), `fdinfo` doesn't.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW } from '../base/linux.ts';

/** fcntl64(2) of 32-bit programs has numbers of its own for these two (include/uapi/asm-generic/fcntl.h). */
const F_SETLK64 = 13;
const F_SETLKW64 = 14;

/** Descriptors of a thread, and the mount that they were opened by. */
interface Watched {
  readonly thread: number;
  readonly mount: number;
  readonly descriptors: readonly number[];
}

export class OpenDescriptors {
  /**
   * Which sort of record lock a thread asks for that waits in fcntl(2), by the call's arguments (proc_pid_syscall(5)). It can't be
   * in execve(2), nor can its process before it is answered.
   */
  asksFor(thread: number): { kind: 'process' | 'description'; mount: number } | 'running' | undefined {
    return orElse(undefined, () => {
      const text = textOf(`/proc/${thread}/syscall`);
      if (text.startsWith('running')) return 'running';
      const [, descriptor, command] = text.split(' ').map(Number);
      const kind = kindOf(command);
      const found = descriptor === undefined ? undefined : whereIs(thread, descriptor);
      return kind === undefined || found === undefined ? undefined : { kind, mount: found.mount };
    });
  }

  descriptorsOn(thread: number, mount: number, inode: bigint): number[] {
    return orElse([], () => numbersIn(`/proc/${thread}/fdinfo`).filter((fd) => isOn(thread, fd, mount, inode)));
  }

  areOn({ thread, mount, descriptors }: Watched, process: number, inode: bigint): boolean {
    const are = (of: number): boolean => descriptors.every((fd) => isOn(of, fd, mount, inode));
    // The thread that locked may have ended, and its process go on.
    return orElse(true, () => are(thread) || numbersIn(`/proc/${process}/task`).some(are));
  }

  threadsOf(process: number): number[] {
    return orElse([], () => numbersIn(`/proc/${process}/task`));
  }
}

/** What is taken for so where it can't be found out, such as when we have no descriptor left to look by. */
function orElse<T>(otherwise: T, look: () => T): T {
  try {
    return look();
  } catch {
    return otherwise;
  }
}

function kindOf(command: number | undefined): 'process' | 'description' | undefined {
  switch (command) {
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

/** Where a descriptor leads to (proc_pid_fdinfo(5)). */
function whereIs(thread: number, fd: number): { mount: number; inode: bigint } | undefined {
  const text = textOf(`/proc/${thread}/fdinfo/${fd}`);
  const mount = /^mnt_id:\t(\d+)$/m.exec(text)?.[1];
  const inode = /^ino:\t(\d+)$/m.exec(text)?.[1];
  return mount === undefined || inode === undefined ? undefined : { mount: Number(mount), inode: BigInt(inode) };
}

function isOn(thread: number, fd: number, mount: number, inode: bigint): boolean {
  const found = whereIs(thread, fd);
  return found?.mount === mount && found.inode === inode;
}

/** Empty when there is no such file. @throws when that can't be told. */
function textOf(path: string): string {
  return unlessGone(() => readFileSync(path, 'latin1')) ?? '';
}

/** @throws when it can't be told. */
function numbersIn(path: string): number[] {
  return (unlessGone(() => readdirSync(path)) ?? []).map(Number);
}

/** Undefined where the process, thread or descriptor is gone: proc(5). */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}
