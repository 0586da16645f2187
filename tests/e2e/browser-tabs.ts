import { expect, type BrowserContext, type CDPSession, type Page } from '@playwright/test';

import type { SessionRecord } from './sdk.js';
import type { ThroughlineServer } from './server.js';

declare global {
  interface Window {
    /** The commands that any tab has stored, as `<client>/<number>`; only in the page that watches. */
    storedCommands: Set<string>;
    /** Those of which a page was told that the database has them. */
    durableCommands: Set<string>;
    /** Tells the page that watches. */
    tellWatching(kind: 'stored' | 'durable', command: string): void;
  }
}

/** The name of the channel on which tabs tell the watching page of their commands. */
const CHANNEL = 'test/commands';

/** Has every page of this browser tell the watching page of each command as soon as it is stored. */
export async function tellOfStored(context: BrowserContext): Promise<void> {
  await context.addInitScript((name) => {
    let channel = new BroadcastChannel(name);
    addEventListener('pagehide', () => channel.close());
    addEventListener('pageshow', () => (channel = new BroadcastChannel(name)));
    window.tellWatching = (kind, command) => channel.postMessage([kind, command]);
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (value, key) {
      const [, kind, clientId, number] = String(key).split('/');
      if (kind === 'command') {
        this.transaction.addEventListener('complete', () => window.tellWatching('stored', `${clientId}/${Number(number)}`));
      }
      return put.call(this, value, key);
    };
  }, CHANNEL);
}

/** A page that opens no session and hears what the others have stored. */
export async function watchStored(context: BrowserContext, address: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(address);
  await page.evaluate((name) => {
    window.storedCommands = new Set();
    window.durableCommands = new Set();
    new BroadcastChannel(name).onmessage = ({ data }) => {
      const [kind, command] = data as ['stored' | 'durable', string];
      (kind === 'stored' ? window.storedCommands : window.durableCommands).add(command);
    };
  }, CHANNEL);
  return page;
}

/** The commands that were stored, as `<client>/<number>`. */
export async function storedCommands(watching: Page): Promise<string[]> {
  return watching.evaluate(() => [...window.storedCommands]);
}

/** The commands of which a page was told that the database has them, as `<client>/<number>`. */
export async function durableCommands(watching: Page): Promise<string[]> {
  return watching.evaluate(() => [...window.durableCommands]);
}

/** How often each command is in a journal, by `<client>/<number>`. */
export function countCommands(records: readonly SessionRecord[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { origin } of records) {
    if (!origin) continue;
    const command = `${origin.clientId}/${origin.seq}`;
    counts.set(command, (counts.get(command) ?? 0) + 1);
  }
  return counts;
}

/** The tab that leads, and the others. */
export async function whoLeads(tabs: readonly Page[]): Promise<{ leader: Page; followers: Page[] }> {
  let found: Page[] = [];
  await expect
    .poll(async () => {
      const leading = await Promise.all(tabs.map((tab) => tab.evaluate(() => session.sync.leading)));
      found = tabs.filter((_, index) => leading[index]);
      return found.length;
    })
    .toBe(1);
  return { leader: found[0]!, followers: tabs.filter((tab) => tab !== found[0]) };
}

/** Waits until the tab leads, and is connected; the answer is when that was, by the clock of this machine. */
export async function leads(tab: Page): Promise<number> {
  return tab.evaluate(
    () =>
      new Promise<number>((resolve) => {
        const check = () => {
          if (!session.sync.leading || session.sync.connection !== 'online') return;
          stop();
          resolve(Date.now());
        };
        const stop = session.subscribe(check);
        check();
      }),
  );
}

/** How many WebSockets the server has open. */
export async function openSockets(server: ThroughlineServer): Promise<number> {
  const text = await (await server.request('/metrics')).text();
  return Number(/^throughline_sockets (\d+)$/m.exec(text)?.[1] ?? NaN);
}

/** Ends the process that shows a page, as running out of memory does. */
export async function crash(tab: Page): Promise<void> {
  const crashed = tab.waitForEvent('crash');
  const devtools = await tab.context().newCDPSession(tab);
  void devtools.send('Page.crash').catch(() => undefined);
  await crashed;
}

/** Freezes a page, as browsers do with those in the background; the answer is for {@link thaw}. */
export async function freeze(tab: Page): Promise<CDPSession> {
  const devtools = await tab.context().newCDPSession(tab);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  return devtools;
}

export async function thaw(devtools: CDPSession): Promise<void> {
  await devtools.send('Page.setWebLifecycleState', { state: 'active' });
  await devtools.detach();
}
