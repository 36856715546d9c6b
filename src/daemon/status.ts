/** What a running server says of itself. docs/status.md describes each field; the number of the schema changes with it. */

import { statSync } from 'node:fs';
import { MAX_LOCKS } from '../filesystem/locks/rows.ts';
import { ROUTES } from '../filesystem/routes/route.ts';
import { operationOf } from '../fuse/wire/operations.ts';
import type { Server } from './server.ts';
import { STATE_VERSION } from './state.ts';

export const STATUS_SCHEMA = 1;

function byOperation(counts: Float64Array): Record<string, number> {
  const named: Record<string, number> = {};
  counts.forEach((count, opcode) => {
    const name = operationOf(opcode);
    if (name !== undefined) named[name] = count;
  });
  return named;
}

function mappingsOf(server: Server) {
  const { mappings } = server;
  if (mappings === undefined) return null;
  const { count, idle, bytes, made, matched, dropped, mismatched } = mappings;
  return { count, idle, bytes, made, matched, dropped, mismatched, limit: server.options.maxMappings };
}

function composedOf(server: Server) {
  const { composing, index } = server;
  if (composing === undefined || index === undefined) return null;
  const { packs, composer } = composing;
  const { mappingBytes, ownBytes, zeroBytes, slowReads, slowWrites, resets } = composing;
  return {
    packs: packs.packs,
    clones: packs.clones,
    made: packs.made,
    dropped: packs.dropped,
    indexed: index.rows,
    heldBytes: index.heldBytes + composing.heldBytes,
    mappingBytes,
    ownBytes,
    zeroBytes,
    slowReads,
    slowWrites,
    resets,
    mismatched: composer.mismatched,
    refused: Object.fromEntries(composer.refused),
  };
}

/** Whose child this process is until that one ends. */
const SUPERVISOR = process.ppid;

export function statusOf(server: Server, version: string, startedMs: number) {
  const { source, session, nodes, opens, routes, descriptors, registered, backing, options } = server;
  return {
    schema: STATUS_SCHEMA,
    version,
    pid: process.pid,
    supervisor: process.ppid === SUPERVISOR ? SUPERVISOR : null,
    takeovers: server.takeovers,
    stateVersion: STATE_VERSION,
    unkept: server.keeper.unkept,
    journal: { largest: server.journal.largest, limit: server.journal.limit },
    source: source.path,
    mountpoint: server.mountpoint,
    minor: server.facts.minor,
    filesystem: source.filesystem,
    store: server.storePath ?? null,
    options,
    cache: server.cache,
    uptimeSeconds: Math.round((Date.now() - startedMs) / 100) / 10,
    missingFlags: session.negotiated?.missing ?? [],
    nodes: { count: nodes.count, detached: nodes.detachedCount, limit: options.maxNodes },
    open: {
      inodes: opens.inodes,
      own: opens.byRoute[ROUTES.own] ?? 0,
      shared: opens.byRoute[ROUTES.shared] ?? 0,
      composed: opens.byRoute[ROUTES.composed] ?? 0,
      relayed: opens.byRoute[ROUTES.relayed] ?? 0,
    },
    descriptors: {
      handles: opens.descriptors,
      pinned: descriptors.pinnedCount,
      waiting: server.keeper.waiting,
      lost: descriptors.lost,
      refused: descriptors.refused,
      // Needs no descriptor itself (Linux 6.2).
      process: statSync('/proc/self/fd').size,
    },
    backing: { count: registered.count - backing.kept, kept: backing.kept, limit: options.maxBacking },
    mappings: mappingsOf(server),
    composed: composedOf(server),
    reasons: Object.fromEntries(routes.chooser.reasons),
    broken: routes.leaving?.detached ?? 0,
    waited: routes.leaving?.waited ?? 0,
    requests: byOperation(session.requests),
    failures: byOperation(session.failures),
    unknown: session.unknown,
    waiting: session.waiting,
    locks: { count: server.locks.count, waiters: server.locks.waiters, limit: MAX_LOCKS },
    idle: { awake: server.idle.awake, times: server.idle.times },
    bugs: session.bugs,
    memory: { rssBytes: process.memoryUsage.rss() },
  };
}

export type Status = ReturnType<typeof statusOf>;

/** The daemon is this program: what has the number of its schema has its fields. */
export function isStatus(value: unknown): value is Status {
  return typeof value === 'object' && value !== null && 'schema' in value && value.schema === STATUS_SCHEMA;
}
