import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { asService, disorder, journal, openIn, settled, shown, stored } from './sdk.js';

/** Lets no WebSocket through, as some proxies do: each is closed before anything is heard, until `isBlocked` is false. */
async function blockSockets(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const Real = WebSocket;
    Object.assign(window, {
      isBlocked: true,
      WebSocket: class extends Real {
        constructor(address: string, protocol: string) {
          // Nobody listens there.
          super((window as unknown as { isBlocked: boolean }).isBlocked ? 'ws://127.0.0.1:9' : address, protocol);
        }
      },
    });
  });
}

const transportOf = (page: Page) => page.evaluate(() => session.sync.transport);

test('where no WebSocket is let through, requests carry the frames', async ({ context, page, site, server }) => {
  await blockSockets(page);
  const id = await openIn(page, site, server);
  await settled(page);
  expect(await transportOf(page)).toBe('requests');
  const { version } = await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect(await stored(server, id)).toMatchObject({ version, email: 'ada@example.com' });

  // What somebody else does arrives without being asked for.
  const began = Date.now();
  await asService(server, id, { type: 'setMetadata', metadata: { by: 'the shop' } });
  await page.waitForFunction(() => (session.getSnapshot().metadata as { by?: string }).by === 'the shop');
  expect(Date.now() - began).toBeLessThan(2000);

  // Another tab follows the one that polls.
  const other = await context.newPage();
  await blockSockets(other);
  expect(await openIn(other, site, server)).toBe(id);
  await other.evaluate(() => session.setCustomer({ firstName: 'Ada' }).durable);
  await page.waitForFunction(() => session.getSnapshot().customer.firstName === 'Ada');
  expect(await transportOf(other)).toBeNull();

  await page.evaluate(() => {
    for (let n = 1; n <= 120; n += 1) session.setMetadata({ n });
  });
  await settled(page);
  expect((await stored(server, id)).metadata).toEqual({ by: 'the shop', n: 120 });
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('requests come back after the server was killed, and give way to a WebSocket once one is let through', async ({
  page,
  site,
  server,
}) => {
  await blockSockets(page);
  const id = await openIn(page, site, server);
  await settled(page);
  await server.kill9();
  await page.waitForFunction(() => session.sync.connection !== 'online');
  await page.evaluate(() => void session.setEmail('offline@example.com'));
  await server.restart();
  await settled(page, 45_000);
  expect((await stored(server, id)).email).toBe('offline@example.com');

  await page.evaluate(() => {
    (window as unknown as { isBlocked: boolean }).isBlocked = false;
    // As when the buyer comes back to the page.
    document.dispatchEvent(new Event('visibilitychange'));
    dispatchEvent(new Event('visibilitychange'));
  });
  await page.waitForFunction(() => session.sync.transport === 'webSocket' && session.sync.connection === 'online');
  await page.evaluate(() => session.setMetadata({ over: 'a socket' }).durable);
  expect((await shown(page)).metadata).toEqual({ over: 'a socket' });
  expect(disorder(await journal(server, id))).toEqual([]);
});
