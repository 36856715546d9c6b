/** `sharedext doctor`: what this machine and a source can do, and what to do about what is missing. */

import { Command } from 'commander';
import type { Finding } from '../daemon/probes.ts';
import { paint } from './colour.ts';
import { hasSysAdmin } from './privilege.ts';

export const DOCTOR_SCHEMA = 1;

export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('find out what this machine can do, and what is missing')
    .description(
      'Tries what a mount needs, on the kernel and, where SOURCE is given, on that directory and its filesystem.\n' +
        'Exit status 1 means that something is missing without which a mount does not work.',
    )
    .argument('[source]', 'a directory that is to be mounted')
    .option('--json', 'print the findings as JSON')
    .addHelpText('after', '\nExample:\n  sharedext doctor /srv/clones\n')
    .action(run);
}

function privileges(): Finding[] {
  const root = process.geteuid?.() === 0;
  return [
    root
      ? { name: 'root', state: 'ok', found: 'this is root', advice: '' }
      : { name: 'root', state: 'missing', found: `this is user ${process.geteuid?.()}`, advice: 'try "sudo"' },
    hasSysAdmin()
      ? { name: 'CAP_SYS_ADMIN', state: 'ok', found: 'this process has it', advice: '' }
      : {
          name: 'CAP_SYS_ADMIN',
          state: 'missing',
          found: 'this process lacks it',
          advice: 'run it outside of the container, or grant the capability; the other probes need it',
        },
  ];
}

const marks = { ok: 'green', warn: 'yellow', missing: 'red' } as const;

async function run(source: string | undefined, flags: { readonly json?: true }): Promise<void> {
  const findings = privileges();
  if (findings.every(({ state }) => state === 'ok')) {
    const { probe } = await import('../daemon/probes.ts');
    findings.push(...probe(source));
  }
  const works = findings.every(({ state }) => state !== 'missing');
  if (flags.json === true) {
    console.log(JSON.stringify({ schema: DOCTOR_SCHEMA, ok: works, findings }, null, 2));
  } else {
    const width = Math.max(...findings.map(({ name }) => name.length));
    for (const { name, state, found, advice } of findings) {
      const line = `${paint(marks[state], state.padEnd('missing'.length))}  ${name.padEnd(width)}  ${found}`;
      console.log(advice === '' ? line : `${line}\n${' '.repeat(11 + width)}→ ${advice}`);
    }
  }
  if (!works) process.exitCode = 1;
}
