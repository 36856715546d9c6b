/** A fake `/dev/fuse`: requests made of declared structures, as bytes, and the replies that came for them. */

import { EAGAIN } from '../../src/base/errno.ts';
import { type Memory, memoryAt } from '../../src/base/memory.ts';
import type { Field, Struct } from '../../src/base/struct.ts';
import type { Device } from '../../src/fuse/server/device.ts';
import { type OperationName, operations } from '../../src/fuse/wire/operations.ts';
import { fuse_in_header, fuse_out_header } from '../../src/fuse/wire/structs.ts';

/** A structure's bytes with the given fields, and zeros in the others. */
export function pack<const N extends string>(
  declared: Struct<N>,
  values: { readonly [K in N]?: number } = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(declared.structBytes);
  const view = new DataView(bytes.buffer);
  const fields: [string, Field | string | number][] = Object.entries(declared);
  const given = new Map<string, number>(Object.entries(values));
  for (const [name, field] of fields) {
    if (typeof field === 'object') field.set(view, 0, given.get(name) ?? 0);
  }
  return bytes;
}

/** NUL-terminated strings, one behind the other. */
export function names(...texts: readonly string[]): Uint8Array {
  return Buffer.from(texts.map((text) => `${text}\0`).join(''));
}

export interface Head {
  readonly unique: number;
  readonly nodeid?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly pid?: number;
}

/** A request of an opcode, with its header. */
export function message(opcode: number, head: Head, ...parts: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(parts);
  const header = pack(fuse_in_header, {
    len: fuse_in_header.structBytes + body.length,
    opcode,
    unique: head.unique,
    nodeid: head.nodeid ?? 1,
    uid: head.uid ?? 0,
    gid: head.gid ?? 0,
    pid: head.pid ?? 4711,
  });
  return Buffer.concat([header, body]);
}

export function request(operation: OperationName, head: Head, ...parts: readonly Uint8Array[]): Uint8Array {
  return message(operations[operation].opcode, head, ...parts);
}

export interface Reply {
  readonly unique: number;
  /** 0 or a negated errno. */
  readonly error: number;
  readonly payload: Uint8Array;
  readonly view: DataView;
}

export class FakeDevice implements Device {
  /** What reads return in turn: a request, or a negated errno. Nothing left is EAGAIN. */
  readonly queue: (Uint8Array | number)[] = [];
  readonly replies: Reply[] = [];
  /** What the next writes return instead of taking the reply. */
  readonly writeErrors: number[] = [];
  reads = 0;
  /** Called before each write. */
  beforeWrite: () => void = () => {};

  wait: () => boolean = () => this.queue.length > 0;

  read(memory: Memory): number {
    this.reads++;
    const next = this.queue.shift();
    if (next === undefined) return -EAGAIN;
    if (typeof next === 'number') return next;
    // What an earlier, longer request left behind must not be taken for this one's.
    memory.bytes.fill(0xa5, 0, 4096);
    memory.bytes.set(next);
    return next.length;
  }

  write(memory: Memory, length: number): number {
    this.beforeWrite();
    const error = this.writeErrors.shift();
    if (error !== undefined) return error;
    const bytes = memory.bytes.slice(0, length);
    const view = new DataView(bytes.buffer);
    if (fuse_out_header.len.get(view, 0) !== length) throw new Error('a reply whose length is not what it says');
    this.replies.push({
      unique: fuse_out_header.unique.get(view, 0),
      error: fuse_out_header.error.get(view, 0),
      payload: bytes.subarray(fuse_out_header.structBytes),
      view: new DataView(bytes.buffer, fuse_out_header.structBytes),
    });
    return length;
  }

  /** The replies since the last call. */
  take(): Reply[] {
    return this.replies.splice(0);
  }
}

/** Hands out memory at fake addresses, all in one piece, so that an address can be translated back to bytes. */
export class Arena {
  readonly memory: Memory;
  #used = 0;

  constructor(bytes: number) {
    this.memory = memoryAt(0x1000_0000, new ArrayBuffer(bytes));
  }

  allocate(bytes: number): Memory {
    const at = this.#used;
    const { address } = this.memory;
    const { buffer } = this.memory.bytes;
    this.#used += (bytes + 63) & ~63;
    return { address: address + at, bytes: new Uint8Array(buffer, at, bytes), view: new DataView(buffer, at, bytes) };
  }

  /** The offset of an address in `memory`. */
  at(address: number): number {
    const at = address - this.memory.address;
    if (at < 0 || at >= this.memory.bytes.length) throw new Error(`${address} is no address of ours`);
    return at;
  }

  bytes(address: number, length: number): Uint8Array {
    const at = this.at(address);
    if (at + length > this.memory.bytes.length) throw new Error(`${length} bytes at ${address} are not all ours`);
    return this.memory.bytes.subarray(at, at + length);
  }

  text(address: number): string {
    const at = this.at(address);
    return Buffer.from(this.memory.bytes.subarray(at, this.memory.bytes.indexOf(0, at))).toString('latin1');
  }
}
