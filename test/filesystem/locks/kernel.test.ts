/** The same random locks in the table of one file and on a bare file, by open file descriptions and by processes: the same answers. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { F_UNLCK } from '../../../src/base/linux.ts';
import { type Conflict, FileLocks, Owner, type OwnerKind } from '../../../src/filesystem/locks/filelocks.ts';
import { type LockType, TO_THE_END } from '../../../src/filesystem/locks/ranges.ts';
import { OtherProcess, root } from '../../support/asuser.ts';
import * as posix from '../../support/posix.ts';
import { isGranted } from '../../support/posix-locks.ts';

const OWNERS = 3;
const BYTES = 16;

const step = fc.record({
  owner: fc.nat(OWNERS - 1),
  start: fc.nat(BYTES),
  /** Zero reaches to the end. */
  length: fc.nat(BYTES),
  type: fc.constantFrom<LockType | typeof F_UNLCK>(posix.F_RDLCK, posix.F_WRLCK, F_UNLCK),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** What the kernel does with a lock of one of the owners. */
interface Kernel {
  lock(step: Step): Promise<boolean>;
  inTheWay(step: Step): Promise<posix.RecordLock | undefined>;
}

function endOf({ start, length }: Step): bigint {
  return length === 0 ? TO_THE_END : BigInt(start + length - 1);
}

function shown(found: Conflict | undefined): Omit<posix.RecordLock, 'pid'> | undefined {
  if (found === undefined) return undefined;
  const { start, end, type } = found.range;
  return { type, start: Number(start), length: end === TO_THE_END ? 0 : Number(end - start) + 1 };
}

async function compare(list: readonly Step[], kind: OwnerKind, kernel: Kernel): Promise<void> {
  const file = new FileLocks();
  const owners = Array.from({ length: OWNERS }, (_, id) => new Owner(BigInt(id), kind, id, id, 0));
  for (const one of list) {
    const owner = owners[one.owner];
    assert.ok(owner !== undefined);
    const [start, end] = [BigInt(one.start), endOf(one)];
    let granted = true;
    if (one.type !== F_UNLCK) {
      const found = file.conflict({ owner, start, end, type: one.type });
      granted = found === undefined;
      const there = await kernel.inTheWay(one);
      assert.deepEqual(there && { type: there.type, start: there.start, length: there.length }, shown(found));
    }
    if (granted) file.apply(owner, file.change(owner, start, end, one.type));
    assert.equal(await kernel.lock(one), granted);
  }
  for (const owner of owners.keys()) await kernel.lock({ owner, start: 0, length: 0, type: F_UNLCK });
}

async function inFolder(use: (file: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sharedext-test-'));
  try {
    await use(join(folder, 'file'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('open file descriptions get from the kernel what they get from the table', () =>
  inFolder(async (file) => {
    const fds = Array.from({ length: OWNERS }, () => posix.open(file, posix.O_RDWR | posix.O_CREAT));
    const of = ({ owner }: Step): number => fds[owner] ?? -1;
    const kernel: Kernel = {
      lock: (one) => isGranted(() => posix.lockDescription(of(one), one.type, one.start, one.length)),
      inTheWay: async (one) => posix.conflictingDescription(of(one), one.type, one.start, one.length),
    };
    try {
      const lists = fc.array(step, { maxLength: 60 });
      await fc.assert(
        fc.asyncProperty(lists, (list) => compare(list, 'description', kernel)),
        { numRuns: 200 },
      );
    } finally {
      for (const fd of fds) posix.close(fd);
    }
  }));

test('processes get from the kernel what they get from the table', () =>
  inFolder(async (file) => {
    posix.close(posix.open(file, posix.O_RDWR | posix.O_CREAT));
    const processes = Array.from({ length: OWNERS }, () => new OtherProcess(root));
    try {
      const fds = await Promise.all(processes.map((other) => other.call('open', file, posix.O_RDWR)));
      const of = ({ owner }: Step): OtherProcess => {
        const other = processes[owner];
        assert.ok(other !== undefined);
        return other;
      };
      const kernel: Kernel = {
        lock: (one) =>
          isGranted(() => of(one).call('lockRecord', fds[one.owner] ?? -1, one.type, one.start, one.length)),
        inTheWay: (one) => of(one).call('conflictingRecord', fds[one.owner] ?? -1, one.type, one.start, one.length),
      };
      const lists = fc.array(step, { maxLength: 40 });
      await fc.assert(
        fc.asyncProperty(lists, (list) => compare(list, 'process', kernel)),
        { numRuns: 30 },
      );
    } finally {
      await Promise.all(processes.map((other) => other.stop()));
    }
  }));
