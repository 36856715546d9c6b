/** Which system calls a process makes, counted by strace(1), which makes it slow meanwhile. */

import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { UserError } from '../../src/base/errno.ts';

/** The table that strace -c prints: % time, seconds, usecs/call, calls, errors or nothing, name. */
function countsIn(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of text.split('\n')) {
    const fields = line.trim().split(/\s+/);
    const [first = '', , , calls = ''] = fields;
    const name = fields.at(-1) ?? '';
    if (/^[\d.]+$/.test(first) && /^\d+$/.test(calls) && name !== 'total') counts[name] = Number(calls);
  }
  return counts;
}

/** Counts the calls of all threads of a process while `during` runs. `file` takes strace's table meanwhile. */
export async function countCalls(
  pid: number,
  file: string,
  during: () => Promise<void>,
): Promise<Readonly<Record<string, number>>> {
  const child = spawn('strace', ['-f', '-c', '-o', file, '-p', String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  let said = '';
  await new Promise<void>((resolve, reject) => {
    const refuse = (): void =>
      reject(new UserError(`Cannot count system calls: ${said.trim() || 'is strace installed?'}`));
    child.once('error', refuse);
    child.once('close', refuse);
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes(' attached')) resolve();
    });
  });
  try {
    await during();
  } finally {
    child.kill('SIGINT');
    await ended;
  }
  const counts = countsIn(readFileSync(file, 'utf8'));
  rmSync(file);
  return counts;
}
