import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import {
  asService,
  disorder,
  journal,
  numbersByClient,
  openHere,
  openIn,
  settled,
  shown,
  stored,
  tokenOf,
  type Session,
} from './sdk.js';

const hourMs = 3_600_000;

/** What a buyer does at the checkout; answers when the browser has stored it. */
async function fillInAndBegin(page: Page): Promise<void> {
  await page.evaluate(() => {
    session.setItems([{ id: 'fitspresso-3-pack', quantity: 1 }]);
    session.setEmail('ada@example.com');
    session.setCustomer({ firstName: 'Ada', lastName: 'Lovelace', shipping: { state: 'CA', zipCode: '94020' } });
    session.setCoupon('SAVE10');
    session.beginProcessing();
  });
}
// 177.00 less 10 %, and 7.25 % tax.
const owed = 17_085;
const filledIn = {
  status: 'processing',
  currentStep: 'processing',
  email: 'ada@example.com',
  couponCode: 'SAVE10',
  amount: owed,
};

/** Both sides without what only the server fills in. */
function comparable(session: Session): Partial<Session> {
  const { status, currentStep, email, customer, products, upsells, metadata, totals, amount, version } = session;
  const reduced = { status, currentStep, email, customer, products, upsells, metadata, totals, amount, version };
  return JSON.parse(JSON.stringify(reduced)) as Partial<Session>;
}

test('without a network the page goes on as far as the rules allow, and all of it arrives in order', async ({
  context,
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await context.setOffline(true);
  await page.waitForFunction(() => session.sync.connection === 'offline');
  await fillInAndBegin(page);
  expect(await shown(page)).toMatchObject(filledIn);
  expect(await page.evaluate(() => session.sync.pending)).toBe(5);
  // Only the shop's back end can say that it was paid.
  const refused = await page.evaluate(() => session.goToStep('upsell-1').accepted.catch((reason: Error) => reason.message));
  expect(refused).toBe('a payment is under way; wait for its outcome');
  expect(await stored(server, id)).toMatchObject({ version: 1, email: null, products: [] });

  await context.setOffline(false);
  await settled(page);
  const kept = await stored(server, id);
  expect(kept).toMatchObject(filledIn);
  expect(comparable(await shown(page))).toEqual(comparable(kept));
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  expect([...numbersByClient(records).values()]).toEqual([[1, 2, 3, 4, 5, 6]]);
  expect(records.map(({ event }) => event.type)).toEqual([
    'created',
    'itemsSet',
    'emailSet',
    'customerSet',
    // Tax, for the address; then the coupon's discount, and the tax on what is left.
    'adjustmentsSet',
    'couponSet',
    'adjustmentsSet',
    'paymentBegun',
    'stepEntered',
  ]);
});

test('what was done while the server was away outlives reloads, and arrives once', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await server.kill9();
  await fillInAndBegin(page);
  for (let reload = 1; reload <= 2; reload += 1) {
    await page.reload();
    expect(await openHere(page, server)).toBe(id);
    expect(await shown(page)).toMatchObject(filledIn);
    await page.evaluate((reload) => void session.setMetadata({ [`reload${reload}`]: true }), reload);
    // The reload must not come before the browser has it.
    await page.evaluate(() => session.close());
  }
  await page.reload();
  await openHere(page, server);
  expect(await page.evaluate(() => session.sync)).toMatchObject({ pending: 7, storage: 'indexedDB' });

  await server.restart();
  await settled(page, 45_000);
  expect(await stored(server, id)).toMatchObject({ ...filledIn, metadata: { reload1: true, reload2: true } });
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  // Each life of the page is a client of its own.
  expect([...numbersByClient(records).values()].map((numbers) => numbers.length)).toEqual([6, 1, 1]);
});

test('offers answered offline, up to the end of the funnel, are all applied in order', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await fillInAndBegin(page);
  await settled(page);
  const paid = await asService(server, id, { type: 'recordPayment', transactionId: 'tx-1', amount: owed });
  expect(paid.status).toBe(200);
  await page.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');

  await page.evaluate(() => session.goOffline());
  await page.evaluate(() => {
    session.acceptUpsell('RC6');
    session.declineUpsell('RC12');
    session.goToStep('upsell-2');
    session.declineUpsell('SG6');
    session.goToStep('success');
  });
  const states = [
    { offer: 'RC6', state: 'accepted' },
    { offer: 'RC12', state: 'declined' },
    { offer: 'SG6', state: 'declined' },
  ];
  expect(await shown(page)).toMatchObject({ status: 'completed', currentStep: 'success', upsells: states });
  expect(await page.evaluate(() => [session.sync.connection, session.sync.pending])).toEqual(['offline', 5]);
  expect(await stored(server, id)).toMatchObject({ status: 'processing', currentStep: 'upsell-1' });

  await page.evaluate(() => session.goOnline());
  await settled(page);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ status: 'completed', currentStep: 'success', upsells: states });
  expect(comparable(await shown(page))).toEqual(comparable(kept));
  expect(await page.evaluate(() => refusals)).toEqual([]);
  expect(disorder(await journal(server, id))).toEqual([]);

  // What was accepted offline can still be charged.
  const { price, tax } = kept.upsells[0]!;
  const charge = { type: 'recordUpsellCharge', offer: 'RC6', transactionId: 'tx-2', amount: price + tax } as const;
  expect((await asService(server, id, charge)).status).toBe(200);
  await page.waitForFunction(() => session.getSnapshot().upsells[0]?.state === 'charged');
});

test('a session that began offline is claimed later and gets its token', async ({ page, site, server }) => {
  const earlier = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => session.close());
  await server.kill9();

  const id = await openIn(page, site, server, { fresh: true });
  expect(id).not.toBe(earlier);
  await fillInAndBegin(page);
  expect(await shown(page)).toMatchObject({ id, ...filledIn });
  await server.restart();
  await settled(page, 45_000);
  expect(await stored(server, id)).toMatchObject({ id, ...filledIn });
  expect(disorder(await journal(server, id))).toEqual([]);

  // The token is good for this session at the REST API as well.
  const headers = { authorization: `Bearer ${await tokenOf(page, id)}` };
  expect((await fetch(`${server.url}/v1/sessions/${id}`, { headers })).status).toBe(200);
  expect((await fetch(`${server.url}/v1/sessions/${earlier}`, { headers })).status).toBe(403);
});

test('three thousand commands issued at once all arrive, in order', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => {
    for (let n = 1; n <= 3000; n += 1) session.setMetadata({ n });
  });
  expect((await shown(page)).metadata).toEqual({ n: 3000 });
  await settled(page, 45_000);
  expect((await stored(server, id)).metadata).toEqual({ n: 3000 });
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  expect(records).toHaveLength(3001);
});

test('before the funnel was ever known, opening without a server fails with a reason', async ({
  page,
  site,
  server,
}) => {
  await server.kill9();
  await expect(openIn(page, site, server)).rejects.toThrow(/can't be loaded from the server/);
});

for (const [name, offsetMs] of [
  ['an hour ahead', hourMs],
  ['an hour behind', -hourMs],
] as const) {
  test(`a device whose clock is ${name} breaks nothing`, async ({ page, site, server }) => {
    await page.addInitScript((offsetMs) => {
      const RealDate = Date;
      const now = () => RealDate.now() + offsetMs;
      globalThis.Date = new Proxy(RealDate, {
        construct: (target, values: unknown[]) =>
          Reflect.construct(target, values.length === 0 ? [now()] : values) as object,
        get: (target, key) => (key === 'now' ? now : (Reflect.get(target, key) as unknown)),
      });
    }, offsetMs);
    await openIn(page, site, server);
    await settled(page);
    await page.evaluate(() => session.close());
    await server.kill9();

    // Begun offline, so with no other clock than the device's.
    const id = await openIn(page, site, server, { fresh: true });
    const off = (await page.evaluate(() => session.getSnapshot().createdAt.getTime())) - Date.now();
    expect(Math.abs(off - offsetMs), 'the page believes its own clock').toBeLessThan(60_000);
    await fillInAndBegin(page);
    await server.restart();
    await settled(page, 45_000);

    const kept = await stored(server, id);
    expect(kept).toMatchObject(filledIn);
    const ageMs = Date.now() - Date.parse(String(kept.createdAt));
    expect(Math.abs(ageMs), "the server's clock counts").toBeLessThan(60_000);
    for (const { at } of await journal(server, id)) {
      expect(Math.abs(Date.now() - Date.parse(String(at)))).toBeLessThan(60_000);
    }
    const there = await shown(page);
    expect([there.createdAt, there.expiresAt]).toEqual([kept.createdAt, kept.expiresAt]);
    // And the buyer goes on.
    const paid = await asService(server, id, { type: 'recordPayment', transactionId: 'tx-1', amount: owed });
    expect(paid.status).toBe(200);
    await page.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
    await page.evaluate(() => session.declineUpsell('RC6').durable);
    expect(await page.evaluate(() => refusals)).toEqual([]);
    expect(disorder(await journal(server, id))).toEqual([]);
  });
}
