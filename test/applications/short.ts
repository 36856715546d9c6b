/** Many short readers beside a writer that opens the file again and again: no open fails. */

import assert from 'node:assert/strict';
import { type Case, lines, put, type Subject } from './case.ts';
import { python } from './python.ts';

const READERS = 3;

const LOOP = `
import errno, os, time
def loop(flags, hold, seconds):
    errors, opened = {}, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            fd = os.open(name, getattr(os, flags))
        except OSError as error:
            code = errno.errorcode[error.errno]
            errors[code] = errors.get(code, 0) + 1
            continue
        opened += 1
        if flags == 'O_RDONLY' and os.pread(fd, 1, 0) != b'o':
            errors['wrong byte'] = errors.get('wrong byte', 0) + 1
        if hold:
            time.sleep(hold)
        os.close(fd)
    return [opened > 0, errors]
`;

function beside(name: string, hold: string): Case {
  return {
    name: `${READERS} readers that hold ${name} for ${hold} s each, and a writer, open it without an error`,
    needs: ['python'],
    prepare: (dir) => put(`${dir}/${name}`, lines('old')),
    async run(dir, behind) {
      // The control needs no patience.
      const seconds = dir === behind ? 0.3 : 2.5;
      const code = `name = '${name}'\n${LOOP}`;
      const readers = await Promise.all(Array.from({ length: READERS }, () => python(dir, code)));
      const writer = await python(dir, code);
      const going = readers.map((reader) => reader.attempt(`loop('O_RDONLY', ${hold}, ${seconds})`));
      const seen = await Promise.all([...going, writer.attempt(`loop('O_RDWR', 0, ${seconds})`)]);
      assert.deepEqual(
        seen,
        seen.map(() => [true, {}]),
      );
      return seen;
    },
  };
}

export const short: Subject = {
  subject: 'short readers',
  cases: [beside('chapter', '0'), beside('chapter', '0.001')],
};
