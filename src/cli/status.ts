/** `sharedext status`: what is mounted, and what each daemon says of itself. */

import { Command } from 'commander';
import type { Status } from '../daemon/status.ts';
import type { MountEntry } from '../sys/mounts.ts';
import { paint } from './colour.ts';
import { requireRoot } from './privilege.ts';
import { bytes } from './units.ts';

const ANSWER_TIMEOUT_MS = 3000;

export function statusCommand(): Command {
  return new Command('status')
    .summary('show what is mounted, and what it shares')
    .description('Asks the daemons of all mounts, or of the one on MOUNTPOINT. docs/status.md explains each number.')
    .argument('[mountpoint]')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', '\nExamples:\n  sharedext status\n  sharedext status /mnt/shared --json\n')
    .action(run);
}

/** One mount: what its daemon says, or that it says nothing. */
type MountReport =
  | ({ readonly state: 'serving' } & Status)
  | {
      readonly state: 'dead' | 'silent';
      readonly mountpoint: string;
      readonly source: string;
      readonly minor: number;
      readonly advice: string;
    };

async function ask({ mountpoint, source, minor }: MountEntry): Promise<MountReport> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { isStatus } = await import('../daemon/status.ts');
  const answer = await askDaemon(minor, 'status', ANSWER_TIMEOUT_MS);
  const mount = { mountpoint, source, minor };
  if (answer.state === 'dead') {
    return { state: 'dead', ...mount, advice: `its daemon is gone: try "umount -l ${mountpoint}", then mount again` };
  }
  if (answer.state === 'answered' && isStatus(answer.value)) {
    // A bind mount is asked for by its own place.
    return { state: 'serving', ...answer.value, mountpoint };
  }
  const advice =
    answer.state === 'answered'
      ? 'its daemon is of another version: ask the sharedext that mounted it'
      : `its daemon does not answer: try again, or abort it with "echo 1 > /sys/fs/fuse/connections/${minor}/abort"`;
  return { state: 'silent', ...mount, advice };
}

async function run(path: string | undefined, flags: { readonly json?: true }): Promise<void> {
  requireRoot('ask the daemons');
  const { sharedextMounts } = await import('../daemon/mounted.ts');
  const { findMount } = await import('./mountpath.ts');
  if (path !== undefined) {
    const report = await ask(findMount('ask', path));
    console.log(flags.json === true ? JSON.stringify(report, null, 2) : details(report));
    if (report.state !== 'serving') process.exitCode = 1;
    return;
  }
  const seen = new Set<number>();
  const entries = sharedextMounts().filter(({ minor }) => !seen.has(minor) && seen.add(minor));
  const reports = await Promise.all(entries.map(ask));
  if (flags.json === true) console.log(JSON.stringify(reports, null, 2));
  else if (reports.length === 0) console.log('Nothing is mounted.');
  else await printTable(reports);
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function sharing({ mappings }: Status): string {
  return mappings === null ? 'off' : `${mappings.count} (${bytes(mappings.bytes)})`;
}

/** Problems that a person should know of. */
function warnings(status: Status): string[] {
  const found: string[] = [];
  if (status.bugs > 0) found.push(`${status.bugs} requests failed by a mistake of sharedext: see its log`);
  if (status.missingFlags.length > 0) found.push(`the kernel doesn't offer ${status.missingFlags.join(', ')}`);
  return found;
}

async function printTable(reports: readonly MountReport[]): Promise<void> {
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['MOUNTPOINT', 'SOURCE', 'PID', 'UP', 'NODES', 'OPEN', 'SHARED', 'MAPPINGS', 'REQUESTS', 'MEMORY'],
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: ' ',
    },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 1 },
  });
  const notes: string[] = [];
  for (const report of reports) {
    if (report.state !== 'serving') {
      table.push([report.mountpoint, report.source, paint('red', report.state), '', '', '', '', '', '', '']);
      notes.push(`${report.mountpoint}: ${report.advice}`);
      continue;
    }
    const { open, nodes, memory, requests } = report;
    table.push([
      report.mountpoint,
      report.source,
      String(report.pid),
      duration(report.uptimeSeconds),
      String(nodes.count),
      String(open.inodes),
      String(open.shared),
      sharing(report),
      String(total(requests)),
      bytes(memory.rssBytes),
    ]);
    notes.push(...warnings(report).map((text) => `${report.mountpoint}: ${text}`));
  }
  console.log(table.toString());
  for (const note of notes) console.log(paint('yellow', note));
}

function counted(counts: Readonly<Record<string, number>>): string {
  const sorted = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one);
  return sorted.length === 0 ? 'none' : sorted.map(([name, count]) => `${name} ${count}`).join(', ');
}

function details(report: MountReport): string {
  const { source, mountpoint } = report;
  const title = `${paint('bold', mountpoint)} shows ${source}`;
  if (report.state !== 'serving') return `${title}\n${paint('red', report.state)}: ${report.advice}`;
  const { open, nodes, descriptors, backing, mappings, composed, memory } = report;
  const rows: [string, string][] = [
    [
      'daemon',
      `process ${report.pid}, version ${report.version}, up ${duration(report.uptimeSeconds)}, ${bytes(memory.rssBytes)}; ${report.takeovers} taken over`,
    ],
    ['filesystem', `${report.filesystem}, device 0:${report.minor}`],
    ['store', report.store ?? 'none (nosharedext)'],
    ['nodes', `${nodes.count} of at most ${nodes.limit}, ${nodes.detached} detached`],
    [
      'open',
      `${open.inodes} files: ${open.own} own, ${open.shared} shared, ${open.composed} composed, ${open.relayed} relayed`,
    ],
    ['backing files', `${backing.count} of at most ${backing.limit}`],
    ['descriptors', `${descriptors.process} (${descriptors.handles} for opens, ${descriptors.pinned} pinned)`],
  ];
  if (mappings !== null) {
    rows.push([
      'mappings',
      `${mappings.count} of ${bytes(mappings.bytes)}, ${mappings.idle} idle; made ${mappings.made}, matched ${mappings.matched}, dropped ${mappings.dropped}, mismatched ${mappings.mismatched}`,
    ]);
  }
  if (composed !== null) {
    rows.push([
      'composed',
      `${composed.packs} packs, ${composed.indexed} extents indexed in ${bytes(composed.heldBytes)}; read ${bytes(composed.mappingBytes)} from shared mappings, ${bytes(composed.ownBytes)} from files, ${bytes(composed.zeroBytes)} of zeros; ${composed.slowReads} reads and ${composed.slowWrites} writes waited`,
    ]);
  }
  rows.push(
    ['not shared', counted(report.reasons)],
    ['broken', `${report.broken} times, and ${report.waited} times a writer waited for readers`],
    ['requests', counted(report.requests)],
    ['failures', counted(report.failures)],
    ['waiting', String(report.waiting)],
    ['locks', `${report.locks.count} of at most ${report.locks.limit}, ${report.locks.waiters} waited for`],
    ['journal', `at most ${report.journal.largest} of ${report.journal.limit} words in one step`],
  );
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `  ${paint('dim', name.padEnd(width))}  ${value}`);
  return [title, ...lines, ...warnings(report).map((text) => paint('yellow', `  ${text}`))].join('\n');
}
