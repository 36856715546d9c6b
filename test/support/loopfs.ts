/**
 * Real filesystems for tests, on loop devices over sparse image files. Each lives in a folder of its own:
 *
 *     <tmpdir>/sharedext-test-<pid>-XXXXXX/
 *         0.img [1.img]    the images, one per device
 *         mnt/             where the filesystem is mounted: `dir`
 *
 * The folder's name carries the process id, so that tests which run at the same time tell their leftovers apart.
 * `dispose` takes everything away again, also mounts that a test left anywhere below the folder; what is still there when
 * the process exits or is interrupted is disposed of by one hook.
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

export type FilesystemKind =
  | 'btrfs'
  | 'btrfs-zstd'
  | 'btrfs-raid1'
  | 'btrfs-nodatacow'
  | 'xfs'
  | 'xfs-1k'
  | 'ext4'
  | 'tmpfs';

export interface LoopFilesystem {
  /** The mount point. Its owner is root and its mode 0755, as are all folders above it. */
  readonly dir: string;
  readonly kind: FilesystemKind;
  /** `/dev/loopN`, one per image; none for tmpfs. */
  readonly devices: readonly string[];
  /** The image files, in the order of the devices. A copy of all of them is what a power cut would leave. */
  readonly images: readonly string[];
  /** The folder that holds all of this; a test may put other mount points and files here. */
  readonly folder: string;
  /** Unmounts, detaches and deletes. Calling it again does nothing. */
  dispose(): void;
}

interface Recipe {
  readonly type: string;
  readonly deviceCount: number;
  readonly mkfs: readonly string[];
  readonly mountOptions: readonly string[];
}

/** `-K` leaves out the discard of the whole device: the images are sparse already. */
const recipes: Readonly<Record<FilesystemKind, Recipe>> = {
  btrfs: { type: 'btrfs', deviceCount: 1, mkfs: ['mkfs.btrfs', '-q', '-f', '-K'], mountOptions: [] },
  'btrfs-zstd': {
    type: 'btrfs',
    deviceCount: 1,
    mkfs: ['mkfs.btrfs', '-q', '-f', '-K'],
    mountOptions: ['compress-force=zstd'],
  },
  'btrfs-raid1': {
    type: 'btrfs',
    deviceCount: 2,
    mkfs: ['mkfs.btrfs', '-q', '-f', '-K', '-d', 'raid1', '-m', 'raid1'],
    mountOptions: [],
  },
  'btrfs-nodatacow': {
    type: 'btrfs',
    deviceCount: 1,
    mkfs: ['mkfs.btrfs', '-q', '-f', '-K'],
    mountOptions: ['nodatacow'],
  },
  xfs: {
    type: 'xfs',
    deviceCount: 1,
    mkfs: ['mkfs.xfs', '-q', '-f', '-K', '-m', 'reflink=1', '-b', 'size=4096'],
    mountOptions: [],
  },
  'xfs-1k': {
    type: 'xfs',
    deviceCount: 1,
    mkfs: ['mkfs.xfs', '-q', '-f', '-K', '-m', 'reflink=1', '-b', 'size=1024'],
    mountOptions: [],
  },
  ext4: { type: 'ext4', deviceCount: 1, mkfs: ['mkfs.ext4', '-q', '-F', '-E', 'nodiscard'], mountOptions: [] },
  tmpfs: { type: 'tmpfs', deviceCount: 0, mkfs: [], mountOptions: [] },
};

/** mkfs.xfs 6.1 refuses less than 300 MiB; a sparse image costs only what is written to it. */
const DEFAULT_SIZE_MB = 512;

/** The start of the names of this process's temporary folders, below the system's temporary folder. */
export const folderPrefix: string = join(tmpdir(), `sharedext-test-${process.pid}-`);

const living = new Set<LoopFilesystem>();

/** Far more than any of the tools here needs; mkfs.xfs hangs while any mount of the machine does, since it looks at all. */
const TOOL_TIMEOUT_MS = 60_000;

function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TOOL_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  }).trim();
}

/** A new temporary folder of this process with mode 0755, for tests as other users; the caller deletes it. */
export function makeFolder(): string {
  const folder = mkdtempSync(folderPrefix);
  chmodSync(folder, 0o755);
  return folder;
}

/** The mount points at or below `folder`, the innermost and latest first: the order in which they can be unmounted. */
export function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replace(/\\040/g, ' '))
    .filter((point) => point === folder || point.startsWith(`${folder}/`))
    .reverse();
}

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** A mount may stay busy for a moment after its last user has gone: it is tried ten times, then detached lazily. */
function unmount(point: string): void {
  for (let attempt = 0; attempt < 10; attempt++) {
    try {
      run('umount', point);
      return;
    } catch {
      pause(50);
    }
  }
  run('umount', '--lazy', point);
}

function mountOn(dir: string, recipe: Recipe, devices: readonly string[], sizeMb: number): void {
  const options = [...recipe.mountOptions, ...devices.slice(1).map((device) => `device=${device}`)];
  if (recipe.type === 'tmpfs') options.push(`size=${sizeMb}m`, 'mode=755');
  const optionArguments = options.length > 0 ? ['-o', options.join(',')] : [];
  run('mount', '-t', recipe.type, ...optionArguments, devices[0] ?? 'tmpfs', dir);
}

/** Unmounts all that is below the folder, detaches its devices and deletes it; throws when a mount can't be removed. */
function tearDown(folder: string, devices: readonly string[]): void {
  for (const point of mountsBelow(folder)) unmount(point);
  for (const device of devices) run('losetup', '--detach', device);
  const left = mountsBelow(folder);
  // A recursive removal must never run into a filesystem that is still mounted.
  if (left.length > 0) throw new Error(`Cannot delete ${folder}: still mounted: ${left.join(', ')}`);
  rmSync(folder, { recursive: true });
}

/**
 * Makes and mounts a filesystem of `sizeMb` MiB (512 unless given; per device for raid1). Direct I/O on the loop device
 * keeps the image itself out of the page cache, which tests count.
 */
export function makeLoopFilesystem(kind: FilesystemKind, options: { sizeMb?: number } = {}): LoopFilesystem {
  installExitHooks();
  const recipe = recipes[kind];
  const sizeMb = options.sizeMb ?? DEFAULT_SIZE_MB;
  const folder = makeFolder();
  const images: string[] = [];
  const devices: string[] = [];
  const dir = join(folder, 'mnt');
  try {
    mkdirSync(dir, { mode: 0o755 });
    for (let index = 0; index < recipe.deviceCount; index++) {
      const image = join(folder, `${index}.img`);
      writeFileSync(image, '');
      truncateSync(image, sizeMb * 1024 * 1024);
      images.push(image);
      devices.push(run('losetup', '--direct-io=on', '--find', '--show', image));
    }
    const [program, ...args] = recipe.mkfs;
    if (program !== undefined) run(program, ...args, ...devices);
    mountOn(dir, recipe, devices, sizeMb);
  } catch (error) {
    tearDown(folder, devices);
    throw error;
  }
  const filesystem: LoopFilesystem = {
    dir,
    kind,
    devices,
    images,
    folder,
    dispose() {
      if (!living.delete(filesystem)) return;
      tearDown(folder, devices);
    },
  };
  living.add(filesystem);
  return filesystem;
}

/** Changes the options of a mounted filesystem (`ro`, `noatime`, …) as `mount -o remount` does. */
export function remount(filesystem: LoopFilesystem, options: string): void {
  run('mount', '-o', `remount,${options}`, filesystem.dir);
}

/** Unmounts and mounts again: nothing of the filesystem is cached afterwards, neither pages nor inodes. */
export function mountAgain(filesystem: LoopFilesystem): void {
  if (filesystem.kind === 'tmpfs') throw new Error('Cannot mount a tmpfs again: its content is gone with the mount');
  run('umount', filesystem.dir);
  mountOn(filesystem.dir, recipes[filesystem.kind], filesystem.devices, 0);
}

/** Writes dirty pages back and drops clean ones of the whole machine, and unused inodes and dentries too when asked. */
export function dropCaches(what: 'pages' | 'pages-and-inodes' = 'pages-and-inodes'): void {
  run('sync');
  writeFileSync('/proc/sys/vm/drop_caches', what === 'pages' ? '1' : '3');
}

/** How many sectors of 512 bytes have been read from a device so far (Documentation/block/stat.rst: the third field). */
export function sectorsRead(device: string): number {
  const fields = readFileSync(`/sys/block/${basename(device)}/stat`, 'utf8')
    .trim()
    .split(/\s+/);
  return Number(fields[2]);
}

let hooked = false;

function installExitHooks(): void {
  if (hooked) return;
  hooked = true;
  process.on('exit', () => {
    for (const filesystem of living) {
      try {
        filesystem.dispose();
      } catch (error) {
        console.error(`Cannot dispose of ${filesystem.folder}:`, error);
      }
    }
  });
  // Not `once`: a runner that is interrupted sends a second signal, which would kill this process in the middle of tidying.
  process.on('SIGINT', () => process.exit(130));
  process.on('SIGTERM', () => process.exit(143));
}
