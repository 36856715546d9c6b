/**
 * Where the demo plays: a filesystem of its own on a loop device, and mounts of it by real daemons.
 *
 *     <tmpdir>/sharedext-demo-XXXXXX/    root only
 *         image                          sparse; the loop device reads it with direct I/O, past the page cache
 *         source/                        the filesystem
 *         mount/                         where a daemon shows it
 *
 * Whatever is made puts its removal on a stack, and `dispose` takes the stack down, the latest first.
 */

import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { UserError } from '../base/errno.ts';
import { askDaemon } from '../daemon/control.ts';
import { run } from './commands.ts';
import { startServer, unmount } from './servers.ts';

export type FilesystemName = 'btrfs' | 'xfs';

const READY_TIMEOUT_MS = 20_000;
const ANSWER_TIMEOUT_MS = 3000;

/** `-K`: a new image has nothing to discard. */
const makers: Readonly<Record<FilesystemName, readonly [string, ...string[]]>> = {
  btrfs: ['mkfs.btrfs', '-q', '-f', '-K'],
  xfs: ['mkfs.xfs', '-q', '-f', '-K', '-m', 'reflink=1'],
};

/** A mount of the source by a daemon of its own. */
export interface DaemonMount {
  readonly mountpoint: string;
  readonly pid: number;
  /** How many requests have reached the daemon, by operation; what the status command shows. */
  requests(): Promise<Readonly<Record<string, number>>>;
  end(): Promise<void>;
}

export interface Stage {
  readonly folder: string;
  readonly source: string;
  readonly device: string;
  mount(options: string, environment?: NodeJS.ProcessEnv): Promise<DaemonMount>;
  /** Puts the removal of something that the caller makes on the stack. */
  undo(step: () => void | Promise<void>): void;
  /** Removes all. Calling it again does nothing. */
  dispose(): Promise<void>;
}

function requestsIn(status: unknown): Record<string, number> {
  const counts: Record<string, number> = {};
  if (typeof status !== 'object' || status === null || !('requests' in status)) return counts;
  const { requests } = status;
  if (typeof requests !== 'object' || requests === null) return counts;
  for (const [name, count] of Object.entries(requests)) if (typeof count === 'number') counts[name] = count;
  return counts;
}

async function startDaemon(
  program: string,
  source: string,
  mountpoint: string,
  options: string,
  environment: NodeJS.ProcessEnv,
): Promise<DaemonMount> {
  const words = [program, 'mount', '-f', '-o', options, '--', source, mountpoint];
  const server = await startServer(process.execPath, words, mountpoint, environment);
  const { minor } = server.entry;
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while ((await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS)).state !== 'answered') {
    if (performance.now() > deadline) {
      await server.end();
      throw new UserError(`Cannot mount ${source}: the daemon does not answer`);
    }
    await pause(10);
  }
  return {
    mountpoint,
    pid: server.pid,
    async requests() {
      const answer = await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS);
      if (answer.state !== 'answered')
        throw new UserError(`Cannot ask the daemon of ${mountpoint}: it is ${answer.state}`);
      return requestsIn(answer.value);
    },
    end: () => server.end(),
  };
}

/**
 * Makes the filesystem.
 *
 * @throws UserError when a tool is missing or refuses; nothing is left then.
 */
export async function makeStage(
  kind: FilesystemName,
  imageBytes: number,
  program: string,
  prefix = 'sharedext-demo-',
): Promise<Stage> {
  const steps: (() => void | Promise<void>)[] = [];
  const dispose = async (): Promise<void> => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) await step();
  };
  const folder = mkdtempSync(join(tmpdir(), prefix));
  const source = join(folder, 'source');
  const mountpoint = join(folder, 'mount');
  const image = join(folder, 'image');
  // By rmdir, never recursively: that could run into a filesystem that is still mounted.
  steps.push(() => {
    rmSync(image, { force: true });
    for (const name of [mountpoint, source, folder]) if (existsSync(name)) rmdirSync(name);
  });
  try {
    chmodSync(folder, 0o700);
    for (const name of [source, mountpoint]) mkdirSync(name);
    writeFileSync(image, '');
    truncateSync(image, imageBytes);
    const device = (await run('losetup', ['--direct-io=on', '--find', '--show', image])).trim();
    steps.push(async () => {
      await run('losetup', ['--detach', device]);
    });
    const [maker, ...words] = makers[kind];
    await run(maker, [...words, device]);
    await run('mount', ['-t', kind, '-o', 'noatime', device, source]);
    steps.push(() => unmount(source));
    return {
      folder,
      source,
      device,
      async mount(options, environment = {}) {
        const mount = await startDaemon(program, source, mountpoint, options, environment);
        steps.push(() => mount.end());
        return mount;
      },
      undo(step) {
        steps.push(step);
      },
      dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}
