import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { AxeBuilder } from '@axe-core/playwright';
import type { Funnel } from 'throughline';

import { expect, test as base } from './fixtures.js';
import { fact } from './panel.js';
import { PaymentService } from './payment-service.js';
import { openIn, payFor, settled } from './sdk.js';
import { ThroughlineServer } from './server.js';
import { followLink } from './shop-link.js';

interface Hurried {
  server: ThroughlineServer;
  shopAddress: string;
}

/** A shop whose first offer is open for some seconds only. */
const test = base.extend<{ hurried: Hurried }>({
  hurried: async ({ server, shop, site }, use) => {
    const folder = await mkdtemp(join(tmpdir(), 'throughline-funnels-'));
    const { funnel } = (await (await server.request('/v1/funnels/default')).json()) as { funnel: Funnel };
    const steps = funnel.steps.map((step) => (step.id === 'upsell-1' ? { ...step, timeLimit: '8s' } : step));
    await writeFile(join(folder, 'default-2.json'), JSON.stringify({ ...funnel, version: 2, steps }));
    const allowedOrigins = [shop.url, site.url];
    const hurriedServer = await ThroughlineServer.start({ allowedOrigins, args: ['--funnels', folder] });
    const payments = await PaymentService.start(hurriedServer, shop.url);
    const query = new URLSearchParams({ server: hurriedServer.url, payments: payments.url });
    await use({ server: hurriedServer, shopAddress: `${shop.url}/?${query}` });
    await payments.stop();
    await hurriedServer.stop();
    await rm(folder, { recursive: true });
  },
});

test('an offer with a time limit is counted down, and the order goes on without it', async ({ page, context, site, hurried }) => {
  const elsewhere = await context.newPage();
  const id = await openIn(elsewhere, site, hurried.server);
  await settled(elsewhere);
  const link = await elsewhere.evaluate(
    async (page) => (await session.handoff({ page })).url,
    hurried.shopAddress,
  );
  await followLink(page, link);
  await expect(fact(page, 'session')).toHaveText(id);
  await payFor(elsewhere, hurried.server, id);

  const clock = page.locator('.countdown').getByRole('timer');
  await expect(clock).toHaveText(/^0:0\d/);
  await page.evaluate(() => {
    const shown: string[] = [];
    const told: string[] = [];
    Object.assign(window, { shown, told });
    const [timer, status] = ['[role=timer]', '[role=status]'].map((role) => document.querySelector(`.countdown ${role}`)!);
    const watch = (element: Element, texts: string[]) => {
      texts.push(element.textContent!);
      new MutationObserver(() => texts.push(element.textContent!)).observe(element, {
        characterData: true,
        childList: true,
        subtree: true,
      });
    };
    watch(timer!, shown);
    watch(status!, told);
  });
  const { violations } = await new AxeBuilder({ page }).include('.shop').analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
  await expect(page.getByRole('heading', { name: 'This offer has ended' })).toBeFocused();
  const { shown, told } = await page.evaluate(() => {
    const { shown, told } = window as unknown as Record<'shown' | 'told', string[]>;
    return { shown, told };
  });
  // It counts down, never up (a busy browser may leave out a second), and none of the seconds is read out.
  const seconds = shown.map((text) => Number(/^0:0(\d)/.exec(text)![1]));
  expect(new Set(seconds).size).toBeGreaterThanOrEqual(3);
  expect(seconds).toEqual(seconds.toSorted((a, b) => b - a));
  expect(seconds.at(-1)).toBeGreaterThanOrEqual(1);
  expect(new Set(told)).toEqual(new Set(['Less than 10 seconds left']));

  await expect(page.getByRole('button', { name: /^Yes, add it/ })).toBeHidden();
  await page.getByRole('button', { name: 'Continue' }).click();
  // The next step has no limit.
  await expect(page.getByRole('button', { name: 'Yes, add it for $149.00' })).toBeVisible();
  await expect(clock).toBeHidden();
});

test('a buyer is told that the order is about to end, and can keep it longer', async ({ page, context, site, server, shopAddress }) => {
  const elsewhere = await context.newPage();
  const id = await openIn(elsewhere, site, server, { create: { ttlMs: 10 * 60_000 } });
  await settled(elsewhere);
  await followLink(page, await elsewhere.evaluate(async (page) => (await session.handoff({ page })).url, shopAddress));
  await expect(fact(page, 'session')).toHaveText(id);
  const notice = page.getByRole('status').filter({ hasText: 'This order is kept for less than 10 minutes.' });
  await expect(notice).toBeVisible();
  await page.getByRole('button', { name: 'Keep it longer' }).click();
  await expect(notice).toBeHidden();
  await expect(fact(page, 'pending')).toHaveText('0');
  await page.reload();
  await expect(fact(page, 'session')).toHaveText(id);
  await expect(notice).toBeHidden();
});
