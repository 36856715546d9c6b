/** /dev/stdin and /proc/self/fd/N: a file is opened again by a descriptor, without a name that could be looked up. */

import assert from 'node:assert/strict';
import { type Case, lines, put, type Seen, type Subject } from './case.ts';
import { shell } from './processes.ts';
import { python } from './python.ts';

const TEXT = lines('old');
/** A file that a mount knows as one that changes while others read it, and one that it doesn't. */
const LOG = 'app.log';
const PLAIN = 'chapter';

function onFile(name: string): Pick<Case, 'needs' | 'prepare'> {
  return { needs: ['python'], prepare: (dir) => put(`${dir}/${name}`, TEXT) };
}

function stdin(name: string): Case {
  return {
    ...onFile(name),
    name: `cat /dev/stdin of ${name} works after somebody appended to it`,
    async run(dir) {
      const printed = await shell(dir, `exec < ${name}; (echo new >> ${name}); cat /dev/stdin`);
      assert.ok(printed === TEXT || printed === `${TEXT}new\n`, 'it is one whole text');
      return printed.slice(TEXT.length);
    },
  };
}

function reading(name: string): Case {
  return {
    ...onFile(name),
    name: `${name} is opened again for reading by its descriptor, before, while and after another process writes`,
    async run(dir) {
      const reader = await python(
        dir,
        `
import os
fd = os.open('${name}', os.O_RDONLY)
os.pread(fd, 10, 0)
def again():
    other = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)
    start = os.pread(other, 3, 0)
    os.close(other)
    return start
`,
      );
      const seen: Seen[] = [await reader.attempt('again()')];
      const writer = await python(
        dir,
        `import os\nfd = os.open('${name}', os.O_WRONLY | os.O_APPEND)\nos.write(fd, b'new')`,
      );
      seen.push(await reader.attempt('again()'));
      await writer.end();
      seen.push(await reader.attempt('again()'));
      assert.deepEqual(seen, ['old', 'old', 'old']);
      return seen;
    },
  };
}

function writing(name: string): Case {
  return {
    ...onFile(name),
    name: `${name} is opened again for writing by a descriptor that was opened for reading`,
    async run(dir) {
      const reader = await python(
        dir,
        `
import errno, os
fd = os.open('${name}', os.O_RDONLY)
os.pread(fd, 10, 0)
def writes():
    try:
        other = os.open(f'/proc/self/fd/{fd}', os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        return errno.errorcode[error.errno]
    os.write(other, b'new\\n')
    os.close(other)
    return 'written'
`,
      );
      const told = await reader.attempt('writes()');
      const text = await shell(dir, `cat ${name}`);
      assert.equal(text, told === 'written' ? `${TEXT}new\n` : TEXT);
      return told;
    },
  };
}

export const descriptors: Subject = {
  subject: 'descriptors',
  cases: [LOG, PLAIN].flatMap((name) => [stdin(name), reading(name), writing(name)]),
};
