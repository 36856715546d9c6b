/**
 * What this kernel, this process and this source can do, found out by doing it: nothing is concluded from a version. Every
 * probe takes away what it made.
 */

import { mkdtempSync, readdirSync, readFileSync, rmdirSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errnoText, UserError } from '../base/errno.ts';
import {
  AT_EMPTY_PATH,
  BTRFS_IOC_FS_INFO,
  MNT_DETACH,
  O_CLOEXEC,
  O_PATH,
  O_RDWR,
  O_TMPFILE,
  STATX_SUBVOL,
} from '../base/linux.ts';
import { type Memory, putString } from '../base/memory.ts';
import { HANDLE_BYTES } from '../filesystem/handles.ts';
import { type InitResult, negotiate } from '../fuse/server/init.ts';
import { PAYLOAD } from '../fuse/server/session.ts';
import { fuse_in_header, fuse_init_out, fuse_out_header } from '../fuse/wire/structs.ts';
import { PLACE_SCRATCH_BYTES, takePlace } from '../mappings/place.ts';
import { FuseBackingFiles, FuseDevice, openFuseDevice } from '../sys/fuse.ts';
import { HALT_POLL, IdleProcessors, sleepsAtOnce } from '../sys/idle.ts';
import * as sys from '../sys/libc.ts';
import { allocate } from '../sys/memory.ts';
import { openSource, probeReflink, type Source } from './source.ts';
import { pollsByItself } from './spinning.ts';

export interface Finding {
  readonly name: string;
  /** `missing`: a mount can't work without it. */
  readonly state: 'ok' | 'warn' | 'missing';
  readonly found: string;
  /** What to do about it; empty when nothing needs doing. */
  readonly advice: string;
}

function ok(name: string, found: string): Finding {
  return { name, state: 'ok', found, advice: '' };
}

function warn(name: string, found: string, advice: string): Finding {
  return { name, state: 'warn', found, advice };
}

function missing(name: string, found: string, advice: string): Finding {
  return { name, state: 'missing', found, advice };
}

/** All findings about the kernel, and about a source where one is given. To be called as root. */
export function probe(path: string | undefined): Finding[] {
  const scratch = allocate('probes', 1 << 17);
  const findings: Finding[] = [];
  let source: Source | undefined;
  if (path !== undefined) {
    try {
      source = openSource(path, scratch);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      findings.push(missing('source', error.message, 'use a directory on btrfs or XFS'));
    }
  }
  findings.push(...probeFuse(source, scratch), probeDescriptors(), probeIdle());
  if (source !== undefined) {
    findings.push(...probeSource(source, scratch));
    source.close();
  }
  return findings;
}

const PASSTHROUGH_ADVICE = 'passthrough came with Linux 6.9 and CONFIG_FUSE_PASSTHROUGH=y: use such a kernel';

/** Makes a mount that nobody can reach in time, takes the kernel's INIT, answers it, and registers a backing file. */
function probeFuse(source: Source | undefined, scratch: Memory): Finding[] {
  const fd = openFuseDevice(scratch);
  if (fd < 0) {
    return [
      missing('/dev/fuse', errnoText(fd), 'load the module with "modprobe fuse"; in a container, pass the device in'),
    ];
  }
  const findings = [ok('/dev/fuse', 'it can be opened')];
  const mountpoint = mkdtempSync(join(tmpdir(), 'sharedext-doctor-'));
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0`;
  const mounted = sys.mount('sharedext-doctor', mountpoint, 'fuse', 0, data);
  if (mounted < 0) {
    findings.push(missing('mount', errnoText(mounted), 'sharedext needs CAP_SYS_ADMIN in the initial user namespace'));
  } else {
    findings.push(ok('mount', 'a FUSE filesystem can be mounted'));
    const init = answerInit(new FuseDevice(fd));
    if (init.ok) {
      const { minor, missing: lacking } = init.value;
      findings.push(ok('passthrough', `the kernel offers it (FUSE 7.${minor})`));
      findings.push(
        lacking.length === 0
          ? ok('FUSE features', 'all that sharedext uses')
          : warn('FUSE features', `not offered: ${lacking.join(', ')}`, 'nothing breaks, a newer kernel has them'),
      );
      findings.push(probeBacking(fd, source, scratch));
    } else {
      findings.push(missing('passthrough', init.why, PASSTHROUGH_ADVICE));
    }
  }
  // Without its descriptor the connection is aborted: whoever ran into the mount meanwhile gets an error, and goes on.
  sys.close(fd);
  if (mounted >= 0) sys.umount2(mountpoint, MNT_DETACH);
  rmdirSync(mountpoint);
  return findings;
}

function answerInit(device: FuseDevice): InitResult {
  const input = allocate('INIT', 1 << 17);
  const output = allocate('the answer to INIT', 4096);
  const length = device.read(input);
  if (length < 0) return { ok: false, why: `the kernel sent no INIT: ${errnoText(length)}` };
  const at = fuse_in_header.structBytes;
  const result = negotiate(input.view, at, length - at, output.view, PAYLOAD);
  if (!result.ok) return result;
  const answer = PAYLOAD + fuse_init_out.structBytes;
  fuse_out_header.len.set(output.view, 0, answer);
  fuse_out_header.error.set(output.view, 0, 0);
  fuse_out_header.unique.set(output.view, 0, fuse_in_header.unique.get(input.view, 0));
  const written = device.write(output, answer);
  return written < 0 ? { ok: false, why: `the kernel refused the answer to INIT: ${errnoText(written)}` } : result;
}

/** Whether a file can stand behind a FUSE file: of the source, or of the temporary folder. */
function probeBacking(deviceFd: number, source: Source | undefined, scratch: Memory): Finding {
  const name = 'backing files';
  const where = source === undefined ? 'the temporary folder' : 'the source';
  let fd: number;
  if (source === undefined || source.readOnly) {
    fd = sys.memfdCreate('sharedext-doctor', 1);
  } else {
    putString(scratch, 0, '.');
    fd = sys.openat(source.mountFd, scratch.address, O_TMPFILE | O_RDWR | O_CLOEXEC, 0o600);
  }
  if (fd < 0)
    return missing(name, `no file can be made in ${where}: ${errnoText(fd)}`, 'make room, or mount it writable');
  const backing = new FuseBackingFiles(deviceFd, 1, allocate('backing files', 64), new Uint32Array(1), 0);
  const id = backing.open(fd);
  if (id > 0) backing.close(id);
  sys.close(fd);
  if (id > 0)
    return ok(name, `files of ${source === undefined ? 'this machine' : where} can be registered (stack depth 1)`);
  if (id === -40)
    return missing(name, 'ELOOP: the source is a stacked filesystem', 'use the filesystem below it as source');
  return missing(name, errnoText(id), 'sharedext needs CAP_SYS_ADMIN in the initial user namespace');
}

const FEW_DESCRIPTORS = 1024;
const GOOD_DESCRIPTORS = 4096;

function probeDescriptors(): Finding {
  const line = /^Max open files\s+(\S+)\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  const limit = line?.[1] === 'unlimited' ? Number.POSITIVE_INFINITY : Number(line?.[1] ?? 0);
  const name = 'descriptors';
  const advice = 'raise the limit: "ulimit -n", or LimitNOFILE= in the unit; files open for writing take one each';
  if (limit < FEW_DESCRIPTORS) return missing(name, `at most ${limit} (RLIMIT_NOFILE)`, advice);
  return limit < GOOD_DESCRIPTORS
    ? warn(name, `at most ${limit} (RLIMIT_NOFILE)`, advice)
    : ok(name, `at most ${limit} (RLIMIT_NOFILE)`);
}

function probeSource(source: Source, scratch: Memory): Finding[] {
  const findings = [ok('source', `${source.path} is on ${source.filesystem}${source.readOnly ? ', read-only' : ''}`)];
  findings.push(probeHandles(source, scratch));
  if (source.filesystem === 'btrfs') findings.push(probeSubvolume(source, scratch), ...probeQuotas(source, scratch));
  if (source.readOnly) {
    findings.push(
      warn(
        'store',
        'it is read-only: nothing can be made in it',
        'mount with store=DIR, elsewhere on the same filesystem',
      ),
    );
  } else {
    findings.push(probeReflinks(source, scratch), probeStore(source));
  }
  findings.push(probeSpace(source));
  return findings;
}

function probeHandles(source: Source, scratch: Memory): Finding {
  const at = 64;
  scratch.bytes.fill(0, 0, 512);
  scratch.view.setUint32(at, HANDLE_BYTES - 8, true);
  const { address } = scratch;
  const named = sys.nameToHandleAt(source.mountFd, address, address + at, address + 256, AT_EMPTY_PATH);
  const opened = named < 0 ? named : sys.openByHandleAt(source.mountFd, address + at, O_PATH | O_CLOEXEC);
  if (opened < 0) {
    return missing(
      'file handles',
      errnoText(opened),
      'sharedext needs CAP_DAC_READ_SEARCH, and a source that exports handles',
    );
  }
  sys.close(opened);
  return ok('file handles', 'files are found by handle');
}

function probeSubvolume(source: Source, scratch: Memory): Finding {
  scratch.bytes.fill(0, 0, 512);
  const { address } = scratch;
  const read = sys.statx(source.mountFd, address, AT_EMPTY_PATH, STATX_SUBVOL, address + 64);
  const told = read >= 0 && (scratch.view.getUint32(64, true) & STATX_SUBVOL) !== 0;
  return told
    ? ok('subvolumes', 'statx tells them')
    : warn('subvolumes', 'statx does not tell them', 'nothing breaks: sharedext takes them from file handles');
}

/** Where BTRFS_IOC_FS_INFO answers with the filesystem's id, and its length. */
const FSID_AT = 16;
const FSID_BYTES = 16;
/** BTRFS_QGROUP_LIMIT_MAX_EXCL (include/uapi/linux/btrfs.h). */
const LIMIT_MAX_EXCLUSIVE = 2;

/** Quota groups whose limit of exclusive bytes clones get round: none is told where quotas are off, or simple (by owner). */
function probeQuotas(source: Source, scratch: Memory): Finding[] {
  scratch.bytes.fill(0, 0, 4096);
  if (sys.ioctl(source.mountFd, BTRFS_IOC_FS_INFO, scratch.address) < 0) return [];
  const id = Buffer.from(scratch.bytes.subarray(FSID_AT, FSID_AT + FSID_BYTES)).toString('hex');
  const uuid = id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  const folder = `/sys/fs/btrfs/${uuid}/qgroups`;
  let limited: string[];
  try {
    if (readFileSync(join(folder, 'mode'), 'latin1').trim() !== 'qgroup') return [];
    const groups = readdirSync(folder).filter((name) => /^\d+_\d+$/.test(name));
    limited = groups.filter((name) => {
      const flags = Number(readFileSync(join(folder, name, 'limit_flags'), 'latin1'));
      return (flags & LIMIT_MAX_EXCLUSIVE) !== 0;
    });
  } catch {
    // Quotas are off, or a group was just removed, or the kernel tells nothing of them.
    return [];
  }
  if (limited.length === 0) return [ok('quotas', 'no quota group has a limit of exclusive bytes')];
  return [
    warn(
      'quotas',
      `limits of exclusive bytes: ${limited.map((name) => name.replace('_', '/')).join(', ')}`,
      'what has a clone in the store is not exclusive: limit referenced bytes, or enable simple quotas',
    ),
  ];
}

function probeReflinks(source: Source, scratch: Memory): Finding {
  const result = probeReflink(source.mountFd, scratch);
  if (result >= 0) return ok('reflinks', 'files can be cloned');
  const advice =
    source.filesystem === 'xfs'
      ? 'make the filesystem with "mkfs.xfs -m reflink=1", or mount with nosharedext'
      : 'make room on the filesystem, or mount with nosharedext';
  return missing('reflinks', errnoText(result), advice);
}

function probeStore(source: Source): Finding {
  const previous = sys.umask(0o077);
  try {
    const place = takePlace({
      calls: sys,
      scratch: allocate('the store', PLACE_SCRATCH_BYTES),
      parentFd: source.directoryFd,
      parentPath: source.path,
      filesystem: source.filesystem,
    });
    place.remove();
    return ok('store', `it can be made in ${source.path}`);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return missing('store', error.message, 'mount with store=DIR, elsewhere on the same filesystem');
  } finally {
    sys.umask(previous);
  }
}

function probeIdle(): Finding {
  const name = 'idle processors';
  const processors = new IdleProcessors();
  processors.keepAwake();
  const { awake } = processors;
  processors.letSleep();
  if (!awake) {
    return warn(
      name,
      'nothing keeps them awake while a mount is busy',
      'nothing breaks, replies may be slower; in a container, pass /dev/cpu_dma_latency in',
    );
  }
  if (pollsByItself()) return ok(name, 'they are few: a busy mount keeps them awake (idle=auto)');
  if (!sleepsAtOnce()) return ok(name, 'they sleep as the kernel finds right (idle=auto)');
  return warn(
    name,
    'those of this virtual machine sleep at once, and each reply wakes one',
    `mount with idle=poll, or let them look for work for 0.2 ms first: echo 200000 > ${HALT_POLL}`,
  );
}

const LITTLE_SPACE = 0.05;

function probeSpace(source: Source): Finding {
  const { bavail, blocks, bsize } = statfsSync(source.path);
  const found = `${Math.round((bavail * bsize) / 2 ** 20)} MiB free, ${Math.round((100 * bavail) / Math.max(blocks, 1))}%`;
  return bavail < blocks * LITTLE_SPACE
    ? warn('free space', found, 'no clone is made below the floor (2%): make room, or mount with a lower floor=')
    : ok('free space', found);
}
