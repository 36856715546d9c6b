/** System calls by name: their numbers on x86-64, and how each of them can be made to do less than it is asked for. */

/**
 * How a call that transfers so many bytes is made to transfer fewer: by the register of its argument `count`, or by the
 * length in memory of its first vector, argument 1, while argument 2 says that there is just that one.
 */
export type Shortening = { readonly count: number; readonly atMost?: number } | 'vector';

export interface SystemCall {
  readonly number: number;
  /** Absent where the kernel does all that is asked for or fails. */
  readonly shortening?: Shortening;
}

/** A directory entry with the longest name has 280 bytes: at least one fits, and a directory of many names takes many calls. */
const SMALL_DIRECTORY_BUFFER = 320;

const table = {
  lseek: { number: 8 },
  ioctl: { number: 16 },
  pread64: { number: 17, shortening: { count: 2 } },
  pwrite64: { number: 18, shortening: { count: 2 } },
  sendmsg: { number: 46 },
  fcntl: { number: 72 },
  fsync: { number: 74 },
  fdatasync: { number: 75 },
  ftruncate: { number: 77 },
  fstatfs: { number: 138 },
  setxattr: { number: 188 },
  getxattr: { number: 191 },
  listxattr: { number: 194 },
  removexattr: { number: 197 },
  getdents64: { number: 217, shortening: { count: 2, atMost: SMALL_DIRECTORY_BUFFER } },
  fadvise64: { number: 221 },
  openat: { number: 257 },
  mkdirat: { number: 258 },
  mknodat: { number: 259 },
  fchownat: { number: 260 },
  unlinkat: { number: 263 },
  linkat: { number: 265 },
  symlinkat: { number: 266 },
  readlinkat: { number: 267 },
  utimensat: { number: 280 },
  fallocate: { number: 285 },
  name_to_handle_at: { number: 303 },
  open_by_handle_at: { number: 304 },
  renameat2: { number: 316 },
  copy_file_range: { number: 326, shortening: { count: 4 } },
  preadv2: { number: 327, shortening: 'vector' },
  pwritev2: { number: 328, shortening: 'vector' },
  statx: { number: 332 },
  cachestat: { number: 451 },
  fchmodat2: { number: 452 },
} satisfies Readonly<Record<string, SystemCall>>;

export type CallName = keyof typeof table;

export const systemCalls: Readonly<Record<CallName, SystemCall>> = table;

export function isCallName(name: string): name is CallName {
  return Object.hasOwn(table, name);
}
