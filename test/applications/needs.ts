/** What a case needs that a machine may not have, how to find out, and where it comes from. */

import { spawnSync } from 'node:child_process';

/** Debian's own Python: it sees the modules that Debian's packages bring. */
export const PYTHON = '/usr/bin/python3';

interface Source {
  /** A command that succeeds where it is there. */
  readonly probe: readonly [command: string, ...args: string[]];
  readonly package: string;
}

const sources = {
  python: { probe: [PYTHON, '-c', 'import sqlite3, fcntl; fcntl.F_OFD_SETLK'], package: 'python3' },
  gdbm: { probe: [PYTHON, '-c', 'import dbm.gnu'], package: 'python3-gdbm' },
  lmdb: { probe: [PYTHON, '-c', 'import lmdb'], package: 'python3-lmdb' },
  sqlite3: { probe: ['sqlite3', '--version'], package: 'sqlite3' },
  rsyslogd: { probe: ['rsyslogd', '-v'], package: 'rsyslog' },
  qemu: { probe: ['sh', '-c', 'qemu-io --version && qemu-img --version'], package: 'qemu-utils' },
  git: { probe: ['git', '--version'], package: 'git' },
  dpkg: { probe: ['sh', '-c', 'dpkg --version && dpkg-deb --version'], package: 'dpkg' },
  ed: { probe: ['ed', '--version'], package: 'ed' },
  vim: { probe: ['vim.tiny', '--version'], package: 'vim-tiny' },
  perl: { probe: ['perl', '-v'], package: 'perl' },
  bash: { probe: ['bash', '--version'], package: 'bash' },
  dash: { probe: ['dash', '-c', ':'], package: 'dash' },
  flock: { probe: ['flock', '--version'], package: 'util-linux' },
} as const satisfies Readonly<Record<string, Source>>;

export type Need = keyof typeof sources;

const known = new Map<Need, string | undefined>();

/** Undefined when it is there, else why not. */
export function lacking(need: Need): string | undefined {
  if (!known.has(need)) {
    const { probe, package: name } = sources[need];
    const [command, ...args] = probe;
    const { status } = spawnSync(command, args, { stdio: 'ignore', timeout: 20_000 });
    known.set(need, status === 0 ? undefined : `${need} is missing: scripts/setup installs Debian's package ${name}`);
  }
  return known.get(need);
}
