import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { chromium, type Browser, type LaunchOptions, type Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import { freePort } from './ports.js';
import { openHere, openIn, settled } from './sdk.js';
import type { ThroughlineServer } from './server.js';
import type { StaticSite } from './static-site.js';

/** Kills of the browser for each rung; unless it is given, few, and only where none may lose anything. */
const measured = Number(process.env.THROUGHLINE_TEST_BROWSER_KILLS ?? 0);
const killsInEveryRun = 3;
/** Between a command and the end of the browser. */
const lifeMs = 50;
/** After what time Chromium has written localStorage to the disk. */
const flushedAfterMs = 8000;

type Rung = 'indexedDB' | 'localStorage' | 'memory';

/** A browser that can be killed and started again with what it had written to its profile. */
class MortalBrowser {
  #process: ChildProcess | undefined;
  #browser: Browser | undefined;

  constructor(
    readonly folder: string,
    readonly options: LaunchOptions,
  ) {}

  async start(): Promise<Page> {
    const port = await freePort();
    const own = ['--headless=new', `--remote-debugging-port=${port}`, `--user-data-dir=${this.folder}`, 'about:blank'];
    const child = spawn(this.options.executablePath!, [...(this.options.args ?? []), ...own], {
      stdio: 'ignore',
      // A group of its own, so that all of its processes end at once.
      detached: true,
    });
    this.#process = child;
    const answers = () => fetch(`http://127.0.0.1:${port}/json/version`).then((answer) => answer.ok, () => false);
    await expect.poll(answers, { intervals: [50], timeout: 20_000 }).toBe(true);
    this.#browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    return this.#browser.contexts()[0]!.newPage();
  }

  /** Ends all of its processes at once. */
  async kill9(): Promise<void> {
    const child = this.#process;
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    process.kill(-child.pid, 'SIGKILL');
    await ended;
    await this.#browser?.close().catch(() => undefined);
  }
}

/** How many of the commands survive that were issued just before the browser was killed. */
async function survivors(
  kills: number,
  rung: Rung,
  launchOptions: LaunchOptions,
  site: StaticSite,
  server: ThroughlineServer,
): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'throughline-profile-'));
  const browser = new MortalBrowser(folder, launchOptions);
  let survived = 0;
  /** A new session, known to a server that is down from then on. */
  const begin = async (page: Page) => {
    await server.restart();
    const id = await openIn(page, site, server, { storage: rung, fresh: true });
    await settled(page);
    await server.kill9();
    // Only the command is to be new: all else is on the disk, also where the browser takes its time for that.
    if (rung === 'localStorage') await pause(flushedAfterMs);
    return id;
  };
  try {
    let page = await browser.start();
    let sessionId = await begin(page);
    for (let kill = 1; kill <= kills; kill += 1) {
      const name = `kill${kill}`;
      await page.evaluate((name) => void session.setMetadata({ [name]: 1 }), name);
      await pause(lifeMs);
      await browser.kill9();
      page = await browser.start();
      await page.goto(site.url);
      const isOpen = await openHere(page, server, { storage: rung, sessionId, timeoutMs: 300 }).then(() => true, () => false);
      if (isOpen && (await page.evaluate((name) => name in session.getSnapshot().metadata, name))) survived += 1;
      if (!isOpen) sessionId = await begin(page);
    }
  } finally {
    await browser.kill9();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
  return survived;
}

test(`a command in IndexedDB outlives the end of the browser ${lifeMs} ms later`, async ({ launchOptions, site, server }) => {
  test.setTimeout(120_000);
  expect(await survivors(killsInEveryRun, 'indexedDB', launchOptions, site, server)).toBe(killsInEveryRun);
});

for (const rung of ['indexedDB', 'localStorage', 'memory'] as const) {
  test(`how many commands in ${rung} outlive the end of the browser ${lifeMs} ms later`, async ({ launchOptions, site, server }) => {
    test.skip(measured === 0, 'set THROUGHLINE_TEST_BROWSER_KILLS to the number of kills');
    test.setTimeout(60_000 + measured * 20_000);
    const survived = await survivors(measured, rung, launchOptions, site, server);
    console.log(`| ${rung} | ${measured} kills | ${survived} survived |`);
  });
}
