/** tail -f and -F: they keep a file open for reading and wait for others to append; on FUSE they look several times a second. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Case, lines, put, type Subject } from './case.ts';
import { type Program, shell, start } from './processes.ts';
import { python } from './python.ts';

/** Names that logs have. */
const LOGS = ['app.log', 'messages', 'log/out.log', 'access_log', 'syslog'] as const;
const THREE = 'one\ntwo\nthree\n';

function prepareFile(dir: string, name: string): void {
  mkdirSync(dirname(join(dir, name)), { recursive: true });
  put(join(dir, name), `${lines('old')}the last\n`);
}

/** Starts it, and waits until it has the file open. */
async function follow(dir: string, how: '-f' | '-F', name: string): Promise<Program> {
  const tail = start(dir, 'tail', '-n', '1', '-s', '0.1', '--max-unchanged-stats=2', how, name);
  await tail.says(/^the last\n/);
  return tail;
}

async function end(tail: Program): Promise<string> {
  await tail.says(/three\n$/);
  await tail.kill();
  assert.equal(tail.stdout, `the last\n${THREE}`);
  return tail.stdout;
}

function following(name: string): Case {
  return {
    name: `tail -f prints three lines that are appended to ${name} by three processes`,
    prepare: (dir) => prepareFile(dir, name),
    async run(dir) {
      const tail = await follow(dir, '-f', name);
      for (const line of ['one', 'two', 'three']) {
        await shell(dir, `echo ${line} >> ${name}`);
        await tail.says(new RegExp(`${line}\n$`));
      }
      return await end(tail);
    },
  };
}

export const tail: Subject = {
  subject: 'tail',
  cases: [
    ...LOGS.map(following),
    {
      name: 'tail -f prints three lines of one process that keeps app.log open',
      prepare: (dir) => prepareFile(dir, 'app.log'),
      async run(dir) {
        const tail = await follow(dir, '-f', 'app.log');
        const writer = start(dir, 'sh', '-c', 'exec >> app.log; while read -r line; do echo "$line"; done');
        for (const line of ['one', 'two', 'three']) {
          writer.write(`${line}\n`);
          await tail.says(new RegExp(`${line}\n$`));
        }
        await writer.end();
        return await end(tail);
      },
    },
    {
      name: 'tail -F follows app.log when it is renamed and made anew',
      prepare: (dir) => prepareFile(dir, 'app.log'),
      async run(dir) {
        const tail = await follow(dir, '-F', 'app.log');
        await shell(dir, 'echo one >> app.log');
        await tail.says(/one\n$/);
        await shell(dir, 'mv app.log app.log.1; echo two > app.log');
        await tail.says(/two\n$/);
        await shell(dir, 'echo three >> app.log');
        return await end(tail);
      },
    },
    {
      name: 'tail -F follows app.log when it is copied and truncated',
      prepare: (dir) => prepareFile(dir, 'app.log'),
      async run(dir) {
        const tail = await follow(dir, '-F', 'app.log');
        await shell(dir, 'echo one >> app.log');
        await tail.says(/one\n$/);
        await shell(dir, 'cp app.log app.log.1; : > app.log');
        await tail.complains(/file truncated/);
        await shell(dir, 'echo two >> app.log');
        await tail.says(/two\n$/);
        await shell(dir, 'echo three >> app.log');
        return await end(tail);
      },
    },
    {
      name: 'a file without the name of a log is read on, after something was appended to it',
      needs: ['python'],
      prepare: (dir) => prepareFile(dir, 'chapter'),
      async run(dir) {
        const reader = await python(dir, "import os\nfile = open('chapter')\nread = len(file.read())");
        await shell(dir, 'echo new >> chapter');
        const more = String(await reader.attempt('file.read()'));
        const size = await reader.does('os.fstat(file.fileno()).st_size - read');
        assert.equal(size, more.length, 'fstat tells of what reads give');
        const now = await shell(dir, 'tail -n 2 chapter');
        assert.equal(now, 'the last\nnew\n');
        return { more, now };
      },
    },
  ],
};
