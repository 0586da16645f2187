import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium, type BrowserContext, type LaunchOptions, type Page } from '@playwright/test';

import { whoLeads } from './browser-tabs.js';
import { expect, test } from './fixtures.js';
import { openHere, openIn, records, settled, stored, storedByBrowser } from './sdk.js';

/** A profile of a browser in a folder of its own, and the browser with it. */
class Profile {
  private constructor(
    readonly folder: string,
    readonly options: LaunchOptions,
  ) {}

  static async create(options: LaunchOptions): Promise<Profile> {
    return new Profile(await mkdtemp(join(tmpdir(), 'throughline-profile-')), options);
  }

  async start(): Promise<{ context: BrowserContext; page: Page }> {
    const context = await chromium.launchPersistentContext(this.folder, this.options);
    return { context, page: context.pages()[0] ?? (await context.newPage()) };
  }

  /** The files that have this text, as UTF-8 or UTF-16. */
  async filesWith(text: string): Promise<string[]> {
    const found: string[] = [];
    for (const entry of await readdir(this.folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const file = join(entry.parentPath, entry.name);
      // A browser that runs may have removed it since it was listed.
      const content = await readFile(file).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return Buffer.alloc(0);
        throw error;
      });
      const forms = [Buffer.from(text, 'utf8'), Buffer.from(text, 'utf16le')];
      if (forms.some((form) => content.includes(form))) found.push(file.slice(this.folder.length + 1));
    }
    return found;
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

test('ASVS 14.3.3 what a buyer entered is not readable in the files of the browser', async ({ launchOptions, site, server }) => {
  const profile = await Profile.create(launchOptions);
  const [email, name, offline, plain] = Array.from({ length: 4 }, () => `canary-${crypto.randomUUID().slice(0, 18)}`) as [
    string,
    string,
    string,
    string,
  ];
  try {
    let { context, page } = await profile.start();
    const id = await openIn(page, site, server);
    await page.evaluate(
      async ([email, name]) => {
        session.setEmail(`${email}@example.com`);
        await session.setCustomer({ firstName: name, lastName: name }).durable;
      },
      [email, name] as const,
    );
    await storedByBrowser(page, email, name);
    await server.kill9();
    await page.evaluate((offline) => void session.setEmail(`${offline}@example.com`), offline);
    await storedByBrowser(page, offline);
    // What the same search finds where nothing is encrypted.
    await page.evaluate((plain) => {
      localStorage.setItem('control', plain);
      return new Promise((resolve) => {
        const request = indexedDB.open('control');
        request.onupgradeneeded = () => request.result.createObjectStore('control').put(plain, 'control');
        request.onsuccess = resolve;
      });
    }, plain);
    // Chromium writes localStorage some seconds later, and leaves it out if it has to close in a hurry.
    for (const folder of ['Local Storage', 'IndexedDB']) {
      const search = async () => (await profile.filesWith(plain)).filter((file) => file.includes(folder)).length;
      await expect.poll(search, { message: `the search finds what is in ${folder}`, timeout: 30_000 }).toBeGreaterThan(0);
    }
    await context.close();
    for (const canary of [email, name, offline]) expect(await profile.filesWith(canary)).toEqual([]);
    // The folder does hold the session.
    expect((await profile.filesWith(id)).length).toBeGreaterThan(0);

    ({ context, page } = await profile.start());
    await page.goto(site.url);
    expect(await openHere(page, server)).toBe(id);
    expect(await page.evaluate(() => session.getSnapshot().email)).toBe(`${offline}@example.com`);
    await server.restart();
    await settled(page, 45_000);
    expect(await stored(server, id)).toMatchObject({ email: `${offline}@example.com`, customer: { firstName: name } });
    await context.close();
    for (const canary of [email, name, offline]) expect(await profile.filesWith(canary)).toEqual([]);
  } finally {
    await profile.remove();
  }
});

/** The names of the keys that the browser has, and what comes of asking for one. */
async function keys(page: Page): Promise<{ names: string[]; exported: string[] }> {
  return page.evaluate(async () => {
    const request = indexedDB.open('throughline');
    await new Promise((resolve) => (request.onsuccess = resolve));
    const store = request.result.transaction('keys').objectStore('keys');
    const [names, found] = [store.getAllKeys(), store.getAll()];
    await new Promise((resolve) => (found.onsuccess = resolve));
    request.result.close();
    const exported: string[] = [];
    for (const key of found.result as CryptoKey[]) {
      for (const format of ['raw', 'jwk'] as const) {
        await crypto.subtle.exportKey(format, key).then(
          () => exported.push(format),
          (reason: DOMException) => exported.push(reason.name),
        );
      }
    }
    return { names: names.result.map(String), exported };
  });
}

test('the key of a session can be used and not read', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  expect(await keys(page)).toEqual({ names: [id], exported: ['InvalidAccessError', 'InvalidAccessError'] });
  const plain = await page.evaluate(() => Object.keys(localStorage).filter((name) => name.includes('key')));
  expect(plain).toEqual([]);
});

test('a record says nothing of what is in it, and is another one each time', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => session.goOffline());
  const seen = new Set<string>();
  for (let time = 0; time < 3; time += 1) {
    await page.evaluate(() => void session.setEmail('same@example.com'));
    await storedByBrowser(page, 'same@example.com');
  }
  for (const [key, text] of Object.entries(await records(page))) {
    if (!key.startsWith(`${id}/command/`)) continue;
    expect(Buffer.from(text, 'base64').toString('latin1')).not.toContain('same@example.com');
    seen.add(text.slice(0, 16));
  }
  expect(seen.size, 'no nonce is used twice').toBeGreaterThan(2);
});

test('when a session is erased, its records and its key go at once, whichever tab leads', async ({
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
  const { leader, followers } = await whoLeads([page, other]);
  await leader.evaluate(() => session.setEmail('forget-me@example.com').durable);
  await followers[0]!.evaluate(() => session.setMetadata({ note: 'forget me too' }).durable);
  expect((await server.request(`/v1/sessions/${id}`, { method: 'DELETE' })).ok).toBe(true);
  for (const tab of [leader, ...followers]) await tab.waitForFunction(() => session.getSnapshot().email === null);
  await expect.poll(async () => Object.keys(await records(page)).filter((key) => key.includes(id))).toEqual([]);
  await expect.poll(async () => (await keys(page)).names).toEqual([]);

  // Nor does anything come back, whatever the tabs still do.
  for (const tab of [leader, ...followers]) {
    const refused = await tab.evaluate(() =>
      session.setEmail('again@example.com').accepted.catch((reason: { code: string }) => reason.code),
    );
    expect(refused).toBe('sessionErased');
  }
  await followers[0]!.close();
  await leader.reload();
  expect(Object.keys(await records(leader)).filter((key) => key.includes(id))).toEqual([]);
  expect((await keys(leader)).names).toEqual([]);
});

test('when a session was erased while the browser was away, its records and its key go at the next contact', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('forget-me@example.com').durable);
  await page.goto(`${site.url}/elsewhere`);
  expect((await server.request(`/v1/sessions/${id}`, { method: 'DELETE' })).ok).toBe(true);
  expect((await keys(page)).names).toEqual([id]);
  expect(await openIn(page, site, server)).toBe(id);
  await page.waitForFunction(() => session.getSnapshot().email === null);
  await expect.poll(async () => Object.keys(await records(page)).filter((key) => key.includes(id))).toEqual([]);
  await expect.poll(async () => (await keys(page)).names).toEqual([]);
});
