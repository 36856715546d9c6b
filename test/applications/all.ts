/** All applications. */

import { around } from './around.ts';
import type { Subject } from './case.ts';
import { descriptors } from './descriptors.ts';
import { dpkgCases } from './dpkg.ts';
import { editors } from './editors.ts';
import { gdbm } from './gdbm.ts';
import { gitCases } from './git.ts';
import { lmdb } from './lmdb.ts';
import { locks } from './locks.ts';
import { maps } from './maps.ts';
import { qemu } from './qemu.ts';
import { rsyslog } from './rsyslog.ts';
import { scripts } from './scripts.ts';
import { short } from './short.ts';
import { sqlite } from './sqlite.ts';
import { tail } from './tail.ts';

export const subjects: readonly Subject[] = [
  sqlite,
  gdbm,
  lmdb,
  tail,
  rsyslog,
  locks,
  descriptors,
  scripts,
  editors,
  short,
  maps,
  around,
  qemu,
  gitCases,
  dpkgCases,
];
