/** Why the store of shared mappings leaves a file alone. */

import type { RefusalReason } from '../extents/identify.ts';

/** Why a file isn't shared, beside what its extents say. */
export type StoreRefusal =
  | RefusalReason
  /** It has data that isn't on disk yet. */
  | 'dirty'
  /** btrfs writes it in place (chattr +C). */
  | 'nocow'
  /** The filesystem is nearly full, or the clone didn't fit. */
  | 'no-space'
  /** As many mappings as are allowed are in use. */
  | 'too-many-mappings'
  /** The composed route has most of its extents in memory already: a clone would be a second copy of their pages. */
  | 'packed'
  /** Files of its content are written in place while others read them. */
  | 'live'
  /** The filesystem made no clone. */
  | 'clone-failed';
