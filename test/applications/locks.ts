/**
 * Locks between processes on one file: flock(1) in scripts, flock(2), fcntl(2)'s of a process and of an open file. Who
 * locks a file that it has open for reading must exclude who opens it for writing later, by whatever inode each has it.
 */

import assert from 'node:assert/strict';
import { pause } from '../support/wait.ts';
import { type Case, lines, put, type Seen, type Subject } from './case.ts';
import { outcome, type Program, shell, start } from './processes.ts';
import { type Python, python } from './python.ts';

/** What a file is called decides what a mount takes it for. */
const NAMES = ['chapter', 'app.log'] as const;

const LOCKING = `
import errno, fcntl, os, struct
LOCKS = {'shared': fcntl.LOCK_SH, 'exclusive': fcntl.LOCK_EX}
RECORDS = {'shared': fcntl.F_RDLCK, 'exclusive': fcntl.F_WRLCK, 'none': fcntl.F_UNLCK}

def opens(flags):
    global fd
    fd = os.open(name, getattr(os, flags))

def told(act):
    try:
        act()
        return 'locked'
    except OSError as error:
        return 'refused' if error.errno in (errno.EAGAIN, errno.EACCES) else errno.errorcode[error.errno]

def flock(kind):
    return told(lambda: fcntl.flock(fd, LOCKS[kind] | fcntl.LOCK_NB))

def record(kind, start, length, command=fcntl.F_SETLK):
    return told(lambda: fcntl.fcntl(fd, command, struct.pack('hhqqi4x', RECORDS[kind], 0, start, length, 0)))

def openfile(kind, start, length):
    return record(kind, start, length, fcntl.F_OFD_SETLK)

def holder(kind, start, length):
    packed = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', RECORDS[kind], 0, start, length, 0))
    kind, _, start, length, pid = struct.unpack('hhqqi4x', packed)
    return [kind, start, length, pid]

def waits(kind):
    fcntl.lockf(fd, LOCKS[kind], 10, 5)
    return 'locked'
`;

async function locker(dir: string, name: string, flags: 'O_RDONLY' | 'O_RDWR'): Promise<Python> {
  const one = await python(dir, `name = '${name}'\n${LOCKING}`);
  await one.does(`opens('${flags}')`);
  return one;
}

function onFile(name: string): Pick<Case, 'prepare' | 'needs'> {
  return { needs: ['python'], prepare: (dir) => put(`${dir}/${name}`, lines('old')) };
}

function ofPrograms(name: string): Case[] {
  return [
    {
      ...onFile(name),
      name: `flock(2) of a reader of ${name} excludes a later writer, and the reverse`,
      async run(dir) {
        const reader = await locker(dir, name, 'O_RDONLY');
        const held = await reader.does("flock('exclusive')");
        const writer = await locker(dir, name, 'O_RDWR');
        const late = await locker(dir, name, 'O_RDONLY');
        const seen: Seen[] = [held, await writer.attempt("flock('exclusive')"), await late.attempt("flock('shared')")];
        await reader.does('fcntl.flock(fd, fcntl.LOCK_UN)');
        seen.push(await writer.attempt("flock('exclusive')"), await reader.attempt("flock('shared')"));
        await writer.does('os.close(fd)');
        seen.push(await reader.attempt("flock('shared')"), await late.attempt("flock('shared')"));
        seen.push(await reader.attempt("flock('exclusive')"));
        assert.deepEqual(seen, ['locked', 'refused', 'refused', 'locked', 'refused', 'locked', 'locked', 'refused']);
        return seen;
      },
    },
    ...(['record', 'openfile'] as const).map(
      (kind): Case => ({
        ...onFile(name),
        name: `${kind === 'record' ? 'fcntl(2)’s locks' : 'locks of open files'} on ${name} exclude each other by ranges`,
        async run(dir) {
          const reader = await locker(dir, name, 'O_RDONLY');
          const held = await reader.does(`${kind}('shared', 0, 100)`);
          const writer = await locker(dir, name, 'O_RDWR');
          const late = await locker(dir, name, 'O_RDONLY');
          const seen: Seen[] = [
            held,
            await writer.attempt(`${kind}('exclusive', 50, 10)`),
            await writer.attempt(`${kind}('exclusive', 0, 0)`),
            await writer.attempt(`${kind}('exclusive', 100, 100)`),
            await writer.attempt(`${kind}('shared', 50, 10)`),
            await reader.attempt(`${kind}('shared', 150, 10)`),
            await late.attempt(`${kind}('shared', 0, 100)`),
            await late.attempt(`${kind}('shared', 90, 20)`),
          ];
          await reader.does(`${kind}('none', 0, 100)`);
          seen.push(await writer.attempt(`${kind}('exclusive', 50, 10)`));
          await late.end();
          seen.push(await writer.attempt(`${kind}('exclusive', 50, 10)`));
          assert.deepEqual(seen, [
            'locked',
            'refused',
            'refused',
            'locked',
            'locked',
            'refused',
            'locked',
            'refused',
            'refused',
            'locked',
          ]);
          return seen;
        },
      }),
    ),
    {
      ...onFile(name),
      name: `a writer that waits for a reader’s lock on ${name} gets it when the reader ends`,
      async run(dir) {
        const reader = await locker(dir, name, 'O_RDONLY');
        await reader.does('fcntl.lockf(fd, fcntl.LOCK_SH, 10, 5)');
        const writer = await locker(dir, name, 'O_RDWR');
        const asked = await writer.attempt("holder('exclusive', 0, 0)");
        const { pid } = { pid: await reader.does('os.getpid()') };
        const waiting = writer.attempt("waits('exclusive')");
        const early = await Promise.race([waiting, pause(300).then(() => 'waits')]);
        await reader.kill();
        const late = await waiting;
        assert.deepEqual([early, late], ['waits', 'locked']);
        assert.deepEqual(asked, [0, 5, 10, pid]);
        return { early, late };
      },
    },
  ];
}

/** A script that holds a lock until its input ends. */
async function hold(dir: string, ...args: readonly string[]): Promise<Program> {
  const holder = start(dir, 'flock', ...args, '-c', 'echo held; cat');
  await holder.says(/^held\n/);
  return holder;
}

async function statusOf(dir: string, ...args: readonly string[]): Promise<number | null> {
  return (await outcome(dir, 'flock', ...args, '-c', 'true')).status;
}

function ofScripts(name: string): Case {
  return {
    name: `flock(1) on ${name}: exclusive, shared, -n, -w`,
    needs: ['flock'],
    prepare: (dir) => put(`${dir}/${name}`, lines('old')),
    async run(dir) {
      const exclusive = await hold(dir, '-x', name);
      // Somebody writes to it meanwhile, who locks nothing.
      await shell(dir, `echo new >> ${name}`);
      const refused = [
        await statusOf(dir, '-n', name),
        await statusOf(dir, '-n', '-s', name),
        await statusOf(dir, '-w', '0.2', name),
        await statusOf(dir, '-n', '-E', '7', name),
      ];
      const patient = statusOf(dir, '-w', '60', name);
      await exclusive.end();
      const later = await patient;
      const shared = [await hold(dir, '-s', name), await hold(dir, '-s', '-n', name)];
      const beside = [await statusOf(dir, '-s', '-n', name), await statusOf(dir, '-x', '-n', name)];
      for (const one of shared) await one.end();
      const last = await statusOf(dir, '-x', '-n', name);
      assert.deepEqual({ refused, later, beside, last }, { refused: [1, 1, 1, 7], later: 0, beside: [0, 1], last: 0 });
      return { refused, later, beside, last };
    },
  };
}

const PADDING = `${'# padding\n'.repeat(1000)}`;

export const locks: Subject = {
  subject: 'locks',
  cases: [
    ...NAMES.flatMap(ofPrograms),
    ...NAMES.map(ofScripts),
    {
      name: 'a script that locks itself runs once at a time, also after somebody appended to it',
      needs: ['flock', 'bash'],
      prepare(dir) {
        put(
          `${dir}/once.sh`,
          `#!/bin/bash\nexec 9< "$0"\nflock -n 9 || { echo busy; exit 3; }\necho runs\ncat\n${PADDING}`,
          0o755,
        );
      },
      async run(dir) {
        const first = start(dir, './once.sh');
        await first.says(/^runs\n/);
        const second = await outcome(dir, './once.sh');
        await shell(dir, 'echo "# more" >> once.sh');
        const third = await outcome(dir, './once.sh');
        const ended = await first.end();
        const fourth = await outcome(dir, './once.sh');
        const seen = [second, third, ended, fourth].map(({ status, stdout }) => [status, stdout]);
        assert.deepEqual(seen, [
          [3, 'busy\n'],
          [3, 'busy\n'],
          [0, 'runs\n'],
          [0, 'runs\n'],
        ]);
        return seen;
      },
    },
    {
      name: 'the boilerplate of flock(1) keeps a script from running twice',
      needs: ['flock', 'bash'],
      prepare(dir) {
        const boilerplate = '[ "$FLOCKER" != "$0" ] && exec env FLOCKER="$0" flock -en "$0" "$0" "$@" || :';
        put(`${dir}/once.sh`, `#!/bin/bash\n${boilerplate}\necho runs\ncat\n${PADDING}`, 0o755);
      },
      async run(dir) {
        const first = start(dir, './once.sh');
        await first.says(/^runs\n/);
        const second = await outcome(dir, './once.sh');
        const ended = await first.end();
        const third = await outcome(dir, './once.sh');
        const seen = [second, ended, third].map(({ status, stdout }) => [status, stdout]);
        assert.deepEqual(seen, [
          [1, ''],
          [0, 'runs\n'],
          [0, 'runs\n'],
        ]);
        return seen;
      },
    },
  ],
};
