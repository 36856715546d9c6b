/** dpkg in a root of its own: packages are installed, upgraded and removed beside a process that reads what they replace. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Case, lines, put, type Subject } from './case.ts';
import { outcome, output, shell } from './processes.ts';
import { python } from './python.ts';

interface Package {
  readonly name: string;
  readonly version: string;
  readonly depends?: string;
}

const packages: readonly Package[] = [
  { name: 'one', version: '1' },
  { name: 'one', version: '2' },
  { name: 'two', version: '1', depends: 'one (>= 2)' },
];

/** Builds `name_version.deb`: a file of data that tells of its version, a program and a configuration file. */
async function build(dir: string, { name, version, depends }: Package): Promise<void> {
  const tree = join(dir, `${name}-${version}`);
  for (const folder of ['DEBIAN', `usr/share/${name}`, 'usr/bin', 'etc'])
    mkdirSync(join(tree, folder), { recursive: true });
  const fields = [
    `Package: ${name}`,
    `Version: ${version}`,
    'Architecture: all',
    'Maintainer: A <a@b>',
    'Description: a package',
    ...(depends === undefined ? [] : [`Depends: ${depends}`]),
  ];
  put(join(tree, 'DEBIAN', 'control'), `${fields.join('\n')}\n`);
  put(join(tree, 'DEBIAN', 'conffiles'), `/etc/${name}.conf\n`);
  put(join(tree, 'usr/share', name, 'data'), lines(`version ${version}`));
  put(join(tree, 'usr/bin', name), `#!/bin/sh\necho ${name} ${version}\n`, 0o755);
  put(join(tree, 'etc', `${name}.conf`), lines(`setting ${version}`));
  await output(dir, 'dpkg-deb', '--root-owner-group', '--build', tree, join(dir, `${name}_${version}.deb`));
  await output(dir, 'rm', '-r', tree);
}

/** The root has no programs of its own, and the packages no scripts: dpkg does everything itself. */
function dpkg(dir: string, ...args: readonly string[]): Promise<string> {
  return output(dir, 'dpkg', '--force-unsafe-io', `--root=${dir}/root`, '--log=/dev/null', ...args);
}

const system: Pick<Case, 'needs' | 'prepare'> = {
  needs: ['dpkg', 'python'],
  async prepare(dir) {
    for (const folder of ['info', 'updates', 'triggers']) {
      mkdirSync(join(dir, 'root/var/lib/dpkg', folder), { recursive: true });
    }
    for (const file of ['status', 'available']) put(join(dir, 'root/var/lib/dpkg', file), '');
    for (const one of packages) await build(dir, one);
    await dpkg(dir, '-i', 'one_1.deb');
  },
};

/** Reads the database and what is installed, and keeps all of it open, a map of the data included. */
const READING = `
import mmap
names = ['var/lib/dpkg/status', 'var/lib/dpkg/info/one.list', 'usr/share/one/data', 'usr/bin/one', 'etc/one.conf']
files = [open('root/' + name, 'rb') for name in names]
first = [file.read() for file in files]
pages = mmap.mmap(files[2].fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
def kept():
    return [file.seek(0) or file.read() == data for file, data in zip(files, first)] + [pages[:] == first[2]]
`;

/** What the database and the files say. */
async function state(dir: string): Promise<string> {
  const format = ['Package', 'Version', 'db:Status-Abbrev'].map((field) => `\${${field}} `).join('');
  const database = await output(dir, 'dpkg-query', `--admindir=${dir}/root/var/lib/dpkg`, '-W', '-f', `${format}\n`);
  const verified = await dpkg(dir, '--verify');
  const files = await shell(dir, 'cd root; find etc usr var/lib/dpkg/info -type f | sort | xargs md5sum');
  return `${database}${verified}${files}`;
}

export const dpkgCases: Subject = {
  subject: 'dpkg',
  cases: [
    {
      ...system,
      name: 'packages are upgraded, installed, removed and purged beside a reader of what they replace',
      async run(dir) {
        const reader = await python(dir, READING);
        const states = [await state(dir)];
        const steps: readonly (readonly string[])[] = [
          ['-i', 'one_2.deb'],
          ['-i', 'two_1.deb'],
          ['-i', '--force-downgrade', '--force-depends', 'one_1.deb'],
          ['-i', 'one_2.deb'],
          ['-r', 'two'],
          ['-P', 'two'],
        ];
        for (const step of steps) {
          await dpkg(dir, ...step);
          states.push(await state(dir));
        }
        const kept = await reader.attempt('kept()');
        const last = await shell(dir, 'root/usr/bin/one; tail -n 1 root/usr/share/one/data | cut -c1-9');
        const refused = (await outcome(dir, 'dpkg', `--root=${dir}/root`, '--log=/dev/null', '-i', 'two_9.deb')).status;
        assert.deepEqual([kept, last, refused], [Array(6).fill(true), 'one 2\nversion 2\n', 2]);
        assert.match(states.at(-1) ?? '', /^one 2 ii /);
        return { states, kept, last, refused };
      },
    },
    {
      ...system,
      name: 'a database that another process has locked is refused, and taken when it has ended',
      async run(dir) {
        const holder = await python(
          dir,
          `
import fcntl
lock = open('root/var/lib/dpkg/lock', 'r+')
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
`,
        );
        const args = ['--force-unsafe-io', `--root=${dir}/root`, '--log=/dev/null', '-i', 'one_2.deb'];
        const { status, stderr } = await outcome(dir, 'dpkg', ...args);
        await holder.end();
        const later = await outcome(dir, 'dpkg', ...args);
        const told = /locked by another process/.test(stderr);
        assert.deepEqual([status, told, later.status], [2, true, 0]);
        return { status, told, later: later.status };
      },
    },
  ],
};
