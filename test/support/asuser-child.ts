/** The other side of `asuser.ts`: `node asuser-child.js UID GID [GROUP…]`, with an IPC channel to its parent. */

import type { Failure, Reply, Request } from './asuser.ts';
import { type OperationName, operations } from './operations.ts';

const [uid = 0, gid = 0, ...groups] = process.argv.slice(2).map(Number);

// In this order: after setuid the other two are no longer allowed.
process.setgroups?.(groups);
process.setgid?.(gid);
process.setuid?.(uid);
process.umask(0o022);

function perform(name: OperationName, args: readonly unknown[]): unknown {
  return Reflect.apply(operations[name], undefined, args);
}

function failureOf(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  return { code, message };
}

process.on('message', (request: Request) => {
  let reply: Reply;
  try {
    reply = { id: request.id, result: perform(request.name, request.args) };
  } catch (error) {
    reply = { id: request.id, failure: failureOf(error) };
  }
  process.send?.(reply);
});
process.on('disconnect', () => process.exit(0));
