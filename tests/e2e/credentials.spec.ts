import { expect, test } from './fixtures.js';
import { asService, credentials, disorder, journal, openIn, payFor, settled, shown, stored, tokenOf } from './sdk.js';
import type { ThroughlineServer } from './server.js';

// Long enough for a page to open on a busy machine, short enough to wait for its end.
test.use({ serverArguments: ['--token-ttl', '6s'] });

async function tokenIsOver(server: ThroughlineServer, id: string, token: string): Promise<void> {
  const headers = { authorization: `Bearer ${token}` };
  const status = async () => (await fetch(`${server.url}/v1/sessions/${id}`, { headers })).status;
  await expect.poll(status, { timeout: 20_000 }).toBe(401);
}

test('a browser that was away longer than its token lives comes back with its claim', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => session.goOffline());
  await page.evaluate(() => void session.setEmail('late@example.com'));
  const token = await tokenOf(page, id);
  await tokenIsOver(server, id, token);

  await page.evaluate(() => session.goOnline());
  await settled(page);
  expect((await stored(server, id)).email).toBe('late@example.com');
  expect(await page.evaluate(() => window.failures)).toEqual([]);
  expect(disorder(await journal(server, id))).toEqual([]);
  await expect.poll(async () => (await credentials(page, id)).token).not.toBe(token);
});

test('a session that the shop created is opened with its token; when that is over, the page is told', async ({
  page,
  site,
  server,
}) => {
  const answer = await server.request('/v1/sessions', {
    method: 'POST',
    body: JSON.stringify({ email: 'ada@example.com', products: [{ id: 'fitspresso-1-pack', quantity: 1 }] }),
  });
  expect(answer.status).toBe(201);
  const { session: created, token } = (await answer.json()) as { session: { id: string }; token: string };
  const { id } = created;
  expect(await openIn(page, site, server, { sessionId: id, token })).toBe(id);
  expect(await shown(page)).toMatchObject({ id, email: 'ada@example.com', amount: 7900 });
  await page.evaluate(() => session.goOffline());
  await page.evaluate(() => void session.setMetadata({ kept: true }));
  await tokenIsOver(server, id, await tokenOf(page, id));
  await page.evaluate(() => session.goOnline());
  await page.waitForFunction(() => window.failures.length > 0);
  expect(await page.evaluate(() => window.failures)).toMatchObject([{ code: 'unauthorized' }]);
  expect(await page.evaluate(() => session.sync)).toMatchObject({ connection: 'closed', pending: 1 });

  // What was done meanwhile is not lost: a new token brings it to the server.
  const renewed = await server.request(`/v1/sessions/${id}/token`, { method: 'POST' });
  const { token: next } = (await renewed.json()) as { token: string };
  await openIn(page, site, server, { sessionId: id, token: next });
  await settled(page);
  expect((await stored(server, id)).metadata).toEqual({ kept: true });
});

test.describe('where tokens can be renewed for three seconds', () => {
  test.use({ serverArguments: ['--token-ttl', '3s', '--token-max-age', '3s'] });

  test('a page that stays open for longer proves its session anew, and goes on', async ({ page, site, server }) => {
    const id = await openIn(page, site, server);
    await settled(page);
    const token = await tokenOf(page, id);
    await tokenIsOver(server, id, token);
    await page.evaluate(() => session.setEmail('patient@example.com').durable);
    expect((await stored(server, id)).email).toBe('patient@example.com');
    await expect.poll(async () => (await credentials(page, id)).token).not.toBe(token);
    expect(await page.evaluate(() => window.failures)).toEqual([]);
    expect(disorder(await journal(server, id))).toEqual([]);
  });
});

test('a session of somebody else is not opened', async ({ page, site, server }) => {
  await expect(openIn(page, site, server, { sessionId: 'ws_mwor0dc0_0123456789abcdefghijklmno' })).rejects.toThrow();
});

test.describe('where tokens live for long', () => {
  test.use({ serverArguments: [] });

  test('the buyer pays while another tab and another device are away, and all of them go on', async ({
    page,
    browser,
    context,
    site,
    server,
  }) => {
    const id = await openIn(page, site, server);
    await settled(page);
    const tab = await context.newPage();
    expect(await openIn(tab, site, server)).toBe(id);
    const elsewhere = await browser.newContext();
    const device = await elsewhere.newPage();
    const { code } = await page.evaluate(() => session.handoff());
    expect(await openIn(device, site, server, { handoff: code })).toBe(id);
    await Promise.all([settled(tab), settled(device)]);
    const [token, theirs] = [await tokenOf(page, id), await tokenOf(device, id)];
    await tab.evaluate(() => session.goOffline());
    await device.evaluate(() => session.goOffline());

    await payFor(page, server, id);
    for (const old of [token, theirs]) await tokenIsOver(server, id, old);
    await expect.poll(async () => (await credentials(page, id)).token, 'who was there got a new one').not.toBe(token);
    const renewed = await tokenOf(page, id);
    const headers = { authorization: `Bearer ${renewed}` };
    expect((await fetch(`${server.url}/v1/sessions/${id}`, { headers })).status).toBe(200);

    for (const away of [tab, device]) {
      await away.evaluate(() => session.goOnline());
      await away.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
      await settled(away);
    }
    await expect.poll(async () => (await credentials(device, id)).token, 'by its claim').not.toBe(theirs);
    await device.evaluate(() => session.acceptUpsell('RC6').durable);
    await tab.evaluate(() => session.setMetadata({ note: 'from the tab' }).durable);
    await page.evaluate(() => session.setMetadata({ other: 'from the page' }).durable);
    expect((await stored(server, id)).metadata).toEqual({ note: 'from the tab', other: 'from the page' });
    for (const one of [page, tab, device]) {
      await one.waitForFunction(() => session.getSnapshot().upsells[0]?.state === 'accepted');
      expect(await one.evaluate(() => window.failures)).toEqual([]);
      expect(await one.evaluate(() => window.refusals)).toEqual([]);
    }
    expect(disorder(await journal(server, id))).toEqual([]);
    await elsewhere.close();
  });

  test('when the shop revokes access, an open page and one that comes later are told, and a new token lets one in', async ({
    page,
    site,
    server,
  }) => {
    const id = await openIn(page, site, server);
    await settled(page);
    await tokenOf(page, id);
    expect((await asService(server, id, { type: 'revokeAccess' })).status).toBe(200);
    await page.waitForFunction(() => window.failures.length > 0);
    expect(await page.evaluate(() => window.failures)).toMatchObject([{ code: 'unauthorized' }]);
    await page.evaluate(() => void session.setMetadata({ kept: true }));

    await openIn(page, site, server, { sessionId: id });
    await page.waitForFunction(() => window.failures.length > 0);
    expect(await page.evaluate(() => window.failures)).toMatchObject([{ code: 'unauthorized' }]);
    expect((await stored(server, id)).metadata).toEqual({});

    const answer = await server.request(`/v1/sessions/${id}/token`, { method: 'POST' });
    const { token } = (await answer.json()) as { token: string };
    await openIn(page, site, server, { sessionId: id, token });
    await settled(page);
    expect((await stored(server, id)).metadata).toEqual({ kept: true });
    expect(await page.evaluate(() => window.failures)).toEqual([]);
  });
});
