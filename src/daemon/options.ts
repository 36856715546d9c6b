/**
 * Mount options: what `-o` takes. One table; the parser, the error for an unknown word, `--help` and the man page read it.
 */

import { UserError } from '../base/errno.ts';
import * as c from '../base/linux.ts';
import type { DomainRule } from '../filesystem/domains.ts';
import type { ShareRule } from '../filesystem/routes/choose.ts';

/** Words that every mount takes, with the flag of mount(2) that each sets or clears. */
const flags: Readonly<Record<string, { readonly set?: number; readonly clear?: number }>> = {
  rw: { clear: 1 },
  ro: { set: 1 },
  suid: { clear: 2 },
  nosuid: { set: 2 },
  dev: { clear: 4 },
  nodev: { set: 4 },
  exec: { clear: 8 },
  noexec: { set: 8 },
  async: { clear: c.MS_SYNCHRONOUS },
  sync: { set: c.MS_SYNCHRONOUS },
  dirsync: { set: c.MS_DIRSYNC },
  atime: { clear: c.MS_NOATIME },
  noatime: { set: c.MS_NOATIME, clear: c.MS_RELATIME | c.MS_STRICTATIME },
  diratime: { clear: c.MS_NODIRATIME },
  nodiratime: { set: c.MS_NODIRATIME },
  relatime: { set: c.MS_RELATIME, clear: c.MS_NOATIME | c.MS_STRICTATIME },
  norelatime: { clear: c.MS_RELATIME },
  strictatime: { set: c.MS_STRICTATIME, clear: c.MS_NOATIME | c.MS_RELATIME },
  lazytime: { set: 1 << 25 },
  nolazytime: { clear: 1 << 25 },
};

/** The flags that words set, of those that the kernel shows of a mount; other words say nothing here. */
export function flagsOf(words: readonly string[]): number {
  return words.reduce((sum, word) => sum | (Object.hasOwn(flags, word) ? (flags[word]?.set ?? 0) : 0), 0);
}

/** The flags that a word sets or clears. */
export function flagsNamedBy(word: string): number {
  const flag = Object.hasOwn(flags, word) ? flags[word] : undefined;
  return (flag?.set ?? 0) | (flag?.clear ?? 0);
}

/** Words for mount(8), systemd and fstab, which say nothing to a filesystem. */
const ignored = new Set([
  'defaults',
  'auto',
  'noauto',
  'user',
  'nouser',
  'users',
  'owner',
  'group',
  'nofail',
  '_netdev',
  'allow_other',
  'default_permissions',
]);

export interface OptionHelp {
  readonly name: string;
  readonly value?: string;
  readonly help: string;
}

/** sharedext's own options. */
export const ownOptions: readonly OptionHelp[] = [
  { name: 'sharedext', help: 'share the page cache of files with shared extents (the default)' },
  { name: 'nosharedext', help: 'the same mount without sharing: every file has its own page cache' },
  {
    name: 'store',
    value: 'DIR',
    help: 'keep the clones in DIR/.sharedext, on the same filesystem (default: below the source)',
  },
  {
    name: 'cache',
    value: 'auto|none|unlimited|SECONDS',
    help: 'how long the kernel may keep names and attributes (auto: 1 second, unlimited when mounted over the source)',
  },
  {
    name: 'settle',
    value: 'MS',
    help: 'share a file only when its content is unchanged for so many milliseconds (default 1000)',
  },
  { name: 'mappings', value: 'N', help: 'the most shared mappings at a time (default 131072)' },
  {
    name: 'floor',
    value: 'BYTES|N%',
    help: 'free space below which idle clones are dropped and none is made (default 2%, at most 1G)',
  },
  {
    name: 'composed',
    value: 'SIZE|off',
    help: 'share files of at least this size extent by extent where they have diverged (default 4m)',
  },
  {
    name: 'composedshare',
    value: 'N%',
    help: 'how much of such a file must be shared (default 10%)',
  },
  {
    name: 'domain',
    value: 'mount|subvolume|uid|dir',
    help: 'who shares with whom: all files (mount, the default), or those of one btrfs subvolume, of one owner, or below one directory of the source',
  },
  {
    name: 'share',
    value: 'all|text|readonly|none',
    help: 'what is shared: all files (the default), programs and libraries only (text), only what cannot be written through the mount (readonly), or nothing',
  },
  {
    name: 'live',
    value: 'GLOB[:GLOB…]',
    help: 'names of files that are written in place while others read them, and so are never shared, beside logs, databases and disk images, which are known',
  },
  { name: 'backing', value: 'N', help: 'the most files registered for passthrough at a time (default 262144)' },
  { name: 'nodes', value: 'N', help: 'the most inodes that the kernel may know (default 16777216)' },
  {
    name: 'spin',
    value: 'US',
    help: 'how many microseconds the next request is looked for before the server sleeps, where that pays (default 200, 0: never)',
  },
  {
    name: 'idle',
    value: 'auto|poll|sleep',
    help: 'what processors without work do while requests come in a stream: poll, so that none has to be woken, or sleep (auto: poll on a machine with at most 4)',
  },
  { name: 'nosubtype', help: 'show the type "fuse" instead of "fuse.sharedext", for tools that compare it' },
];

export const genericWords: readonly string[] = [...Object.keys(flags), ...ignored];

/** What processors without work do while requests come in a stream. */
export type IdleOption = 'auto' | 'poll' | 'sleep';

export type ShareOption = ShareRule | 'none';

export type CacheOption = 'auto' | 'none' | 'unlimited' | number;

export interface MountOptions {
  readonly share: ShareOption;
  /** Globs of names of files that are never shared. */
  readonly live: readonly string[];
  /** Flags of mount(2). */
  readonly flags: number;
  /** Those of them that a word sets or clears; the others are as they are on the source's own mount, or not set. */
  readonly flagsGiven: number;
  readonly store: string | undefined;
  readonly cache: CacheOption;
  readonly settleMs: number;
  readonly maxMappings: number;
  readonly floor: { readonly bytes: number } | { readonly percent: number };
  /** The least size of a file that is composed, in bytes; undefined when none is. */
  readonly composed: number | undefined;
  /** How much of it must be shared, in percent. */
  readonly composedShare: number;
  readonly domain: DomainRule;
  readonly spinUs: number;
  readonly idle: IdleOption;
  readonly maxBacking: number;
  readonly maxNodes: number;
  readonly subtype: boolean;
}

/** Some 68 years: what "unlimited" is, too. */
const MAX_CACHE_SECONDS = 2 ** 31;

const suffixes: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

function wrong(name: string, value: string, wanted: string): UserError {
  return new UserError(`Cannot use the option ${name}=${value}: it wants ${wanted}`);
}

function whole(name: string, value: string, least: number, most: number): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < least || number > most) {
    throw wrong(name, value, `a whole number from ${least} to ${most}`);
  }
  return number;
}

function floorOf(value: string): MountOptions['floor'] {
  const percent = percentOf(value);
  if (percent !== undefined) return { percent };
  const bytes = bytesOf(value);
  if (bytes === undefined) throw wrong('floor', value, 'bytes (with k, m, g or t) or a percentage up to 100%');
  return { bytes };
}

function percentOf(value: string): number | undefined {
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(value)?.[1];
  return percent !== undefined && Number(percent) <= 100 ? Number(percent) : undefined;
}

function bytesOf(value: string): number | undefined {
  const match = /^(\d+)([kmgt]?)$/i.exec(value);
  const bytes = Number(match?.[1]) * (suffixes[(match?.[2] ?? '').toLowerCase()] ?? 1);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function composedOf(value: string): number | undefined {
  if (value === 'off') return undefined;
  const bytes = bytesOf(value);
  if (bytes === undefined) throw wrong('composed', value, 'bytes (with k, m, g or t) or off');
  return bytes;
}

function shareOf(value: string): number {
  const percent = percentOf(value);
  if (percent === undefined) throw wrong('composedshare', value, 'a percentage up to 100%');
  return percent;
}

function domainOf(value: string): DomainRule {
  if (value === 'mount' || value === 'subvolume' || value === 'uid' || value === 'dir') return value;
  throw wrong('domain', value, 'mount, subvolume, uid or dir');
}

function shareRuleOf(value: string): ShareOption {
  if (value === 'all' || value === 'text' || value === 'readonly' || value === 'none') return value;
  throw wrong('share', value, 'all, text, readonly or none');
}

/** Globs of names: a name has no slash. */
function globsOf(value: string): string[] {
  const globs = value.split(':');
  if (globs.some((glob) => glob === '' || glob.includes('/'))) {
    throw wrong('live', value, 'globs of file names, without slashes, separated by colons');
  }
  return globs;
}

function idleOf(value: string): IdleOption {
  if (value === 'auto' || value === 'poll' || value === 'sleep') return value;
  throw wrong('idle', value, 'auto, poll or sleep');
}

function cacheOf(value: string): CacheOption {
  if (value === 'auto' || value === 'none' || value === 'unlimited') return value;
  const seconds = Number(value);
  if (!/^\d+(\.\d+)?$/.test(value) || seconds > MAX_CACHE_SECONDS) {
    throw wrong('cache', value, `auto, none, unlimited or a number of seconds up to ${MAX_CACHE_SECONDS}`);
  }
  return seconds;
}

type Draft = { -readonly [K in keyof MountOptions]: MountOptions[K] };

/**
 * Parses comma-separated words, those of several `-o` in order: the last one wins, as with mount(8).
 *
 * @throws UserError for an unknown word, naming the known ones, and for a value that doesn't fit.
 */
export function parseOptions(texts: readonly string[]): MountOptions {
  const draft: Draft = {
    share: 'all',
    live: [],
    flags: 0,
    flagsGiven: 0,
    store: undefined,
    cache: 'auto',
    settleMs: 1000,
    maxMappings: 131_072,
    floor: { percent: 2 },
    composed: 4 * 2 ** 20,
    composedShare: 10,
    domain: 'mount',
    spinUs: 200,
    idle: 'auto',
    maxBacking: 262_144,
    maxNodes: 2 ** 24,
    subtype: true,
  };
  for (const word of texts.flatMap((text) => text.split(','))) {
    if (word !== '') applyOption(draft, word);
  }
  return draft;
}

function applyOption(draft: Draft, word: string): void {
  const equals = word.indexOf('=');
  const name = equals < 0 ? word : word.slice(0, equals);
  const value = equals < 0 ? undefined : word.slice(equals + 1);
  const known = ownOptions.find((option) => option.name === name);
  if (known !== undefined && (known.value === undefined) !== (value === undefined)) {
    throw new UserError(
      known.value === undefined
        ? `Cannot use the option ${word}: ${name} takes no value`
        : `Cannot use the option ${word}: write ${name}=${known.value}`,
    );
  }
  if (value === undefined) {
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
    if (flag !== undefined) {
      draft.flags = (draft.flags & ~(flag.clear ?? 0)) | (flag.set ?? 0);
      draft.flagsGiven |= flagsNamedBy(name);
    } else if (name === 'sharedext') draft.share = 'all';
    else if (name === 'nosharedext') draft.share = 'none';
    else if (name === 'nosubtype') draft.subtype = false;
    else if (name === 'remount') throw new UserError('Cannot remount: unmount, and mount again with the new options');
    else if (!ignored.has(name) && !name.startsWith('x-')) throw unknown(word);
    return;
  }
  switch (name) {
    case 'store':
      if (value === '') throw wrong(name, value, 'a directory');
      draft.store = value;
      return;
    case 'cache':
      draft.cache = cacheOf(value);
      return;
    case 'settle':
      draft.settleMs = whole(name, value, 0, 86_400_000);
      return;
    case 'mappings':
      draft.maxMappings = whole(name, value, 1, 2 ** 22);
      return;
    case 'floor':
      draft.floor = floorOf(value);
      return;
    case 'composed':
      draft.composed = composedOf(value);
      return;
    case 'composedshare':
      draft.composedShare = shareOf(value);
      return;
    case 'domain':
      draft.domain = domainOf(value);
      return;
    case 'share':
      draft.share = shareRuleOf(value);
      return;
    case 'live':
      draft.live = [...draft.live, ...globsOf(value)];
      return;
    case 'spin':
      draft.spinUs = whole(name, value, 0, 10_000);
      return;
    case 'idle':
      draft.idle = idleOf(value);
      return;
    case 'backing':
      draft.maxBacking = whole(name, value, 0, 2 ** 24);
      return;
    case 'nodes':
      draft.maxNodes = whole(name, value, 1024, 2 ** 25);
      return;
    default:
      if (!name.startsWith('x-') && name !== 'comment') throw unknown(word);
  }
}

function unknown(word: string): UserError {
  const own = ownOptions.map((option) => (option.value === undefined ? option.name : `${option.name}=`));
  return new UserError(
    `Cannot use the option ${word}: unknown; known are ${own.join(', ')} and the generic ${genericWords.join(', ')}`,
  );
}
