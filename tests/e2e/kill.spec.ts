import { setTimeout as pause } from 'node:timers/promises';

import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { seeded, seedOfThisRun } from './random.js';
import { disorder, journal, openHere, openIn, settled, shown, stored, storedByBrowser, type SessionRecord } from './sdk.js';

const kills = 100;
/** Between the server being ready and its end. */
const longestLifeMs = 500;
const paceMs = 25;

/** What a page did while the server was killed. */
interface Tally {
  issued: number;
  clientId: string;
  /** Numbers of commands whose receipts said that the database has them. */
  durable: number[];
  refused: number;
}

/** Has the page issue a command every few milliseconds, until `stopWriting`. */
async function startWriting(page: Page, name: string): Promise<void> {
  await page.evaluate(
    ([name, paceMs]) => {
      const tally = { issued: 0, durable: [] as number[], refused: 0, clientId: session.sync.clientId };
      const write = () => {
        tally.issued += 1;
        const n = tally.issued;
        // Every tenth sets the address, so that not all commands are alike.
        const receipt =
          n % 10 === 0 ? session.setEmail(`${name}${n}@example.com`) : session.setMetadata({ [name]: n });
        receipt.durable.then(
          () => tally.durable.push(receipt.seq),
          () => (tally.refused += 1),
        );
      };
      const timer = setInterval(write, paceMs);
      Object.assign(window, { write, stopWriting: () => (clearInterval(timer), tally) });
    },
    [name, paceMs] as const,
  );
}

/** How many commands are on their way, after one more where it is wanted. */
async function pendingIn(page: Page, isWriting: boolean): Promise<number> {
  return page.evaluate((isWriting) => {
    if (isWriting) (window as unknown as { write(): void }).write();
    return session.sync.pending;
  }, isWriting);
}

async function stopWriting(page: Page): Promise<void> {
  await page.evaluate(() => void (window as unknown as { stopWriting(): Tally }).stopWriting());
}

async function tallyOf(page: Page): Promise<Tally> {
  return page.evaluate(() => (window as unknown as { stopWriting(): Tally }).stopWriting());
}

/** How often each of this client's commands is in the journal. */
function countCommands(records: readonly SessionRecord[], clientId: string): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { origin } of records) {
    if (origin?.clientId === clientId) counts.set(origin.seq, (counts.get(origin.seq) ?? 0) + 1);
  }
  return counts;
}

test(`${kills} kills of the server lose no command and double none`, async ({ context, page, site, server }) => {
  test.setTimeout(300_000);
  const seed = seedOfThisRun();
  const random = seeded(seed);
  const id = await openIn(page, site, server);
  await settled(page);
  const other = await context.newPage();
  expect(await openIn(other, site, server)).toBe(id);
  const first = (await page.evaluate(() => session.sync.clientId)) as string;
  const writers = [
    { page, name: 'a' },
    { page: other, name: 'b' },
  ];

  for (const { page, name } of writers) await startWriting(page, name);
  let killedWhilePending = 0;
  for (let kill = 0; kill < kills; kill += 1) {
    await pause(random() * longestLifeMs);
    // Half of the kills follow a command at once, however seldom one is on its way on a fast machine.
    const isAtOnce = kill % 2 === 0;
    const pending = await Promise.all(writers.map(({ page }) => pendingIn(page, isAtOnce)));
    if (pending.some((count) => count > 0)) killedWhilePending += 1;
    await server.kill9();
    await server.restart();
  }
  for (const { page } of writers) await stopWriting(page);
  for (const { page } of writers) await settled(page, 60_000);

  const records = await journal(server, id);
  let [issued, acknowledged, lost, doubled, unkept] = [0, 0, 0, 0, 0];
  for (const { page } of writers) {
    const tally = await tallyOf(page);
    // The first page's first command created the session.
    const before = tally.clientId === first ? 1 : 0;
    const counts = countCommands(records, tally.clientId);
    issued += tally.issued;
    acknowledged += tally.durable.length;
    for (let seq = before + 1; seq <= before + tally.issued; seq += 1) {
      const count = counts.get(seq) ?? 0;
      if (count === 0) lost += 1;
      if (count > 1) doubled += 1;
    }
    unkept += tally.durable.filter((seq) => !counts.has(seq)).length;
    expect(tally.refused, 'no command was refused').toBe(0);
    expect(Math.max(...counts.keys()), 'nothing was made up').toBe(before + tally.issued);
  }
  console.log(
    `kills ${kills} (${killedWhilePending} with commands pending), issued ${issued}, acknowledged ${acknowledged}, ` +
      `lost ${lost}, doubled ${doubled}, seed ${seed}`,
  );
  expect({ lost, doubled, unkept }).toEqual({ lost: 0, doubled: 0, unkept: 0 });
  expect(acknowledged).toBe(issued);
  expect(disorder(records)).toEqual([]);
  expect(killedWhilePending, 'the kills met commands on their way').toBeGreaterThan(kills / 4);

  const kept = await stored(server, id);
  // Each page has its own changes by now; those of the other may be on their way still.
  for (const { page } of writers) {
    await page.waitForFunction((version) => session.sync.version === version, kept.version);
  }
  const [a, b] = [await shown(page), await shown(other)];
  const last = (tally: Tally) => tally.issued - (tally.issued % 10 === 0 ? 1 : 0);
  expect(kept.metadata).toEqual({ a: last(await tallyOf(page)), b: last(await tallyOf(other)) });
  for (const session of [a, b]) {
    expect(session.metadata).toEqual(kept.metadata);
    expect(session.email).toBe(kept.email);
    expect(session.version).toBe(kept.version);
  }
});

test('a server that is stopped in good order and started again is met again at once', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await startWriting(page, 'n');
  for (let restart = 1; restart <= 5; restart += 1) {
    const issued = await page.evaluate(() => session.sync.version);
    await page.waitForFunction((issued) => session.sync.version >= issued + 5, issued);
    await server.restart();
    await page.waitForFunction(() => session.sync.connection === 'online');
  }
  await stopWriting(page);
  await settled(page);
  const { issued, durable, refused, clientId } = await tallyOf(page);
  expect({ durable: durable.length, refused }).toEqual({ durable: issued, refused: 0 });
  const records = await journal(server, id);
  expect(disorder(records)).toEqual([]);
  expect(countCommands(records, clientId).size).toBe(issued + 1);
});

test('a command outlives the crash of its page as soon as the browser has stored it', async ({
  context,
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => {
    session.goOffline();
    session.setEmail('crash@example.com');
    session.setMetadata({ n: 1 });
  });
  await storedByBrowser(page, 'crash@example.com', '"n":1');
  expect((await stored(server, id)).email).toBeNull();

  const crashed = page.waitForEvent('crash');
  const devtools = await context.newCDPSession(page);
  void devtools.send('Page.crash').catch(() => undefined);
  await crashed;

  const next = await context.newPage();
  expect(await openIn(next, site, server)).toBe(id);
  await settled(next);
  expect(await shown(next)).toMatchObject({ email: 'crash@example.com', metadata: { n: 1 } });
  expect(await stored(server, id)).toMatchObject({ email: 'crash@example.com', metadata: { n: 1 } });
  expect(disorder(await journal(server, id))).toEqual([]);
});
