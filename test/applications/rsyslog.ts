/** rsyslog's imfile: a daemon that follows logs for years, by inotify(7) or by looking again and again. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../support/wait.ts';
import { type Case, lines, put, type Subject } from './case.ts';
import { outcome, type Program, shell, start } from './processes.ts';

const OLD = lines('old');

/** It copies what appears in the logs of a folder to `copied`, with its state beside it. */
async function startRsyslog(dir: string, mode: 'inotify' | 'polling'): Promise<Program> {
  const config = `
global(workDirectory="${dir}/state" net.enableDNS="off")
module(load="imfile" mode="${mode}" pollingInterval="1")
input(type="imfile" file="${dir}/log/*.log" tag="app" ruleset="copy" persistStateInterval="1")
template(name="line" type="string" string="%msg%\\n")
ruleset(name="copy") { action(type="omfile" file="${dir}/copied" template="line") }
`;
  await shell(dir, `mkdir state && printf '%s' '${config}' > rsyslog.conf`);
  const { status, stderr } = await outcome(dir, 'rsyslogd', '-N1', '-f', `${dir}/rsyslog.conf`);
  assert.equal(status, 0, stderr);
  return start(dir, 'rsyslogd', '-n', '-f', `${dir}/rsyslog.conf`, '-i', `${dir}/rsyslogd.pid`);
}

/** Waits until the copy ends with a line. */
async function copies(dir: string, line: string): Promise<string> {
  let copied = '';
  await until(`rsyslogd copies "${line}"`, async () => {
    copied = (await outcome(dir, 'cat', 'copied')).stdout;
    return copied.endsWith(`${line}\n`);
  });
  return copied;
}

function following(mode: 'inotify' | 'polling'): Case {
  return {
    name: `imfile in ${mode} mode copies what is appended to a log, also after it was renamed and made anew`,
    needs: ['rsyslogd'],
    prepare(dir) {
      mkdirSync(join(dir, 'log'));
      put(join(dir, 'log', 'app.log'), OLD);
    },
    async run(dir) {
      const daemon = await startRsyslog(dir, mode);
      await copies(dir, OLD.trimEnd().split('\n').at(-1) ?? '');
      for (const line of ['one', 'two', 'three']) {
        await shell(dir, `echo ${line} >> log/app.log`);
        await copies(dir, line);
      }
      await shell(dir, 'mv log/app.log log/app.log.1; echo four > log/app.log');
      await copies(dir, 'four');
      await shell(dir, 'echo five >> log/app.log');
      const copied = await copies(dir, 'five');
      await daemon.kill();
      assert.equal(copied, `${OLD}one\ntwo\nthree\nfour\nfive\n`);
      return copied;
    },
  };
}

export const rsyslog: Subject = { subject: 'rsyslog', cases: [following('inotify'), following('polling')] };
