/** What the section about starts says. */

import { barChart } from '../plot.ts';
import type { Plot, SectionResult } from '../section.ts';
import { absences, list, optionalList, table } from './markdown.ts';
import { DISTURBED } from './memoryuse.ts';
import { type Disk, LIMITS, type PeerStarts, type Start, type Starts } from './start.ts';

/** How many times faster than on the bare filesystem later starts shall be when the disk is the limit. */
const GOAL_FASTER = 5;
/** How many times slower than over a common lower layer any start may be. */
const GOAL_SLOWER = 1.1;

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? high) + high) / 2;
}

/** The median of all rounds, of the first tree or of the later ones. */
function medianOf({ rounds }: PeerStarts, which: 'first' | 'later', of: (start: Start) => number): number {
  return median(rounds.flatMap((starts) => (which === 'first' ? starts.slice(0, 1) : starts.slice(1)).map(of)));
}

const whole =
  (program: number) =>
  ({ makeMs, startedMs }: Start): number =>
    makeMs + (startedMs[program] ?? Number.NaN);

const ms = (value: number): string => `${value.toFixed(0)}`;

function diskTable({ asked, image }: Starts, disk: Disk): string {
  const ours = disk.peers.find(({ peer }) => peer.kind === 'ours');
  const head = image.programs.flatMap(({ name }) => [`${name}, first`, `÷ sharedext`, `${name}, later`, `÷ sharedext`]);
  const rows = disk.peers.map((one) => [
    one.peer.name,
    ms(medianOf(one, 'first', ({ makeMs }) => makeMs)),
    ...image.programs.flatMap((_, program) =>
      (['first', 'later'] as const).flatMap((which) => {
        const value = medianOf(one, which, whole(program));
        return [ms(value), ours === undefined ? '–' : (value / medianOf(ours, which, whole(program))).toFixed(2)];
      }),
    ),
  ]);
  const title = disk.limited ? 'limited disk, ms' : `${asked.filesystem}, disk as it is, ms`;
  return table([[title, 'make a tree', ...head], ...rows]);
}

function verdict({ image, disks }: Starts): string[] {
  const said: string[] = [];
  for (const disk of disks) {
    const named = (name: string) => disk.peers.find(({ peer }) => peer.name.startsWith(name));
    const [bare, common, ours] = [named('clones, bare'), named('overlayfs, common'), named('sharedext over')];
    if (ours === undefined) continue;
    const where = disk.limited ? 'With the limited disk' : 'With the disk as it is';
    image.programs.forEach(({ name }, program) => {
      const of = whole(program);
      if (bare !== undefined) {
        const faster = medianOf(bare, 'later', of) / medianOf(ours, 'later', of);
        const goal = disk.limited
          ? ` (the goal of ${GOAL_FASTER} is ${faster >= GOAL_FASTER ? 'reached' : 'not reached'})`
          : '';
        said.push(
          `${where}, later starts of ${name} took ${faster.toFixed(1)} times as long on bare clones as with sharedext${goal}.`,
        );
      }
      if (common !== undefined) {
        const ratio = (which: 'first' | 'later'): number => medianOf(ours, which, of) / medianOf(common, which, of);
        const worst = Math.max(ratio('first'), ratio('later'));
        said.push(
          `${where}, starts of ${name} took ${ratio('first').toFixed(2)} (first) and ${ratio('later').toFixed(2)} (later) times as long as over a common lower layer; ${
            worst <= GOAL_SLOWER ? 'within' : 'not within'
          } the goal of ${GOAL_SLOWER}.`,
        );
      }
    });
  }
  return said;
}

/** What a start reads from the disk, in the first of the trees and in later ones. */
function readsTable({ image, disks }: Starts): string {
  const peers = disks.find(({ limited }) => !limited)?.peers ?? [];
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const rows = peers.map((one) => [
    one.peer.name,
    ...image.programs.flatMap((_, program) =>
      (['first', 'later'] as const).map((which) =>
        mib(medianOf(one, which, ({ readBytes }) => readBytes[program] ?? Number.NaN)),
      ),
    ),
  ]);
  const head = image.programs.flatMap(({ name }) => [`${name}, first`, `${name}, later`]);
  return `What a start read from the disk says where its time goes when the disk is slow:

${table([['MiB read from the disk', ...head], ...rows])}

`;
}

/** What the requests of a later start would take with a server that does nothing, with what a common lower layer takes for the rest. */
function leastTable({ image, disks, roundTrip }: Starts): string {
  const peers = disks.find(({ limited }) => !limited)?.peers ?? [];
  const ours = peers.find(({ peer }) => peer.kind === 'ours');
  const common = peers.find(({ peer }) => peer.name.startsWith('overlayfs, common'));
  if (ours === undefined || common === undefined) return '';
  const rows = image.programs.map(({ name }, program) => {
    const answered = medianOf(ours, 'later', (start) => start.answered[program] ?? Number.NaN);
    const [overlay, taken] = [medianOf(common, 'later', whole(program)), medianOf(ours, 'later', whole(program))];
    const least = (answered * roundTrip) / 1000;
    const ratios = [(overlay + least) / overlay, taken / overlay].map((value) => value.toFixed(2));
    return [name, ms(overlay), `${answered}`, `${least.toFixed(1)} ms`, ...ratios];
  });
  const head = [
    'a later start',
    'common lower, ms',
    'requests',
    'round trips',
    'then ÷ common lower',
    'sharedext ÷ common lower',
  ];
  return `A start in a new tree opens files that nobody has opened there before: the kernel asks for each name, each open, each folder, and for
each ioctl(2) with which Python asks whether a file is a terminal, and waits for the answers. A server whose answers are constants took
${roundTrip.toFixed(1)} µs for one (GETATTR, on all processors); with what a common lower layer takes for the rest that makes the least that a start can take:

${table([head, ...rows])}

`;
}

function plots({ image, disks, asked }: Starts): Plot[] {
  const disk = disks.find(({ limited }) => limited) ?? disks[0];
  if (disk === undefined) return [];
  return image.programs.map(({ name }, program) => {
    const bars = disk.peers
      .map((one) => {
        const values = [
          medianOf(one, 'later', ({ makeMs }) => makeMs),
          medianOf(one, 'later', ({ startedMs }) => startedMs[program] ?? Number.NaN),
        ];
        const all = medianOf(one, 'later', whole(program));
        return { name: one.peer.name, ours: one.peer.kind === 'ours', values, label: `${ms(all)} ms`, all };
      })
      .sort((a, b) => b.all - a.all);
    return {
      file: `bench-start-${name}.svg`,
      svg: barChart({
        title: `${name} in one more tree`,
        subtitle: `From making the tree to the first word, while the same program runs in the trees before it${disk.limited ? '; limited disk' : ''}`,
        foot: `ms, medians; ${asked.filesystem}.`,
        parts: ['making the tree', 'to the first word'],
        tick: (value) => value.toLocaleString('en-US'),
        bars,
      }),
    };
  });
}

export function startResult(result: Starts): SectionResult {
  const { image, rounds, before, trees, disks, limitedBy, leftOut } = result;
  const programs = image.programs.map(({ name }) => name);
  const drawn = plots(result);
  const disturbed = disks.flatMap(({ peers, limited }) =>
    peers
      .filter((one) => one.disturbed)
      .map(({ peer }) => `${peer.name}, ${limited ? 'limited disk' : 'disk as it is'}: ${DISTURBED}.`),
  );
  const limit =
    limitedBy === undefined
      ? ''
      : `The disk of a benchmark is fast; those of many machines aren't. "Limited disk" is the same disk with at most
${LIMITS.bytesPerSecond / 1_000_000} MB and ${LIMITS.readsPerSecond.toLocaleString('en-US')} reads per second, what a cloud's general purpose volume gives when nobody paid for more. It is limited by ${limitedBy}, on the loop device that
the filesystem lies on, for everything that takes part.`;
  const text = `The time from before a tree is made to the first word of a program in it (${programs.join(', ')}), which comes when its modules are loaded: a snapshot or
a copy by reflink, mounts, servers of its own, a \`chown -R\`, whatever it takes, and then chroot(8). In each of ${rounds} rounds the programs are run in ${before} trees that aren't timed, as on a host that is in use; then the
caches are dropped, and the programs are started in ${trees} other trees, one after another, and go on running. "First" is the first of these, with
nothing in memory; "later" are the others. Medians. A mount of sharedext over all clones and an image file that has many overlays are there
before; of the mount "mounted just now" nothing was asked: its clones aren't made, and its server's code isn't compiled.
${limit}

${disks.map((disk) => diskTable(result, disk)).join('\n\n')}

${optionalList([...disturbed, ...absences(leftOut)])}${drawn.map(({ file }) => `![Starts](${file})`).join('\n\n')}

${readsTable(result)}${leastTable(result)}${list(verdict(result))}`;
  return {
    text,
    plots: drawn,
    numbers: {
      limits: limitedBy === undefined ? undefined : LIMITS,
      programs,
      disks: disks.map(({ limited, peers }) => ({
        limited,
        peers: peers.map(({ peer, ...found }) => ({ name: peer.name, ...found })),
      })),
      leftOut,
    },
  };
}
