import { chromium, test as base, type BrowserContext } from '@playwright/test';

import { PaymentService } from './payment-service.js';
import { freePort } from './ports.js';
import { demoFolder, packageFolder } from './repository.js';
import { ThroughlineServer } from './server.js';
import { StaticSite } from './static-site.js';

interface Options {
  /** More arguments of `throughline serve`. */
  serverArguments: readonly string[];
}

interface Fixtures {
  /** An empty page and the package's files under `/throughline/`. */
  site: StaticSite;
  /** The built demo shop. */
  shop: StaticSite;
  /** A server of the test's own, which lets `site` and `shop` connect. */
  server: ThroughlineServer;
  /**
   * A browser that treats its pages as those of people do: it keeps them for going back to, and freezes them when told
   * to. Playwright's own pages count as looked at for ever.
   */
  ordinary: BrowserContext;
  /** The demo's payment service, with the server's key. */
  payments: PaymentService;
  /** The shop's address, for this server and payment service. */
  shopAddress: string;
}

const emptyPage = '<!doctype html><html lang="en"><meta charset="utf-8"><title>test page</title><body></body></html>';

export const test = base.extend<Fixtures & Options>({
  serverArguments: [[], { option: true }],
  site: async ({}, use) => {
    const site = await StaticSite.start({ pages: { '/': emptyPage, '/elsewhere': emptyPage }, folders: { '/throughline/': packageFolder } });
    await use(site);
    await site.stop();
  },
  shop: async ({}, use) => {
    const shop = await StaticSite.start({ folders: { '/': demoFolder } });
    await use(shop);
    await shop.stop();
  },
  server: async ({ site, shop, serverArguments }, use, info) => {
    const server = await ThroughlineServer.start({ allowedOrigins: [site.url, shop.url], args: serverArguments });
    await use(server);
    await server.stop();
    if (info.status !== info.expectedStatus) {
      await info.attach('server.log', { body: server.log, contentType: 'text/plain' });
    }
  },
  ordinary: async ({ launchOptions }, use) => {
    const port = await freePort();
    const args = [...(launchOptions.args ?? []), `--remote-debugging-port=${port}`];
    const launched = await chromium.launch({ ...launchOptions, args, ignoreDefaultArgs: ['--disable-back-forward-cache'] });
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    await use(browser.contexts()[0]!);
    await browser.close();
    await launched.close();
  },
  payments: async ({ server, shop }, use) => {
    const payments = await PaymentService.start(server, shop.url);
    await use(payments);
    await payments.stop();
  },
  shopAddress: async ({ server, shop, payments }, use) => {
    await use(`${shop.url}/?${new URLSearchParams({ server: server.url, payments: payments.url })}`);
  },
});

export { expect } from '@playwright/test';
