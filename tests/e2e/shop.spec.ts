import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { fact } from './panel.js';
import { overwrite } from './sdk.js';

async function fillIn(page: Page): Promise<void> {
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('Last name').fill('Lovelace');
  await page.getByLabel('Street and number').fill('20 Example Street');
  await page.getByLabel('City').fill('Springfield');
  await page.getByLabel('State').selectOption('CA');
  await page.getByLabel('ZIP code').fill('94020');
}

const pay = (page: Page) => page.getByRole('button', { name: /^Pay / });
const pending = (page: Page) => fact(page, 'pending');

test('an order goes from the form over a declined card and an extra to its end', async ({
  page,
  server,
  shopAddress,
}) => {
  await page.goto(shopAddress);
  await fillIn(page);
  await page.getByLabel('Coupon').fill('save10');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(page.getByText('Coupon SAVE10 takes off $17.70')).toBeVisible();
  // 177.00 less 10 %, and 7.25 % tax.
  await expect(pay(page)).toHaveText('Pay $170.85');

  await page.getByRole('button', { name: 'Use a card that is declined' }).click();
  await pay(page).click();
  await expect(page.getByRole('alert').filter({ hasText: 'The bank declined this card.' })).toBeVisible();

  await page.getByRole('button', { name: 'Use a card that works' }).click();
  await pay(page).click();
  await page.getByRole('button', { name: 'Yes, add it for $199.00' }).click();
  await expect(page.getByRole('button', { name: 'Yes, add it for $149.00' })).toBeVisible();
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page.getByRole('heading', { name: 'Thank you, Ada' })).toBeVisible();
  await expect(pending(page)).toHaveText('0');

  const id = await fact(page, 'session').innerText();
  const answer = await server.request(`/v1/sessions/${id}`);
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({
    status: 'completed',
    currentStep: 'success',
    email: 'ada@example.com',
    upsells: [
      { offer: 'RC6', state: 'charged' },
      { offer: 'RC12', state: 'declined' },
      { offer: 'SG6', state: 'declined' },
    ],
    // 177.00 - 17.70 + 199.00, and 7.25 % tax on each.
    totals: { subtotal: 17_700, discount: 1770, upsells: 19_900, total: 38_428 },
  });
});

test('what is missing is named, and the first such field takes the focus', async ({ page, shopAddress }) => {
  await page.goto(shopAddress);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('ZIP code').fill('12');
  await pay(page).click();
  await expect(page.getByLabel('First name')).toBeFocused();
  await expect(page.getByLabel('First name')).toHaveAccessibleDescription('Enter your first name');
  await expect(page.getByLabel('ZIP code')).toHaveAccessibleDescription('Enter five digits, such as 94020');
});

test('what was entered offline survives a reload and is sent when online', async ({ page, shopAddress }) => {
  await page.goto(shopAddress);
  await expect(pending(page)).toHaveText('0');
  await page.getByRole('switch', { name: 'Go offline' }).click();
  await page.getByLabel('Email').fill('ada@example.com');
  await expect(pending(page)).not.toHaveText('0');
  await page.reload();
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
  await expect(pending(page)).toHaveText('0');
  await expect(page.getByText('Online, all told')).toBeVisible();
});

test('two tabs show the same order, and begin again together', async ({ context, page, shopAddress }) => {
  await page.goto(shopAddress);
  const other = await context.newPage();
  await other.goto(shopAddress);
  const id = await fact(page, 'session').innerText();
  await expect(fact(other, 'session')).toHaveText(id);

  await page.getByLabel('Email').fill('ada@example.com');
  await expect(other.getByLabel('Email')).toHaveValue('ada@example.com');
  await other.getByLabel('First name').fill('Ada');
  await expect(page.getByLabel('First name')).toHaveValue('Ada');

  await other.getByRole('button', { name: 'Start again' }).click();
  await expect(fact(page, 'session')).not.toHaveText(id);
  await expect(fact(other, 'session')).toHaveText(await fact(page, 'session').innerText());
});

test('a payment whose record is refused is told with the reason, and asked for again', async ({ page, shopAddress, payments }) => {
  const reason = 'the session owes another amount';
  await page.route(`${payments.url}/payments`, (route) =>
    route.request().method() === 'POST'
      ? route.fulfill({ status: 409, headers: { 'access-control-allow-origin': '*' }, json: { error: reason } })
      : route.continue(),
  );
  await page.goto(shopAddress);
  await fillIn(page);
  await page.getByRole('button', { name: 'Use a card that works' }).click();
  await pay(page).click();
  await expect(page.getByRole('status').filter({ hasText: reason })).toContainText('You are not charged twice.');
  await page.unroute(`${payments.url}/payments`);
  await page.getByRole('button', { name: 'Ask the payment service again' }).click();
  await expect(page.getByRole('button', { name: 'Yes, add it for $199.00' })).toBeVisible();
});

test('an order that was paid perhaps before it moved here is not paid again, and the buyer reads why', async ({ page, shop, shopAddress }) => {
  const now = Date.now();
  const legacy = {
    id: 'ws_legacy_paid00001',
    email: 'ada@example.com',
    products: [{ id: 'fitspresso-6-pack', name: 'Fitspresso', price: 294, quantity: 1 }],
    status: 'completed',
    transactionId: 'of-the-old-shop',
    amount: 294,
    currentStep: 'success',
    upsellsAccepted: [],
    upsellsDeclined: [],
    createdAt: new Date(now - 60_000).toISOString(),
    updatedAt: new Date(now - 60_000).toISOString(),
    expiresAt: new Date(now + 3_600_000).toISOString(),
  };
  await page.goto(`${shop.url}/icon.svg`);
  await page.evaluate((legacy) => localStorage.setItem('webseed_funnel_sessions', JSON.stringify({ [legacy.id]: legacy })), legacy);
  await page.goto(shopAddress);
  await page.waitForFunction(() => localStorage.getItem('webseed_funnel_sessions') === null);
  // Goes on with it, as it would where that was the last one that the browser had open.
  await overwrite(page, 'current', legacy.id);
  await page.reload();
  await expect(fact(page, 'session')).toHaveText(legacy.id);
  await fillIn(page);
  await page.getByRole('button', { name: 'Use a card that works' }).click();
  await pay(page).click();
  await expect(page.getByText('This order can’t be paid yet:')).toContainText('the shop has to confirm that first');
});
