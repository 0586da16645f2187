import { expect, type Page } from '@playwright/test';

import { workingCard } from './legacy-buyer.js';
import { buildShop, type Service, startGateway, startShop, unifiedShop } from './nextjs-shops.js';
import { freePort } from './ports.js';
import { ThroughlineServer } from './server.js';

export const paymentRoute = '/api/checkout/process';
export const upsellRoute = '/api/upsell/process';

/** The shop on Throughline with what it needs. */
export interface UnifiedServices {
  server: ThroughlineServer;
  gateway: Service;
  shop: Service;
}

/** A worker's set of services: they run until `use` is over. */
export async function withUnifiedServices({}: object, use: (services: UnifiedServices) => Promise<void>): Promise<void> {
  await buildShop(unifiedShop);
  const running: { stop(): Promise<void> }[] = [];
  const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
  try {
    const port = await freePort();
    const server = kept(await ThroughlineServer.start({ allowedOrigins: [`http://127.0.0.1:${port}`] }));
    const gateway = kept(await startGateway());
    const env = { THROUGHLINE_URL: server.url, THROUGHLINE_SERVICE_KEY: server.serviceKey, GATEWAY_URL: gateway.url };
    const shop = kept(await startShop(unifiedShop, env, port));
    await use({ server, gateway, shop });
  } finally {
    for (const service of running) await service.stop();
  }
}

/** Fills in everything, and leaves the last button to the caller. */
export async function fillIn(page: Page, card: string): Promise<void> {
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
}

export const order = (page: Page) => page.getByRole('button', { name: 'Complete my order' }).click();

/** Presses the button, and says which session the payment route is asked about. */
export async function pay(page: Page): Promise<string> {
  const asked = page.waitForRequest((request) => request.url().endsWith(paymentRoute));
  await order(page);
  return ((await asked).postDataJSON() as { sessionId: string }).sessionId;
}

export const expectFirstOffer = (page: Page) => expect(page.getByRole('heading', { name: 'RelaxCalm, 6 bottles' })).toBeVisible();

/** Pays, and is at the first offer. */
export async function checkOut(page: Page, { shop }: UnifiedServices): Promise<string> {
  await page.goto(shop.url);
  await expect(page).toHaveURL(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  const id = await pay(page);
  await expectFirstOffer(page);
  await expect(page).toHaveURL(`${shop.url}/upsell-1`);
  return id;
}
