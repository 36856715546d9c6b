/** git: packs are mapped, replaced and removed while others read; refs and the index are locked and replaced by rename. */

import assert from 'node:assert/strict';
import { type Case, lines, type Subject } from './case.ts';
import { output, type Program, shell, start } from './processes.ts';
import { python } from './python.ts';

const COMMITS = 12;
const WHO = [
  'export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b',
  "export GIT_AUTHOR_DATE='2020-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2020-01-01 00:00:00 +0000'",
  'export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null',
].join('; ');

/** Runs a line of shell in the repository as one author at one time: so all names of objects are known. */
function git(dir: string, line: string): Promise<string> {
  return shell(dir, `set -e; ${WHO}; cd repository; ${line}`);
}

const repository: Pick<Case, 'needs' | 'prepare'> = {
  needs: ['git'],
  async prepare(dir) {
    await shell(dir, 'git init -q -b main repository');
    await python(dir, `open('repository/text', 'w').write(${JSON.stringify(lines('text'))})`);
    const half = COMMITS / 2;
    const commit =
      'for n in $(seq FROM TO); do sed -i "s/^text line $n$/changed in $n/" text; seq $n 3000 > file$n; git add .; git commit -qm "commit $n"; done';
    // Half of it in a pack, half of it loose, and one object that nobody needs.
    await git(dir, 'git config gc.auto 0');
    await git(dir, commit.replace('FROM', '1').replace('TO', String(half)));
    await git(dir, 'git repack -adq; git branch half');
    await git(dir, commit.replace('FROM', String(half + 1)).replace('TO', String(COMMITS)));
    await git(dir, 'seq 5000 | git hash-object -w --stdin');
  },
};

/** `git cat-file --batch`, left open: it keeps the packs that it has read mapped. */
async function openBatch(dir: string): Promise<Program> {
  const batch = start(`${dir}/repository`, 'git', 'cat-file', '--batch');
  batch.write('HEAD~9:text\n');
  await batch.says(/text line 100\n[\s\S]*\n\n$/);
  return batch;
}

export const gitCases: Subject = {
  subject: 'git',
  cases: [
    {
      ...repository,
      name: 'repack and gc beside readers of the old packs leave all that is needed, and nothing else',
      async run(dir) {
        const batch = await openBatch(dir);
        const unneeded = (await git(dir, 'seq 5000 | git hash-object --stdin')).trim();
        const log = await git(dir, 'git log --format=%H --stat; git fsck --full 2>&1');
        const objects = (await git(dir, "git rev-list --objects --all | cut -d' ' -f1")).trim().split('\n');
        const fsck = start(`${dir}/repository`, 'git', 'fsck', '--full', '--no-dangling', '--no-progress');
        await git(dir, 'git repack -adq; git gc -q --prune=now');
        const checked = await fsck.end();
        const before = batch.stdout.length;
        for (const object of [...objects, unneeded]) batch.write(`${object}\n`);
        const { status, stdout } = await batch.end();
        const again = await git(dir, 'git log --format=%H --stat; git fsck --full 2>&1');
        const packs = (
          await git(dir, 'ls .git/objects/pack/*.pack | wc -l; find .git/objects -path "*/??/*" -type f | wc -l')
        ).trim();
        assert.deepEqual([checked.status, status, packs], [0, 0, '1\n0']);
        assert.equal(stdout.match(new RegExp(`^${unneeded} missing$`, 'gm'))?.length, 1);
        return { log, objects, checked, read: stdout.slice(before), again, packs };
      },
    },
    {
      ...repository,
      name: 'commits and checkouts beside a reader that holds the index, a ref and the files open leave a clean tree',
      async run(dir) {
        const reader = await python(
          dir,
          `
names = ['.git/index', '.git/HEAD', '.git/refs/heads/main', 'text', 'file3']
files = [open('repository/' + name, 'rb') for name in names]
first = [file.read() for file in files]
`,
        );
        const batch = await openBatch(dir);
        const told = [
          await git(dir, 'git checkout -q half; git status --porcelain; ls; git rev-parse HEAD; wc -l text'),
          await git(dir, 'echo more >> text; git diff --stat; git commit -qam more; git rev-parse HEAD'),
          await git(
            dir,
            'git checkout -q main; git merge -q -m merged half; git status --porcelain; git log --format=%H',
          ),
          await git(dir, 'git rm -q file3; git stash -q; git stash pop -q; git status --porcelain'),
          await git(dir, 'git commit -qam last; git status --porcelain; git fsck --full 2>&1; tail -n 2 text'),
        ];
        batch.write('HEAD:text\n');
        const { stdout } = await batch.end();
        // git replaces files; who has the old ones open keeps them, on any filesystem.
        const kept = await reader.attempt('[file.seek(0) or file.read() == data for file, data in zip(files, first)]');
        assert.match(stdout, /\nmore\n\n$/);
        assert.deepEqual(kept, Array(5).fill(true));
        return { told, kept, last: stdout.length };
      },
    },
    {
      ...repository,
      name: 'a clone, a fetch and a push between repositories bring all commits',
      async run(dir) {
        const batch = await openBatch(dir);
        const told = [
          await git(dir, 'git clone -q --no-local . ../copy; cd ../copy; git log --format=%H; git fsck --full 2>&1'),
          await git(dir, 'echo more >> text; git commit -qam more; cd ../copy; git pull -q; git rev-parse HEAD'),
          await git(dir, 'cd ../copy; echo again >> text; git commit -qam again; git push -q origin HEAD:pushed'),
          await git(dir, 'git rev-parse pushed; git merge -q pushed; git status --porcelain; git fsck --full 2>&1'),
        ];
        batch.write('pushed:text\n');
        const { stdout } = await batch.end();
        assert.match(stdout, /\nmore\nagain\n\n$/);
        assert.equal(await output(dir, 'diff', '-r', '-x', '.git', 'repository', 'copy'), '');
        return told;
      },
    },
  ],
};
