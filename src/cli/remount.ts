/**
 * `-o remount`, as mount(8) asks for it: changes the generic flags of a mount that the kernel acts on. Those that the server acts on
 * stay, as sharedext's own options do: the kernel would show the change, and tell nobody of it.
 */

import { errnoText, UserError } from '../base/errno.ts';
import { MS_DIRSYNC, MS_REMOUNT, MS_STRICTATIME, MS_SYNCHRONOUS } from '../base/linux.ts';
import { askDaemon } from '../daemon/control.ts';
import { flagsNamedBy, flagsOf, type MountOptions, ownOptions, parseOptions } from '../daemon/options.ts';
import { mount } from '../sys/libc.ts';
import { ACCESS_RULES, ACCESS_TIMES, type MountEntry } from '../sys/mounts.ts';
import { findMount } from './mountpath.ts';

const SERVERS_FLAGS = ACCESS_TIMES | MS_SYNCHRONOUS | MS_DIRSYNC;
const ANSWER_TIMEOUT_MS = 2000;

/** What the kernel shows as options of every FUSE mount, which mount(8) hands back. */
const shownByKernel = new Set(['remount', 'fd', 'rootmode', 'user_id', 'group_id', 'max_read', 'blksize']);

/** @throws UserError */
export async function remount(mountpoint: string, texts: readonly string[]): Promise<void> {
  const words = texts.flatMap((text) => text.split(',')).filter((word) => !shownByKernel.has(word.split('=')[0] ?? ''));
  const wanted = parseOptions(words);
  const entry = findMount('remount', mountpoint);
  const own = words.filter((word) => ownOptions.some(({ name }) => name === word.split('=')[0]));
  if (own.length > 0) {
    const answer = await askDaemon(entry.minor, 'status', ANSWER_TIMEOUT_MS);
    for (const word of own)
      if (answer.state !== 'answered' || changes(word, answer.value)) throw refusal(word, entry.mountpoint);
  }
  const current = currentFlags(entry);
  const changed = wanted.flagsGiven & SERVERS_FLAGS & (wanted.flags ^ current);
  const changing = words.findLast((word) => (flagsNamedBy(word) & changed) !== 0);
  if (changing !== undefined) throw refusal(changing, entry.mountpoint);
  const flags = MS_REMOUNT | (wanted.flags & ~SERVERS_FLAGS) | (current & SERVERS_FLAGS);
  const result = mount(entry.source, entry.mountpoint, entry.type, flags, '');
  if (result < 0) throw new UserError(`Cannot remount ${entry.mountpoint}: ${errnoText(result)}`);
}

/** The flags that the kernel shows of a mount. It has no word for access times that move with each access. */
function currentFlags({ options, superOptions }: MountEntry): number {
  const flags = flagsOf([...options.split(','), ...superOptions.split(',')]);
  return (flags & ACCESS_RULES) === 0 ? flags | MS_STRICTATIME : flags;
}

function refusal(word: string, mountpoint: string): UserError {
  return new UserError(
    `Cannot change ${word} of the mount on ${mountpoint}: unmount, and mount again with the new options`,
  );
}

/** Whether a word asks for another value than the mount has. */
function changes(word: string, status: unknown): boolean {
  if (typeof status !== 'object' || status === null || !('options' in status)) return true;
  const wanted = parseOptions([word]);
  const field = fieldOf(word.split('=')[0] ?? '');
  const { options } = status;
  if (typeof options !== 'object' || options === null) return true;
  const current: unknown = new Map(Object.entries(options)).get(field);
  return JSON.stringify(current) !== JSON.stringify(wanted[field]);
}

function fieldOf(name: string): keyof MountOptions {
  const fields: Readonly<Record<string, keyof MountOptions>> = {
    sharedext: 'share',
    nosharedext: 'share',
    store: 'store',
    cache: 'cache',
    settle: 'settleMs',
    mappings: 'maxMappings',
    floor: 'floor',
    domain: 'domain',
    composed: 'composed',
    composedshare: 'composedShare',
    spin: 'spinUs',
    idle: 'idle',
    backing: 'maxBacking',
    nodes: 'maxNodes',
    nosubtype: 'subtype',
  };
  const field = fields[name];
  if (field === undefined) throw new Error(`the option ${name} has no field`);
  return field;
}
