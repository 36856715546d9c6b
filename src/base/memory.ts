/**
 * Memory with a fixed address, which both typed arrays here and system calls there can point into. It is made by `sys`
 * (an anonymous mapping, or a shared memory file that a later server can take over) and by tests (any address will do for
 * a fake that translates it back).
 */

/** The address of a byte in this process's memory: below 2^47 on every 64-bit Linux, hence an exact number. */
export type Address = number;

export interface Memory {
  readonly address: Address;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

export function memoryAt(address: Address, buffer: ArrayBuffer): Memory {
  return { address, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

/** Writes `text` with a terminating NUL at `at`, and returns the offset behind the NUL. Strings are written as UTF-8. */
export function putString(memory: Memory, at: number, text: string | Uint8Array): number {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  memory.bytes.set(bytes, at);
  memory.bytes[at + bytes.length] = 0;
  return at + bytes.length + 1;
}
