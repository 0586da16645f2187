import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from './fixtures.js';
import { asService, disorder, journal, numbersByClient, openHere, openIn, overwrite, readable, records, settled, shown, stored } from './sdk.js';

test('where IndexedDB is blocked, localStorage keeps what was done over a reload', async ({ page, site, server }) => {
  await page.addInitScript(() => {
    IDBFactory.prototype.open = () => {
      throw new DOMException('blocked', 'SecurityError');
    };
  });
  const id = await openIn(page, site, server);
  await settled(page);
  expect(await page.evaluate(() => session.sync.storage)).toBe('localStorage');
  await server.kill9();
  await page.evaluate(() => void session.setEmail('kept@example.com'));
  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  expect((await shown(page)).email).toBe('kept@example.com');
  await server.restart();
  await settled(page, 45_000);
  expect((await stored(server, id)).email).toBe('kept@example.com');
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('where all storage is blocked, the session works and says that it is in memory', async ({
  page,
  site,
  server,
}) => {
  await page.addInitScript(() => {
    IDBFactory.prototype.open = () => {
      throw new DOMException('blocked', 'SecurityError');
    };
    Object.defineProperty(window, 'localStorage', {
      get: () => {
        throw new DOMException('blocked', 'SecurityError');
      },
    });
  });
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  expect(await page.evaluate(() => session.sync.storage)).toBe('memory');
  expect((await stored(server, id)).email).toBe('ada@example.com');
});

test('damaged records are set aside, and the server has the rest', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('ada@example.com').durable);
  await page.evaluate(() => session.close());
  const damaged = Object.keys(await records(page)).filter((key) => /\/(base|record|command)/.test(key));
  expect(damaged.length).toBeGreaterThan(0);
  for (const key of damaged) await overwrite(page, key, '{"cut off');

  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  await settled(page);
  expect((await shown(page)).email).toBe('ada@example.com');
  await page.evaluate(() => session.setMetadata({ goes: 'on' }).durable);
  expect((await stored(server, id)).metadata).toEqual({ goes: 'on' });
  const kept = await records(page);
  for (const key of damaged) expect(kept[`damaged/${key}`]).toBe('{"cut off');
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('ASVS 14.3.1 when a session is erased, nothing of it stays in the browser', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('forget-me@example.com').durable);
  expect(JSON.stringify(await readable(page))).toContain('forget-me@example.com');
  expect((await asService(server, id, { type: 'erase' })).status).toBe(200);
  await page.waitForFunction(() => session.getSnapshot().email === null);
  await expect.poll(async () => Object.keys(await records(page)).filter((key) => key.includes(id))).toEqual([]);
  const refused = await page.evaluate(() => session.setEmail('again@example.com').accepted.catch((reason: { code: string }) => reason.code));
  expect(refused).toBe('sessionErased');

  // Nor is anything of it written again, by a tab that begins to lead anew or otherwise.
  await page.evaluate((id) => navigator.locks.request(`throughline/${id}/leader`, { steal: true }, () => undefined), id);
  await page.waitForFunction(async (id) => {
    const { held, pending } = await navigator.locks.query();
    const holds = (locks: LockInfo[] | undefined) => locks?.some(({ name }) => name === `throughline/${id}/leader`) ?? false;
    return holds(held) && !holds(pending);
  }, id);
  await page.waitForFunction(() => session.sync.connection === 'online');
  await page.evaluate(() => session.close());
  expect(Object.keys(await records(page)).filter((key) => key.includes(id))).toEqual([]);
});

test('a session is stored together with the secret that proves it, so that a page that is closed leaves both or none', async ({
  page,
  site,
  server,
}) => {
  await page.addInitScript(() => {
    const transactions: { transaction: IDBTransaction; keys: string[] }[] = [];
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (value: unknown, key?: IDBValidKey) {
      let found = transactions.find(({ transaction }) => transaction === this.transaction);
      if (!found) transactions.push((found = { transaction: this.transaction, keys: [] }));
      found.keys.push(String(key));
      return key === undefined ? put.call(this, value) : put.call(this, value, key);
    };
    Object.assign(window, { written: () => transactions.map(({ keys }) => keys) });
  });
  const id = await openIn(page, site, server);
  await settled(page);
  const written = await page.evaluate(() => (window as unknown as { written(): string[][] }).written());
  const withSecret = written.find((keys) => keys.includes(`${id}/credentials`));
  expect(withSecret?.some((key) => key.startsWith(`${id}/command/`)), JSON.stringify(written)).toBe(true);
  expect(written.findIndex((keys) => keys.some((key) => key.startsWith(`${id}/command/`)))).toBe(written.indexOf(withSecret!));
});

for (const isOpen of [true, false]) {
  test(`after a session was erased while ${isOpen ? 'its page is open' : 'no page has it open'}, the browser begins a new one`, async ({
    page,
    site,
    server,
  }) => {
    const id = await openIn(page, site, server);
    await page.evaluate(() => session.setEmail('forget-me@example.com').durable);
    if (!isOpen) await page.goto(`${site.url}/elsewhere`);
    const erased = await server.request(`/v1/sessions/${id}`, { method: 'DELETE' });
    expect(erased.ok).toBe(true);
    if (!isOpen) {
      // This page still shows what the browser has, until it hears of the server.
      expect(await openIn(page, site, server)).toBe(id);
    }
    await page.waitForFunction(() => session.getSnapshot().email === null);
    await expect.poll(async () => Object.keys(await records(page)).filter((key) => key.includes(id))).toEqual([]);
    await expect.poll(async () => Object.keys(await records(page))).not.toContain('current');

    const next = await openIn(page, site, server);
    expect(next).not.toBe(id);
    await page.evaluate(() => session.setEmail('new@example.com').durable);
    expect((await stored(server, next)).email).toBe('new@example.com');
    expect(await openIn(page, site, server)).toBe(next);
  });
}

test('when the database comes back from a backup, browsers go on, and receipts keep their word', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await page.evaluate(() => session.setEmail('before@example.com').durable);

  const backup = await mkdtemp(join(tmpdir(), 'throughline-backup-'));
  await server.kill9();
  await cp(server.folder, backup, { recursive: true });
  await server.restart();
  await settled(page, 45_000);
  for (let n = 1; n <= 3; n += 1) await page.evaluate((n) => session.setMetadata({ n }).durable, n);

  await server.kill9();
  for (const name of await readdir(server.folder)) await rm(join(server.folder, name), { recursive: true });
  await cp(backup, server.folder, { recursive: true });
  await rm(backup, { recursive: true });
  // Issued while the server is away, numbered after those that the backup does not have.
  await page.evaluate(() => {
    const told: string[] = [];
    session.setMetadata({ first: 1 }).durable.then(() => told.push('first'), () => told.push('not first'));
    session.issue({ type: 'setCoupon', code: 'SAVE10' }).durable.then(() => told.push('second'), () => told.push('not second'));
    Object.assign(window, { told });
  });
  await server.restart();
  await settled(page, 45_000);

  expect(await page.evaluate(() => (window as unknown as { told: string[] }).told)).toEqual(['first', 'second']);
  const kept = await stored(server, id);
  expect(kept).toMatchObject({ email: 'before@example.com', couponCode: 'SAVE10', metadata: { first: 1 } });
  expect((await shown(page)).metadata).toEqual(kept.metadata);
  // The numbers between went with the history that is gone.
  const numbers = numbersByClient(await journal(server, id)).get(await page.evaluate(() => session.sync.clientId));
  expect(numbers).toEqual([...numbers!].sort((a, b) => a - b));
  expect(new Set(numbers).size).toBe(numbers!.length);

  await page.evaluate(() => session.setMetadata({ last: 1 }).durable);
  await page.reload();
  expect(await openHere(page, server)).toBe(id);
  await settled(page);
  expect((await stored(server, id)).metadata).toEqual({ first: 1, last: 1 });
});

for (const moment of ['pagehide', 'visibilitychange', 'unload'] as const) {
  test(`what is issued on ${moment}, while the page is left, is stored`, async ({ page, site, server }) => {
    const id = await openIn(page, site, server);
    await settled(page);
    await page.evaluate((moment) => {
      const late = () => void session.setEmail('ada@example.com');
      (moment === 'visibilitychange' ? document : window).addEventListener(moment, late);
    }, moment);
    await page.goto(`${site.url}/elsewhere`);
    expect(await openHere(page, server)).toBe(id);
    await settled(page);
    expect((await stored(server, id)).email).toBe('ada@example.com');
  });
}

test('a listener that throws is the page’s matter: everything else goes on', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const errors: string[] = [];
  page.on('pageerror', ({ message }) => errors.push(message));
  const told = await page.evaluate(async () => {
    let calls = 0;
    session.subscribe(() => {
      calls += 1;
      if (calls % 2 === 0) throw new Error('the page can not draw this');
    });
    session.on('rejected', () => {
      throw new Error('nor tell this');
    });
    const refused = await session.setEmail('nonsense').accepted.catch(({ code }: { code: string }) => code);
    session.setEmail('ada@example.com');
    const last = session.setEmail('ada.king@example.com');
    await last.durable;
    return { refused, seq: last.seq };
  });
  expect(told).toEqual({ refused: 'invalidField', seq: 3 });
  expect((await stored(server, id)).email).toBe('ada.king@example.com');
  expect(errors).toContain('the page can not draw this');
  expect(errors).toContain('nor tell this');
});
