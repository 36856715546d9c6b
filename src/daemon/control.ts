/**
 * The control socket of a mount, and its client: newline-delimited JSON both ways, `{"command":"status"}` and a line of
 * JSON for an answer. What a client sends is bounded, a client that doesn't read isn't answered, an idle one is disconnected, and a line
 * that makes no sense is answered with `{"error": …}`.
 */

import { rmSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { makeRuntimeDirectory, socketPath } from './runtime.ts';

/** The longest request, in bytes. */
const MAX_REQUEST = 4096;
const MAX_CLIENTS = 64;
const IDLE_TIMEOUT_MS = 10_000;

/** Answers by the command's name. What a function returns is sent as JSON. */
export type Commands = Readonly<Record<string, () => unknown>>;

export interface ControlSocket {
  readonly path: string;
  /** Disconnects everyone and deletes the socket. */
  close(): void;
}

/** Told of a command that threw. */
type OnBug = (command: string, error: unknown) => void;

function answerTo(line: string, commands: Commands, onBug: OnBug): unknown {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return { error: 'Cannot read the request: it is not JSON' };
  }
  const name = typeof request === 'object' && request !== null && 'command' in request ? request.command : undefined;
  const known = Object.keys(commands);
  if (typeof name !== 'string' || !known.includes(name)) {
    return { error: `Cannot run the command: known are ${known.join(', ')}` };
  }
  try {
    return commands[name]?.();
  } catch (error) {
    onBug(name, error);
    return { error: `Cannot run the command "${name}": a mistake of sharedext, see its log` };
  }
}

/** Answers one request per turn of the event loop, so that the mount goes on being served, and no faster than is read. */
function serveClient(client: Socket, commands: Commands, onBug: OnBug): void {
  let pending = '';
  let ended = false;
  let answering = false;
  const next = (): void => {
    if (client.destroyed) return;
    const end = pending.indexOf('\n');
    answering = end >= 0;
    if (!answering) {
      if (ended) client.end();
      else if (pending.length > MAX_REQUEST) client.destroy();
      else client.resume();
      return;
    }
    const line = pending.slice(0, end);
    pending = pending.slice(end + 1);
    const taken = line.trim() === '' || client.write(`${JSON.stringify(answerTo(line, commands, onBug))}\n`);
    if (taken) setImmediate(next);
    else client.once('drain', next);
  };
  client.setEncoding('latin1');
  client.setTimeout(IDLE_TIMEOUT_MS, () => client.destroy());
  client.on('error', () => client.destroy());
  client.on('data', (text: string) => {
    client.pause();
    pending += text;
    if (!answering) next();
  });
  // A client that has said all it has to say still wants its answers.
  client.on('end', () => {
    ended = true;
    if (!answering) next();
  });
}

/** Listens on the socket of the mount with this minor device number. Rejects when it can't be made. */
export async function openControlSocket(minor: number, commands: Commands, onBug: OnBug): Promise<ControlSocket> {
  makeRuntimeDirectory();
  const path = socketPath(minor);
  // A daemon that was killed leaves its socket, and the kernel gives minors again.
  rmSync(path, { force: true });
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    clients.add(client);
    client.on('close', () => clients.delete(client));
    serveClient(client, commands, onBug);
  });
  server.maxConnections = MAX_CLIENTS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  server.on('error', () => {
    // One that couldn't be accepted, for want of descriptors: the client sees it.
  });
  return {
    path,
    close() {
      server.close();
      for (const client of clients) client.destroy();
      rmSync(path, { force: true });
    },
  };
}

export type Answer =
  | { readonly state: 'answered'; readonly value: unknown }
  /** Nobody listens: the daemon is gone. */
  | { readonly state: 'dead' }
  /** Somebody listens and doesn't answer, or not with a line of JSON. */
  | { readonly state: 'silent' };

/** Asks a mount's daemon. Never rejects. */
export function askDaemon(minor: number, command: string, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    let text = '';
    const client = createConnection(socketPath(minor));
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      client.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish({ state: 'silent' }), timeoutMs);
    client.on('connect', () => client.write(`${JSON.stringify({ command })}\n`));
    client.on('error', (error) => {
      const code = 'code' in error ? error.code : undefined;
      finish({ state: code === 'ECONNREFUSED' || code === 'ENOENT' ? 'dead' : 'silent' });
    });
    client.on('close', () => finish({ state: 'silent' }));
    client.setEncoding('utf8');
    client.on('data', (data: string) => {
      text += data;
      if (!text.includes('\n')) return;
      try {
        finish({ state: 'answered', value: JSON.parse(text) });
      } catch {
        finish({ state: 'silent' });
      }
    });
  });
}
