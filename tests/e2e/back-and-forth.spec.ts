import { chromium, type Browser } from '@playwright/test';

import { expect, test as base } from './fixtures.js';
import { disorder, journal, openIn, settled, shown, stored, storedByBrowser } from './sdk.js';

/** A browser that keeps pages for going back to, as those of people do; Playwright's own does not. */
const test = base.extend<{ keeping: Browser }>({
  keeping: async ({ launchOptions }, use) => {
    const browser = await chromium.launch({ ...launchOptions, ignoreDefaultArgs: ['--disable-back-forward-cache'] });
    await use(browser);
    await browser.close();
  },
});

test('a page that is left and come back to goes on with its session', async ({ keeping, site, server }) => {
  const page = await keeping.newPage();
  const id = await openIn(page, site, server);
  await settled(page);
  const clientId = await page.evaluate(() => {
    addEventListener('pageshow', ({ persisted }) => {
      // At once, before the session is connected again.
      const receipt = session.setMetadata({ cameBack: persisted });
      Object.assign(window, { cameBack: receipt.durable.then(() => receipt.seq) });
    });
    session.setEmail('left@example.com');
    return session.sync.clientId;
  });

  await page.goto(`${site.url}/elsewhere`);
  // A page that is kept has to let go of its socket.
  await expect.poll(async () => (await server.request('/metrics')).text()).toMatch(/^throughline_sockets 0$/m);
  await page.goBack({ waitUntil: 'commit' });
  await page.waitForFunction(() => 'cameBack' in window);
  const seq = await page.evaluate(() => (window as unknown as { cameBack: Promise<number> }).cameBack);
  expect(seq, 'the page is a new client').toBe(1);
  await settled(page);
  await page.evaluate(() => session.setCustomer({ firstName: 'Ada' }).durable);

  expect(await page.evaluate(() => session.sync.clientId)).not.toBe(clientId);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ email: 'left@example.com', customer: { firstName: 'Ada' }, metadata: { cameBack: true } });
  expect((await shown(page)).version).toBe(kept.version);
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('a page in the background cache leaves its session to the other tabs', async ({ keeping, site, server }) => {
  const context = await keeping.newContext();
  const page = await context.newPage();
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => {
    Object.assign(window, { isSame: true });
    session.goOffline();
    session.setEmail('left@example.com');
  });
  await storedByBrowser(page, 'left@example.com');
  await page.goto(`${site.url}/elsewhere`);

  const other = await context.newPage();
  expect(await openIn(other, site, server)).toBe(id);
  await settled(other);
  await other.waitForFunction(() => session.getSnapshot().email === 'left@example.com');
  await other.evaluate(() => session.setMetadata({ other: 1 }).durable);

  await page.goBack({ waitUntil: 'commit' });
  await page.waitForFunction(() => 'isSame' in window && document.visibilityState === 'visible');
  await page.evaluate(() => session.goOnline());
  await settled(page);
  // Its place is the other tab's now, so it begins with nothing; the session comes in a frame after the welcome.
  await page.waitForFunction(() => session.getSnapshot()?.email === 'left@example.com');
  await page.evaluate(() => session.setMetadata({ page: 1 }).durable);
  expect(await stored(server, id)).toMatchObject({ email: 'left@example.com', metadata: { other: 1, page: 1 } });
  await other.waitForFunction(() => (session.getSnapshot().metadata as { page?: number }).page === 1);
  const clients = await Promise.all([page, other].map((tab) => tab.evaluate(() => session.sync.clientId)));
  expect(new Set(clients).size, 'each tab numbers its own commands').toBe(2);
  expect(disorder(await journal(server, id))).toEqual([]);
});
