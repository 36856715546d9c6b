/** The two routes by passthrough: no READ and no WRITE comes to us, and an open that reads needs no descriptor of ours. */

import * as c from '../../base/linux.ts';
import type { KeptBackings } from '../../fuse/server/backing.ts';
import { FOPEN_PASSTHROUGH } from '../../fuse/wire/constants.ts';
import type { SourceCalls } from '../calls.ts';
import type { NodeTable } from '../nodes.ts';
import { OPEN_FLAGS } from '../openflags.ts';
import type { OpenTable } from '../opens.ts';
import type { SharedMappings } from './choose.ts';
import { NO_CHANGE, type Route } from './route.ts';

interface OwnOptions {
  readonly calls: Pick<SourceCalls, 'openByHandleAt'>;
  readonly nodes: NodeTable;
  readonly opens: OpenTable;
  /** Backing files of nodes. */
  readonly backing: Pick<KeptBackings, 'close' | 'keep'>;
  readonly mountFd: number;
}

/** The file itself is its backing file. */
export function ownRoute({ calls, nodes, opens, backing, mountFd }: OwnOptions): Route {
  return {
    name: 'own',
    openFlags: FOPEN_PASSTHROUGH,
    io: undefined,
    storesUnseen: true,
    holdsFile: true,
    prepare() {},
    opened() {},
    closed(slot, row) {
      const backingId = opens.backingId(row);
      if (opens.keeps(row)) backing.keep(slot, nodes.generation(slot), backingId);
      else backing.close(backingId);
    },
    change: () => NO_CHANGE,
    visibleSize: (_, size) => size,
    openForReading: (slot) => openFile(calls, nodes, mountFd, slot),
    adopt() {},
  };
}

/** A descriptor of a node's file, for reading, or a negated errno. */
export function openFile(
  calls: Pick<SourceCalls, 'openByHandleAt'>,
  nodes: NodeTable,
  mountFd: number,
  slot: number,
): number {
  return calls.openByHandleAt(mountFd, nodes.handleAddress(slot), c.O_RDONLY | OPEN_FLAGS);
}

/** A clone that other files have in common is its backing file. */
export function sharedRoute(opens: OpenTable, mappings: Pick<SharedMappings, 'release' | 'size' | 'openClone'>): Route {
  return {
    name: 'shared',
    openFlags: FOPEN_PASSTHROUGH,
    io: undefined,
    storesUnseen: true,
    holdsFile: false,
    prepare() {},
    opened() {},
    closed(_, row) {
      mappings.release(opens.mapping(row));
    },
    change: () => NO_CHANGE,
    // Reads end where the clone ends, whatever became of the file.
    visibleSize: (row) => mappings.size(opens.mapping(row)),
    openForReading: (_, row) => mappings.openClone(opens.mapping(row)),
    adopt() {},
  };
}
