import { readFile } from 'node:fs/promises';

import type { Page } from '@playwright/test';
import type * as legacy from 'throughline/legacy';

import { expect, test as base } from './fixtures.js';
import { inRepository, packageFolder } from './repository.js';
import { asService, disorder, journal, records, stored } from './sdk.js';
import { StaticSite } from './static-site.js';

declare global {
  interface Window {
    manager: legacy.FunnelSessionManager;
  }
  var manager: legacy.FunnelSessionManager;
  var Manager: typeof legacy.FunnelSessionManager;
}

/** A page as the legacy shop had them, with one import changed and one line before the rest. */
const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>loading</title>
<form><input name="email" aria-label="Email"><button>Order</button></form><p id="shown"></p>
<script type="module" src="/old-page.js"></script></html>`;
const script = `
import { FunnelSessionManager, funnelSessionManager } from '/throughline/legacy.js';
const query = new URLSearchParams(location.search);
const sessionIds = query.has('session') ? [query.get('session')] : [];
await FunnelSessionManager.ready({ url: query.get('server'), sessionIds, compatibility: query.has('compatibility') });

// From here on as it was.
const show = (session) => {
  document.getElementById('shown').textContent = session
    ? [session.id, session.status, session.currentStep, session.email, session.amount].join(' ')
    : 'no session';
};
show(funnelSessionManager.getAllActiveSessions()[0] ?? null);
document.forms[0].addEventListener('submit', (event) => {
  event.preventDefault();
  const products = [{ id: 'fitspresso-6-pack', name: 'Fitspresso 6 Bottle Pack', price: 294, quantity: 1 }];
  const { id } = funnelSessionManager.createSession({ email: event.target.email.value, products });
  funnelSessionManager.updateSession(id, { customerInfo: { firstName: 'Ada', lastName: 'Lovelace', state: 'CA' } });
  show(funnelSessionManager.getSession(id));
});
Object.assign(window, { manager: funnelSessionManager, Manager: FunnelSessionManager });
document.title = 'ready';
`;

const test = base.extend({
  site: async ({}, use) => {
    const site = await StaticSite.start({
      pages: { '/': html, '/old-page.js': script },
      folders: { '/throughline/': packageFolder },
    });
    await use(site);
    await site.stop();
  },
});

const shown = (page: Page) => page.locator('#shown');

test('an old page sells over today’s session, without waiting for anything', async ({ page, site, server }) => {
  const address = `${site.url}/?${new URLSearchParams({ server: server.url })}`;
  await page.goto(address);
  await expect(shown(page)).toHaveText('no session');
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByRole('button', { name: 'Order' }).click();
  await expect(shown(page)).toHaveText(/^ws_\S+ initiated checkout ada@example.com 294$/);
  const id = (await shown(page).innerText()).split(' ')[0]!;

  await page.evaluate((id) => manager.setSessionStatus(id, 'processing'), id);
  await expect.poll(async () => (await server.request(`/v1/sessions/${id}`)).status).toBe(200);
  await expect.poll(async () => (await stored(server, id)).status).toBe('processing');
  const { totals } = await stored(server, id);
  const paid = await asService(server, id, { type: 'recordPayment', transactionId: 'tx-1', amount: totals.total });
  expect(paid.ok).toBe(true);
  await page.waitForFunction((id) => manager.getSession(id)?.currentStep === 'upsell-1', id);

  // Each answer is there in the same turn.
  expect(await page.evaluate((id) => manager.acceptUpsell(id, 'RC6'), id)).toMatchObject({ upsellsAccepted: ['RC6'], upsellsDeclined: [] });
  expect(await page.evaluate((id) => manager.declineUpsell(id, 'relax-calm-12'), id)).toMatchObject({ upsellsDeclined: ['RC12'] });
  // By whichever name: what was answered already is not answered again.
  const pending = await page.evaluate((id) => {
    const before = manager.checkout(id)!.sync.pending;
    manager.updateSession(id, { upsellsAccepted: ['relax-calm-6'], upsellsDeclined: ['relax-calm-12'] });
    return [before, manager.checkout(id)!.sync.pending];
  }, id);
  expect(pending[1]).toBe(pending[0]);
  const codes = await page.evaluate((id) => {
    const calls = [
      () => manager.acceptUpsell(id, 'RC12'),
      () => manager.updateSession(id, { products: [] }),
      () => manager.setSessionStatus(id, 'completed'),
    ];
    return calls.map((call) => {
      try {
        return call();
      } catch (error) {
        return (error as legacy.LegacyCallRefused).code;
      }
    });
  }, id);
  expect(codes).toEqual(['offerDeclined', 'alreadyPaid', 'notPermitted']);
  expect(await page.evaluate((id) => JSON.stringify(manager.getSession(id)), id)).not.toContain('tx-1');

  // The next page goes on with it.
  await expect.poll(async () => (await stored(server, id)).upsells.map(({ state }) => state)).toEqual(['accepted', 'declined']);
  await page.goto(address);
  await expect(shown(page)).toHaveText(`${id} processing upsell-1 ada@example.com 294`);
  expect(await page.evaluate((id) => manager.deleteSession(id), id)).toBe(true);
  await expect(async () => {
    await page.reload();
    await expect(shown(page)).toHaveText('no session', { timeout: 1000 });
  }).toPass();
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('a session that is deleted as soon as it was created does not come back', async ({ page, site, server }) => {
  await page.goto(`${site.url}/?${new URLSearchParams({ server: server.url })}`);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByRole('button', { name: 'Order' }).click();
  const first = (await shown(page).innerText()).split(' ')[0]!;
  await expect.poll(async () => (await records(page))['current']).toBe(first);

  // Both that are prepared are used up.
  const deleted = await page.evaluate(async () => {
    await Manager.ready();
    const ids = ['grace@example.com', 'mary@example.com'].map((email) => manager.createSession({ email, products: [] }).id);
    return ids.filter((id) => manager.deleteSession(id));
  });
  expect(deleted).toHaveLength(2);
  // They are stored nevertheless: what was issued is.
  const commandsOf = async (id: string) => Object.keys(await records(page)).filter((key) => key.startsWith(`${id}/command/`));
  for (const id of deleted) await expect.poll(() => commandsOf(id)).not.toEqual([]);
  await page.reload();
  await expect(shown(page)).toHaveText(`${first} initiated checkout ada@example.com 294`);

  // Also where it has become the latest, and none is prepared.
  const latest = await page.evaluate(() => {
    const ids = ['one@example.com', 'two@example.com'].map((email) => manager.createSession({ email, products: [] }).id);
    return ids.at(-1)!;
  });
  await expect.poll(async () => (await records(page))['current']).toBe(latest);
  expect(await page.evaluate((id) => manager.deleteSession(id), latest)).toBe(true);
  await expect.poll(async () => (await records(page))['current']).toBeUndefined();
});

test('a session that the old manager has left in localStorage is there under its id', async ({ page, site, server }) => {
  const text = await readFile(inRepository('tests/fixtures/legacy/localstorage-one-buyer-at-upsell-1.json'), 'utf8');
  const [old] = Object.values(JSON.parse(text) as Record<string, legacy.FunnelSessionData>) as [legacy.FunnelSessionData];
  await page.goto(`${site.url}/throughline/index.js`);
  await page.evaluate((text) => localStorage.setItem('webseed_funnel_sessions', text), text);
  await page.goto(`${site.url}/?${new URLSearchParams({ server: server.url, session: old.id })}`);
  await expect(page).toHaveTitle('ready');
  const session = await page.evaluate((id) => manager.getSession(id), old.id);
  // Its old lifetime may be over; what it claims of a payment has to be confirmed first.
  if (session !== null) {
    expect(session).toMatchObject({ id: old.id, email: old.email, customerInfo: old.customerInfo, products: old.products, amount: old.amount });
    expect(session.vaultId).toBeUndefined();
  }
  await page.waitForFunction(() => localStorage.getItem('webseed_funnel_sessions') === null);
  expect((await stored(server, old.id)).email).toBe(old.email);
});

test('what the server refuses later is counted as well', async ({ page, site, server }) => {
  await page.goto(`${site.url}/?${new URLSearchParams({ server: server.url, compatibility: '' })}`);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByRole('button', { name: 'Order' }).click();
  const id = (await shown(page).innerText()).split(' ')[0]!;
  await expect.poll(async () => (await server.request(`/v1/sessions/${id}`)).status).toBe(200);
  await page.evaluate((id) => manager.checkout(id)!.goOffline(), id);
  // Meanwhile the shop's back end begins the payment.
  await asService(server, id, { type: 'beginProcessing' });
  expect((await stored(server, id)).status).toBe('processing');
  const products = [{ id: 'fitspresso-6-pack', name: 'Fitspresso 6 Bottle Pack', price: 294, quantity: 2 }];
  const more = await page.evaluate(([id, products]) => manager.updateSession(id, { products }), [id, products] as const);
  expect(more).toMatchObject({ products, amount: 588 });
  expect(await page.evaluate(() => manager.exceptions)).toEqual([]);
  await page.evaluate((id) => manager.checkout(id)!.goOnline(), id);
  await page.waitForFunction(() => manager.exceptions.length > 0);
  expect(await page.evaluate(() => manager.exceptions)).toEqual([{ method: 'updateSession', code: 'paymentUnderWay', count: 1 }]);
  expect(await page.evaluate((id) => manager.getSession(id), id)).toMatchObject({ status: 'processing', amount: 294 });
});
