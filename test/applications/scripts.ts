/** Shells read a script as they go: what happens to it while it runs, decides what they run next. */

import assert from 'node:assert/strict';
import { type Case, put, type Subject } from './case.ts';
import { shell, start } from './processes.ts';

/** Too much for any shell to have read before it waits. */
const PADDING = '# padding\n'.repeat(6000);
const START = 'echo starts\nread -r line\n';

const SHELLS = ['bash', 'dash'] as const;

function cases(name: (typeof SHELLS)[number]): Case[] {
  const script = (what: string, change: string): Case => ({
    name: `${name} runs a script that is ${what} meanwhile`,
    needs: [name],
    prepare: (dir) => put(`${dir}/script.sh`, `${START}${PADDING}echo old end\n`),
    async run(dir) {
      const running = start(dir, name, 'script.sh');
      await running.says(/^starts\n/);
      await shell(dir, change);
      running.write('go on\n');
      const { status, stdout, stderr } = await running.end();
      assert.deepEqual([status, stderr], [0, '']);
      // Who starts it now runs the new one.
      const again = await shell(dir, `echo go on | ${name} script.sh`);
      return { stdout, again };
    },
  });
  return [
    script('replaced by another name', "sed 's/old end/new end/' script.sh > new && mv new script.sh"),
    script('appended to', 'echo "echo new end" >> script.sh'),
    script('written over', "sed 's/old end/new end/' script.sh > new && cat new > script.sh"),
  ];
}

export const scripts: Subject = { subject: 'scripts', cases: SHELLS.flatMap(cases) };
