/** `sharedext restart`: another daemon takes the mount over, while it is in use. */

import { Command } from 'commander';
import { UserError } from '../base/errno.ts';
import { requireRoot } from './privilege.ts';

const ANSWER_TIMEOUT_MS = 3000;
const TAKEOVER_TIMEOUT_MS = 30_000;
const POLL_MS = 10;

export function restartCommand(): Command {
  return new Command('restart')
    .summary('let another daemon take a mount over, while it is in use')
    .description(
      'Starts another daemon for the mount on MOUNTPOINT, from the program as it is installed now, and ends the one that\n' +
        'served it. Open files stay open; programs notice a pause of some tenths of a second. This is how to upgrade.',
    )
    .argument('<mountpoint>')
    .option('--json', 'print the outcome as JSON')
    .addHelpText('after', '\nExample:\n  sharedext restart /mnt/shared\n')
    .action(run);
}

async function run(path: string, flags: { readonly json?: true }): Promise<void> {
  requireRoot(`restart the daemon of ${path}`);
  const { askDaemon } = await import('../daemon/control.ts');
  const { STATE_VERSION } = await import('../daemon/state.ts');
  const { isStatus } = await import('../daemon/status.ts');
  const { findMount } = await import('./mountpath.ts');
  const { mountpoint, minor } = findMount('restart the daemon of', path);
  const ask = async () => {
    const answer = await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS);
    return answer.state === 'answered' && isStatus(answer.value) ? answer.value : undefined;
  };
  const before = await ask();
  if (before === undefined) {
    throw new UserError(`Cannot restart the daemon of ${mountpoint}: it does not answer, see "sharedext status"`);
  }
  if (before.stateVersion !== STATE_VERSION) {
    throw new UserError(
      `Cannot restart the daemon of ${mountpoint}: it is of version ${before.version}, whose state this version can't take over; ` +
        'unmount, and mount again',
    );
  }
  const start = performance.now();
  await askDaemon(minor, 'restart', ANSWER_TIMEOUT_MS);
  for (;;) {
    const now = await ask();
    if (now !== undefined && now.pid !== before.pid) {
      const ms = Math.round(performance.now() - start);
      if (flags.json === true) console.log(JSON.stringify({ mountpoint, pid: now.pid, version: now.version, ms }));
      else
        console.log(
          `${mountpoint}: process ${now.pid}, version ${now.version}, serves it since ${ms} ms after the call`,
        );
      return;
    }
    if (performance.now() - start > TAKEOVER_TIMEOUT_MS) {
      throw new UserError(
        `The daemon of ${mountpoint} was asked to restart, and no other answers: see "sharedext status"`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
