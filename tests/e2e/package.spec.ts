import { readFile } from 'node:fs/promises';

import { expect, test } from './fixtures.js';
import { inRepository } from './repository.js';
import { openHere, openIn, settled, shown, stored } from './sdk.js';

test('the package loads from a plain module script', async ({ page, site }) => {
  const manifest = JSON.parse(await readFile(inRepository('target/npm/throughline/package.json'), 'utf8')) as {
    version: string;
  };
  await page.goto(site.url);
  const version = await page.evaluate(async (address) => {
    const throughline = (await import(address)) as { version(): Promise<string> };
    return throughline.version();
  }, '/throughline/index.js');
  expect(version).toBe(manifest.version);
});

test('what a receipt calls durable is in the database, and the page shows the same', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  const { version } = await page.evaluate(() => session.setEmail('ada@example.com').durable);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ id, version, email: 'ada@example.com', status: 'pending' });
  await settled(page);
  const there = await shown(page);
  expect({ ...there, lastAccessedAt: kept.lastAccessedAt }).toEqual(kept);
});

test('what the page gives that can hold no command is refused, and the session goes on', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  // The session's own creation counts among what is pending, until the database has it.
  await settled(page);
  const refused = await page.evaluate(async () => {
    const codes: unknown[] = [];
    const values: Record<string, unknown>[] = [
      { get a() { throw new Error('boom'); } },
      { a: 10n },
      { a: Number.NaN },
      { a: new Map() },
    ];
    for (const metadata of values) {
      const receipt = session.setMetadata(metadata);
      const { code, message } = await receipt.accepted.then(
        () => ({ code: 'accepted', message: '' }),
        (reason: { code: string; message: string }) => reason,
      );
      codes.push([receipt.seq, code, message]);
    }
    return codes;
  });
  expect(refused).toEqual([
    [0, 'malformedCommand', "metadata.a: can't be read: boom"],
    [0, 'malformedCommand', "metadata.a: is a bigint, which JSON can't hold"],
    [0, 'malformedCommand', "metadata.a: is NaN, which JSON can't hold"],
    [0, 'malformedCommand', "metadata.a: is a Map, which JSON can't hold"],
  ]);
  expect(await page.evaluate(() => refusals.length)).toBe(4);
  expect(await page.evaluate(() => session.sync.pending)).toBe(0);
  await page.evaluate(() => session.setMetadata({ goes: 'on', left: undefined }).durable);
  expect((await stored(server, id)).metadata).toEqual({ goes: 'on' });
});

test('where the server lets nobody in, opening says why, and other tabs need not wait for that', async ({
  context,
  page,
  site,
  server,
}) => {
  await page.routeWebSocket(/\/v1\/sync$/, (socket) => {
    const refusal = { type: 'error', code: 'rateLimited', message: 'eight tabs have it open', retryAfterMs: 60_000 };
    socket.onMessage(() => socket.send(JSON.stringify(refusal)));
  });
  await page.goto(site.url);
  const started = Date.now();
  const failure = openHere(page, server, { sessionId: 'ws_mwor0dc0_0123456789abcdefghijklmno', token: 'any', timeoutMs: 8000 }).then(
    () => 'opened',
    (error: Error) => error.message,
  );
  await page.waitForFunction(async () => (await navigator.locks.query()).held!.some(({ name }) => name!.includes('/slot/')));
  await openIn(await context.newPage(), site, server);
  expect(Date.now() - started, 'while the first tab still waits').toBeLessThan(7000);
  expect(await failure).toContain('eight tabs have it open');
});
