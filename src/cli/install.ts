/**
 * `sharedext install`: what belongs outside of the package.
 *
 *     /sbin/mount.fuse.sharedext                     the helper that mount(8) calls for the type fuse.sharedext
 *     /usr/local/share/man/man8/sharedext.8          the man page
 *     /etc/systemd/system/sharedext@.service         one mount per instance: sharedext@mnt-shared for /mnt/shared
 *
 * Each is made from a file below `share`, and has a line that says so: nothing else is overwritten or deleted.
 */

import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { Command } from 'commander';
import { UserError } from '../base/errno.ts';
import { packageRoot, programPath, version } from './package.ts';

const MARK = 'Installed by "sharedext install"';

interface Piece {
  readonly template: string;
  readonly target: string;
  readonly mode: number;
  /** Writes a path as a word of the file's language. */
  readonly quote: (path: string) => string;
}

const pieces: readonly Piece[] = [
  {
    template: 'mount/mount.fuse.sharedext',
    target: '/sbin/mount.fuse.sharedext',
    mode: 0o755,
    quote: (path) => `'${path.replaceAll("'", "'\\''")}'`,
  },
  {
    template: 'man/sharedext.8',
    target: '/usr/local/share/man/man8/sharedext.8',
    mode: 0o644,
    quote: (path) => path,
  },
  {
    template: 'systemd/sharedext@.service',
    target: '/etc/systemd/system/sharedext@.service',
    mode: 0o644,
    // systemd.syntax(7) and systemd.unit(5): quotes, backslashes, and % for specifiers, $ for variables.
    quote: (path) => `"${path.replace(/["\\]/g, '\\$&').replaceAll('%', '%%').replaceAll('$', '$$$$')}"`,
  },
];

export function installCommand(): Command {
  return new Command('install')
    .summary('put the mount helper, the man page and the systemd unit in place')
    .description(
      'Makes "mount -t fuse.sharedext", lines of that type in /etc/fstab, "man sharedext" and the systemd template\n' +
        'unit sharedext@.service work. Prints each file that it writes.',
    )
    .option('--prefix <dir>', 'put everything below DIR instead of /, as for a package')
    .option('--uninstall', 'take away what it put in place')
    .addHelpText('after', '\nExamples:\n  sharedext install\n  sharedext install --uninstall\n')
    .action(run);
}

/** The text at a path, or undefined when nothing is there. */
function textAt(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new UserError(`Cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function run(flags: { readonly prefix?: string; readonly uninstall?: true }): void {
  for (const piece of pieces) {
    const target = flags.prefix === undefined ? piece.target : join(resolve(flags.prefix), piece.target);
    const there = textAt(target);
    if (there !== undefined && !there.includes(MARK)) {
      throw new UserError(`Cannot touch ${target}: it was not made by "sharedext install", move it away`);
    }
    try {
      if (flags.uninstall !== true) {
        write(piece, target);
        console.log(target);
      } else if (there !== undefined) {
        rmSync(target);
        console.log(`deleted ${target}`);
      }
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new UserError(`Cannot ${flags.uninstall === true ? 'delete' : 'write'} ${target}: ${why}`);
    }
  }
}

/** A reader sees the old file or the new one, whole. */
function write(piece: Piece, target: string): void {
  const text = readFileSync(join(packageRoot, 'share', piece.template), 'utf8')
    .replaceAll('@MARK@', () => `${MARK} ${version}`)
    .replaceAll('@NODE@', () => piece.quote(process.execPath))
    .replaceAll('@MAIN@', () => piece.quote(programPath));
  const temporary = `${target}.new`;
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(temporary, text, { mode: piece.mode });
  chmodSync(temporary, piece.mode);
  renameSync(temporary, target);
}
