/**
 * A mount that is idmapped as containers with user namespaces want it: its root is the source's root, and files are made for, shown to
 * and kept from its users as on the bare filesystem that is idmapped in the same way.
 */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inUserNamespace, mountIdmapped } from '../support/idmapped.ts';
import * as posix from '../support/posix.ts';
import { type MountedServer, mountSharedext } from '../support/server.ts';
import { onFilesystem, run, settled, storeFiles, writeData } from './clones.ts';

const SHIFT = 100_000;
const map = [{ inside: 0, outside: SHIFT, count: 65_536 }];
const MIB = 1 << 20;

/** Two trees of one filesystem, of which the second is served; both idmapped, and a container that both are for. */
interface Scene {
  readonly bare: string;
  readonly source: string;
  readonly bareView: string;
  readonly view: string;
  readonly server: MountedServer;
  /** Runs a script as the container's root, with a directory as its working directory; returns all that it printed. */
  inside(dir: string, script: string): Promise<string>;
}

function onScene(kind: 'btrfs' | 'xfs', body: (scene: Scene) => Promise<void>): Promise<void> {
  return onFilesystem(kind, 512, async ({ dir, folder }) => {
    const [bare, source, mnt] = [join(dir, 'bare'), join(dir, 'source'), join(folder, 'mountpoint')];
    for (const one of [bare, source, mnt]) mkdirSync(one);
    const container = await inUserNamespace(map);
    const server = await mountSharedext(source, mnt, 'settle=0');
    const [bareView, view] = [join(folder, 'bare-view'), join(folder, 'view')];
    const views = [await mountIdmapped(bare, bareView, map), await mountIdmapped(mnt, view, map)];
    const inside = (where: string, script: string) =>
      run(
        'nsenter',
        '-U',
        '-S',
        '0',
        '-G',
        '0',
        '-t',
        String(container.pid),
        'sh',
        '-c',
        `cd "$1"; ${script}`,
        'sh',
        where,
      );
    try {
      await body({ bare, source, bareView, view, server, inside });
    } finally {
      container.stop();
      for (const one of views) one.umount();
    }
    await server.umount();
  });
}

/** What shows of a tree's owners, modes, ACLs and attributes. */
const all = 'find . -name .sharedext -prune -o';
const show = `${all} -printf '%p %y %U:%G %m\\n' | sort
  ${all} ! -type l -print | sort | xargs getfacl -np
  ${all} ! -type l -print | sort | xargs getfattr -h -d -m '^(user|security)' -e hex`;

const script = `exec 2>&1
  umask 022
  echo content > file; mkdir dir; ln -s file link; mkfifo fifo; ln file second
  chown 5:7 file dir; chown -h 5:7 link; chmod 6755 file; chmod 2775 dir
  mkdir dir/inherits; touch dir/inherits/file
  setfacl -m u:9:rwx,d:u:10:r-x,d:g:11:r-x dir; mkdir dir/acls; touch dir/acls/file
  setfacl -m g:12:rw fifo; setfattr -n user.name -v value file
  cp /bin/true program; setcap cap_net_raw+ep program; getcap program
  mknod device c 1 3
  chown 70000 file
  as() { setpriv --reuid "$1" --regid "$2" --clear-groups sh -c "$3"; }
  as 5 7 'echo more >> file; cat file; touch dir/mine; chmod 640 file; id -u; chown 6 file'
  as 6 7 'cat file; echo no >> file; rm file; chmod 777 file'
  as 9 13 'touch dir/by-acl; ls dir'
  as 10 13 'ls dir/acls; touch dir/acls/none'
  chmod 2777 dir; as 14 15 'touch dir/of-group; chmod 2644 dir/of-group'
  chmod 1777 dir; as 14 15 'rm dir/mine'
  ls -n; stat -c '%n %u %g %a' dir/*`;

for (const kind of ['btrfs', 'xfs'] as const) {
  test(`a container does on an idmapped mount of ${kind} what it does on ${kind} that is idmapped`, () =>
    onScene(kind, async ({ bare, source, bareView, view, inside }) => {
      for (const [tree, own] of [
        [bare, bareView],
        [source, view],
      ] as const) {
        // To the container's own root all of it belongs.
        assert.equal(posix.stat(own).uid, SHIFT, tree);
      }
      const strip = (text: string) => text.replace(/^total \d+$|[A-Z][a-z]{2} +\d+ [\d:]+/gm, '');
      const expected = strip(await inside(bareView, script));
      assert.equal(strip(await inside(view, script)), expected);
      assert.match(expected, /program cap_net_raw=ep/);
      assert.match(expected, /chown: .*'?file'?: (Invalid argument|Value too large)/);
      const shell = (dir: string) => run('sh', '-c', `cd "$1"; ${show}`, 'sh', dir);
      const onDisk = await shell(bare);
      assert.equal(await shell(source), onDisk, 'on the disk');
      assert.match(onDisk, /^\.\/dir d 5:7 3777$/m);
      assert.match(onDisk, /^user:9:rwx$/m);
      assert.equal(await inside(view, `exec 2>&1; ${show}`), await inside(bareView, `exec 2>&1; ${show}`));
      const outside = await shell(bareView);
      assert.equal(await shell(view), outside, 'as shown outside of the container');
      assert.match(outside, /^\.\/dir d 100005:100007 3777$/m);
    }));

  test(`whom the idmap of a mount of ${kind} doesn't know makes nothing there`, () =>
    onScene(kind, async ({ bare, source, bareView, view }) => {
      for (const tree of [bare, source]) writeFileSync(join(tree, 'file'), 'x');
      for (const dir of [bareView, view]) {
        assert.throws(() => mkdirSync(join(dir, 'made')), { code: 'EOVERFLOW' });
        assert.throws(() => posix.symlink('x', join(dir, 'made')), { code: 'EOVERFLOW' });
        assert.throws(() => writeFileSync(join(dir, 'made'), ''), { code: 'EOVERFLOW' });
        assert.throws(() => posix.mknod(join(dir, 'made'), posix.S_IFIFO | 0o600), { code: 'EOVERFLOW' });
        assert.throws(() => posix.rename(join(dir, 'file'), join(dir, 'renamed')), { code: 'EOVERFLOW' });
        assert.equal(readFileSync(join(dir, 'file'), 'utf8'), 'x');
        posix.unlink(join(dir, 'file'));
      }
    }));

  test(`everybody sees that there are trusted attributes on a mount of ${kind} and on its idmapped one`, () =>
    onScene(kind, async ({ source, view, server, inside }) => {
      writeFileSync(join(source, 'file'), 'x');
      posix.setXattr(join(source, 'file'), 'trusted.name', 'value');
      posix.setXattr(join(source, 'file'), 'user.name', 'value');
      for (const dir of [server.mountpoint, view]) {
        assert.deepEqual(posix.listXattrs(join(dir, 'file')).sort(), ['trusted.name', 'user.name']);
      }
      const listed = await inside(view, 'getfattr -m - file');
      assert.ok(listed.includes('user.name') && listed.includes('trusted.name'), listed);
      const user = ['setpriv', '--reuid', '61001', '--regid', '61001', '--clear-groups'] as const;
      const theirs = await run(...user, 'getfattr', '--absolute-names', '-m', '-', join(server.mountpoint, 'file'));
      assert.ok(theirs.includes('user.name') && theirs.includes('trusted.name'), theirs);
    }));

  test(`clones on an idmapped mount of ${kind} are read, run and mapped from one page cache`, () =>
    onScene(kind, async ({ source, view, server, inside }) => {
      writeData(join(source, 'one'), 4 * MIB, false);
      writeFileSync(join(source, 'program'), readFileSync('/bin/cat'), { mode: 0o755 });
      await run('sync', '-f', source);
      posix.reflink(join(source, 'one'), join(source, 'two'));
      posix.reflink(join(source, 'program'), join(source, 'program2'));
      posix.chmod(join(source, 'program2'), 0o755);
      await settled();
      const user = 'setpriv --reuid 5 --regid 5 --clear-groups';
      const sums = await inside(
        view,
        `${user} sha256sum one two | cut -d' ' -f1 | uniq; ${user} ./program2 program | sha256sum`,
      );
      const expected = await run('sh', '-c', 'sha256sum "$1" /bin/cat | cut -d" " -f1', 'sh', join(source, 'one'));
      assert.deepEqual(sums.replace(/ +-/, ''), expected);
      const { requests, open, mappings } = await server.status();
      assert.equal(requests['READ'] ?? 0, 0);
      assert.equal(open.composed, 0);
      assert.equal(mappings?.made, 2);
      const clones = storeFiles(source);
      assert.ok(
        clones.some((file) => posix.residentPages(file) === (4 * MIB) / 4096),
        'a clone holds the pages',
      );
      assert.equal(posix.residentPages(join(source, 'two')), 0);
      await inside(view, 'chown 5:5 two; setpriv --reuid 5 --regid 5 --clear-groups sh -c "echo end >> two"');
      assert.ok(readFileSync(join(source, 'two')).subarray(-4).equals(Buffer.from('end\n')));
    }));

  test(`overlayfs has an idmapped mount of ${kind} below it as it has ${kind} that is idmapped`, () =>
    onScene(kind, async ({ bare, source, bareView, view }) => {
      const seen: string[] = [];
      for (const [tree, lower] of [
        [bare, bareView],
        [source, view],
      ] as const) {
        writeFileSync(join(tree, 'file'), 'content');
        mkdirSync(join(tree, 'dir'));
        posix.chown(join(tree, 'file'), 5, 7);
        posix.chown(join(tree, 'dir'), 5, 7);
        const [upper, work, merged] = ['upper', 'work', 'merged'].map((name) => `${tree}-${name}`) as [
          string,
          string,
          string,
        ];
        for (const dir of [upper, work, merged]) mkdirSync(dir);
        await run(
          'mount',
          '-t',
          'overlay',
          'overlay',
          '-o',
          `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
          merged,
        );
        try {
          const look =
            'cd "$1"; stat -c "%n %u %g %a" file dir; cat file; echo more >> file; stat -c "%u %g" file; cat file';
          seen.push(await run('sh', '-c', look, 'sh', merged));
          seen.push(await run('stat', '-c', '%u %g', join(upper, 'file')));
        } finally {
          await run('umount', merged);
        }
      }
      assert.deepEqual(seen.slice(2), seen.slice(0, 2));
      assert.match(seen[0] ?? '', /^file 100005 100007 /);
    }));
}
