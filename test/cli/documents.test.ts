/** What is written for people says what the program has. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/cli/package.ts';
import { genericWords, ownOptions, parseOptions } from '../../src/daemon/options.ts';

test('docs/options.md and the man page describe every mount option', () => {
  const documented = readFileSync(join(packageRoot, 'docs/options.md'), 'utf8');
  const manual = readFileSync(join(packageRoot, 'share/man/sharedext.8'), 'utf8');
  for (const { name, value } of ownOptions) {
    assert.ok(documented.includes(value === undefined ? `\`${name}\`` : `\`${name}=`), `docs/options.md has ${name}`);
    assert.match(manual, new RegExp(`^\\.(B|BI|BR) .*\\b${name}\\b`, 'm'), `the man page has ${name}`);
  }
  for (const word of genericWords) assert.ok(documented.includes(`\`${word}\``), `docs/options.md has ${word}`);
});

test('docs/options.md tells the defaults that the parser has', () => {
  const documented = readFileSync(join(packageRoot, 'docs/options.md'), 'utf8');
  const written = (name: string): string =>
    new RegExp(`^\\| \`${name}=[^|]*\\| ([^|]*) \\|`, 'm').exec(documented)?.[1]?.trim() ?? '';
  const { cache, settleMs, maxMappings, floor, spinUs, idle, maxBacking, maxNodes } = parseOptions([]);
  assert.equal(written('cache'), `\`${cache}\``);
  assert.equal(written('settle'), `\`${settleMs}\``);
  assert.equal(written('mappings'), `\`${maxMappings}\``);
  assert.equal(written('spin'), `\`${spinUs}\``);
  assert.equal(written('idle'), `\`${idle}\``);
  assert.equal(written('backing'), `\`${maxBacking}\``);
  assert.equal(written('nodes'), `\`${maxNodes}\``);
  assert.deepEqual(floor, { percent: 2 });
  assert.match(written('floor'), /^`2%`/);
});
