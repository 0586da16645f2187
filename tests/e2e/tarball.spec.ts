import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Page } from '@playwright/test';

import type * as throughline from 'throughline';
import type { Parity } from 'throughline/server';

import { type Consumer, expect, program, test, withoutTypes } from './consumer.js';
import { freePort } from './ports.js';
import { block, blockFor, blocksOf, readme } from './readme.js';
import { inRepository } from './repository.js';
import { records, stored } from './sdk.js';
import { ThroughlineServer } from './server.js';
import { type SiteContent, StaticSite } from './static-site.js';

/** What the README's blocks are run by, below; all of them are type-checked as well. */
const ran = [
  'checkout.ts',
  'vite.config.js',
  'build.mjs',
  'index.html',
  'cdn.ts',
  'app/page.tsx',
  'order.mjs',
  'worker.ts',
  'back-end.ts',
  'Content-Security-Policy',
];
const typeChecked = ['checkout.ts', 'pay.ts', 'cdn.ts', 'app/page.tsx', 'worker.ts', 'back-end.ts', 'devices.ts', 'errors.ts'];

/** What importing must leave alone, also where a runtime has it. */
const ofBrowsers = [
  ...['window', 'self', 'document', 'location', 'navigator', 'addEventListener', 'localStorage', 'sessionStorage'],
  ...['indexedDB', 'caches', 'BroadcastChannel', 'WebSocket', 'fetch', 'crypto', 'performance'],
];

/** A page's script, with the session's id in the page's title. */
const titled = (script: string) => `${script}\ndocument.title = session.id;\n`;

const checkoutFor = (server: ThroughlineServer) => titled(blockFor('checkout.ts', { server: server.url }));
const scriptFor = (server: ThroughlineServer) => withoutTypes(checkoutFor(server));

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
import { type CreatedSession, type Session as ServerSession, ThroughlineError, ThroughlineServer } from 'throughline/server';
import { type FunnelSessionData, FunnelSessionManager, funnelSessionManager, LegacyCallRefused } from 'throughline/legacy';
import { type Effects, RouteMigration } from 'throughline/legacy/server';

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

export async function backEnd(shop: ThroughlineServer, signal: AbortSignal): Promise<number> {
  const { session, token }: CreatedSession = await shop.createSession({ products: [{ id: 'a', quantity: 1, price: 100 }] }, { signal });
  const paid: ServerSession = await shop.command(session.id, { type: 'recordPayment', transactionId: 't', amount: session.amount }, { timeoutMs: 5_000 });
  for await (const { status } of shop.listSessions({ email: paid.email ?? '', status: ['completed'] })) console.log(status, token);
  // @ts-expect-error There is no such command.
  await shop.command(session.id, { type: 'makeMeRich' });
  // @ts-expect-error Money is an integer.
  await shop.updateSession(session.id, { adjustments: { discount: '1.50' } });
  return shop.getByEmail('ada@example.com').then(({ length }) => length, (error: ThroughlineError) => (error.code === 'timedOut' ? 0 : -1));
}

class ShopRequest extends Request {
  readonly step = 1;
}

export function moving(server: ThroughlineServer): (request: ShopRequest, context: { params: { id: string } }) => Promise<Response> {
  const side = async (request: ShopRequest, { params }: { params: { id: string } }, effects: Effects): Promise<Response> =>
    Response.json(await effects.once('charge', () => request.step + params.id.length));
  const migration = new RouteMigration({ server });
  // @ts-expect-error A mode is one of five words.
  migration.route('a', { unified: side, initialMode: 'sometimes' });
  return migration.route('POST /a', { legacy: side, unified: side, initialMode: 'on', tolerance: { amount: 0.005 } });
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

/** Starts a server for the pages of this port, as long as `work` takes. */
async function withServer(port: number, work: (server: ThroughlineServer) => Promise<void>): Promise<void> {
  const server = await ThroughlineServer.start({ allowedOrigins: [originOf(port)] });
  try {
    await work(server);
  } finally {
    await server.stop();
  }
}

async function withSite(content: SiteContent, port: number, work: () => Promise<void>): Promise<void> {
  const site = await StaticSite.start(content, port);
  try {
    await work();
  } finally {
    await site.stop();
  }
}

const originOf = (port: number) => `http://127.0.0.1:${port}`;

/** The page with `checkout.ts`: what is entered there is told to be saved, and it is. */
async function expectCheckout(page: Page, port: number, server: ThroughlineServer): Promise<void> {
  await page.goto(originOf(port));
  await expect(page).toHaveTitle(/^ws_/);
  await page.locator('#email').fill('ada@example.com');
  await page.locator('#email').blur();
  await expect(page.locator('#saved')).toHaveText(/^\d+ cents, saved$/);
  expect((await stored(server, await page.title())).email).toBe('ada@example.com');
}

test('every block of the README is run or type-checked, and none twice under one name', () => {
  expect([...readme.keys()].sort()).toEqual([...new Set([...ran, ...typeChecked])].sort());
});

test('the package comes with this README, which names every code of SessionError', async ({ consumer }) => {
  const text = await readFile(join(consumer.package, 'README.md'), 'utf8');
  expect(text).toBe(await readFile(inRepository('crates/wasm-client/js/README.md'), 'utf8'));
  const declared = await readFile(join(consumer.package, 'dist/rejection.d.ts'), 'utf8');
  const [, codes] = /SessionErrorCode =([^]*?');/.exec(declared)!;
  const named = [...text.matchAll(/^\| `(\w+)` \|.*\|.*\|$/gm)].map(([, code]) => code);
  expect(named.sort()).toEqual([...codes!.matchAll(/'(\w+)'/g)].map(([, code]) => code).sort());
});

test('Vite, built', async ({ page, consumer }) => {
  const port = await freePort();
  await withServer(port, async (server) => {
    await consumer.write({
      'vite.config.js': block('vite.config.js'),
      'index.html': block('index.html').replace('checkout.js', 'checkout.ts'),
      'checkout.ts': checkoutFor(server),
    });
    await consumer.run(program('vite'), 'build', '--logLevel', 'warn');
    await withSite({ folders: { '/': consumer.path('dist') } }, port, () => expectCheckout(page, port, server));
  });
});

test('Vite, as it is developed with', async ({ page, consumer }) => {
  const port = await freePort();
  await withServer(port, async (server) => {
    await consumer.write({
      'index.html': block('index.html').replace('checkout.js', 'checkout.ts'),
      'checkout.ts': checkoutFor(server),
    });
    const args = ['--host', '127.0.0.1', '--port', `${port}`, '--strictPort'];
    await consumer.serving(originOf(port), program('vite'), args, () => expectCheckout(page, port, server));
  });
});

test('webpack', async ({ page, consumer }) => {
  const port = await freePort();
  await withServer(port, async (server) => {
    await consumer.write({
      'dist/index.html': block('index.html'),
      'checkout.js': scriptFor(server),
      // webpack's own program is a package of its own; this is what it does.
      'webpack.mjs': `
        import webpack from 'webpack';
        const options = { mode: 'production', entry: './checkout.js', output: { filename: 'checkout.js' } };
        // Minifying takes most of its time, and says nothing of the package, which is minified.
        options.optimization = { minimize: false };
        webpack(options, (error, stats) => {
          if (error ?? stats.hasErrors()) throw error ?? new Error(stats.toString());
        });`,
    });
    await consumer.run('node', 'webpack.mjs');
    await withSite({ folders: { '/': consumer.path('dist') } }, port, () => expectCheckout(page, port, server));
  });
});

test('esbuild', async ({ page, consumer }) => {
  const port = await freePort();
  await withServer(port, async (server) => {
    await consumer.write({
      'build.mjs': block('build.mjs'),
      'dist/index.html': block('index.html'),
      'checkout.ts': checkoutFor(server),
    });
    await consumer.run('node', 'build.mjs');
    await withSite({ folders: { '/': consumer.path('dist') } }, port, () => expectCheckout(page, port, server));
  });
});

test('a script that is no module, with the files of the package on another host', async ({ page, consumer }) => {
  const port = await freePort();
  const cdn = await StaticSite.start({
    folders: { '/': join(consumer.package, 'dist') },
    headers: { 'access-control-allow-origin': '*' },
  });
  await withServer(port, async (server) => {
    const script = blockFor('cdn.ts', { server: server.url, cdn: cdn.url });
    await consumer.write({
      'dist/index.html': '<!doctype html><title>loading</title><script src="page.js"></script>',
      'page.ts': `${script}
        opening.then(async (session) => {
          await session.setEmail('ada@example.com').durable;
          const other = await openSession({ url: '${server.url}', wasm: '', fresh: true, storage: 'localStorage' });
          document.title = [session.id, session.sync.storage, other.sync.storage].join(' ');
        });`,
    });
    await consumer.run(program('esbuild'), 'page.ts', '--bundle', '--outdir=dist', '--log-override:empty-import-meta=silent');
    const requests: string[] = [];
    page.on('request', (request) => requests.push(request.url()));
    await withSite({ folders: { '/': consumer.path('dist') } }, port, async () => {
      await page.goto(originOf(port));
      await expect(page).toHaveTitle(/^ws_\w+ indexedDB localStorage$/);
      const [id] = (await page.title()).split(' ');
      expect((await stored(server, id!)).email).toBe('ada@example.com');
    });
    const files = ['throughline_bg.wasm', 'local_storage_bg.wasm'];
    expect(requests.filter((url) => url.endsWith('.wasm'))).toEqual(files.map((file) => `${cdn.url}/${file}`));
  });
  await cdn.stop();
});

/** The policy of the README, for a server. */
function policyFor(server: ThroughlineServer): Record<string, string> {
  const [, name, value] = /^([\w-]+): (.*)\n$/.exec(blockFor('Content-Security-Policy', { server: server.url }))!;
  return { [name!]: value! };
}

test('a plain page under a strict Content Security Policy', async ({ page, consumer }) => {
  const port = await freePort();
  await page.addInitScript(() => {
    const violations: string[] = [];
    Object.assign(globalThis, { violations });
    addEventListener('securitypolicyviolation', (event) => violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
  });
  const violations = () => page.evaluate(() => (globalThis as unknown as { violations: string[] }).violations);
  const content = {
    folders: { '/throughline/': join(consumer.package, 'dist') },
    pages: { '/': block('index.html') },
  };
  await withServer(port, async (server) => {
    const headers = policyFor(server);
    await consumer.write({ 'site/checkout.js': scriptFor(server).replace('"throughline"', '"./throughline/index.js"') });
    const folders = { ...content.folders, '/': consumer.path('site') };
    await withSite({ ...content, folders, headers }, port, async () => {
      await expectCheckout(page, port, server);
      const rung = await page.evaluate(async (url) => {
        const address = '/throughline/index.js';
        const { openSession } = (await import(address)) as typeof throughline;
        return (await openSession({ url, fresh: true, storage: 'localStorage' })).sync.storage;
      }, server.url);
      expect(rung, 'the module for localStorage is loaded as well').toBe('localStorage');
      expect(await violations()).toEqual([]);
    });

    // Without that word the page hears what is missing, and the policy is seen to be in force.
    const stricter = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.replace(" 'wasm-unsafe-eval'", '')]));
    await withSite({ ...content, headers: stricter }, port, async () => {
      await page.goto(originOf(port));
      const failure = await page.evaluate(async (url) => {
        const address = '/throughline/index.js';
        const { openSession, SessionError } = (await import(address)) as typeof throughline;
        const error: unknown = await openSession({ url }).catch((error: unknown) => error);
        return error instanceof SessionError ? [error.code, error.message, String(error.cause)] : String(error);
      }, server.url);
      expect(failure).toEqual([
        'coreNotLoaded',
        expect.stringContaining("allow 'wasm-unsafe-eval' in script-src"),
        expect.stringContaining('Content Security Policy'),
      ]);
      expect(await violations()).toContain('script-src: wasm-eval');
    });
  });
});

test('Next.js: the server renders, the browser opens the session, a route at the edge opens one of its own, and back ends change them', async ({
  page,
  consumer,
}) => {
  // A whole build of Next.js: most of the time that this file takes.
  test.slow();
  const port = await freePort();
  await withServer(port, async (server) => {
    await consumer.write({
      'app/layout.jsx': 'export default ({ children }) => <html lang="en"><body>{children}</body></html>;',
      'app/page.jsx': withoutTypes(blockFor('app/page.tsx', { server: server.url })),
      'worker.js': withoutTypes(blockFor('worker.ts', { server: server.url })),
      'app/campaign/route.js': `
        import worker from '../../worker.js';
        export const runtime = 'edge';
        export const GET = (request) => worker.fetch(request);`,
      'back-end.js': withoutTypes(blockFor('back-end.ts', { server: server.url })),
      'app/statistics/page.jsx': statisticsPage(server),
      ...Object.fromEntries(['edge', 'nodejs'].map((runtime) => [`app/${runtime}/route.js`, backEndRoute(server, runtime)])),
      ...Object.fromEntries(['edge', 'nodejs'].map((runtime) => [`app/moving/${runtime}/route.js`, movingRoute(server, runtime)])),
    });
    await consumer.run(program('next'), 'build');
    const args = ['start', '--hostname', '127.0.0.1', '--port', `${port}`];
    await consumer.serving(originOf(port), program('next'), args, async () => {
      expect(await (await fetch(originOf(port))).text(), 'as the server renders it').toContain('<p>One moment …</p>');
      for (const count of [0, 1]) {
        expect(await (await fetch(`${originOf(port)}/statistics`)).text(), 'not as it was built').toContain(`<p>Sessions: ${count}</p>`);
        if (count === 0) expect((await server.request('/v1/sessions', { method: 'POST', body: '{}' })).status).toBe(201);
      }
      await page.goto(originOf(port));
      await page.locator('input').fill('ada@example.com');
      const id = (await records(page))['current']!;
      await expect.poll(async () => (await stored(server, id)).email).toBe('ada@example.com');
      await expectCampaign(originOf(port), server);
      for (const runtime of ['edge', 'nodejs']) await expectBackEnd(`${originOf(port)}/${runtime}`, server);
      for (const runtime of ['edge', 'nodejs']) await expectMoving(`${originOf(port)}/moving/${runtime}`, runtime, server);
    });
  });
});

/** A page of Next.js that reads, and by nothing else says that it can't be made beforehand. */
function statisticsPage({ url, serviceKey }: ThroughlineServer): string {
  return `
    import { ThroughlineServer } from 'throughline/server';

    const server = new ThroughlineServer({ url: '${url}', serviceKey: '${serviceKey}' });
    export default async () => <p>{\`Sessions: \${(await server.stats()).total}\`}</p>;`;
}

/** A route of Next.js that moves here, whose sides use what Next.js adds to a request. */
function movingRoute({ url, serviceKey }: ThroughlineServer, runtime: string): string {
  return `
    import { redirect } from 'next/navigation';
    import { RouteMigration } from 'throughline/legacy/server';
    import { ThroughlineServer } from 'throughline/server';

    export const runtime = '${runtime}';
    const server = new ThroughlineServer({ url: '${url}', serviceKey: '${serviceKey}' });
    const migration = new RouteMigration({ server, refreshMs: 0 });
    let charges = 0;
    const side = (by) => async (request, context, effects) => {
      const { card } = await request.json();
      const step = request.nextUrl.searchParams.get('step');
      if (step === 'away') redirect('/' + by);
      const charge = await effects.once('charge', () => card + ' ' + ++charges, { card });
      const answer = { by, step, cookie: request.cookies.get('a')?.value, charge };
      return Response.json(answer, { headers: { 'set-cookie': by + '=1' } });
    };
    export const POST = migration.route('${runtime}', { legacy: side('legacy'), unified: side('unified') });`;
}

/** The route answers by the side that its mode says, pays once, and its sides differ only in who they are. */
async function expectMoving(url: string, route: string, server: ThroughlineServer): Promise<void> {
  const post = (step: string) =>
    fetch(`${url}?step=${step}`, { method: 'POST', headers: { cookie: 'a=b' }, body: '{"card":"tok"}', redirect: 'manual' });
  for (const [mode, by, charge] of [['compare', 'legacy', 'tok 1'], ['on', 'unified', 'tok 2']] as const) {
    await server.setRouteMode(route, mode);
    const answer = await post('2');
    const text = await answer.text();
    expect(answer.status, text).toBe(200);
    expect(JSON.parse(text)).toEqual({ by, step: '2', cookie: 'b', charge });
    expect(answer.headers.getSetCookie()).toEqual([`${by}=1`]);
    const away = await post('away');
    expect([away.status, away.headers.get('location')]).toEqual([307, expect.stringMatching(`/${by}$`)]);
  }
  await expect.poll(async () => parityOf(server, route)).toEqual({ counts: [0, 4, 0, 0], fields: ['by', 'http.location'] });
}

/** What was counted of a route, and which fields differed. */
async function parityOf(server: ThroughlineServer, route: string): Promise<{ counts: number[]; fields: string[] }> {
  const { routes } = (await (await server.request('/v1/parity', { headers: { authorization: `Bearer ${server.operatorKey}` } })).json()) as Parity;
  const { equal, different, legacyFailed, unifiedFailed, fields } = routes.find((parity) => parity.route === route)!;
  return { counts: [equal, different, legacyFailed, unifiedFailed], fields: fields.map(({ field }) => field).sort() };
}

/** The back end of the README as a route of Next.js. */
function backEndRoute({ serviceKey }: ThroughlineServer, runtime: string): string {
  return `
    import backEnd from '../../back-end.js';
    export const runtime = '${runtime}';
    export const GET = (request) => backEnd.fetch(request, { THROUGHLINE_SERVICE_KEY: '${serviceKey}' });`;
}

/** The back end of the README: it believes the server's tokens, and changes the session that they are of. */
async function expectBackEnd(url: string, server: ThroughlineServer): Promise<void> {
  const products = [{ id: 'fitspresso-3-pack', quantity: 1 }];
  const created = await server.request('/v1/sessions', { method: 'POST', body: JSON.stringify({ products }) });
  const { session, token } = (await created.json()) as { session: { id: string; amount: number; currency: string }; token: string };
  const answer = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  expect(JSON.parse(text)).toEqual({ total: session.amount, currency: session.currency });
  expect(await stored(server, session.id)).toMatchObject({ metadata: { seen: true } });
  expect((await fetch(url, { headers: { authorization: 'Bearer made-up' } })).status).toBe(401);
}

/** The worker of the README: the session that it opens is durable when it answers. */
async function expectCampaign(url: string, server: ThroughlineServer): Promise<void> {
  const answer = await fetch(`${url}/campaign?campaign=spring`);
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  const { id, version } = JSON.parse(text) as { id: string; version: number };
  expect(await stored(server, id)).toMatchObject({ version, metadata: { campaign: 'spring' } });
}

test("Cloudflare's workerd", async ({ consumer }) => {
  const [port, serverPort] = [await freePort(), await freePort()];
  await withServer(serverPort, async (server) => {
    await consumer.write({
      'worker.ts': blockFor('worker.ts', { server: server.url }),
      'config.capnp': `
        using Workerd = import "/workerd/workerd.capnp";
        const config :Workerd.Config = (
          services = [
            (name = "worker", worker = (
              modules = [
                (name = "worker.js", esModule = embed "dist/worker.js"),
                (name = "throughline_bg.wasm", wasm = embed "node_modules/throughline/dist/throughline_bg.wasm"),
              ],
              compatibilityDate = "2026-01-01",
            )),
            (name = "internet", network = (allow = ["private"])),
          ],
          sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "worker")],
        );`,
    });
    const conditions = '--conditions=workerd,worker,browser';
    await consumer.run(program('esbuild'), 'worker.ts', '--bundle', '--format=esm', '--outdir=dist', conditions, '--external:*.wasm');
    // The program itself: what npm installs beside it starts it, and is the one that a signal would end.
    const workerd = (await consumer.run('node', '-p', "require('workerd').default")).trim();
    await consumer.serving(originOf(port), workerd, ['serve', 'config.capnp'], () => expectCampaign(originOf(port), server));
  });
});

test('a back end in workerd', async ({ consumer }) => {
  const [port, serverPort] = [await freePort(), await freePort()];
  await withServer(serverPort, async (server) => {
    await consumer.write({
      'back-end.ts': blockFor('back-end.ts', { server: server.url }),
      'config.capnp': `
        using Workerd = import "/workerd/workerd.capnp";
        const config :Workerd.Config = (
          services = [
            (name = "back-end", worker = (
              modules = [(name = "back-end.js", esModule = embed "dist/back-end.js")],
              bindings = [(name = "THROUGHLINE_SERVICE_KEY", text = "${server.serviceKey}")],
              # Of before the runtime knew all of what is asked for.
              compatibilityDate = "2024-01-01",
            )),
            (name = "internet", network = (allow = ["private"])),
          ],
          sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "back-end")],
        );`,
    });
    await consumer.run(program('esbuild'), 'back-end.ts', '--bundle', '--format=esm', '--outdir=dist');
    const workerd = (await consumer.run('node', '-p', "require('workerd').default")).trim();
    await consumer.serving(`${originOf(port)}/`, workerd, ['serve', 'config.capnp'], () => expectBackEnd(originOf(port), server));
  });
});

test('a route that moves here, in workerd', async ({ consumer }) => {
  const [port, serverPort] = [await freePort(), await freePort()];
  await withServer(serverPort, async (server) => {
    await server.setRouteMode('GET /api/cart', 'compare');
    await consumer.write({
      'worker.ts': blocksOf('docs/migration/routes.md')
        .get('worker.ts')!
        .replace('https://checkout.shop.example', server.url)
        .replace("serviceKey: '…'", `serviceKey: '${server.serviceKey}'`),
      'config.capnp': `
        using Workerd = import "/workerd/workerd.capnp";
        const config :Workerd.Config = (
          services = [
            (name = "shop", worker = (
              modules = [(name = "worker.js", esModule = embed "dist/worker.js")],
              # Of before the runtime knew all of what is asked for.
              compatibilityDate = "2024-01-01",
            )),
            (name = "internet", network = (allow = ["private"])),
          ],
          sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "shop")],
        );`,
    });
    await consumer.run(program('esbuild'), 'worker.ts', '--bundle', '--format=esm', '--outdir=dist', '--external:*.wasm');
    const workerd = (await consumer.run('node', '-p', "require('workerd').default")).trim();
    await consumer.serving(`${originOf(port)}/`, workerd, ['serve', 'config.capnp'], async () => {
      const before = (await parityOf(server, 'GET /api/cart')).counts[0]!;
      const answers = await Promise.all(Array.from({ length: 20 }, () => fetch(originOf(port))));
      expect(await Promise.all(answers.map((answer) => answer.json()))).toEqual(Array(20).fill({ items: [] }));
      await expect.poll(async () => (await parityOf(server, 'GET /api/cart')).counts[0]).toBeGreaterThanOrEqual(before + 20);
    });
  });
});

for (const [name, flags, transport] of [
  ['with WebSockets, and with what later versions share with browsers', ['--experimental-websocket', '--import', './later.mjs'], 'webSocket'],
  ['without WebSockets', ['--no-experimental-websocket'], 'requests'],
] as const) {
  test(`Node.js ${name}: the session is durable, and the process ends once it is closed`, async ({ consumer }) => {
    const server = await ThroughlineServer.start();
    await consumer.write({
      'order.mjs': blockFor('order.mjs', { server: server.url }),
      // Not a buyer's storage, nor locks between tabs: none of it may be used.
      'later.mjs': `
        const touch = () => {
          console.error(new Error('was touched').stack);
          process.exit(1);
        };
        for (const name of ['localStorage', 'indexedDB']) Object.defineProperty(globalThis, name, { get: touch });
        Object.defineProperty(globalThis, 'navigator', { value: { locks: { request: touch, query: touch } } });`,
    });
    const [id, ...state] = (await consumer.run('node', ...flags, 'order.mjs')).trim().split(' ');
    expect(state).toEqual(['memory', transport]);
    expect((await stored(server, id!)).email).toBe('ada@example.com');
    await server.stop();
  });
}

test('importing has no effect, touches nothing of a browser, and gives the same classes by every way', async ({ consumer }) => {
  await consumer.write({
    'imports.mjs': `
      import { readFileSync } from 'node:fs';
      import { createRequire } from 'node:module';

      const touched = [];
      for (const name of ${JSON.stringify(ofBrowsers)}) {
        Object.defineProperty(globalThis, name, { configurable: true, get: () => void touched.push(name) });
      }
      const before = Reflect.ownKeys(globalThis).length;
      const folder = new URL('./node_modules/throughline/', import.meta.url);
      const { exports } = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8'));
      const targets = Object.values(exports).flatMap((entry) => (typeof entry === 'string' ? entry : Object.values(entry)));
      // Those for runtimes at the edge import wasm files, and are run there.
      const scripts = targets.filter((target) => /(?<!workerd|edge-light)\\.js$/.test(target));
      const entries = await Promise.all(scripts.map((script) => import(new URL(script, folder))));
      entries.push(createRequire(import.meta.url)('throughline'));
      const classes = new Set(entries.flatMap(({ SessionError }) => SessionError ?? []));
      const added = Reflect.ownKeys(globalThis).length - before;
      console.log(JSON.stringify({ scripts, touched, added, classes: classes.size, self: import.meta.resolve('throughline') }));`,
  });
  const { scripts, self, ...rest } = JSON.parse(await consumer.run('node', 'imports.mjs')) as Record<string, unknown>;
  expect(scripts).toEqual(expect.arrayContaining(['./dist/index.js', './dist/node.js', './dist/slim.js']));
  expect(self).toMatch(/\/dist\/node\.js$/);
  expect(rest).toEqual({ touched: [], added: 0, classes: 1 });
});

test('slim without its wasm file says what to do, and the stack leads to TypeScript', async ({ consumer }) => {
  await consumer.write({
    'slim.mjs': `
      import { openSession, SessionError, version } from 'throughline/slim';

      for (const attempt of [version, openSession]) {
        const error = await attempt({ url: 'https://checkout.shop.example' }).catch((error) => error);
        console.log(JSON.stringify([error instanceof SessionError, error.code, error.message, error.stack]));
      }`,
  });
  const lines = (await consumer.run('node', '--enable-source-maps', 'slim.mjs')).trim().split('\n');
  expect(lines).toHaveLength(2);
  for (const line of lines) {
    const [isSessionError, code, message, stack] = JSON.parse(line) as [boolean, string, string, string];
    expect([isSessionError, code]).toEqual([true, 'coreNotLoaded']);
    expect(message).toContain('pass the file throughline/throughline_bg.wasm to openSession as `wasm`');
    const [, place] = /throughline\/src\/slim\.ts:(\d+)/.exec(stack) ?? [];
    const source = await sourceOf(consumer, 'slim.ts');
    expect(source.split('\n')[Number(place) - 1]).toContain('throw new SessionError');
  }
});

/** A source as the package's source maps hold it; all of them hold all of theirs. */
async function sourceOf(consumer: Consumer, name: string): Promise<string> {
  const dist = join(consumer.package, 'dist');
  const scripts = (await readdir(dist)).filter((file) => file.endsWith('.js'));
  const found = new Map<string, string | null>();
  for (const script of scripts) {
    const { sources, sourcesContent } = JSON.parse(await readFile(join(dist, `${script}.map`), 'utf8')) as {
      sources: string[];
      sourcesContent: (string | null)[];
    };
    sources.forEach((source, index) => found.set(source, sourcesContent[index] ?? null));
  }
  for (const [source, text] of found) expect(text, source).not.toBeNull();
  for (const source of found.keys()) expect(source).toMatch(/^\.\.\/(src|generated)\//);
  return found.get(`../src/${name}`) ?? '';
}

/** What is wrong with these files of the consumer. */
async function typeErrors(
  consumer: Consumer,
  files: Readonly<Record<string, string>>,
  resolution: string,
  module: string,
  more: object = {},
): Promise<string> {
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: 'es2022',
    lib: ['es2022', 'dom'],
    types: [],
    module,
    moduleResolution: resolution,
    jsx: 'preserve',
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    // The package's own declarations are checked as well.
    skipLibCheck: false,
    ...more,
  };
  await consumer.write({ ...files, 'tsconfig.json': JSON.stringify({ compilerOptions, files: Object.keys(files) }) });
  return consumer.run(program('tsc'), '--noEmit').catch(({ stdout }: { stdout: string }) => stdout);
}

for (const [resolution, module] of [
  ['bundler', 'esnext'],
  ['nodenext', 'nodenext'],
] as const) {
  test(`TypeScript with module resolution ${resolution} finds all types of the installed package`, async ({ consumer }) => {
    const files = { ...Object.fromEntries(typeChecked.map((name) => [name, block(name)])), 'shop.ts': typed };
    expect(await typeErrors(consumer, files, resolution, module)).toBe('');
  });
}

test('TypeScript takes the code of docs/server-sdk.md', async ({ consumer }) => {
  const files = { ...Object.fromEntries(blocksOf('docs/server-sdk.md')), 'process.d.ts': 'declare const process: { env: Record<string, string | undefined> };' };
  expect(Object.keys(files)).toContain('app/api/coupon/route.ts');
  expect(await typeErrors(consumer, files, 'bundler', 'esnext')).toBe('');
});

test('TypeScript takes the code of docs/migration/routes.md', async ({ consumer }) => {
  const files = {
    ...Object.fromEntries(blocksOf('docs/migration/routes.md')),
    'process.d.ts': 'declare const process: { env: Record<string, string | undefined> };',
    'lib/database-session-manager.d.ts': `
      interface Row { status: string; vault_id?: string; upsells_accepted: string[] }
      export declare const databaseSessionManager: {
        getSession(id: string): Promise<Row | null>;
        updateSession(id: string, row: Partial<Row>): Promise<Row>;
      };`,
    'lib/payment-gateway.d.ts': `
      export declare const gateway: { chargeVault(vaultId: string, dollars: number): Promise<{ transactionId: string; amount: number }> };`,
  };
  expect(Object.keys(files)).toContain('app/api/upsell/process/route.ts');
  expect(await typeErrors(consumer, files, 'bundler', 'esnext')).toBe('');
});

test('TypeScript takes the code of docs/migration/back-end.md', async ({ consumer }) => {
  const files = Object.fromEntries([...blocksOf('docs/migration/back-end.md')].filter(([name]) => name.endsWith('.ts')));
  expect(Object.keys(files)).toEqual(['src/lib/sessions.ts', 'src/lib/sessions-compatible.ts', 'src/app.ts']);
  // Those of Next.js are not all right by themselves.
  expect(await typeErrors(consumer, files, 'bundler', 'esnext', { skipLibCheck: true, types: ['node'] })).toBe('');
});
