/** Several processes at the same names and files at the same time. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { alice, asUser, bob, carol, type OtherProcess, root } from '../support/asuser.ts';
import * as posix from '../support/posix.ts';
import { meanwhile, namesIn, put, type Subject, textOf } from './case.ts';

const { O_RDWR, O_WRONLY, O_CREAT, O_EXCL, O_APPEND } = posix;

const ROUNDS = 20;

/** Four processes; all are of root, or of different users where the directory is open to all. */
function everyone(dir: string): readonly OtherProcess[] {
  posix.chmod(dir, 0o777);
  return [alice, bob, carol, root].map(asUser);
}

/** Asserts that exactly one of several attempts succeeds, and that the others fail with one errno. */
async function oneWins(code: string, attempts: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(attempts);
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
  for (const result of results) {
    if (result.status === 'rejected') assert.equal(result.reason.code, code);
  }
}

function openIfThere(name: string): number | undefined {
  try {
    return posix.open(name, O_RDWR);
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'ENOENT', String(error));
    return undefined;
  }
}

export const races: Subject = {
  subject: 'races',
  cases: [
    {
      name: 'of four processes that make the same file exclusively one does',
      async run(dir) {
        const all = everyone(dir);
        for (let round = 0; round < ROUNDS; round++) {
          const name = join(dir, `${round}`);
          await oneWins(
            'EEXIST',
            all.map(async (one) => one.call('close', await one.call('open', name, O_CREAT | O_EXCL | O_WRONLY))),
          );
        }
        assert.equal(namesIn(dir).length, ROUNDS);
      },
    },
    {
      name: 'of four processes that make the same directory, link or node one does',
      async run(dir) {
        const all = everyone(dir);
        put(join(dir, 'file'), '', 0o666);
        for (let round = 0; round < ROUNDS; round++) {
          const name = (kind: string) => join(dir, `${kind}-${round}`);
          await oneWins(
            'EEXIST',
            all.map((one) => one.call('mkdir', name('dir'))),
          );
          await oneWins(
            'EEXIST',
            all.map((one) => one.call('symlink', 'x', name('symlink'))),
          );
          await oneWins(
            'EEXIST',
            all.map((one) => one.call('link', join(dir, 'file'), name('link'))),
          );
          await oneWins(
            'EEXIST',
            all.map((one) => one.call('mknod', name('fifo'), posix.S_IFIFO | 0o600)),
          );
        }
        assert.equal(posix.stat(join(dir, 'file')).nlink, 1 + ROUNDS);
      },
    },
    {
      name: 'of four processes that remove or rename the same file one does',
      async run(dir) {
        const all = everyone(dir);
        for (let round = 0; round < ROUNDS; round++) {
          const name = join(dir, `${round}`);
          put(name);
          await oneWins(
            'ENOENT',
            all.map((one, index) =>
              index % 2 === 0 ? one.call('unlink', name) : one.call('rename', name, `${name}-${index}`),
            ),
          );
          assert.ok(!namesIn(dir).includes(`${round}`));
        }
      },
    },
    {
      name: 'of four processes that rename different files to one name without replacing one does',
      async run(dir) {
        const all = everyone(dir);
        for (let round = 0; round < ROUNDS; round++) {
          for (const index of all.keys()) put(join(dir, `${round}-${index}`), `${index}`);
          await oneWins(
            'EEXIST',
            all.map((one, index) =>
              one.call('rename', join(dir, `${round}-${index}`), join(dir, `${round}`), posix.RENAME_NOREPLACE),
            ),
          );
        }
        assert.equal(namesIn(dir).length, ROUNDS * 4);
      },
    },
    {
      name: 'four processes fill one directory, and every name is there',
      async run(dir) {
        const all = everyone(dir);
        await Promise.all(
          all.map(async (one, index) => {
            for (let file = 0; file < 100; file++) await one.call('writeFile', join(dir, `${index}-${file}`), 'x');
          }),
        );
        const expected = all.flatMap((_, index) => Array.from({ length: 100 }, (_, file) => `${index}-${file}`));
        assert.deepEqual(namesIn(dir), expected.sort());
      },
    },
    {
      name: 'four processes write different parts of one file, and every part is there',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        await Promise.all(
          everyone(dir).map(async (one, index) => {
            const fd = await one.call('open', file, O_RDWR);
            for (let piece = 0; piece < 50; piece++) {
              await one.call('write', fd, Buffer.alloc(1000, `${index}`), (piece * 4 + index) * 1000);
            }
            await one.call('close', fd);
          }),
        );
        const row = [0, 1, 2, 3].map((index) => `${index}`.repeat(1000)).join('');
        assert.ok(textOf(file) === row.repeat(50));
      },
    },
    {
      name: 'four processes append to one file, and no line is lost or torn',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '', 0o666);
        await Promise.all(
          everyone(dir).map(async (one, index) => {
            const fd = await one.call('open', file, O_WRONLY | O_APPEND);
            const line = `${index}`.repeat(99);
            for (let count = 0; count < 100; count++) await one.call('write', fd, `${line}\n`);
            await one.call('close', fd);
          }),
        );
        const lines = textOf(file).split('\n').slice(0, -1);
        assert.equal(lines.length, 400);
        assert.ok(lines.every((line) => /^(\d)\1{98}$/.test(line)));
      },
    },
    {
      name: 'a counter under an exclusive flock counts every step of four processes',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, '0', 0o666);
        await Promise.all(
          everyone(dir).map(async (one) => {
            const fd = await one.call('open', file, O_RDWR);
            for (let step = 0; step < 25; step++) {
              await one.call('flock', fd, posix.LOCK_EX);
              const count = Number((await one.call('read', fd, 10, 0)).toString());
              await one.call('write', fd, `${count + 1}`, 0);
              await one.call('flock', fd, posix.LOCK_UN);
            }
            await one.call('close', fd);
          }),
        );
        assert.equal(textOf(file), '100');
      },
    },
    {
      name: 'a file that is renamed to and fro is itself under either name, or not there',
      async run(dir) {
        const [here, there] = [join(dir, 'here'), join(dir, 'there')];
        put(here, 'content');
        const { ino } = posix.stat(here);
        const mover = asUser(root);
        const move = async () => {
          for (let round = 0; round < 100; round++) {
            await mover.call('rename', here, there);
            await mover.call('rename', there, here);
          }
        };
        const found = new Map([here, there].map((name) => [name, 0]));
        await meanwhile(move(), () => {
          for (const name of [here, there]) {
            const fd = openIfThere(name);
            if (fd === undefined) continue;
            assert.equal(posix.fstat(fd).ino, ino);
            assert.equal(posix.read(fd, 10).toString(), 'content');
            posix.close(fd);
            found.set(name, (found.get(name) ?? 0) + 1);
          }
        });
        assert.ok(Math.min(...found.values()) > 0, JSON.stringify([...found]));
        assert.deepEqual(namesIn(dir), ['here']);
      },
    },
    {
      name: 'a file that is written, cut and read by different processes is never longer or shorter than it was made',
      async run(dir) {
        const file = join(dir, 'file');
        put(file, Buffer.alloc(8192, 'x'), 0o666);
        const [writer, cutter, reader] = everyone(dir);
        assert.ok(writer && cutter && reader);
        const fd = await writer.call('open', file, O_RDWR);
        for (let round = 0; round < 50; round++) {
          const [, , size] = await Promise.all([
            writer.call('write', fd, Buffer.alloc(4096, 'y'), 4096),
            cutter.call('truncate', file, 4096),
            reader.call('stat', file).then((status) => status.size),
          ]);
          assert.ok(size === 4096 || size === 8192, `${size}`);
          assert.equal((await reader.call('readFile', file)).length, posix.stat(file).size);
          await writer.call('write', fd, Buffer.alloc(4096, 'x'), 4096);
        }
        await writer.call('close', fd);
        assert.equal(posix.stat(file).size, 8192);
      },
    },
  ],
};
