/**
 * What a daemon has to say, one line each, on standard error:
 *
 *     sharedext: warning: takeover: the server of /mnt ended unexpectedly    for people
 *     <4>sharedext: takeover: the server of …                              for the journal, which reads the level: sd-daemon(3)
 *     {"time":"…","level":"warning","event":"takeover","message":"…"}      for programs (SHAREDEXT_LOG_FORMAT=json)
 */

import { fstatSync } from 'node:fs';

/** By urgency, with the priority of syslog(3). */
const priorities = { error: 3, warning: 4, notice: 5 } as const;

export type Level = keyof typeof priorities;

/** What a message is about: for filters. */
export type Event = 'mount' | 'takeover' | 'request' | 'control' | 'unmount' | 'sharing';

export type Log = (level: Level, event: Event, message: string) => void;

export type Format = 'text' | 'journal' | 'json';

/** `standardError` is "device:inode" of what standard error is: systemd.exec(5), JOURNAL_STREAM. */
export function formatOf(environment: NodeJS.ProcessEnv, standardError: string): Format {
  const { SHAREDEXT_LOG_FORMAT, JOURNAL_STREAM } = environment;
  if (SHAREDEXT_LOG_FORMAT === 'json') return 'json';
  return JOURNAL_STREAM === standardError ? 'journal' : 'text';
}

export function lineOf(format: Format, now: () => Date, level: Level, event: Event, message: string): string {
  switch (format) {
    case 'json':
      return JSON.stringify({ time: now().toISOString(), level, event, message });
    case 'journal':
      // Each line of the journal is an entry of its own.
      return message
        .split('\n')
        .map((line) => `<${priorities[level]}>sharedext: ${event}: ${line}`)
        .join('\n');
    case 'text':
      return `sharedext: ${level}: ${event}: ${message}`;
  }
}

let format: Format | undefined;

function ownFormat(): Format {
  try {
    const { dev, ino } = fstatSync(process.stderr.fd);
    return formatOf(process.env, `${dev}:${ino}`);
  } catch {
    return formatOf(process.env, '');
  }
}

/** Never throws: whoever reads standard error may be gone. */
export const log: Log = (level, event, message) => {
  format ??= ownFormat();
  process.stderr.write(`${lineOf(format, () => new Date(), level, event, message)}\n`);
};
