/** Which processes use a mount, as far as /proc tells. Nothing here touches the mount itself. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readable } from '../base/text.ts';

export interface MountUser {
  readonly pid: number;
  readonly name: string;
  /** How it uses the mount: `cwd`, `root`, `exe`, `fd 3` or `map`. */
  readonly how: string;
}

function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined; // the process ended meanwhile, or has no such thing
  }
}

function howItUses(pid: string, inside: (path: string) => boolean): string | undefined {
  for (const link of ['cwd', 'root', 'exe']) {
    const target = attempt(() => readlinkSync(`/proc/${pid}/${link}`));
    if (target !== undefined && inside(target)) return link;
  }
  for (const fd of attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
    const target = attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`));
    if (target !== undefined && inside(target)) return `fd ${fd}`;
  }
  const maps = attempt(() => readFileSync(`/proc/${pid}/maps`, 'utf8')) ?? '';
  for (const line of maps.split('\n')) {
    const slash = line.indexOf('/');
    if (slash >= 0 && inside(line.slice(slash))) return 'map';
  }
  return undefined;
}

/** Up to `most` processes that have something below the mountpoint open, mapped, or as a directory of theirs. */
export function usersOf(mountpoint: string, most: number): MountUser[] {
  const inside = (path: string): boolean => path === mountpoint || path.startsWith(`${mountpoint}/`);
  const users: MountUser[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const how = howItUses(pid, inside);
    if (how === undefined) continue;
    const name = attempt(() => readable(readFileSync(`/proc/${pid}/comm`).subarray(0, -1))) ?? '?';
    users.push({ pid: Number(pid), name, how });
    if (users.length === most) break;
  }
  return users;
}
