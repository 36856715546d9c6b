/**
 * What of a server outlives its process: one memory file, whose descriptor the supervisor keeps, with all tables, the request
 * being read and the reply being sent. A later server maps it again and goes on (`takeover.ts`).
 *
 *     journal │ header │ nodes │ progress │ input │ output │ open files │ mappings │ domains │ kept backing files │ locks
 *
 * A file of another layout, or one whose tables contradict themselves, is refused.
 */

import { errnoText } from '../base/errno.ts';
import { Journal, journalBytes, type WordIndex } from '../base/journal.ts';
import type { Memory } from '../base/memory.ts';
import { DOMAINS_WORDS, Domains } from '../filesystem/domains.ts';
import { LockRows, lockTableWords, MAX_LOCKS } from '../filesystem/locks/rows.ts';
import { NodeTable, nodeTableWords } from '../filesystem/nodes.ts';
import { MAX_OPEN, OpenTable, openTableWords } from '../filesystem/opens.ts';
import { INTENT_WORDS } from '../filesystem/repeats.ts';
import { KEPT_WORDS } from '../fuse/server/backing.ts';
import { Progress } from '../fuse/server/progress.ts';
import { BUFFER_BYTES } from '../fuse/server/session.ts';
import { MappingRows, mappingRowsWords } from '../mappings/rows.ts';
import { allocateShared, mapShared, sharedBytes } from '../sys/memory.ts';
import type { MountOptions } from './options.ts';

/** Changes with every change of the layout or of what the words mean. */
export const STATE_VERSION = 4;
const MAGIC = 0x5e7ed387;

/**
 * The most words that one step changes. The largest steps, of which `test/daemon/steps.test.ts` measures each: the end of a process
 * that held all 65,536 locks is 15 words for each; a READDIRPLUS, which answers with what one getdents64 of 64 KiB brings, is
 * 2,730 new nodes at the most, of some 20 words each; 1,024 nodes forgotten are some 8 words each; 64 mappings dropped, some 10;
 * all 4,096 registrations that are kept for a moment, one.
 */
export const PAIRS = 1 << 21;

/** Words of the header. */
const HEADER = { magic: 0, version: 1, nodes: 2, mappings: 3, bytes: 4, takeovers: 5, backing: 6, intent: 8 } as const;
const HEADER_WORDS = HEADER.intent + INTENT_WORDS;

export interface State {
  readonly fd: number;
  readonly journal: Journal;
  readonly progress: Progress;
  readonly input: Memory;
  readonly output: Memory;
  readonly nodes: NodeTable;
  readonly opens: OpenTable;
  readonly mappings: MappingRows;
  /** The word that says which backing id was the last to be registered. */
  readonly backing: WordIndex;
  readonly intent: WordIndex;
  readonly domains: Domains;
  readonly locks: LockRows;
  /** Where the backing ids are that are kept for a moment. */
  readonly kept: WordIndex;
  /** How often another server has taken the mount over. */
  readonly takeovers: number;
}

function stateBytes(options: MountOptions): number {
  const words =
    HEADER_WORDS +
    nodeTableWords(options.maxNodes) +
    openTableWords(MAX_OPEN) +
    mappingRowsWords(options.maxMappings) +
    DOMAINS_WORDS +
    KEPT_WORDS +
    lockTableWords(MAX_LOCKS) +
    (2 * BUFFER_BYTES) / 4 +
    1024;
  return journalBytes(PAIRS) + words * 4;
}

function layOut(memory: Memory, fd: number, options: MountOptions): State {
  const journal = new Journal(memory, PAIRS);
  const header = journal.take(HEADER_WORDS);
  const { words } = journal;
  const nodes = new NodeTable(journal, options.maxNodes);
  return {
    fd,
    journal,
    progress: new Progress(journal),
    input: journal.takeBytes(BUFFER_BYTES),
    output: journal.takeBytes(BUFFER_BYTES),
    nodes,
    opens: new OpenTable(journal, MAX_OPEN),
    mappings: new MappingRows(journal, options.maxMappings),
    backing: header + HEADER.backing,
    intent: header + HEADER.intent,
    domains: new Domains(options.domain, journal, journal.take(DOMAINS_WORDS), nodes),
    kept: journal.take(KEPT_WORDS),
    locks: new LockRows(journal, MAX_LOCKS),
    takeovers: words[header + HEADER.takeovers] ?? 0,
  };
}

/** The header of a file: where it lies doesn't depend on any option. */
function headerOf(memory: Memory): WordIndex {
  return new Journal(memory, PAIRS).take(HEADER_WORDS);
}

export function makeState(options: MountOptions): State {
  const bytes = stateBytes(options);
  const { memory, fd } = allocateShared('state', bytes);
  const { words } = new Journal(memory, PAIRS);
  const at = headerOf(memory);
  words[at + HEADER.version] = STATE_VERSION;
  words[at + HEADER.nodes] = options.maxNodes;
  words[at + HEADER.mappings] = options.maxMappings;
  words[at + HEADER.bytes] = bytes >>> 0;
  words[at + HEADER.magic] = MAGIC;
  return layOut(memory, fd, options);
}

/** Maps what an earlier server left. @throws Error that says why it isn't trusted. */
export function openState(fd: number, options: MountOptions): State {
  const wanted = stateBytes(options);
  const bytes = sharedBytes(fd);
  if (bytes < 0) throw new Error(`its memory file can't be looked at: ${errnoText(bytes)}`);
  if (bytes < journalBytes(PAIRS) + 4 * HEADER_WORDS) throw new Error(`its memory file has ${bytes} bytes only`);
  const memory = mapShared('state', fd, bytes);
  const { words } = new Journal(memory, PAIRS);
  const at = headerOf(memory);
  const found = (word: number): number => words[at + word] ?? 0;
  if (found(HEADER.magic) !== MAGIC) throw new Error('its memory file was not made by sharedext');
  if (found(HEADER.version) !== STATE_VERSION) {
    throw new Error(`its state has version ${found(HEADER.version)}, and this program knows version ${STATE_VERSION}`);
  }
  const same =
    found(HEADER.nodes) === options.maxNodes &&
    found(HEADER.mappings) === options.maxMappings &&
    found(HEADER.bytes) === wanted >>> 0 &&
    bytes === wanted;
  if (!same) throw new Error('its memory file is one of other mount options');
  if ((words[0] ?? 0) > PAIRS) throw new Error(`its journal has ${words[0]} entries, more than fit`);
  words[at + HEADER.takeovers] = found(HEADER.takeovers) + 1;
  return layOut(memory, fd, options);
}

/** What contradicts itself in the tables, once they are rolled back. */
export function flawOf({ nodes, opens, mappings, locks }: State): string | undefined {
  const inNodes = nodes.flaw();
  if (inNodes !== undefined) return `the table of nodes is damaged: ${inNodes}`;
  const inOpens = opens.flaw(nodes);
  if (inOpens !== undefined) return `the table of open files is damaged: ${inOpens}`;
  const inLocks = locks.flaw(nodes);
  if (inLocks !== undefined) return `the table of locks is damaged: ${inLocks}`;
  const inMappings = mappings.flaw();
  return inMappings === undefined ? undefined : `the table of mappings is damaged: ${inMappings}`;
}
