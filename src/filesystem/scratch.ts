/** How the scratch memory of a mount is laid out: an operation may use all of it, and none of it survives the operation. */

export const SCRATCH = {
  handle: 0, // struct file_handle, 8 + 128 bytes
  mountId: 144,
  secondHandle: 152, // another struct file_handle
  statx: 304, // struct statx, 256 bytes
  path: 576, // "/proc/self/fd/N"
  empty: 640, // an empty string
  dot: 642, // "."
  times: 648, // two struct timespec
  small: 680, // arguments of an ioctl, a struct statfs
  look: 1024, // struct statx: what `routes` looks at, while another is being answered with
  head: 1536, // the first bytes of a file
} as const;

/** Bytes of the scratch memory. */
export const SCRATCH_BYTES = 4096;
