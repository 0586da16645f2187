import { test as base } from '@playwright/test';

import { demoFolder, packageFolder } from './repository.js';
import { ThroughlineServer } from './server.js';
import { StaticSite } from './static-site.js';

interface Fixtures {
  /** An empty page and the package's files under `/throughline/`. */
  site: StaticSite;
  /** The built demo shop. */
  shop: StaticSite;
  /** A server of the test's own, which lets `site` and `shop` connect. */
  server: ThroughlineServer;
}

const emptyPage = '<!doctype html><html lang="en"><meta charset="utf-8"><title>test page</title><body></body></html>';

export const test = base.extend<Fixtures>({
  site: async ({}, use) => {
    const site = await StaticSite.start({ pages: { '/': emptyPage }, folders: { '/throughline/': packageFolder } });
    await use(site);
    await site.stop();
  },
  shop: async ({}, use) => {
    const shop = await StaticSite.start({ folders: { '/': demoFolder } });
    await use(shop);
    await shop.stop();
  },
  server: async ({ site, shop }, use, info) => {
    const server = await ThroughlineServer.start({ allowedOrigins: [site.url, shop.url] });
    await use(server);
    await server.stop();
    if (info.status !== info.expectedStatus) {
      await info.attach('server.log', { body: server.log, contentType: 'text/plain' });
    }
  },
});

export { expect } from '@playwright/test';
