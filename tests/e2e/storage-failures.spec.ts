import type { Page } from '@playwright/test';

import { freeze, thaw, whoLeads } from './browser-tabs.js';
import { expect, test } from './fixtures.js';
import { disorder, journal, openHere, openIn, overwrite, readable, records, settled, shown, stored, storedByBrowser } from './sdk.js';

declare global {
  interface Window {
    /** Which storage is full in this page. */
    full: { indexedDB?: 'throws' | 'aborts'; localStorage?: boolean };
    /** The storage events of the page's session. */
    rungs: string[];
    damaged: string[];
    isNewer: boolean;
  }
}

/** Lets a test fill up the page's storage at any time. */
async function makeFillable(page: Page): Promise<void> {
  await page.addInitScript(() => {
    window.full = {};
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (value, key) {
      const { indexedDB } = window.full;
      if (indexedDB === 'throws') throw new DOMException('full', 'QuotaExceededError');
      const request = put.call(this, value, key);
      if (indexedDB === 'aborts') this.transaction.abort();
      return request;
    };
    const setItem = Storage.prototype.setItem;
    Storage.prototype.setItem = function (key, value) {
      if (window.full.localStorage) throw new DOMException('full', 'QuotaExceededError');
      setItem.call(this, key, value);
    };
  });
}

/** Notes what the session says of its storage, from now on. */
async function listen(page: Page): Promise<void> {
  await page.evaluate(() => {
    window.rungs = [];
    window.damaged = [];
    window.isNewer = false;
    session.on('storage', (rung) => window.rungs.push(rung));
    session.on('damaged', (keys) => window.damaged.push(...keys));
    session.on('newerStorage', () => (window.isNewer = true));
  });
}

/** How many commands lie in localStorage. */
function commandsInLocalStorage(page: Page): Promise<number> {
  return page.evaluate(() => Object.keys(localStorage).filter((key) => key.includes('/command/')).length);
}

for (const how of ['throws', 'aborts'] as const) {
  test(`where IndexedDB is full and a write ${how}, localStorage keeps what is done from then on`, async ({ page, site, server }) => {
    await makeFillable(page);
    const id = await openIn(page, site, server);
    await settled(page);
    await listen(page);
    await server.kill9();
    await page.evaluate(() => void session.setMetadata({ before: 1 }));
    await storedByBrowser(page, '"before":1');
    await page.evaluate((how) => {
      window.full = { indexedDB: how };
      session.setEmail('full@example.com');
    }, how);
    await page.waitForFunction(() => session.sync.storage === 'localStorage');
    expect(await page.evaluate(() => window.rungs)).toEqual(['localStorage']);
    await page.evaluate(() => void session.setMetadata({ after: 1 }));
    await expect.poll(() => commandsInLocalStorage(page)).toBe(3);

    // Where there is room again both are read.
    await page.reload();
    expect(await openHere(page, server)).toBe(id);
    expect(await shown(page)).toMatchObject({ email: 'full@example.com', metadata: { before: 1, after: 1 } });
    await server.restart();
    await settled(page, 45_000);
    expect(await stored(server, id)).toMatchObject({ email: 'full@example.com', metadata: { before: 1, after: 1 } });
    expect(disorder(await journal(server, id))).toEqual([]);
    await expect.poll(() => commandsInLocalStorage(page)).toBe(0);
  });
}

test('where everything is full, the session goes on in memory and loses nothing', async ({ page, site, server }) => {
  await makeFillable(page);
  const id = await openIn(page, site, server);
  await settled(page);
  await listen(page);
  await server.kill9();
  await page.evaluate(() => {
    window.full = { indexedDB: 'aborts' };
    session.setEmail('full@example.com');
  });
  await page.waitForFunction(() => session.sync.storage === 'localStorage');
  await page.evaluate(() => {
    window.full = { indexedDB: 'aborts', localStorage: true };
    session.setMetadata({ memory: 1 });
  });
  await page.waitForFunction(() => session.sync.storage === 'memory');
  expect(await page.evaluate(() => window.rungs)).toEqual(['localStorage', 'memory']);
  await page.evaluate(() => void session.setCustomer({ firstName: 'Ada' }));
  await server.restart();
  await settled(page, 45_000);
  expect(await stored(server, id)).toMatchObject({
    email: 'full@example.com',
    metadata: { memory: 1 },
    customer: { firstName: 'Ada' },
  });
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('a session in memory goes on after its page was frozen', async ({ ordinary, site, server }) => {
  const page = await ordinary.newPage();
  const id = await openIn(page, site, server, { storage: 'memory' });
  await settled(page);
  await listen(page);
  await server.kill9();
  await page.evaluate(() => void session.setEmail('frozen@example.com'));
  await thaw(await freeze(page));
  await page.waitForFunction(() => session.sync.connection === 'connecting', undefined, { polling: 20 });
  expect((await shown(page)).email).toBe('frozen@example.com');
  await server.restart();
  await settled(page, 45_000);
  expect((await stored(server, id)).email).toBe('frozen@example.com');
  expect(await page.evaluate(() => window.damaged)).toEqual([]);
  expect(disorder(await journal(server, id))).toEqual([]);
});

test("when the site's data is cleared while tabs are open, they go on, and what is pending is stored again", async ({
  context,
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const other = await context.newPage();
  expect(await openIn(other, site, server)).toBe(id);
  await settled(other);
  await server.kill9();
  const { leader, followers } = await whoLeads([page, other]);
  await leader.evaluate(() => void session.setEmail('cleared@example.com'));
  await followers[0]!.evaluate(() => void session.setMetadata({ follower: 1 }));
  await storedByBrowser(page, 'cleared@example.com', '"follower":1');
  const devtools = await context.newCDPSession(page);
  // As a person clears the site's data in the browser's settings.
  await devtools.send('Storage.clearDataForOrigin', { origin: site.url, storageTypes: 'all' });
  await leader.evaluate(() => void session.setCustomer({ firstName: 'Ada' }));
  await storedByBrowser(page, 'cleared@example.com', '"follower":1', 'Ada');
  expect(await page.evaluate(() => session.sync.storage)).toBe('indexedDB');

  await other.close();
  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  const all = { email: 'cleared@example.com', metadata: { follower: 1 }, customer: { firstName: 'Ada' } };
  expect(await shown(page)).toMatchObject(all);
  await server.restart();
  await settled(page, 45_000);
  expect(await stored(server, id)).toMatchObject(all);
  expect(disorder(await journal(server, id))).toEqual([]);
});

/** Closes the session with two commands that only the browser has; the answer is their keys. */
async function leaveTwoCommands(page: Page, id: string): Promise<[string, string]> {
  await page.evaluate(() => {
    session.goOffline();
    session.setEmail('first@example.com');
    session.setMetadata({ second: 2 });
  });
  await storedByBrowser(page, 'first@example.com', '"second":2');
  await page.evaluate(() => session.close());
  const found = Object.entries(await readable(page)).filter(([key]) => key.startsWith(`${id}/command/`));
  const keyOf = (text: string) => found.find(([, record]) => record.includes(text))![0];
  return [keyOf('first@example.com'), keyOf('"second":2')];
}

test('a record with one wrong bit is set aside, and the page is told', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const [, second] = await leaveTwoCommands(page, id);
  const bytes = Buffer.from((await records(page))[second]!, 'base64');
  bytes[bytes.length >> 1]! ^= 1;
  await overwrite(page, second, bytes.toString('base64'));

  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  await listen(page);
  await expect.poll(() => page.evaluate(() => window.damaged)).toEqual([second]);
  await settled(page);
  const kept = await records(page);
  expect(kept[`damaged/${second}`]).toBe(bytes.toString('base64'));
  expect(kept[second]).toBeUndefined();
  // What is not damaged arrives.
  expect(await stored(server, id)).toMatchObject({ email: 'first@example.com', metadata: {} });
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('a record in the place of another one is set aside, and the page is told', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const [first, second] = await leaveTwoCommands(page, id);
  await overwrite(page, second, (await records(page))[first]!);

  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  await listen(page);
  await expect.poll(() => page.evaluate(() => window.damaged)).toEqual([second]);
  await settled(page);
  expect(Object.keys(await records(page))).toContain(`damaged/${second}`);
  expect(await stored(server, id)).toMatchObject({ email: 'first@example.com', metadata: {} });
  expect(disorder(await journal(server, id))).toEqual([]);
});

/** Puts a record into the browser's storage as this package does, with the key of its session. */
async function seal(page: Page, key: string, text: string): Promise<void> {
  const sealed = await page.evaluate(
    async ([name, text]) => {
      const request = indexedDB.open('throughline');
      await new Promise((resolve) => (request.onsuccess = resolve));
      const asked = request.result.transaction('keys').objectStore('keys').get(name.split('/')[0]!);
      await new Promise((resolve) => (asked.onsuccess = resolve));
      request.result.close();
      const iv = crypto.getRandomValues(new Uint8Array(12));
      const parameters = { name: 'AES-GCM', iv, additionalData: new TextEncoder().encode(name) };
      const sealed = await crypto.subtle.encrypt(parameters, asked.result as CryptoKey, new TextEncoder().encode(text));
      return btoa(String.fromCharCode(...iv, ...new Uint8Array(sealed)));
    },
    [key, text] as const,
  );
  await overwrite(page, key, sealed);
}

test('what a newer version has stored is left alone, and the page is told', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  await leaveTwoCommands(page, id);
  await seal(page, `${id}/base`, '2:{"of":"a later version"}');
  const before = await records(page);

  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  await listen(page);
  await expect.poll(() => page.evaluate(() => window.isNewer)).toBe(true);
  await settled(page);
  expect(await page.evaluate(() => session.sync.storage)).toBe('memory');
  // The server has what it needs.
  expect((await shown(page)).email).toBe('ada@example.com');
  await page.evaluate(() => session.setCustomer({ firstName: 'Ada' }).durable);
  expect((await stored(server, id)).customer.firstName).toBe('Ada');
  expect(await page.evaluate(() => window.damaged)).toEqual([]);
  await page.evaluate(() => session.close());
  expect(await records(page)).toEqual(before);
  expect(disorder(await journal(server, id))).toEqual([]);
});
