/**
 * QEMU's disk images, by its own tools: each image is locked by its open file, so that two writers never meet, and a
 * reader that doesn't allow for writers keeps them out.
 */

import assert from 'node:assert/strict';
import type { Case, Seen, Subject } from './case.ts';
import { outcome, output, type Program, start } from './processes.ts';

type Format = 'raw' | 'qcow2';

/** An image of 64 MiB, whose first 16 MiB are filled. */
function image(format: Format): Pick<Case, 'needs' | 'prepare'> {
  return {
    needs: ['qemu'],
    async prepare(dir) {
      await output(dir, 'qemu-img', 'create', '-q', '-f', format, `disk.${format}`, '64M');
      await output(dir, 'qemu-io', '-f', format, '-c', 'write -P 1 0 16M', `disk.${format}`);
    },
  };
}

/** qemu-io that is told one command after the other: it forgets a second one that comes with the first. */
class Disk {
  readonly #program: Program;
  #prompts = 1;

  constructor(dir: string, format: Format, file: string, flags: readonly string[]) {
    this.#program = start(dir, 'qemu-io', ...flags, '-f', format, file);
  }

  /** Waits until it has opened and locked the image and done all that it was told. */
  ready(): Promise<void> {
    return this.#program.says(new RegExp(`^(?:[\\s\\S]*?qemu-io> ){${this.#prompts}}`));
  }

  /** What it says to a command, without the time that it took. */
  async does(command: string): Promise<string> {
    const before = this.#program.stdout.length;
    this.#program.write(`${command}\n`);
    this.#prompts++;
    await this.ready();
    return told(this.#program.stdout.slice(before));
  }

  async end(): Promise<void> {
    const { status, stdout, stderr } = await this.#program.end();
    assert.equal(status, 0, `${stdout}${stderr}`);
  }
}

function told(text: string): string {
  return text
    .replaceAll('qemu-io> ', '')
    .replace(/^.* ops; .*$/gm, '')
    .trim();
}

async function open(dir: string, format: Format, file: string, ...flags: readonly string[]): Promise<Disk> {
  const disk = new Disk(dir, format, file, flags);
  await disk.ready();
  return disk;
}

/** Tries to open an image for writing, or with the flags: why it was refused, or what it said. */
async function tries(
  dir: string,
  format: Format,
  file: string,
  command: string,
  ...flags: readonly string[]
): Promise<Seen> {
  const { status, stdout, stderr } = await outcome(dir, 'qemu-io', ...flags, '-f', format, '-c', command, file);
  return { status, told: `${told(stdout)}${/Failed to get .*lock/.exec(stderr)?.[0] ?? stderr}` };
}

const REFUSED = { status: 1, told: 'Failed to get "write" lock' };

function sharing(format: Format): Case {
  const file = `disk.${format}`;
  return {
    ...image(format),
    name: `a reader of a ${format} image that shares it sees what a writer writes`,
    async run(dir) {
      const reader = await open(dir, format, file, '-r', '-U');
      const before = await reader.does('read -P 1 4M 64k');
      const writer = await open(dir, format, file);
      // A raw image doesn't mind: only what is in it does, and its users say so by their own locks.
      const others = [
        await tries(dir, format, file, 'write -P 9 0 64k'),
        await tries(dir, format, file, 'read -P 1 8M 64k', '-r'),
      ];
      const written = [await writer.does('write -P 2 4M 64k'), await writer.does('flush')];
      const own = await writer.does('read -P 2 4M 64k');
      const seen = await reader.does('read -P 2 4M 64k');
      await writer.end();
      await reader.end();
      const later = await tries(dir, format, file, 'read -P 2 4M 64k');
      const check = format === 'raw' ? null : (await outcome(dir, 'qemu-img', 'check', '-q', file)).status;
      for (const text of [before, own, seen]) assert.equal(text, 'read 65536/65536 bytes at offset 4194304');
      if (format === 'qcow2') assert.deepEqual(others[0], REFUSED);
      return { before, others, written, own, seen, later, check };
    },
  };
}

export const qemu: Subject = {
  subject: 'qemu',
  cases: [
    sharing('raw'),
    sharing('qcow2'),
    {
      ...image('qcow2'),
      name: 'a reader of a qcow2 image that doesn’t share it keeps writers out until it ends, and no other reader',
      async run(dir) {
        const file = 'disk.qcow2';
        const readers = [await open(dir, 'qcow2', file, '-r'), await open(dir, 'qcow2', file, '-r')] as const;
        const refused = await tries(dir, 'qcow2', file, 'write -P 9 0 64k');
        await readers[0].end();
        const stillRefused = await tries(dir, 'qcow2', file, 'write -P 9 0 64k');
        const unharmed = await readers[1].does('read -P 1 0 64k');
        await readers[1].end();
        const written = await tries(dir, 'qcow2', file, 'write -P 9 0 64k');
        const read = await tries(dir, 'qcow2', file, 'read -P 9 0 64k', '-r');
        assert.deepEqual([refused, stillRefused], [REFUSED, REFUSED]);
        assert.doesNotMatch(JSON.stringify([unharmed, written, read]), /failed/i);
        return { refused, stillRefused, unharmed, written, read };
      },
    },
    {
      ...image('qcow2'),
      name: 'two images on one base keep their own data, and the base is written when they have closed it',
      async run(dir) {
        const base = 'disk.qcow2';
        for (const name of ['a', 'b']) {
          await output(dir, 'qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', name);
        }
        const disks = [await open(dir, 'qcow2', 'a'), await open(dir, 'qcow2', 'b')] as const;
        const [a, b] = disks;
        const seen = [
          await a.does('read -P 1 4M 64k'),
          await b.does('read -P 1 4M 64k'),
          await a.does('write -P 2 4M 64k'),
          await b.does('read -P 1 4M 64k'),
        ];
        const refused = await tries(dir, 'qcow2', base, 'write -P 9 0 64k');
        for (const disk of disks) await disk.end();
        const { status } = await outcome(dir, 'qemu-img', 'commit', '-q', 'a');
        const committed = [
          await tries(dir, 'qcow2', base, 'read -P 2 4M 64k', '-r'),
          await tries(dir, 'qcow2', 'b', 'read -P 2 4M 64k', '-r'),
          await tries(dir, 'qcow2', base, 'read -P 1 8M 64k', '-r'),
        ];
        assert.deepEqual(refused, REFUSED);
        for (const one of committed) assert.doesNotMatch(JSON.stringify(one), /failed/i);
        return { seen, refused, status, committed };
      },
    },
  ],
};
