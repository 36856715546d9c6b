/**
 * One mount's conversation with the kernel: reads requests, checks their shape by the table of operations, hands them to
 * a handler, and sends exactly one reply for each that wants one.
 *
 * Run to completion: a handler that returns a number has finished, and its reply leaves before the next request is read.
 * A handler that has to wait for a device or for others returns a promise of a function instead; that function runs when the wait is
 * over, again to completion, and fills the reply or waits again. So handlers never interleave, and need no locks. What waits for
 * another program, for as long as that likes, is parked: it can be interrupted, and costs the other requests nothing.
 *
 * Life of a session:  created ──INIT──► ready ──ENODEV (unmounted) or a failure──► over ──nothing waits any more──► ended
 *                                         └─────a step failed by a mistake of ours─► broken: another server takes over
 *
 * A step that throws is taken back: the tables are what they were, and the caller gets EIO. What this process knows beside the
 * tables (descriptors, files being composed, counts) may have followed the step halfway. So it does from then on what a killed server
 * would do: nothing. It reads no request, and answers none of those that wait; the server that takes over gets them.
 */

import { EAGAIN, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS, errnoText } from '../../base/errno.ts';
import type { Memory } from '../../base/memory.ts';
import { isComponent } from '../wire/component.ts';
import { FUSE_UNIQUE_RESEND_HIGH } from '../wire/constants.ts';
import { LARGEST_OPCODE, type Operation, type OperationName, operationOf, operations } from '../wire/operations.ts';
import { fuse_in_header, fuse_interrupt_in, fuse_out_header } from '../wire/structs.ts';
import type { Device } from './device.ts';
import { agreement, type InitResult, MAX_WRITE_BYTES, type Negotiated, negotiate } from './init.ts';
import { resendRequests } from './notify.ts';
import { Parked } from './parked.ts';
import type { Progress } from './progress.ts';
import type { Spin } from './spin.ts';

/** Room for the largest request: a WRITE with its header and arguments. In bytes; the kernel wants 8 KiB at least. */
export const BUFFER_BYTES = MAX_WRITE_BYTES + 65_536;

/** How many requests are served before other work on the event loop gets a turn. */
const REQUESTS_PER_TURN = 128;
/** How long the next request is waited for here, in one system call. The event loop takes several for the same. */
const NEXT_MS = 1;
/** A look that takes so long, instead of half a microsecond, was interrupted by another program. */
const PREEMPTED_MS = 0.5;

/** A request that as many servers have died of is answered with EIO. */
const MAX_ATTEMPTS = 5;

/** The request being served. One object serves all requests: a handler that waits must copy what it needs first. */
export interface Request {
  operation: OperationName;
  nodeid: number;
  uid: number;
  gid: number;
  pid: number;
  /** The two words of the number that names the request, without the bit that says that it comes again. */
  uniqueLow: number;
  uniqueHigh: number;
  /** A server that was killed had it before, and may have carried it out. */
  again: boolean;
  /** Offset of the fixed arguments in the input memory. */
  at: number;
  /** Offsets of the NUL-terminated names behind them, where the operation has names. */
  name: number;
  secondName: number;
  /** Offset behind what the table describes: the data of a WRITE or SETXATTR. */
  data: number;
  /** The first offset beyond the request. */
  end: number;
}

/** Goes on when a wait is over: returns what the handler itself would, and may wait again. */
export type Finish = () => Outcome;
/** The length of the payload written at `PAYLOAD` of the output memory, or a negated errno; or both later. */
export type Outcome = number | Promise<Finish> | Parked;
export type Handlers = {
  readonly [K in Exclude<OperationName, 'INIT' | 'DESTROY' | 'INTERRUPT'>]: (request: Request) => Outcome;
};

/** Where a reply's payload begins in the output memory. */
export const PAYLOAD = fuse_out_header.structBytes;

export interface Observer {
  request(request: Request, input: Memory, unique: number): void;
  reply(operation: OperationName, unique: number, outcome: number): void;
}

export interface SessionOptions {
  readonly device: Device;
  readonly input: Memory;
  readonly output: Memory;
  readonly handlers: Handlers;
  /** The input, the output and the tables that handlers change belong to its memory. */
  readonly progress: Progress;
  /** Whether the next request is looked for before it is waited for; absent for never. */
  readonly spin?: Spin;
  /** Told of each request and reply, for the trace. */
  readonly observer?: Observer;
  /** An error that a step threw: a bug of ours. It is told by the operation, or by another name of what was being done. */
  readonly onBug: (what: string, error: unknown) => void;
}

export class Session {
  /** Requests and failed replies, by opcode. */
  readonly requests = new Float64Array(LARGEST_OPCODE + 1);
  readonly failures = new Float64Array(LARGEST_OPCODE + 1);
  /** Requests whose opcode has no row in the table. */
  unknown = 0;
  /** Requests that wait for a device now. */
  waiting = 0;

  /** Settles when a step has failed: nothing is served any more, and another server must take over. */
  readonly broken: Promise<void>;
  /** Settles when the kernel has taken INIT's answer, or with the reason why it was refused. */
  readonly ready: Promise<InitResult>;
  /**
   * Settles when the conversation is over and no request waits any more, so that what requests use can be released; the
   * text says why where it didn't end by an unmount.
   */
  readonly ended: Promise<string | undefined>;

  readonly #options: SessionOptions;
  /** What is parked, by the number that names the request, without the bit that says that it comes again. */
  readonly #parked = new Map<bigint, Parked>();
  /** Replies of parked requests that leave when the request being served is answered. */
  readonly #due: (() => void)[] = [];
  readonly #request: Request = {
    operation: 'LOOKUP',
    nodeid: 0,
    uid: 0,
    gid: 0,
    pid: 0,
    uniqueLow: 0,
    uniqueHigh: 0,
    again: false,
    at: 0,
    name: 0,
    secondName: 0,
    data: 0,
    end: 0,
  };
  #negotiated: Negotiated | undefined;
  #over = false;
  #broken = false;
  #resolveBroken: () => void = () => {};
  #overWhy: string | undefined;
  #resolveReady: (result: InitResult) => void = () => {};
  #resolveEnded: (why: string | undefined) => void = () => {};

  constructor(options: SessionOptions) {
    this.#options = options;
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    this.broken = new Promise((resolve) => {
      this.#resolveBroken = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get negotiated(): Negotiated | undefined {
    return this.#negotiated;
  }

  /** Requests that wait for another program now. */
  get parked(): number {
    return this.#parked.size;
  }

  /** Whether there is nothing to be read any more: the conversation is over, though requests may still be waiting, or broken. */
  get over(): boolean {
    return this.#over || this.#broken;
  }

  /** Steps that failed by a mistake of ours, since the mount. */
  get bugs(): number {
    return this.#options.progress.bugs;
  }

  /** Does something that isn't a request's as a step of its own: all that it changes in the tables, or, when it throws, nothing. */
  step(what: string, run: () => void): void {
    if (this.#broken) return;
    try {
      run();
      this.#options.progress.journal.commit();
    } catch (error) {
      this.#bug(what, error);
    }
  }

  /**
   * Serves what the kernel has queued, and what comes right after it, up to a turn's worth. To be called whenever the device is
   * readable. While requests wait for a device, their ends are due on the event loop, and nothing is waited for here.
   */
  drain(): void {
    const { device, input } = this.#options;
    for (let served = 0; served < REQUESTS_PER_TURN && !this.over; served++) {
      const length = served > 0 && this.waiting === 0 ? this.#next() : device.read(input);
      if (length < 0) {
        if (length === -EAGAIN) return;
        // A request was taken back while it was being read (fs/fuse/dev.c, fuse_dev_do_read).
        if (length === -EINTR || length === -ENOENT) continue;
        this.#end(length === -ENODEV ? undefined : `reading /dev/fuse failed: ${errnoText(length)}`);
        return;
      }
      this.#serve(length);
      if (this.#due.length > 0) this.#answerDue();
    }
  }

  /** Reads the request that follows a reply: looks for it, and then waits for it. EAGAIN says that none came. */
  #next(): number {
    const { device, input, spin } = this.#options;
    const ms = spin?.milliseconds ?? 0;
    if (ms > 0) {
      const start = performance.now();
      for (let now = start, last = start; now < start + ms; last = now, now = performance.now()) {
        // Others want the processor.
        if (now - last > PREEMPTED_MS) {
          spin?.preempted();
          break;
        }
        const length = device.read(input);
        if (length !== -EAGAIN) {
          spin?.hit();
          return length;
        }
      }
      spin?.miss();
    }
    return device.wait(NEXT_MS) ? device.read(input) : -EAGAIN;
  }

  /**
   * Goes on where a server that was killed left off, on the same connection and with the same memory, which `settleInterrupted`
   * has seen to; to be called before anything else. `notices` is memory for a message.
   */
  takeUp(notices: Memory): void {
    const { device, input, progress } = this.#options;
    const { view } = input;
    const { minor, low, high } = progress.agreed;
    this.#negotiated = agreement(minor, low, high);
    this.#resolveReady({ ok: true, value: this.#negotiated });
    // What wants no reply doesn't come again: it is still in the input if it was being dealt with.
    const operation = operationOf(fuse_in_header.opcode.get(view, 0));
    const unique = fuse_in_header.unique.offset;
    const done = progress.isDone(view.getUint32(unique, true), view.getUint32(unique + 4, true));
    if (operation !== undefined && !operations[operation].replies && !done)
      this.#serve(fuse_in_header.len.get(view, 0));
    if (this.#broken) return;
    const sent = device.write(notices, resendRequests(notices));
    if (sent < 0) this.#end(sent === -ENODEV ? undefined : `asking for unanswered requests failed: ${errnoText(sent)}`);
  }

  #end(why: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#overWhy = why;
    this.#resolveReady({ ok: false, why: why ?? 'the mount ended before the kernel asked for INIT' });
    if (this.waiting === 0) this.#resolveEnded(why);
  }

  #serve(length: number): void {
    const { input } = this.#options;
    const view = input.view;
    if (length < fuse_in_header.structBytes || fuse_in_header.len.get(view, 0) !== length) {
      this.#end(`the kernel sent a request of ${length} bytes that says it has ${fuse_in_header.len.get(view, 0)}`);
      return;
    }
    const opcode = fuse_in_header.opcode.get(view, 0);
    const uniqueLow = view.getUint32(fuse_in_header.unique.offset, true);
    const uniqueHigh = view.getUint32(fuse_in_header.unique.offset + 4, true);
    const operation = operationOf(opcode);
    if (operation === undefined) {
      this.unknown++;
      this.#reply(uniqueLow, uniqueHigh, -ENOSYS);
      return;
    }
    this.requests[opcode] = (this.requests[opcode] ?? 0) + 1;
    const row = operations[operation];
    const request = this.#request;
    request.operation = operation;
    request.nodeid = fuse_in_header.nodeid.get(view, 0);
    request.uid = fuse_in_header.uid.get(view, 0);
    request.gid = fuse_in_header.gid.get(view, 0);
    request.pid = fuse_in_header.pid.get(view, 0);
    request.uniqueLow = uniqueLow;
    request.uniqueHigh = (uniqueHigh & ~FUSE_UNIQUE_RESEND_HIGH) >>> 0;
    request.again = uniqueHigh >= FUSE_UNIQUE_RESEND_HIGH;
    request.at = fuse_in_header.structBytes;
    request.end = length;
    if (!this.#shape(request, row)) {
      if (row.replies) this.#finish(operation, uniqueLow, uniqueHigh, -EINVAL);
      return;
    }
    this.#options.observer?.request(request, input, uniqueLow);
    if (request.again && this.#options.progress.attempt(request.uniqueLow, request.uniqueHigh) > MAX_ATTEMPTS) {
      this.#options.progress.countBug();
      this.#options.onBug(operation, `${MAX_ATTEMPTS} servers in a row ended while they dealt with it`);
      if (row.replies) this.#finish(operation, uniqueLow, uniqueHigh, -EIO);
      return;
    }

    switch (operation) {
      case 'INIT':
        this.#init(uniqueLow, uniqueHigh);
        return;
      case 'DESTROY':
        this.#finish(operation, uniqueLow, uniqueHigh, 0);
        return;
      case 'INTERRUPT':
        try {
          this.#interrupt(fuse_interrupt_in.unique.offset + request.at);
        } catch (error) {
          this.#bug(operation, error);
        }
        this.#options.progress.done(uniqueLow, uniqueHigh);
        return;
      default:
        break;
    }

    let outcome: Outcome;
    try {
      outcome = this.#options.handlers[operation](request);
    } catch (error) {
      outcome = this.#bug(operation, error);
    }
    if (!row.replies) {
      this.#options.progress.done(uniqueLow, uniqueHigh);
      return;
    }
    if (typeof outcome === 'number') {
      this.#finish(operation, uniqueLow, uniqueHigh, outcome);
      return;
    }
    if (outcome instanceof Parked) {
      this.#park(operation, uniqueLow, uniqueHigh, outcome);
      return;
    }
    this.waiting++;
    this.#await(operation, uniqueLow, uniqueHigh, outcome);
  }

  /** Answers a request when what it waits for is over. */
  #await(operation: OperationName, uniqueLow: number, uniqueHigh: number, outcome: Promise<Finish>): void {
    this.#options.progress.journal.commit();
    outcome.then(
      (finish) => this.#finishLater(operation, uniqueLow, uniqueHigh, finish),
      (error: unknown) =>
        this.#finishLater(operation, uniqueLow, uniqueHigh, () => {
          throw error;
        }),
    );
  }

  /** The wait of a request is over: what is left of it is a step. */
  #finishLater(operation: OperationName, uniqueLow: number, uniqueHigh: number, finish: Finish): void {
    // The next server gets the request.
    if (this.#broken) {
      this.waiting--;
      return;
    }
    let result: Outcome;
    try {
      result = finish();
    } catch (error) {
      result = this.#bug(operation, error);
    }
    if (result instanceof Promise) {
      this.#await(operation, uniqueLow, uniqueHigh, result);
      return;
    }
    this.waiting--;
    if (result instanceof Parked) {
      this.#park(operation, uniqueLow, uniqueHigh, result);
      return;
    }
    this.#finish(operation, uniqueLow, uniqueHigh, result);
    if (this.#over && this.waiting === 0) this.#resolveEnded(this.#overWhy);
  }

  #park(operation: OperationName, uniqueLow: number, uniqueHigh: number, parked: Parked): void {
    const high = (uniqueHigh & ~FUSE_UNIQUE_RESEND_HIGH) >>> 0;
    const name = BigInt(high) * TWO_TO_32 + BigInt(uniqueLow);
    this.#options.progress.survived(uniqueLow, high);
    this.#parked.set(name, parked);
    parked.onAnswer((outcome) => {
      this.#parked.delete(name);
      if (this.#due.length === 0) queueMicrotask(() => this.#answerDue());
      this.#due.push(() => this.#finish(operation, uniqueLow, uniqueHigh, outcome));
    });
  }

  /** A wait may end in a request, which calls this when it is answered, or on the event loop. */
  #answerDue(): void {
    for (const answer of this.#due.splice(0)) if (!this.over) answer();
  }

  /**
   * The caller of the request that is named at `at` is not to wait any longer. An INTERRUPT comes after the request that it names
   * (fs/fuse/dev.c: fuse_dev_do_read marks it as sent first), and again when that comes again. What isn't parked waits for a
   * device in a system call that can't be taken back, or is answered already.
   */
  #interrupt(at: number): void {
    const { view } = this.#options.input;
    const high = (view.getUint32(at + 4, true) & ~FUSE_UNIQUE_RESEND_HIGH) >>> 0;
    this.#parked.get(BigInt(high) * TWO_TO_32 + BigInt(view.getUint32(at, true)))?.interrupted();
  }

  /** Whether the request holds what the table says; sets the offsets of its names and data. */
  #shape(request: Request, row: Operation): boolean {
    const { bytes } = this.#options.input;
    let at = request.at + row.argumentBytes;
    if (at > request.end) return false;
    for (let i = 0; i < row.names; i++) {
      if (i === 0) request.name = at;
      else request.secondName = at;
      const end = bytes.indexOf(0, at);
      if (end < 0 || end >= request.end) return false;
      if (i < row.components && !isComponent(bytes, at, end)) return false;
      at = end + 1;
    }
    request.data = at;
    return true;
  }

  #bug(what: string, error: unknown): number {
    const { onBug, progress } = this.#options;
    onBug(what, error);
    progress.journal.rollback();
    progress.countBug();
    this.#broken = true;
    this.#resolveBroken();
    return -EIO;
  }

  #init(uniqueLow: number, uniqueHigh: number): void {
    const { input, output } = this.#options;
    const request = this.#request;
    const result = negotiate(input.view, request.at, request.end - request.at, output.view, PAYLOAD);
    if (!result.ok) {
      this.#reply(uniqueLow, uniqueHigh, -EIO);
      this.#end(result.why);
      return;
    }
    this.#negotiated = result.value;
    this.#options.progress.agree(result.value.minor, result.value.offered.low, result.value.offered.high);
    this.#reply(uniqueLow, uniqueHigh, INIT_OUT_BYTES);
    this.#resolveReady(result);
  }

  #finish(operation: OperationName, uniqueLow: number, uniqueHigh: number, outcome: number): void {
    this.#options.observer?.reply(operation, uniqueLow, outcome);
    if (outcome < 0) {
      const { opcode } = operations[operation];
      this.failures[opcode] = (this.failures[opcode] ?? 0) + 1;
    }
    this.#reply(uniqueLow, uniqueHigh, outcome);
  }

  #reply(uniqueLow: number, uniqueHigh: number, outcome: number): void {
    const { device, output, progress } = this.#options;
    const length = PAYLOAD + Math.max(outcome, 0);
    const view = output.view;
    fuse_out_header.len.set(view, 0, length);
    fuse_out_header.error.set(view, 0, Math.min(outcome, 0));
    view.setUint32(fuse_out_header.unique.offset, uniqueLow, true);
    view.setUint32(fuse_out_header.unique.offset + 4, uniqueHigh, true);
    progress.replying = length;
    const written = device.write(output, length);
    progress.journal.commit();
    progress.replying = 0;
    // ENOENT: the caller was killed and no longer waits (fuse_dev_do_write).
    if (written < 0 && written !== -ENOENT) {
      this.#end(written === -ENODEV ? undefined : `answering on /dev/fuse failed: ${errnoText(written)}`);
    }
  }
}

const INIT_OUT_BYTES = 64;
const TWO_TO_32 = 0x1_0000_0000n;
