import { AxeBuilder } from '@axe-core/playwright';
import type { Locator, Page } from '@playwright/test';
import decodeQR from 'qr/decode.js';

import { expect, test } from './fixtures.js';
import { fact } from './panel.js';
import { journal, stored } from './sdk.js';
import type { ThroughlineServer } from './server.js';
import { followLink } from './shop-link.js';

const dialog = (page: Page) => page.getByRole('dialog', { name: 'Go on on another device' });
const opener = (page: Page) => page.getByRole('button', { name: 'Go on on another device' });

/** What a camera reads that is held before this part of the page. */
async function read(picture: Locator): Promise<string> {
  const png = (await picture.screenshot()).toString('base64');
  const { width, height, pixels } = await picture.page().evaluate(async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const { width, height } = image;
    const context = new OffscreenCanvas(width, height).getContext('2d')!;
    context.drawImage(image, 0, 0);
    return { width, height, pixels: [...context.getImageData(0, 0, width, height).data] };
  }, png);
  return decodeQR({ width, height, data: Uint8Array.from(pixels) });
}

/** The link that the dialog shows, as a picture. */
const shownLink = (page: Page): Promise<string> => read(dialog(page).getByRole('img', { name: 'QR code' }));

/** Enters an address, and waits until the server has it; the answer is the session's id. */
async function enterEmail(page: Page, server: ThroughlineServer, email: string): Promise<string> {
  await page.getByLabel('Email').fill(email);
  const id = await fact(page, 'session').innerText();
  await expect.poll(async () => (await stored(server, id)).email).toBe(email);
  return id;
}

test('the link in the picture goes on with the order in another browser, once', async ({ browser, page, server, shopAddress }) => {
  await page.goto(shopAddress);
  await page.getByText('Six bottles', { exact: true }).click();
  const id = await enterEmail(page, server, 'ada@example.com');

  await opener(page).click();
  await expect(dialog(page).getByRole('timer')).toHaveText(/^[45]:\d\d/);
  const { violations } = await new AxeBuilder({ page }).include('dialog.handoff').analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
  const link = await shownLink(page);
  expect(link).toBe(await dialog(page).getByRole('textbox', { name: 'Link' }).inputValue());

  const other = await (await browser.newContext()).newPage();
  await followLink(other, link);
  await expect(fact(other, 'session')).toHaveText(id);
  await expect(other.getByLabel('Email')).toHaveValue('ada@example.com');
  await expect(other.getByRole('radio', { name: /Six bottles/ })).toBeChecked();
  expect(new URL(other.url()).hash).toBe('');
  await expect(dialog(page).getByRole('status')).toContainText(['Another device has your order now.']);

  await other.getByLabel('First name').fill('Ada');
  await expect(page.getByLabel('First name')).toHaveValue('Ada');
  const types = (await journal(server, id)).map(({ event }) => event.type);
  expect(types.filter((type) => type === 'handedOff')).toHaveLength(1);

  const third = await (await browser.newContext()).newPage();
  await followLink(third, link);
  await expect(third.getByRole('alert')).toHaveText(
    'this code was used already; ask for a new one on the device that has the session.',
  );
  await third.getByRole('button', { name: 'Go on without the link' }).click();
  await expect(fact(third, 'session')).toHaveText(/^ws_/);
  await expect(fact(third, 'session')).not.toHaveText(id);
  await third.reload();
  await expect(third.getByLabel('Email')).toHaveValue('');
});

test('who is sent a link by somebody else begins an order of their own', async ({ browser, page, server, shopAddress }) => {
  await page.goto(shopAddress);
  const id = await enterEmail(page, server, 'mallory@example.com');
  await opener(page).click();
  const link = await dialog(page).getByRole('textbox', { name: 'Link' }).inputValue();
  const other = await (await browser.newContext()).newPage();
  await other.goto(link);
  await expect(other.getByRole('heading', { name: 'Go on with the order of this link?' })).toBeVisible();
  const { violations } = await new AxeBuilder({ page: other }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
  await other.getByRole('button', { name: 'Begin an order of your own' }).click();
  await expect(fact(other, 'session')).toHaveText(/^ws_/);
  await expect(fact(other, 'session')).not.toHaveText(id);
  expect(new URL(other.url()).hash).toBe('');
});

test('who has begun an order is asked before a link replaces it', async ({ browser, page, server, shopAddress }) => {
  await page.goto(shopAddress);
  const id = await enterEmail(page, server, 'ada@example.com');
  await opener(page).click();
  const link = await dialog(page).getByRole('textbox', { name: 'Link' }).inputValue();

  const other = await (await browser.newContext()).newPage();
  await other.goto(shopAddress);
  const own = await enterEmail(other, server, 'grace@example.com');
  // The same page with something behind `#`: nothing is loaded for it.
  await other.goto(link);
  await other.getByRole('button', { name: 'Keep the order of this browser' }).click();
  await expect(fact(other, 'session')).toHaveText(own);
  await expect(other.getByLabel('Email')).toHaveValue('grace@example.com');

  await other.goto('about:blank');
  await followLink(other, link);
  await expect(fact(other, 'session')).toHaveText(id);
  await expect(other.getByLabel('Email')).toHaveValue('ada@example.com');
});

test('a link that is opened without a connection is good still when there is one', async ({ browser, page, server, shopAddress }) => {
  await page.goto(shopAddress);
  const id = await enterEmail(page, server, 'ada@example.com');
  await opener(page).click();
  const link = await dialog(page).getByRole('textbox', { name: 'Link' }).inputValue();
  await server.kill9();
  const other = await (await browser.newContext()).newPage();
  await followLink(other, link);
  await expect(other.getByRole('alert')).toContainText('There is no connection to the shop just now.');
  await server.restart();
  await other.getByRole('button', { name: 'Try again' }).click();
  await expect(fact(other, 'session')).toHaveText(id);
  await expect(other.getByLabel('Email')).toHaveValue('ada@example.com');
});

test('the dialog follows the keyboard, and says what is wrong without a connection', async ({ page, server, shopAddress }) => {
  await page.goto(shopAddress);
  await expect(fact(page, 'pending')).toHaveText('0');
  await server.kill9();
  await opener(page).focus();
  await page.keyboard.press('Enter');
  await expect(dialog(page).getByRole('alert')).toContainText('There is no connection to the shop just now.');
  await server.restart();
  await expect(dialog(page).getByRole('button', { name: 'Try again' })).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(dialog(page).getByRole('textbox', { name: 'Link' })).toHaveValue(/#throughline-handoff=/);
  await page.keyboard.press('Escape');
  await expect(dialog(page)).toBeHidden();
  await expect(opener(page)).toBeFocused();
});

test('a link is copied; one that has ended is replaced by another', async ({ context, page, server, shopAddress }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.goto(shopAddress);
  await expect(fact(page, 'pending')).toHaveText('0');
  // Five minutes are over in two seconds.
  await page.route(`${server.url}/v1/sessions/*/handoff`, async (route) => {
    const answer = await route.fetch();
    const body = (await answer.json()) as { code: string };
    await route.fulfill({ response: answer, json: { ...body, expiresAt: new Date(Date.now() + 2000).toISOString() } });
  });
  await opener(page).click();
  const field = dialog(page).getByRole('textbox', { name: 'Link' });
  const first = await field.inputValue();
  await expect(dialog(page).getByText('This link has ended.')).toBeVisible();
  await expect(field).toBeHidden();
  await page.unroute(`${server.url}/v1/sessions/*/handoff`);
  await dialog(page).getByRole('button', { name: 'Ask for a new link' }).click();
  await expect(field).not.toHaveValue(first);
  await dialog(page).getByRole('button', { name: 'Copy' }).click();
  await expect(dialog(page).getByText('Copied', { exact: true })).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(await field.inputValue());
});
