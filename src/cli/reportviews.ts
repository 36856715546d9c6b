/** What stands behind the mounts that a report may meet: overlays by their options, mounts of sharedext by asking their daemons. */

import { readFileSync } from 'node:fs';
import { askDaemon } from '../daemon/control.ts';
import { HELD_SCHEMA, type HeldAnswer } from '../daemon/held.ts';
import { sharedextMounts } from '../daemon/mounted.ts';
import { isStatus, STATUS_SCHEMA } from '../daemon/status.ts';
import type { Held } from '../report/reporter.ts';
import { isBelow, overlayView, type View, Views } from '../report/views.ts';
import { type MountEntry, mounts } from '../sys/mounts.ts';

const ANSWER_TIMEOUT_MS = 3000;

export interface Behind {
  readonly views: Views;
  /** What the mappings of the mounts of sharedext hold, by their views. */
  readonly held: ReadonlyMap<View, Held>;
}

/** Asks only the daemons of mounts on which the roots lie, or that lie below them. */
export async function behindMounts(roots: readonly string[]): Promise<Behind> {
  const near = ({ mountpoint }: MountEntry): boolean =>
    roots.some((root) => isBelow(root, mountpoint) || isBelow(mountpoint, root));
  const ours = sharedextMounts().filter(near);
  const asked = await Promise.all(ours.map(askedView));
  const byId = new Map(ours.map((entry, i) => [entry.id, asked[i]?.view]));
  const held = new Map<View, Held>();
  for (const one of asked) if (one.held !== undefined) held.set(one.view, one.held);
  const metacopy = isMetacopyDefault();
  const views = new Views(mounts(), (mount) => {
    if (mount.type === 'overlay') return overlayView(mount, metacopy);
    return byId.get(mount.id);
  });
  return { views, held };
}

/** Whether overlays keep data and attributes apart where their options don't say. */
function isMetacopyDefault(): boolean {
  try {
    return readFileSync('/sys/module/overlay/parameters/metacopy', 'latin1').startsWith('Y');
  } catch {
    return false;
  }
}

async function askedView(entry: MountEntry): Promise<{ readonly view: View; readonly held?: Held }> {
  const { mountpoint, minor, root } = entry;
  const view = { mountpoint, type: 'sharedext', folders: [], beside: [] } as const;
  const [status, held] = await Promise.all([
    askDaemon(minor, 'status', ANSWER_TIMEOUT_MS),
    askDaemon(minor, 'mappings', ANSWER_TIMEOUT_MS),
  ]);
  if (status.state === 'dead') return { view: { ...view, unreachable: 'its daemon is gone' } };
  if (status.state !== 'answered' || !isStatus(status.value)) {
    const unreachable = `its daemon does not answer with schema ${STATUS_SCHEMA}; only root may ask`;
    return { view: { ...view, unreachable } };
  }
  if (held.state !== 'answered' || !isHeld(held.value)) {
    return { view: { ...view, unreachable: `its daemon does not answer with schema ${HELD_SCHEMA}` } };
  }
  const { source, store, pid } = status.value;
  const folder = root === '/' ? source : `${source}${root}`;
  const reached: View = { ...view, folders: [folder], beside: store === null ? [] : [store] };
  const isHidden = sharedextMounts().some((ours) => isBelow(source, ours.mountpoint));
  const hidden = { path: source, opened: `/proc/${pid}/fd/${held.value.sourceFd}/.` };
  return {
    view: isHidden ? { ...reached, hidden } : reached,
    held: { files: new Map(held.value.mappings), cached: 0, saved: 0 },
  };
}

function isHeld(value: unknown): value is HeldAnswer {
  return typeof value === 'object' && value !== null && 'schema' in value && value.schema === HELD_SCHEMA;
}
