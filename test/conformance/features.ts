/**
 * What filesystems may lack, and how a case finds out: by trying it in a scratch directory. The answer is the reason for
 * which cases are skipped, never a guess from the filesystem's type or the kernel's version.
 */

import { join } from 'node:path';
import * as posix from '../support/posix.ts';
import { put, withFile } from './case.ts';

const BLOCK = 65536;

function tryFallocate(dir: string, mode: number): void {
  const file = join(dir, 'file');
  put(file, Buffer.alloc(4 * BLOCK, 'x'));
  withFile(file, posix.O_RDWR, (fd) => posix.fallocate(fd, mode, BLOCK, BLOCK));
}

function tryFlags(dir: string, flags: number): void {
  const file = join(dir, 'file');
  put(file);
  posix.setFlags(file, flags);
  const got = posix.getFlags(file);
  posix.setFlags(file, 0);
  if ((got & flags) !== flags) throw new Error(`the flags were accepted and then missing: ${got}`);
}

const probes = {
  preallocation: (dir: string) => tryFallocate(dir, 0),
  'punch-hole': (dir: string) => tryFallocate(dir, posix.FALLOC_FL_PUNCH_HOLE | posix.FALLOC_FL_KEEP_SIZE),
  'zero-range': (dir: string) => tryFallocate(dir, posix.FALLOC_FL_ZERO_RANGE),
  'collapse-range': (dir: string) => tryFallocate(dir, posix.FALLOC_FL_COLLAPSE_RANGE),
  'insert-range': (dir: string) => tryFallocate(dir, posix.FALLOC_FL_INSERT_RANGE),
  'unshare-range': (dir: string) => tryFallocate(dir, posix.FALLOC_FL_UNSHARE_RANGE),
  reflink(dir: string) {
    put(join(dir, 'from'), Buffer.alloc(BLOCK, 'x'));
    posix.reflink(join(dir, 'from'), join(dir, 'to'));
  },
  whiteout(dir: string) {
    put(join(dir, 'file'));
    posix.rename(join(dir, 'file'), join(dir, 'renamed'), posix.RENAME_WHITEOUT);
  },
  'unnamed-files'(dir: string) {
    posix.close(posix.openTemporary(dir, posix.O_RDWR));
  },
  'inode-flags': (dir: string) => tryFlags(dir, posix.FS_NODUMP_FL),
  immutable: (dir: string) => tryFlags(dir, posix.FS_IMMUTABLE_FL),
  nocow: (dir: string) => tryFlags(dir, posix.FS_NOCOW_FL),
  'direct-io'(dir: string) {
    put(join(dir, 'file'), Buffer.alloc(BLOCK));
    posix.close(posix.open(join(dir, 'file'), posix.O_RDWR | posix.O_DIRECT));
  },
  'file-handles'(dir: string) {
    posix.handleOf(dir);
  },
  'birth-time'(dir: string) {
    put(join(dir, 'file'));
    if (posix.stat(join(dir, 'file')).btimeNs === 0n) throw new Error('statx reports none');
  },
  acl(dir: string) {
    put(join(dir, 'file'));
    posix.sizeOfXattr(dir, 'system.posix_acl_default');
  },
} as const;

export type Feature = keyof typeof probes;

/** Tries a feature in an empty directory: undefined when it is there, else the reason why not. */
export function lacking(feature: Feature, dir: string): string | undefined {
  try {
    probes[feature](dir);
    return undefined;
  } catch (error) {
    // An ACL that isn't there is ENODATA where ACLs are supported.
    if (feature === 'acl' && error instanceof Error && 'code' in error && error.code === 'ENODATA') return undefined;
    return `${feature}: ${error instanceof Error ? error.message : String(error)}`;
  }
}
