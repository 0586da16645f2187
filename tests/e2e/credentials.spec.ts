import { expect, test } from './fixtures.js';
import { credentials, disorder, journal, openIn, settled, shown, stored, tokenOf } from './sdk.js';
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
