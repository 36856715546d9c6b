/** All subjects, in the order in which they are run: the simple ones first. */

import { acls } from './acls.ts';
import type { Subject } from './case.ts';
import { content } from './content.ts';
import { copying } from './copying.ts';
import { directories } from './directories.ts';
import { errors } from './errors.ts';
import { flags } from './flags.ts';
import { handles } from './handles.ts';
import { huge } from './huge.ts';
import { lastNames } from './lastnames.ts';
import { limits } from './limits.ts';
import { links } from './links.ts';
import { lockPrograms } from './lockprograms.ts';
import { locks } from './locks.ts';
import { mappings } from './mappings.ts';
import { modes } from './modes.ts';
import { names } from './names.ts';
import { nodes } from './nodes.ts';
import { opening } from './opening.ts';
import { orphans } from './orphans.ts';
import { permissions } from './permissions.ts';
import { privileges } from './privileges.ts';
import { programs } from './programs.ts';
import { races } from './races.ts';
import { renames } from './renames.ts';
import { setIds } from './setids.ts';
import { sizes } from './sizes.ts';
import { sparse } from './sparse.ts';
import { stamps } from './stamps.ts';
import { times } from './times.ts';
import { tools } from './tools.ts';
import { unnamed } from './unnamed.ts';
import { xattrs } from './xattrs.ts';

export const subjects: readonly Subject[] = [
  names,
  opening,
  content,
  links,
  renames,
  directories,
  unnamed,
  lastNames,
  times,
  modes,
  permissions,
  acls,
  xattrs,
  sizes,
  setIds,
  huge,
  sparse,
  copying,
  mappings,
  locks,
  lockPrograms,
  nodes,
  handles,
  programs,
  flags,
  races,
  errors,
  limits,
  stamps,
  privileges,
  orphans,
  tools,
];
