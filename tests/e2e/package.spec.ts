import { readFile } from 'node:fs/promises';

import { expect, test } from './fixtures.js';
import { inRepository } from './repository.js';

test('the package loads from a plain module script', async ({ page, site }) => {
  const manifest = JSON.parse(await readFile(inRepository('target/npm/throughline/package.json'), 'utf8')) as {
    version: string;
  };
  await page.goto(site.url);
  const version = await page.evaluate(async (address) => {
    const throughline = (await import(address)) as { version(): Promise<string> };
    return throughline.version();
  }, '/throughline/index.js');
  expect(version).toBe(manifest.version);
});
