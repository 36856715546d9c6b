/**
 * What is in memory by folder, as a tree that is small enough to look at: whatever is below a share of the whole is part of a
 * node without a name, beside its larger siblings.
 */

import { NO_FOLDER } from './paths.ts';
import type { Reporter } from './reporter.ts';

export interface Tree {
  /** A file's or folder's name, a root's path, or null for several small ones. */
  readonly name: string | null;
  readonly bytes: number;
  /** Of them, those that are copies: of n copies each counts (n - 1) / n. */
  readonly duplicate: number;
  /** Of a folder. */
  readonly children?: readonly Tree[];
}

/** A node of the tree has at least this part of all bytes. */
const SMALLEST = 1 / 2000;

interface Node {
  readonly name: string;
  readonly folder: number;
  readonly file: boolean;
  readonly bytes: number;
  readonly duplicate: number;
}

export function treeOf(reporter: Reporter, duplicateOf: Float64Array): Tree {
  const { paths } = reporter;
  const bytes = new Float64Array(paths.folders);
  const duplicate = new Float64Array(paths.folders);
  const add = (folder: number, more: number, copies: number): void => {
    bytes[folder] = (bytes[folder] ?? 0) + more;
    duplicate[folder] = (duplicate[folder] ?? 0) + copies;
  };
  for (let file = 0; file < paths.files; file++) {
    add(paths.folderOf(file), reporter.cachedBytes(file), duplicateOf[file] ?? 0);
  }
  let all = 0;
  let copies = 0;
  // A folder's number is above its parent's.
  for (let folder = paths.folders - 1; folder >= 0; folder--) {
    const parent = paths.parentOf(folder);
    if (parent !== NO_FOLDER) add(parent, bytes[folder] ?? 0, duplicate[folder] ?? 0);
    else [all, copies] = [all + (bytes[folder] ?? 0), copies + (duplicate[folder] ?? 0)];
  }
  const large = all * SMALLEST;
  const inside = new Map<number, Node[]>();
  const put = (parent: number, node: Node): void => {
    const siblings = inside.get(parent);
    if (siblings === undefined) inside.set(parent, [node]);
    else siblings.push(node);
  };
  for (let folder = 0; folder < paths.folders; folder++) {
    const sum = bytes[folder] ?? 0;
    if (sum < large || sum === 0) continue;
    const name = paths.folderName(folder);
    put(paths.parentOf(folder), { name, folder, file: false, bytes: sum, duplicate: duplicate[folder] ?? 0 });
  }
  for (let file = 0; file < paths.files; file++) {
    const sum = reporter.cachedBytes(file);
    if (sum < large || sum === 0) continue;
    const name = paths.fileName(file);
    put(paths.folderOf(file), { name, folder: NO_FOLDER, file: true, bytes: sum, duplicate: duplicateOf[file] ?? 0 });
  }
  const grown = (name: string | null, folder: number, sum: number, part: number): Tree => {
    const children: Tree[] = [];
    let [restBytes, restDuplicate] = [sum, part];
    for (const node of inside.get(folder) ?? []) {
      restBytes -= node.bytes;
      restDuplicate -= node.duplicate;
      if (node.file) children.push(leaf(node.name, node.bytes, node.duplicate));
      else children.push(grown(node.name, node.folder, node.bytes, node.duplicate));
    }
    if (children.length > 0 && restBytes > 0) children.push(leaf(null, restBytes, restDuplicate));
    const own = leaf(name, sum, part);
    return children.length === 0 ? own : { ...own, children };
  };
  return grown(null, NO_FOLDER, all, copies);
}

function leaf(name: string | null, bytes: number, duplicate: number): Tree {
  return { name, bytes, duplicate: Math.max(0, Math.round(duplicate)) };
}
