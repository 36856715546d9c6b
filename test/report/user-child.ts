/** `node user-child.js PATH…`: reports as another user, when all modules are loaded, which that user may be unable to read. */

import { report } from '../../src/cli/reporting.ts';
import { bob } from '../support/asuser.ts';

process.setgroups?.([]);
process.setgid?.(bob.gid);
process.setuid?.(bob.uid);
await report(process.argv.slice(2), { json: true, top: 10, groupBy: 'files' });
