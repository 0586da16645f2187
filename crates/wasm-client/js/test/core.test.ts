import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import manifest from '../package.json' with { type: 'json' };
import { loadCore } from '../src/core.js';
import { version } from '../src/index.js';

test('the core and the package have the same version', async () => {
  await loadCore(() => readFile(new URL('../generated/throughline_bg.wasm', import.meta.url)));
  expect(await version()).toBe(manifest.version);
});
