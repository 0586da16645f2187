import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Funnel } from 'throughline';

import { expect, test as base } from './fixtures.js';
import { openHere, openIn, settled, shown, stored } from './sdk.js';
import { ThroughlineServer } from './server.js';

/** A server with funnel definitions of the test's own, beginning with the usual one. */
const test = base.extend<{ folder: string; define: (funnel: Funnel) => Promise<void>; usual: Funnel; own: ThroughlineServer }>({
  folder: async ({}, use) => {
    const folder = await mkdtemp(join(tmpdir(), 'throughline-funnels-'));
    await use(folder);
    await rm(folder, { recursive: true });
  },
  define: async ({ folder }, use) => {
    await use((funnel) => writeFile(join(folder, `${funnel.id}-${funnel.version}.json`), JSON.stringify(funnel)));
  },
  usual: async ({ server }, use) => {
    const answer = await server.request('/v1/funnels/default');
    await use(((await answer.json()) as { funnel: Funnel }).funnel);
  },
  own: async ({ site, folder, define, usual }, use) => {
    await define(usual);
    await define({ ...usual, id: 'summer', catalogue: [...usual.catalogue, { id: 'parasol', name: 'Parasol', price: 4900 }] });
    const server = await ThroughlineServer.start({ allowedOrigins: [site.url], args: ['--funnels', folder] });
    await use(server);
    await server.stop();
  },
});

test('a session goes on with its own funnel after a reload without the server', async ({ page, site, own }) => {
  const id = await openIn(page, site, own, { funnel: 'summer' });
  await page.evaluate(() => session.setItems([{ id: 'parasol', quantity: 1 }]).durable);
  await own.kill9();
  await page.reload();
  expect(await openHere(page, own)).toBe(id);
  expect(await page.evaluate(() => session.funnel.id)).toBe('summer');
  const total = await page.evaluate(() => {
    session.setItems([{ id: 'parasol', quantity: 2 }]);
    return session.getSnapshot().totals.subtotal;
  });
  expect(total).toBe(9800);
  await own.restart();
  await settled(page, 45_000);
  expect((await stored(own, id)).products).toMatchObject([{ id: 'parasol', quantity: 2, price: 4900 }]);
});

test('a session stays with the version of the funnel that it began with', async ({ page, site, own, define, usual }) => {
  const id = await openIn(page, site, own);
  await settled(page);
  await own.kill9();
  // The new version has no packs of one.
  const catalogue = usual.catalogue.filter(({ id }) => id !== 'fitspresso-1-pack');
  await define({ ...usual, version: 2, catalogue });
  await own.restart();
  await page.reload();
  expect(await openHere(page, own)).toBe(id);
  const seen = await page.evaluate(() => {
    session.setItems([{ id: 'fitspresso-1-pack', quantity: 1 }]);
    return { version: session.funnel.version, amount: session.getSnapshot().amount, refused: refusals.length };
  });
  expect(seen).toEqual({ version: 1, amount: 7900, refused: 0 });
  await settled(page);
  expect((await stored(own, id)).products).toMatchObject([{ id: 'fitspresso-1-pack' }]);

  const fresh = await page.evaluate(() => session.close()).then(() => openIn(page, site, own, { fresh: true }));
  expect((await shown(page)).funnel.version).toBe(2);
  await settled(page);
  expect((await stored(own, fresh)).funnel).toMatchObject({ id: 'default', version: 2 });
});

test('a session that the shop created in another funnel keeps that funnel for later', async ({ page, site, own }) => {
  const answer = await own.request('/v1/sessions', {
    method: 'POST',
    body: JSON.stringify({ funnel: { id: 'summer' }, products: [{ id: 'parasol', quantity: 1 }] }),
  });
  const { session: created, token } = (await answer.json()) as { session: { id: string }; token: string };
  await openIn(page, site, own, { sessionId: created.id, token });
  await settled(page);
  expect(await page.evaluate(() => session.funnel.id)).toBe('summer');
  // The reload must not come before the browser has it.
  await page.evaluate(() => session.close());
  await own.kill9();
  await page.reload();
  expect(await openHere(page, own)).toBe(created.id);
  expect(await page.evaluate(() => session.funnel.id)).toBe('summer');
});
