/**
 * The trace of `-d`, a line each way:
 *
 *     > 42 LOOKUP n1 "etc" uid 0        a request: unique, operation, node id, names, caller (by its process where the kernel tells no user)
 *     < 42 LOOKUP 144 bytes             its reply's payload, or the error's name
 */

import { errnoText } from '../../base/errno.ts';
import type { Memory } from '../../base/memory.ts';
import { FUSE_INVALID_UIDGID } from '../wire/constants.ts';
import { type OperationName, operations } from '../wire/operations.ts';
import type { Observer, Request } from './session.ts';

function quoted(input: Memory, at: number): string {
  return JSON.stringify(Buffer.from(input.bytes.subarray(at, input.bytes.indexOf(0, at))).toString('latin1'));
}

/** An observer that gives each line to `print`. */
export function tracer(print: (line: string) => void): Observer {
  return {
    request(request: Request, input: Memory, unique: number): void {
      const { names } = operations[request.operation];
      const words = [`> ${unique}`, request.operation, `n${request.nodeid}`];
      if (names >= 1) words.push(quoted(input, request.name));
      if (names === 2) words.push(quoted(input, request.secondName));
      words.push(request.uid === FUSE_INVALID_UIDGID ? `pid ${request.pid}` : `uid ${request.uid}`);
      print(words.join(' '));
    },
    reply(operation: OperationName, unique: number, outcome: number): void {
      print(`< ${unique} ${operation} ${outcome < 0 ? errnoText(outcome) : `${outcome} bytes`}`);
    },
  };
}
