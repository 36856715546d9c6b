/** The ways to have many separate trees of one image: what would be used instead of sharedext, and sharedext. */

import { join, relative } from 'node:path';
import { run } from '../../src/demo/commands.ts';
import {
  clone,
  commonLower,
  descendants,
  type Ground,
  layers,
  mountImage,
  mountpoint,
  opened,
  optionsOf,
  overlay,
  type Peer,
  packed,
  peerPoint,
  serve,
  type Trees,
  type Undo,
} from './ground.ts';

/** As a container with user ids of its own does it at its first start. */
const OWNER = '100000:100000';

const bare: Peer = {
  name: 'clones, bare',
  what: 'btrfs snapshots, or copies by reflink on XFS, with nothing above them',
  kind: 'own files',
  overClones: true,
  open: (ground) => opened(ground, async () => (index) => clone(ground, index)),
};

const commonOverlay: Peer = {
  name: 'overlayfs, common lower',
  what: 'a mount of overlayfs for each tree, all over the image itself',
  kind: 'common files',
  overClones: false,
  open: (ground) =>
    opened(ground, async () => {
      const lower = await commonLower(ground);
      return (index, undo) => overlay(ground, lower, index, undo);
    }),
};

const copiedOverlay: Peer = {
  name: 'overlayfs, chown -R',
  what: `the same after \`chown -R ${OWNER}\`, as a container with ids of its own does at its first start: each file is copied up, by reflink`,
  kind: 'own files',
  overClones: false,
  open: (ground) =>
    opened(ground, async () => {
      const lower = await commonLower(ground);
      return async (index, undo) => {
        const point = await overlay(ground, lower, index, undo);
        await run('chown', ['-R', '--no-dereference', OWNER, point], ground.signal);
        return point;
      };
    }),
};

const bindfs: Peer = {
  name: 'bindfs over clones',
  what: 'a mount of bindfs over each clone, which can show other owners without a copy',
  kind: 'own files',
  overClones: true,
  open: (ground) => {
    const pids: number[] = [];
    const make = async (index: number, undo: Undo): Promise<string> => {
      const path = await clone(ground, index);
      const point = peerPoint(ground, index, undo);
      pids.push(await serve('bindfs', ['-f', path, point], point, undo));
      return point;
    };
    return opened(
      ground,
      async () => make,
      () => pids,
    );
  },
};

const fuseOverlay: Peer = {
  name: 'fuse-overlayfs, common lower',
  what: 'a mount of fuse-overlayfs for each tree, all over the image itself',
  kind: 'own files',
  overClones: false,
  open: (ground) => {
    const pids: number[] = [];
    return opened(
      ground,
      async () => {
        const lower = await commonLower(ground);
        return async (index, undo) => {
          const point = peerPoint(ground, index, undo);
          const options = optionsOf(layers(ground, lower, index));
          pids.push(await serve('fuse-overlayfs', ['-f', '-o', options, point], point, undo));
          return point;
        };
      },
      () => pids,
    );
  },
};

/** One mount of an image file, and overlays over it. */
function imagePeer(type: 'squashfs' | 'erofs', how: string): Peer {
  return {
    name: `${type} + overlayfs`,
    what: `one mount of the image as ${type}, ${how}, and an overlay over it for each tree`,
    kind: 'common files',
    overClones: false,
    prepare: (ground) => packed(ground, type),
    open: (ground) =>
      opened(ground, async (undo) => {
        const file = await packed(ground, type);
        const lower = mountpoint(ground, 'lower', undo);
        await mountImage(ground, type, file, lower, undo);
        return (index, inner) => overlay(ground, lower, index, inner);
      }),
  };
}

/** As with images that are different files, though all they hold is the same. */
const erofsEach: Peer = {
  name: 'erofs, a mount each',
  what: 'a mount of the image as erofs for each tree, and an overlay over it: what different images with the same files have',
  kind: 'own files',
  overClones: false,
  prepare: (ground) => packed(ground, 'erofs'),
  open: (ground) =>
    opened(ground, async () => async (index, undo) => {
      const file = await packed(ground, 'erofs');
      const lower = mountpoint(ground, `lower-${index}`, undo);
      await mountImage(ground, 'erofs', file, lower, undo);
      return overlay(ground, lower, index, undo);
    }),
};

/** One mount over the folder that has all clones, with the options that one gets when none are given. */
async function mounted(ground: Ground, options: string): Promise<Trees> {
  const mount = await ground.stage.mount(options);
  let made = 0;
  return {
    next: async () => join(mount.mountpoint, relative(ground.stage.source, await clone(ground, ++made))),
    servers: () => descendants(mount.pid),
    requests: () => mount.requests(),
    end: () => mount.end(),
  };
}

export const nosharedext: Peer = {
  name: 'nosharedext over clones',
  what: 'the same mount as sharedext without sharing: the control',
  kind: 'control',
  overClones: true,
  open: (ground) => mounted(ground, 'nosharedext'),
};

export const sharedext: Peer = {
  name: 'sharedext over clones',
  what: 'one mount over the folder that has all clones, with the default options',
  kind: 'ours',
  overClones: true,
  open: (ground) => mounted(ground, 'sharedext'),
};

/** Those that are compared with sharedext. */
export const others: readonly Peer[] = [
  bare,
  copiedOverlay,
  bindfs,
  fuseOverlay,
  erofsEach,
  commonOverlay,
  imagePeer('squashfs', 'compressed with lz4'),
  imagePeer('erofs', 'not compressed'),
];
