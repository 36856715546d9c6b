/**
 * What a server and its supervisor say to each other, in messages of one line; descriptors travel along.
 *
 *     server ──► supervisor   keep NAME (descriptor)   hold a copy of it for the next server
 *                             drop NAME NAME…          they aren't needed any more
 *                             ready JSON               the mount answers; JSON is what the next server needs to know
 *                             failed TEXT              there will be no mount, or it can't go on: the reason
 *                             wake NODE GENERATION     make an event for who watches a detached node: `watches.ts`
 *                             restart                  start another server now; this one ends
 *                             over                     the mount has ended; this one ends
 *     supervisor ──► server   keep NAME (descriptor)   what is held, once each
 *                             go JSON                  that was all; JSON is what the last server that was ready said, or null
 *                             unkept NAME              the descriptor of this name didn't arrive
 *
 * A descriptor doesn't arrive where the receiver has as many as it may (recvmsg(2), MSG_CTRUNC). Neither side waits for the other
 * while it has work to do: `outbox.ts`.
 */

import { EAGAIN } from '../base/errno.ts';
import type { MessageSocket } from '../sys/rights.ts';
import { Outbox } from './outbox.ts';

/** The server's end of the sockets, in its process, and the variable that tells it. */
export const KEEPER_FD = 3;
export const KEEPER_VARIABLE = 'SHAREDEXT_KEEPER';

/** The names of what every server of a mount needs. */
export const KEPT = {
  device: 'device',
  state: 'state',
  sourceMount: 'source-mount',
  source: 'source',
  storeParent: 'store-parent',
  store: 'store',
  place: 'place',
  readOnly: 'store-readonly',
} as const;

/** What a server says of its mount when it is ready. */
export interface Facts {
  readonly minor: number;
  readonly source: string;
  readonly mountpoint: string;
  /** The store's folder relative to its parent, and the parent; empty when sharing is off. */
  readonly place: string;
  readonly storeParent: string;
}

export function isFacts(value: unknown): value is Facts {
  if (typeof value !== 'object' || value === null) return false;
  const fields = new Map<string, unknown>(Object.entries(value));
  const texts = ['source', 'mountpoint', 'place', 'storeParent'];
  return typeof fields.get('minor') === 'number' && texts.every((name) => typeof fields.get(name) === 'string');
}

/** A message's first word, and the rest. */
export function splitMessage(text: string): readonly [string, string] {
  const space = text.indexOf(' ');
  return space < 0 ? [text, ''] : [text.slice(0, space), text.slice(space + 1)];
}

/** The longest reason for an end that is told: what a user reads. */
const MAX_REASON = 4096;

/** The server's side. */
export class Keeper {
  /** What the supervisor holds of an earlier server. */
  readonly held = new Map<string, number>();
  /** What the earlier server said of the mount; undefined for the first one. */
  readonly facts: Facts | undefined;
  readonly #socket: MessageSocket;
  readonly #outbox: Outbox;

  /** Waits for what the supervisor has to say. @throws Error when that makes no sense. */
  constructor(socket: MessageSocket) {
    this.#socket = socket;
    const lost: string[] = [];
    for (;;) {
      const message = socket.receive(true);
      if (typeof message === 'number') throw new Error('the supervisor said nothing');
      const [word, rest] = splitMessage(message.text);
      if (word === 'keep') {
        if (message.fd >= 0) this.held.set(rest, message.fd);
        else lost.push(rest);
        continue;
      }
      if (word !== 'go') throw new Error(`the supervisor said "${message.text}"`);
      const facts: unknown = JSON.parse(rest);
      this.facts = isFacts(facts) ? facts : undefined;
      break;
    }
    this.#outbox = new Outbox(socket, [...this.held.keys(), ...lost]);
    // Nobody here can use it, and so nobody would ever drop it.
    for (const name of lost) this.drop(name);
  }

  /** Descriptors that could not be handed over: a later server would do without them. */
  get unkept(): number {
    return this.#outbox.unkept;
  }

  /** Messages that wait for the supervisor to read what was sent before. */
  get waiting(): number {
    return this.#outbox.waiting;
  }

  /** @throws Error when the supervisor doesn't hold it. */
  take(name: string): number {
    const fd = this.held.get(name);
    if (fd === undefined) throw new Error(`the supervisor doesn't hold "${name}"`);
    return fd;
  }

  /** The descriptor must stay open until it is dropped. */
  keep(name: string, fd: number): void {
    this.#outbox.keep(name, fd);
  }

  drop(name: string): void {
    this.#outbox.drop(name);
  }

  /** Makes an event for those who watch a node: `watches.ts`. */
  wake(nodeid: number, generation: number): void {
    this.#outbox.say(`wake ${nodeid} ${generation}`);
  }

  ready(facts: Facts): void {
    this.#outbox.say(`ready ${JSON.stringify(facts)}`);
  }

  /** Takes what the supervisor has to say; returns false when it is gone. To be called when its socket is readable. */
  listen(): boolean {
    for (;;) {
      const message = this.#socket.receive(false);
      if (typeof message === 'number') return message === -EAGAIN;
      const [word, rest] = splitMessage(message.text);
      if (word === 'unkept') this.#outbox.lost(rest);
    }
  }

  /** The end of this process, which has nothing else to do than to wait until that is told. What waits needn't be told any more. */
  failed(reason: string): void {
    this.#outbox.clear();
    this.#socket.send(`failed ${reason.slice(0, MAX_REASON)}`, -1, true);
  }

  /** To be called when nothing waits: the next server would do without it. */
  restart(): void {
    this.#socket.send('restart', -1, true);
  }

  over(): void {
    this.#outbox.clear();
    this.#socket.send('over', -1, true);
  }
}
