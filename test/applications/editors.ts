/** Editors, of both kinds: those that write into the file, and those that put a new one in its place. */

import assert from 'node:assert/strict';
import { type Case, lines, put, type Subject } from './case.ts';
import type { Need } from './needs.ts';
import { output, shell } from './processes.ts';
import { python } from './python.ts';

const TEXT = lines('old');
const EDITED = `${TEXT.replace('old line 7\n', 'new line 7\n')}appended\n`;

interface Editor {
  readonly name: string;
  readonly needs: readonly Need[];
  edit(dir: string): Promise<unknown>;
}

const VIM = 'vim.tiny -N -u NONE -i NONE -n -es';
/** The small vim has no expressions: `\r` breaks the last line. */
const COMMANDS = "-c '7s/old/new/' -c '$s/$/\\rappended/' -c 'wq' chapter";

/** They open the file for writing; the small vim makes no backup, so that it always does. */
const inPlace: readonly Editor[] = [
  {
    name: 'ed',
    needs: ['ed'],
    edit: (dir) => shell(dir, "printf '7s/old/new/\\n$a\\nappended\\n.\\nw\\nq\\n' | ed -s chapter"),
  },
  { name: 'vim', needs: ['vim'], edit: (dir) => shell(dir, `${VIM} -c 'set backupcopy=yes' ${COMMANDS}`) },
  {
    name: 'Python with r+',
    needs: [],
    async edit(dir) {
      const editor = await python(
        dir,
        `
with open('chapter', 'r+') as file:
    text = file.read().replace('old line 7\\n', 'new line 7\\n') + 'appended\\n'
    file.seek(0)
    file.write(text)
    file.truncate()
`,
      );
      await editor.end();
    },
  },
  {
    name: 'a shell that writes into it',
    needs: [],
    edit: (dir) => shell(dir, "sed '7s/old/new/' chapter > new && cat new > chapter && echo appended >> chapter"),
  },
];

/** They make a file and rename it. */
const byName: readonly Editor[] = [
  { name: 'sed -i', needs: [], edit: (dir) => shell(dir, "sed -i -e '7s/old/new/' -e '$aappended' chapter") },
  {
    name: 'perl -pi',
    needs: ['perl'],
    edit: (dir) => shell(dir, `perl -pi -e 's/old/new/ if $. == 7; $_ .= "appended\\n" if eof' chapter`),
  },
];

/** A process that has read half of the file, and knows how much fstat(2) says there is. */
const HALF = `
import os
file = open('chapter', 'rb', buffering=0)
half = file.read(10000)
def rest():
    data = half + file.readall()
    file.seek(0)
    again = file.readall()
    return [len(again) == os.fstat(file.fileno()).st_size, data == again, again[-9:]]
`;

/** Whoever opens the file later sees the new text. */
function later({ name, needs, edit }: Editor): Case {
  return {
    name: `who opens a file after ${name} has edited it sees the new text, also beside somebody who reads the old one`,
    needs: [...needs, 'python'],
    prepare: (dir) => put(`${dir}/chapter`, TEXT),
    async run(dir) {
      await python(dir, HALF);
      await edit(dir);
      const count = (await shell(dir, 'wc -l < chapter')).trim();
      const text = await output(dir, 'cat', 'chapter');
      const size = (await shell(dir, 'stat -c %s chapter')).trim();
      assert.equal(text, EDITED);
      assert.deepEqual([count, size], [String(EDITED.split('\n').length - 1), String(EDITED.length)]);
      return { count, size };
    },
  };
}

/** What somebody sees who opened the file before. */
function before({ name, needs, edit }: Editor): Case {
  return {
    name: `who has half read a file when ${name} edits it reads the rest of one whole text`,
    needs: [...needs, 'python'],
    prepare: (dir) => put(`${dir}/chapter`, TEXT),
    async run(dir) {
      const reader = await python(dir, HALF);
      await edit(dir);
      const [whole, , end] = Object.values((await reader.attempt('rest()')) ?? []);
      assert.equal(whole, true, 'fstat tells of what reads give');
      return end === 'appended\n' ? 'new' : 'old';
    },
  };
}

export const editors: Subject = {
  subject: 'editors',
  cases: [...inPlace, ...byName].flatMap((editor) => [later(editor), before(editor)]),
};
