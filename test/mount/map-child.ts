/** `node map-child.js FILE`: maps the file, touches all its pages, says so, and keeps it mapped until its input ends. */

import { MAP_SHARED, PROT_READ } from '../../src/base/linux.ts';
import { memoryAt } from '../../src/base/memory.ts';
import * as libc from '../../src/sys/libc.ts';
import * as posix from '../support/posix.ts';
import { PAGE_BYTES } from './clones.ts';

const [file = ''] = process.argv.slice(2);
const fd = posix.open(file, posix.O_RDONLY);
const { size } = posix.fstat(fd);
const address = libc.mmap(size, PROT_READ, MAP_SHARED, fd, 0);
if (address < 0) throw new Error(`Cannot map ${file}: errno ${-address}`);
const { bytes } = memoryAt(address, libc.viewOf(address, size));
let sum = 0;
for (let at = 0; at < size; at += PAGE_BYTES) sum += bytes[at] ?? 0;
process.stdout.write(`mapped ${sum}\n`);
process.stdin.on('end', () => process.exit(0)).resume();
