/**
 * A slow disk: reads of one device are limited by a control group that this process moves into, with all that it starts from then on.
 * A loop device below an image file passes on whose read it is, so the limit holds behind it, too.
 */

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../src/base/errno.ts';

export interface Limits {
  readonly bytesPerSecond: number;
  readonly readsPerSecond: number;
}

export interface Throttle {
  /** By what it is limited, for the text. */
  readonly by: string;
  /** Moves this process back. Calling it again does nothing. */
  end(): void;
}

/** Where a hierarchy is mounted, and in which of its groups this process is. */
interface Hierarchy {
  readonly root: string;
  readonly group: string;
  readonly unified: boolean;
}

function mountOf(type: string, controller?: string): string | undefined {
  const lines = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const fields = lines.map((line) => line.split(' '));
  return fields.find(
    ([, , kind, options]) => kind === type && (controller === undefined || options?.split(',').includes(controller)),
  )?.[1];
}

/** The group of this process: cgroups(7), "/proc files". */
function groupOf(controller: string): string {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  const fields = lines.map((line) => /^\d+:([^:]*):(.*)$/.exec(line) ?? []);
  return (
    fields.find(([, names]) => (controller === '' ? names === '' : names?.split(',').includes(controller)))?.[2] ?? '/'
  );
}

function findHierarchy(): Hierarchy {
  const unified = mountOf('cgroup2');
  if (unified !== undefined && readFileSync(join(unified, 'cgroup.controllers'), 'utf8').split(/\s+/).includes('io')) {
    return { root: unified, group: groupOf(''), unified: true };
  }
  const separate = mountOf('cgroup', 'blkio');
  if (separate !== undefined && existsSync(join(separate, 'blkio.throttle.read_bps_device'))) {
    return { root: separate, group: groupOf('blkio'), unified: false };
  }
  throw new UserError(
    'Cannot slow the disk down: there is neither io.max nor blkio.throttle here, try a kernel with CONFIG_BLK_DEV_THROTTLING',
  );
}

/** @throws UserError when this machine can't limit reads. */
export function throttle(device: string, { bytesPerSecond, readsPerSecond }: Limits): Throttle {
  const { root, group, unified } = findHierarchy();
  const number = readFileSync(`/sys/block/${device.replace('/dev/', '')}/dev`, 'utf8').trim();
  const folder = join(root, `sharedext-bench-${process.pid}`);
  const enter = (path: string): void => writeFileSync(join(path, 'cgroup.procs'), String(process.pid));
  let inside = false;
  let ended = false;
  const end = (): void => {
    if (ended) return;
    ended = true;
    if (inside) enter(join(root, group));
    if (existsSync(folder)) rmdirSync(folder);
  };
  try {
    if (unified) writeFileSync(join(root, 'cgroup.subtree_control'), '+io');
    mkdirSync(folder);
    if (unified) writeFileSync(join(folder, 'io.max'), `${number} rbps=${bytesPerSecond} riops=${readsPerSecond}`);
    else {
      writeFileSync(join(folder, 'blkio.throttle.read_bps_device'), `${number} ${bytesPerSecond}`);
      writeFileSync(join(folder, 'blkio.throttle.read_iops_device'), `${number} ${readsPerSecond}`);
    }
    enter(folder);
    inside = true;
  } catch (error) {
    end();
    throw new UserError(`Cannot slow ${device} down: ${error instanceof Error ? error.message : String(error)}`);
  }
  return {
    by: unified ? '`io.max` of a control group (version 2)' : '`blkio.throttle` of a control group (version 1)',
    end,
  };
}
