import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { fact } from './panel.js';
import { disorder, journal, stored } from './sdk.js';

const dollars = (cents: number) =>
  new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' }).format(cents / 100);

/** The sums that the page shows beside or below the order, by their names. */
async function sums(page: Page): Promise<Record<string, string>> {
  const rows = page.locator('.sums > div');
  const names = await rows.locator('dt').allInnerTexts();
  const amounts = await rows.locator('dd').allInnerTexts();
  return Object.fromEntries(names.map((name, index) => [name, amounts[index]!]));
}

test('a buyer goes through the whole funnel, over a reload at each step, and both sides agree', async ({
  page,
  server,
  shopAddress,
}) => {
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(shopAddress);
  const id = await fact(page, 'session').innerText();
  const pending = fact(page, 'pending');
  const step = (name: string) => page.locator('[aria-current="step"]', { hasText: name });

  /** Loads the page again; it has to show the same session with the same sums. */
  const reload = async () => {
    await expect(pending).toHaveText('0');
    const before = await sums(page);
    await page.reload();
    await expect(fact(page, 'session')).toHaveText(id);
    await expect.poll(() => sums(page)).toEqual(before);
  };
  /** The page's sums are the server's. */
  const agree = async () => {
    await expect(pending).toHaveText('0');
    const { totals } = await stored(server, id);
    await expect.poll(() => sums(page)).toMatchObject({
      Subtotal: dollars(totals.subtotal),
      Tax: dollars(totals.tax),
      Total: dollars(totals.total),
    });
  };

  // Half filled in.
  await page.getByText('Six bottles', { exact: true }).click();
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('State').selectOption('CA');
  await page.getByLabel('Coupon').fill('SAVE10');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(page.getByText('Coupon SAVE10 takes off $29.40')).toBeVisible();
  await reload();
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
  await expect(page.getByLabel('First name')).toHaveValue('Ada');
  await expect(page.getByLabel('State')).toHaveValue('CA');
  await expect(page.getByRole('radio', { name: /Six bottles/ })).toBeChecked();
  await expect(page.getByText('Coupon SAVE10 takes off $29.40')).toBeVisible();
  await agree();

  await page.getByLabel('Last name').fill('Lovelace');
  await page.getByLabel('Street and number').fill('20 Example Street');
  await page.getByLabel('City').fill('Springfield');
  await page.getByLabel('ZIP code').fill('94020');
  // A card is never kept: the reload during the payment has to ask for it again.
  await page.route('**/payments', (route) => route.abort());
  await page.getByRole('button', { name: 'Use a card that works' }).click();
  await page.getByRole('button', { name: /^Pay / }).click();
  await expect(step('Payment')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Ask the payment service again' })).toBeVisible();
  await page.unroute('**/payments');
  await reload();
  await expect(step('Payment')).toBeVisible();
  await agree();
  await page.getByLabel('Card number').fill('4242 4242 4242 4242');
  await page.getByRole('button', { name: 'Pay with this card' }).click();

  await expect(step('Extra 1')).toBeVisible();
  await reload();
  await expect(step('Extra 1')).toBeVisible();
  await agree();
  await page.getByRole('button', { name: 'Yes, add it for $199.00' }).click();

  await expect(step('Extra 2')).toBeVisible();
  await reload();
  await expect(step('Extra 2')).toBeVisible();
  await agree();
  await page.getByRole('button', { name: 'No, thank you' }).click();

  await expect(page.getByRole('heading', { name: 'Thank you, Ada' })).toBeVisible();
  await reload();
  await expect(page.getByRole('heading', { name: 'Thank you, Ada' })).toBeVisible();
  await agree();

  const session = await stored(server, id);
  expect(session).toMatchObject({
    id,
    status: 'completed',
    currentStep: 'success',
    email: 'ada@example.com',
    products: [{ id: 'fitspresso-6-pack', quantity: 1, price: 29_400, priceSource: 'funnel' }],
    upsells: [
      { offer: 'RC6', state: 'charged' },
      { offer: 'RC12', state: 'declined' },
      { offer: 'SG6', state: 'declined' },
    ],
    // 294.00 less 10 % and 7.25 % tax is 283.78; 199.00 and 7.25 % tax is 213.43.
    amount: 49_721,
    totals: { subtotal: 29_400, discount: 2940, upsells: 19_900, total: 49_721 },
  });
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  expect(records.map(({ event }) => event)).toContainEqual(
    expect.objectContaining({ type: 'paymentRecorded', amount: 28_378 }),
  );
  const types = records.map(({ event }) => event.type);
  for (const once of ['paymentRecorded', 'offerAccepted', 'offerCharged', 'completed']) {
    expect(types.filter((type) => type === once), once).toHaveLength(1);
  }
  expect(errors).toEqual([]);
});

test('what was typed at the very last is there after a reload', async ({ page, shopAddress }) => {
  await page.goto(shopAddress);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.reload();
  await expect(page.getByLabel('Email')).toHaveValue('ada@example.com');
});

test('offers that are answered without a network lead to the end, and are charged when it is back', async ({
  context,
  page,
  server,
  shopAddress,
}) => {
  await page.goto(shopAddress);
  await page.getByLabel('Email').fill('ada@example.com');
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('Last name').fill('Lovelace');
  await page.getByLabel('Street and number').fill('20 Example Street');
  await page.getByLabel('City').fill('Springfield');
  await page.getByLabel('State').selectOption('CA');
  await page.getByLabel('ZIP code').fill('94020');
  await page.getByRole('button', { name: 'Use a card that works' }).click();
  await page.getByRole('button', { name: /^Pay / }).click();
  await expect(page.getByRole('button', { name: 'Yes, add it for $199.00' })).toBeVisible();

  await context.setOffline(true);
  await expect(page.getByText(/^Offline/).first()).toBeVisible();
  await page.getByRole('button', { name: 'Yes, add it for $199.00' }).click();
  await page.getByRole('button', { name: 'No, thank you' }).click();
  await expect(page.getByRole('heading', { name: 'Thank you, Ada' })).toBeVisible();
  await expect(page.getByText('RelaxCalm, 6 bottles being added')).toBeVisible();
  const id = await fact(page, 'session').innerText();
  expect(await stored(server, id)).toMatchObject({ currentStep: 'upsell-1', status: 'processing' });

  await context.setOffline(false);
  await expect(page.getByText('RelaxCalm, 6 bottles paid')).toBeVisible();
  await expect(fact(page, 'pending')).toHaveText('0');
  expect(await stored(server, id)).toMatchObject({
    currentStep: 'success',
    status: 'completed',
    upsells: [
      { offer: 'RC6', state: 'charged' },
      { offer: 'RC12', state: 'declined' },
      { offer: 'SG6', state: 'declined' },
    ],
  });
  expect(disorder(await journal(server, id))).toEqual([]);
});
