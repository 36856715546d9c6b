/**
 * What one process has to tell the other, in order, and never waiting for it: what doesn't fit into the socket stays here until the
 * socket takes more. Some 270 messages fit (net/unix/af_unix.c counts their memory against SO_SNDBUF); a process that is stopped takes
 * no more than that, and a burst is longer.
 *
 *     keep, drop, say ──► queue ──room in the socket──► sent
 *                          └──dropped before it was sent──► nothing is sent of either
 *
 * A descriptor that is to be kept must stay open until it is sent or dropped: drop it first, and close it then.
 */

import { EAGAIN, EBADF, EINTR, ENOBUFS, ENOMEM, ETOOMANYREFS } from '../base/errno.ts';
import { MAX_MESSAGE } from '../sys/rights.ts';

/** One end of a pair of sockets, as far as it is written to. */
export interface Sending {
  /** Sends a text, and a copy of a descriptor if that isn't -1. Returns 0 or a negated errno. */
  send(text: string, fd: number, wait: boolean): number;
  /** Calls back when there is room for more, until it is closed. */
  onWritable(callback: () => void): { close(): void };
}

/** Failures after which the same message may be taken later. In flight are no more descriptors than RLIMIT_NOFILE: unix(7), ETOOMANYREFS. */
const LATER: ReadonlySet<number> = new Set([-EAGAIN, -EINTR, -ENOBUFS, -ENOMEM, -ETOOMANYREFS]);

/** What waits under a name: a descriptor to be kept, or that the name is to be dropped; a text waits under itself. */
type Waiting = { readonly kind: 'keep'; readonly fd: number } | { readonly kind: 'drop' | 'text' };

export class Outbox {
  /** Descriptors that the other side could not be given. */
  unkept = 0;
  readonly #socket: Sending;
  /** In the order in which it is sent. A name is here once: what was wanted of it last is all that matters. */
  readonly #queue = new Map<string, Waiting>();
  /** Names that the other side holds, once it has read what was sent. */
  readonly #theirs: Set<string>;
  #watch: { close(): void } | undefined;
  #gone = false;

  /** `theirs` are the names that the other side holds already. */
  constructor(socket: Sending, theirs: Iterable<string> = []) {
    this.#socket = socket;
    this.#theirs = new Set(theirs);
  }

  /** Messages that wait for room. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** Hands over a copy of a descriptor by a name, in place of the one that the other side has by it. */
  keep(name: string, fd: number): void {
    if (this.#gone) {
      this.unkept++;
      return;
    }
    this.#queue.delete(name);
    this.#queue.set(name, { kind: 'keep', fd });
    this.#push();
  }

  /** Nobody needs the name any more: from here on its descriptor may be closed. */
  drop(name: string): void {
    this.#queue.delete(name);
    if (this.#gone || !this.#theirs.has(name)) return;
    this.#queue.set(name, { kind: 'drop' });
    this.#push();
  }

  say(text: string): void {
    if (this.#gone) return;
    this.#queue.set(text, { kind: 'text' });
    this.#push();
  }

  /** The other side says that a descriptor didn't arrive: it has as many as it may. */
  lost(name: string): void {
    this.unkept++;
    this.#theirs.delete(name);
  }

  /** Sends as much as there is room for; the rest follows by itself. */
  flush(): void {
    while (this.#queue.size > 0) {
      const sent = this.#sendFirst();
      if (LATER.has(sent)) {
        this.#watch ??= this.#socket.onWritable(() => this.flush());
        return;
      }
    }
    this.#unwatch();
  }

  /** Forgets what waits: nothing of it matters any more. */
  clear(): void {
    this.#queue.clear();
    this.#unwatch();
  }

  /** What comes behind something that waits has to wait as well. */
  #push(): void {
    if (this.#watch === undefined) this.flush();
  }

  #unwatch(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  /** Sends the first message, or several drops at once. What the other side will never take is given up. */
  #sendFirst(): number {
    const [[key, first] = ['', undefined]] = this.#queue;
    if (first === undefined) return 0;
    const names = first.kind === 'drop' ? this.#firstDrops() : [key];
    const text = first.kind === 'text' ? key : `${first.kind} ${names.join(' ')}`;
    const sent = this.#socket.send(text, first.kind === 'keep' ? first.fd : -1, false);
    if (LATER.has(sent)) return sent;
    for (const name of names) this.#queue.delete(name);
    if (first.kind === 'drop') for (const name of names) this.#theirs.delete(name);
    if (first.kind !== 'keep') {
      if (sent < 0) this.#end();
    } else if (sent >= 0) {
      this.#theirs.add(key);
    } else {
      this.unkept++;
      // A descriptor that can't be sent (EBADF) is one lost; whatever else it is, the other side is gone.
      if (sent !== -EBADF) this.#end();
    }
    return sent;
  }

  /** The names of the drops that the queue begins with, as far as one message holds them. */
  #firstDrops(): string[] {
    const names: string[] = [];
    let bytes = 'drop'.length;
    for (const [name, { kind }] of this.#queue) {
      bytes += 1 + Buffer.byteLength(name);
      if (kind !== 'drop' || (names.length > 0 && bytes > MAX_MESSAGE)) break;
      names.push(name);
    }
    return names;
  }

  #end(): void {
    this.#gone = true;
    for (const { kind } of this.#queue.values()) if (kind === 'keep') this.unkept++;
    this.clear();
  }
}
