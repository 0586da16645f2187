import { expect, type CDPSession, type Page } from '@playwright/test';

import type { ThroughlineServer } from './server.js';

declare global {
  interface Window {
    /** The commands that any tab has stored, as `<client>/<number>`; only in the page that watches. */
    storedCommands: Set<string>;
  }
}

/** The name of the channel on which tabs tell the watching page what they have stored. */
const CHANNEL = 'test/stored';

/** Has every page of this browser context tell the watching page of each command as soon as it is stored. */
export async function tellOfStored(context: { addInitScript: Page['addInitScript'] }): Promise<void> {
  await context.addInitScript((name) => {
    const channel = new BroadcastChannel(name);
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (value, key) {
      const [, kind, clientId, number] = String(key).split('/');
      if (kind === 'command') {
        this.transaction.addEventListener('complete', () => channel.postMessage(`${clientId}/${Number(number)}`));
      }
      return put.call(this, value, key);
    };
    // A page with an open channel is not kept for going back.
    addEventListener('pagehide', () => channel.close());
  }, CHANNEL);
}

/** Has this page, which opens no session, hear what the others have stored. */
export async function watchStored(page: Page): Promise<void> {
  await page.evaluate((name) => {
    window.storedCommands = new Set();
    new BroadcastChannel(name).onmessage = ({ data }) => window.storedCommands.add(String(data));
  }, CHANNEL);
}

/** The commands that were stored, as `<client>/<number>`. */
export async function storedCommands(watching: Page): Promise<string[]> {
  return watching.evaluate(() => [...window.storedCommands]);
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
        const check = () => session.sync.leading && session.sync.connection === 'online' && resolve(Date.now());
        session.subscribe(check);
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
