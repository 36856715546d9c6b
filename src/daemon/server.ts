/**
 * The server of one mount: puts the parts together, mounts, serves, and takes everything down again.
 *
 *     openSource ─► takePlace (store) ─► /dev/fuse ─► mount(2) ─► INIT answered: ready ─► serving
 *       ▲                                                                                   │ unmounted
 *       └────────── all of it released, in the opposite order ◄─────────────────────────────┘
 */

import { EBUSY, errnoText, UserError } from '../base/errno.ts';
import type { Journal } from '../base/journal.ts';
import {
  AT_EMPTY_PATH,
  MNT_DETACH,
  MS_DIRSYNC,
  MS_NODIRATIME,
  MS_RDONLY,
  MS_RELATIME,
  MS_SYNCHRONOUS,
  PR_SET_SECUREBITS,
  SECBIT_NO_SETUID_FIXUP,
} from '../base/linux.ts';
import { putString } from '../base/memory.ts';
import { NodeDescriptors } from '../filesystem/descriptors.ts';
import { reopenHandles } from '../filesystem/files.ts';
import { filesystem } from '../filesystem/filesystem.ts';
import { Fills } from '../filesystem/fills.ts';
import { HANDLE_BYTES, shownInode } from '../filesystem/handles.ts';
import { LiveNames } from '../filesystem/livenames.ts';
import { Locks } from '../filesystem/locks/locks.ts';
import type { CachePolicy, Mount } from '../filesystem/mount.ts';
import { type NodeTable, ROOT } from '../filesystem/nodes.ts';
import type { OpenTable } from '../filesystem/opens.ts';
import { Repeats } from '../filesystem/repeats.ts';
import type { Composing } from '../filesystem/routes/composing.ts';
import { PATIENCE_MS } from '../filesystem/routes/leaving.ts';
import { ROUTES } from '../filesystem/routes/route.ts';
import { Routes } from '../filesystem/routes/routes.ts';
import { SCRATCH, SCRATCH_BYTES } from '../filesystem/scratch.ts';
import { Stat } from '../filesystem/stat.ts';
import { BackingFiles, type KeptBackings } from '../fuse/server/backing.ts';
import { settleInterrupted } from '../fuse/server/interrupted.ts';
import { invalidateAttributes, NOTICE_BYTES } from '../fuse/server/notify.ts';
import { type Observer, Session } from '../fuse/server/session.ts';
import type { Spin } from '../fuse/server/spin.ts';
import type { ExtentIndex } from '../mappings/extentindex.ts';
import type { MappingStore } from '../mappings/store.ts';
import { Residency } from '../pagecache/residency.ts';
import { FuseBackingFiles, FuseDevice, openFuseDevice } from '../sys/fuse.ts';
import { IdleProcessors } from '../sys/idle.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { ACCESS_RULES, ACCESS_TIMES, type AccessTimes, mounts } from '../sys/mounts.ts';
import { OpenDescriptors } from '../sys/processes.ts';
import { cachePolicy } from './cachepolicy.ts';
import { DetachedFiles } from './detached.ts';
import { type Facts, KEPT, type Keeper } from './keeping.ts';
import type { Log } from './log.ts';
import { checkMountpoint } from './mountpoint.ts';
import type { MountOptions } from './options.ts';
import { makeComposing, openSharing, type Sharing } from './sharing.ts';
import { adoptSource, existingDirectory, identityOf, openSource, type Source } from './source.ts';
import { spinOf } from './spinning.ts';
import { flawOf, makeState, openState, type State } from './state.ts';
import { Undo } from './undo.ts';

export interface ServerOptions {
  readonly source: string;
  readonly mountpoint: string;
  readonly options: MountOptions;
  /** Who holds what a later server needs, and what this one gets of an earlier one. */
  readonly keeper: Keeper;
  readonly observer?: Observer;
  readonly log: Log;
}

/** Everything about a running server that `status` and the tests want to know. */
export interface Server {
  readonly source: Source;
  readonly mountpoint: string;
  readonly options: MountOptions;
  readonly cache: CachePolicy;
  readonly session: Session;
  readonly nodes: NodeTable;
  readonly opens: OpenTable;
  readonly routes: Routes;
  readonly descriptors: NodeDescriptors;
  readonly locks: Pick<Locks, 'count' | 'waiters'>;
  readonly registered: Pick<FuseBackingFiles, 'count'>;
  readonly backing: BackingFiles;
  readonly mappings: MappingStore | undefined;
  /** The composed route, and what it holds; undefined when it is off. */
  readonly composing: Composing | undefined;
  readonly index: ExtentIndex | undefined;
  /** Where the clones are; undefined when sharing is off. */
  readonly storePath: string | undefined;
  /** What a later server needs to know of the mount. */
  readonly facts: Facts;
  /** How often another server has taken the mount over. */
  readonly takeovers: number;
  readonly journal: Pick<Journal, 'largest' | 'limit'>;
  readonly keeper: Pick<Keeper, 'unkept' | 'waiting'>;
  readonly idle: Pick<IdleProcessors, 'awake' | 'times'>;
  /** Stops serving, without an end of the mount: what isn't answered comes to the next server. */
  stop(): void;
  /** Unmounts; lazily when the mount is in use, so that it ends when its last user does. Returns 0 or a negated errno. */
  unmount(): Promise<number>;
  /** Settles when everything is released; the text says why where the mount did not end by an unmount. */
  readonly ended: Promise<string | undefined>;
}

const RESIDENCY_BYTES = 4096;
/** How often the store gets to tidy up. */
const TIDY_INTERVAL_MS = 50;
/** A mistake in that mustn't have one server after the other replaced: after any, the next ones begin so much later. */
const TIDY_AFTER_BUG_MS = 10_000;

/** How the mount keeps access times: as the options say, and as the source's own mount does where they say nothing. */
function accessTimesFor({ flags, flagsGiven }: MountOptions, own: AccessTimes): AccessTimes {
  // Words that only say what isn't to be, such as `atime`, leave the kernel's default.
  const rule = flags & ACCESS_RULES || MS_RELATIME;
  const folders = (flagsGiven & MS_NODIRATIME) !== 0 ? flags : own;
  return ((flagsGiven & ACCESS_RULES) !== 0 ? rule : own & ACCESS_RULES) | (folders & MS_NODIRATIME);
}

/**
 * Mounts and serves. The promise settles once the kernel has INIT's answer: from then on the mount answers.
 *
 * @throws UserError that says what stands in the way and what to do about it; nothing is left behind then.
 */
export async function serve(given: ServerOptions): Promise<Server> {
  const undo = new Undo();
  try {
    return await start(given, undo);
  } catch (error) {
    undo.run();
    throw error;
  }
}

async function start(given: ServerOptions, undo: Undo): Promise<Server> {
  const { options, keeper } = given;
  const { facts } = keeper;
  const scratch = allocate('setting up', 65_536);
  const source =
    facts === undefined
      ? openSource(given.source, scratch, (own) => accessTimesFor(options, own))
      : adoptSource(facts.source, keeper.take(KEPT.sourceMount), keeper.take(KEPT.source), scratch);
  undo.push(() => source.close());
  if (options.domain === 'subvolume' && source.filesystem !== 'btrfs') {
    throw new UserError(
      `Cannot use domain=subvolume: the source ${source.path} is on ${source.filesystem}, which has none`,
    );
  }
  // A mountpoint that is served already can't be looked at: nobody would answer.
  const mountpoint = facts?.mountpoint ?? existingDirectory('mountpoint', given.mountpoint);
  if (facts === undefined) checkMountpoint(source.path, mountpoint);
  const cache = cachePolicy(options, source.path === mountpoint);

  // Capabilities stay when the ids of this thread change for a caller's; a umask never hides what a caller asked for.
  const secured = sys.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
  if (secured < 0) {
    throw new UserError(`Cannot keep capabilities over changes of user: ${errnoText(secured)}; sharedext needs root`);
  }
  // Who opens a file while we hold a lease of it for a moment makes the kernel tell us by this signal.
  const ignore = (): void => {};
  process.on('SIGIO', ignore);
  undo.push(() => process.off('SIGIO', ignore));
  const previousUmask = sys.umask(0o077);
  undo.push(() => sys.umask(previousUmask));

  const device = facts === undefined ? openDevice(scratch) : new FuseDevice(keeper.take(KEPT.device));
  undo.push(() => sys.close(device.fd));
  const state = facts === undefined ? makeState(options) : takeOver(keeper.take(KEPT.state), options, device);
  undo.push(() => sys.close(state.fd));
  const { words } = state.journal;
  const registered = new FuseBackingFiles(
    device.fd,
    options.maxBacking,
    allocate('backing files', 64),
    words,
    state.backing,
  );
  const backing = new BackingFiles(registered, state.journal, state.kept, () => performance.now());
  if (facts === undefined) {
    keeper.keep(KEPT.sourceMount, source.mountFd);
    keeper.keep(KEPT.source, source.directoryFd);
    keeper.keep(KEPT.device, device.fd);
    keeper.keep(KEPT.state, state.fd);
  }

  const shared =
    options.share !== 'none'
      ? openSharing(source, options, backing.ofMappings, state, keeper, undo, given.log)
      : undefined;
  const own = identityOf(source.mountFd, scratch);
  const server = assemble(given, source, cache, device, backing.ofNodes, state, shared, own.subvolume);
  const { mount, session, spin, idle } = server;
  undo.push(() => idle.letSleep());

  let minor: number;
  let attached = true;
  if (facts === undefined) {
    const flags = (options.flags & ~ACCESS_TIMES) | accessTimesFor(options, source.accessTimes);
    const type = options.subtype ? 'fuse.sharedext' : 'fuse';
    const data = `fd=${device.fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other`;
    const mounted = sys.mount(source.path, mountpoint, type, flags, data);
    if (mounted < 0) throw new UserError(`Cannot mount on ${mountpoint}: ${errnoText(mounted)}`);
    undo.push(() => {
      if (attached) sys.umount2(mountpoint, MNT_DETACH);
    });
    minor = mounts().findLast((entry) => entry.mountpoint === mountpoint)?.minor ?? -1;
  } else {
    minor = facts.minor;
    const used = backingIds(state);
    const flaw = backing.flaw(used);
    if (flaw !== undefined) throw untrusted(`the table of kept backing files is damaged: ${flaw}`);
    registered.adopt(new Set([...used, ...backing.ids()]));
    // An id in it may have been closed by a step that was taken back.
    backing.dropAll();
    const commit = (): void => state.journal.commit();
    mount.descriptors.adopt(keeper.held, mount.scratch, commit);
    reopenHandles(mount);
    state.journal.commit();
    session.takeUp(allocate('a notice', NOTICE_BYTES));
    mount.descriptors.countLost(commit);
    const { lost } = mount.descriptors;
    if (lost > 0) given.log('warning', 'takeover', `${lost} removed files and directories in use are lost: ESTALE`);
  }

  const readiness = sys.onReadable(device.fd, () => {
    session.drain();
    // A device whose mount is gone is readable for ever.
    if (session.over) stopReading();
  });
  let reading = true;
  const stopReading = (): void => {
    if (reading) readiness.close();
    reading = false;
  };
  undo.push(stopReading);
  const ready = await session.ready;
  if (!ready.ok) throw new UserError(`Cannot serve ${mountpoint}: ${ready.why}`);

  const tidyFrom = session.bugs > 0 ? performance.now() + TIDY_AFTER_BUG_MS : 0;
  const tidying = setInterval(() => {
    spin?.tick();
    if (performance.now() < tidyFrom) return;
    session.step('tidying', () => {
      mount.descriptors.expire(Date.now());
      mount.locks.tick();
      tidy(shared, server.composing, backing);
    });
  }, TIDY_INTERVAL_MS);
  undo.push(() => clearInterval(tidying));
  const ended = session.ended.then((why) => {
    // After an unmount the mountpoint is whatever was there before: it must not be unmounted as well.
    attached = why !== undefined && facts === undefined;
    mount.descriptors.closeAll();
    for (const fd of mount.opens.descriptorsOpen()) sys.close(fd);
    undo.run();
    return why;
  });

  return {
    source,
    mountpoint,
    options,
    cache,
    session,
    nodes: mount.nodes,
    opens: mount.opens,
    routes: mount.routes,
    descriptors: mount.descriptors,
    locks: mount.locks,
    registered,
    backing,
    mappings: shared?.mappings,
    composing: server.composing,
    index: shared?.composed?.index,
    storePath: shared?.path,
    facts: {
      minor,
      source: source.path,
      mountpoint,
      place: shared?.place ?? '',
      storeParent: shared?.parentPath ?? '',
    },
    takeovers: state.takeovers,
    journal: state.journal,
    keeper,
    idle,
    stop: stopReading,
    async unmount() {
      const result = await sys.umount2.later(mountpoint, 0);
      return result === -EBUSY ? sys.umount2.later(mountpoint, MNT_DETACH) : result;
    },
    ended,
  };
}

/** Does a little of the work that can wait. */
function tidy(shared: Sharing | undefined, composing: Composing | undefined, backing: BackingFiles): void {
  backing.tidy();
  if (shared === undefined) return;
  shared.mappings.tidy();
  if (backing.kept > 0 && shared.mappings.isSpaceLow()) backing.dropSome();
  if (composing === undefined) return;
  composing.packs.tidy();
  if (composing.packs.packs > 0 && shared.mappings.isSpaceLow()) composing.makeRoom();
}

function openDevice(scratch: Parameters<typeof openFuseDevice>[0]): FuseDevice {
  const fd = openFuseDevice(scratch);
  if (fd >= 0) return new FuseDevice(fd);
  throw new UserError(`Cannot open /dev/fuse: ${errnoText(fd)}, try "modprobe fuse"`);
}

function assemble(
  given: ServerOptions,
  source: Source,
  cache: CachePolicy,
  device: FuseDevice,
  backing: KeptBackings,
  state: State,
  shared: Sharing | undefined,
  ownSubvolume: number,
): {
  readonly mount: Mount;
  readonly composing: Composing | undefined;
  readonly session: Session;
  readonly spin: Spin | undefined;
  readonly idle: IdleProcessors;
} {
  const { options } = given;
  const { input, output, nodes, opens } = state;
  const notices = allocate('notices', NOTICE_BYTES);
  const residency = new Residency(sys, allocate('residency', RESIDENCY_BYTES));
  const scratch = allocate('scratch', SCRATCH_BYTES);
  putString(scratch, SCRATCH.dot, '.');
  if (nodes.count === 0) addRoot(source, nodes);
  state.journal.commit();
  const invalidate = (nodeid: number): void => {
    device.write(notices, invalidateAttributes(notices, nodeid));
  };
  const descriptors = new NodeDescriptors(sys, nodes, source.mountFd, given.keeper);
  const parts = shared?.composed;
  // What `sync` promises is kept by relaying, see `files.ts`.
  const composes = parts !== undefined && (options.flags & MS_SYNCHRONOUS) === 0;
  const composing = composes ? makeComposing(source, options, parts, scratch) : undefined;
  const writable = (options.flags & MS_RDONLY) === 0;
  const detached = new DetachedFiles(given.mountpoint, given.log);
  const routes = new Routes({
    calls: sys,
    nodes,
    opens,
    descriptors,
    backing,
    mountFd: source.mountFd,
    scratch,
    mappings: shared?.mappings,
    composing,
    domains: state.domains,
    share: options.share === 'none' ? 'all' : options.share,
    writable,
    settleMs: options.settleMs,
    relays: (options.flags & MS_SYNCHRONOUS) !== 0,
    patienceMs: PATIENCE_MS,
    now: Date.now,
    monotonicMs,
    invalidateAttributes: invalidate,
    onDetached: (slot, fd) => {
      detached.tell(fd, shownInode(nodes.memory.view, nodes.handleOffset(slot), ownSubvolume));
      given.keeper.wake(slot + 1, nodes.generation(slot));
    },
  });
  const mount: Mount = {
    calls: sys,
    backing,
    mountFd: source.mountFd,
    nodes,
    opens,
    routes,
    locks: new Locks({
      nodes,
      rows: state.locks,
      processes: new OpenDescriptors(),
      ownSubvolume,
    }),
    domains: state.domains,
    live: shared !== undefined && writable ? new LiveNames(options.live) : undefined,
    repeats: new Repeats(state.journal, state.intent, Date.now),
    progress: state.progress,
    now: Date.now,
    descriptors,
    input,
    output,
    scratch,
    stat: new Stat(scratch, SCRATCH.statx),
    entries: allocate('directory entries', 65_536),
    cache,
    syncs: {
      files: (options.flags & MS_SYNCHRONOUS) !== 0,
      names: (options.flags & (MS_SYNCHRONOUS | MS_DIRSYNC)) !== 0,
    },
    fills: new Fills(Math.min(cache.entrySeconds, cache.attributeSeconds), Date.now),
    ownSubvolume,
    storeInode: shared?.inode ?? -1,
    storeSubvolume: shared?.subvolume ?? -1,
    currentUmask: 0o077,
    isClean: (fd, offset, length) => residency.isClean(fd, offset, length),
    invalidateAttributes: invalidate,
  };
  const idle = new IdleProcessors();
  const spin = spinOf(options, idle);
  const session = new Session({
    device,
    input,
    output,
    handlers: filesystem(mount),
    progress: state.progress,
    ...(spin && { spin }),
    onBug: (what, error) => {
      const how = error instanceof Error ? (error.stack ?? error.message) : String(error);
      given.log('error', 'request', `${what} failed: ${how}`);
    },
    ...(given.observer && { observer: given.observer }),
  });
  return { mount, composing, session, spin, idle };
}

/** CLOCK_MONOTONIC, in milliseconds: it goes on from one process to the next. */
function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

function untrusted(why: string): UserError {
  return new UserError(`what the server before left isn't trusted: ${why}`);
}

/** Takes an earlier server's state over, in the condition that it had between two requests. @throws UserError */
function takeOver(fd: number, options: MountOptions, device: FuseDevice): State {
  let state: State;
  try {
    state = openState(fd, options);
  } catch (error) {
    throw untrusted(error instanceof Error ? error.message : String(error));
  }
  settleInterrupted(device, state.output, state.progress);
  const flaw = flawOf(state);
  if (flaw !== undefined) throw untrusted(flaw);
  return state;
}

/** The backing ids that the tables know. */
function backingIds({ opens, mappings }: State): Set<number> {
  const ids = new Set<number>();
  for (const row of opens.rows()) if (opens.route(row) === ROUTES.own) ids.add(opens.backingId(row));
  for (const row of mappings.alive()) if (mappings.users(row) > 0) ids.add(mappings.backingId(row));
  return ids;
}

/** The root is node 1, which the kernel knows from the start and never forgets. */
function addRoot(source: Source, nodes: NodeTable): void {
  const scratch = allocate('the root', 512);
  const handle = 64;
  scratch.view.setUint32(handle, HANDLE_BYTES - 8, true);
  const { address } = scratch;
  const named = sys.nameToHandleAt(source.mountFd, address, address + handle, address + 256, AT_EMPTY_PATH);
  if (named < 0) throw new UserError(`Cannot get a file handle of the source ${source.path}: ${errnoText(named)}`);
  const slot = nodes.lookUp(scratch, handle, 0o040000);
  if (slot !== ROOT) throw new Error('the root is not the first node');
}
