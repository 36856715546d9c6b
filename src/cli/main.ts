#!/usr/bin/env node
import { parseOptions } from '../daemon/options.ts';
import { serve } from '../daemon/server.ts';

// sharedext mount SOURCE MOUNTPOINT -f [-o OPTIONS]
const [source = '', mountpoint = ''] = process.argv.slice(3).filter((word) => !word.startsWith('-'));
const at = process.argv.indexOf('-o');
const options = parseOptions(at < 0 ? [] : [process.argv[at + 1] ?? '']);
const server = await serve({ source, mountpoint, options, log: (line) => console.error(line) });
process.on('SIGINT', () => void server.unmount());
process.on('SIGTERM', () => void server.unmount());
await server.ended;
process.exit(0);
