/** A writable map outlives the descriptor that it was made from: what is stored through it is in the file for everybody. */

import assert from 'node:assert/strict';
import { pause } from '../support/wait.ts';
import { type Case, lines, put, type Subject } from './case.ts';
import { becomes, type Python, python } from './python.ts';

/** More than the default of `settle=`, and than what a mount keeps of a closed file. */
const FORGOTTEN_MS = 1500;

/** mmap(2) without Python's own copy of the descriptor. */
const MAPPING = `
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def maps(flags, protection):
    global address
    fd = os.open('chapter', getattr(os, flags))
    address = libc.mmap(None, 4096, protection, 1, fd, 0)
    os.close(fd)
    return address != 2 ** 64 - 1
def stores(byte):
    ctypes.memmove(address, byte, 1)
def mapped():
    return ctypes.string_at(address, 1)
def opens():
    global fd
    fd = os.open('chapter', os.O_RDONLY)
def reads():
    return os.pread(fd, 1, 0)
`;

const chapter: Pick<Case, 'needs' | 'prepare'> = {
  needs: ['python'],
  prepare: (dir) => put(`${dir}/chapter`, lines('old')),
};

async function mapper(dir: string): Promise<Python> {
  const one = await python(dir, MAPPING);
  assert.equal(await one.does("maps('O_RDWR', 3)"), true);
  return one;
}

/** Waits until nothing but the map itself tells a mount of the writer. */
async function forgets(dir: string, behind: string): Promise<void> {
  if (dir !== behind) await pause(FORGOTTEN_MS);
}

export const maps: Subject = {
  subject: 'maps',
  cases: [
    {
      ...chapter,
      name: 'stores through a map whose descriptor was closed are seen by who opened, and who mapped, before the store',
      async run(dir, behind) {
        const writer = await mapper(dir);
        await forgets(dir, behind);
        const reader = await python(dir, MAPPING);
        await reader.does("opens()\nmaps('O_RDONLY', 1)");
        const before = await reader.does('[reads(), mapped()]');
        await writer.does("stores(b'N')");
        const after = await reader.attempt('[reads(), mapped()]');
        assert.deepEqual({ before, after }, { before: ['o', 'o'], after: ['N', 'N'] });
        return { before, after };
      },
    },
    {
      ...chapter,
      name: 'stores through a map whose descriptor was closed are seen by who opens after the store',
      async run(dir, behind) {
        // Who reads it first, and goes on, must not keep others from seeing it.
        const early = await python(dir, MAPPING);
        await early.does('opens()\nreads()');
        const writer = await mapper(dir);
        const seen = [];
        for (const byte of ['N', 'M']) {
          await forgets(dir, behind);
          await writer.does(`stores(b'${byte}')`);
          const late = await python(dir, MAPPING);
          await late.does("opens()\nmaps('O_RDONLY', 1)");
          seen.push(await late.attempt('[reads(), mapped()]'));
        }
        assert.deepEqual(seen, [
          ['N', 'N'],
          ['M', 'M'],
        ]);
        return seen;
      },
    },
    {
      ...chapter,
      name: 'a writable map and a descriptor for writing of another process see each other’s bytes',
      async run(dir, behind) {
        const early = await python(dir, MAPPING);
        await early.does('opens()\nreads()');
        const writer = await mapper(dir);
        await forgets(dir, behind);
        const other = await python(dir, MAPPING);
        await other.does("fd = os.open('chapter', os.O_RDWR)");
        await writer.does("stores(b'N')");
        const stored = await other.attempt('reads()');
        await other.does("os.pwrite(fd, b'M', 0)");
        await becomes(writer, 'mapped()', 'M');
        assert.equal(stored, 'N');
        return { stored };
      },
    },
  ],
};
