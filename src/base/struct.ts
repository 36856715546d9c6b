/**
 * Kernel structures, declared once under the kernel's names, with the kernel's sizes. A declaration lays its fields out in
 * order, checks that each is aligned as a C compiler would align it (the kernel's structures carry explicit padding), and
 * that the sum is the declared size. What is left is one accessor object per field: no object is made per message.
 */

const widths = { u8: 1, u16: 2, u32: 4, i32: 4, u64: 8, i64: 8 } as const;

export type FieldType = keyof typeof widths;

/** One field of a structure: `at` is the byte offset of the structure in the view, not of the field. */
export interface Field {
  readonly offset: number;
  get(view: DataView, at: number): number;
  set(view: DataView, at: number, value: number): void;
}

export type Struct<Names extends string> = { readonly structName: string; readonly structBytes: number } & {
  readonly [K in Names]: Field;
};

const TWO_TO_32 = 0x1_0000_0000;

/** Reads 64 bits as a number: exact up to 2^53. Files may be larger, and times later: `copyWords` and `getExact` are for those. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_TO_32;
}

/** Reads 64 bits as a signed number: exact from -2^53 to 2^53. */
export function getI64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getInt32(at + 4, true) * TWO_TO_32;
}

/** Writes an integer from -2^53 to 2^64 as 64 bits, in two's complement. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, (value % TWO_TO_32) >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_TO_32) >>> 0, true);
}

/** A number as far as sums with what one request can hold stay exact, and a bigint otherwise: for what is passed on to a call. */
export type Exact = number | bigint;

const EXACT_SUMS = 2 ** 52;

/** Reads 64 bits as a signed integer, exactly. */
export function getExact(view: DataView, at: number): Exact {
  const rounded = getI64(view, at);
  return Math.abs(rounded) < EXACT_SUMS ? rounded : view.getBigInt64(at, true);
}

export function setExact(view: DataView, at: number, value: Exact): void {
  if (typeof value === 'number') setU64(view, at, value);
  else view.setBigInt64(at, value, true);
}

/** The sum of an offset or a size and a number of bytes. */
export function addExact(value: Exact, bytes: number): Exact {
  return typeof value === 'number' ? value + bytes : value + BigInt(bytes);
}

/** The value as a number that reckons with what is nearer to the start of a file than 2^53: beyond, it isn't exact, and none is needed. */
export function clipped(value: Exact): number {
  return Math.min(Number(value), Number.MAX_SAFE_INTEGER);
}

/** Copies 64 bits as they are. */
export function copyWords(to: DataView, toAt: number, from: DataView, fromAt: number): void {
  to.setUint32(toAt, from.getUint32(fromAt, true), true);
  to.setUint32(toAt + 4, from.getUint32(fromAt + 4, true), true);
}

function accessor(type: FieldType, offset: number): Field {
  switch (type) {
    case 'u8':
      return {
        offset,
        get: (view, at) => view.getUint8(at + offset),
        set: (view, at, value) => view.setUint8(at + offset, value),
      };
    case 'u16':
      return {
        offset,
        get: (view, at) => view.getUint16(at + offset, true),
        set: (view, at, value) => view.setUint16(at + offset, value, true),
      };
    case 'u32':
      return {
        offset,
        get: (view, at) => view.getUint32(at + offset, true),
        set: (view, at, value) => view.setUint32(at + offset, value, true),
      };
    case 'i32':
      return {
        offset,
        get: (view, at) => view.getInt32(at + offset, true),
        set: (view, at, value) => view.setInt32(at + offset, value, true),
      };
    case 'u64':
      return {
        offset,
        get: (view, at) => getU64(view, at + offset),
        set: (view, at, value) => setU64(view, at + offset, value),
      };
    case 'i64':
      return {
        offset,
        get: (view, at) => getI64(view, at + offset),
        set: (view, at, value) => setU64(view, at + offset, value),
      };
  }
}

/**
 * Declares a structure of `size` bytes. A name that starts with `_` is padding.
 *
 * @throws Error when the fields don't add up to the size, or one is misaligned: a mistake in the declaration.
 */
export function struct<const Names extends string>(
  structName: string,
  size: number,
  fields: readonly (readonly [name: Names, type: FieldType])[],
): Struct<Names> {
  const accessors: Partial<Record<Names, Field>> = {};
  let offset = 0;
  for (const [name, type] of fields) {
    const width = widths[type];
    if (offset % width !== 0) throw new Error(`${structName}.${name}: misaligned at ${offset}`);
    accessors[name] = accessor(type, offset);
    offset += width;
  }
  if (offset !== size) throw new Error(`${structName}: its fields take ${offset} bytes, the kernel's take ${size}`);
  return Object.assign({ structName, structBytes: size }, accessors as Record<Names, Field>);
}
