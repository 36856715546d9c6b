/** The mounts that daemons of ours serve, as this process sees them. */

import { existsSync } from 'node:fs';
import { type MountEntry, mounts } from '../sys/mounts.ts';
import { socketPath } from './runtime.ts';

/**
 * A mount with the option `nosubtype` looks like any other FUSE mount, but for its control socket. A socket that a killed
 * daemon left may have the minor of somebody else's mount by now: ours have a path as their source, and these options.
 */
function isOurs({ type, minor, source, superOptions }: MountEntry): boolean {
  if (type === 'fuse.sharedext') return true;
  if (type !== 'fuse' || !source.startsWith('/')) return false;
  return superOptions.includes('default_permissions,allow_other') && existsSync(socketPath(minor));
}

/** All places where our mounts are to be seen, in the order of mounting: a bind mount of one is one more. */
export function sharedextMounts(): MountEntry[] {
  return mounts().filter(isOurs);
}

/** The latest of our mounts at a path, which is what is seen there. */
export function sharedextMountAt(mountpoint: string): MountEntry | undefined {
  return sharedextMounts().findLast((entry) => entry.mountpoint === mountpoint);
}
