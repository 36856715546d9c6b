/**
 * A server of our own for tests on real mounts: the command line program in a child process, so that the test itself may
 * touch the mount in any way. The child has a bounded life (`timeout`): if it hangs, the kernel aborts the connection when
 * it is killed, and a test that waits inside a system call gets ENOTCONN instead of waiting for ever.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pause } from './wait.ts';

const PROGRAM = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
/** Nothing here takes a tenth of these. */
const LIFETIME_SECONDS = 600;
const MOUNT_TIMEOUT_MS = 15_000;
const END_TIMEOUT_MS = 15_000;
const COMMAND_TIMEOUT_MS = 10_000;
/** A file left its readers behind: what they see is each test's matter. */
const LEFT_BEHIND = /^sharedext: notice: sharing: .* was opened for writing while it was shared: .*\n/gm;

/** What a supervisor says when its server was killed. */
const TAKEOVER =
  /^sharedext: warning: takeover: the server of .* ended unexpectedly, by SIGKILL: another takes over\n/gm;
/** What the control socket answers to `status`, as far as tests ask for it. */
export interface Status {
  readonly pid: number;
  readonly takeovers: number;
  readonly bugs: number;
  readonly locks: { readonly count: number; readonly waiters: number };
  readonly idle: { readonly awake: boolean; readonly times: number };
  readonly unkept: number;
  readonly nodes: { readonly count: number; readonly detached: number };
  readonly descriptors: {
    readonly handles: number;
    readonly pinned: number;
    readonly waiting: number;
    readonly lost: number;
    readonly refused: number;
  };
  readonly backing: { readonly count: number };
  readonly requests: Readonly<Record<string, number>>;
  /** How often a file took its own route, by reason. */
  readonly reasons: Readonly<Record<string, number>>;
  /** How often a file left the shared route because it was written to or had changed. */
  readonly broken: number;
  /** Null when sharing is off. */
  readonly mappings: { readonly count: number; readonly idle: number; readonly made: number } | null;
  readonly open: { readonly inodes: number; readonly own: number; readonly shared: number; readonly composed: number };
  /** Null when no file is composed. */
  readonly composed: {
    readonly packs: number;
    readonly indexed: number;
    readonly heldBytes: number;
    readonly mappingBytes: number;
    readonly ownBytes: number;
    readonly zeroBytes: number;
    readonly slowReads: number;
    readonly resets: number;
    readonly refused: Readonly<Record<string, number>>;
  } | null;
}

export interface MountedServer {
  readonly source: string;
  readonly mountpoint: string;
  /** The process that serves, as long as nobody kills it. */
  readonly pid: number;
  /** The process that starts another one then. */
  readonly supervisor: number;
  /** The minor device number of the mount. */
  readonly minor: number;
  /** What the server has written to its standard error so far. */
  stderr(): string;
  /** How the process ended, once it has. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  status(): Promise<Status>;
  /** How many requests of each operation have reached the server. */
  requests(): Promise<Readonly<Record<string, number>>>;
  /**
   * Unmounts by umount(8) and asserts that the server ended well and left nothing: no mount, no process, no store, and
   * no line on its standard error but those of takeovers, and what it is expected to have `said`.
   */
  umount(said?: RegExp): Promise<void>;
}

interface MountLine {
  readonly minor: number;
  readonly mountpoint: string;
  readonly type: string;
  readonly source: string;
}

function withoutEscapes(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** The FUSE mounts that there are, the latest last. proc_pid_mountinfo(5). */
function fuseMounts(): MountLine[] {
  const lines: MountLine[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left = '', right = ''] = line.split(' - ');
    const [, , device = '', , mountpoint = ''] = left.split(' ');
    const [type = '', source = ''] = right.split(' ');
    if (!type.startsWith('fuse')) continue;
    lines.push({
      minor: Number(device.split(':')[1]),
      mountpoint: withoutEscapes(mountpoint),
      type,
      source: withoutEscapes(source),
    });
  }
  return lines;
}

/** Runs a command in a child and gives it up after a while; the promise rejects when it fails. */
function run(command: string, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: COMMAND_TIMEOUT_MS, killSignal: 'SIGKILL' } as const;
    execFile(command, args, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${command} ${args.join(' ')}: ${stderr.trim() || error.message}`));
      else resolve(stdout);
    });
  });
}

async function waitUntilMounted(mountpoint: string, before: number, child: ChildProcess): Promise<number> {
  const deadline = Date.now() + MOUNT_TIMEOUT_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('the server ended before it had mounted');
    const found = fuseMounts().filter((line) => line.mountpoint === mountpoint);
    const latest = found.at(-1);
    if (found.length > before && latest !== undefined) {
      await run('stat', mountpoint);
      while (Date.now() < deadline && !existsSync(`/run/sharedext/${latest.minor}.sock`)) await pause(1);
      return latest.minor;
    }
    await pause(10);
  }
  throw new Error(`no mount after ${MOUNT_TIMEOUT_MS} ms`);
}

function childOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return Number(children.split(' ')[0]);
}

/** The answer to one request of the control socket: a line of JSON for a line of JSON. */
function ask(minor: number, command: string): Promise<Status> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(`/run/sharedext/${minor}.sock`);
    let text = '';
    socket.setTimeout(COMMAND_TIMEOUT_MS, () => socket.destroy(new Error('no answer on the control socket')));
    socket.on('error', reject);
    socket.on('data', (data) => {
      text += data.toString();
      if (text.includes('\n')) socket.end();
    });
    socket.on('close', () => {
      try {
        resolve(JSON.parse(text));
      } catch (error) {
        reject(error);
      }
    });
    socket.write(`${JSON.stringify({ command })}\n`);
  });
}

/** The folder that has the store: the source, or what the option `store=` says. */
function storeParent(source: string, options: string): string {
  const given = options
    .split(',')
    .find((word) => word.startsWith('store='))
    ?.slice('store='.length);
  return given ?? source;
}

const living = new Map<ChildProcess, string>();
let hooked = false;

/** A test that fails half-way must not leave a server; an unmount of the mountpoint also ends its requests. */
function installExitHook(): void {
  if (hooked) return;
  hooked = true;
  process.on('exit', () => {
    for (const [child, mountpoint] of living) {
      try {
        execFileSync('umount', ['--lazy', mountpoint], { stdio: 'ignore', timeout: COMMAND_TIMEOUT_MS });
      } catch {
        // It may never have been mounted.
      }
      child.kill('SIGTERM');
    }
  });
}

/** Mounts, and resolves once the mount answers. The mountpoint is made if need be. */
export async function mountSharedext(
  source: string,
  mountpoint: string,
  options = '',
  lifetimeSeconds = LIFETIME_SECONDS,
): Promise<MountedServer> {
  installExitHook();
  mkdirSync(mountpoint, { recursive: true });
  const before = fuseMounts().filter((line) => line.mountpoint === mountpoint).length;
  const words = [PROGRAM, 'mount', source, mountpoint, '-f', ...(options === '' ? [] : ['-o', options])];
  const limit = ['--signal=KILL', String(lifetimeSeconds), process.execPath, ...words];
  const child = spawn('timeout', limit, { stdio: ['ignore', 'ignore', 'pipe'] });
  living.set(child, mountpoint);
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data.toString();
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('close', (code, signal) => {
      living.delete(child);
      resolve({ code, signal });
    });
  });
  let minor: number;
  try {
    minor = await waitUntilMounted(mountpoint, before, child);
  } catch (error) {
    child.kill('SIGTERM');
    await ended;
    throw new Error(`Cannot mount ${source} on ${mountpoint}: ${stderr.trim() || String(error)}`);
  }
  const supervisor = childOf(child.pid ?? -1);
  const pid = childOf(supervisor);

  async function endOf(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const late = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), END_TIMEOUT_MS).unref();
    });
    const first = await Promise.race([ended, late]);
    if (first !== undefined) return first;
    const server = childOf(supervisor);
    process.kill(supervisor, 'SIGKILL');
    if (server > 0) process.kill(server, 'SIGKILL');
    await ended;
    throw new Error(`The server of ${mountpoint} did not end ${END_TIMEOUT_MS} ms after the unmount`);
  }

  return {
    source,
    mountpoint,
    pid,
    supervisor,
    minor,
    stderr: () => stderr,
    ended,
    status: () => ask(minor, 'status'),
    async requests() {
      return (await ask(minor, 'status')).requests;
    },
    async umount(said) {
      try {
        await run('umount', mountpoint);
      } catch (error) {
        await run('umount', '--lazy', mountpoint);
        await endOf();
        throw error;
      }
      const end = await endOf();
      assert.deepEqual(end, { code: 0, signal: null }, `the server ended badly: ${stderr}`);
      assert.equal(
        stderr
          .replace(TAKEOVER, '')
          .replace(LEFT_BEHIND, '')
          .replace(said ?? '', ''),
        '',
        'the server complained',
      );
      for (const process of [supervisor, pid]) assert.ok(!existsSync(`/proc/${process}`), 'the server still runs');
      // A later mount, of another test, may have the number by now.
      if (fuseMounts().every((line) => line.minor !== minor)) {
        assert.ok(!existsSync(`/run/sharedext/${minor}.sock`), 'the control socket is left');
      }
      assert.equal(fuseMounts().filter((line) => line.mountpoint === mountpoint).length, before);
      // Another mount of the same source keeps its own folder in the store.
      if (fuseMounts().every((line) => line.source !== source)) {
        assert.ok(!existsSync(join(storeParent(source, options), '.sharedext')), 'the store is left');
      }
    },
  };
}
