/** INIT: what this server asks of the kernel, what it refuses and with what consequence, and the reply's numbers. */

import { setU64 } from '../../base/struct.ts';
import {
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  type InitFlag,
  initFlagBits,
  OLDEST_MINOR_VERSION,
} from '../wire/constants.ts';
import { fuse_init_in, fuse_init_out } from '../wire/structs.ts';

/** Without these the mount would be wrong or pointless; the kernel must offer each. */
export const requiredFlags: readonly InitFlag[] = [
  'FUSE_INIT_EXT', // flags2 exists at all
  'FUSE_PASSTHROUGH', // reads and maps go to a backing file
  'FUSE_ATOMIC_O_TRUNC', // OPEN tells that it truncates: a shared file must break sharing first
  'FUSE_DONT_MASK', // the umask comes with the request; the source applies it or a default ACL
  'FUSE_POSIX_ACL', // the kernel enforces ACLs
  'FUSE_POSIX_LOCKS', // locks are the source file's, which may have two nodes: the kernel would keep them per node
  'FUSE_FLOCK_LOCKS',
  'FUSE_BIG_WRITES',
  'FUSE_MAX_PAGES',
];

/** Taken where offered. */
export const wantedFlags: readonly InitFlag[] = [
  'FUSE_ASYNC_READ',
  'FUSE_ASYNC_DIO',
  'FUSE_AUTO_INVAL_DATA', // relayed files notice a new mtime or size
  'FUSE_DO_READDIRPLUS',
  'FUSE_READDIRPLUS_AUTO',
  'FUSE_PARALLEL_DIROPS',
  'FUSE_CACHE_SYMLINKS',
  'FUSE_HANDLE_KILLPRIV_V2', // without it every write asks for security.capability first
  'FUSE_SETXATTR_EXT', // tells when an ACL must clear the set-gid bit
  'FUSE_HAS_IOCTL_DIR', // lsattr and chattr on directories
  'FUSE_DIRECT_IO_ALLOW_MMAP',
  'FUSE_HAS_RESEND', // a later server can take over
  'FUSE_ALLOW_IDMAP', // containers may have the mount with other ids: see filesystem/callers.ts
];

/**
 * Refused, with the consequence of accepting:
 * FUSE_WRITEBACK_CACHE: turns passthrough off, and keeps acknowledged data in the mount's own cache.
 * FUSE_EXPORT_SUPPORT: handles of the mount would outlive it, and node ids are given anew.
 * FUSE_SPLICE_*: replies are small, data goes by passthrough.
 * FUSE_NO_OPEN_SUPPORT, FUSE_NO_OPENDIR_SUPPORT: OPEN is where a file gets its route.
 * FUSE_HANDLE_KILLPRIV: superseded by its second version.
 * FUSE_EXPLICIT_INVAL_DATA: we would have to tell of every change behind the mount.
 * FUSE_SECURITY_CTX: labels come by xattr, as on the source.
 * FUSE_CREATE_SUPP_GROUP: the kernel has checked the caller's groups and cleared set-gid before the request comes.
 * FUSE_OVER_IO_URING: one queue per core, each a thread; this server is one readiness loop.
 */

export interface Negotiated {
  readonly minor: number;
  /** What the kernel offered: bits 0 to 31, and 32 to 63. */
  readonly offered: { readonly low: number; readonly high: number };
  readonly flags: ReadonlySet<InitFlag>;
  /** Wanted flags that this kernel doesn't offer. */
  readonly missing: readonly InitFlag[];
}

export type InitResult =
  | { readonly ok: true; readonly value: Negotiated }
  | { readonly ok: false; readonly why: string };

/** The largest WRITE, and with it the largest request but for its header. In bytes. */
export const MAX_WRITE_BYTES = 1 << 20;
const PAGE_BYTES = 4096;
/** Requests of readahead and the like that may be queued; the kernel's default of 12 throttles a loaded mount. */
const MAX_BACKGROUND = 64;

function has(low: number, high: number, flag: InitFlag): boolean {
  const bit = initFlagBits[flag];
  return bit < 32 ? (low & (1 << bit)) !== 0 : (high & (1 << (bit - 32))) !== 0;
}

/**
 * Reads the kernel's offer at `at` and writes the reply's payload at `out`. `maxStackDepth` is 1: the source may not be
 * stacked itself, and one filesystem (overlayfs) may be stacked on the mount.
 */
export function negotiate(input: DataView, at: number, length: number, output: DataView, out: number): InitResult {
  const major = fuse_init_in.major.get(input, at);
  const minor = fuse_init_in.minor.get(input, at);
  const extended = length >= fuse_init_in.structBytes;
  const low = fuse_init_in.flags.get(input, at);
  const high = extended && has(low, 0, 'FUSE_INIT_EXT') ? fuse_init_in.flags2.get(input, at) : 0;
  if (major !== FUSE_KERNEL_VERSION || minor < OLDEST_MINOR_VERSION) {
    return {
      ok: false,
      why: `the kernel speaks FUSE ${major}.${minor}; passthrough needs 7.${OLDEST_MINOR_VERSION}, Linux 6.9`,
    };
  }
  const lacking = requiredFlags.filter((flag) => !has(low, high, flag));
  if (lacking.length > 0) return { ok: false, why: `the kernel doesn't offer ${lacking.join(', ')}` };

  const value = agreement(minor, low, high);
  const { flags } = value;
  let replyLow = 0;
  let replyHigh = 0;
  for (const flag of flags) {
    const bit = initFlagBits[flag];
    if (bit < 32) replyLow |= 1 << bit;
    else replyHigh |= 1 << (bit - 32);
  }
  for (let i = 0; i < fuse_init_out.structBytes; i += 8) setU64(output, out + i, 0);
  fuse_init_out.major.set(output, out, FUSE_KERNEL_VERSION);
  fuse_init_out.minor.set(output, out, FUSE_KERNEL_MINOR_VERSION);
  fuse_init_out.max_readahead.set(output, out, fuse_init_in.max_readahead.get(input, at));
  fuse_init_out.flags.set(output, out, replyLow >>> 0);
  fuse_init_out.flags2.set(output, out, replyHigh >>> 0);
  fuse_init_out.max_background.set(output, out, MAX_BACKGROUND);
  fuse_init_out.congestion_threshold.set(output, out, (MAX_BACKGROUND * 3) / 4);
  fuse_init_out.max_write.set(output, out, MAX_WRITE_BYTES);
  fuse_init_out.time_gran.set(output, out, 1);
  fuse_init_out.max_pages.set(output, out, MAX_WRITE_BYTES / PAGE_BYTES);
  fuse_init_out.max_stack_depth.set(output, out, 1);
  return { ok: true, value };
}

/** What is agreed on with a kernel that offers these flags. */
export function agreement(minor: number, low: number, high: number): Negotiated {
  const flags = new Set<InitFlag>(requiredFlags);
  const missing: InitFlag[] = [];
  for (const flag of wantedFlags) {
    if (has(low, high, flag)) flags.add(flag);
    else missing.push(flag);
  }
  return { minor, offered: { low, high }, flags, missing };
}
