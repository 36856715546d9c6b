/** Mountpoints as people name them. */

import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { UserError } from '../base/errno.ts';
import { sharedextMountAt } from '../daemon/mounted.ts';
import type { MountEntry } from '../sys/mounts.ts';

/**
 * The mount of ours at a path. The path is taken as it is first: resolving links asks the mount's daemon, which may be gone.
 *
 * @throws UserError when there is none.
 */
export function findMount(act: string, path: string): MountEntry {
  const absolute = resolve(path);
  const there = sharedextMountAt(absolute);
  if (there !== undefined) return there;
  let real: string;
  try {
    real = realpathSync(absolute);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(`Cannot ${act} ${path}: ${code === 'ENOENT' ? 'it does not exist' : code}`);
  }
  const found = sharedextMountAt(real);
  if (found !== undefined) return found;
  throw new UserError(`Cannot ${act} ${path}: no sharedext mount is there, "sharedext status" lists them`);
}
