/**
 * A file that is to be shared, and what its bytes are known by: the addresses of its extents, or the item that it lies in.
 * Equal content is equal bytes, at the moment at which it was read.
 *
 * The small files that btrfs keeps in its trees ("inline") have an item, and no extents. Nothing tells whether such a file is the only
 * one of its content: a clone is made of it when a second one is opened. And nothing tells that two of them share something on disk, so
 * that who owns one could learn from its pages what another has, which he may not read: those of one user alone share a mapping.
 */

import { ExtentMap } from '../extents/extentmap.ts';
import type { ExtentReader, IdentifyOptions, RefusalReason } from '../extents/identify.ts';
import { InlineItem } from '../extents/inlineitem.ts';
import { ANYBODY } from './rows.ts';

export interface SharedFile {
  /** Open for reading. */
  readonly fd: number;
  readonly size: number;
  readonly inode: number;
  /** Only files of the same domain share a mapping. */
  readonly domain: number;
  /** The user that the file belongs to. */
  readonly uid: number;
  readonly node: number;
  /** How long ago its content changed. A file that didn't change lately has no dirty pages, as a rule. */
  readonly sinceModifiedMs: number;
}

export type Content = ExtentMap | InlineItem;

export function isSame(one: Content, other: Content | RefusalReason): boolean {
  if (one instanceof InlineItem) return other instanceof InlineItem && one.equals(other);
  return other instanceof ExtentMap && one.equals(other);
}

/** Whose files alone may have the mapping of such content, for a file of this user. */
export function ownerOf(content: Content, uid: number): number {
  return content instanceof InlineItem ? uid + 1 : ANYBODY;
}

/** What a file's bytes are known by, or why it isn't known. `fd` is open for reading. */
export function contentOf(
  reader: Pick<ExtentReader, 'identify' | 'inlineItem'>,
  fd: number,
  options: IdentifyOptions,
): Content | RefusalReason {
  const identity = reader.identify(fd, options);
  if (identity.map !== null) return identity.map;
  if (identity.reason !== 'inline') return identity.reason;
  return reader.inlineItem(fd, options.inode, options.size) ?? 'inline';
}
