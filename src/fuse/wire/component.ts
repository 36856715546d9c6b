/** Names in requests. */

const SLASH = 47;
const DOT = 46;

/**
 * Whether a name is one component of a path. The kernel sends no other, since it isn't offered FUSE_EXPORT_SUPPORT: with that
 * it would look up `.` and `..` of any node. They are refused all the same: `..` of the root is outside of the source.
 */
export function isComponent(bytes: Uint8Array, start: number, end: number): boolean {
  let dots = true;
  for (let at = start; at < end; at++) {
    if (bytes[at] === SLASH) return false;
    if (bytes[at] !== DOT) dots = false;
  }
  return end > start && !(dots && end - start <= 2);
}
