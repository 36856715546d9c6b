/** Extremes that must work as they do on the source: size, number, and a filesystem that is full. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assertNothingLeft } from '../support/leaks.ts';
import type { FilesystemKind } from '../support/loopfs.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { pause } from '../support/wait.ts';
import { onFilesystem, run } from './clones.ts';

after(() => assertNothingLeft());

async function onMount(
  kind: FilesystemKind,
  sizeMb: number,
  options: string,
  body: (mountpoint: string, source: string, server: MountedServer) => Promise<void>,
): Promise<void> {
  await onFilesystem(kind, sizeMb, async ({ dir }) => {
    const source = join(dir, 'source');
    const mountpoint = join(dir, 'mountpoint');
    mkdirSync(source);
    mkdirSync(mountpoint);
    const server = await mountSharedext(source, mountpoint, options);
    try {
      await body(mountpoint, source, server);
    } finally {
      await server.umount();
    }
  });
}

const python = (script: string, ...args: readonly string[]): Promise<string> => run('python3', '-c', script, ...args);

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`a sparse file of 8 TiB is written, read and cloned at both ends on ${kind}`, async () => {
    await onMount(kind, 600, 'settle=0', async (mountpoint) => {
      const script = `
import os, sys
d = sys.argv[1]; size = 8 << 40
with open(d + "/f", "wb") as f:
    f.write(b"first"); f.seek(size - 4); f.write(b"last")
assert os.stat(d + "/f").st_size == size
fd = os.open(d + "/f", os.O_RDONLY)
assert os.pread(fd, 5, 0) == b"first" and os.pread(fd, 9, size - 4) == b"last"
assert os.pread(fd, 4, size // 2) == bytes(4)
assert os.lseek(fd, 1 << 30, os.SEEK_DATA) >= size - (1 << 20)
os.close(fd)`;
      await python(script, mountpoint);
      await run('cp', '--sparse=auto', join(mountpoint, 'f'), join(mountpoint, 'g'));
      assert.equal(await run('tail', '-c', '4', join(mountpoint, 'g')), 'last');
    });
  });

  test(`a directory of 200,000 entries is listed, grows and shrinks on ${kind}`, async () => {
    await onMount(kind, 1500, 'settle=0', async (mountpoint, source) => {
      const [seen, made] = [join(mountpoint, 'd'), join(source, 'd')];
      mkdirSync(made);
      const make =
        'import os, sys\nfor i in range(int(sys.argv[2]), int(sys.argv[3])): os.close(os.open(f"{sys.argv[1]}/{i}", os.O_CREAT | os.O_WRONLY))';
      await python(make, made, '0', '198000');
      await python(make, seen, '198000', '200000');
      const names = (dir: string): Promise<string> =>
        run('bash', '-c', 'find "$1" -mindepth 1 -printf "%f %i\n" | sort | md5sum; ls -f "$1" | wc -l', 'bash', dir);
      assert.equal(await names(seen), await names(made));
      await run('bash', '-c', 'cd "$1" && rm {100000..103999}', 'bash', seen);
      assert.equal(await run('bash', '-c', 'ls "$1" | wc -l', 'bash', seen), '196000\n');
      assert.equal(await names(seen), await names(made));
    });
  });

  test(`a file of 100,000 extents is read rightly, extent by extent, on ${kind}`, async () => {
    await onMount(kind, 1500, 'settle=0', async (mountpoint, source, server) => {
      const script = `
import os, sys
with open(sys.argv[1], "wb", buffering=0) as f:
    for i in range(100000): os.pwrite(f.fileno(), i.to_bytes(4, "little") * 1024, i * 8192)
    os.fsync(f.fileno())`;
      await python(script, join(source, 'f'));
      await run('cp', '--reflink=always', join(source, 'f'), join(source, 'g'));
      await pause(100);
      await run('cmp', join(mountpoint, 'g'), join(source, 'f'));
      const { composed } = await server.status();
      assert.equal(composed?.mappingBytes, 100_000 * 4096);
      // The map and the index: the file may be open a moment longer than cmp lives.
      assert.ok(composed.heldBytes <= 32 * 100_000, `${composed.heldBytes} bytes`);
    });
  });

  test(`a full ${kind} answers ENOSPC, and what was written before is there`, async () => {
    await onMount(kind, 400, '', async (mountpoint, source) => {
      const script = `
import errno, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); written = 0
try:
    while True: written += os.write(fd, os.urandom(1 << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
print(written)`;
      const written = Number(await python(script, join(mountpoint, 'f')));
      assert.ok(written > 50 << 20, `${written} bytes written`);
      assert.equal(posix.stat(join(mountpoint, 'f')).size, posix.stat(join(source, 'f')).size);
      await run('cmp', join(mountpoint, 'f'), join(source, 'f'));
      await run('rm', join(mountpoint, 'f'));
    });
  });
}

test('a full quota answers EDQUOT', async () => {
  await onFilesystem('btrfs', 1000, async ({ dir }) => {
    await run('btrfs', 'quota', 'enable', dir);
    const source = join(dir, 'source');
    const mountpoint = join(dir, 'mountpoint');
    await run('btrfs', 'subvolume', 'create', source);
    await run('btrfs', 'qgroup', 'limit', '20M', source);
    mkdirSync(mountpoint);
    const server = await mountSharedext(source, mountpoint);
    try {
      const script = `
import errno, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
try:
    for _ in range(100): os.write(fd, os.urandom(1 << 20)); os.fsync(fd)
    print("no error")
except OSError as error: print(errno.errorcode[error.errno])`;
      assert.equal(await python(script, join(mountpoint, 'f')), 'EDQUOT\n');
      await run('rm', join(mountpoint, 'f'));
    } finally {
      await server.umount();
    }
  });
});
