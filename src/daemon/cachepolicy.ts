/** How long the kernel may keep names and attributes: the option `cache`. */

import type { CachePolicy } from '../filesystem/mount.ts';
import type { MountOptions } from './options.ts';

const UNLIMITED_SECONDS = 2 ** 31;

export function cachePolicy(options: MountOptions, overSource: boolean): CachePolicy {
  const seconds = {
    auto: overSource ? UNLIMITED_SECONDS : 1,
    none: 0,
    unlimited: UNLIMITED_SECONDS,
  };
  const value = typeof options.cache === 'number' ? options.cache : seconds[options.cache];
  return { entrySeconds: value, attributeSeconds: value };
}
