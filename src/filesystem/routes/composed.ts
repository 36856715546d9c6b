/** The composed route: READ and WRITE come to us, and extents are read from where they are shared. */

import * as c from '../../base/linux.ts';
import { type Exact, getExact } from '../../base/struct.ts';
import { FOPEN_DIRECT_IO } from '../../fuse/wire/constants.ts';
import { fuse_read_in, fuse_write_in } from '../../fuse/wire/structs.ts';
import type { SourceCalls } from '../calls.ts';
import { type Domains, NO_DOMAIN } from '../domains.ts';
import type { NodeTable } from '../nodes.ts';
import type { Stat } from '../stat.ts';
import { readComposed, writeComposed } from './composedio.ts';
import type { Composing } from './composing.ts';
import { openFile } from './passthrough.ts';
import { relayed } from './relayed.ts';
import type { Route } from './route.ts';

/** Whether the map of a composed file may have something there: so large a file doesn't take that route, though it may grow on it. */
export function isMapped(offset: Exact): offset is number {
  return typeof offset === 'number';
}

interface ComposedOptions {
  readonly calls: SourceCalls;
  readonly nodes: NodeTable;
  readonly mountFd: number;
  readonly composing: Composing;
  readonly domains: Pick<Domains, 'of'>;
  readonly stat: Stat;
}

export function composedRoute(o: ComposedOptions): Route {
  const { calls, nodes, mountFd, composing, domains, stat } = o;
  return {
    name: 'composed',
    openFlags: FOPEN_DIRECT_IO,
    io: {
      read: (m, r, row, fd) => {
        const mapped = isMapped(getExact(m.input.view, r.at + fuse_read_in.offset.offset));
        return mapped ? readComposed(m, r, composing, row, fd) : relayed.read(m, r, row, fd);
      },
      write: (m, r, row, fd) => {
        const mapped = isMapped(getExact(m.input.view, r.at + fuse_write_in.offset.offset));
        return mapped ? writeComposed(m, r, composing, row, fd) : relayed.write(m, r, row, fd);
      },
    },
    // Pages of maps are the FUSE inode's own.
    storesUnseen: false,
    holdsFile: false,
    prepare(fd, flags) {
      // Pages of a map have their place, which a descriptor that appends would not write to (pwrite(2), BUGS). An append-only
      // file doesn't let go of the flag, and is only ever appended to.
      if ((flags & c.O_APPEND) !== 0) calls.fcntl(fd, c.F_SETFL, (flags & c.O_NOATIME) | c.O_NONBLOCK);
      // The kernel's readahead would read the shared ranges between private ones into the file's own pages.
      calls.posixFadvise(fd, 0, 0, c.POSIX_FADV_RANDOM);
    },
    opened: (row, fd) => composing.opened(row, fd),
    closed: (_, row) => composing.closed(row),
    change: (row, fd, from, to) => composing.change(row, fd, from, to),
    visibleSize: (_, size) => size,
    openForReading: (slot) => openFile(calls, nodes, mountFd, slot),
    adopt(slot, row) {
      const fd = openFile(calls, nodes, mountFd, slot);
      const known = fd >= 0 && stat.read(calls, fd) >= 0;
      composing.adopt(row, fd, known ? domains.of(slot, stat.uid) : NO_DOMAIN);
    },
  };
}
