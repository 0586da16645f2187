import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { asService, disorder, journal, openIn, payFor, settled, shown, stored, storedByBrowser } from './sdk.js';

const changes = 20;
const medianLimitMs = 100;

/** Two tabs of one browser with one session. */
async function twoTabs(page: Page, open: (page: Page) => Promise<string>): Promise<{ id: string; other: Page }> {
  const id = await open(page);
  await settled(page);
  const other = await page.context().newPage();
  expect(await open(other)).toBe(id);
  await settled(other);
  return { id, other };
}

test('a change in one tab is seen in the other within 100 ms', async ({ page, site, server }) => {
  const { other } = await twoTabs(page, (page) => openIn(page, site, server));
  await other.evaluate(() => {
    const seen: Record<number, number> = {};
    session.subscribe(() => {
      const { n } = session.getSnapshot().metadata as { n?: number };
      if (n !== undefined) seen[n] ??= performance.timeOrigin + performance.now();
    });
    Object.assign(window, { seen });
  });
  const delays: number[] = [];
  for (let n = 1; n <= changes; n += 1) {
    const changedAt = await page.evaluate((n) => {
      const now = performance.timeOrigin + performance.now();
      session.setMetadata({ n });
      return now;
    }, n);
    const seen = await other.waitForFunction((n) => (window as unknown as { seen: Record<number, number> }).seen[n], n);
    delays.push((await seen.jsonValue())! - changedAt);
  }
  delays.sort((a, b) => a - b);
  const median = delays[changes / 2]!;
  console.log(`${changes} changes: median ${median.toFixed(1)} ms, longest ${delays.at(-1)!.toFixed(1)} ms`);
  expect(delays[0]!, 'both clocks agree').toBeGreaterThan(0);
  expect(median).toBeLessThan(medianLimitMs);
});

test('two tabs that were offline agree with each other and with the server', async ({ page, site, server }) => {
  const { id, other } = await twoTabs(page, (page) => openIn(page, site, server));
  for (const tab of [page, other]) await tab.evaluate(() => session.goOffline());
  await page.evaluate(() => {
    session.setEmail('one@example.com');
    session.setMetadata({ one: 1, both: 'one' });
  });
  await other.evaluate(() => {
    session.setCustomer({ firstName: 'Two' });
    session.setMetadata({ two: 2, both: 'two' });
  });
  expect((await shown(page)).customer.firstName).toBeUndefined();
  expect((await shown(other)).email).toBeNull();

  await page.evaluate(() => session.goOnline());
  await settled(page);
  await other.evaluate(() => session.goOnline());
  await settled(other);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ email: 'one@example.com', customer: { firstName: 'Two' } });
  // Who came later has the last word.
  expect(kept.metadata).toEqual({ one: 1, two: 2, both: 'two' });
  for (const tab of [page, other]) {
    await tab.waitForFunction((version) => session.sync.version === version, kept.version);
    expect(await shown(tab)).toMatchObject({ email: kept.email, customer: kept.customer, metadata: kept.metadata });
  }
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('what a closed tab left behind is brought to the server by the other', async ({ page, site, server }) => {
  const { id, other } = await twoTabs(page, (page) => openIn(page, site, server));
  const clientId = await other.evaluate(() => {
    session.goOffline();
    session.setEmail('left@example.com');
    session.setMetadata({ left: true });
    return session.sync.clientId;
  });
  await storedByBrowser(other, 'left@example.com', '"left":true');
  await other.close();
  await expect.poll(async () => (await stored(server, id)).metadata).toEqual({ left: true });
  await page.waitForFunction(() => session.getSnapshot().email === 'left@example.com');
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  expect(records.filter(({ origin }) => origin?.clientId === clientId).map(({ event }) => event.type)).toEqual([
    'emailSet',
    'metadataSet',
  ]);
});

test('an offer that both tabs accept is accepted once and charged once', async ({ page, site, server }) => {
  const { id, other } = await twoTabs(page, (page) => openIn(page, site, server));
  await payFor(page, server, id);
  await other.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
  for (const tab of [page, other]) await tab.evaluate(() => session.goOffline());
  for (const tab of [page, other]) await tab.evaluate(() => void session.acceptUpsell('RC6'));
  await Promise.all([page, other].map((tab) => tab.evaluate(() => session.goOnline())));
  for (const tab of [page, other]) await settled(tab);

  const accepted = await stored(server, id);
  const offer = accepted.upsells.find(({ offer }) => offer === 'RC6')!;
  expect(offer.state).toBe('accepted');
  for (const transactionId of ['tx-2', 'tx-3']) {
    const charge = { type: 'recordUpsellCharge', offer: 'RC6', transactionId, amount: offer.price + offer.tax } as const;
    const answer = await asService(server, id, charge);
    if (transactionId === 'tx-3') expect(await answer.text()).toContain('offerCharged');
  }
  const types = (await journal(server, id)).map(({ event }) => event.type);
  expect(types.filter((type) => type === 'offerAccepted')).toHaveLength(1);
  expect(types.filter((type) => type === 'offerCharged')).toHaveLength(1);
  const { totals } = await stored(server, id);
  expect(totals.upsells).toBe(offer.price);
  for (const tab of [page, other]) {
    expect(await tab.evaluate(() => refusals)).toEqual([]);
    await tab.waitForFunction((total) => session.getSnapshot().totals.total === total, totals.total);
  }
});

test('where one tab accepts and the other declines, one wins and the loser is told why', async ({
  page,
  site,
  server,
}) => {
  const { id, other } = await twoTabs(page, (page) => openIn(page, site, server));
  await payFor(page, server, id);
  await other.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
  for (const tab of [page, other]) await tab.evaluate(() => session.goOffline());
  await page.evaluate(() => void session.acceptUpsell('RC6'));
  await other.evaluate(() => void session.declineUpsell('RC6'));
  const stateIn = (tab: Page) =>
    tab.evaluate(() => session.getSnapshot().upsells.find(({ offer }) => offer === 'RC6')?.state);
  expect([await stateIn(page), await stateIn(other)]).toEqual(['accepted', 'declined']);
  await Promise.all([page, other].map((tab) => tab.evaluate(() => session.goOnline())));
  for (const tab of [page, other]) await settled(tab);

  const state = (await stored(server, id)).upsells.find(({ offer }) => offer === 'RC6')?.state;
  expect(['accepted', 'declined']).toContain(state);
  const [winner, loser] = state === 'accepted' ? [page, other] : [other, page];
  for (const tab of [page, other]) await expect.poll(() => stateIn(tab)).toBe(state);
  expect(await winner.evaluate(() => refusals)).toEqual([]);
  const told = await loser.evaluate(() => refusals);
  expect(told).toHaveLength(1);
  expect(told[0]!.code).toBe(state === 'accepted' ? 'offerAccepted' : 'offerDeclined');
  expect(told[0]!.message).toMatch(/RC6.*(accepted|declined)/);
  expect(disorder(await journal(server, id))).toEqual([]);
});
