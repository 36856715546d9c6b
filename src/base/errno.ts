/**
 * Error numbers of Linux, and the convention that carries them: a call that may fail returns a number that is zero or
 * more when it worked and the negated error number when it didn't, as in the kernel. No exception is thrown on the way,
 * since on the hot path one costs more than the call itself.
 */

export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const E2BIG = 7;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const EXDEV = 18;
export const ENODEV = 19;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENFILE = 23;
export const EMFILE = 24;
export const ENOTTY = 25;
export const EFBIG = 27;
export const ENOSPC = 28;
export const EROFS = 30;
export const EMLINK = 31;
export const ERANGE = 34;
export const EDEADLK = 35;
export const ENAMETOOLONG = 36;
export const ENOLCK = 37;
export const ENOSYS = 38;
export const ENOTEMPTY = 39;
export const ELOOP = 40;
export const ENODATA = 61;
export const EOVERFLOW = 75;
export const EMSGSIZE = 90;
export const EOPNOTSUPP = 95;
export const ECONNRESET = 104;
export const ENOBUFS = 105;
export const ENOTCONN = 107;
export const ETOOMANYREFS = 109;
export const ESTALE = 116;
export const EDQUOT = 122;

const names: ReadonlyMap<number, string> = new Map([
  [EPERM, 'EPERM (operation not permitted)'],
  [ENOENT, 'ENOENT (no such file or directory)'],
  [EINTR, 'EINTR (interrupted)'],
  [EIO, 'EIO (input/output error)'],
  [E2BIG, 'E2BIG (list too long)'],
  [EBADF, 'EBADF (bad file descriptor)'],
  [EAGAIN, 'EAGAIN (try again)'],
  [ENOMEM, 'ENOMEM (out of memory)'],
  [EACCES, 'EACCES (permission denied)'],
  [EBUSY, 'EBUSY (in use)'],
  [EEXIST, 'EEXIST (exists already)'],
  [EXDEV, 'EXDEV (on another filesystem)'],
  [ENODEV, 'ENODEV (no such device)'],
  [ENOTDIR, 'ENOTDIR (not a directory)'],
  [EISDIR, 'EISDIR (is a directory)'],
  [EINVAL, 'EINVAL (invalid argument)'],
  [ENFILE, 'ENFILE (too many open files in the system)'],
  [EMFILE, 'EMFILE (too many open files)'],
  [ENOTTY, 'ENOTTY (not supported by this file)'],
  [EFBIG, 'EFBIG (file too large)'],
  [ENOSPC, 'ENOSPC (no space left on device)'],
  [EROFS, 'EROFS (read-only filesystem)'],
  [EMLINK, 'EMLINK (too many links)'],
  [ERANGE, 'ERANGE (result too large)'],
  [EDEADLK, 'EDEADLK (waiting would never end)'],
  [ENAMETOOLONG, 'ENAMETOOLONG (name too long)'],
  [ENOLCK, 'ENOLCK (too many locks)'],
  [ENOSYS, 'ENOSYS (not implemented by this kernel)'],
  [ENOTEMPTY, 'ENOTEMPTY (directory not empty)'],
  [ELOOP, 'ELOOP (too many symbolic links)'],
  [ENODATA, 'ENODATA (no data available)'],
  [EOVERFLOW, 'EOVERFLOW (value too large)'],
  [EOPNOTSUPP, 'EOPNOTSUPP (not supported by this filesystem)'],
  [ENOTCONN, 'ENOTCONN (not connected)'],
  [ESTALE, 'ESTALE (stale file handle)'],
  [EDQUOT, 'EDQUOT (quota exceeded)'],
]);

/** The name and meaning of an error number, positive or negated. */
export function errnoText(errno: number): string {
  const positive = Math.abs(errno);
  return names.get(positive) ?? `error ${positive}`;
}

/** The name of an error number, positive or negated. */
export function errnoName(errno: number): string {
  return errnoText(errno).replace(/ \(.*/, '');
}

/** An error for people: what was being done, to what, how it failed, and what to do about it. Printed without a stack. */
export class UserError extends Error {
  override readonly name = 'UserError';
}
