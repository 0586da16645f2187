import type { Page } from '@playwright/test';
import type * as throughline from 'throughline';

import { expect, test } from './fixtures.js';
import { credentials, journal, openIn, payFor, settled, shown, stored, tokenOf } from './sdk.js';
import type { ThroughlineServer } from './server.js';
import type { StaticSite } from './static-site.js';

const handoff = (page: Page): Promise<string> => page.evaluate(async () => (await session.handoff()).url);

/** Follows a link as a page does that takes sessions over; the answer is the session's id, or what was wrong. */
async function follow(page: Page, link: string, server: ThroughlineServer, answer?: boolean): Promise<string> {
  await page.goto('about:blank');
  await page.goto(link);
  return page.evaluate(async ([url, answer]) => {
    const { openSession } = (await import('/throughline/index.js' as string)) as typeof throughline;
    const confirmHandoff = answer === undefined ? {} : { confirmHandoff: () => Promise.resolve(answer) };
    try {
      window.session = await openSession({ url, handoff: location.href, ...confirmHandoff });
      window.refusals = [];
      session.on('rejected', ({ code, message }, { type }) => refusals.push({ code, message, command: type }));
      return session.id;
    } catch (error) {
      const { name, code, message } = error as throughline.SessionError;
      return `${name} ${code}: ${message}`;
    }
  }, [server.url, answer] as const);
}

/** Two devices with one session at its first offer. */
async function twoDevices(page: Page, other: Page, site: StaticSite, server: ThroughlineServer): Promise<string> {
  const id = await openIn(page, site, server);
  await settled(page);
  await payFor(page, server, id);
  expect(await follow(other, await handoff(page), server)).toBe(id);
  await settled(other);
  return id;
}

test('a session goes on on another device, and on this one', async ({ browser, page, site, server }) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  const link = await handoff(page);
  expect(new URL(link).origin).toBe(site.url);
  expect(new URL(link).search).toBe('');

  const device = await browser.newContext();
  const other = await device.newPage();
  const addresses: string[] = [];
  other.on('request', (request) => addresses.push(request.url()));
  expect(await follow(other, link, server)).toBe(id);
  await settled(other);
  expect((await shown(other)).email).toBe('ada@example.com');
  // The code was a secret until it was used: no server was sent it in an address, and the page's own is rid of it.
  const code = new URLSearchParams(new URL(link).hash.slice(1)).get('throughline-handoff')!;
  expect(addresses.some((address) => !address.startsWith(site.url) && address.includes(code))).toBe(false);
  expect(other.url()).not.toContain('handoff');

  await other.evaluate(() => session.setEmail('ada.king@example.com').durable);
  await page.waitForFunction(() => session.getSnapshot().email === 'ada.king@example.com');
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  await other.waitForFunction(() => session.getSnapshot().email === 'ada@example.com');

  // It is this browser's session from now on.
  await other.reload();
  expect(await follow(other, site.url, server)).toBe(id);

  const third = await (await browser.newContext()).newPage();
  expect(await follow(third, link, server)).toBe(
    'SessionError handoffRefused: this code was used already; ask for a new one on the device that has the session',
  );
  // Whoever loads the page again is not refused again.
  expect(third.url()).toBe(site.url + '/');
  expect(await follow(third, third.url(), server)).toMatch(/^ws_/);
});

test('a page whose address has its route behind # is handed off with it', async ({ browser, page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const address = `${site.url}/#/checkout?step=2`;
  const link = await page.evaluate(async (page) => (await session.handoff({ page })).url, address);
  expect(link).toContain(`${address}&`);
  const other = await (await browser.newContext()).newPage();
  expect(await follow(other, link, server)).toBe(id);
  expect(other.url()).toBe(address);

  const third = await (await browser.newContext()).newPage();
  expect(await follow(third, link, server)).toMatch(/^SessionError handoffRefused/);
  expect(third.url()).toBe(address);
});

test('a buyer who does not know the order of a link stays with their own, and the link is good still', async ({
  browser,
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const link = await handoff(page);
  const other = await (await browser.newContext()).newPage();
  const own = await openIn(other, site, server);
  await settled(other);
  expect(await follow(other, link, server, false)).toBe(own);
  expect(other.url()).toBe(`${site.url}/`);
  expect(await follow(other, link, server, true)).toBe(id);
});

test.describe('where a token lives for two seconds', () => {
  test.use({ serverArguments: ['--token-ttl', '2s'] });

  test('another device comes back after more time without a connection, and brings what was done', async ({
    browser,
    page,
    site,
    server,
  }) => {
    const other = await (await browser.newContext()).newPage();
    const id = await twoDevices(page, other, site, server);
    await other.context().setOffline(true);
    await other.evaluate(() => void session.acceptUpsell('RC6'));
    const token = await tokenOf(other, id);
    const withToken = () => fetch(`${server.url}/v1/sessions/${id}`, { headers: { authorization: `Bearer ${token}` } });
    await expect.poll(async () => (await withToken()).status, { timeout: 20_000 }).toBe(401);
    await other.context().setOffline(false);
    await settled(other);
    const { upsells } = await stored(server, id);
    expect(upsells.find(({ offer }) => offer === 'RC6')?.state).toBe('accepted');
    await page.waitForFunction(() => session.getSnapshot().upsells.some(({ offer, state }) => offer === 'RC6' && state === 'accepted'));
  });
});

test('a later link lets a browser come back for longer than an earlier one, and never for less than its own session', async ({
  browser,
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const other = await (await browser.newContext()).newPage();
  const claims: string[] = [];
  for (let links = 0; links < 2; links += 1) {
    expect(await follow(other, await handoff(page), server)).toBe(id);
    await settled(other);
    claims.push((await credentials(other, id)).claim!);
  }
  expect(claims[1]).not.toBe(claims[0]);
  const { claim: own } = await credentials(page, id);
  expect(await follow(page, await handoff(other), server)).toBe(id);
  expect((await credentials(page, id)).claim).toBe(own);
});

test('a device asks for a link while it has no connection, and is told', async ({ page, site, server }) => {
  await openIn(page, site, server);
  await settled(page);
  await server.kill9();
  const told = await page.evaluate(() =>
    session.handoff().then(String, ({ code, message }: throughline.SessionError) => `${code}: ${message}`),
  );
  expect(told).toMatch(/^unreachable: the server can't be asked/);
});

test('who gives up opening is told so, and nothing goes on', async ({ page, site, server }) => {
  await openIn(page, site, server);
  const told = await page.evaluate(async (url) => {
    const { openSession } = (await import('/throughline/index.js' as string)) as typeof throughline;
    const abort = new AbortController();
    const sessionId = 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv';
    const opening = openSession({ url: url.replace(/:\d+/, ':9'), sessionId, token: 'nobody', signal: abort.signal });
    setTimeout(() => abort.abort(new Error('the buyer went on')), 50);
    const late = await opening.then(String, String);
    const never = await openSession({ url, signal: AbortSignal.abort(new Error('before')) }).then(String, String);
    return [late, never];
  }, server.url);
  expect(told).toEqual(['Error: the buyer went on', 'Error: before']);
});

for (const answers of [
  ['acceptUpsell', 'acceptUpsell'],
  ['acceptUpsell', 'declineUpsell'],
] as const) {
  test(`of two devices that answer one offer while they are cut off (${answers.join(', ')}), it is answered once`, async ({
    browser,
    page,
    site,
    server,
  }) => {
    const other = await (await browser.newContext()).newPage();
    const id = await twoDevices(page, other, site, server);
    const devices = [page, other];
    for (const device of devices) await device.context().setOffline(true);
    for (const [index, device] of devices.entries()) {
      await device.waitForFunction(() => session.sync.connection === 'offline');
      await device.evaluate((answer) => void session[answer]('RC6'), answers[index]!);
      expect((await shown(device)).upsells.find(({ offer }) => offer === 'RC6')?.state).toBe(
        answers[index] === 'acceptUpsell' ? 'accepted' : 'declined',
      );
    }
    await Promise.all(devices.map((device) => device.context().setOffline(false)));
    for (const device of devices) await settled(device);

    const { upsells, totals } = await stored(server, id);
    const offer = upsells.find(({ offer }) => offer === 'RC6')!;
    const types = (await journal(server, id)).map(({ event }) => event.type);
    expect(types.filter((type) => type === 'offerAccepted' || type === 'offerDeclined')).toHaveLength(1);
    expect(totals.upsells).toBe(offer.state === 'accepted' ? offer.price : 0);
    for (const device of devices) {
      await device.waitForFunction((state) => session.getSnapshot().upsells.find(({ offer }) => offer === 'RC6')?.state === state, offer.state);
    }
    // Who has wished something else is told; who has wished the same need not be.
    const told = await Promise.all(devices.map((device) => device.evaluate(() => refusals.map(({ command }) => command))));
    const losers = answers.filter((answer) => (answer === 'acceptUpsell') !== (offer.state === 'accepted'));
    expect(told.flat()).toEqual(losers);
  });
}
