/** What a command needs before it can begin. */

import { readFileSync } from 'node:fs';
import { UserError } from '../base/errno.ts';

/** linux/capability.h */
const CAP_SYS_ADMIN = 21n;

/** Whether this process has CAP_SYS_ADMIN (proc_pid_status(5)). */
export function hasSysAdmin(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return effective !== undefined && (BigInt(`0x${effective}`) & (1n << CAP_SYS_ADMIN)) !== 0n;
}

/** @throws UserError for anyone but root with CAP_SYS_ADMIN. */
export function requireRoot(act: string): void {
  if (process.geteuid?.() !== 0) throw new UserError(`Cannot ${act}: it needs root, try "sudo"`);
  if (!hasSysAdmin()) {
    throw new UserError(`Cannot ${act}: this root lacks CAP_SYS_ADMIN, run it outside of the container or grant it`);
  }
}
