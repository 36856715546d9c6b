/**
 * What a file is, by its first bytes, as far as it matters to sharing: programs are never written in place, since whoever runs them
 * would crash; databases and disk images are, and their readers rely on seeing it.
 */

/** How much of a file's beginning is looked at. */
export const HEAD_BYTES = 4096;

export type Kind = 'program' | 'live' | 'other';

interface Signature {
  readonly at: number;
  readonly bytes: Uint8Array;
}

function text(at: number, value: string): Signature {
  return { at, bytes: Buffer.from(value, 'latin1') };
}

/** A number of 32 bits, in both orders of bytes: databases are written in the machine's own. */
function number(at: number, value: number): Signature[] {
  const little = Buffer.alloc(4);
  const big = Buffer.alloc(4);
  little.writeUInt32LE(value);
  big.writeUInt32BE(value);
  return [
    { at, bytes: little },
    { at, bytes: big },
  ];
}

const ELF = text(0, '\x7fELF');

/** Files that are written in place while others read them. */
const live: readonly Signature[] = [
  // SQLite: the database, its write-ahead log (two orders of checksums), its rollback journal
  text(0, 'SQLite format 3\0'),
  ...number(0, 0x377f0682),
  ...number(0, 0x377f0683),
  text(0, '\xd9\xd5\x05\xf9\x20\xa1\x63\xd7'),
  // gdbm: four formats
  ...number(0, 0x13579ace),
  ...number(0, 0x13579acd),
  ...number(0, 0x13579acf),
  ...number(0, 0x13579ad0),
  ...number(0, 0x13579ad1),
  // LMDB: behind the header of its first page, and its file of locks
  ...number(16, 0xbeefc0de),
  ...number(0, 0xbeefc0de),
  // Berkeley DB: btree, hash, queue, heap; and its old form
  ...number(12, 0x00053162),
  ...number(12, 0x00061561),
  ...number(12, 0x00042253),
  ...number(12, 0x00074582),
  ...number(0, 0x00061561),
  ...number(0, 0x00053162),
  // bbolt, DuckDB, Tokyo and Kyoto Cabinet, TDB, HDF5, Access
  ...number(16, 0xed0cdaed),
  text(8, 'DUCK'),
  text(0, 'ToKyO CaBiNeT'),
  text(0, 'KC\n\0'),
  text(0, 'TDB file\n'),
  text(0, '\x89HDF\r\n\x1a\n'),
  text(4, 'Standard Jet DB'),
  text(4, 'Standard ACE DB'),
  // MyISAM's indexes, Aria's; systemd's journal
  text(0, '\xfe\xfe\x07'),
  text(0, '\xfe\xfe\x09'),
  text(0, 'LPKSHHRH'),
  // Disk images: QEMU (three kinds), VMware, VirtualBox, Hyper-V
  text(0, 'QFI\xfb'),
  text(0, 'QED\0'),
  text(0, 'KDMV'),
  text(0, 'COWD'),
  text(0, '# Disk DescriptorFile'),
  text(0, '<<< Oracle VM VirtualBox Disk Image >>>'),
  text(0, '<<< Sun VirtualBox Disk Image >>>'),
  text(0, 'conectix'),
  text(0, 'vhdxfile'),
  // Partition tables, volumes and filesystems in raw images
  text(512, 'EFI PART'),
  text(512, 'LABELONE'),
  text(0, 'LUKS\xba\xbe'),
  text(0, 'XFSB'),
  text(1080, '\x53\xef'),
  text(4086, 'SWAPSPACE2'),
  text(4086, 'SWAP-SPACE'),
];

/** A boot sector says nothing by itself: programs for other systems have it, too. A disk is larger. */
const BOOT_SECTOR = text(510, '\x55\xaa');
const SMALLEST_DISK_BYTES = 1 << 20;

function has(head: Uint8Array, { at, bytes }: Signature): boolean {
  if (head.length < at + bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) if (head[at + i] !== bytes[i]) return false;
  return true;
}

/** Whether a file that begins with these bytes is a program or a library. */
export function isProgram(head: Uint8Array): boolean {
  return has(head, ELF);
}

/** What a file of `size` bytes is that begins with these. */
export function kindOf(head: Uint8Array, size: number): Kind {
  if (isProgram(head)) return 'program';
  if (live.some((signature) => has(head, signature))) return 'live';
  return size >= SMALLEST_DISK_BYTES && has(head, BOOT_SECTOR) ? 'live' : 'other';
}
