import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { Page } from '@playwright/test';

import { expect, test as base } from './fixtures.js';
import { inRepository } from './repository.js';
import { stored } from './sdk.js';
import { ThroughlineServer } from './server.js';
import { StaticSite } from './static-site.js';

const run = promisify(execFile);

/** Opens a session at the server in the page's address, and tells in the page's title when a change is durable. */
const script = (from: string) => `
import { openSession, version } from '${from}';
try {
  const url = new URLSearchParams(location.search).get('server');
  const session = await openSession({ url });
  await session.setEmail('ada@example.com').durable;
  document.title = [await version(), session.id, session.sync.storage].join(' ');
} catch (error) {
  document.title = 'failed: ' + error.message;
}
`;

const html = '<!doctype html><html lang="en"><title>loading</title><script type="module" src="/main.js"></script></html>';

/** What somebody might write who uses the package with TypeScript. */
const typed = `
import {
  openSession,
  version,
  Rejection,
  SessionError,
  type CheckoutSession,
  type Command,
  type Funnel,
  type OpenOptions,
  type Receipt,
  type RejectionCode,
  type Session,
  type SyncState,
  type TimelineEntry,
} from 'throughline';
import { mountDevtools, type Devtools } from 'throughline/devtools';
import { type FunnelSessionData, FunnelSessionManager, funnelSessionManager, LegacyCallRefused } from 'throughline/legacy';

export async function oldPage(): Promise<FunnelSessionData | null> {
  await FunnelSessionManager.ready({ url: 'https://checkout.shop.example', compatibility: true, onRefused: ({ code }) => console.log(code) });
  const { id }: FunnelSessionData = funnelSessionManager.createSession({ email: '', products: [{ id: 'a', name: 'A', price: 1.5, quantity: 1 }] });
  const session: CheckoutSession | null = funnelSessionManager.checkout(id);
  const panel: Devtools | null = session && mountDevtools(session, { theme: 'dark' });
  panel?.unmount();
  try {
    return funnelSessionManager.setSessionStatus(id, 'processing');
  } catch (error) {
    return error instanceof LegacyCallRefused && error.code === 'fieldsMissing' ? null : Promise.reject(error);
  }
}

export async function checkout(funnel: Funnel): Promise<string> {
  const options: OpenOptions = { url: 'https://checkout.shop.example', funnel, wasm: new URL('https://cdn.example/core.wasm') };
  const session: CheckoutSession = await openSession(options);
  const stop: () => void = session.subscribe(() => render(session.getSnapshot(), session.sync));
  session.on('rejected', (rejection: Rejection, command: Command) => {
    const code: RejectionCode = rejection.code;
    console.log(command.type, code, rejection.message);
  });
  session.on('failed', (error: SessionError) => console.log(error.code));
  const receipt: Receipt = session.setCustomer({ firstName: 'Ada', shipping: { zipCode: '94020' } });
  const { version: durable }: { version: number } = await receipt.durable;
  session.setItems([{ id: 'a', quantity: 2 }]);
  session.setCoupon(null);
  session.setMetadata({ campaign: { id: 1 } });
  session.issue({ type: 'acceptUpsell', offer: 'RC6' });
  const entries: readonly TimelineEntry[] = session.timeline;
  stop();
  await session.close();
  return [await version(), durable, entries.length].join();
}

function render({ totals, expiresAt, upsells, products }: Session, { pending, connection }: SyncState): string {
  const cents: number = totals.total + products.reduce((sum, { price, quantity }) => sum + price * quantity, 0);
  const end: number = expiresAt.getTime();
  const open = upsells.filter(({ state }) => state === 'offered').length;
  return [cents, end, open, pending, connection === 'online'].join();
}

// What must not pass: a snapshot is read-only for others, and commands are checked.
export function wrong(session: CheckoutSession): void {
  // @ts-expect-error There is no such command.
  session.issue({ type: 'makeMeRich' });
  // @ts-expect-error Numbers are no addresses.
  session.setEmail(1);
  // @ts-expect-error The connection is one of four words.
  if (session.sync.connection === 'gone') return;
  // @ts-expect-error What is internal is not declared.
  session.engine;
}
`;

/** A project of somebody who installed the tarball. */
const test = base.extend<{ consumer: string }>({
  consumer: async ({}, use) => {
    const folder = await mkdtemp(join(tmpdir(), 'throughline-consumer-'));
    const packed = (await readdir(inRepository('target/npm'))).filter((name) => name.endsWith('.tgz'));
    expect(packed).toHaveLength(1);
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
    await run('npm', ['install', '--offline', '--no-audit', inRepository(`target/npm/${packed[0]}`)], { cwd: folder });
    await use(folder);
    await rm(folder, { recursive: true, force: true });
  },
});

/** Opens the site, and has its session become durable at a server that lets it connect. */
async function expectDurable(page: Page, site: StaticSite): Promise<void> {
  const server = await ThroughlineServer.start({ allowedOrigins: [site.url] });
  try {
    await page.goto(`${site.url}/?${new URLSearchParams({ server: server.url })}`);
    await expect(page).toHaveTitle(/^\d+\.\d+\.\d+ ws_\w+ indexedDB$/);
    const id = (await page.title()).split(' ')[1]!;
    expect((await stored(server, id)).email).toBe('ada@example.com');
  } finally {
    await server.stop();
    await site.stop();
  }
}

test('a Vite project with the packed tarball opens a session that becomes durable', async ({ page, consumer }) => {
  await writeFile(join(consumer, 'index.html'), html);
  await writeFile(join(consumer, 'main.js'), script('throughline'));
  const vite = inRepository('web-demo/node_modules/.bin/vite');
  await run(vite, ['build', '--logLevel', 'warn'], { cwd: consumer });
  await expectDurable(page, await StaticSite.start({ folders: { '/': join(consumer, 'dist') } }));
});

test('a plain page with the installed package opens a session that becomes durable', async ({ page, consumer }) => {
  await writeFile(join(consumer, 'index.html'), html);
  await writeFile(join(consumer, 'main.js'), script('/node_modules/throughline/dist/index.js'));
  await expectDurable(page, await StaticSite.start({ folders: { '/': consumer } }));
});

for (const [resolution, module] of [
  ['bundler', 'esnext'],
  ['nodenext', 'nodenext'],
] as const) {
  test(`TypeScript with module resolution ${resolution} finds all types of the installed package`, async ({
    consumer,
  }) => {
    await writeFile(join(consumer, 'shop.ts'), typed);
    await writeFile(
      join(consumer, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          strict: true,
          noEmit: true,
          target: 'es2022',
          lib: ['es2022', 'dom'],
          types: [],
          module,
          moduleResolution: resolution,
          exactOptionalPropertyTypes: true,
          noUncheckedIndexedAccess: true,
          // The package's own declarations are checked as well.
          skipLibCheck: false,
        },
        files: ['shop.ts'],
      }),
    );
    const tsc = run(inRepository('tests/e2e/node_modules/.bin/tsc'), ['--noEmit'], { cwd: consumer });
    const { stdout } = await tsc.catch((error: { stdout: string }) => error);
    expect(stdout).toBe('');
  });
}
