import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import manifest from '../package.json' with { type: 'json' };
import { loadCore } from '../src/core.js';
import { version } from '../src/index.js';

test('the core and the package have the same version', async () => {
  const module = await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url));
  await loadCore(module);
  expect(await version()).toBe(manifest.version);
});
