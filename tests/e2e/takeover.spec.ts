import type { BrowserContext, CDPSession, Page } from '@playwright/test';

import { countCommands, crash, durableCommands, freeze, leads, storedCommands, tellOfStored, thaw, watchStored } from './browser-tabs.js';
import { expect, test } from './fixtures.js';
import { seeded, seedOfThisRun } from './random.js';
import { disorder, journal, openIn, settled } from './sdk.js';
import type { ThroughlineServer } from './server.js';
import type { StaticSite } from './static-site.js';

const takeOvers = Number(process.env.THROUGHLINE_TEST_TAKE_OVERS ?? 500);
/** Sessions of one browser, at the same time. */
const sessions = 4;
const fewestTabs = 3;
const mostTabs = 4;
const paceMs = 300;
/** How long a stuck page is: longer than the others have patience with it. */
const stuckForMs = 1600;
const takeOverLimitMs = 2000;
const patienceMs = 60_000;

/** What may become of a tab, and how often. */
const fates = { freeze: 58, leave: 20, load: 10, close: 7, crash: 4, stick: 1 };
type Fate = keyof typeof fates;

interface Tab {
  page: Page;
  /** Brings it back; nothing where it is there. */
  comeBack?: () => Promise<void>;
}

/** Fails with what was waited for, instead of hanging. */
function within<T>(what: string, work: Promise<T>, limitMs = patienceMs): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${limitMs} ms`)), limitMs);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** The tabs of one session. */
class Tabs {
  id: string | undefined;
  readonly durationsMs: number[] = [];
  readonly happened: Record<Fate, number> = { leave: 0, load: 0, freeze: 0, close: 0, crash: 0, stick: 0 };
  /** Pages that the browser dropped while it brought them back. */
  dropped = 0;
  readonly #tabs: Tab[] = [];
  #leader: Tab | undefined;

  constructor(
    readonly context: BrowserContext,
    readonly site: StaticSite,
    readonly server: ThroughlineServer,
    readonly random: () => number,
  ) {}

  get pages(): Page[] {
    return this.#tabs.map(({ page }) => page);
  }

  async open(): Promise<void> {
    const page = await this.context.newPage();
    await this.#begin(page);
    this.#tabs.push({ page });
  }

  async #begin(page: Page): Promise<void> {
    const known = this.id === undefined ? { fresh: true } : { sessionId: this.id };
    this.id = await openIn(page, this.site, this.server, known);
    await page.evaluate((paceMs) => {
      const issue = (count: number) => {
        for (; count > 0; count -= 1) {
          const { clientId } = session.sync;
          const receipt = session.setMetadata({ is: crypto.randomUUID() });
          receipt.durable.then(
            // A command that was issued while its page came back is the next client's.
            () => clientId === session.sync.clientId && window.tellWatching('durable', `${clientId}/${receipt.seq}`),
            () => undefined,
          );
        }
      };
      setInterval(() => !('isOver' in window) && issue(1), paceMs);
      Object.assign(window, { issue, isSame: true });
    }, paceMs);
  }

  /** One tab meets a fate; whether another one leads for that. */
  async step(): Promise<boolean> {
    const here = this.#tabs.filter(({ comeBack }) => !comeBack);
    const leader = (this.#leader ??= (await this.#firstToLead(here)).tab);
    const others = here.filter((tab) => tab !== leader);
    // Mostly it is the tab that leads.
    const victim = (this.random() < 0.1 && others[Math.floor(this.random() * others.length)]) || leader;
    const fate = this.#draw();
    this.happened[fate] += 1;
    const next = this.#firstToLead(here.filter((tab) => tab !== victim));
    next.catch(() => undefined);
    const issued = victim.page.evaluate((count) => (window as unknown as { issue(count: number): void }).issue(count), 1 + Math.floor(this.random() * 3));
    await within(`issuing before '${fate}'`, issued);
    const begun = Date.now();
    await within(`the fate '${fate}'`, this.#meet(victim, fate));
    const isTakenOver = victim === leader;
    if (isTakenOver) {
      const takeOver = within(`the take-over after '${fate}' in ${this.id}`, next);
      const taken = await takeOver.catch(async (error: Error) => {
        // The browser does not freeze every page that it is asked to; then there is nothing to take over.
        const isAwake = fate === 'freeze' && (await within('an answer', victim.page.evaluate(() => true), 1000).catch(() => false));
        if (isAwake || (await this.#wakeWhoLeads())) return undefined;
        throw new Error(`${error.message}\n${await this.#describe()}`);
      });
      if (!taken) {
        await this.#bringBack(victim);
        return false;
      }
      const { tab, at } = taken;
      this.durationsMs.push(at - begun);
      this.#leader = tab;
    }
    await within(`tidying up after '${fate}'`, this.#tidy());
    return isTakenOver;
  }

  /** Whether a page leads that was to be frozen, and is not, or not any more: it counts as awake from now on. */
  async #wakeWhoLeads(): Promise<boolean> {
    for (const tab of this.#tabs.filter(({ comeBack }) => comeBack)) {
      const isLeading = within('an answer', tab.page.evaluate(() => 'session' in window && session.sync.leading), 1000);
      if (!(await isLeading.catch(() => false))) continue;
      await this.#bringBack(tab);
      this.#leader = undefined;
      return true;
    }
    return false;
  }

  /** Who is there, who leads, and who holds or waits for which lock. */
  async #describe(): Promise<string> {
    const of = async ({ page, comeBack }: Tab) => {
      const state = page.evaluate(async () => {
        const { held, pending } = await navigator.locks.query();
        const locks = (list: LockInfo[] | undefined) =>
          (list ?? []).map(({ name, mode, clientId }) => `${name?.replace(/^throughline\/ws_[^/]*\//, '')} ${mode} ${clientId}`);
        return { sync: session.sync, id: session.id, held: locks(held), pending: locks(pending), visibility: document.visibilityState };
      });
      const told = await within('its description', state, 3000).catch((error: Error) => error.message);
      return `${comeBack ? 'away' : 'here'} ${JSON.stringify(told, null, 1)}`;
    };
    return (await Promise.all(this.#tabs.map(of))).join('\n');
  }

  #draw(): Fate {
    const all = Object.entries(fates) as [Fate, number][];
    let left = this.random() * all.reduce((sum, [, weight]) => sum + weight, 0);
    return all.find(([, weight]) => (left -= weight) < 0)?.[0] ?? 'load';
  }

  #firstToLead(tabs: readonly Tab[]): Promise<{ tab: Tab; at: number }> {
    return Promise.any(tabs.map(async (tab) => ({ tab, at: await leads(tab.page) })));
  }

  async #meet(tab: Tab, fate: Fate): Promise<void> {
    const { page } = tab;
    const remove = () => void this.#tabs.splice(this.#tabs.indexOf(tab), 1);
    switch (fate) {
      case 'leave':
        await page.goto(`${this.site.url}/elsewhere`);
        tab.comeBack = async () => {
          await page.goBack({ waitUntil: 'commit' }).catch(async (error: Error) => {
            // The browser may drop a page that it kept while it brings it back.
            if (!error.message.includes('net::ERR_ABORTED')) throw error;
            this.dropped += 1;
            await expect(() => page.goto(this.site.url, { waitUntil: 'commit' })).toPass({ timeout: patienceMs });
          });
          // The browser need not keep every page.
          if (!(await page.evaluate(() => 'isSame' in window))) await this.#begin(page);
        };
        return;
      case 'load':
        await page.goto(this.site.url, { waitUntil: 'commit' });
        tab.comeBack = () => this.#begin(page);
        return;
      case 'freeze': {
        const devtools = await freeze(page);
        tab.comeBack = () => thaw(devtools);
        return;
      }
      case 'stick': {
        const devtools = await stick(page);
        const isFree = new Promise((resolve) => setTimeout(resolve, stuckForMs));
        tab.comeBack = async () => {
          await isFree;
          await devtools.send('Debugger.resume');
          await devtools.detach();
        };
        return;
      }
      case 'close':
        remove();
        await page.close();
        return;
      case 'crash':
        remove();
        await crash(page);
        await page.close();
        return;
    }
  }

  /** Some that are away come back, and there are enough tabs again. */
  async #tidy(): Promise<void> {
    for (const tab of this.#tabs) if (tab.comeBack && this.random() < 0.5) await this.#bringBack(tab);
    while (this.#tabs.length < fewestTabs || (this.#tabs.length < mostTabs && this.random() < 0.1)) await this.open();
    for (const tab of this.#tabs) {
      if (this.#tabs.filter(({ comeBack }) => !comeBack).length < 2 && tab.comeBack) await this.#bringBack(tab);
    }
  }

  async #bringBack(tab: Tab): Promise<void> {
    const { comeBack } = tab;
    delete tab.comeBack;
    await comeBack?.();
  }

  /** All come back, and nothing more is issued. */
  async end(): Promise<void> {
    for (const tab of this.#tabs) await this.#bringBack(tab);
    for (const { page } of this.#tabs) await page.evaluate(() => void Object.assign(window, { isOver: true }));
    for (const { page } of this.#tabs) await settled(page, 30_000);
  }
}

/** Keeps a page from doing anything, without the processor being busy. */
async function stick(page: Page): Promise<CDPSession> {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Debugger.enable');
  const isPaused = new Promise((resolve) => devtools.once('Debugger.paused', resolve));
  await devtools.send('Debugger.pause');
  await isPaused;
  return devtools;
}

// Too much happens for a trace to be of use.
test.use({ trace: 'off' });

test(`${takeOvers} take-overs lose no command and double none`, async ({ ordinary: context, site, server }) => {
  test.setTimeout(480_000);
  const seed = seedOfThisRun();
  console.log(`seed ${seed}`);
  const begun = Date.now();
  await tellOfStored(context);
  const watching = await watchStored(context, `${site.url}/elsewhere`);
  const all = Array.from({ length: sessions }, (_, index) => new Tabs(context, site, server, seeded(seed + index)));
  let left = takeOvers;
  await Promise.all(
    all.map(async (tabs) => {
      for (let count = 0; count < fewestTabs; count += 1) await tabs.open();
      while (left > 0) if (await tabs.step()) left -= 1;
      await tabs.end();
    }),
  );

  const [kept, acknowledged] = [await storedCommands(watching), await durableCommands(watching)];
  const counts = new Map<string, number>();
  const wrong: string[] = [];
  for (const { id } of all) {
    const records = await journal(server, id!);
    for (const [command, count] of countCommands(records)) counts.set(command, count);
    wrong.push(...disorder(records));
  }
  const lost = kept.filter((command) => !counts.has(command));
  const unkept = acknowledged.filter((command) => !counts.has(command));
  const doubled = [...counts].filter(([, count]) => count > 1).map(([command]) => command);
  const durations = all.flatMap(({ durationsMs }) => durationsMs).sort((a, b) => a - b);
  const happened = Object.keys(fates).map((fate) => `${fate} ${all.reduce((sum, tabs) => sum + tabs.happened[fate as Fate], 0)}`);
  console.log(
    `take-overs ${durations.length} (${happened.join(', ')}), stored ${kept.length}, acknowledged ${acknowledged.length}, ` +
      `lost ${lost.length}, doubled ${doubled.length}; median ${durations[durations.length >> 1]} ms, longest ${durations.at(-1)} ms; ` +
      `dropped while coming back ${all.reduce((sum, { dropped }) => sum + dropped, 0)}; ${((Date.now() - begun) / 1000).toFixed(0)} s, seed ${seed}`,
  );
  expect({ lost, doubled, unkept, wrong }).toEqual({ lost: [], doubled: [], unkept: [], wrong: [] });
  expect(kept.length, 'there were commands to lose').toBeGreaterThan(takeOvers);
  expect(durations[Math.floor(durations.length * 0.95)]!).toBeLessThan(takeOverLimitMs);
});
