import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { AxeBuilder } from '@axe-core/playwright';
import { expect, test as base, type Page } from '@playwright/test';

import { declinedCard, workingCard } from './legacy-buyer.js';
import { chargesOf, heldBy, legacyShop, tell, unifiedShop } from './nextjs-shops.js';
import { checkOut, expectFirstOffer, fillIn, order, pay, paymentRoute, type UnifiedServices, upsellRoute, withUnifiedServices } from './unified-buyer.js';

/** The parts of a session that are looked at. */
interface Session {
  status: string;
  currentStep: string;
  email: string;
  customer: unknown;
  products: unknown;
  totals: Record<string, number>;
  transactionId: string | null;
  vaultId: string | null;
  paymentToken: string | null;
  upsells: { offer: string; state: string; transactionId: string | null }[];
  payment: { attempts: number; amount: number | null };
  metadata: Record<string, unknown>;
}

const test = base.extend<{}, { services: UnifiedServices }>({
  services: [withUnifiedServices, { scope: 'worker', timeout: 300_000 }],
});

// One set of services for all of them.
test.describe.configure({ mode: 'default' });

async function sessionOf({ server }: UnifiedServices, id: string): Promise<Session> {
  const answer = await server.request(`/v1/sessions/${id}`);
  expect(answer.status).toBe(200);
  return (await answer.json()) as Session;
}

async function offersOf(services: UnifiedServices, id: string): Promise<Record<string, string>> {
  const { upsells } = await sessionOf(services, id);
  return Object.fromEntries(upsells.map(({ offer, state }) => [offer, state]));
}

/** A request as the shop's pages send it. */
async function send(page: Page, path: string, body: unknown): Promise<{ status: number; body: unknown }> {
  return page.evaluate(
    async ({ path, body }) => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
      return { status: response.status, body: (await response.json()) as unknown };
    },
    { path, body },
  );
}

async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual([]);
}

test('a buyer pays, takes the first offer, leaves the second, and there is one idea of it', async ({ page, services }) => {
  const { shop, gateway } = services;
  const id = await checkOut(page, services);
  const [main] = await chargesOf(gateway, id);
  // 10 % off $354.00, and 7.25 % of what is left.
  expect(main).toMatchObject({ amount: 341.7, source: 'token', status: 'approved' });
  const shipping = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001', country: 'US' };
  expect(await sessionOf(services, id)).toMatchObject({
    status: 'processing',
    currentStep: 'upsell-1',
    email: 'ada@example.com',
    customer: { firstName: 'Ada', lastName: 'Lovelace', shipping },
    products: [{ id: 'fitspresso-3-pack', price: 17700, quantity: 2 }],
    totals: { subtotal: 35400, discount: 3540, tax: 2310, total: 34170 },
    transactionId: main!.transactionId,
    vaultId: main!.vaultId,
    paymentToken: expect.stringMatching(/^tok_[0-9a-f]{16}$/),
    metadata: { userAgent: expect.stringContaining('Chrome') },
  });

  await page.getByRole('button', { name: 'Add RelaxCalm, 12 bottles for $296.00' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/success`);
  await expect(page.getByRole('heading', { name: 'Thank you for your order' })).toBeVisible();
  await expect(page.getByRole('status').filter({ hasText: 'completed' })).toBeVisible();
  await expect(page.getByRole('row', { name: 'Total' })).toContainText('$659.16');

  const charges = await chargesOf(gateway, id);
  expect(charges).toHaveLength(2);
  expect(charges[1]).toMatchObject({ amount: 317.46, source: 'vault', vaultId: main!.vaultId });
  await expect.poll(async () => (await sessionOf(services, id)).status).toBe('completed');
  expect(await offersOf(services, id)).toEqual({ RC6: 'lapsed', RC12: 'charged', SG6: 'declined' });
});

test('neither the browser nor the log has the buyer’s data in the clear', async ({ page, services }) => {
  await checkOut(page, services);
  expect(await page.context().cookies()).toEqual([]);
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
  for (const text of [stored, services.shop.log]) expect(text).not.toMatch(/ada@example|Lovelace|Example Street/);
});

test('a card that is declined leads back to the checkout, and the next try is the same session', async ({ page, services }) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, declinedCard);
  const id = await pay(page);
  const told = 'Your payment did not go through: Do Not Honor REFID:1179462';
  await expect(page.locator('main').getByRole('alert')).toHaveText(told);
  await expect(page).toHaveURL(`${shop.url}/checkout`);
  expect(await sessionOf(services, id)).toMatchObject({ status: 'failed', currentStep: 'checkout', totals: { tax: 2310 } });

  await page.reload();
  await expect(page.locator('main').getByRole('alert')).toHaveText(told);
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
  await page.getByLabel('Card number').fill(workingCard);
  expect(await pay(page)).toBe(id);
  await expectFirstOffer(page);
  expect(await chargesOf(gateway, id)).toMatchObject([{ status: 'declined' }, { status: 'approved', amount: 341.7 }]);
});

test('a charge whose answer is lost is made once, although the buyer tries again; so is one that the gateway was out of order for', async ({
  page,
  services,
}) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  await tell(gateway, 'after-charge', { action: 'drop' });
  const id = await pay(page);
  await expect(page.locator('main').getByRole('alert')).toContainText('You are charged once');
  expect(await chargesOf(gateway, id)).toHaveLength(1);
  expect(await sessionOf(services, id)).toMatchObject({ status: 'processing', transactionId: null });
  await page.getByRole('button', { name: 'Try again' }).click();
  await expectFirstOffer(page);
  const [main, ...more] = await chargesOf(gateway, id);
  expect(more).toEqual([]);
  expect(await sessionOf(services, id)).toMatchObject({ transactionId: main!.transactionId, vaultId: main!.vaultId });

  await tell(gateway, 'fail-next');
  await page.getByRole('button', { name: 'Add RelaxCalm, 6 bottles for $199.00' }).click();
  await expect(page.locator('main').getByRole('alert')).toContainText('You are charged once');
  expect(await chargesOf(gateway, id)).toHaveLength(1);
  await tell(gateway, 'after-charge', { action: 'drop' });
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect.poll(() => chargesOf(gateway, id)).toHaveLength(2);
  await expect(page.locator('main').getByRole('alert')).toContainText('You are charged once');
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await chargesOf(gateway, id)).toHaveLength(2);
});

test('a buyer who reloads while paying, and looks in another tab, is charged once and sees the same in both', async ({
  page,
  context,
  services,
}) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  await tell(gateway, 'hold');
  const other = await context.newPage();
  try {
    const id = await pay(page);
    await expect.poll(() => heldBy(gateway)).toBe(1);
    // The page asks again, without the card's token, which the route has by now.
    await page.reload();
    await expect.poll(() => heldBy(gateway)).toBeGreaterThanOrEqual(2);
    await other.goto(shop.url);
    await expect(other).toHaveURL(`${shop.url}/processing`);
    await expect.poll(() => heldBy(gateway)).toBeGreaterThanOrEqual(3);
    for (const tab of [page, other]) await expect(tab.getByRole('heading', { name: 'Processing your payment' })).toBeVisible();
    await tell(gateway, 'release');
    for (const tab of [page, other]) await expect(tab).toHaveURL(`${shop.url}/upsell-1`);
    expect(await chargesOf(gateway, id)).toHaveLength(1);

    await other.getByRole('button', { name: 'No, thank you' }).click();
    for (const tab of [page, other]) await expect(tab).toHaveURL(`${shop.url}/upsell-2`);
  } finally {
    await tell(gateway, 'release');
  }
});

test('a page that lost the card’s token before the shop had it asks for the card, and charges once', async ({ page, services }) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  await page.route(`**${paymentRoute}`, (route) => route.abort());
  const id = await pay(page);
  await expect(page.locator('main').getByRole('alert')).toContainText('There is no answer yet');
  await page.unroute(`**${paymentRoute}`);
  await page.reload();
  await expect(page.locator('main').getByRole('alert')).toHaveText('Please enter your card once more. You are charged once.');
  await expectAccessible(page);
  await page.getByLabel('Card number').fill(workingCard);
  await page.getByRole('button', { name: 'Pay' }).click();
  await expectFirstOffer(page);
  expect(await chargesOf(gateway, id)).toHaveLength(1);
});

test('a buyer who is offline while paying and taking an offer is charged once for each when back', async ({ page, context, services }) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  const asked = page.waitForRequest((request) => request.url().endsWith(paymentRoute));
  await context.setOffline(true);
  await order(page);
  await expect(page.getByRole('status')).toContainText('You are offline');
  await expect(page).toHaveURL(`${shop.url}/processing`);
  await context.setOffline(false);
  const { sessionId: id } = (await asked).postDataJSON() as { sessionId: string };
  await expectFirstOffer(page);
  expect(await chargesOf(gateway, id)).toHaveLength(1);

  await context.setOffline(true);
  await page.getByRole('button', { name: 'Add RelaxCalm, 6 bottles for $199.00' }).click();
  await expect(page.getByRole('status')).toContainText('You are offline');
  expect(await offersOf(services, id)).toEqual({ RC6: 'offered', RC12: 'offered' });
  await context.setOffline(false);
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await chargesOf(gateway, id)).toHaveLength(2);
});

test('a payment and an offer that are posted twice at one time are charged once', async ({ page, services }) => {
  const { shop, gateway } = services;
  const id = await checkOut(page, services);
  const again = await send(page, paymentRoute, { sessionId: id, paymentToken: 'tok_1_0123456789abcdef' });
  expect(again).toEqual({ status: 200, body: { status: 'paid' } });

  // The page itself is kept from asking: it hears of what became of it from the session.
  await page.route(`**${upsellRoute}`, (route) => route.abort());
  await page.getByRole('button', { name: 'Add RelaxCalm, 6 bottles for $199.00' }).click();
  await expect.poll(() => offersOf(services, id)).toMatchObject({ RC6: 'accepted' });
  const ask = async () => (await page.request.post(`${shop.url}${upsellRoute}`, { data: { sessionId: id, offer: 'RC6' } })).json();
  await tell(gateway, 'hold');
  try {
    const answers = Promise.all([ask(), ask()]);
    await expect.poll(() => heldBy(gateway)).toBe(2);
    await tell(gateway, 'release');
    expect(await answers).toEqual([{ status: 'charged' }, { status: 'charged' }]);
  } finally {
    await tell(gateway, 'release');
  }
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await ask()).toEqual({ status: 'charged' });
  expect(await chargesOf(gateway, id)).toMatchObject([{ source: 'token' }, { source: 'vault', amount: 199 + 14.43 }]);
});

test('prices that the browser names change nothing', async ({ page, services }) => {
  const { shop, gateway } = services;
  const cheap = { amount: 1, price: 1, tax: 0, products: [{ id: 'fitspresso-3-pack', price: 1, quantity: 1 }] };
  for (const path of [paymentRoute, upsellRoute]) {
    await page.route(`**${path}`, (route) => route.continue({ postData: { ...(route.request().postDataJSON() as object), ...cheap } }));
  }
  const id = await checkOut(page, services);
  await page.getByRole('button', { name: 'Add RelaxCalm, 6 bottles for $199.00' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  expect(await chargesOf(gateway, id)).toMatchObject([{ amount: 341.7 }, { amount: 199 + 14.43 }]);
});

test('what was declined stays declined: by going back, by the route, and by a command', async ({ page, services }) => {
  const { shop, server, gateway } = services;
  const id = await checkOut(page, services);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await page.goBack();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await expect(page.getByRole('heading', { name: 'SleepGuard, 6 bottles' })).toBeVisible();
  await page.goto(`${shop.url}/upsell-1`);
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await expect(page.getByRole('heading', { name: 'SleepGuard, 6 bottles' })).toBeVisible();

  const refused = { status: 409, body: { code: 'offerNotAccepted' } };
  expect(await send(page, upsellRoute, { sessionId: id, offer: 'RC6' }), 'declined').toMatchObject(refused);
  expect(await send(page, upsellRoute, { sessionId: id, offer: 'SG6' }), 'not answered').toMatchObject(refused);
  const body = JSON.stringify({ commands: [{ type: 'acceptUpsell', offer: 'RC6' }] });
  const answer = await server.request(`/v1/sessions/${id}/commands`, { method: 'POST', body });
  expect(await answer.json()).toMatchObject({ results: [{ outcome: 'rejected', reason: { code: 'offerDeclined' } }] });
  expect(await offersOf(services, id)).toEqual({ RC6: 'declined', RC12: 'declined', SG6: 'offered' });
  expect(await chargesOf(gateway, id)).toHaveLength(1);
});

test('a payment that was not begun is not taken, whoever knows the id', async ({ page, services }) => {
  const { shop, server } = services;
  await page.goto(shop.url);
  const created = await server.request('/v1/sessions', { method: 'POST', body: JSON.stringify({ email: 'ada@example.com' }) });
  const { session } = (await created.json()) as { session: { id: string } };
  const asked = { sessionId: session.id, paymentToken: 'tok_1_0123456789abcdef' };
  expect(await send(page, paymentRoute, asked)).toMatchObject({ status: 409, body: { code: 'paymentNotBegun' } });
  expect(await send(page, paymentRoute, { sessionId: 'ws_none_0' })).toMatchObject({ status: 404, body: { code: 'sessionNotFound' } });
  expect(await send(page, upsellRoute, { sessionId: 'ws_none_0', offer: 'RC6' })).toMatchObject({ status: 409 });
  expect(await chargesOf(services.gateway, session.id)).toEqual([]);
  expect((await page.request.get(`${shop.url}/api/session/${session.id}`)).status(), 'nobody reads a session by its id').toBe(404);
});

test('each page is there again after a reload, and a new order begins when the buyer says so', async ({ page, services }) => {
  const { shop } = services;
  await page.goto(`${shop.url}/checkout`);
  await page.getByLabel('Quantity').selectOption('2');
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('My billing address is a different one').check();
  // Still in the field when the page goes.
  await page.getByLabel('Billing city').fill('Oakland');
  await page.reload();
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
  await expect(page.getByLabel('Quantity')).toHaveValue('2');
  await page.getByLabel('My billing address is a different one').check();
  await expect(page.getByLabel('Billing city')).toHaveValue('Oakland');
  await page.getByLabel('My billing address is a different one').uncheck();

  const first = await checkOut(page, services);
  await page.reload();
  await expectFirstOffer(page);
  await expect(page).toHaveURL(`${shop.url}/upsell-1`);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page).toHaveURL(`${shop.url}/upsell-2`);
  await page.reload();
  await expect(page.getByRole('heading', { name: 'SleepGuard, 6 bottles' })).toBeVisible();
  await page.getByRole('button', { name: 'Add SleepGuard, 6 bottles for $149.00' }).click();
  await expect(page).toHaveURL(`${shop.url}/success`);
  await page.reload();
  await expect(page.getByRole('row', { name: 'SleepGuard, 6 bottles' })).toContainText('$149.00');
  await expect(page.getByText(`ORDER-${first.slice(-8).toUpperCase()}`)).toBeVisible();

  await page.getByRole('button', { name: 'Start a new order' }).click();
  await expect(page).toHaveURL(`${shop.url}/checkout`);
  await expect(page.getByLabel('Email')).toHaveValue('');
  await page.reload();
  await expect(page.getByLabel('Email')).toHaveValue('');
  expect(await checkOut(page, services)).not.toBe(first);
});

test('two tabs fill in one order', async ({ page, context, services }) => {
  const { shop } = services;
  const other = await context.newPage();
  await page.goto(`${shop.url}/checkout`);
  await expect(page.getByLabel('Email')).toBeVisible();
  await other.goto(`${shop.url}/checkout`);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('Email').blur();
  await other.getByLabel('First name').fill('Ada');
  await other.getByLabel('First name').blur();
  for (const tab of [page, other]) {
    await expect(tab.getByLabel('Email')).toHaveValue('ada@example.com');
    await expect(tab.getByLabel('First name')).toHaveValue('Ada');
  }
});

test('a coupon that there is not is told, and nothing is paid before it is mended', async ({ page, services }) => {
  await page.goto(services.shop.url);
  await fillIn(page, workingCard);
  await page.getByLabel('Coupon').fill('NONE');
  await order(page);
  await expect(page.locator('main').getByRole('alert')).toHaveText('this coupon is not known; check its spelling');
  await expect(page).toHaveURL(`${services.shop.url}/checkout`);
  await expect(page.getByLabel('Coupon')).toHaveValue('NONE');
  for (const key of ['ControlOrMeta+a', 'Delete']) await page.getByLabel('Coupon').press(key);
  await expect(page.locator('main').getByRole('alert')).toHaveCount(0);
  await pay(page);
  await expectFirstOffer(page);
});

test('where the server is away, the shop says so; where it dies after the charge, the payment is recorded when it is back', async ({
  page,
  services,
}) => {
  const { shop, server, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await fillIn(page, workingCard);
  await tell(gateway, 'hold');
  let id: string;
  try {
    id = await pay(page);
    await expect.poll(() => heldBy(gateway)).toBe(1);
    await server.kill9();
  } finally {
    await tell(gateway, 'release');
  }
  await expect.poll(() => chargesOf(gateway, id)).toHaveLength(1);
  const elsewhere = await page.context().browser()!.newContext();
  const visitor = await elsewhere.newPage();
  await visitor.goto(shop.url);
  await expect(visitor.getByRole('heading', { name: 'The shop can’t be reached just now' })).toBeVisible({ timeout: 30_000 });
  await expectAccessible(visitor);

  await server.restart();
  await visitor.getByRole('button', { name: 'Try again' }).click();
  await expect(visitor.getByRole('heading', { name: 'Checkout' })).toBeVisible();
  await elsewhere.close();
  await expectFirstOffer(page);
  const charges = await chargesOf(gateway, id);
  expect(charges).toHaveLength(1);
  expect(await sessionOf(services, id)).toMatchObject({ transactionId: charges[0]!.transactionId });
});

test('its pages are accessible', async ({ page, services }) => {
  const { shop, gateway } = services;
  await page.goto(`${shop.url}/checkout`);
  await page.getByLabel('My billing address is a different one').check();
  await expectAccessible(page);
  await page.getByLabel('My billing address is a different one').uncheck();
  await fillIn(page, workingCard);
  await tell(gateway, 'hold');
  try {
    await pay(page);
    await expect(page.getByRole('heading', { name: 'Processing your payment' })).toBeVisible();
    await expectAccessible(page);
  } finally {
    await tell(gateway, 'release');
  }
  await expectFirstOffer(page);
  await expectAccessible(page);
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page.getByRole('heading', { name: 'SleepGuard, 6 bottles' })).toBeVisible();
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page.getByRole('heading', { name: 'Thank you for your order' })).toBeVisible();
  await expectAccessible(page);
});

test('the README says how much less code it is', async () => {
  const linesOf = async (shop: string): Promise<number> => {
    const sources = ['schema.sql', ...(await readdir(join(shop, 'src'), { recursive: true })).map((path) => join('src', path))];
    const texts = sources.filter((path) => /\.(ts|tsx|sql)$/.test(path)).map((path) => readFile(join(shop, path), 'utf8').catch(() => ''));
    return (await Promise.all(texts)).flatMap((text) => text.split('\n')).filter((line) => line.trim() !== '').length;
  };
  const [before, after] = [await linesOf(legacyShop), await linesOf(unifiedShop)];
  const row = `| ${before.toLocaleString('en-US')} | ${after.toLocaleString('en-US')} |`;
  expect(await readFile(join(unifiedShop, 'README.md'), 'utf8')).toContain(row);
});
