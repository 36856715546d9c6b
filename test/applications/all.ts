/** All applications. */

import type { Subject } from './case.ts';
import { gdbm } from './gdbm.ts';
import { lmdb } from './lmdb.ts';
import { rsyslog } from './rsyslog.ts';
import { sqlite } from './sqlite.ts';
import { tail } from './tail.ts';

export const subjects: readonly Subject[] = [sqlite, gdbm, lmdb, tail, rsyslog];
