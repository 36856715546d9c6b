/**
 * Files that are known by their names to be written in place while others read them: logs, what databases keep beside their data,
 * disk images, and what the mount was told of. They are never on the shared route of a writable mount.
 */

/** A log, also one that was rotated: app.log, error_log, log.1, access.log-20261128. */
const LOG = /(?:^|[._-])logs?(?:\.(?:\d+|old|txt|jsonl?)|-\d+)?$/i;
/** Logs of other names, and the files that login(1) and its kind append to. */
const OTHER_LOG = /^(?:syslog|messages|maillog|lastlog|faillog|[wbu]tmp|nohup\.out)(?:\.\d+|-\d+)?$/;
/** What SQLite keeps beside a database; tables of InnoDB and MyISAM; disk images; numbers of processes. */
const IN_PLACE =
  /(?:-wal|-shm|-journal|\.(?:ibd|ibt|my[di]|mdb|qcow2?|raw|img|vmdk|vdi|vhdx?|pid))$|^ib(?:data|_logfile|tmp)\d+$/i;
/** A folder of logs, and what in one is a log: sources have other endings. */
const LOG_FOLDER = /^(?:logs?|journal)$/;
const IN_LOG_FOLDER = /^[^.]+$|\.(?:log|err|out|txt|jsonl?|trace|journal|\d+)$/i;

/** What a glob of shell means, for whole names: `*`, `?` and `[…]`; glob(7). */
export function globPattern(glob: string): RegExp {
  let pattern = '';
  for (let at = 0; at < glob.length; at++) {
    const letter = glob[at] ?? '';
    const end = letter === '[' ? glob.indexOf(']', at + 2) : -1;
    if (letter === '*') pattern += '.*';
    else if (letter === '?') pattern += '.';
    else if (end > 0) {
      const inner = glob.slice(at + 1, end).replaceAll('\\', '\\\\');
      pattern += `[${inner.replace(/^!/, '^')}]`;
      at = end;
    } else pattern += letter.replace(/[\\^$.|+()[\]{}/-]/, '\\$&');
  }
  return new RegExp(`^${pattern}$`, 's');
}

export class LiveNames {
  readonly #told: readonly RegExp[];

  constructor(globs: readonly string[]) {
    this.#told = globs.map(globPattern);
  }

  /** Whether a file of this name is one, in a folder of logs or another. */
  isFile(name: Uint8Array, amongLogs: boolean): boolean {
    const text = latin(name);
    if (LOG.test(text) || OTHER_LOG.test(text) || IN_PLACE.test(text)) return true;
    return (amongLogs && IN_LOG_FOLDER.test(text)) || this.#told.some((pattern) => pattern.test(text));
  }

  /** Whether a folder of this name has logs. */
  isLogFolder(name: Uint8Array): boolean {
    return LOG_FOLDER.test(latin(name));
  }
}

function latin(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
}
