import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import type * as throughline from 'throughline';
import type * as devtools from 'throughline/devtools';

import { expect, test as base } from './fixtures.js';
import { fact } from './panel.js';
import { packageFolder } from './repository.js';
import { asService, journal, openHere, openIn, settled, stored, type Session } from './sdk.js';
import { StaticSite } from './static-site.js';

declare global {
  interface Window {
    panel: devtools.Devtools;
    /** The session as the page saw it, by version, as JSON. */
    saw: Record<number, string>;
    violations: string[];
  }
}

/** Nothing but modules of the page's own, no style of any kind, and a style sheet of the page that would spoil the panel. */
const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src *; require-trusted-types-for 'script'";
const strictPage = `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}">
<title>strict page</title><script src="/watch.js"></script><link rel="stylesheet" href="/page.css"><body><main><h1>Shop</h1><ol><li>Of the page</li></ol></main></body></html>`;
const pageStyle = 'li, button, dl { display: none !important } * { font-size: 40px; color: rgb(255, 0, 0) }';
const watch = "window.violations = []; addEventListener('securitypolicyviolation', ({ violatedDirective }) => violations.push(violatedDirective));";

const test = base.extend({
  site: async ({}, use) => {
    const site = await StaticSite.start({
      pages: { '/': strictPage, '/page.css': pageStyle, '/watch.js': watch },
      folders: { '/throughline/': packageFolder },
    });
    await use(site);
    await site.stop();
  },
});

/** Shows the page's session in the panel, below the page's own content. */
async function mount(page: Page, options: { floating?: boolean; theme?: 'light' | 'dark' } = {}): Promise<void> {
  await page.evaluate(
    async ([address, { floating, theme }]) => {
      const { mountDevtools } = (await import(address)) as typeof devtools;
      window.panel = mountDevtools(session, { ...(floating ? {} : { target: document.body }), ...(theme && { theme }) });
    },
    ['/throughline/devtools.js', options] as const,
  );
}

/** Has the page do a few things, and note what it saw after each. */
async function work(page: Page): Promise<void> {
  await page.evaluate(async () => {
    window.saw = {};
    const note = () => {
      const snapshot = session.getSnapshot();
      // What is not confirmed may still become something else.
      if (session.sync.pending === 0) window.saw[snapshot.version] = JSON.stringify(snapshot);
    };
    session.subscribe(note);
    const commands: (() => throughline.Receipt)[] = [
      () => session.setEmail('ada@example.com'),
      () => session.setItems([{ id: 'fitspresso-6-pack', quantity: 1 }]),
      () => session.setCustomer({ firstName: 'Ada', lastName: 'Lovelace', shipping: { state: 'CA' } }),
      () => session.setCoupon('SAVE10'),
      () => session.setMetadata({ campaign: { id: 'spring' }, at: '2026-01-01T00:00:00Z' }),
      () => session.setEmail('lovelace@example.com'),
      () => session.beginProcessing(),
    ];
    for (const command of commands) await command().durable;
  });
  await settled(page);
}

const versions = (page: Page) => page.getByRole('listbox', { name: 'Versions, the newest first' });
const chosen = (page: Page) => versions(page).getByRole('option', { selected: true });
const live = (page: Page) => page.getByRole('button', { name: 'Back to live' });
const json = (page: Page) => page.getByRole('region', { name: 'The session at this version' });

test('every version is shown as the page saw it, also those from before it was loaded', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await work(page);
  const owed = (await stored(server, id)).totals.total;
  expect((await asService(server, id, { type: 'recordPayment', transactionId: 'tx-1', amount: owed })).ok).toBe(true);
  await page.waitForFunction(() => session.getSnapshot().payment.paidAt !== null);
  await settled(page);
  const seen = await page.evaluate(() => window.saw);
  expect(Object.keys(seen).length).toBeGreaterThanOrEqual(7);
  const newest = (await stored(server, id)).version;

  await page.reload();
  await openHere(page, server);
  await settled(page);
  await mount(page);
  await expect(versions(page).getByRole('option')).toHaveCount(newest);
  await page.getByText('The whole session').click();
  await versions(page).focus();
  for (let version = newest; version >= 1; version -= 1) {
    await expect(chosen(page)).toContainText(`v${version}`);
    const shown = JSON.parse(await json(page).innerText()) as Session;
    expect(shown.version).toBe(version);
    // Field by field and in the same order; what several records at once have made, nobody saw by itself.
    if (seen[version] !== undefined) expect(JSON.stringify(shown)).toBe(seen[version]);
    await page.keyboard.press('ArrowDown');
  }
  const compared = Object.keys(seen).filter((version) => Number(version) <= newest);
  expect(compared.length).toBeGreaterThanOrEqual(7);
  // The payment's references were not in it at any time.
  expect(await page.evaluate(() => window.panel.element.shadowRoot!.textContent)).not.toContain('tx-1');
});

test('the keyboard goes back in time and to live again, and the session stays what it is', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await mount(page);
  await work(page);
  const before = await page.evaluate(() => JSON.stringify(session.getSnapshot()));
  const told = (await journal(server, id)).length;

  await versions(page).focus();
  await expect(live(page)).toBeHidden();
  await page.keyboard.press('End');
  await expect(chosen(page)).toContainText('v1');
  await expect(page.getByText('Version 1, as it was')).toBeVisible();
  await page.keyboard.press('ArrowRight');
  await expect(chosen(page)).toContainText('v2');
  const changed = page.getByRole('list', { name: 'What changed in this version' });
  await expect(changed.getByRole('listitem').filter({ hasText: 'email' })).toHaveText('emailada@example.com');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page)).toContainText('v4');
  await expect(changed).toContainText('customer.firstName');
  await page.keyboard.press('ArrowLeft');
  await expect(chosen(page)).toContainText('v3');

  // Something new comes in: the past stays where it is.
  await page.evaluate(() => session.setMetadata({ later: true }).durable);
  await expect(chosen(page)).toContainText('v3');
  await expect(page.getByText('Version 3, as it was')).toBeVisible();
  const now = await page.evaluate(() => JSON.stringify(session.getSnapshot()));
  expect(now).not.toBe(before);

  await page.keyboard.press('Escape');
  await expect(live(page)).toBeHidden();
  await expect(changed).toContainText('metadata.later');
  await page.keyboard.press('ArrowDown');
  await live(page).click();
  await expect(versions(page)).toBeFocused();
  await expect(live(page)).toBeHidden();
  // A click does as well as a key.
  await versions(page).getByRole('option').filter({ hasText: 'v2' }).click();
  await expect(page.getByText('Version 2, as it was')).toBeVisible();

  expect(await page.evaluate(() => JSON.stringify(session.getSnapshot()))).toBe(now);
  expect((await journal(server, id)).length).toBe(told + 1);
});

test('offline the outbox fills, and what this page has seen can be looked at', async ({ page, site, server }) => {
  await openIn(page, site, server);
  await settled(page);
  await mount(page);
  const outbox = page.getByRole('list', { name: 'Pending commands' });
  await expect(outbox).toHaveText('Nothing waits: the database has it all');
  const goOffline = page.getByRole('switch', { name: 'Go offline' });
  await goOffline.click();
  await expect(goOffline).toBeChecked();
  await expect(page.getByText('Offline', { exact: true })).toBeVisible();
  await page.evaluate(() => {
    session.setEmail('ada@example.com');
    session.setCoupon('SAVE10');
  });
  await expect(outbox.getByRole('listitem')).toHaveText([/set email.*stored.*number 2 of this page/, /set coupon.*stored.*number 3 of this page/]);
  await expect(fact(page, 'pending')).toHaveText('2');
  await expect(page.getByText('Offline, 2 waiting')).toBeVisible();
  await versions(page).focus();
  await page.keyboard.press('ArrowDown');
  await expect(chosen(page)).toContainText('v2');
  await expect(chosen(page)).toContainText('not confirmed yet');
  await expect(page.getByRole('list', { name: 'What changed in this version' })).toContainText('ada@example.com');

  // The page's own way to the network is the same switch.
  await page.evaluate(() => session.goOnline());
  await expect(goOffline).not.toBeChecked();
  await expect(outbox).toHaveText('Nothing waits: the database has it all');
  await expect(page.getByText('Online, all told')).toBeVisible();
  await expect(fact(page, 'transport')).toHaveText('WebSocket');
  await expect(versions(page).getByRole('option').filter({ hasText: 'v2' })).toContainText('email set');
});

test('loaded without a server, the panel says where the earlier versions are, and has them once it can be reached', async ({ page, site, server }) => {
  await openIn(page, site, server);
  await settled(page);
  await work(page);
  const newest = await page.evaluate(() => session.getSnapshot().version);
  await server.kill9();
  await page.reload();
  await openHere(page, server);
  await mount(page);
  await expect(page.getByText('Earlier versions come from the server')).toBeVisible();
  await expect(versions(page).getByRole('option')).toHaveCount(1);
  await server.restart();
  await expect(versions(page).getByRole('option')).toHaveCount(newest, { timeout: 30_000 });
});

test('a refusal is shown with its code, its sentence and who can mend it', async ({ page, site, server }) => {
  await openIn(page, site, server);
  await mount(page);
  await page.evaluate(() => void session.acceptUpsell('RC6'));
  const refused = page.getByRole('list', { name: 'Refused commands' }).getByRole('listitem');
  await expect(refused).toContainText('accept upsell');
  await expect(refused).toContainText('offerNotMade');
  await expect(refused).toContainText((await page.evaluate(() => refusals[0]!.message)));
  await expect(refused).toContainText('Mended by nobody');
});

test('page and panel leave each other alone, under a strict policy', async ({ page, site, server }) => {
  const errors: string[] = [];
  page.on('pageerror', ({ message }) => errors.push(message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await openIn(page, site, server);
  await settled(page);
  await mount(page);
  await expect(versions(page).getByRole('option').first()).toBeVisible();
  const style = await chosen(page).evaluate((option) => [getComputedStyle(option).fontSize, getComputedStyle(option).color]);
  expect(style[0]).toBe('14px');
  expect(style[1]).not.toBe('rgb(255, 0, 0)');
  await expect(page.getByText('Of the page')).toBeHidden();
  expect(await page.evaluate(() => getComputedStyle(document.querySelector('h1')!).color)).toBe('rgb(255, 0, 0)');
  expect(await page.evaluate(() => window.violations)).toEqual([]);
  expect(errors).toEqual([]);

  await page.evaluate(() => window.panel.unmount());
  await expect(versions(page)).toHaveCount(0);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect(errors).toEqual([]);
});

test('without a place of its own it floats behind a button, which Escape leads back to', async ({ page, site, server }) => {
  await openIn(page, site, server);
  await mount(page, { floating: true });
  const button = page.getByRole('button', { name: 'Session' });
  await expect(versions(page)).toBeHidden();
  await button.click();
  await expect(button).toHaveAttribute('aria-expanded', 'true');
  await versions(page).focus();
  await page.keyboard.press('Escape');
  await expect(versions(page)).toBeHidden();
  await expect(button).toBeFocused();
});

test('a session that the page has closed stays readable', async ({ page, site, server }) => {
  const errors: string[] = [];
  page.on('pageerror', ({ message }) => errors.push(message));
  await openIn(page, site, server);
  await settled(page);
  await mount(page);
  await page.evaluate(() => session.close());
  await expect(page.getByText('Closed', { exact: true })).toBeVisible();
  await expect(chosen(page)).toBeVisible();
  expect(errors).toEqual([]);
});

for (const [width, height] of [[1400, 900], [390, 844]] as const) {
  test(`the shop and the panel have no serious barrier, ${width} pixels wide`, async ({ page, shopAddress }) => {
    await page.setViewportSize({ width, height });
    await page.goto(shopAddress);
    await expect(page.getByLabel('Email')).toBeVisible();
    const serious = async () => {
      const { violations } = await new AxeBuilder({ page }).analyze();
      return violations
        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, nodes }) => [id, nodes.map(({ target, failureSummary }) => `${target.join(' ')} ${failureSummary}`)]);
    };
    expect(await serious()).toEqual([]);
    if (width < 1100) await page.getByRole('button', { name: 'Behind the counter' }).click();
    await expect(versions(page)).toBeVisible();
    await page.getByText('The whole session').click();
    await versions(page).focus();
    await page.keyboard.press('End');
    expect(await serious()).toEqual([]);
    // Nothing sticks out to the side.
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(width);
  });
}

for (const theme of ['light', 'dark'] as const) {
  test(`the panel by itself has no serious barrier in ${theme} colours`, async ({ page, site, server }) => {
    await openIn(page, site, server);
    await settled(page);
    await mount(page, { theme });
    await page.evaluate(() => {
      session.goOffline();
      session.setEmail('ada@example.com');
      session.acceptUpsell('RC6');
    });
    await page.getByText('The whole session').click();
    const outcome = await new AxeBuilder({ page }).include('[data-theme]').analyze();
    expect(outcome.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')).toEqual([]);
    expect(outcome.passes.map(({ id }) => id)).toEqual(expect.arrayContaining(['color-contrast', 'aria-required-children']));
  });
}
