import type { BrowserContext, Page } from '@playwright/test';

import { leads, whoLeads } from './browser-tabs.js';
import { expect, test } from './fixtures.js';
import { asService, credentials, disorder, journal, openHere, openIn, payFor, readable, settled, stored } from './sdk.js';
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

/** What the page says hello with from now on. */
function greetings(page: Page): Record<string, unknown>[] {
  const found: Record<string, unknown>[] = [];
  page.on('websocket', (socket) =>
    socket.on('framesent', ({ payload }) => {
      const frame = JSON.parse(String(payload)) as Record<string, unknown>;
      if (frame.type === 'hello') found.push(frame);
    }),
  );
  return found;
}

/** Goes to another page, which has the browser keep this one, and back. */
async function leaveAndComeBack(page: Page, elsewhere: string): Promise<void> {
  await page.evaluate(() => {
    addEventListener('pageshow', ({ persisted }) => Object.assign(window, { wasKept: persisted }), { once: true });
  });
  await page.goto(elsewhere);
  await page.goBack({ waitUntil: 'commit' });
  await page.waitForFunction(() => (window as unknown as { wasKept?: boolean }).wasKept === true);
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

test('a tab that was there before the session moved goes on, and leads by what is in the cookie', async ({
  page,
  context,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const tab = await context.newPage();
  expect(await openIn(tab, site, server, IN_COOKIE)).toBe(id);
  await settled(tab);
  expect((await whoLeads([page, tab])).leader, 'what lets the browser in is where the leading tab has it').toBe(page);
  expect((await credentials(page, id)).claim).toBeTruthy();
  await page.evaluate(() => session.goOffline());
  await leads(tab);
  await moved(tab, id);
  // It ends the token that the old tab still has.
  await payFor(tab, server, id);

  const said = greetings(page);
  await page.evaluate(() => session.goOnline());
  await page.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
  await page.evaluate(() => session.acceptUpsell('RC6').durable);
  expect((await page.evaluate(() => session.handoff())).code).toBeTruthy();
  expect(said, 'the other tab speaks for it').toEqual([]);

  await tab.close();
  await leads(page);
  await page.evaluate(() => session.setMetadata({ led: 'by the old tab' }).durable);
  expect((await stored(server, id)).metadata).toEqual({ led: 'by the old tab' });
  await expect.poll(() => said.length).toBeGreaterThan(0);
  for (const hello of said) for (const secret of ['token', 'claim']) expect(hello).not.toHaveProperty(secret);
  await moved(page, id);
  expect(await page.evaluate(() => window.failures)).toEqual([]);
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('while the cookie can not be had it is asked for ever less often, and nothing is forgotten before it is there', async ({
  page,
  context,
  site,
  server,
}) => {
  // The delays without what is random about them.
  await page.addInitScript(() => (Math.random = () => 0));
  const headers = { 'access-control-allow-origin': site.url, 'access-control-allow-credentials': 'true' };
  let goOn: () => void = () => undefined;
  const looked = new Promise<void>((resolve) => (goOn = resolve));
  // At first it is not set, then it is, and the server is too busy to say that it comes back.
  const refusals = new Map([[1, 503], [3, 429]]);
  const asked: number[] = [];
  await page.route('**/cookie', async (route) => {
    const count = asked.push(performance.now());
    const status = refusals.get(count);
    if (count === 4) await looked;
    await (status === undefined ? route.continue() : route.fulfill({ status, headers }));
  });
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  await expect.poll(() => asked.length, { timeout: 20_000 }).toBe(4);
  expect(await cookieOf(context, id)).toBeTruthy();
  expect(Object.keys(await credentials(page, id)).sort()).toEqual(['claim', 'isInCookie']);
  goOn();
  await moved(page, id);
  expect(asked).toHaveLength(5);
  expect(asked[1]! - asked[0]!).toBeGreaterThanOrEqual(2000);
  expect(asked[3]! - asked[2]!).toBeGreaterThanOrEqual(4000);
  expect((await stored(server, id)).email).toBe('ada@example.com');
  expect(await page.evaluate(() => window.failures)).toEqual([]);
});

test('what is said twice about the cookie is done once', async ({ page, context, site, server }) => {
  let told = 0;
  await page.routeWebSocket('**/v1/sync', (socket) => {
    const behind = socket.connectToServer();
    behind.onMessage((frame) => {
      socket.send(frame);
      if (!String(frame).includes('"cookieDue"')) return;
      told += 1;
      socket.send(frame);
    });
  });
  const asked: string[] = [];
  await page.route('**/cookie', async (route) => {
    asked.push(route.request().method());
    // The page has heard both before there is an answer.
    await page.evaluate(() => undefined);
    await route.continue();
  });
  const id = await openIn(page, site, server, { ...IN_COOKIE, create: { products: [{ id: 'fitspresso-1-pack', quantity: 1 }] } });
  await settled(page);
  await moved(page, id);
  expect(told).toBe(1);
  // Once with the secret, once to see that it comes back.
  expect(asked).toEqual(['POST', 'POST']);

  const before = (await cookieOf(context, id))!.value;
  await payFor(page, server, id);
  await expect.poll(async () => (await cookieOf(context, id))!.value).not.toBe(before);
  expect(told).toBe(2);
  expect(asked).toEqual(['POST', 'POST', 'POST']);
  await page.reload();
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  await page.evaluate(() => session.acceptUpsell('RC6').durable);
  await moved(page, id);
  expect(await page.evaluate(() => window.failures)).toEqual([]);
});

test('a page that is left and come back to still wants the cookie, and goes on with it', async ({ ordinary, site, server }) => {
  const page = await ordinary.newPage();
  const id = await openIn(page, site, server);
  await settled(page);
  await server.kill9();
  // The shop has gone over to cookies, and the server can't be asked for one.
  expect(await openIn(page, site, server, IN_COOKIE)).toBe(id);
  await leaveAndComeBack(page, `${site.url}/elsewhere`);
  expect((await credentials(page, id)).claim).toBeTruthy();
  await server.restart();
  await settled(page, 45_000);
  await moved(page, id);

  const said = greetings(page);
  await leaveAndComeBack(page, `${site.url}/elsewhere`);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect((await stored(server, id)).email).toBe('ada@example.com');
  await expect.poll(() => said.length).toBeGreaterThan(0);
  for (const hello of said) for (const secret of ['token', 'claim']) expect(hello).not.toHaveProperty(secret);
  await moved(page, id);
  expect(await page.evaluate(() => window.failures)).toEqual([]);
});

test('the link for another device that is followed in the same browser leaves the session in its cookie', async ({
  page,
  context,
  site,
  server,
}) => {
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await moved(page, id);
  const claim = (await cookieOf(context, id))!.value.split('~')[1];
  const first = await page.evaluate(() => session.handoff());
  expect(await openIn(page, site, server, { handoff: first.code })).toBe(id);
  await settled(page);
  await moved(page, id);
  expect((await cookieOf(context, id))!.value.split('~')[1], 'the secret that lasts longest stays').toBe(claim);

  // Also beside the tab that leads.
  const second = await page.evaluate(() => session.handoff());
  const tab = await context.newPage();
  expect(await openIn(tab, site, server, { handoff: second.code })).toBe(id);
  await settled(tab);
  await moved(tab, id);
  await tab.evaluate(() => session.setEmail('ada@example.com').durable);
  expect((await stored(server, id)).email).toBe('ada@example.com');
});

test('what a link leaves in the storage while the cookie is asked for goes into the cookie as well', async ({
  page,
  context,
  site,
  server,
}) => {
  let hear: (frame: string) => void = () => undefined;
  await page.routeWebSocket('**/v1/sync', (socket) => {
    socket.connectToServer();
    hear = (frame) => socket.send(frame);
  });
  const id = await openIn(page, site, server, IN_COOKIE);
  await settled(page);
  await moved(page, id);
  const { code } = await page.evaluate(() => session.handoff());
  let answer: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (answer = resolve));
  await page.route('**/cookie', async (route) => {
    await held;
    await route.continue();
  });
  const asked = page.waitForRequest('**/cookie');
  hear('{"type":"cookieDue"}');
  await asked;

  const tab = await context.newPage();
  expect(await openIn(tab, site, server, { handoff: code })).toBe(id);
  await settled(tab);
  expect(await credentials(tab, id)).toHaveProperty('token');
  answer();
  await moved(tab, id);
  await tab.evaluate(() => session.setEmail('ada@example.com').durable);
  expect((await stored(server, id)).email).toBe('ada@example.com');
  expect(await page.evaluate(() => window.failures)).toEqual([]);
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
