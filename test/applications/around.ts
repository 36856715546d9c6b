/** Files that change on the source, around the mount, while a program of the mount has them open. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { pause } from '../support/wait.ts';
import { type Case, lines, put, type Seen, type Subject } from './case.ts';
import { shell } from './processes.ts';
import { type Python, python } from './python.ts';

/** More than the default of `cache=`: attributes are looked at again. */
const ATTRIBUTES_MS = 1300;
const BLOCK = 4096;
const LARGE_BYTES = 8 << 20;
/** The block that changes around the mount, far behind the one that changes through it. */
const CHANGED = 100 * BLOCK;

/** A process that reads all that fstat(2) promises, also by a map, where SIGBUS would end it. */
const READING = `
import mmap, os
def opens(name):
    global fd
    fd = os.open(name, os.O_RDONLY)
def size():
    return os.fstat(fd).st_size
def readable():
    n = 0
    while data := os.pread(fd, 1 << 16, n):
        n += len(data)
    return n
def mapped():
    if os.fork() == 0:
        with mmap.mmap(fd, size(), mmap.MAP_SHARED, mmap.PROT_READ) as pages:
            sum(pages[at] for at in range(0, len(pages), 4096))
            pages[len(pages) - 1]
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])
def consistent():
    return [size() == readable(), mapped()]
`;

async function reader(dir: string, name: string): Promise<Python> {
  const one = await python(dir, READING);
  await one.does(`opens('${name}')\nreadable()`);
  return one;
}

function changing(what: string, act: string, expected: string): Case {
  return {
    name: `a file that was ${what} around the mount gives who has it open what fstat says, and who opens it what is there`,
    needs: ['python'],
    prepare: (dir) => put(join(dir, 'chapter'), lines('old')),
    async run(dir, behind) {
      const held = await reader(dir, 'chapter');
      await shell(behind, act);
      await forgets(dir, behind);
      const early = await held.attempt('consistent()');
      const late = await reader(dir, 'chapter');
      const fresh = await late.attempt('consistent()');
      const end = (await shell(dir, 'tail -n 1 chapter')).trimEnd();
      const same = (await shell(dir, 'cat chapter')) === (await shell(behind, 'cat chapter'));
      const again = await held.attempt('consistent()');
      assert.deepEqual([early, fresh, again], Array(3).fill([true, 0]));
      assert.deepEqual([end, same], [expected, true]);
      return { early, fresh, again, end, same };
    },
  };
}

/** A process that has a large, diverged file open, has read all of it and written its first block. */
async function writer(dir: string): Promise<Python> {
  return await python(
    dir,
    `
import os, subprocess
fd = os.open('disk', os.O_RDWR)
for at in range(0, ${LARGE_BYTES}, 1 << 20):
    os.pread(fd, 1 << 20, at)
os.pwrite(fd, b'W' * ${BLOCK}, 0)
def held():
    return os.pread(fd, 3, ${CHANGED})
def fresh():
    other = os.open('disk', os.O_RDONLY)
    data = os.pread(other, 3, ${CHANGED})
    os.close(other)
    return data
`,
  );
}

async function changeBlock(behind: string, text: string): Promise<void> {
  await shell(behind, `printf ${text} | dd of=disk bs=1 seek=${CHANGED} conv=notrunc,fsync status=none`);
}

/** Waits until a mount looks at attributes again. */
async function forgets(dir: string, behind: string): Promise<void> {
  if (dir !== behind) await pause(ATTRIBUTES_MS);
}

export const around: Subject = {
  subject: 'around',
  cases: [
    changing('appended to', 'yes "new line" | head -n 10000 >> chapter', 'new line'),
    changing('overwritten', `printf '%s' "${'x'.repeat(BLOCK)}" | dd of=chapter conv=notrunc status=none`, lastLine()),
    changing('truncated', 'truncate -s 5000 chapter', lines('old').slice(0, 5000).split('\n').at(-1) ?? ''),
    changing('replaced', 'yes "new line" | head -n 10000 > new; mv new chapter', 'new line'),
    {
      name: 'a large file that was written to through the mount, and changed around it later, gives the new bytes',
      needs: ['python'],
      prepare: (dir) => put(join(dir, 'disk'), Buffer.alloc(LARGE_BYTES, 'old ')),
      async run(dir, behind) {
        const early = await python(dir, `import os\nother = os.open('disk', os.O_RDONLY)\nos.pread(other, 4096, 0)`);
        const one = await writer(dir);
        const seen: Seen[] = [];
        for (const text of ['one', 'two']) {
          await forgets(dir, behind);
          await changeBlock(behind, text);
          await forgets(dir, behind);
          seen.push(await one.attempt('[held(), fresh()]'));
        }
        await one.does('os.close(fd)');
        const late = await one.attempt('fresh()');
        await early.end();
        assert.deepEqual(
          { seen, late },
          {
            seen: [
              ['one', 'one'],
              ['two', 'two'],
            ],
            late: 'two',
          },
        );
        return { seen, late };
      },
    },
  ],
};

function lastLine(): string {
  return lines('old').trimEnd().split('\n').at(-1) ?? '';
}
