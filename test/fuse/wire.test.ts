/** The wire format against fixtures of bytes, written out as the kernel lays them out. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filesystem } from '../../src/filesystem/filesystem.ts';
import type { Handlers } from '../../src/fuse/server/session.ts';
import { LARGEST_OPCODE, operationOf, operations } from '../../src/fuse/wire/operations.ts';
import * as s from '../../src/fuse/wire/structs.ts';
import { makeMounted } from '../filesystem/mounted.ts';
import { names, pack, request } from './device.ts';

/** Bytes of annotated hex: what follows `|` on a line is the annotation. */
function hex(text: string): Uint8Array {
  const digits = text.split('\n').map((line) => (line.split('|')[0] ?? '').replaceAll(/\s/g, ''));
  return new Uint8Array(Buffer.from(digits.join(''), 'hex'));
}

function same(actual: Uint8Array, fixture: string): void {
  assert.equal(Buffer.from(actual).toString('hex'), Buffer.from(hex(fixture)).toString('hex'));
}

const head = { unique: 0x1112, nodeid: 0x2122, uid: 0x3132, gid: 0x4142 };

/** The header of a request whose `len` and `opcode` are given. */
const header = (len: string, opcode: string): string => `
  ${len}              | len
  ${opcode}           | opcode
  12 11 00 00 00 00 00 00 | unique
  22 21 00 00 00 00 00 00 | nodeid
  32 31 00 00         | uid
  42 41 00 00         | gid
  67 12 00 00         | pid 4711
  00 00 00 00         | total_extlen, padding
`;

test('LOOKUP is a header and a name', () => {
  same(request('LOOKUP', head, names('etc')), `${header('2c 00 00 00', '01 00 00 00')} 65 74 63 00 | "etc"`);
});

test('SETATTR has its fields where the kernel has them', () => {
  const args = pack(s.fuse_setattr_in, {
    valid: 0x0102,
    fh: 0x1112131415,
    size: 0x2122232425,
    lock_owner: 0x31,
    atime: -1,
    mtime: 0x5152,
    ctime: 0x6162,
    atimensec: 0x71,
    mtimensec: 0x81,
    ctimensec: 0x91,
    mode: 0o100644,
    uid: 0xa1,
    gid: 0xb1,
  });
  same(
    request('SETATTR', head, args),
    `${header('80 00 00 00', '04 00 00 00')}
    02 01 00 00 00 00 00 00  | valid, padding
    15 14 13 12 11 00 00 00  | fh
    25 24 23 22 21 00 00 00  | size
    31 00 00 00 00 00 00 00  | lock_owner
    ff ff ff ff ff ff ff ff  | atime
    52 51 00 00 00 00 00 00  | mtime
    62 61 00 00 00 00 00 00  | ctime
    71 00 00 00 81 00 00 00  | atimensec, mtimensec
    91 00 00 00 a4 81 00 00  | ctimensec, mode
    00 00 00 00 a1 00 00 00  | unused4, uid
    b1 00 00 00 00 00 00 00  | gid, unused5`,
  );
});

test('CREATE has flags, mode, umask, open_flags and a name', () => {
  const args = pack(s.fuse_create_in, { flags: 0x8242, mode: 0o100640, umask: 0o22, open_flags: 1 });
  same(
    request('CREATE', head, args, names('new')),
    `${header('3c 00 00 00', '23 00 00 00')}
    42 82 00 00 a0 81 00 00  | flags, mode
    12 00 00 00 01 00 00 00  | umask, open_flags
    6e 65 77 00              | "new"`,
  );
});

test('READ and WRITE share a layout, and the data follows', () => {
  const place = { fh: 0x11, offset: 0x123456789a, size: 4, lock_owner: 0x22, flags: 0x8001 };
  const layout = `
    11 00 00 00 00 00 00 00  | fh
    9a 78 56 34 12 00 00 00  | offset
    04 00 00 00 02 00 00 00  | size, read_flags or write_flags
    22 00 00 00 00 00 00 00  | lock_owner
    01 80 00 00 00 00 00 00  | flags, padding`;
  same(
    request('READ', head, pack(s.fuse_read_in, { ...place, read_flags: 2 })),
    `${header('50 00 00 00', '0f 00 00 00')}${layout}`,
  );
  same(
    request('WRITE', head, pack(s.fuse_write_in, { ...place, write_flags: 2 }), Buffer.from('data')),
    `${header('54 00 00 00', '10 00 00 00')}${layout}
    64 61 74 61 | "data"`,
  );
});

test('RENAME2 has the new directory, flags, and two names', () => {
  same(
    request('RENAME2', head, pack(s.fuse_rename2_in, { newdir: 0x99, flags: 2 }), names('a', 'bc')),
    `${header('3d 00 00 00', '2d 00 00 00')}
    99 00 00 00 00 00 00 00  | newdir
    02 00 00 00 00 00 00 00  | flags, padding
    61 00 62 63 00           | "a", "bc"`,
  );
});

test('BATCH_FORGET has a count and that many nodes', () => {
  const nodes = [
    pack(s.fuse_forget_one, { nodeid: 7, nlookup: 3 }),
    pack(s.fuse_forget_one, { nodeid: 8, nlookup: 1 }),
  ];
  same(
    request('BATCH_FORGET', head, pack(s.fuse_batch_forget_in, { count: 2 }), ...nodes),
    `${header('50 00 00 00', '2a 00 00 00')}
    02 00 00 00 00 00 00 00                          | count
    07 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00  | nodeid, nlookup
    08 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  | nodeid, nlookup`,
  );
});

test('COPY_FILE_RANGE has seven fields of 64 bits', () => {
  const args = { fh_in: 1, off_in: 2, nodeid_out: 3, fh_out: 4, off_out: 5, len: 6, flags: 7 };
  same(
    request('COPY_FILE_RANGE', head, pack(s.fuse_copy_file_range_in, args)),
    `${header('60 00 00 00', '2f 00 00 00')}
    0100000000000000 0200000000000000 0300000000000000 0400000000000000
    0500000000000000 0600000000000000 0700000000000000`,
  );
});

test('INIT has its flags in two words, far from each other in the reply', () => {
  same(
    pack(s.fuse_init_in, { major: 7, minor: 45, max_readahead: 0x20000, flags: 0x40000001, flags2: 0x20 }),
    `07 00 00 00 2d 00 00 00  | major, minor
     00 00 02 00 01 00 00 40  | max_readahead, flags
     20 00 00 00 00 00 00 00  | flags2, unused
     0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000`,
  );
  same(
    pack(s.fuse_init_out, {
      major: 7,
      minor: 45,
      max_readahead: 0x20000,
      flags: 0x40000008,
      max_background: 0x40,
      congestion_threshold: 0x30,
      max_write: 0x100000,
      time_gran: 1,
      max_pages: 256,
      flags2: 0x20,
      max_stack_depth: 1,
    }),
    `07 00 00 00 2d 00 00 00  | major, minor
     00 00 02 00 08 00 00 40  | max_readahead, flags
     40 00 30 00 00 00 10 00  | max_background, congestion_threshold, max_write
     01 00 00 00 00 01 00 00  | time_gran, max_pages, map_alignment
     20 00 00 00 01 00 00 00  | flags2, max_stack_depth
     00 00 00 00 00 00 00 00  | request_timeout, unused
     0000000000000000 0000000000000000`,
  );
});

test('the replies of OPEN, LOOKUP and READDIRPLUS have their fields where the kernel has them', () => {
  same(
    pack(s.fuse_open_out, { fh: 0x1234, open_flags: 0x80, backing_id: 7 }),
    '34 12 00 00 00 00 00 00 80 00 00 00 07 00 00 00 | fh, open_flags, backing_id',
  );
  same(
    pack(s.fuse_entry_out, {
      nodeid: 9,
      generation: 2,
      entry_valid: 3,
      attr_valid: 4,
      entry_valid_nsec: 5,
      attr_valid_nsec: 6,
    }),
    `0900000000000000 0200000000000000 | nodeid, generation
     0300000000000000 0400000000000000 | entry_valid, attr_valid
     05000000 06000000                 | entry_valid_nsec, attr_valid_nsec`,
  );
  same(
    pack(s.fuse_attr, {
      ino: 0x11,
      size: 0x22,
      blocks: 0x33,
      atime: -2,
      mtime: 0x44,
      ctime: 0x55,
      mode: 0o40755,
      nlink: 3,
      blksize: 4096,
    }),
    `1100000000000000 2200000000000000 3300000000000000 | ino, size, blocks
     feffffffffffffff 4400000000000000 5500000000000000 | atime, mtime, ctime
     00000000 00000000 00000000                         | nanoseconds
     ed410000 03000000 00000000 00000000 00000000       | mode, nlink, uid, gid, rdev
     00100000 00000000                                  | blksize, flags`,
  );
  same(
    pack(s.fuse_dirent, { ino: 0x77, off: 0x88, namelen: 5, type: 8 }),
    '7700000000000000 8800000000000000 05000000 08000000 | ino, off, namelen, type',
  );
  assert.equal(s.SIZE_OF_ENTRY, 128, 'a direntplus is an entry and a dirent');
});

/** sizeof of each structure in include/uapi/linux/fuse.h of Linux 6.18 (of its fixed part before attributes or names). */
const kernelSizes = {
  fuse_in_header: 40,
  fuse_out_header: 16,
  fuse_init_in: 64,
  fuse_init_out: 64,
  fuse_attr: 88,
  fuse_entry_out: 128 - 88,
  fuse_attr_out: 104 - 88,
  fuse_getattr_in: 16,
  fuse_setattr_in: 88,
  statx: 256,
  fuse_statx_in: 24,
  fuse_statx_out: 288 - 256,
  fuse_forget_in: 8,
  fuse_batch_forget_in: 8,
  fuse_forget_one: 16,
  fuse_mknod_in: 16,
  fuse_mkdir_in: 8,
  fuse_rename_in: 8,
  fuse_rename2_in: 16,
  fuse_link_in: 8,
  fuse_open_in: 8,
  fuse_create_in: 16,
  fuse_open_out: 16,
  fuse_release_in: 24,
  fuse_flush_in: 24,
  fuse_lk_in: 48,
  fuse_lk_out: 24,
  fuse_read_in: 40,
  fuse_write_in: 40,
  fuse_write_out: 8,
  fuse_statfs_out: 80,
  fuse_fsync_in: 16,
  fuse_syncfs_in: 8,
  fuse_setxattr_in: 16,
  fuse_getxattr_in: 8,
  fuse_getxattr_out: 8,
  fuse_interrupt_in: 8,
  fuse_ioctl_in: 32,
  fuse_ioctl_out: 16,
  fuse_fallocate_in: 32,
  fuse_lseek_in: 24,
  fuse_lseek_out: 8,
  fuse_copy_file_range_in: 56,
  fuse_copy_file_range_out: 8,
  fuse_dirent: 24,
  fuse_notify_inval_inode_out: 24,
} as const;

test("every declared structure has the kernel's name and size", () => {
  const declared = new Map<string, number>();
  for (const [name, value] of Object.entries(s)) {
    if (typeof value !== 'object') continue;
    assert.equal(value.structName, name);
    declared.set(name, value.structBytes);
  }
  assert.deepEqual(new Map([...declared].sort()), new Map(Object.entries(kernelSizes).sort()));
});

test('every operation has an opcode of its own, is found by it, and no other opcode is', () => {
  const opcodes = new Map(Object.entries(operations).map(([name, row]) => [row.opcode as number, name]));
  assert.equal(opcodes.size, Object.keys(operations).length);
  assert.equal(Math.max(...opcodes.keys()), LARGEST_OPCODE);
  for (let opcode = 0; opcode < 5000; opcode++) assert.equal(operationOf(opcode), opcodes.get(opcode));
});

test('every operation but those of the session itself has a handler, and no handler is without an operation', () => {
  const handlers: Handlers = filesystem(makeMounted().mount);
  const own = ['INIT', 'DESTROY', 'INTERRUPT'];
  assert.deepEqual(
    Object.keys(handlers).sort(),
    Object.keys(operations)
      .filter((name) => !own.includes(name))
      .sort(),
  );
});
