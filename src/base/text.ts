/** Names of other people's making, for people to read. */

/** Bytes as text: what isn't UTF-8, would begin a line, or would move a terminal's cursor is written as \xNN. */
export function readable(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf8');
  const exact = Buffer.from(text).equals(bytes);
  if (exact && !/\p{Cc}/u.test(text)) return text;
  let escaped = '';
  for (const byte of bytes) {
    escaped += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return escaped;
}
