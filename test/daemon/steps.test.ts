/**
 * Steps that fail: whatever was being done to whichever table, and at whichever word it was cut off, the tables are what they were
 * before, and so is all that a later server derives from them. And the largest steps that there are, against the journal's limit.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Journal, journalBytes } from '../../src/base/journal.ts';
import * as c from '../../src/base/linux.ts';
import { type Memory, memoryAt } from '../../src/base/memory.ts';
import { PAIRS } from '../../src/daemon/state.ts';
import { DOMAINS_WORDS, Domains } from '../../src/filesystem/domains.ts';
import { FILEID_BTRFS_WITHOUT_PARENT } from '../../src/filesystem/handles.ts';
import { Owner } from '../../src/filesystem/locks/filelocks.ts';
import { Range } from '../../src/filesystem/locks/ranges.ts';
import { LockRows, lockTableWords, MAX_LOCKS } from '../../src/filesystem/locks/rows.ts';
import { NodeTable, nodeTableWords, ROOT } from '../../src/filesystem/nodes.ts';
import { OpenTable, openTableWords } from '../../src/filesystem/opens.ts';
import { ROUTES } from '../../src/filesystem/routes/route.ts';
import { BackingFiles, KEPT_WORDS } from '../../src/fuse/server/backing.ts';
import { Progress } from '../../src/fuse/server/progress.ts';
import { MappingRows, mappingRowsWords, NONE } from '../../src/mappings/rows.ts';

interface Sizes {
  readonly pairs: number;
  readonly nodes: number;
  readonly opens: number;
  readonly mappings: number;
  readonly locks: number;
}

const SMALL: Sizes = { pairs: 5000, nodes: 48, opens: 24, mappings: 12, locks: 10 };

function bytesFor({ pairs, nodes, opens, mappings, locks }: Sizes): number {
  const tables = nodeTableWords(nodes) + openTableWords(opens) + mappingRowsWords(mappings) + lockTableWords(locks);
  const words = tables + DOMAINS_WORDS + KEPT_WORDS;
  return journalBytes(pairs) + 4 * words + 256;
}

/** The latest backing id: the kernel gives each once. */
let ids = 0;

/** The tables of a server over memory that it may have taken over. */
class Tables {
  readonly journal: Journal;
  readonly nodes: NodeTable;
  readonly progress: Progress;
  readonly opens: OpenTable;
  readonly mappings: MappingRows;
  readonly domains: Domains;
  readonly backing: BackingFiles;
  readonly locks: LockRows;
  readonly #handle = memoryAt(0, new ArrayBuffer(64));

  constructor(memory: Memory, sizes: Sizes) {
    const journal = new Journal(memory, sizes.pairs);
    this.journal = journal;
    this.nodes = new NodeTable(journal, sizes.nodes);
    this.progress = new Progress(journal);
    this.opens = new OpenTable(journal, sizes.opens);
    this.mappings = new MappingRows(journal, sizes.mappings);
    this.domains = new Domains('dir', journal, journal.take(DOMAINS_WORDS), this.nodes);
    const registration = { open: () => ++ids, close: () => 0 };
    this.backing = new BackingFiles(registration, journal, journal.take(KEPT_WORDS), () => 5);
    this.locks = new LockRows(journal, sizes.locks);
  }

  lookUp(inode: number, isDirectory: boolean): number {
    const { view } = this.#handle;
    view.setUint32(0, 20, true);
    view.setInt32(4, FILEID_BTRFS_WITHOUT_PARENT, true);
    view.setUint32(8, inode, true);
    view.setUint32(16, 5, true);
    const slot = this.nodes.lookUp(this.#handle, 0, isDirectory ? c.S_IFDIR : c.S_IFREG);
    if (slot >= 0) this.domains.found(slot, ROOT, isDirectory, this.nodes.lookups(slot) === 1);
    return slot;
  }

  /** What a server derives from the tables when it starts. */
  derived(): unknown {
    const { nodes, opens, mappings, domains, backing, progress, locks } = this;
    const all = [...nodes.slots()];
    return {
      nodes: [nodes.count, nodes.detachedCount, all.map((slot) => [slot, nodes.lookups(slot), nodes.domain(slot)])],
      opens: [opens.inodes, opens.descriptors, [...opens.byRoute], [...opens.rows()], [...opens.handles()]],
      mappings: [mappings.count, mappings.idle, [...mappings.alive()].map((row) => [row, mappings.size(row)])],
      domains: domains.count,
      locks: [
        locks.count,
        [...locks.all()].map(([row, { slot, kind, owner, range }]) => [row, slot, kind, owner, range]),
      ],
      kept: [backing.kept, [...backing.ids()]],
      progress: [progress.parts(3, 0), progress.isDone(4, 0)],
    };
  }

  flaw(): string | undefined {
    const { nodes, opens, mappings, backing, locks } = this;
    const used = new Set([...opens.rows()].map((row) => opens.backingId(row)));
    return nodes.flaw() ?? opens.flaw(nodes) ?? mappings.flaw() ?? backing.flaw(used) ?? locks.flaw(nodes);
  }
}

type Change = (t: Tables, n: number) => void;

const some = <T>(all: Iterable<T>, n: number): T | undefined => {
  const list = [...all];
  return list[n % Math.max(1, list.length)];
};

/** What requests do to the tables, in the order in which they do it. */
const changes: Readonly<Record<string, Change>> = {
  lookUp: (t, n) => void t.lookUp(100 + (n % 60), n % 3 === 0),
  forget(t, n) {
    const slot = some(t.nodes.slots(), n) ?? ROOT;
    if (slot === ROOT || t.nodes.openRow(slot) >= 0) return;
    if ([...t.opens.handles()].some((handle) => t.opens.handleSlot(handle) === slot)) return;
    // What is locked is open.
    if ([...t.locks.all()].some(([, lock]) => lock.slot === slot)) return;
    const generation = t.nodes.generation(slot);
    if (t.nodes.forget(slot, (n % 2) + 1)) t.backing.ofNodes.drop(slot, generation);
  },
  detach: (t, n) => t.nodes.detach(some(t.nodes.slots(), n) ?? ROOT),
  pin: (t, n) => t.nodes.setPinned(some(t.nodes.slots(), n) ?? ROOT, n % 2 === 0),
  verdict: (t, n) => t.nodes.setVerdict(some(t.nodes.slots(), n) ?? ROOT, n % 5, n, n * 3, n),
  open(t, n) {
    const slot = some(t.nodes.slots(), n) ?? ROOT;
    const known = t.nodes.openRow(slot);
    if (known >= 0) return t.opens.addOpen(known, n % 2 === 0);
    const mapping = n % 2 === 0 ? some(t.mappings.alive(), n) : undefined;
    if (mapping !== undefined) {
      if (t.mappings.users(mapping) === 0) t.mappings.leaveIdle(mapping);
      t.mappings.setUsers(mapping, t.mappings.users(mapping) + 1);
    }
    const kept = t.backing.ofNodes.take(slot, t.nodes.generation(slot));
    const id = kept > 0 ? kept : t.backing.ofNodes.open(1);
    const row = t.opens.add(slot, mapping === undefined ? ROUTES.own : ROUTES.shared, false, id, mapping ?? -1);
    if (row >= 0) t.nodes.setOpenRow(slot, row);
    else if (mapping !== undefined) release(t, mapping);
  },
  release(t, n) {
    const row = some(t.opens.rows(), n);
    if (row === undefined || t.opens.dropOpen(row, false) > 0) return;
    const [slot, mapping] = [t.opens.slot(row), t.opens.mapping(row)];
    if (mapping >= 0) release(t, mapping);
    else t.backing.ofNodes.keep(slot, t.nodes.generation(slot), t.opens.backingId(row));
    t.opens.free(row);
    t.nodes.setOpenRow(slot, -1);
  },
  addHandle: (t, n) => void t.opens.addHandle(n, some(t.nodes.slots(), n) ?? ROOT, n % 8, n),
  dropHandle: (t, n) => void t.opens.dropHandle(some(t.opens.handles(), n) ?? 0),
  lock(t, n) {
    if (!t.locks.hasRoom(2, 0)) return;
    const owner = new Owner(
      BigInt(n) << 40n,
      n % 2 === 0 ? 'process' : 'flock',
      n,
      n,
      some(t.nodes.slots(), n) ?? ROOT,
    );
    t.locks.addRange(owner, new Range(BigInt(n), BigInt(n) << 33n, n % 3 === 0 ? c.F_WRLCK : c.F_RDLCK));
    if (n % 5 === 0) t.locks.addWatch(owner, n % 7, n, 1);
  },
  unlock(t, n) {
    const [row] = some(t.locks.all(), n) ?? [];
    if (row !== undefined) t.locks.give(row);
  },
  nameOpen: (t) => void t.locks.nextSerial(),
  share(t, n) {
    const row = t.mappings.take();
    if (row === NONE) return;
    if (n % 5 === 0) t.mappings.give(row);
    else t.mappings.publish(row, { size: n * 2 ** 33, hash: n % 4, inode: n, domain: n % 2, owner: 0 });
  },
  dropIdle(t) {
    const row = t.mappings.oldest;
    if (row === NONE) return;
    t.mappings.withdraw(row);
    t.backing.ofMappings.drop(row, t.mappings.generation(row));
    t.mappings.give(row);
  },
  dropSome: (t) => t.backing.dropSome(),
  parts: (t, n) => (n % 4 === 0 ? t.progress.partsDone(3, 0, n) : undefined),
};

function release(t: Tables, mapping: number): void {
  t.mappings.setUsers(mapping, t.mappings.users(mapping) - 1);
  if (t.mappings.users(mapping) > 0) return;
  t.backing.ofMappings.keep(mapping, t.mappings.generation(mapping), ++ids);
  t.mappings.enterIdle(mapping);
}

const names = Object.keys(changes);
const step = fc.record({
  changes: fc.array(fc.tuple(fc.constantFrom(...names), fc.nat(10_000)), { minLength: 1, maxLength: 12, size: 'max' }),
  /** How many words it may change; none for all that it wants. */
  limit: fc.option(fc.nat(60)),
});

test('a step that is cut off at any word is taken back wholly, and whatever is derived from the tables with it', () => {
  let failed = 0;
  let largest = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 30, size: 'max' }), (steps) => {
      const memory = memoryAt(0, new ArrayBuffer(bytesFor(SMALL)));
      let tables = new Tables(memory, SMALL);
      tables.lookUp(1, true);
      tables.journal.commit();
      const from = journalBytes(SMALL.pairs);
      for (const { changes: wanted, limit } of steps) {
        const { journal } = tables;
        let before = Buffer.from(memory.bytes.subarray(from));
        let derived = tables.derived();
        Object.assign(journal, { limit: limit ?? SMALL.pairs });
        const { commit } = journal;
        // Part of a message is a step of its own.
        journal.commit = () => {
          commit.call(journal);
          before = Buffer.from(memory.bytes.subarray(from));
          derived = new Tables(memory, SMALL).derived();
        };
        try {
          for (const [name, n] of wanted) changes[name]?.(tables, n);
          journal.commit();
        } catch (error) {
          assert.match(String(error), /a step changes more than/);
          failed++;
          journal.rollback();
          assert.equal(journal.changed, 0);
          assert.equal(before.compare(memory.bytes.subarray(from)), 0, 'every word is what it was');
          tables = new Tables(memory, SMALL);
          assert.deepEqual(tables.derived(), derived);
        }
        largest = Math.max(largest, tables.journal.largest);
        assert.equal(tables.flaw(), undefined);
      }
    }),
    { numRuns: 100 },
  );
  assert.ok(failed > 100, `${failed} steps failed`);
  assert.ok(largest > 60);
});

/**
 * The largest steps. A listing answers with what one getdents64 of 64 KiB brings, 24 bytes an entry at the least; the others are bounded
 * by constants beside them (FORGETS_PER_STEP, DROP_STEP, SOME, MAX_LOCKS). Everything else changes some rows.
 */
test('the largest steps take a small part of the journal', () => {
  const sizes: Sizes = { pairs: PAIRS, nodes: 8192, opens: 8, mappings: 4096, locks: MAX_LOCKS };
  const tables = new Tables(memoryAt(0, new ArrayBuffer(bytesFor(sizes))), sizes);
  const { journal, nodes, mappings, backing } = tables;
  const measure = (what: () => void): number => {
    what();
    const { changed } = journal;
    journal.commit();
    return changed;
  };
  tables.lookUp(1, true);
  journal.commit();
  const entries = Math.floor(65_536 / 24);
  const slots: number[] = [];
  // Each a directory that gets a number as a domain.
  const listing = measure(() => {
    for (let i = 0; i < entries; i++) slots.push(tables.lookUp(100 + i, true));
  });
  assert.ok(listing > 15 * entries && listing < PAIRS / 4, `READDIRPLUS changes ${listing} words`);
  for (const slot of slots) {
    nodes.detach(slot);
    backing.ofNodes.keep(slot, nodes.generation(slot), slot + 1);
  }
  journal.commit();
  const forgetting = measure(() => {
    for (const slot of slots.slice(0, 1024)) {
      const generation = nodes.generation(slot);
      assert.ok(nodes.forget(slot, 1));
      backing.ofNodes.drop(slot, generation);
    }
  });
  assert.ok(forgetting > 5 * 1024 && forgetting < PAIRS / 32, `1,024 FORGETs change ${forgetting} words`);
  for (let i = 0; i < 64; i++) changes['share']?.(tables, i * 5 + 1);
  journal.commit();
  const dropping = measure(() => {
    while (mappings.idle > 0) changes['dropIdle']?.(tables, 0);
  });
  assert.ok(dropping > 64 * 5 && dropping < PAIRS / 128, `dropping 64 mappings changes ${dropping} words`);
  assert.ok(measure(() => backing.dropAll()) < PAIRS / 64, 'all registrations that are kept');
  // No word of a row is zero.
  const far = 2n ** 40n + 1n;
  const owner = new Owner(far, 'process', Number(far), 1, ROOT);
  const ranges = Array.from(
    { length: MAX_LOCKS },
    (_, i) => new Range(far + BigInt(2 * i), far + BigInt(2 * i), c.F_WRLCK),
  );
  const locking = measure(() => {
    for (const range of ranges) tables.locks.addRange(owner, range);
  });
  const ending = measure(() => {
    for (const { row } of ranges) tables.locks.give(row);
  });
  assert.equal(tables.locks.count, 0);
  assert.ok(
    ending > MAX_LOCKS && ending < (3 * PAIRS) / 4,
    `the end of all locks changes ${ending} words, their start ${locking}`,
  );
});
