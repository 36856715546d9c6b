/**
 * A real tree with ten snapshots: ordinary programs run inside it through the mount and must find what they find on the
 * source. What the tree costs in memory, with and without us, is reported beside.
 */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import { dropCaches } from '../support/loopfs.ts';
import { mountSharedext } from '../support/server.ts';
import { onFilesystem, run } from './clones.ts';

after(() => assertNothingLeft());

/** What the tree is made of, in this order, until it is large enough. */
const parts = [
  '/usr/include',
  '/usr/lib/python3.11',
  '/usr/lib/python3',
  '/usr/share/perl',
  '/usr/share/doc',
  '/usr/lib/gcc',
  '/usr/lib/git-core',
  '/usr/share/locale',
  '/usr/share',
];
const LEAST_FILES = 20_000;
const LEAST_MB = 500;
const SNAPSHOTS = 10;

function shell(script: string, ...args: readonly string[]): Promise<string> {
  return run('bash', '-o', 'pipefail', '-c', script, 'bash', ...args);
}

async function makeTree(tree: string): Promise<void> {
  for (const part of parts) {
    if (!existsSync(part)) continue;
    await shell('cd / && cp -a --parents ".$1" "$2"', part, tree);
    const files = Number(await shell('find "$1" -type f | wc -l', tree));
    const megabytes = Number(await shell('du -sm "$1" | cut -f1', tree));
    if (files >= LEAST_FILES && megabytes >= LEAST_MB) return;
  }
  assert.fail(`this machine has no ${LEAST_FILES} files of ${LEAST_MB} MB in ${parts.join(', ')}`);
}

/** Kilobytes of page cache and slab of the whole machine. */
function memory(): { readonly cachedKb: number; readonly slabKb: number } {
  const text = readFileSync('/proc/meminfo', 'latin1');
  const field = (name: string): number => Number(new RegExp(`^${name}: *(\\d+)`, 'm').exec(text)?.[1]);
  return { cachedKb: field('Cached'), slabKb: field('Slab') };
}

/** Reads every file below a directory, and says what that added to page cache and slab. */
async function readAll(dir: string): Promise<string> {
  dropCaches();
  const before = memory();
  const start = performance.now();
  for (const tree of readdirSync(dir).sort()) {
    await shell('find "$1" -type f -print0 | xargs -0 -P 2 cat > /dev/null', join(dir, tree));
  }
  const now = memory();
  const mb = (kb: number): string => `${Math.round(kb / 1024)} MB`;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  return `${mb(now.cachedKb - before.cachedKb)} of page cache, ${mb(now.slabKb - before.slabKb)} of slab, ${seconds} s`;
}

const listing = 'cd "$1" && find . -printf "%p %y %m %U %G %s %n %T@ %l\\n" | grep -v "^\\. " | sort | md5sum';
const archive = 'tar cf - --sort=name -C "$1" . | md5sum';

test('programs find in a real tree with ten snapshots what they find on the source', async (context) => {
  await onFilesystem('btrfs', 6000, async ({ dir }) => {
    const source = join(dir, 'source');
    const mountpoint = join(dir, 'mountpoint');
    await run('mkdir', source, mountpoint);
    await run('btrfs', 'subvolume', 'create', join(source, 'tree'));
    await makeTree(join(source, 'tree'));
    await run('sync', '-f', source);
    for (let i = 1; i <= SNAPSHOTS; i++) {
      await run('btrfs', 'subvolume', 'snapshot', join(source, 'tree'), join(source, `s${i}`));
    }
    context.diagnostic(`without us: ${await readAll(source)}`);
    const server = await mountSharedext(source, mountpoint);
    try {
      context.diagnostic(`through the mount: ${await readAll(mountpoint)}`);
      const requests = await server.requests();
      assert.equal(requests['READ'] ?? 0, 0);
      const { reasons } = await server.status();
      context.diagnostic(`own routes: ${JSON.stringify(reasons)}`);

      await run('diff', '-r', '--no-dereference', join(mountpoint, 's1'), join(source, 's1'));
      for (const script of [listing, archive]) {
        assert.equal(await shell(script, join(mountpoint, 's2')), await shell(script, join(source, 's2')));
      }
      const differing = await run('rsync', '-aHAXni', '--delete', `${source}/s3/`, `${mountpoint}/s3/`);
      assert.equal(differing, '', 'rsync would change nothing');

      const include = join(mountpoint, 's4', 'usr', 'include');
      const program =
        '#include <stdio.h>\\n#include <linux/fuse.h>\\nint main(void) { return puts("compiled") < 0; }\\n';
      const binary = join(mountpoint, 's4', 'program');
      await shell(
        `printf '${program}' | gcc -nostdinc -isystem "$1" -isystem "$1/x86_64-linux-gnu" -isystem "$(gcc -print-file-name=include)" -x c -o "$2" -`,
        include,
        binary,
      );
      assert.equal(await run(binary), 'compiled\n');

      const library = join(mountpoint, 's5', 'usr', 'lib', 'python3.11');
      const imported = await run('env', `PYTHONPATH=${library}`, 'python3', '-c', 'import json; print(json.__file__)');
      assert.ok(imported.startsWith(library), imported);

      const repository = join(mountpoint, 's6', 'usr', 'include');
      await run('git', '-C', repository, 'init', '-q');
      await run('git', '-C', repository, 'add', '-A');
      await run('git', '-C', repository, '-c', 'user.name=t', '-c', 'user.email=t@localhost', 'commit', '-qm', 'all');
      assert.equal(await run('git', '-C', repository, 'status', '--porcelain'), '');
      assert.equal(await run('git', '-C', join(source, 's6', 'usr', 'include'), 'status', '--porcelain'), '');

      const copy = join(mountpoint, 'copy');
      await run('cp', '-a', join(mountpoint, 's7'), copy);
      await run('diff', '-r', '--no-dereference', copy, join(source, 's7'));
      const largest = (
        await shell(
          'find "$1" -type f -printf "%s %p\\n" | sort -rn | sed -n 1p | cut -d" " -f2-',
          join(source, 'copy'),
        )
      ).trim();
      assert.match(await run('filefrag', '-v', largest), /shared/, 'cp -a on the mount makes clones');
    } finally {
      await server.umount();
    }
  });
});
