/**
 * The other side of `injector.ts`: traces a process by ptrace(2), and injects into one of its system calls.
 *
 *     node injector-child.js INJECTION SHORTENING
 *
 * Writes `ready` once all threads are traced, and how often it injected each of its results when its standard input is closed. Every
 * thread stops before and after each of its system calls: a few microseconds.
 *
 * The process goes on whatever becomes of this one. Its threads are seized without PTRACE_O_EXITKILL, so the kernel lets go of
 * them and wakes those that have stopped when their tracer ends. A failure is complete when the thread goes on from the stop
 * before the call; only a short count has to be put back after it, which the regular end waits for.
 */

import { spawn } from 'node:child_process';
import { readdirSync, writeSync } from 'node:fs';
import { errnoText } from '../../src/base/errno.ts';
import { getU64 } from '../../src/base/struct.ts';
import { declare } from '../../src/sys/libc.ts';
import type { Injection } from './injector.ts';
import { scratch, structAddress, structAt } from './scratch.ts';
import type { Shortening } from './syscalls.ts';

const ptrace = declare('ptrace', 'int64_t', ['int', 'int', 'uint64_t', 'int64_t']);
const waitpid = declare('waitpid', 'int', ['int', 'uintptr_t', 'int']);

/** linux/ptrace.h, sys/wait.h */
const PTRACE_PEEKDATA = 2;
const PTRACE_POKEDATA = 5;
const PTRACE_POKEUSER = 6;
const PTRACE_SYSCALL = 24;
const PTRACE_SEIZE = 0x4206;
const PTRACE_INTERRUPT = 0x4207;
const PTRACE_LISTEN = 0x4208;
const PTRACE_GET_SYSCALL_INFO = 0x420e;
const PTRACE_O_TRACESYSGOOD = 1;
const PTRACE_O_TRACECLONE = 8;
const PTRACE_EVENT_STOP = 128;
const SIGTRAP = 5;
const SIGTRAP_OF_CALL = SIGTRAP | 0x80;
const __WALL = 0x4000_0000;

/** struct ptrace_syscall_info: u8 op, then from byte 24 the number of the call and its six arguments. */
const INFO_AT = structAt + 16;
const INFO_ADDRESS = structAddress + 16;
const INFO_BYTES = 88;
const ENTRY = 1;
const NUMBER = 24;
const ARGUMENTS = 32;

/** Offsets in struct user_regs_struct of x86-64: the result, the number, and the six arguments. */
const RAX = 80;
const ORIG_RAX = 120;
const ARGUMENT_REGISTERS = [112, 104, 96, 56, 72, 64] as const;

/** What descriptors opened with O_DIRECT want their counts to be whole numbers of. */
const SECTOR = 512;
/** No test takes this long. */
const LIFETIME_SECONDS = 120;

const [given = '', givenShortening = ''] = process.argv.slice(2);
const injection: Injection = JSON.parse(given);
const shortening: Shortening | null = JSON.parse(givenShortening);

/** Threads that have been seized and didn't stop yet. */
const starting = new Set<number>();
/** By thread: puts back what a short count changed. */
const changed = new Map<number, () => void>();
const counts = injection.results.map(() => 0);
let injected = 0;
/** How many more there may be. */
let left = injection.times;
let untilNext = 1;

function traceThreads(): void {
  const seen = new Set<number>();
  for (let found = 1; found > 0; ) {
    found = 0;
    for (const name of readdirSync(`/proc/${injection.pid}/task`)) {
      const thread = Number(name);
      if (seen.has(thread)) continue;
      seen.add(thread);
      found++;
      const seized = ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE);
      // It may have ended since, and a thread that a traced one made is traced already.
      if (seized < 0 && thread !== injection.pid) continue;
      if (seized < 0)
        throw new Error(`Cannot trace process ${thread}: ${errnoText(seized)}, try as root, one at a time`);
      if (ptrace(PTRACE_INTERRUPT, thread, 0, 0) >= 0) starting.add(thread);
    }
  }
}

/**
 * Whether this call is one to fail. The gaps between them grow from 1 to less than twice the average and begin again: were they all
 * equal, an operation of just so many calls that is tried again would fail for ever.
 */
function isNext(): boolean {
  if (left === 0 || --untilNext > 0) return false;
  untilNext = 1 + ((injected + 1) % (2 * injection.every - 1));
  return true;
}

/** Whose turn it is among the results. */
function turn(): number {
  return injected % injection.results.length;
}

function result(): number {
  return injection.results[turn()] ?? 0;
}

function count(): void {
  counts[turn()] = (counts[turn()] ?? 0) + 1;
  injected++;
  left--;
}

function setRegister(thread: number, register: number, value: number): void {
  ptrace(PTRACE_POKEUSER, thread, register, value);
}

/** The kernel makes no call of the number -1, and leaves the result's register as it is. */
function fail(thread: number): void {
  setRegister(thread, ORIG_RAX, -1);
  setRegister(thread, RAX, result());
  count();
}

/** About half of a count, whole sectors if it is some; 0 where there is nothing to halve. */
function shorter(count: number): number {
  const half = Math.floor(count / 2);
  return count % SECTOR === 0 && half > SECTOR ? half - (half % SECTOR) : half;
}

function shorten(thread: number, how: Shortening, argument: (index: number) => number): void {
  if (how === 'vector') {
    const lengthAt = argument(1) + 8;
    const count = argument(2);
    const length = ptrace(PTRACE_PEEKDATA, thread, lengthAt, 0);
    const less = shorter(length);
    if (count < 1 || less < 1) return;
    ptrace(PTRACE_POKEDATA, thread, lengthAt, less);
    setRegister(thread, ARGUMENT_REGISTERS[2], 1);
    changed.set(thread, () => {
      ptrace(PTRACE_POKEDATA, thread, lengthAt, length);
      setRegister(thread, ARGUMENT_REGISTERS[2], count);
    });
  } else {
    const register = ARGUMENT_REGISTERS[how.count] ?? -1;
    const count = argument(how.count);
    const less = Math.min(shorter(count), how.atMost ?? count);
    if (less < 1) return;
    setRegister(thread, register, less);
    changed.set(thread, () => setRegister(thread, register, count));
  }
  count();
}

/** Before a system call, or after one. */
function stoppedAtCall(thread: number): void {
  const putBack = changed.get(thread);
  if (putBack !== undefined) {
    changed.delete(thread);
    putBack();
    return;
  }
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, INFO_BYTES, INFO_ADDRESS) < 0) return;
  const { view } = scratch;
  if (view.getUint8(INFO_AT) !== ENTRY || getU64(view, INFO_AT + NUMBER) !== injection.call || !isNext()) return;
  if (shortening === null || result() < 0) fail(thread);
  else shorten(thread, shortening, (index) => getU64(view, INFO_AT + ARGUMENTS + 8 * index));
}

/** Deals with one stop of a thread, and has it go on to the next one. */
function stopped(thread: number, status: number): void {
  const signal = (status >> 8) & 0xff;
  const event = status >> 16;
  if (signal === SIGTRAP_OF_CALL) {
    stoppedAtCall(thread);
    ptrace(PTRACE_SYSCALL, thread, 0, 0);
  } else if (event === PTRACE_EVENT_STOP && signal !== SIGTRAP) {
    // Someone stopped the process (SIGSTOP): it stays so until someone else has it go on.
    ptrace(PTRACE_LISTEN, thread, 0, 0);
  } else {
    ptrace(PTRACE_SYSCALL, thread, 0, event === 0 ? signal : 0);
  }
  if (starting.delete(thread) && starting.size === 0) writeSync(1, 'ready\n');
}

/** Ends when its input does, which shows as the end of a child: waitpid(2) is where all of this waits. */
const sentinel = spawn('timeout', [String(LIFETIME_SECONDS), 'cat'], { stdio: ['inherit', 'ignore', 'ignore'] });

traceThreads();
for (let ending = false; !ending || changed.size > 0; ) {
  const thread = waitpid(-1, structAddress, __WALL);
  if (thread < 0) throw new Error(`Cannot wait for process ${injection.pid}: ${errnoText(thread)}`);
  const status = scratch.view.getInt32(structAt, true);
  if (thread === sentinel.pid) {
    ending = true;
    left = 0;
  } else if ((status & 0xff) === 0x7f) {
    stopped(thread, status);
  } else {
    starting.delete(thread);
    changed.delete(thread);
  }
}
writeSync(1, `${JSON.stringify(counts)}\n`);
process.exit(0);
