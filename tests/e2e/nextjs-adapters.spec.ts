import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from '@playwright/test';

import { products } from './legacy-buyer.js';
import { apply, copyLegacy } from './nextjs-phases.js';
import { buildShop, chargesOf, legacyShop, type Service, shopDatabase, startGateway, startPostgres, startShop } from './nextjs-shops.js';
import { inRepository } from './repository.js';
import { ThroughlineServer } from './server.js';

/** What the routes import instead of the two systems. Everything else of the shop is as it was. */
const exchanged = {
  'src/lib/back-end.ts': `
    import { cookies } from 'next/headers';
    import { legacyBackEnd } from 'throughline/legacy/server';

    // A build has neither.
    const { THROUGHLINE_URL: url = 'http://127.0.0.1:1', THROUGHLINE_SERVICE_KEY: serviceKey = 'none' } = process.env;
    export const { databaseSessionManager, cookieSession } = legacyBackEnd({ server: { url, serviceKey }, cookies });
  `,
  'src/lib/database-session-manager.ts': `
    export { databaseSessionManager } from './back-end';
    export type { FunnelSessionRow as DatabaseSession, NewRow as CreateSessionData } from 'throughline/legacy/server';
  `,
  'src/lib/cookie-session.ts': `
    import { cookieSession } from './back-end';
    export type { SessionData } from 'throughline/legacy/server';
    export const { createSession, getSession, getSessionById, updateSession, deleteSession } = cookieSession;
  `,
};

/** The legacy shop's own routes over today's sessions, built. */
async function shopWithAdapters(): Promise<string> {
  const shop = inRepository('target/shops/adapters');
  await mkdir(shop, { recursive: true });
  for (const name of await readdir(shop)) if (name !== '.next') await rm(join(shop, name), { recursive: true });
  await copyLegacy(shop);
  await apply(shop, '1-interface');
  for (const [path, text] of Object.entries(exchanged)) await writeFile(join(shop, path), text);
  await buildShop(shop);
  return shop;
}

/** A buyer's requests to a shop, with the cookie that it sets. */
class Buyer {
  #cookie = '';

  constructor(
    readonly shop: Service,
    readonly gateway: Service,
    readonly id: string,
  ) {}

  async send(method: string, path: string, body?: object): Promise<{ status: number; body: Record<string, unknown> }> {
    const headers = { 'content-type': 'application/json', cookie: this.#cookie };
    const response = await fetch(this.shop.url + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    this.#cookie = response.headers.get('set-cookie')?.split(';')[0] ?? this.#cookie;
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  }

  /** The row, as the shop's route answers it. */
  async row(): Promise<Record<string, unknown> & { metadata: Record<string, unknown> }> {
    const { body } = await this.send('GET', `/api/session/${this.id}`);
    return body.session as Record<string, unknown> & { metadata: Record<string, unknown> };
  }

  async charged(): Promise<unknown[]> {
    return (await chargesOf(this.gateway, this.id)).map(({ transactionId, vaultId, amount, source, status }) => [transactionId, vaultId, amount, source, status]);
  }
}

const sorted = (object: object) => Object.entries(object).sort(([one], [other]) => (one < other ? -1 : 1));

const california = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001', country: 'US' };
const texas = { address: '1 Billing Street', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };

/** Who buys what. */
const orders = [
  { who: 'a buyer in California whose bill goes to Texas', customer: california, billingInfo: texas, tax: 25.66 },
  { who: 'one in Texas whose bill goes to California', customer: texas, billingInfo: california, tax: 22.13 },
  { who: 'one in Texas with a coupon', customer: texas, couponCode: 'SAVE10', tax: 22.13 },
  { who: 'one with the same address twice', customer: california, billingInfo: california, tax: 25.66 },
  { who: 'one who says nothing of where', customer: {}, tax: 0 },
] as const;

test('the old routes with their two imports exchanged answer, charge and write as they did', async () => {
  test.setTimeout(300_000);
  await buildShop(legacyShop);
  const folder = await shopWithAdapters();
  const running: { stop(): Promise<void> }[] = [];
  const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
  try {
    const [postgres, server] = [kept(await startPostgres()), kept(await ThroughlineServer.start())];
    // One for each: what they are asked in the same order, they answer with the same numbers.
    const gateways = [kept(await startGateway()), kept(await startGateway())] as const;
    const own = { DATABASE_URL: postgres.url(shopDatabase), GATEWAY_URL: gateways[0].url, SESSION_SECRET: 'a secret for this test only' };
    const today = { GATEWAY_URL: gateways[1].url, THROUGHLINE_URL: server.url, THROUGHLINE_SERVICE_KEY: server.serviceKey };
    const shops = [kept(await startShop(legacyShop, own)), kept(await startShop(folder, today))] as const;
    const buyers = (id: string) => [new Buyer(shops[0], gateways[0], id), new Buyer(shops[1], gateways[1], id)] as const;

    /** Both are asked the same, and answer the same; what that was. */
    const both = async (to: readonly [Buyer, Buyer], path: string, body: object): Promise<{ status: number; body: Record<string, unknown> }> => {
      const [before, now] = [await to[0].send('POST', path, body), await to[1].send('POST', path, body)];
      expect(now, path).toEqual(before);
      return now;
    };
    /**
     * What both have written. Times and the names of steps are each side's own, a discount had no place before, and an address that is
     * there twice is there once.
     */
    const written = async (buyer: Buyer): Promise<object> => {
      const { created_at: _, updated_at: __, expires_at: ___, current_step: ____, metadata, ...row } = await buyer.row();
      const { createdAt, discount: _____, upsells, billingInfo, ...others } = metadata;
      expect(Date.parse(createdAt as string)).not.toBeNaN();
      const entries = (upsells as { timestamp: string }[] | undefined)?.map(({ timestamp, ...entry }) => (expect(Date.parse(timestamp)).not.toBeNaN(), entry));
      const place = (address: unknown) => ({ ...(address as object), firstName: 'Ada', lastName: 'Lovelace' });
      const isOther = JSON.stringify(sorted(place(billingInfo))) !== JSON.stringify(sorted(row.customer_info as object));
      return { ...row, metadata: { ...others, ...(billingInfo !== undefined && isOther && { billingInfo }), ...(entries && { upsells: entries }) } };
    };

    for (const [index, { who, customer, tax, ...others }] of orders.entries()) {
      await test.step(who, async () => {
        const sessionId = `ws_adapters_${index}_${crypto.randomUUID().slice(0, 8)}`;
        const two = buyers(sessionId);
        const customerInfo = { firstName: 'Ada', lastName: 'Lovelace', ...customer };
        const order = { sessionId, email: `ada-${index}@example.com`, customerInfo, products, paymentToken: 'tok_1_0123456789abcdef', ...others };
        expect((await both(two, '/api/checkout/process', order)).body).toMatchObject({ success: true, tax });
        const offer = { sessionId, bottles: 6 };
        expect((await both(two, '/api/upsell/process', { ...offer, productCode: 'RC6', amount: 199, step: 1 })).body).toMatchObject({ status: 'ok' });
        expect((await both(two, '/api/upsell/process', { ...offer, productCode: 'SG6', amount: 149, step: 2 })).body).toMatchObject({ status: 'ok' });
        const rows = [await written(two[0]), await written(two[1])];
        expect(rows[1]).toEqual(rows[0]);
        expect(rows[1]).toMatchObject({ status: 'completed', upsells_accepted: ['RC6', 'SG6'] });
        const charges = [await two[0].charged(), await two[1].charged()];
        expect(charges[1]).toEqual(charges[0]);
        expect(charges[1]).toHaveLength(3);
      });
    }

    await test.step('one whose card is declined', async () => {
      const sessionId = `ws_adapters_declined_${crypto.randomUUID().slice(0, 8)}`;
      const two = buyers(sessionId);
      const customerInfo = { firstName: 'Ada', lastName: 'Lovelace', ...california };
      const order = { sessionId, email: 'ada@example.com', customerInfo, products, paymentToken: 'tok_declined' };
      expect(await both(two, '/api/checkout/process', order)).toMatchObject({ status: 402 });
      expect(await both(two, '/api/upsell/process', { sessionId, productCode: 'RC6', amount: 199, bottles: 6, step: 1 })).toMatchObject({ status: 401 });
      const [before, now] = [await two[0].row(), await two[1].row()];
      for (const row of [before, now]) expect(row).toMatchObject({ status: 'failed', current_step: 'failed', customer_info: customerInfo });
      expect(now.metadata.error).toBe(before.metadata.error);
      // What the old one threw away.
      expect(now.metadata).toMatchObject({ tax: 25.66, totalAmount: 379.66 });
      expect(await two[1].charged()).toEqual(await two[0].charged());
    });

    // A refusal after a charge is swallowed by these routes.
    for (const shop of shops) expect(shop.log).not.toMatch(/Could not|failed:/);
  } finally {
    for (const service of running) await service.stop();
  }
});
