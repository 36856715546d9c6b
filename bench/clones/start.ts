/** Section: how long it takes from making a tree to the first word of a program in it. */

import { dirname, join } from 'node:path';
import { UserError } from '../../src/base/errno.ts';
import { programPath } from '../../src/cli/package.ts';
import { run } from '../../src/demo/commands.ts';
import { diskBytesRead } from '../../src/demo/measure.ts';
import { makeStage, type Stage } from '../../src/demo/stage.ts';
import { awaited } from '../daemon.ts';
import { roundTripOf, startConstant } from '../floor/empty.ts';
import { Prober } from '../helpers.ts';
import type { Asked, Extent, Section } from '../section.ts';
import type { Ground, Peer } from './ground.ts';
import type { Image } from './image.ts';
import { type LeftOut, makeImageIn } from './memory.ts';
import { dropCachesOf, dropsSoFar } from './memoryuse.ts';
import { nosharedext, others, sharedext } from './peers.ts';
import { type Running, start as startProgram } from './programs.ts';
import { startResult } from './starttext.ts';
import { type Limits, throttle } from './throttle.ts';

const STAGE_BYTES = 16 * 1024 ** 3;
const ROUNDS: Readonly<Record<Extent, number>> = { short: 1, normal: 3, full: 7 };
/** Programs of the machine that make trees; they shall be in memory. */
const TOOLS = ['chroot', 'mount', 'umount', 'losetup', 'chown', 'cp', 'btrfs', 'bindfs', 'fuse-overlayfs'] as const;
const TREES: Readonly<Record<Extent, number>> = { short: 2, normal: 3, full: 5 };
/** Trees in which the programs were run before, and have ended: a host that is in use has had many. */
const BEFORE: Readonly<Record<Extent, number>> = { short: 1, normal: 5, full: 5 };
const ROUND_TRIPS: Readonly<Record<Extent, { readonly count: number; readonly rounds: number }>> = {
  short: { count: 100, rounds: 1 },
  normal: { count: 2000, rounds: 9 },
  full: { count: 10_000, rounds: 25 },
};
/** What a general purpose volume of a cloud gives that nobody paid more for (AWS gp3). */
export const LIMITS: Limits = { bytesPerSecond: 125_000_000, readsPerSecond: 3000 };

/** One tree of one round. */
export interface Start {
  readonly makeMs: number;
  /** For each program. */
  readonly startedMs: readonly number[];
  /** For each, how many requests of it a server of ours has answered. */
  readonly answered: readonly number[];
  /** For each, what it read from the disk, in bytes; making the tree isn't in it. */
  readonly readBytes: readonly number[];
}

export interface PeerStarts {
  readonly peer: Peer;
  /** For each round, for each tree. */
  readonly rounds: readonly (readonly Start[])[];
  /** Whether others dropped the caches meanwhile. */
  readonly disturbed: boolean;
}

export interface Disk {
  readonly limited: boolean;
  readonly peers: readonly PeerStarts[];
}

export interface Starts {
  readonly asked: Asked;
  readonly image: Image;
  readonly rounds: number;
  readonly before: number;
  readonly trees: number;
  /** How long a caller waits for an answer of a server that does nothing, in microseconds. */
  readonly roundTrip: number;
  readonly disks: readonly Disk[];
  /** By what the disk was limited; or why it wasn't. */
  readonly limitedBy: string | undefined;
  readonly leftOut: readonly LeftOut[];
}

async function warmTools(): Promise<void> {
  for (const tool of TOOLS) await run(tool, ['--version']).catch(() => '');
}

interface Round {
  readonly starts: readonly Start[];
  readonly disturbed: boolean;
}

/** The same in a mount that nothing was asked of before. */
const justMounted: Peer = {
  ...sharedext,
  name: 'sharedext, mounted just now',
  what: 'the same, and nothing was asked of the mount before',
  kind: 'control',
};

interface Counted {
  /** Trees in which the programs are run before anything is measured. */
  readonly before: number;
  readonly count: number;
}

/** The first tree is started with nothing in memory, each other while the programs of those before it run. */
async function round(peer: Peer, ground: Ground, image: Image, { before, count }: Counted): Promise<Round> {
  const starts: Start[] = [];
  let drops = 0;
  let disturbed = false;
  const running: Running[] = [];
  const trees = await peer.open(ground);
  const answered = async (): Promise<number> => awaited((await trees.requests?.()) ?? {});
  try {
    for (let tree = 0; tree < before; tree++) {
      const path = await trees.next();
      for (const program of image.programs) await (await startProgram(path, program, ground.signal)).end();
    }
    await dropCachesOf(ground.stage.source);
    drops = dropsSoFar();
    await warmTools();
    for (let tree = 0; tree < count; tree++) {
      ground.signal.throwIfAborted();
      const begun = performance.now();
      const path = await trees.next();
      const makeMs = performance.now() - begun;
      const startedMs: number[] = [];
      const requests: number[] = [];
      const readBytes: number[] = [];
      for (const program of image.programs) {
        const earlier = await answered();
        const read = diskBytesRead(ground.stage.device);
        const started = await startProgram(path, program, ground.signal);
        running.push(started);
        startedMs.push(started.startedMs);
        readBytes.push(diskBytesRead(ground.stage.device) - read);
        requests.push((await answered()) - earlier);
      }
      starts.push({ makeMs, startedMs, answered: requests, readBytes });
    }
    disturbed = dropsSoFar() !== drops;
  } finally {
    for (const program of running) await program.end();
    await trees.end();
  }
  return { starts, disturbed };
}

class Measuring {
  readonly #stage: Stage;
  readonly #asked: Asked;
  readonly #image: Image;
  readonly leftOut = new Map<string, LeftOut>();
  #folders = 0;

  constructor(stage: Stage, asked: Asked, image: Image) {
    this.#stage = stage;
    this.#asked = asked;
    this.#image = image;
  }

  /** All rounds of all peers, with the disk as it is. */
  async disk(limited: boolean, rounds: number): Promise<Disk> {
    const peers: PeerStarts[] = [];
    // To see that it runs, a few are enough behind the limit.
    const few = limited && this.#asked.extent === 'short';
    const all = [...others, nosharedext, justMounted, sharedext].filter(
      ({ kind }) => !few || kind === 'common files' || kind === 'ours',
    );
    for (const peer of all) {
      if (this.leftOut.has(peer.name)) continue;
      try {
        const found: Round[] = [];
        for (let i = 0; i < rounds; i++) {
          this.#asked.tell(`${limited ? 'limited disk' : 'disk as it is'}: ${peer.name}, round ${i + 1} of ${rounds}`);
          found.push(await this.#round(peer));
        }
        peers.push({
          peer,
          rounds: found.map(({ starts }) => starts),
          disturbed: found.some((one) => one.disturbed),
        });
      } catch (error) {
        if (peer.kind === 'ours' || !(error instanceof UserError)) throw error;
        this.leftOut.set(peer.name, { name: peer.name, reason: error.message });
      }
    }
    return { limited, peers };
  }

  async #round(peer: Peer): Promise<Round> {
    const ground: Ground = {
      stage: this.#stage,
      filesystem: this.#asked.filesystem,
      image: dirname(this.#image.folder),
      work: join(this.#stage.source, `round-${this.#folders++}`),
      settled: false,
      signal: this.#asked.signal,
    };
    await peer.prepare?.(ground);
    const { extent } = this.#asked;
    const before = peer === justMounted ? 0 : BEFORE[extent];
    return round(peer, ground, this.#image, { before, count: TREES[extent] });
  }
}

async function emptyRoundTrip(stage: Stage, extent: Extent): Promise<number> {
  const { count, rounds } = ROUND_TRIPS[extent];
  const empty = await startConstant(stage, 'empty', stage.source);
  const prober = new Prober();
  try {
    return await roundTripOf(empty, prober, count, rounds);
  } finally {
    await prober.end();
  }
}

async function measured(stage: Stage, asked: Asked): Promise<Starts> {
  asked.tell('making the image');
  const image = await makeImageIn(stage, 'image', asked, asked.extent);
  asked.tell('what one round trip takes');
  const roundTrip = await emptyRoundTrip(stage, asked.extent);
  const rounds = ROUNDS[asked.extent];
  const measuring = new Measuring(stage, asked, image);
  const disks = [await measuring.disk(false, rounds)];
  let limitedBy: string | undefined;
  try {
    const limit = throttle(stage.device, LIMITS);
    stage.undo(() => limit.end());
    limitedBy = limit.by;
    try {
      disks.push(await measuring.disk(true, rounds));
    } finally {
      limit.end();
    }
  } catch (error) {
    if (limitedBy !== undefined || !(error instanceof UserError)) throw error;
    measuring.leftOut.set('limited disk', { name: 'The limited disk', reason: error.message });
  }
  return {
    asked,
    image,
    rounds,
    before: BEFORE[asked.extent],
    roundTrip,
    trees: TREES[asked.extent],
    disks,
    limitedBy,
    leftOut: [...measuring.leftOut.values()],
  };
}

export const start: Section = {
  name: 'start',
  title: 'Starting a program in a new tree',
  async run(asked) {
    const stage = await makeStage(asked.filesystem, STAGE_BYTES, programPath, 'sharedext-bench-');
    let result: Starts;
    try {
      result = await measured(stage, asked);
    } finally {
      asked.tell('cleaning up');
      await stage.dispose();
    }
    return startResult(result);
  },
};
