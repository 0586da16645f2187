import { readFile } from 'node:fs/promises';

import { expect, test } from './fixtures.js';
import { inRepository } from './repository.js';
import { openIn, settled, shown, stored } from './sdk.js';

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

test('what a receipt calls durable is in the database, and the page shows the same', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  const { version } = await page.evaluate(() => session.setEmail('ada@example.com').durable);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ id, version, email: 'ada@example.com', status: 'pending' });
  await settled(page);
  const there = await shown(page);
  expect({ ...there, lastAccessedAt: kept.lastAccessedAt }).toEqual(kept);
});
