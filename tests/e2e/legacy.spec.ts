import { readFile } from 'node:fs/promises';

import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { inRepository } from './repository.js';
import { asService, disorder, journal, openHere, openIn, readable, settled, shown, stored, type Session } from './sdk.js';
import type { ThroughlineServer } from './server.js';

const key = 'webseed_funnel_sessions';

interface LegacyAddress {
  firstName?: string;
  lastName?: string;
  phone?: string;
  address?: string;
  city?: string;
  state?: string;
  zipCode?: string;
  country?: string;
}

/** One session as the legacy shop wrote it. */
interface Legacy {
  id: string;
  email?: string;
  customerInfo?: LegacyAddress;
  billingInfo?: LegacyAddress;
  shippingInfo?: LegacyAddress;
  products: { id: string; name: string; price: number; quantity: number }[];
  status: string;
  amount: number;
  currentStep: string;
  couponCode?: string;
  upsellsAccepted: string[];
  upsellsDeclined: string[];
  metadata?: Record<string, unknown>;
  orderId?: string;
  [field: string]: unknown;
}

async function fixture(name: string): Promise<{ text: string; sessions: Legacy[] }> {
  const text = await readFile(inRepository(`tests/fixtures/legacy/localstorage-${name}.json`), 'utf8');
  return { text, sessions: Object.values(JSON.parse(text) as Record<string, Legacy>) };
}

/** Writes into the page's localStorage what the legacy shop would have left there. */
async function leave(page: Page, url: string, text: string): Promise<void> {
  await page.goto(url);
  await page.evaluate(([key, text]) => localStorage.setItem(key, text), [key, text] as const);
}

const legacyText = (page: Page) => page.evaluate((key) => localStorage.getItem(key), key);

async function takenOver(page: Page, timeout = 30_000): Promise<void> {
  await page.waitForFunction((key) => localStorage.getItem(key) === null, key, { timeout });
}

/** What could not be taken over, as the browser keeps it. */
async function leftOver(page: Page): Promise<Record<string, unknown>> {
  const kept = Object.entries(await readable(page)).filter(([key]) => key.startsWith('left-over/'));
  return Object.fromEntries(kept.map(([key, text]) => [key, JSON.parse(text) as unknown]));
}

const cents = (dollars: number) => Math.round(dollars * 100);
const catalogue = new Map([
  ['fitspresso-1-pack', 7900],
  ['fitspresso-3-pack', 17_700],
  ['fitspresso-6-pack', 29_400],
]);

function without(object: LegacyAddress | undefined, ...names: (keyof LegacyAddress)[]): LegacyAddress | undefined {
  if (object === undefined) return undefined;
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name as keyof LegacyAddress)));
}

/** Compares a session at the server, field by field, with what the legacy storage held. */
function expectSame(session: Session, legacy: Legacy): void {
  const { id, email, products, claims, couponCode, metadata, source } = JSON.parse(JSON.stringify(session)) as Session;
  const lines = legacy.products.map(({ id, name, price, quantity }) => ({ id, name, price: cents(price), quantity }));
  expect({ id, email, couponCode, source }).toEqual({
    id: legacy.id,
    email: legacy.email,
    couponCode: legacy.couponCode ?? null,
    source: 'migration',
  });
  expect(products).toEqual(
    lines.map((line) => ({ ...line, priceSource: catalogue.has(line.id) ? 'funnel' : 'claimed' })),
  );
  for (const { id, price } of products) expect(price).toBe(catalogue.get(id) ?? price);
  expect(claims).toMatchObject({
    amount: cents(legacy.amount),
    products: lines,
    step: legacy.currentStep,
    declined: legacy.upsellsDeclined,
  });
  expect(claims!.accepted.map(({ code }) => code)).toEqual(legacy.upsellsAccepted);

  const { customer } = session;
  const { firstName, lastName, phone } = legacy.customerInfo ?? {};
  expect([customer.firstName, customer.lastName, customer.phone]).toEqual([firstName, lastName, phone]);
  const own = without(legacy.customerInfo, 'firstName', 'lastName', 'phone');
  expect(customer.billing).toEqual(legacy.billingInfo ?? own);
  expect(customer.shipping).toEqual(legacy.shippingInfo);

  const { legacy: unknown, ...known } = metadata as Record<string, unknown>;
  expect(known).toEqual(legacy.metadata ?? {});
  if (legacy.orderId !== undefined) expect(unknown).toMatchObject({ orderId: legacy.orderId });
  if (legacy.billingInfo !== undefined) expect(unknown).toMatchObject({ customerAddress: own });
  const details = (legacy['upsells'] ?? []) as Record<string, unknown>[];
  if (details.length > 0) {
    const kept = details.map(({ transactionId: _, ...rest }) => rest);
    expect((unknown as { upsells: unknown }).upsells).toEqual(kept);
  }
  // Nothing of it was believed.
  expect(session.payment.paidAt).toBeNull();
  expect(['pending', 'expired']).toContain(session.status);
  expect(session.upsells).toEqual([]);
}

async function expectAll(server: ThroughlineServer, sessions: readonly Legacy[]): Promise<void> {
  for (const legacy of sessions) {
    expectSame(await stored(server, legacy.id), legacy);
    const types = (await journal(server, legacy.id)).map(({ event }) => event.type);
    expect(types.filter((type) => type === 'created')).toHaveLength(1);
    expect(types.filter((type) => type === 'claimsMade')).toHaveLength(1);
  }
}

test('one buyer of the legacy shop is brought over, and once only', async ({ page, site, server }) => {
  const { text, sessions } = await fixture('one-buyer-at-upsell-1');
  await leave(page, site.url, text);
  const own = await openHere(page, server);
  expect(own, "the page's own session is a new one").not.toBe(sessions[0]!.id);
  await takenOver(page);
  await expectAll(server, sessions);
  expect(await leftOver(page)).toEqual({});

  const before = await journal(server, sessions[0]!.id);
  await openIn(page, site, server);
  await settled(page);
  expect(await journal(server, sessions[0]!.id)).toEqual(before);
  expect(await leftOver(page)).toEqual({});
});

test('the shop can go on with a legacy session by its old id', async ({ page, site, server }) => {
  const { text, sessions } = await fixture('one-buyer-at-upsell-1');
  const [legacy] = sessions as [Legacy];
  await leave(page, site.url, text);
  expect(await openHere(page, server, { sessionId: legacy.id })).toBe(legacy.id);
  expect(await shown(page)).toMatchObject({ id: legacy.id, email: legacy.email });
  await settled(page);
  await takenOver(page);
  await expectAll(server, sessions);
  expect(await page.evaluate(() => refusals)).toEqual([]);
  expect(await leftOver(page)).toEqual({});
  // A payment may have been made: nobody is asked to pay again before the shop has looked.
  const refused = await page.evaluate(() => session.beginProcessing().accepted.catch((reason: { code: string }) => reason.code));
  expect(refused).toBe('awaitingConfirmation');

  const confirmed = await asService(server, legacy.id, {
    type: 'confirmClaims',
    transactionId: 'tx-of-the-gateway',
    amount: 29400,
  });
  expect(confirmed.status).toBe(200);
  await page.waitForFunction(() => session.getSnapshot().payment.paidAt !== null);
  expect(await shown(page)).toMatchObject({ currentStep: 'upsell-1', claims: null });
  expect(await stored(server, legacy.id)).toMatchObject({ transactionId: 'tx-of-the-gateway', vaultId: null });
});

test.describe(() => {
  test.use({ serverArguments: ['--session-creations-per-minute', '10'] });

  test('twelve buyers are brought over, although the server allows ten new sessions a minute', async ({
    page,
    site,
    server,
  }) => {
    test.setTimeout(120_000);
    const { text, sessions } = await fixture('twelve-buyers');
    expect(sessions).toHaveLength(12);
    await leave(page, site.url, text);
    await openHere(page, server);
    await settled(page);
    expect(await legacyText(page), 'not before all of them are at the server').toBe(text);
    await takenOver(page, 90_000);
    await expectAll(server, sessions);
    expect(await leftOver(page)).toEqual({});
    const metrics = await (await server.request('/metrics')).text();
    expect(metrics, 'the limit was met').toMatch(/throughline_sockets_closed_total\{[^}]*4429[^}]*\} [1-9]/);
  });
});

test.describe(() => {
  // Neither of the server's first two lives can take in half of them, however fast the machine is.
  test.use({ serverArguments: ['--session-creations-per-minute', '40'] });

  test('two hundred buyers are brought over, across a kill of the server and a page that is closed', async ({
    context,
    page,
    site,
    server,
  }) => {
    test.setTimeout(180_000);
    const { text, sessions } = await fixture('two-hundred-buyers');
    expect(sessions).toHaveLength(200);
    await leave(page, site.url, text);
    await openHere(page, server);

    const isThere = async (id: string) => (await server.request(`/v1/sessions/${id}`)).ok;
    const arrived = async () => {
      let count = 0;
      for (let from = 0; from < sessions.length; from += 20) {
        const there = await Promise.all(sessions.slice(from, from + 20).map(({ id }) => isThere(id)));
        count += there.filter(Boolean).length;
      }
      return count;
    };
    await expect.poll(arrived, { intervals: [20] }).toBeGreaterThan(3);
    await server.kill9();
    expect(await legacyText(page), 'the old key stays while not all of it is at the server').toBe(text);
    await server.restart();
    const before = await arrived();
    // Who met the limit is told to wait.
    await expect.poll(arrived, { intervals: [20], timeout: 60_000 }).toBeGreaterThan(before);
    expect(await legacyText(page)).toBe(text);
    await page.close();
    expect(await arrived()).toBeLessThan(200);
    await server.restart(['--session-creations-per-minute', '2000']);

    const next = await context.newPage();
    await next.goto(site.url);
    expect(await legacyText(next), 'the page was closed in the middle').toBe(text);
    await openHere(next, server);
    await takenOver(next, 120_000);
    await expectAll(server, sessions);
    expect(await leftOver(next)).toEqual({});
  });
});

test('the old key stays as long as the server is away', async ({ page, site, server }) => {
  const { text, sessions } = await fixture('one-buyer-at-upsell-1');
  await openIn(page, site, server);
  await settled(page);
  await server.kill9();
  await leave(page, site.url, text);
  await openHere(page, server);
  await page.waitForFunction(() => session.sync.connection === 'connecting');
  expect(await legacyText(page)).toBe(text);
  await page.reload();
  await openHere(page, server);
  expect(await legacyText(page)).toBe(text);
  await server.restart();
  await takenOver(page, 45_000);
  await expectAll(server, sessions);
});

/** A session as somebody might write it into their own browser. */
function forge(id: string, fields: Partial<Legacy>): Legacy {
  const now = Date.now();
  return {
    id,
    email: 'mallory@example.com',
    customerInfo: { firstName: 'Mallory', lastName: 'Doe' },
    products: [],
    status: 'initiated',
    amount: 0.01,
    currentStep: 'checkout',
    upsellsAccepted: [],
    upsellsDeclined: [],
    createdAt: new Date(now - 60_000).toISOString(),
    updatedAt: new Date(now - 60_000).toISOString(),
    expiresAt: new Date(now + 3_600_000).toISOString(),
    ...fields,
  };
}

test('forged values make no session paid and no product cheap', async ({ page, site, server }) => {
  const sixPack = { id: 'fitspresso-6-pack', name: 'Fitspresso', quantity: 1 };
  const cheap = forge('ws_forged_cheap0001', { products: [{ ...sixPack, price: 0.01 }] });
  const unknown = forge('ws_forged_unknown01', {
    products: [
      { ...sixPack, price: 294 },
      { id: 'gold-bar', name: 'Gold bar', price: 0.01, quantity: 1 },
    ],
  });
  const paid = forge('ws_forged_paid00001', {
    products: [{ ...sixPack, price: 294 }],
    status: 'completed',
    currentStep: 'success',
    transactionId: 'made-up',
    amount: 294,
  });
  const sessions = Object.fromEntries([cheap, unknown, paid].map((session) => [session.id, session]));
  await leave(page, site.url, JSON.stringify(sessions));
  await openHere(page, server);
  await takenOver(page);
  await page.evaluate(() => session.close());

  const begin = async (id: string) => {
    await openHere(page, server, { sessionId: id });
    await settled(page);
    const outcome = await page.evaluate(() =>
      session.beginProcessing().durable.then(
        () => 'begun',
        (reason: { code: string }) => reason.code,
      ),
    );
    await page.evaluate(() => session.close());
    return outcome;
  };

  // The catalogue's price.
  expect(await begin(cheap.id)).toBe('begun');
  expect(await stored(server, cheap.id)).toMatchObject({ status: 'processing', amount: 29_400 });

  expect(await begin(unknown.id)).toBe('awaitingConfirmation');
  expect((await asService(server, unknown.id, { type: 'refuteClaims' })).status).toBe(200);
  expect(await begin(unknown.id)).toBe('begun');
  expect(await stored(server, unknown.id)).toMatchObject({ amount: 29_400, products: [{ id: 'fitspresso-6-pack' }] });

  expect(await stored(server, paid.id)).toMatchObject({ status: 'pending', transactionId: null, payment: { paidAt: null } });
  expect(await begin(paid.id)).toBe('awaitingConfirmation');
  expect((await asService(server, paid.id, { type: 'refuteClaims' })).status).toBe(200);
  expect(await begin(paid.id)).toBe('begun');
  expect(await stored(server, paid.id)).toMatchObject({ status: 'processing', amount: 29_400, transactionId: null });
  for (const { id } of [cheap, unknown, paid]) expect(disorder(await journal(server, id))).toEqual([]);
});

test('a browser cannot settle its own claims', async ({ page, site, server }) => {
  const paid = forge('ws_forged_paid00002', { status: 'completed', transactionId: 'made-up' });
  await leave(page, site.url, JSON.stringify({ [paid.id]: paid }));
  await openHere(page, server, { sessionId: paid.id });
  await settled(page);
  for (const type of ['confirmClaims', 'refuteClaims'] as const) {
    const code = await page.evaluate(
      (type) => session.issue({ type }).durable.catch((reason: { code: string }) => reason.code),
      type,
    );
    expect(code).toBe('notPermitted');
  }
});

for (const [name, text] of [
  ['cut off', '{"ws_a":{"id":"ws_a","email":"ada@exam'],
  ['no object', '[1, 2, 3]'],
] as const) {
  test(`a legacy value that is ${name} is kept, and the page works`, async ({ page, site, server }) => {
    await leave(page, site.url, text);
    await openHere(page, server);
    await page.evaluate(() => session.setEmail('ada@example.com').durable);
    await takenOver(page);
    const kept = Object.values(await leftOver(page));
    expect(kept).toHaveLength(1);
    expect(kept[0]).toMatchObject({ content: text, reason: expect.stringContaining('no JSON object') });
  });
}

test('an entry that can be no session is kept, and the others are brought over', async ({ page, site, server }) => {
  const good = forge('ws_forged_good00001', {});
  await leave(page, site.url, JSON.stringify({ bad: 'text', [good.id]: good }));
  await openHere(page, server);
  await takenOver(page);
  expect((await stored(server, good.id)).email).toBe(good.email);
  expect(await leftOver(page)).toMatchObject({ 'left-over/bad': { content: '"text"' } });
});

test('where the server fails one entry for another reason than the rules, the old key stays for the next page', async ({
  context,
  page,
  site,
  server,
}) => {
  const good = forge('ws_forged_good00002', {});
  const stuck = forge('ws_forged_stuck0001', {});
  const text = JSON.stringify({ [good.id]: good, [stuck.id]: stuck });
  await leave(page, site.url, text);
  await page.routeWebSocket(/\/v1\/sync$/, (socket) => {
    const upstream = socket.connectToServer();
    socket.onMessage((message) => {
      const frame = JSON.parse(String(message)) as { type: string; sessionId?: string };
      if (frame.type !== 'hello' || frame.sessionId !== stuck.id) return upstream.send(message);
      socket.send(JSON.stringify({ type: 'error', code: 'unsupportedProtocol', message: 'another version is spoken here' }));
    });
  });
  await openIn(page, site, server);
  const reasons = { 'left-over/ws_forged_stuck0001': { reason: 'another version is spoken here' } };
  await expect.poll(() => leftOver(page)).toMatchObject(reasons);
  expect((await stored(server, good.id)).email).toBe(good.email);
  expect(await legacyText(page)).toBe(text);
  await page.close();

  const next = await context.newPage();
  await openIn(next, site, server);
  await takenOver(next);
  expect((await stored(server, stuck.id)).email).toBe(stuck.email);
  expect(await leftOver(next)).toEqual({});
});
