/** Sessions over a fake device, with handlers that all do the same. */

import { Journal } from '../../src/base/journal.ts';
import { memoryAt } from '../../src/base/memory.ts';
import { Progress } from '../../src/fuse/server/progress.ts';
import { type Handlers, type Outcome, type Request, Session } from '../../src/fuse/server/session.ts';
import type { Spin } from '../../src/fuse/server/spin.ts';
import { type OperationName, operations } from '../../src/fuse/wire/operations.ts';
import { Arena, FakeDevice, names, request } from './device.ts';

type Handler = (request: Request) => Outcome;

export function isHandled(name: string): name is keyof Handlers {
  return name in operations && !['INIT', 'DESTROY', 'INTERRUPT'].includes(name);
}

/** Handlers that all do the same. */
function all(handler: Handler): Handlers {
  const made: Partial<Record<keyof Handlers, Handler>> = {};
  for (const name of Object.keys(operations)) if (isHandled(name)) made[name] = handler;
  return made as Record<keyof Handlers, Handler>;
}

export function makeSession(handler: Handler = () => 0, spin?: Spin) {
  const arena = new Arena(1 << 17);
  const device = new FakeDevice();
  const bugs: [string, unknown][] = [];
  const output = arena.allocate(16_384);
  const journal = new Journal(memoryAt(0, new ArrayBuffer(4096)), 64);
  const progress = new Progress(journal);
  /** Two words for handlers to change. */
  const table = journal.take(2);
  const session = new Session({
    progress,
    device,
    input: arena.allocate(65_536),
    output,
    handlers: all(handler),
    onBug: (operation, error) => bugs.push([operation, error]),
    ...(spin && { spin }),
  });
  return { device, session, bugs, output, progress, journal, table };
}

/** What a handler needs to be called at all: names and the fixed arguments of an operation. */
export function wellFormed(operation: OperationName, unique: number): Uint8Array {
  const row = operations[operation];
  const texts = ['name', 'second'].slice(0, row.names);
  return request(operation, { unique }, new Uint8Array(row.argumentBytes), names(...texts));
}
