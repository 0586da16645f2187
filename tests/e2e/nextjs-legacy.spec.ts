import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { AxeBuilder } from '@axe-core/playwright';
import { expect, type Page } from '@playwright/test';

import {
  checkOut,
  declinedCard,
  entries,
  fillIn,
  kept,
  onlyEntry,
  order,
  products,
  row,
  send,
  test,
  upsell,
  workingCard,
} from './legacy-buyer.js';
import { chargesOf, heldBy, legacyShop, shopDatabase, startShop, tell } from './nextjs-shops.js';

// One set of services for all of them.
test.describe.configure({ mode: 'default' });

async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual([]);
}

test('a buyer pays, takes the first offer, leaves the second, and all systems have their own idea of it', async ({ page, services }) => {
  const { shop, gateway } = services;
  const id = await checkOut(page, services);
  const [main] = await chargesOf(gateway, id);
  expect(main).toMatchObject({ amount: 379.66, source: 'token', status: 'approved' });
  const customer = {
    firstName: 'Ada',
    lastName: 'Lovelace',
    address: '1 Example Street',
    city: 'San Francisco',
    state: 'CA',
    zipCode: '94001',
    country: 'US',
  };

  expect(await row(services, id)).toMatchObject({
    status: 'completed',
    current_step: 'completed',
    amount: 354,
    products,
    customer_info: customer,
    vault_id: main!.vaultId,
    transaction_id: main!.transactionId,
    payment_token: expect.stringMatching(/^tok_[0-9a-f]{16}$/),
    coupon_code: 'SAVE10',
    metadata: { subtotal: 354, tax: 25.66, taxRate: 0.0725, shipping: 0, totalAmount: 379.66, taxState: 'CA' },
  });

  const [cookie] = await page.context().cookies();
  expect(cookie).toMatchObject({ name: 'upsell_session', httpOnly: true, secure: true, sameSite: 'Lax', path: '/' });
  expect(Math.abs(cookie!.expires - Date.now() / 1000 - 1800)).toBeLessThan(60);
  const [header, claims] = cookie!.value.split('.').map((part) => Buffer.from(part, 'base64url').toString());
  expect(JSON.parse(header!)).toEqual({ alg: 'HS256' });
  expect(JSON.parse(claims!)).toEqual({
    id,
    vaultId: main!.vaultId,
    customerId: expect.stringMatching(/^CUST-\d+$/),
    email: 'ada@example.com',
    firstName: 'Ada',
    lastName: 'Lovelace',
    transactionId: main!.transactionId,
    state: 'CA',
    createdAt: expect.any(Number),
    expiresAt: expect.any(Number),
    iat: expect.any(Number),
    exp: expect.any(Number),
  });

  await page.getByRole('button', { name: 'Add RelaxCalm, 12 bottles for $296.00' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/success`);
  await expect(page.getByRole('heading', { name: 'Thank you for your order' })).toBeVisible();
  await expect(page.getByRole('status').filter({ hasText: 'completed' })).toBeVisible();
  await expect(page.getByRole('row', { name: 'Total' })).toContainText('$697.12');

  const charges = await chargesOf(gateway, id);
  expect(charges).toHaveLength(2);
  expect(charges[1]).toMatchObject({ amount: 296 + 21.46, source: 'vault', vaultId: main!.vaultId });
  const upsells = [{ step: 1, productCode: 'RC12', amount: 296, bottles: 12, transactionId: charges[1]!.transactionId }];
  const paid = await row(services, id);
  // What was declined is in the browser only.
  expect(paid).toMatchObject({ status: 'completed', current_step: 'success', upsells_accepted: ['RC12'], upsells_declined: [] });
  expect(paid).toMatchObject({ metadata: { upsells, totalAmount: 379.66 } });
  expect(Date.parse(paid!.expires_at) - Date.parse(paid!.created_at)).toBe(24 * 60 * 60 * 1000);
  expect(await onlyEntry(page)).toMatchObject({
    id,
    email: 'ada@example.com',
    customerInfo: customer,
    products,
    vaultId: main!.vaultId,
    transactionId: main!.transactionId,
    status: 'completed',
    amount: 354,
    currentStep: 'success',
    upsellsAccepted: ['RC12'],
    upsellsDeclined: ['SG6'],
    upsells,
    couponCode: 'SAVE10',
    orderId: expect.stringMatching(/^ORDER-\d+$/),
  });
  const stored = await kept(page);
  expect(Object.keys(stored).sort()).toEqual(expect.arrayContaining(['checkout_session', 'main_transaction', 'transaction_result']));
  expect(JSON.parse(stored['transaction_result']!)).toMatchObject({ success: true, sessionId: id });
});

test('a card that is declined leads back to the checkout, and the next try is another session', async ({ page, services }) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, { card: declinedCard });
  await expect(page.locator('main').getByRole('alert')).toHaveText('Do Not Honor REFID:1179462');
  const failed = await onlyEntry(page);
  expect(failed).toMatchObject({ status: 'failed', currentStep: 'checkout' });
  expect(await chargesOf(gateway, failed.id)).toMatchObject([{ status: 'declined' }]);
  const { metadata, ...rest } = (await row(services, failed.id))!;
  expect(rest).toMatchObject({ status: 'failed', current_step: 'failed', payment_token: 'tok_declined', transaction_id: null });
  expect(metadata).toEqual({ error: 'Do Not Honor REFID:1179462', failed_at: expect.any(String) });

  await page.getByRole('link', { name: 'Back to checkout' }).click();
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
  await page.getByLabel('Card number').fill(workingCard);
  await page.getByRole('button', { name: 'Complete my order' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-1`);
  const all = await entries(page);
  expect(all.map(({ status }) => status)).toEqual(['failed', 'processing']);
  expect(await row(services, all[1]!.id)).toMatchObject({ status: 'completed' });
});

test('an upsell is charged as often and as cheaply as it is asked for, from whichever system knows the buyer', async ({ page, services }) => {
  const { postgres, gateway } = services;
  const id = await checkOut(page, services);
  const [main] = await chargesOf(gateway, id);

  const first = await send(page, 'POST', '/api/upsell/process', upsell(id, 'RC6', 1));
  expect(first).toMatchObject({ status: 200, counts: 'queries=2, cookie-reads=0', body: { status: 'ok', amount: 1 } });
  await send(page, 'POST', '/api/upsell/process', upsell(id, 'RC6', 1));
  expect(await row(services, id)).toMatchObject({ upsells_accepted: ['RC6', 'RC6'] });

  // The row is gone: the cookie knows the card, and without it the memory of the process does.
  await postgres.execute(shopDatabase, `DELETE FROM funnel_sessions WHERE id = '${id}'`);
  const before = (await page.context().cookies())[0]!.value;
  const byCookie = await send(page, 'POST', '/api/upsell/process', upsell(id, 'SG6', 149));
  expect(byCookie).toMatchObject({ status: 200, counts: 'queries=1, cookie-reads=1' });
  const after = (await page.context().cookies())[0]!.value;
  expect(after, 'it was written anew').not.toBe(before);
  await page.context().clearCookies();
  const byMemory = await send(page, 'POST', '/api/upsell/process', upsell(id, 'SG6', 149));
  expect(byMemory).toMatchObject({ status: 200, counts: 'queries=1, cookie-reads=1' });

  const charges = (await chargesOf(gateway, id)).slice(1);
  expect(charges.map(({ amount }) => amount)).toEqual([1.07, 1.07, 159.8, 159.8]);
  expect(new Set(charges.map(({ vaultId }) => vaultId))).toEqual(new Set([main!.vaultId]));
  expect((await send(page, 'GET', `/api/session/${id}`)).status).toBe(404);
});

test('the four routes answer as their teams agreed on nothing, and say what they cost', async ({ page, services }) => {
  await page.goto(services.shop.url);
  const created = await send(page, 'POST', '/api/session/create', { email: 'ada@example.com', products });
  expect(created).toMatchObject({ status: 200, counts: 'queries=1, cookie-reads=0' });
  const { sessionId } = created.body as { sessionId: string };
  expect(sessionId).toMatch(/^ws_[0-9a-z]+_[0-9a-z]+$/);
  const read = await send(page, 'GET', `/api/session/${sessionId}`);
  expect(read).toMatchObject({ status: 200, counts: 'queries=1, cookie-reads=0', body: { session: { status: 'pending', amount: 354 } } });

  const paid = await send(page, 'POST', '/api/checkout/process', order('ws_t_counted'));
  expect(paid).toMatchObject({ status: 200, counts: 'queries=4, cookie-reads=0', body: { amount: 376.13, tax: 22.13 } });

  expect((await send(page, 'POST', '/api/session/create', {})).body).toEqual({ error: 'Email is required' });
  const missing = await send(page, 'GET', '/api/session/ws_t_none');
  expect(missing.body).toEqual({ success: false, message: 'Session not found or expired' });
  const declined = await send(page, 'POST', '/api/checkout/process', order('ws_t_declined', 'tok_declined'));
  expect(declined).toMatchObject({ status: 402, body: { success: false, error: { code: 'PAYMENT_DECLINED' } } });
  expect((await send(page, 'POST', '/api/upsell/process', {})).body).toEqual({ status: 'error', errors: ['Missing required fields'] });
  expect(services.shop.log).toContain('ada@example.com');
});

test('a gateway that fails charges nothing; one whose answer is lost has charged, and the session stays in processing', async ({ page, services }) => {
  const { shop, gateway } = services;
  await page.goto(shop.url);

  await tell(gateway, 'fail-next');
  const failed = await send(page, 'POST', '/api/checkout/process', order('ws_t_failed'));
  expect(failed).toMatchObject({ status: 500, body: { error: { code: 'INTERNAL_ERROR' } } });
  expect(await chargesOf(gateway, 'ws_t_failed')).toEqual([]);

  await tell(gateway, 'after-charge', { action: 'drop' });
  expect(await send(page, 'POST', '/api/checkout/process', order('ws_t_dropped'))).toMatchObject({ status: 500 });
  expect(await chargesOf(gateway, 'ws_t_dropped')).toMatchObject([{ amount: 376.13, status: 'approved' }]);
  expect(await row(services, 'ws_t_dropped')).toMatchObject({ status: 'processing', current_step: 'processing', transaction_id: null });
});

test('the gateway charges once for each idempotency key, which this shop never sends', async ({ services }) => {
  const { gateway } = services;
  const charge = async () => {
    const headers = { 'idempotency-key': 'key-1' };
    const body = JSON.stringify({ token: 'tok_1_0123456789abcdef', amount: 10, orderId: 'ws_t_key' });
    return fetch(`${gateway.url}/charges`, { method: 'POST', headers, body });
  };
  await tell(gateway, 'after-charge', { action: 'drop' });
  await expect(charge()).rejects.toThrow();
  expect(await (await charge()).json()).toMatchObject({ amount: 10, status: 'approved' });
  expect(await chargesOf(gateway, 'ws_t_key')).toHaveLength(1);
});

test('of two upsells at one time both are charged, and one is lost', async ({ page, services }) => {
  const { gateway } = services;
  const id = await checkOut(page, services);
  await tell(gateway, 'hold');
  const answers = Promise.all(['RC6', 'SG6'].map((code) => send(page, 'POST', '/api/upsell/process', upsell(id, code, 100))));
  await expect.poll(() => heldBy(gateway)).toBe(2);
  await tell(gateway, 'release');
  expect(await answers).toMatchObject([{ status: 200 }, { status: 200 }]);
  expect(await chargesOf(gateway, id)).toHaveLength(3);
  expect((await row(services, id))!.upsells_accepted).toHaveLength(1);
});

test('where the database is away after the payment, the buyer is told that all is well', async ({ page, services }) => {
  const { shop, gateway, postgres } = services;
  await page.goto(shop.url);
  await tell(gateway, 'hold');
  const answer = send(page, 'POST', '/api/checkout/process', order('ws_t_away'));
  await expect.poll(() => heldBy(gateway)).toBe(1);
  await postgres.execute(shopDatabase, 'ALTER TABLE funnel_sessions RENAME TO away');
  try {
    await tell(gateway, 'release');
    expect(await answer).toMatchObject({ status: 200, body: { success: true } });
  } finally {
    await postgres.execute(shopDatabase, 'ALTER TABLE away RENAME TO funnel_sessions');
  }
  expect(await chargesOf(gateway, 'ws_t_away')).toMatchObject([{ status: 'approved' }]);
  expect(await row(services, 'ws_t_away')).toMatchObject({ status: 'processing', transaction_id: null, vault_id: null });
});

test('what was declined can be accepted later on, by going back, and is charged', async ({ page, services }) => {
  const { shop, gateway } = services;
  const id = await checkOut(page, services);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await onlyEntry(page)).toMatchObject({ upsellsAccepted: [], upsellsDeclined: ['RC6', 'RC12'] });
  await page.goBack();
  await page.getByRole('button', { name: 'Add RelaxCalm, 6 bottles for $199.00' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await onlyEntry(page)).toMatchObject({ upsellsAccepted: ['RC6'], upsellsDeclined: ['RC12'] });
  expect(await chargesOf(gateway, id)).toHaveLength(2);
});

test('two tabs overwrite each other’s sessions', async ({ page, context, services }) => {
  const { shop } = services;
  const other = await context.newPage();
  for (const tab of [page, other]) {
    await tab.goto(`${shop.url}/checkout`);
    await expect(tab.getByLabel('Email')).toBeEnabled();
  }
  const begin = async (tab: Page, email: string) => {
    await tab.getByLabel('Email').fill(email);
    await tab.getByLabel('Email').blur();
  };
  const shown = () => expect.poll(async () => (await entries(page)).map(({ email }) => email));
  await begin(page, 'one@example.com');
  await shown().toEqual(['one@example.com']);
  await begin(other, 'other@example.com');
  await shown().toEqual(['other@example.com']);
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('First name').blur();
  await shown().toEqual(['one@example.com']);
});

test('a localStorage that is corrupt or full loses what was in it, and the page says nothing', async ({ page, services }) => {
  const { shop } = services;
  await page.goto(`${shop.url}/api/session/ws_t_none`);
  await page.evaluate(() => localStorage.setItem('webseed_funnel_sessions', '{"ws_1":'));
  await page.goto(`${shop.url}/checkout`);
  await expect.poll(() => page.evaluate(() => localStorage.getItem('webseed_funnel_sessions'))).toBeNull();

  await page.evaluate(() => {
    for (let length = 4 * 1024 * 1024; length >= 1; length = Math.floor(length / 2)) {
      try {
        for (let part = 0; ; part += 1) localStorage.setItem(`filler-${length}-${part}`, 'x'.repeat(length));
      } catch {
        // A smaller piece may fit still.
      }
    }
  });
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('Email').blur();
  await expect.poll(() => kept(page)).toHaveProperty('checkout_session');
  expect(await entries(page)).toEqual([]);
  await expect(page.locator('main').getByRole('alert')).toHaveCount(0);
});

test('without a secret of its own, the shop believes cookies that anybody can sign', async ({ page, services }) => {
  const { postgres, gateway } = services;
  const id = await checkOut(page, services);
  const [main] = await chargesOf(gateway, id);
  const env = { DATABASE_URL: postgres.url(shopDatabase), GATEWAY_URL: gateway.url, SESSION_SECRET: '' };
  const shop = await startShop(legacyShop, env);
  try {
    const claims = { id: 'ws_t_forged', vaultId: main!.vaultId, email: '', expiresAt: Date.now() + 60_000, exp: Math.floor(Date.now() / 1000) + 60 };
    const signed = [{ alg: 'HS256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    const signature = createHmac('sha256', 'your-secret-key-change-in-production').update(signed).digest('base64url');
    const answer = await fetch(`${shop.url}/api/upsell/process`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', cookie: `upsell_session=${signed}.${signature}` },
      body: JSON.stringify(upsell('ws_t_forged', 'RC6', 199)),
    });
    expect(await answer.json()).toMatchObject({ status: 'ok' });
    expect(await chargesOf(gateway, 'ws_t_forged')).toMatchObject([{ vaultId: main!.vaultId, status: 'approved' }]);
  } finally {
    await shop.stop();
  }
});

test('its pages are accessible', async ({ page, services }) => {
  const { shop } = services;
  await page.goto(`${shop.url}/checkout`);
  await page.getByLabel('My billing address is a different one').check();
  await expectAccessible(page);
  await checkOut(page, services);
  await expectAccessible(page);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page.getByRole('heading', { name: 'Thank you for your order' })).toBeVisible();
  await expectAccessible(page);
});

test('a late read turns a paid session to expired', async ({ page, services }) => {
  const { postgres } = services;
  const id = await checkOut(page, services);
  await postgres.execute(shopDatabase, `UPDATE funnel_sessions SET expires_at = now() - interval '1 minute' WHERE id = '${id}'`);
  expect(await send(page, 'GET', `/api/session/${id}`)).toMatchObject({ status: 404, counts: 'queries=2, cookie-reads=0' });
  expect(await row(services, id)).toMatchObject({ status: 'expired', current_step: 'completed' });
});

test('the README says where each of the 23 defects is', async () => {
  const readme = await readFile(join(legacyShop, 'README.md'), 'utf8');
  const rows = [...readme.matchAll(/^\| (\d+) \|(.*)\|$/gm)];
  expect(rows.map(([, number]) => Number(number))).toEqual(Array.from({ length: 23 }, (_, index) => index + 1));
  const places = [...readme.matchAll(/\[`([^`]+)`\]\(([^)#]+)#L(\d+)(?:-L(\d+))?\)/g)];
  expect(places.length).toBeGreaterThanOrEqual(23);
  for (const [text, name, file, first, last] of places) {
    const lines = (await readFile(join(legacyShop, decodeURIComponent(file!)), 'utf8')).split('\n').slice(Number(first) - 1, Number(last ?? first));
    expect(lines.join('\n'), text).toContain(name!);
  }
  for (const [row] of rows) expect(row).toMatch(/#L\d+/);
});
