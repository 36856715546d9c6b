/** The table of one file's locks, against a model that keeps for each byte what each owner has of it. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { F_RDLCK, F_UNLCK, F_WRLCK } from '../../../src/base/linux.ts';
import { FileLocks, isCircle, Owner, type Wanted } from '../../../src/filesystem/locks/filelocks.ts';
import { type LockType, Range, withRange } from '../../../src/filesystem/locks/ranges.ts';

const BYTES = 12;
const OWNERS = 4;

/** What an owner has of each byte. */
type Model = (LockType | undefined)[][];

interface Step {
  readonly owner: number;
  readonly start: number;
  readonly length: number;
  readonly type: LockType | typeof F_UNLCK;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    owner: fc.nat(OWNERS - 1),
    start: fc.nat(BYTES - 1),
    length: fc.integer({ min: 1, max: BYTES }),
    type: fc.constantFrom(F_RDLCK, F_WRLCK, F_UNLCK),
  }),
  { maxLength: 40 },
);

function lastOf({ start, length }: Step): number {
  return Math.min(BYTES - 1, start + length - 1);
}

/** The owner that keeps a step from being taken, in the model: any of them. */
function inTheWay(model: Model, step: Step): number[] {
  const found: number[] = [];
  for (const [other, bytes] of model.entries()) {
    if (other === step.owner) continue;
    const there = bytes.slice(step.start, lastOf(step) + 1);
    if (there.some((type) => type !== undefined && (type === F_WRLCK || step.type === F_WRLCK))) found.push(other);
  }
  return found;
}

/** The longest runs of equal locks. */
function runs(bytes: readonly (LockType | undefined)[]): [number, number, LockType][] {
  const found: [number, number, LockType][] = [];
  for (const [at, type] of bytes.entries()) {
    if (type === undefined) continue;
    const last = found.at(-1);
    if (last?.[1] === at - 1 && last[2] === type) last[1] = at;
    else found.push([at, at, type]);
  }
  return found;
}

test('whatever is locked and unlocked, each owner has the bytes that it has, in as few ranges as there can be', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const file = new FileLocks();
      const owners = Array.from({ length: OWNERS }, (_, id) => new Owner(BigInt(id), 'process', 1, id + 1, 0));
      const model: Model = owners.map(() => new Array<undefined>(BYTES).fill(undefined));
      for (const step of list) {
        const owner = owners[step.owner];
        const bytes = model[step.owner];
        assert.ok(owner !== undefined && bytes !== undefined);
        const [start, end] = [BigInt(step.start), BigInt(lastOf(step))];
        if (step.type !== F_UNLCK) {
          const wanted: Wanted = { owner, start, end, type: step.type };
          const expected = inTheWay(model, step);
          const found = file.conflict(wanted);
          assert.equal(found !== undefined, expected.length > 0);
          assert.deepEqual([...file.blockers(wanted)].map(({ id }) => Number(id)).sort(), expected);
          if (found !== undefined) {
            assert.ok(found.range.start <= end && found.range.end >= start && found.owner.ranges.includes(found.range));
            continue;
          }
        }
        const before = owner.ranges;
        const change = file.change(owner, start, end, step.type);
        file.apply(owner, change);
        assert.deepEqual(
          new Set(owner.ranges),
          new Set([...before.filter((range) => !change.removed.includes(range)), ...change.added]),
        );
        bytes.fill(step.type === F_UNLCK ? undefined : step.type, step.start, lastOf(step) + 1);
        assert.deepEqual(
          owner.ranges.map((range) => [Number(range.start), Number(range.end), range.type]),
          runs(bytes),
        );
        assert.equal(file.holders.has(owner), owner.ranges.length > 0);
      }
    }),
  );
});

test('a range that is locked again as it was stays the same one', () => {
  const ranges = [new Range(0n, 9n, F_WRLCK), new Range(20n, 29n, F_RDLCK)];
  assert.deepEqual(withRange(ranges, 3n, 5n, F_WRLCK), ranges);
  assert.equal(withRange(ranges, 3n, 5n, F_WRLCK)[0], ranges[0]);
  assert.equal(withRange(ranges, 15n, 16n, F_UNLCK)[1], ranges[1]);
});

test('flocks and record locks of the same number do not see each other', () => {
  const file = new FileLocks();
  const flock = new Owner(7n, 'flock', 1, 1, 0);
  const record = new Owner(7n, 'description', 1, 1, 0);
  for (const owner of [flock, record]) {
    file.add(owner);
    file.apply(owner, file.change(owner, 0n, 9n, F_WRLCK));
  }
  assert.deepEqual([...file.owners()], [flock, record]);
  const other = new Owner(8n, 'process', 2, 2, 0);
  assert.equal(file.conflict({ owner: other, start: 0n, end: 0n, type: F_RDLCK })?.owner, record);
  assert.equal(file.conflict({ owner: record, start: 0n, end: 0n, type: F_RDLCK }), undefined);
});

/** Who waits for whom, as a matrix: a circle through `from` by steps over the matrix. */
function reaches(edges: readonly (readonly [number, number])[], from: number): boolean {
  const seen = new Set<number>();
  const open = edges.filter(([one]) => one === from).map(([, other]) => other);
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (at === from) return true;
    if (seen.has(at)) continue;
    seen.add(at);
    for (const [one, other] of edges) if (one === at) open.push(other);
  }
  return false;
}

test('a circle of waits is found exactly when there is one, over several files', () => {
  const count = 5;
  const pairs = fc.array(fc.tuple(fc.nat(count - 1), fc.nat(count - 1)), { maxLength: 8 });
  fc.assert(
    fc.property(pairs, fc.nat(count - 1), fc.nat(count - 1), (waits, last, lastFor) => {
      fc.pre(last !== lastFor);
      // Owner n holds byte n of file n % 2 for writing.
      const files = [new FileLocks(), new FileLocks()];
      const fileOf = (id: number): FileLocks => files[id % 2] ?? new FileLocks();
      const ownerIn = (file: FileLocks, id: number): Owner => {
        const known = file.records.get(BigInt(id)) ?? new Owner(BigInt(id), 'process', 1, id, 0);
        file.add(known);
        return known;
      };
      for (let id = 0; id < count; id++) {
        const file = fileOf(id);
        const owner = ownerIn(file, id);
        file.apply(owner, file.change(owner, BigInt(id), BigInt(id), F_WRLCK));
      }
      const wants = (id: number, other: number): Wanted => {
        const at = BigInt(other);
        return { owner: ownerIn(fileOf(other), id), start: at, end: at, type: F_RDLCK };
      };
      const edges = waits.filter(([one, other]) => one !== other && one !== last);
      for (const [one, other] of edges) fileOf(other).waiters.add(wants(one, other));
      const circle = isCircle(fileOf(lastFor), wants(last, lastFor), files);
      assert.equal(circle, reaches([...edges, [last, lastFor]], last));
    }),
  );
});
