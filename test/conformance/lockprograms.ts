/**
 * Locks of processes that fork, exec, end, are killed and get signals: programs of their own, which one process of Node can't play.
 * Each is Python, in the case's directory, and ends well when all that it asserts holds.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Case, Subject } from './case.ts';

/** What the programs have in common. A child that is asked to do something reports each step by a byte. */
const PRELUDE = `
import atexit, errno, fcntl, os, select, signal, struct, sys, threading, time
RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB
LAYOUT = 'hhxxxxqqixxxx'
started = []
signal.alarm(15)
top = os.getpid()
@atexit.register
def end():
    if os.getpid() == top:
        for pid in started:
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass

def result(act, *arguments):
    "None, or the name of the error."
    try: act(*arguments)
    except OSError as e: return errno.errorcode[e.errno]
def record(fd, kind, start=0, length=0, wait=False, ofd=False):
    command = (38 if wait else 37) if ofd else (fcntl.F_SETLKW if wait else fcntl.F_SETLK)
    return result(fcntl.fcntl, fd, command, struct.pack(LAYOUT, kind, 0, start, length, 0))
def flock(fd, operation):
    return result(fcntl.flock, fd, operation)
def blocker(fd, kind, start=0, length=0):
    "Type, start, length and process of what is in the way, or None."
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(LAYOUT, kind, 0, start, length, 0))
    kind, _, start, length, pid = struct.unpack(LAYOUT, answer)
    return None if kind == UN else (kind, start, length, pid)
def opened(name='file', flags=os.O_RDWR):
    return os.open(name, flags | os.O_CREAT, 0o666)

class Child:
    "A fork that runs a function, which is given what reports a value."
    def __init__(self, act):
        mine, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(mine)
            signal.alarm(15)
            try: act(lambda value: os.write(theirs, (repr(value) + '\\n').encode()))
            except BaseException as e: os.write(theirs, (repr(repr(e)) + '\\n').encode())
            os._exit(0)
        os.close(theirs)
        started.append(self.pid)
        self.pipe = mine
    def reports(self, seconds=10):
        "The next value, or 'nothing' when none comes."
        line = b''
        while not line.endswith(b'\\n'):
            if not select.select([self.pipe], [], [], seconds)[0]: return 'nothing'
            byte = os.read(self.pipe, 1)
            if byte == b'': return 'ended'
            line += byte
        return eval(line)
    def waits(self): return self.reports(0.1) == 'nothing'
    def signal(self, number): os.kill(self.pid, number)
    def ended(self):
        os.waitpid(self.pid, 0)
        started.remove(self.pid)
    def kill(self):
        self.signal(signal.SIGKILL)
        self.ended()

def tried(kind, start=0, length=0, name='file'):
    "What another process gets that locks a record, opening the file for it."
    child = Child(lambda say: say(record(os.open(name, os.O_RDWR), kind, start, length)))
    answer = child.reports()
    child.ended()
    return answer
def waiting(act, then=None):
    "A child that is about to call act; what it returns is reported, and it stays until it is killed."
    def run(say):
        say('here')
        say(act())
        if then: say(then())
        while True: time.sleep(60)
    child = Child(run)
    assert child.reports() == 'here'
    return child
def soon(what):
    "Locks end a moment after their holders."
    for _ in range(200):
        if what(): return True
        time.sleep(0.02)
    return False
def on_usr1(restart):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, not restart)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def raw_flock(fd, operation):
    "Without Python's own way of trying again."
    return None if libc.flock(fd, operation) == 0 else errno.errorcode[ctypes.get_errno()]
def raw_record(fd, command, kind):
    lock = ctypes.create_string_buffer(struct.pack(LAYOUT, kind, 0, 0, 0, 0))
    return None if libc.fcntl(fd, command, lock) == 0 else errno.errorcode[ctypes.get_errno()]
`;

function program(name: string, body: string): Case {
  return {
    name,
    async run(dir) {
      const child = spawn('python3', ['-c', PRELUDE + body], { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
      let text = '';
      child.stderr.on('data', (data) => {
        text += String(data);
      });
      const [status, signal]: unknown[] = await once(child, 'close');
      if (status !== 0) throw new Error(`${text.trim() || signal}`);
    },
  };
}

/** The ways in which a process has the file open twice, before and after it has a lock. */
const twice: readonly (readonly [string, string])[] = [
  [
    'a second one, for reading, from before',
    'second = opened(flags=os.O_RDONLY); fd = opened(); assert record(fd, WR) is None',
  ],
  ['a second one from after', 'fd = opened(); assert record(fd, WR) is None; second = opened()'],
  ['a duplicate', 'fd = opened(); second = os.dup(fd); assert record(fd, WR) is None'],
  [
    'the one that made the file',
    'fd = opened(); assert record(fd, WR) is None; second = fd; fd = os.open("file", os.O_RDWR); assert record(fd, WR) is None',
  ],
  [
    'one for reading, with a lock for reading',
    'opened(); fd = opened(flags=os.O_RDONLY); second = opened(flags=os.O_RDONLY); assert record(fd, RD) is None',
  ],
];

const ends: Case[] = [
  ...twice.map(([what, body]) =>
    program(
      `closing one of two descriptors ends a process's record locks: ${what}`,
      `
os.close(opened())
${body}
assert tried(WR) == 'EAGAIN'
os.close(second)
assert tried(WR) is None
os.close(fd)
`,
    ),
  ),
  program(
    'a descriptor that another one is put over is closed, and record locks end with it',
    `
fd = opened()
second = opened(flags=os.O_RDONLY)
assert record(fd, WR) is None
os.dup2(os.open('/dev/null', os.O_RDONLY), second)
assert tried(WR) is None
`,
  ),
  program(
    'a descriptor that is closed and opened again at once is another one',
    `
os.close(opened())
fd = os.open('file', os.O_RDONLY)
second = os.open('file', os.O_RDONLY)
assert record(fd, RD) is None
assert tried(WR) == 'EAGAIN'
os.close(second)
assert os.open('file', os.O_RDONLY) == second
assert tried(WR) is None
assert record(fd, RD) is None
assert tried(WR) == 'EAGAIN'
`,
  ),
  program(
    'a fork inherits no record lock, and ends none by closing',
    `
fd = opened()
assert record(fd, WR) is None
def act(say):
    say(record(fd, WR))
    os.close(fd)
    say('closed')
child = Child(act)
assert child.reports() == 'EAGAIN'
assert child.reports() == 'closed'
child.ended()
assert tried(RD) == 'EAGAIN'
`,
  ),
  program(
    'record locks outlive execve, and end with a descriptor that it closes',
    `
fd = opened()
os.set_inheritable(fd, True)
def act(say):
    assert record(fd, WR, 0, 10) is None
    say('locked')
    os.execvp('sleep', ['sleep', '60'])
child = Child(act)
assert child.reports() == 'locked'
assert soon(lambda: open(f'/proc/{child.pid}/comm').read() == 'sleep\\n')
assert blocker(fd, RD) == (WR, 0, 10, child.pid)
child.kill()
assert soon(lambda: blocker(fd, RD) is None)
def closes(say):
    second = os.open('file', os.O_RDONLY)
    assert record(fd, WR, 0, 10) is None
    say('locked')
    os.execvp('sleep', ['sleep', '60'])
child = Child(closes)
assert child.reports() == 'locked'
assert soon(lambda: blocker(fd, RD) is None)
child.kill()
`,
  ),
  ...(['ends', 'is killed'] as const).map((how) =>
    program(
      `record locks end when their process ${how}, though others have the open file still`,
      `
os.close(opened())
for flags in (os.O_RDWR, os.O_RDONLY):
    fd = os.open('file', flags)
    kind = RD if flags == os.O_RDONLY else WR
    def act(say):
        say(record(fd, kind))
        ${how === 'ends' ? 'sys.stdin and time.sleep(0.2)' : 'time.sleep(60)'}
    child = Child(act)
    assert child.reports() is None
    assert tried(WR) == 'EAGAIN'
    child.${how === 'ends' ? 'ended' : 'kill'}()
    assert soon(lambda: tried(WR) is None)
    os.close(fd)
`,
    ),
  ),
  program(
    "a thread's record locks are its process's, and stay when the thread ends",
    `
fd = opened()
thread = threading.Thread(target=lambda: record(fd, WR))
thread.start()
thread.join()
assert tried(WR) == 'EAGAIN'
assert record(fd, WR) is None
os.close(fd)
assert tried(WR) is None
`,
  ),
  ...(['flock(fd, EX | NB)', 'record(fd, WR, ofd=True)'] as const).map((lock) =>
    program(
      `${lock.startsWith('flock') ? 'a flock' : 'the lock of an open file'} lasts until the last process closes it, whatever else of the file is closed`,
      `
fd = opened()
other = os.open('file', os.O_RDWR)
assert ${lock} is None
child = waiting(lambda: None)
os.close(os.open('file', os.O_RDONLY))
os.close(os.dup(fd))
os.close(fd)
fd = other
assert ${lock} == 'EAGAIN'
child.kill()
assert soon(lambda: ${lock} is None)
`,
    ),
  ),
];

const waits: Case[] = [
  ...(
    [
      ['flock', 'raw_flock(fd, EX)'],
      ['lock of a process', 'raw_record(fd, fcntl.F_SETLKW, WR)'],
      ['lock of an open file', 'raw_record(fd, 38, WR)'],
    ] as const
  ).flatMap(([what, call]) => {
    const hold = what === 'flock' ? 'flock(fd, EX)' : 'record(fd, WR)';
    const drop = what === 'flock' ? 'flock(fd, fcntl.LOCK_UN)' : 'record(fd, UN)';
    const tries = what === 'flock' ? 'flock(fd, EX | NB)' : 'record(fd, WR)';
    return [
      program(
        `a signal ends the wait for a ${what}, which isn't had then`,
        `
fd = opened()
assert ${hold} is None
def act():
    global fd
    on_usr1(False)
    fd = os.open('file', os.O_RDWR)
    return ${call}
child = waiting(act)
assert child.waits()
child.signal(signal.SIGUSR1)
assert child.reports() == 'EINTR'
assert ${drop} is None
assert ${tries} is None
`,
      ),
      program(
        `a signal with SA_RESTART lets the wait for a ${what} go on`,
        `
fd = opened()
assert ${hold} is None
def act():
    global fd
    on_usr1(True)
    fd = os.open('file', os.O_RDWR)
    return ${call}
child = waiting(act)
assert child.waits()
child.signal(signal.SIGUSR1)
assert child.waits()
assert ${drop} is None
assert child.reports() is None
assert ${tries} == 'EAGAIN'
child.kill()
assert soon(lambda: ${tries} is None)
`,
      ),
      program(
        `who is killed while it waits for a ${what} waits no more, and the next one gets it`,
        `
fd = opened()
assert ${hold} is None
def act():
    global fd
    fd = os.open('file', os.O_RDWR)
    return ${call}
first = waiting(act)
assert first.waits()
second = waiting(act)
assert second.waits()
first.kill()
assert second.waits()
assert ${drop} is None
assert second.reports() is None
`,
      ),
    ];
  }),
  program(
    'all that go together get what they wait for when it is free, and what is first in the way waits on',
    `
fd = opened()
assert record(fd, WR) is None
readers = [waiting(lambda: record(os.open('file', os.O_RDWR), RD, wait=True)) for _ in range(3)]
for reader in readers: assert reader.waits()
writer = waiting(lambda: record(os.open('file', os.O_RDWR), WR, wait=True))
assert writer.waits()
assert record(fd, UN) is None
for reader in readers: assert reader.reports() is None
assert writer.waits()
for reader in readers: reader.kill()
assert writer.reports() is None
`,
  ),
  program(
    'a lock that becomes one for reading lets waiting readers in',
    `
fd = opened()
assert record(fd, WR) is None
reader = waiting(lambda: record(os.open('file', os.O_RDWR), RD, wait=True))
assert reader.waits()
assert record(fd, RD) is None
assert reader.reports() is None
assert record(fd, WR) == 'EAGAIN'
assert tried(RD) is None
`,
  ),
  program(
    'the end of a holder that is killed ends waits',
    `
os.close(opened())
for lock in (lambda fd: flock(fd, EX), lambda fd: record(fd, WR, wait=True), lambda fd: record(fd, WR, wait=True, ofd=True)):
    holder = waiting(lambda: lock(os.open('file', os.O_RDWR)))
    assert holder.reports() is None
    waiter = waiting(lambda: lock(os.open('file', os.O_RDWR)))
    assert waiter.waits()
    holder.kill()
    assert waiter.reports() is None
    waiter.kill()
`,
  ),
  program(
    'closing a descriptor ends the waits for the record locks of its process',
    `
os.close(opened())
fd = os.open('file', os.O_RDONLY)
second = os.open('file', os.O_RDONLY)
assert record(fd, RD) is None
waiter = waiting(lambda: record(os.open('file', os.O_RDWR), WR, wait=True))
assert waiter.waits()
os.close(second)
assert waiter.reports() is None
`,
  ),
  program(
    'a circle of three processes is told to the one that closes it',
    `
fd = opened()
def act(first, then):
    def both():
        theirs = os.open('file', os.O_RDWR)
        assert record(theirs, WR, first, 1) is None
        return record(theirs, WR, then, 1, wait=True)
    return both
assert record(fd, WR, 0, 1) is None
two = waiting(act(1, 0))
assert two.waits()
three = waiting(act(2, 1))
assert three.waits()
assert record(fd, WR, 2, 1, wait=True) in ('EDEADLK', 'EDEADLOCK')
assert record(fd, UN) is None
assert two.reports() is None
two.kill()
assert three.reports() is None
`,
  ),
  program(
    'a circle of open files is not told',
    `
fd = opened()
assert record(fd, WR, 0, 1, ofd=True) is None
def act():
    theirs = os.open('file', os.O_RDWR)
    assert record(theirs, WR, 1, 1, ofd=True) is None
    return record(theirs, WR, 0, 1, wait=True, ofd=True)
other = waiting(act)
assert other.waits()
on_usr1(False)
mine = waiting(lambda: raw_record(fd, 38, WR))
assert mine.waits()
mine.signal(signal.SIGUSR1)
assert mine.reports() == 'EINTR'
assert record(fd, UN, 0, 1, ofd=True) is None
assert other.reports() is None
`,
  ),
];

const ranges: Case[] = [
  program(
    'ranges are split, cut, merged and converted',
    `
fd = opened()
def seen(start=0, length=0):
    child = Child(lambda say: say(blocker(os.open('file', os.O_RDWR), WR, start, length)))
    answer = child.reports()
    child.ended()
    return answer and answer[:3]
assert record(fd, WR, 10, 10) is None
assert record(fd, WR, 20, 10) is None
assert seen() == (WR, 10, 20)
assert record(fd, RD, 15, 5) is None
assert seen() == (WR, 10, 5)
assert seen(15) == (RD, 15, 5)
assert seen(20) == (WR, 20, 10)
assert record(fd, UN, 12, 1) is None
assert seen() == (WR, 10, 2)
assert seen(12) == (WR, 13, 2)
assert record(fd, RD, 0, 0) is None
assert seen() == (RD, 0, 0)
assert record(fd, UN, 100, 0) is None
assert seen() == (RD, 0, 100)
assert record(fd, UN, 0, 0) is None
assert seen() is None
`,
  ),
  program(
    'a lock for reading becomes one for writing when no other reads, and stays when one does',
    `
fd = opened()
assert record(fd, RD) is None
reader = waiting(lambda: record(os.open('file', os.O_RDWR), RD, 50, 1))
assert reader.reports() is None
assert record(fd, WR) == 'EAGAIN'
assert tried(WR, 0, 1) == 'EAGAIN'
assert record(fd, WR, 0, 50) is None
reader.kill()
assert soon(lambda: record(fd, WR) is None)
`,
  ),
  program(
    'a flock is converted when it can be, and lost when not',
    `
one, two = opened(), opened()
assert flock(one, SH) is None
assert flock(one, EX | NB) is None
assert flock(two, SH | NB) == 'EAGAIN'
assert flock(one, SH | NB) is None
assert flock(two, SH | NB) is None
assert flock(one, EX | NB) == 'EAGAIN'
assert flock(two, EX | NB) is None
`,
  ),
  program(
    'two that share a flock and want it whole get it one after the other',
    `
fd = opened()
assert flock(fd, SH) is None
def act():
    os.close(fd)
    theirs = os.open('file', os.O_RDWR)
    assert flock(theirs, SH) is None
    return flock(theirs, EX)
other = waiting(act)
assert other.waits()
mine = waiting(lambda: flock(fd, EX))
assert mine.reports() is None
assert other.waits()
mine.kill()
os.close(fd)
assert other.reports() is None
`,
  ),
  program(
    'a range may reach to the last byte that there can be, and backwards',
    `
fd = opened()
last = 2 ** 63 - 1
assert record(fd, WR, last, 1) is None
assert record(fd, WR, 100, -50) is None
def seen(start):
    child = Child(lambda say: say(blocker(os.open('file', os.O_RDWR), RD, start, 0)))
    answer = child.reports()
    child.ended()
    return answer and answer[:3]
assert seen(0) == (WR, 50, 50)
assert seen(100) == (WR, last, 0)
assert tried(WR, 0, 50) is None
assert tried(WR, 99, 1) == 'EAGAIN'
`,
  ),
];

export const lockPrograms: Subject = { subject: 'locks of programs', cases: [...ends, ...waits, ...ranges] };
