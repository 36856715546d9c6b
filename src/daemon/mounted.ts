/** The mounts that daemons of ours serve, as this process sees them. */

import { existsSync } from 'node:fs';
import { type MountEntry, mounts } from '../sys/mounts.ts';
import { socketPath } from './runtime.ts';

/** A mount with the option `nosubtype` looks like any other FUSE mount, but for its control socket. */
function isOurs(entry: MountEntry): boolean {
  if (entry.type === 'fuse.sharedext') return true;
  return entry.type === 'fuse' && entry.major === 0 && existsSync(socketPath(entry.minor));
}

/** All places where our mounts are to be seen, in the order of mounting: a bind mount of one is one more. */
export function sharedextMounts(): MountEntry[] {
  return mounts().filter(isOurs);
}

/** The latest of our mounts at a path, which is what is seen there. */
export function sharedextMountAt(mountpoint: string): MountEntry | undefined {
  return sharedextMounts().findLast((entry) => entry.mountpoint === mountpoint);
}
