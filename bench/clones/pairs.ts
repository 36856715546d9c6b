/** Two versions of one thing, unpacked into two folders as a registry has them, or made. */

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../src/base/errno.ts';
import { run } from '../../src/demo/commands.ts';

export interface Pair {
  readonly name: string;
  /** What differs, for the text. */
  readonly what: string;
  /** Puts the two versions into two empty folders. `scratch` stays for the other pairs. @throws UserError */
  fetch(older: string, newer: string, scratch: string, signal: AbortSignal): Promise<void>;
}

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

function codename(): string {
  const text = readFileSync('/etc/os-release', 'utf8');
  const name = /^VERSION_CODENAME=(\w+)/m.exec(text)?.[1];
  if (!/^ID=debian$/m.test(text) || name === undefined) {
    throw new UserError('Cannot unpack two versions of an image: this is no Debian, whose archives have both');
  }
  return name;
}

/** Options that give apt-get a state of its own, with an empty machine in it. */
function aptOptions(folder: string): string[] {
  return [
    '-qq',
    `-oDir::Etc::SourceList=${join(folder, 'sources.list')}`,
    '-oDir::Etc::SourceParts=/dev/null',
    `-oDir::State::Lists=${join(folder, 'lists')}`,
    `-oDir::State::status=${join(folder, 'status')}`,
    `-oDir::Cache=${join(folder, 'cache')}`,
    '-oAPT::Sandbox::User=root',
    '-oAcquire::Retries=2',
  ];
}

/** An archive as it was released, or with the updates since then. */
async function aptState(scratch: string, updated: boolean, signal: AbortSignal): Promise<string> {
  const folder = join(scratch, updated ? 'updated' : 'released');
  try {
    readFileSync(join(folder, 'status'));
    return folder;
  } catch {
    // It is made now.
  }
  const name = codename();
  const line = (archive: string, suite: string): string =>
    `deb [signed-by=${KEYRING}] http://deb.debian.org/${archive} ${suite} main\n`;
  for (const part of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(folder, part), { recursive: true });
  const updates = line('debian', `${name}-updates`) + line('debian-security', `${name}-security`);
  writeFileSync(join(folder, 'sources.list'), line('debian', name) + (updated ? updates : ''));
  writeFileSync(join(folder, 'status'), '');
  try {
    await run('apt-get', [...aptOptions(folder), 'update'], signal);
  } catch (error) {
    rmSync(join(folder, 'status'));
    throw error;
  }
  return folder;
}

/** A root with the essential packages, one more, and what these depend on. */
async function unpackRoot(target: string, name: string, state: string, signal: AbortSignal): Promise<void> {
  const archives = join(state, 'cache', name);
  mkdirSync(join(archives, 'partial'), { recursive: true });
  const words = ['-y', '--download-only', '--no-install-recommends', 'install', '?essential', name];
  await run('apt-get', [...aptOptions(state), `-oDir::Cache::archives=${archives}`, ...words], signal);
  for (const file of readdirSync(archives).filter((entry) => entry.endsWith('.deb'))) {
    await run('dpkg-deb', ['-x', join(archives, file), target], signal);
  }
}

function debian(name: string, shown = name): Pair {
  return {
    name: `${shown} on Debian`,
    what: `Debian's essential packages and \`${name}\` with what it needs: as released, and with all updates since`,
    async fetch(older, newer, scratch, signal) {
      await unpackRoot(older, name, await aptState(scratch, false, signal), signal);
      await unpackRoot(newer, name, await aptState(scratch, true, signal), signal);
    },
  };
}

function npm(name: string, older: string, newer: string): Pair {
  const unpack = async (version: string, target: string, scratch: string, signal: AbortSignal): Promise<void> => {
    const words = ['pack', `${name}@${version}`, '--silent', '--pack-destination', scratch];
    const file = (await run('npm', words, signal)).trim();
    await run('tar', ['-xzf', join(scratch, file), '-C', target], signal);
  };
  return {
    name: `${name} (npm)`,
    what: `${older} and ${newer}`,
    async fetch(first, second, scratch, signal) {
      await unpack(older, first, scratch, signal);
      await unpack(newer, second, scratch, signal);
    },
  };
}

/** Needs no network: some files are the same, of some a part is, and some differ. */
const made: Pair = {
  name: 'made files',
  what: 'files of 64 KiB and one of 8 MiB, a quarter of which differs',
  async fetch(older, newer) {
    const block = (text: string, bytes: number): Buffer => {
      const lines = Array.from({ length: bytes / 64 }, (_, i) => `${text} ${i} `.padEnd(64, '.'));
      return Buffer.from(lines.join(''));
    };
    const MIB = 1024 ** 2;
    for (const [version, folder] of [older, newer].entries()) {
      for (let i = 0; i < 16; i++) {
        const text = i % 4 === 0 ? `${version}` : '';
        writeFileSync(join(folder, String(i)), block(`${i} ${text}`, MIB / 16));
      }
      const parts = Array.from({ length: 8 }, (_, i) => block(`large ${i} ${i < 2 ? version : ''}`, MIB));
      writeFileSync(join(folder, 'large'), Buffer.concat(parts));
    }
  },
};

export const shortPairs: readonly Pair[] = [made];

/** The first four are what the EROFS series measured as well, by name. */
export const pairs: readonly Pair[] = [
  debian('redis-server', 'redis'),
  debian('postgresql', 'postgres'),
  debian('nginx'),
  debian('tomcat10', 'tomcat'),
  npm('next', '15.5.2', '15.5.3'),
  npm('typescript', '5.8.3', '5.9.2'),
  npm('@biomejs/cli-linux-x64', '2.4.14', '2.4.15'),
];
