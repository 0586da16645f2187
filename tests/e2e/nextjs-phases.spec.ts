import { execFile } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, type Page, test as base } from '@playwright/test';

import { checkOut, order, products, row, send, type Services, upsell } from './legacy-buyer.js';
import { apply, built, copyLegacy, made, phases, routes } from './nextjs-phases.js';
import { buildShop, chargesOf, type Service, shopDatabase, startGateway, startPostgres, startShop, unifiedShop } from './nextjs-shops.js';
import { freePort } from './ports.js';
import { inRepository } from './repository.js';
import { ThroughlineServer } from './server.js';
import { checkOut as checkOutUnified, expectFirstOffer } from './unified-buyer.js';

const run = promisify(execFile);

/** What a shop of any phase needs, without the shop. */
interface Around extends Omit<Services, 'shop'> {
  server: ThroughlineServer;
  /** Starts a shop that is built, always at the same address. It ends with the test at the latest. */
  start(folder: string): Promise<Service>;
}

const test = base.extend<{ around: Around }>({
  around: [
    async ({}, use) => {
      const running: { stop(): Promise<void> }[] = [];
      const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
      try {
        const port = await freePort();
        const server = kept(await ThroughlineServer.start({ allowedOrigins: [`http://127.0.0.1:${port}`] }));
        const [postgres, gateway] = [kept(await startPostgres()), kept(await startGateway())];
        const env = {
          DATABASE_URL: postgres.url(shopDatabase),
          GATEWAY_URL: gateway.url,
          SESSION_SECRET: 'a secret for this test only',
          THROUGHLINE_URL: server.url,
          THROUGHLINE_SERVICE_KEY: server.serviceKey,
        };
        await use({ server, postgres, gateway, start: async (folder) => kept(await startShop(folder, env, port)) });
      } finally {
        for (const service of running) await service.stop();
      }
    },
    { timeout: 60_000 },
  ],
});

/** Every source file by its path. */
async function sourcesOf(shop: string): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  const walk = async (within: string): Promise<void> => {
    for (const entry of await readdir(join(shop, within), { withFileTypes: true })) {
      const path = join(within, entry.name);
      if (made.has(path)) continue;
      if (entry.isDirectory()) await walk(path);
      else sources.set(path, await readFile(join(shop, path), 'utf8'));
    }
  };
  await walk('.');
  return sources;
}

// They share the folders of the phases.
test.describe.configure({ mode: 'default' });

test('the patches lead from the shop with four session systems to the one on Throughline, and each phase type-checks', async () => {
  test.setTimeout(120_000);
  const folder = await mkdtemp(join(tmpdir(), 'throughline-phases-'));
  const shop = join(folder, 'shop');
  await copyLegacy(shop);
  await cp(inRepository('examples/nextjs/gateway'), join(folder, 'gateway'), { recursive: true });
  for (const phase of phases) {
    await apply(shop, phase);
    const checked = run(process.execPath, [join(shop, 'node_modules/typescript/bin/tsc'), '--noEmit'], { cwd: shop });
    await checked.catch(({ stdout }: { stdout: string }) => expect(stdout, `what tsc says of ${phase}`).toBe(''));
  }
  const [last, unified] = await Promise.all([sourcesOf(shop), sourcesOf(unifiedShop)]);
  expect([...last.keys()].sort()).toEqual([...unified.keys()].sort());
  for (const [path, text] of unified) expect(last.get(path), path).toBe(text);
  await rm(folder, { recursive: true });
});

/** How far both sides agree on a route, as the server reports it. */
interface Parity {
  route: string;
  equal: number;
  different: number;
  legacyFailed: number;
  unifiedFailed: number;
  fields: { field: string }[];
}

test('after phase 2 both sides of each route agree, a card is charged once, and only one side is left in the end', async ({ browser, around }) => {
  test.setTimeout(300_000);
  const shopFolder = await built('2-routes');
  const { server, postgres, gateway, start } = around;
  /** How far both sides agreed so far; nothing of routes that were not compared. */
  const parity = async () => {
    const answer = await server.request('/v1/parity', { headers: { authorization: `Bearer ${server.operatorKey}` } });
    const { routes } = (await answer.json()) as { routes: Parity[] };
    const counts = routes.map(({ route, equal, different, legacyFailed, unifiedFailed, fields }) => {
      return [route, { equal, different, legacyFailed, unifiedFailed, fields: fields.map(({ field }) => field) }] as const;
    });
    return Object.fromEntries(counts.filter(([, { equal, different }]) => equal + different > 0));
  };
  const agreed = (equal: number) => ({ equal, different: 0, legacyFailed: 0, unifiedFailed: 0, fields: [] });

  /** A buyer pays and takes both offers, while all routes work in this mode. */
  const buy = async (mode: string, look: (page: Page, id: string, services: Services) => Promise<void>): Promise<void> => {
    for (const route of routes) await server.setRouteMode(route, mode);
    // A process that begins asks for the modes first.
    const shop = await start(shopFolder);
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      const services = { postgres, gateway, shop };
      const id = await checkOut(page, services);
      await page.getByRole('button', { name: 'Add RelaxCalm, 12 bottles for $296.00' }).click();
      await expect(page).toHaveURL(`${shop.url}/upsell-2`);
      await page.getByRole('button', { name: 'Add SleepGuard, 6 bottles for $149.00' }).click();
      await expect(page.getByRole('status').filter({ hasText: 'completed' })).toBeVisible();
      expect((await chargesOf(gateway, id)).map(({ amount }) => amount), mode).toEqual([379.66, 317.46, 159.8]);
      await look(page, id, services);
    } finally {
      await context.close();
      await shop.stop();
    }
  };
  const expectOnBothSides = async (id: string, services: Services): Promise<void> => {
    expect(await row(services, id)).toMatchObject({ status: 'completed', current_step: 'success', upsells_accepted: ['RC12', 'SG6'] });
    const session = (await (await server.request(`/v1/sessions/${id}`)).json()) as { upsells: { offer: string; state: string }[] };
    // What was charged, in cents.
    expect(session).toMatchObject({ status: 'completed', currentStep: 'success', amount: 37_966 + 31_746 + 15_980 });
    const states = Object.fromEntries(session.upsells.map(({ offer, state }) => [offer, state]));
    expect(states).toEqual({ RC6: 'lapsed', RC12: 'charged', SG6: 'charged' });
  };

  await buy('off', async (_page, id) => {
    expect((await server.request(`/v1/sessions/${id}`)).status, 'nothing is here yet').toBe(404);
  });
  await buy('shadow', async (_page, id, services) => {
    await expectOnBothSides(id, services);
    expect(await parity()).toEqual({});
  });
  for (const [mode, times] of [['compare', 1], ['on', 2]] as const) {
    await buy(mode, async (_page, id, services) => {
      await expectOnBothSides(id, services);
      await expect.poll(parity, mode).toEqual({
        'GET /api/session/[id]': agreed(times),
        'PATCH /api/session/[id]': agreed(times),
        'POST /api/checkout/process': agreed(times),
        'POST /api/upsell/process': agreed(2 * times),
      });
    });
  }
  await buy('only', async (page, id, services) => {
    expect(await row(services, id), 'the table does not hear of it').toBeUndefined();
    const again = await send(page, 'POST', '/api/upsell/process', upsell(id, 'RC12', 1));
    expect(again).toMatchObject({ status: 200, body: { status: 'ok', amount: 296 } });
    expect(await send(page, 'POST', '/api/upsell/process', upsell(id, 'RC6', 199))).toMatchObject({ status: 409 });
    expect(await chargesOf(gateway, id)).toHaveLength(3);
  });
});

const california = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001', country: 'US' };
const texas = { address: '1 Billing Street', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };

test('phase 2 compares addresses and sums, and a session that is here already goes on at the checkout', async ({ around }) => {
  test.setTimeout(300_000);
  const shopFolder = await built('2-routes');
  const { server, postgres, gateway, start } = around;
  /** The shop, of which all routes work in this mode. A process that begins asks for the modes first. */
  const shopIn = async (mode: string): Promise<Service> => {
    for (const route of routes) await server.setRouteMode(route, mode);
    return start(shopFolder);
  };
  const ask = async (shop: Service, method: string, path: string, body?: object) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(shop.url + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  };
  const parity = async () => {
    const answer = await server.request('/v1/parity', { headers: { authorization: `Bearer ${server.operatorKey}` } });
    const { routes } = (await answer.json()) as { routes: Parity[] };
    const counted = routes.filter(({ equal, different }) => equal + different > 0);
    return Object.fromEntries(counted.map(({ route, equal, fields }) => [route, [equal, fields.map(({ field }) => field).sort()]]));
  };
  const session = async (id: string) => (await (await server.request(`/v1/sessions/${id}`)).json()) as { customer: object; metadata: object };

  const compared = await shopIn('compare');
  const buyers: [string, object][] = [
    ['ws_phases_one', { customerInfo: { firstName: 'Ada', lastName: 'Lovelace', phone: '555 0100', ...california } }],
    ['ws_phases_two', { customerInfo: { firstName: 'Ada', lastName: 'Lovelace', ...california }, billingInfo: texas }],
    ['ws_phases_three', { customerInfo: { firstName: 'Ada', lastName: 'Lovelace', ...texas }, billingInfo: california, couponCode: 'SAVE10' }],
  ];
  for (const [id, buyer] of buyers) {
    expect(await ask(compared, 'POST', '/api/checkout/process', { ...order(id), ...buyer })).toMatchObject({ status: 200 });
    expect(await ask(compared, 'POST', '/api/upsell/process', upsell(id, 'RC6', 199))).toMatchObject({ status: 200 });
    expect(await ask(compared, 'POST', '/api/upsell/process', { ...upsell(id, 'SG6', 149), step: 2 })).toMatchObject({ status: 200 });
    expect(await ask(compared, 'GET', `/api/session/${id}`)).toMatchObject({ status: 200 });
  }
  expect(await ask(compared, 'POST', '/api/checkout/process', order('ws_phases_declined', 'tok_declined'))).toMatchObject({ status: 402 });
  const agreed = { 'POST /api/checkout/process': [4, []], 'POST /api/upsell/process': [6, []] };
  await ask(compared, 'GET', '/api/session/ws_phases_declined');
  await expect.poll(parity).toEqual({ ...agreed, 'GET /api/session/[id]': [4, []] });
  // What differs there, is seen.
  const change = `jsonb_set(jsonb_set(metadata, '{tax}', '1'), '{billingInfo,state}', '"NY"')`;
  await postgres.execute(shopDatabase, `UPDATE funnel_sessions SET customer_info = customer_info || '{"state":"NY"}', metadata = ${change} WHERE id = 'ws_phases_two'`);
  await ask(compared, 'GET', '/api/session/ws_phases_two');
  const seen = ['session.customer_info.state', 'session.metadata.billingInfo.state', 'session.metadata.tax'];
  await expect.poll(parity).toEqual({ ...agreed, 'GET /api/session/[id]': [4, seen] });
  await compared.stop();

  // A browser's session, which the import has brought in with a coupon and another address.
  const entry = { id: 'ws_phases_known', email: 'bob@example.com', status: 'initiated', currentStep: 'checkout', couponCode: 'SAVE10', upsellsAccepted: [], upsellsDeclined: [] };
  const browser = { ...entry, customerInfo: { firstName: 'Bob', phone: '1', ...texas }, products: [{ ...products[0], quantity: 1 }], amount: 177, shippingInfo: { state: 'NY' } };
  const imported = await server.request('/v1/sessions/batch/import', { method: 'POST', body: JSON.stringify({ sessions: [{ id: entry.id, legacy: { browser } }] }) });
  expect(imported.status).toBe(200);
  expect(await session(entry.id)).toMatchObject({ customer: { firstName: 'Bob', shipping: { state: 'NY' } } });
  const only = await shopIn('only');
  const known = { ...order(entry.id), customerInfo: { firstName: 'Ada', lastName: 'Lovelace', ...california }, couponCode: 'SAVE10' };
  const first = await ask(only, 'POST', '/api/checkout/process', known);
  expect(first).toMatchObject({ status: 200, body: { success: true, amount: 379.66, tax: 25.66 } });
  expect(await session(entry.id)).toMatchObject({ customer: { firstName: 'Ada', lastName: 'Lovelace', billing: california }, metadata: { couponCode: 'SAVE10' } });
  expect(Object.keys((await session(entry.id)).customer).sort()).toEqual(['billing', 'firstName', 'lastName']);
  // It is paid: asked again, the answer is the same, and nothing is charged.
  expect(await ask(only, 'POST', '/api/checkout/process', known)).toEqual(first);
  expect((await chargesOf(gateway, entry.id)).map(({ amount }) => amount)).toEqual([379.66]);
  expect(await ask(only, 'POST', '/api/session/create', { ...known, id: entry.id })).toMatchObject({ status: 200, body: { sessionId: entry.id } });
  // One who was declined tries again; and while a payment is under way, there is no second one.
  expect(await ask(only, 'POST', '/api/checkout/process', order('ws_phases_declined'))).toMatchObject({ status: 200, body: { success: true } });
  await ask(only, 'POST', '/api/session/create', { ...known, id: 'ws_phases_under_way' });
  await server.request('/v1/sessions/ws_phases_under_way/commands', { method: 'POST', body: JSON.stringify({ commands: [{ type: 'beginProcessing' }] }) });
  const refused = await ask(only, 'POST', '/api/checkout/process', order('ws_phases_under_way'));
  expect(refused).toMatchObject({ status: 409, body: { success: false, error: { code: 'SESSION_ERROR' } } });
  expect(await chargesOf(gateway, 'ws_phases_under_way')).toEqual([]);
  expect(await ask(only, 'POST', '/api/checkout/process', { ...order('ws_phases_nobody'), email: 'nobody' })).toMatchObject({ status: 409 });
});

test('buyers of pages from before phase 3 go on where they were: one who is filling in, and one who has paid', async ({ browser, around }) => {
  test.setTimeout(300_000);
  const [before, after] = [await built('2-routes'), await built('3-client')];
  const { server, postgres, gateway, start } = around;
  for (const route of routes) await server.setRouteMode(route, 'only');
  const shop = await start(before);
  const [early, paid] = await Promise.all([1, 2].map(async () => (await browser.newContext()).newPage()));
  await early!.goto(`${shop.url}/checkout`);
  await early!.getByLabel('Email').fill('bob@example.com');
  await early!.getByLabel('First name').fill('Bob');
  await early!.getByLabel('First name').blur();
  const id = await checkOut(paid!, { postgres, gateway, shop });

  await shop.stop();
  await start(after);
  // The page from before asks as it did, and the next one is today's.
  await paid!.getByRole('button', { name: 'Add RelaxCalm, 12 bottles for $296.00' }).click();
  await expect(paid!).toHaveURL(`${shop.url}/upsell-2`);
  await paid!.getByRole('button', { name: 'Add SleepGuard, 6 bottles for $149.00' }).click();
  await expect(paid!.getByRole('row', { name: 'Total' })).toContainText('$856.92');
  await paid!.reload();
  await expect(paid!.getByRole('row', { name: 'Total' })).toContainText('$856.92');
  expect((await chargesOf(gateway, id)).map(({ amount }) => amount)).toEqual([379.66, 317.46, 159.8]);

  await early!.reload();
  await expect(early!.getByLabel('Email')).toHaveValue('bob@example.com');
  await expect(early!.getByLabel('First name')).toHaveValue('Bob');
  // The server has it, and it is not in the clear any more.
  for (const page of [early!, paid!]) {
    await expect.poll(() => page.evaluate(() => localStorage.getItem('webseed_funnel_sessions'))).toBeNull();
    await page.context().close();
  }
});

test('the way back from phase 4 to 3, where buyers go on, and from 3 to 2, where they begin again and nothing that was paid is lost', async ({ browser, around }) => {
  test.setTimeout(300_000);
  await buildShop(unifiedShop);
  const [second, third] = [await built('2-routes'), await built('3-client')];
  const { server, postgres, gateway, start } = around;
  for (const route of routes) await server.setRouteMode(route, 'only');
  let shop = await start(unifiedShop);
  const deploy = async (folder: string): Promise<void> => {
    await shop.stop();
    shop = await start(folder);
  };
  const [early, paid] = (await Promise.all([1, 2].map(async () => (await browser.newContext()).newPage()))) as [Page, Page];
  await early.goto(`${shop.url}/checkout`);
  await early.getByLabel('Email').fill('bob@example.com');
  await early.getByLabel('First name').fill('Bob');
  await early.getByLabel('First name').blur();
  const id = await checkOutUnified(paid, { server, gateway, shop });
  const amounts = async (order: string) => (await chargesOf(gateway, order)).map(({ amount }) => amount);
  const states = async () => {
    const session = (await (await server.request(`/v1/sessions/${id}`)).json()) as { payment: { paidAt: string | null }; upsells: { offer: string; state: string }[] };
    expect(session.payment.paidAt).toBeTruthy();
    return Object.fromEntries(session.upsells.map(({ offer, state }) => [offer, state]));
  };

  await deploy(third);
  // The page from before asks as it did, and one that is loaded now is at the same order.
  await paid.getByRole('button', { name: 'Add RelaxCalm, 12 bottles for $296.00' }).click();
  await expect(paid).toHaveURL(`${shop.url}/upsell-2`);
  await paid.reload();
  await expect(paid.getByRole('heading', { name: 'SleepGuard, 6 bottles' })).toBeVisible();
  await early.reload();
  await expect(early.getByLabel('Email')).toHaveValue('bob@example.com');
  await expect(early.getByLabel('First name')).toHaveValue('Bob');
  expect(await amounts(id)).toEqual([341.7, 317.46]);

  await deploy(second);
  // A page of phase 3 that is open still: the route does not know what it asks for, and charges nothing.
  const answered = paid.waitForResponse((response) => response.url().endsWith('/api/upsell/process'));
  await paid.getByRole('button', { name: 'Add SleepGuard, 6 bottles for $149.00' }).click();
  expect((await answered).status()).toBe(400);
  expect(await states()).toEqual({ RC6: 'lapsed', RC12: 'charged', SG6: 'accepted' });
  for (const page of [paid, early]) {
    await page.goto(shop.url);
    await expect(page).toHaveURL(`${shop.url}/checkout`);
    await expect(page.getByLabel('Email')).toHaveValue('');
  }
  const again = await checkOut(early, { postgres, gateway, shop });
  expect(await amounts(again)).toEqual([379.66]);
  expect(await amounts(id)).toEqual([341.7, 317.46]);

  // And on to phase 3 again: the order is where it was, and its offer is charged now.
  await deploy(third);
  await paid.goto(shop.url);
  await expect(paid.getByRole('row', { name: 'Total' })).toContainText('$818.96');
  expect(await states()).toEqual({ RC6: 'lapsed', RC12: 'charged', SG6: 'charged' });
  expect(await amounts(id)).toEqual([341.7, 317.46, 159.8]);
  // Whoever has begun again in between is at that order.
  await early.reload();
  await expectFirstOffer(early);
  expect(await amounts(again)).toEqual([379.66]);
  for (const page of [early, paid]) await page.context().close();
});

test('the guide shows what is in the patches', async () => {
  const guide = await readFile(inRepository('docs/migration/nextjs.md'), 'utf8');
  for (const [index, phase] of phases.entries()) {
    const patch = await readFile(inRepository(`examples/nextjs/phases/${phase}.patch`), 'utf8');
    const lines = new Set(patch.split('\n'));
    const chapter = guide.split(/^## /m).find((part) => part.startsWith(`${index + 1} `));
    expect(chapter, phase).toContain(`(../../examples/nextjs/phases/${phase}.patch)`);
    const shown = [...chapter!.matchAll(/^```diff\n(.*?)^```$/gms)].flatMap(([, block]) => block!.trimEnd().split('\n'));
    expect(shown.length, phase).toBeGreaterThan(0);
    const changed = shown.filter((line) => /^[+-]/.test(line));
    expect(changed.filter((line) => !lines.has(line)), phase).toEqual([]);
  }
});
