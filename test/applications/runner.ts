/** Prepares the directories of all cases at once, and runs a case on the bare filesystem and on the mount of it. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { LoopFilesystem } from '../support/loopfs.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { subjects } from './all.ts';
import type { Case, Seen } from './case.ts';
import { exceptions } from './exceptions.ts';
import { lacking } from './needs.ts';
import { output, stopAll } from './processes.ts';

/** More than the default of `settle=`: a file that changed more recently isn't put on the shared route. */
const SETTLED_MS = 1300;
/** Nothing here takes a quarter of this. */
const CASE_TIMEOUT_MS = 100_000;

/** A case with its full name and the name of its folder. */
export interface Numbered {
  readonly name: string;
  readonly folder: string;
  readonly one: Case;
}

/** All cases whose names contain a text. */
export function casesOf(only: string): Numbered[] {
  return subjects
    .flatMap(({ subject, cases }) =>
      cases.map((one, index) => ({ name: `${subject}: ${one.name}`, folder: `${subject}-${index}`, one })),
    )
    .filter(({ name }) => name.includes(only));
}

/** Why a case can't be run here; undefined when it can. */
export function whySkipped({ needs = [] }: Case): string | undefined {
  return needs.map(lacking).find((reason) => reason !== undefined);
}

/** The directories of the cases, on the bare filesystem for the control and on the mount. */
export interface Prepared {
  readonly control: string;
  readonly source: string;
  readonly server: MountedServer;
}

/**
 * Lets the cases make what they need, clones it three times (on the source: the cases' files, and two more clones of each),
 * mounts, and waits until the mount may share.
 */
export async function prepare(
  filesystem: LoopFilesystem,
  cases: readonly Numbered[],
  options: string,
): Promise<Prepared> {
  const control = join(filesystem.dir, 'control');
  const source = join(filesystem.dir, 'source');
  mkdirSync(control);
  mkdirSync(source);
  for (const { folder, one } of cases) {
    mkdirSync(join(control, folder));
    await one.prepare(join(control, folder));
  }
  await stopAll();
  await output('/', 'sync', '-f', control);
  for (const name of ['cases', 'clones', 'more']) {
    await output('/', 'cp', '-a', '--reflink=always', control, join(source, name));
  }
  await output('/', 'sync', '-f', control);
  const server = await mountSharedext(source, join(filesystem.folder, 'shared'), options);
  await pause(SETTLED_MS);
  return { control, source: join(source, 'cases'), server };
}

/** Runs a case on the bare filesystem, then on the mount, whose files are read first, and holds what it sees against it. */
export async function runCase({ name, folder, one }: Numbered, prepared: Prepared, shares: boolean): Promise<void> {
  const { control, source, server } = prepared;
  const mounted = join(server.mountpoint, 'cases');
  const bare = await finished(one.run(join(control, folder), join(control, folder)));
  await output('/', 'find', join(mounted, folder), '-type', 'f', '-exec', 'cat', '{}', '+');
  const seen = await finished(one.run(join(mounted, folder), join(source, folder)));
  const exception = exceptions[name];
  if (exception === undefined || !shares) assert.deepEqual(seen, bare, 'the mount isn’t as the bare filesystem is');
  else {
    assert.notDeepEqual(exception.seen, bare, 'an exception says what the bare filesystem does');
    assert.deepEqual(seen, exception.seen, `${exception.why}: this is what should be seen on the mount`);
  }
}

/** Gives a case up after a while, and ends its programs however it ends. */
async function finished(going: Promise<Seen>): Promise<Seen> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${CASE_TIMEOUT_MS} ms`)), CASE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([going, late]);
  } finally {
    clearTimeout(timer);
    await stopAll();
  }
}
