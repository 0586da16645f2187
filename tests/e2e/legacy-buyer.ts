import { expect, test as base, type Page } from '@playwright/test';

import { buildShop, legacyShop, type Service, shopDatabase, startGateway, startPostgres, startShop } from './nextjs-shops.js';
import type { Postgres } from './postgres.js';

export const workingCard = '4242 4242 4242 4242';
export const declinedCard = '4000 0000 0000 0002';
/** What the shop signs its cookies with. */
export const secret = 'a secret for this test only';

/** A row of `funnel_sessions`. */
export interface Row {
  id: string;
  status: string;
  current_step: string;
  amount: number;
  products: unknown;
  customer_info: Record<string, string>;
  upsells_accepted: string[];
  upsells_declined: string[];
  vault_id: string | null;
  transaction_id: string | null;
  payment_token: string | null;
  coupon_code: string | null;
  metadata: Record<string, unknown>;
  created_at: string;
  expires_at: string;
}

/** The parts of an entry of `webseed_funnel_sessions` that are looked at. */
export interface Entry {
  id: string;
  status: string;
  currentStep: string;
  [field: string]: unknown;
}

/** The legacy shop with what it needs. */
export interface Services {
  postgres: Postgres;
  gateway: Service;
  shop: Service;
}

/** Tests of the legacy shop: one set of services for each worker. */
export const test = base.extend<{}, { services: Services }>({
  services: [
    async ({}, use) => {
      await buildShop(legacyShop);
      const running: { stop(): Promise<void> }[] = [];
      const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
      try {
        const [postgres, gateway] = [kept(await startPostgres()), kept(await startGateway())];
        const env = { DATABASE_URL: postgres.url(shopDatabase), GATEWAY_URL: gateway.url, SESSION_SECRET: secret, COUNT_QUERIES: '1' };
        const shop = kept(await startShop(legacyShop, env));
        await use({ postgres, gateway, shop });
      } finally {
        for (const service of running) await service.stop();
      }
    },
    { scope: 'worker', timeout: 300_000 },
  ],
});

/** The row of a session, if there is one. */
export async function row({ postgres }: Services, id: string): Promise<Row | undefined> {
  const [found] = await postgres.rows<Row>(shopDatabase, `SELECT * FROM funnel_sessions WHERE id = '${id}'`);
  return found;
}

/** The sessions in the page's localStorage. */
export async function entries(page: Page): Promise<Entry[]> {
  const text = await page.evaluate(() => localStorage.getItem('webseed_funnel_sessions'));
  return Object.values(JSON.parse(text ?? '{}') as Record<string, Entry>);
}

/** The only one of them. */
export async function onlyEntry(page: Page): Promise<Entry> {
  const all = await entries(page);
  expect(all).toHaveLength(1);
  return all[0]!;
}

/** The page's sessionStorage. */
export const kept = (page: Page) => page.evaluate(() => ({ ...sessionStorage }) as Record<string, string>);

/** Fills in the checkout, and sends it. */
export async function fillIn(page: Page, { card }: { card: string }): Promise<void> {
  await page.getByLabel('3 bottles').check();
  await page.getByLabel('Quantity').selectOption('2');
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('Last name').fill('Lovelace');
  await page.getByLabel('Street and number').fill('1 Example Street');
  await page.getByLabel('City').fill('San Francisco');
  await page.getByLabel('State').selectOption('CA');
  await page.getByLabel('ZIP code').fill('94001');
  await page.getByLabel('Coupon').fill('save10');
  await page.getByLabel('Card number').fill(card);
  await page.getByRole('button', { name: 'Complete my order' }).click();
}

/** Pays, and is at the first offer. */
export async function checkOut(page: Page, { shop }: Services): Promise<string> {
  await page.goto(shop.url);
  await expect(page).toHaveURL(`${shop.url}/checkout`);
  await fillIn(page, { card: workingCard });
  await expect(page).toHaveURL(`${shop.url}/upsell-1`);
  await expect(page.getByRole('heading', { name: 'RelaxCalm, 6 bottles' })).toBeVisible();
  return (await onlyEntry(page)).id;
}

/** What a route answered. */
export interface Answer {
  status: number;
  counts: string | null;
  body: unknown;
}

/** A request as the shop's pages send it, with the page's cookies. */
export async function send(page: Page, method: string, path: string, body?: unknown): Promise<Answer> {
  return page.evaluate(
    async ({ method, path, body }) => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
      return { status: response.status, counts: response.headers.get('x-counts'), body: (await response.json()) as unknown };
    },
    { method, path, body },
  );
}

/** What `POST /api/upsell/process` takes. */
export const upsell = (sessionId: string, productCode: string, amount: number) => ({ sessionId, productCode, amount, bottles: 6, step: 1 });

/** What is bought. */
export const products = [{ id: 'fitspresso-3-pack', name: 'Fitspresso 3 Bottle Pack', price: 177, quantity: 2 }];

/** What `POST /api/checkout/process` takes. */
export const order = (sessionId: string, paymentToken = 'tok_1_0123456789abcdef') => ({
  sessionId,
  email: 'ada@example.com',
  customerInfo: { firstName: 'Ada', lastName: 'Lovelace', state: 'TX' },
  products,
  paymentToken,
});
