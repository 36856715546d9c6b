/** What a large host would see, calculated from what was measured. */

import { bytes, table, times, whole } from '../tables.ts';
import type { Growth, Step } from './sizes.ts';

const CONTAINERS = 1000;
const HOST_BYTES = 256e9;

/** What each container has, or what all have in common. */
const assumed = {
  nodesEach: 10_000,
  openEach: 200,
  /** Different files that are shared: of 20 images, 5,000 each. */
  mappings: 100_000,
  /** Of disks and databases that have diverged: once in the files' maps, once in the index. */
  extentsEach: 10_000,
  /** Opens per second: a busy interpreter loads a few hundred modules when it starts, and few later. */
  opensEach: 10,
} as const;

function last(growths: readonly Growth[], what: string): Step | undefined {
  return growths.find((growth) => growth.what.startsWith(what))?.steps.at(-1);
}

export interface Host {
  readonly parts: readonly {
    readonly what: string;
    readonly count: number;
    readonly server: number;
    readonly kernel: number;
  }[];
  readonly serverBytes: number;
  readonly kernelBytes: number;
  readonly ofMemory: number;
  /** Opens of known files that one server can serve in a second, and what part of them is asked for. */
  readonly opensPerSecond: number;
  readonly busy: number;
}

export function hostOf(growths: readonly Growth[]): Host {
  const part = (what: string, found: string, count: number): Host['parts'][number] => {
    const step = last(growths, found);
    return {
      what,
      count,
      server: Math.max(step?.bytesEach ?? Number.NaN, step?.tableBytesEach ?? 0) * count,
      kernel: Math.max(0, step?.kernelBytesEach ?? 0) * count,
    };
  };
  const parts = [
    part('nodes', 'nodes', CONTAINERS * assumed.nodesEach),
    part('open files', 'open files', CONTAINERS * assumed.openEach),
    part('mappings', 'mappings', assumed.mappings),
    part('extents in maps', 'extents of a file', CONTAINERS * assumed.extentsEach),
    part('extents in the index', 'extents of the index', CONTAINERS * assumed.extentsEach),
  ];
  const serverBytes = parts.reduce((sum, { server }) => sum + server, 0);
  const kernelBytes = parts.reduce((sum, { kernel }) => sum + kernel, 0);
  const opensPerSecond = 1_000_000 / (last(growths, 'mappings')?.findUs ?? Number.NaN);
  return {
    parts,
    serverBytes,
    kernelBytes,
    ofMemory: (serverBytes + kernelBytes) / HOST_BYTES,
    opensPerSecond,
    busy: (CONTAINERS * assumed.opensEach) / opensPerSecond,
  };
}

export function hostText(host: Host): string {
  const { nodesEach, openEach, mappings, extentsEach, opensEach } = assumed;
  const body = host.parts.map(({ what, count, server, kernel }) => [what, whole(count), bytes(server), bytes(kernel)]);
  body.push(['all', '', bytes(host.serverBytes), bytes(host.kernelBytes)]);
  const percent = (part: number): string => `${(part * 100).toFixed(part < 0.1 ? 1 : 0)}%`;
  return `Calculated from the last step of each table, for one mount with ${whole(CONTAINERS)} containers on a host of ${HOST_BYTES / 1e9} GB. Each container has
${whole(nodesEach)} files that the kernel knows, ${openEach} open ones, and ${whole(extentsEach)} extents of large files that have diverged; all together have
${whole(mappings)} different files that are shared.

${table([['', 'count', 'server', "kernel's slabs"], ...body])}

That is ${percent(host.ofMemory)} of the host's memory. A server that is asked for nothing else serves ${whole(Math.round(host.opensPerSecond))} opens (with their closes) of known
files in a second; at ${opensEach} in each container per second that is ${times(host.busy)} of what it can do.`;
}
