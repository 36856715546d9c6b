/** Items of inline files: equal if and only if all of them is. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { InlineItem } from '../../src/extents/inlineitem.ts';

test('items are equal when their bytes and sizes are, and equal ones have one hash', () => {
  const item = fc.record({ size: fc.nat(3), bytes: fc.uint8Array({ maxLength: 6, max: 2 }) });
  fc.assert(
    fc.property(item, item, (one, other) => {
      const [a, b] = [one, other].map(({ size, bytes }) => new InlineItem(size, bytes));
      assert.ok(a !== undefined && b !== undefined);
      const same = one.size === other.size && Buffer.from(one.bytes).equals(Buffer.from(other.bytes));
      assert.equal(a.equals(b), same);
      assert.equal(b.equals(a), same);
      if (same) assert.equal(a.hash(), b.hash());
    }),
  );
});

test('one changed byte changes the hash, and an item keeps its bytes when the memory changes', () => {
  const bytes = Uint8Array.from({ length: 2000 }, (_, index) => index % 251);
  const item = new InlineItem(1979, bytes);
  for (let at = 0; at < bytes.length; at += 37) {
    const changed = Uint8Array.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    const other = new InlineItem(1979, changed);
    assert.ok(!other.equals(item));
    assert.notEqual(other.hash(), item.hash());
  }
  const copy = new InlineItem(1979, Uint8Array.from(bytes));
  bytes.fill(0);
  assert.ok(item.equals(copy));
});
