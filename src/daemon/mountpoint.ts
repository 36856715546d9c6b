/** What a mountpoint must be. */

import { readdirSync } from 'node:fs';
import { UserError } from '../base/errno.ts';
import { mounts } from '../sys/mounts.ts';

/**
 * Checks a mountpoint whose links are resolved, as those of the source are.
 *
 * @throws UserError for one that is in use, lies inside the source, or isn't empty (unless it is the source itself).
 */
export function checkMountpoint(source: string, mountpoint: string): void {
  const there = mounts().findLast((entry) => entry.mountpoint === mountpoint);
  if (there?.type === 'fuse.sharedext') {
    throw new UserError(
      `Cannot mount on ${mountpoint}: ${there.source} is mounted there already, try "sharedext umount ${mountpoint}"`,
    );
  }
  if (mountpoint === source) return;
  if (there !== undefined) {
    throw new UserError(
      `Cannot mount on ${mountpoint}: a ${there.type} filesystem is mounted there, use another directory`,
    );
  }
  if (mountpoint.startsWith(source === '/' ? '/' : `${source}/`)) {
    throw new UserError(
      `Cannot mount on ${mountpoint}: it lies inside the source ${source}, use a directory outside or the source itself`,
    );
  }
  if (readdirSync(mountpoint).length > 0) {
    throw new UserError(`Cannot mount on ${mountpoint}: it is not empty, use an empty directory`);
  }
}
