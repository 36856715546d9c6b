/** All applications. */

import type { Subject } from './case.ts';
import { sqlite } from './sqlite.ts';

export const subjects: readonly Subject[] = [sqlite];
