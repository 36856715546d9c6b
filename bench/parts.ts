/**
 * The section `parts`: what a read on the composed route is made of, in this process: finding the piece, copying it from the page cache, and what
 * moving it by splice(2) would take instead. Microseconds each, medians.
 */

import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FIRST_LINEAR, IntervalMap } from '../src/base/intervalmap.ts';
import * as c from '../src/base/linux.ts';
import { putString } from '../src/base/memory.ts';
import { setU64 } from '../src/base/struct.ts';
import { programPath } from '../src/cli/package.ts';
import { run } from '../src/demo/commands.ts';
import { makeStage } from '../src/demo/stage.ts';
import * as libc from '../src/sys/libc.ts';
import { allocate } from '../src/sys/memory.ts';
import { median } from './asking.ts';
import type { Asked, Section, SectionResult } from './section.ts';
import { table, time } from './tables.ts';

interface Part {
  readonly bytes: number;
  /** One lookup in a map of a hundred thousand extents. */
  readonly findUs: number;
  /** preadv2 of resident pages into our memory. */
  readonly preadUs: number;
  /** The same pages through a pipe to another descriptor, without a copy. */
  readonly spliceUs: number;
  /** Writing that memory to a descriptor that copies it. */
  readonly writeUs: number;
}

const SIZES = [4096, 131_072, 1 << 20] as const;
const EXTENTS = 100_000;
const MOST_PLACES = 50;
const ROUNDS = 5;
const STEPS = 400;
const IMAGE_BYTES = 1024 ** 3;
const FILE_BYTES = 64 << 20;
const SPLICE_F_MOVE = 1;
const F_SETPIPE_SZ = 1031;

function timed(step: (i: number) => void): number {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < STEPS; i++) step(i);
    times.push(((performance.now() - start) * 1000) / STEPS);
  }
  return median(times);
}

function opened(path: string, flags: number): number {
  const name = allocate('name', 4096);
  putString(name, 0, path);
  const fd = libc.openat(c.AT_FDCWD, name.address, flags, 0);
  if (fd < 0) throw new Error(`Cannot open ${path}: error ${-fd}`);
  return fd;
}

/** `file` is a large resident file; `folder` takes a fifo. */
async function partsOfARead(file: string, folder: string): Promise<readonly Part[]> {
  const fifo = `${folder}/pipe`;
  await run('mkfifo', [fifo]);
  const descriptors = [
    opened(file, c.O_RDONLY),
    opened(fifo, c.O_RDWR | c.O_NONBLOCK),
    opened('/dev/null', c.O_WRONLY),
    libc.memfdCreate('sink', c.MFD_CLOEXEC),
  ] as const;
  try {
    return SIZES.map((bytes) => partsOf(bytes, ...descriptors));
  } finally {
    for (const fd of descriptors) libc.close(fd);
    await run('rm', [fifo]);
  }
}

function partsOf(bytes: number, fd: number, pipe: number, nowhere: number, sink: number): Part {
  const places = Math.min(MOST_PLACES, Math.floor(libc.lseek(fd, 0, c.SEEK_END) / bytes));
  const at = (i: number): number => (i % places) * bytes;
  const map = new IntervalMap();
  for (let extent = 0; extent < EXTENTS; extent++) map.set(extent * 2, extent * 2 + 1, FIRST_LINEAR + extent * 3);
  const findUs = timed((i) => map.find((i * 977) % (2 * EXTENTS)));
  const memory = allocate('buffer', bytes);
  const vector = allocate('vector', 64);
  const preadUs = timed((i) => {
    setU64(vector.view, 0, memory.address);
    setU64(vector.view, 8, bytes);
    libc.preadv2(fd, vector.address, 1, at(i), c.RWF_NOWAIT);
  });
  const writeUs = timed(() => libc.pwrite(sink, memory.address, bytes, 0));
  libc.fcntl(pipe, F_SETPIPE_SZ, Math.max(bytes, 4096));
  const offset = allocate('offset', 64);
  const spliceUs = timed((i) => {
    setU64(offset.view, 0, at(i));
    for (let left = bytes; left > 0; ) {
      const moved = libc.splice(fd, offset.address, pipe, 0, left, SPLICE_F_MOVE);
      if (moved <= 0) throw new Error(`Cannot splice from ${fd}: error ${-moved}`);
      libc.splice(pipe, 0, nowhere, 0, moved, SPLICE_F_MOVE);
      left -= moved;
    }
  });
  return { bytes, findUs, preadUs, spliceUs, writeUs };
}

function text(parts: readonly Part[]): string {
  const body = parts.map(({ bytes, findUs, preadUs, writeUs, spliceUs }) => [
    `${bytes / 1024} KiB`,
    ...[findUs, preadUs, writeUs, spliceUs].map(time),
  ]);
  const head = ['', 'find the piece', 'read it (preadv2)', 'copy it out (write)', 'splice in and out instead'];
  return `Each row takes one piece of resident pages, in a process that does nothing else: finding it in a map of 100,000 extents,
copying it into the server's memory, and copying it on, as the answer on /dev/fuse does. The last column moves
the pages through a pipe without copying them into the server (splice, in and out): what it is below the sum of the two
before it is what zero-copy could save at most.

${table([head, ...body])}`;
}

async function measure({ filesystem, tell }: Asked): Promise<SectionResult> {
  const stage = await makeStage(filesystem, IMAGE_BYTES, programPath, 'sharedext-bench-');
  try {
    tell('taking a read apart');
    const file = join(stage.source, 'file');
    writeFileSync(file, randomFillSync(new Uint8Array(FILE_BYTES)));
    const parts = await partsOfARead(file, stage.folder);
    return { text: text(parts), plots: [], numbers: parts };
  } finally {
    await stage.dispose();
  }
}

export const partsSection: Section = { name: 'parts', title: 'What a composed read is made of', run: measure };
