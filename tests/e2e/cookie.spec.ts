import type { BrowserContext, Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { asService, credentials, disorder, journal, openHere, openIn, readable, settled, stored } from './sdk.js';
import { ThroughlineServer } from './server.js';
import { StaticSite } from './static-site.js';

const IN_COOKIE = { credentials: 'cookie' } as const;

async function cookieOf(context: BrowserContext, id: string) {
  const cookies = await context.cookies();
  return cookies.find(({ name }) => name === `__Host-throughline-${id}`);
}

/** Waits until what lets the browser in is nowhere but in the cookie. */
async function moved(page: Page, id: string): Promise<void> {
  await expect.poll(() => credentials(page, id)).toEqual({ isInCookie: true });
}

test('ASVS 3.3.4 a session that is begun without a connection moves into a cookie, and no script finds what is in it', async ({
  page,
  context,
  site,
  server,
}) => {
  // So that the funnel is known.
  await openIn(page, site, server);
  await context.setOffline(true);
  const id = await openHere(page, server, { ...IN_COOKIE, fresh: true });
  await page.evaluate(() => void session.setMetadata({ begun: 'offline' }));
  expect((await credentials(page, id)).claim).toBeTruthy();
  await context.setOffline(false);
  await settled(page);
  await moved(page, id);
  const cookie = (await cookieOf(context, id))!;
  expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: 'Strict', path: '/', domain: '127.0.0.1' });
  const [token, claim] = cookie.value.split('~') as [string, string];
  expect(await page.evaluate(() => document.cookie)).toBe('');
  const everything = JSON.stringify([await readable(page), await page.evaluate(() => ({ ...localStorage }))]);
  expect(everything).toContain(id);
  expect(everything).not.toContain(token);
  expect(everything).not.toContain(claim);

  // It is enough for the next page, for another tab, and for a change.
  await page.reload();
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  const tab = await context.newPage();
  expect(await openIn(tab, site, server)).toBe(id);
  await page.close();
  await tab.evaluate(() => session.setMetadata({ from: 'the other tab' }).durable);
  expect(await stored(server, id)).toMatchObject({ email: 'ada@example.com', metadata: { begun: 'offline', from: 'the other tab' } });
  expect(await tab.evaluate(() => window.failures)).toEqual([]);
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('the buyer pays while the connection is lost, and comes back by what is in the cookie', async ({
  page,
  context,
  site,
  server,
}) => {
  const id = await openIn(page, site, server, {
    ...IN_COOKIE,
    create: { products: [{ id: 'fitspresso-1-pack', quantity: 1 }] },
  });
  await settled(page);
  await moved(page, id);
  const before = (await cookieOf(context, id))!.value;
  await page.evaluate(async () => {
    session.setEmail('ada@example.com');
    session.setCustomer({ firstName: 'Ada', lastName: 'Lovelace' });
    await session.beginProcessing().durable;
    session.goOffline();
    void session.setMetadata({ while: 'away' });
  });
  const payment = { type: 'recordPayment', transactionId: 't-1', amount: 7900 } as const;
  expect((await asService(server, id, payment)).status).toBe(200);
  await page.evaluate(() => session.goOnline());
  await page.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
  await settled(page);
  await expect.poll(async () => (await cookieOf(context, id))!.value, 'the value changes').not.toBe(before);
  expect((await stored(server, id)).metadata).toEqual({ while: 'away' });
  // And with the connection there, it changes by itself.
  const paid = (await cookieOf(context, id))!.value;
  await page.evaluate(() => session.acceptUpsell('RC6').durable);
  await page.reload();
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  expect((await cookieOf(context, id))!.value.split('~')[1]).toBe(paid.split('~')[1]);
  expect(await page.evaluate(() => window.failures)).toEqual([]);
});

test('a session that is in the storage moves when the shop goes over to cookies, and leaves nothing when it is erased', async ({
  page,
  context,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  expect((await credentials(page, id)).claim).toBeTruthy();
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  await moved(page, id);
  expect((await cookieOf(context, id))!.httpOnly).toBe(true);
  // Also where it has been moved by another page, a page that does not ask for it goes on.
  expect(await openIn(page, site, server)).toBe(id);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect((await server.request(`/v1/sessions/${id}`, { method: 'DELETE' })).status).toBe(204);
  await expect.poll(() => cookieOf(context, id)).toBeUndefined();
});

test('without WebSockets the requests bring the cookie', async ({ page, context, site, server }) => {
  await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'WebSocket'));
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await moved(page, id);
  await page.reload();
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect(await page.evaluate(() => session.sync.transport)).toBe('requests');
  expect((await cookieOf(context, id))!.httpOnly).toBe(true);
});

test('a link for another device is asked for and followed with cookies', async ({ page, browser, site, server }) => {
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await moved(page, id);
  const { code } = await page.evaluate(() => session.handoff());
  const elsewhere = await browser.newContext();
  const device = await elsewhere.newPage();
  expect(await openIn(device, site, server, { ...IN_COOKIE, handoff: code })).toBe(id);
  await settled(device);
  await moved(device, id);
  await device.evaluate(() => session.setEmail('phone@example.com').durable);
  expect((await stored(server, id)).email).toBe('phone@example.com');
  await elsewhere.close();
});

test('a browser that blocks the cookie, as for a page of another site, keeps what it has', async ({ page, context, site }) => {
  const elsewhere = site.url.replace('127.0.0.1', 'localhost');
  const server = await ThroughlineServer.start({ allowedOrigins: [elsewhere] });
  const asked = page.waitForResponse((response) => response.url().endsWith('/cookie') && response.status() === 401);
  await page.goto(elsewhere);
  const id = await openHere(page, server, IN_COOKIE);
  await settled(page);
  await asked;
  // From here on it is as if nobody had asked for a cookie: a token comes as well.
  await expect.poll(async () => Object.keys(await credentials(page, id)).sort()).toEqual(['claim', 'token']);
  expect(await context.cookies(server.url)).toEqual([]);
  await page.reload();
  expect(await openHere(page, server, IN_COOKIE)).toBe(id);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect((await stored(server, id)).email).toBe('ada@example.com');
  await server.stop();
});

test('ASVS 3.5.2 a page of another origin, of the same site, neither reads nor changes anything with the cookie', async ({
  page,
  context,
  site,
  server,
}) => {
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await moved(page, id);
  const { version } = await stored(server, id);
  const evil = await StaticSite.start({ pages: { '/': '<!doctype html><title>evil</title>' } });
  const other = await context.newPage();
  await other.goto(evil.url);
  const outcomes = await other.evaluate(
    async ([address, id]) => {
      const session = `${address}/v1/sessions/${id}`;
      const body = JSON.stringify({ metadata: { by: 'evil' } });
      const json = { 'content-type': 'application/json' };
      const meant = { 'throughline-credentials': 'cookie' };
      const commands = JSON.stringify({ commands: [{ type: 'setMetadata', metadata: { by: 'evil' } }] });
      const requests: [string, RequestInit][] = [
        [session, {}],
        [session, { headers: meant }],
        [session, { method: 'PATCH', headers: { ...json, ...meant }, body }],
        [`${session}/commands`, { method: 'POST', headers: { ...json, ...meant }, body: commands }],
        [`${session}/cookie`, { method: 'DELETE', headers: meant }],
      ];
      const said: unknown[] = [];
      for (const [url, init] of requests) {
        said.push(await fetch(url, { ...init, credentials: 'include' }).then(({ status }) => status, () => 'blocked'));
      }
      // What a form could send: no browser asks before that.
      for (const type of ['text/plain', 'application/x-www-form-urlencoded']) {
        const init = { method: 'POST', headers: { 'content-type': type }, body: commands, mode: 'no-cors' } as const;
        said.push(await fetch(`${session}/commands`, { ...init, credentials: 'include' }).then(({ type }) => type, () => 'blocked'));
      }
      const socket = new WebSocket(`${address.replace('http', 'ws')}/v1/sync`, ['throughline.v1', 'throughline.cookie']);
      said.push(await new Promise((resolve) => {
        socket.onopen = () => resolve('open');
        socket.onerror = () => resolve('blocked');
      }));
      return said;
    },
    [server.url, id] as const,
  );
  expect(outcomes).toEqual([...Array<string>(5).fill('blocked'), 'opaque', 'opaque', 'blocked']);
  await evil.stop();
  expect(await stored(server, id)).toMatchObject({ version, metadata: {} });
  expect(await cookieOf(context, id)).toBeTruthy();
});
