/**
 * A load whose every result is known beforehand: random steps on a directory, by a seed, and a line for what each of them
 * answered. The same steps on a bare filesystem answer the same lines.
 *
 *     node load-child.js DIRECTORY SEED STEPS LOG
 *
 * The directory holds `shared-N`, which are only read, and `disk-N`, large files that are read and written.
 */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { Random } from '../mount/random.ts';

const [directory = '', seed = '', steps = '', logPath = ''] = process.argv.slice(2);
const random = new Random(Number(seed));
const log = fs.openSync(logPath, 'w');

const NAMES = 24;
const DIRECTORIES = 5;
const DESCRIPTORS = 6;

/** Descriptors that stay open over many steps, on files that have their names no longer, perhaps. */
const open: { fd: number; readonly appends: boolean; readonly disk: boolean }[] = [];

function name(): string {
  const folder = random.below(DIRECTORIES + 1);
  const file = `f${random.below(NAMES)}`;
  return folder === DIRECTORIES ? join(directory, file) : join(directory, `d${folder}`, file);
}

function folder(): string {
  return join(directory, `d${random.below(DIRECTORIES)}`);
}

function bytes(): Buffer {
  return Buffer.alloc(1 + random.below(9000), String.fromCharCode(97 + random.below(26)));
}

function digest(data: Uint8Array): string {
  return createHash('md5').update(data).digest('hex');
}

function summary(path: string): string {
  const { size, nlink, mode } = fs.lstatSync(path);
  return `${size} ${nlink} ${mode.toString(8)}`;
}

function readAt(fd: number, size: number, at: number): string {
  const buffer = Buffer.alloc(size);
  return digest(buffer.subarray(0, fs.readSync(fd, buffer, 0, size, at)));
}

function openOne(path: string, flags: string, disk: boolean): string {
  const fd = fs.openSync(path, flags);
  open.push({ fd, appends: flags.startsWith('a'), disk });
  if (open.length > DESCRIPTORS) fs.closeSync(open.shift()?.fd ?? -1);
  return String(fs.fstatSync(fd).size);
}

/** Makes a file whole or not at all, as editors and package managers do. */
function replace(path: string): string {
  const temporary = `${path}.new`;
  const fd = fs.openSync(temporary, 'wx');
  fs.writeSync(fd, bytes());
  if (random.below(4) === 0) fs.fsyncSync(fd);
  fs.closeSync(fd);
  fs.renameSync(temporary, path);
  return summary(path);
}

const kinds: readonly (() => unknown)[] = [
  () => fs.writeFileSync(name(), bytes()),
  () => fs.writeFileSync(name(), bytes(), { flag: 'wx' }),
  () => fs.appendFileSync(name(), bytes()),
  () => digest(fs.readFileSync(name())),
  () => summary(name()),
  () => fs.unlinkSync(name()),
  () => fs.renameSync(name(), name()),
  () => fs.linkSync(name(), name()),
  () => fs.symlinkSync('f0', name()),
  () => fs.mkdirSync(folder()),
  () => fs.rmdirSync(folder()),
  () => fs.renameSync(folder(), folder()),
  () => fs.readdirSync(folder()).sort().join(' '),
  () => fs.truncateSync(name(), random.below(20_000)),
  () => fs.chmodSync(name(), 0o600 + random.below(64)),
  () => fs.copyFileSync(name(), name()),
  () => replace(name()),
  () => digest(fs.readFileSync(join(directory, `shared-${random.below(4)}`))),
  () => openOne(name(), random.of(['r+', 'a+', 'w+', 'wx+']), false),
  () => openOne(join(directory, `disk-${random.below(2)}`), 'r+', true),
  () => {
    const held = random.ofOrNone(open);
    return held === undefined ? 'none' : readAt(held.fd, 5000, random.below(held.disk ? 6 << 20 : 10_000));
  },
  () => {
    const held = random.ofOrNone(open);
    if (held === undefined) return 'none';
    const at = held.appends ? null : random.below(held.disk ? 6 << 20 : 10_000);
    return String(fs.writeSync(held.fd, bytes(), null, undefined, at));
  },
  () => {
    const held = random.ofOrNone(open);
    if (held === undefined) return 'none';
    fs.fsyncSync(held.fd);
    return String(fs.fstatSync(held.fd).size);
  },
];

for (let step = 0; step < Number(steps); step++) {
  const kind = random.below(kinds.length);
  let answer: string;
  try {
    answer = String(kinds[kind]?.());
  } catch (error) {
    answer = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
  fs.writeSync(log, `${step} ${kind} ${answer}\n`);
}
for (const { fd } of open) fs.closeSync(fd);
