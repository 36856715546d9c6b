/**
 * Mounts that show the files of other folders: an overlay shows those of its layers, a mount of sharedext those of its source,
 * and reads some from its store. The pages are those of the other folders' files, so that is where a report must look.
 */

import { dirname } from 'node:path';
import { mountinfoText } from '../base/mountinfo.ts';

/** What is mounted where: fields of a line of proc_pid_mountinfo(5), in the order of mounting. */
export interface Mounted {
  readonly id: number;
  /** The mount's root within its filesystem. */
  readonly root: string;
  readonly mountpoint: string;
  readonly type: string;
  /** As the kernel writes them, with its escapes. */
  readonly superOptions: string;
}

export interface View {
  readonly mountpoint: string;
  readonly type: 'overlay' | 'sharedext';
  /** The folders behind the mountpoint; an overlay's layers, uppermost first. None when they can't be reached. */
  readonly folders: readonly string[];
  /** Folders with pages of files of the mount that nobody finds by their names. */
  readonly beside: readonly string[];
  /** Why there are no folders. */
  readonly unreachable?: string;
  /** Folders at or below `path` are hidden by the mount itself: they are opened below `opened`. */
  readonly hidden?: { readonly path: string; readonly opened: string };
}

/** The path by which a folder behind a mount is opened. */
export function openedPath({ hidden }: View, path: string): string {
  if (hidden === undefined || !isBelow(path, hidden.path)) return path;
  return `${hidden.opened}${path.slice(hidden.path.length)}`;
}

export class Views {
  readonly #mounted: readonly Mounted[];
  readonly #byMountpoint = new Map<string, View>();

  /** `viewOf` says what stands behind a mount, undefined for one that shows its own files. */
  constructor(mounted: readonly Mounted[], viewOf: (mount: Mounted) => View | undefined) {
    this.#mounted = visible(mounted);
    for (const mount of this.#mounted) {
      const view = viewOf(mount);
      if (view !== undefined) this.#byMountpoint.set(mount.mountpoint, view);
    }
  }

  /** What stands behind a path that is a mountpoint. */
  at(path: Uint8Array): View | undefined {
    return this.#byMountpoint.size === 0 ? undefined : this.#byMountpoint.get(Buffer.from(path).toString());
  }

  /** What stands behind the mount that a path lies on, and the rest of the path. */
  around(path: string): { readonly view: View; readonly rest: string } | undefined {
    let nearest = '';
    for (const { mountpoint } of this.#mounted) {
      if (mountpoint.length > nearest.length && isBelow(path, mountpoint)) nearest = mountpoint;
    }
    const view = this.#byMountpoint.get(nearest);
    return view === undefined ? undefined : { view, rest: path.slice(nearest.length).replace(/^\//, '') };
  }

  /** The mountpoints below a path. */
  below(path: string): string[] {
    return this.#mounted.map(({ mountpoint }) => mountpoint).filter((one) => one !== path && isBelow(one, path));
  }
}

/** Whether a path is a folder, or below it. */
export function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

/** The mounts that no later one hides, at the same path or above it. */
function visible(mounted: readonly Mounted[]): Mounted[] {
  const later = new Set<string>();
  const seen: Mounted[] = [];
  for (const mount of mounted.toReversed()) {
    let folder = mount.mountpoint;
    while (folder !== '/' && !later.has(folder)) folder = dirname(folder);
    if (!later.has(folder)) seen.push(mount);
    later.add(mount.mountpoint);
  }
  return seen.reverse();
}

/** What stands behind an overlay: Documentation/filesystems/overlayfs.rst. */
export function overlayView({ root, mountpoint, superOptions }: Mounted, metacopyByDefault: boolean): View {
  const unreachable = (why: string): View => ({
    mountpoint,
    type: 'overlay',
    folders: [],
    beside: [],
    unreachable: why,
  });
  const lower: string[] = [];
  const upper: string[] = [];
  let metacopy = metacopyByDefault;
  for (const option of superOptions.split(',')) {
    const [name = '', value = ''] = splitOnce(option, '=');
    const text = mountinfoText(value);
    if (name === 'upperdir') upper.push(withoutBackslashes(text));
    else if (name === 'lowerdir') lower.push(...layersOf(text));
    else if (name === 'lowerdir+') lower.push(text);
    else if (name === 'datadir+') metacopy = true;
    else if (name === 'metacopy') metacopy = value === 'on';
  }
  const layers = [...upper, ...lower];
  if (metacopy) return unreachable('it may keep data and attributes of a file in different layers (metacopy)');
  if (layers.length === 0) return unreachable('the kernel does not name its layers');
  if (layers.some((layer) => !layer.startsWith('/'))) {
    return unreachable('it was mounted with relative paths for its layers');
  }
  const inner = root === '/' ? '' : root;
  return { mountpoint, type: 'overlay', folders: layers.map((layer) => `${layer}${inner}`), beside: [] };
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** The layers of `lowerdir=`, between colons that no backslash precedes. */
function layersOf(text: string): string[] {
  return text.split(/(?<!\\):+/).map(withoutBackslashes);
}

/** Who mounts puts a backslash before what would end a path: a colon or a comma. */
function withoutBackslashes(text: string): string {
  return text.replace(/\\(.)/g, '$1');
}
