import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Page } from '@playwright/test';
import type { Funnel, Remaining } from 'throughline';

import { expect, test as base } from './fixtures.js';
import { journal, openHere, openIn, payFor, settled, shown, stored } from './sdk.js';
import { ThroughlineServer } from './server.js';

const secondMs = 1000;
const hourMs = 3_600_000;

/** How far what a page shows may be from what the server says, which is asked a moment later. */
const toleranceMs = 3 * secondMs;

/** A server whose first offer is open for some seconds only. */
const test = base.extend<{ hurried: ThroughlineServer }>({
  hurried: async ({ server, site }, use) => {
    const folder = await mkdtemp(join(tmpdir(), 'throughline-funnels-'));
    const { funnel } = (await (await server.request('/v1/funnels/default')).json()) as { funnel: Funnel };
    const steps = funnel.steps.map((step) => (step.id === 'upsell-1' ? { ...step, timeLimit: '4s' } : step));
    await writeFile(join(folder, 'default-2.json'), JSON.stringify({ ...funnel, version: 2, steps }));
    const hurried = await ThroughlineServer.start({ allowedOrigins: [site.url], args: ['--funnels', folder] });
    await use(hurried);
    await hurried.stop();
    await rm(folder, { recursive: true });
  },
});

/** The page's clock is wrong from now on, by this much. */
async function setClock(page: Page, aheadMs: number): Promise<void> {
  await page.evaluate((aheadMs) => Object.assign(window, { aheadMs }), aheadMs);
}

/** The clocks of the page's scripts are this wrong when it is loaded, and can be set while it is open. */
async function withWrongClock(page: Page, aheadMs: number): Promise<void> {
  await page.addInitScript((aheadMs) => {
    const { now } = Date;
    const RightDate = Date;
    const wrong = window as unknown as { aheadMs: number };
    wrong.aheadMs = aheadMs;
    Date.now = () => now() + wrong.aheadMs;
    globalThis.Date = new Proxy(RightDate, {
      construct: (target, args: []) => (args.length === 0 ? new target(Date.now()) : new target(...args)),
      get: (target, name) => (name === 'now' ? () => now() + wrong.aheadMs : (Reflect.get(target, name) as unknown)),
    });
  }, aheadMs);
}

const remaining = (page: Page): Promise<Remaining> => page.evaluate(() => session.remaining);

async function remainingAtServer(server: ThroughlineServer, id: string): Promise<number> {
  const answer = await server.request(`/v1/sessions/${id}/validate`, { method: 'POST', body: '{}' });
  return ((await answer.json()) as { remainingMs: number }).remainingMs;
}

for (const [name, aheadMs] of [
  ['ahead', hourMs],
  ['behind', -hourMs],
] as const) {
  test(`where the device's clock is an hour ${name}, time is the server's: also offline, and after a reload`, async ({
    page,
    site,
    server,
  }) => {
    await withWrongClock(page, aheadMs);
    const id = await openIn(page, site, server, { create: { ttlMs: 30 * 60_000 } });
    await settled(page);
    const atServer = await remainingAtServer(server, id);
    expect(Math.abs((await remaining(page)).session - atServer)).toBeLessThan(toleranceMs);
    expect((await remaining(page)).isEnding).toBe(true);

    // The rules go by it as well: by the device's clock the session would be over, or not begun.
    await server.kill9();
    await page.waitForFunction(() => session.sync.connection !== 'online');
    await page.reload();
    await openHere(page, server);
    expect(Math.abs((await remaining(page)).session - atServer)).toBeLessThan(toleranceMs + 10 * secondMs);
    await page.evaluate(() => void session.setEmail('ada@example.com'));
    expect(await shown(page)).toMatchObject({ email: 'ada@example.com', status: 'pending' });
    const ageMs = Math.abs(new Date((await shown(page)).updatedAt).getTime() - Date.now());
    expect(ageMs).toBeLessThan(60 * secondMs);

    await server.restart();
    await settled(page, 45_000);
    expect(await stored(server, id)).toMatchObject({ email: 'ada@example.com', status: 'pending' });
  });
}

test('a clock that is set while the page is open changes nothing', async ({ page, site, server }) => {
  await withWrongClock(page, 0);
  await openIn(page, site, server);
  await settled(page);
  const before = (await remaining(page)).session;
  await setClock(page, -hourMs);
  const after = (await remaining(page)).session;
  expect(before - after).toBeGreaterThanOrEqual(0);
  expect(before - after).toBeLessThan(toleranceMs);
});

test("a tab that follows has the server's time from the one that leads, also when that learns of it later", async ({
  page,
  site,
  server,
}) => {
  const other = await page.context().newPage();
  for (const tab of [page, other]) await withWrongClock(tab, hourMs);
  let tellTime = () => {};
  await page.routeWebSocket(/\/v1\/sync$/, (socket) => {
    socket.connectToServer();
    tellTime = () => socket.send(JSON.stringify({ type: 'pong', serverTime: new Date().toISOString() }));
  });
  const id = await openIn(page, site, server, { create: { ttlMs: 6 * hourMs } });
  await settled(page);
  expect(await openIn(other, site, server)).toBe(id);
  await settled(other);
  expect(await Promise.all([page, other].map((tab) => tab.evaluate(() => session.sync.leading)))).toEqual([true, false]);
  const differences = async () => {
    const atServer = await remainingAtServer(server, id);
    return Promise.all([page, other].map(async (tab) => (await remaining(tab)).session - atServer));
  };
  for (const difference of await differences()) expect(Math.abs(difference)).toBeLessThan(toleranceMs);

  // Set further ahead it looks as if the device had slept: both are wrong until the server tells its time to the one.
  for (const tab of [page, other]) await setClock(tab, 3 * hourMs);
  for (const difference of await differences()) expect(Math.abs(difference + 2 * hourMs)).toBeLessThan(toleranceMs);
  tellTime();
  await expect.poll(async () => Math.max(...(await differences()).map(Math.abs))).toBeLessThan(toleranceMs);
});

test('the time to answer an offer is counted down, and over when it is over', async ({ page, site, hurried }) => {
  const id = await openIn(page, site, hurried);
  await payFor(page, hurried, id);
  await page.evaluate(() => {
    Object.assign(window, { told: [] });
    session.on('remaining', ({ step }) => (window as unknown as { told: (number | null)[] }).told.push(step));
  });
  const { step } = await remaining(page);
  expect(step).toBeGreaterThan(0);
  expect(step).toBeLessThanOrEqual(4 * secondMs);
  await page.waitForFunction(() => session.remaining.step === 0 || session.remaining.step === null);
  const late = await page.evaluate(() => session.acceptUpsell('RC6').accepted.then(String, ({ code }: { code: string }) => code));
  expect(late).toBe('offerLapsed');
  const told = await page.evaluate(() => (window as unknown as { told: (number | null)[] }).told);
  const counted = told.filter((step): step is number => step !== null);
  expect(counted.length).toBeGreaterThanOrEqual(3);
  expect(counted).toEqual([...counted].sort((a, b) => b - a));
  expect((await journal(hurried, id)).map(({ event }) => event.type)).not.toContain('offerAccepted');
});

test('who is offline for longer than the session lives is told so, and nothing is charged', async ({ page, site, server }) => {
  const id = await openIn(page, site, server, { create: { ttlMs: 5 * secondMs } });
  await page.evaluate(() => {
    session.setItems([{ id: 'fitspresso-1-pack', quantity: 1 }]);
    session.setEmail('ada@example.com');
    session.setCustomer({ firstName: 'Ada', lastName: 'Lovelace' });
  });
  await settled(page);
  await page.evaluate(() => {
    session.goOffline();
    session.beginProcessing();
  });
  expect(await shown(page)).toMatchObject({ status: 'processing', currentStep: 'processing' });
  await expect.poll(() => remainingAtServer(server, id), { timeout: 15_000 }).toBe(0);
  expect(await remaining(page)).toEqual({ session: 0, step: null, isEnding: true });

  await page.evaluate(() => session.goOnline());
  await settled(page);
  expect(await page.evaluate(() => refusals)).toEqual([
    { code: 'sessionExpired', message: 'this session has expired; start a new session', command: 'beginProcessing' },
  ]);
  await page.waitForFunction(() => session.getSnapshot().status === 'expired');
  const types = (await journal(server, id)).map(({ event }) => event.type);
  expect(types).not.toContain('paymentBegun');
  expect(await stored(server, id)).toMatchObject({ status: 'expired', payment: { paidAt: null, attempts: 0 } });
});
