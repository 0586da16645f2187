// `node measure.mjs --server URL --service-key KEY [--quick]`: measures the package and its peers in one browser, in turn,
// and prints one JSON document: sections of figures.
import { createServer } from 'node:http';
import { copyFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { brotliCompressSync, constants } from 'node:zlib';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const { values: options } = parseArgs({
  options: { server: { type: 'string' }, 'service-key': { type: 'string' }, quick: { type: 'boolean' }, output: { type: 'string' } },
});
const quick = options.quick === true;
const rounds = quick ? 2 : 5;
const sessions = quick ? 100 : 500;
const warmUp = quick ? 100 : 500;
const folder = options.output;

const CHANGING = ['throughline', 'yjs', 'xstate', 'loro', 'automerge', 'legacy-manager'];
const STARTING = ['throughline', 'empty-wasm', 'yjs', 'xstate', 'loro', 'automerge'];
/** The slower ones get fewer sessions, so that all take turns of about the same length. */
const SLOWER = { automerge: 12, loro: 4 };

const progress = (text) => process.stderr.write(`  ${text}\n`);
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const share = (numbers, part) => [...numbers].sort((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * part))];

/** A session at its first offer, as the server sends it to a browser that says hello. */
async function makeFixture() {
  const ask = async (path, body, token = options['service-key']) => {
    const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(`${options.server}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${path} was answered ${answer.status}: ${await answer.text()}`);
    return answer.json();
  };
  const { session, token } = await ask('/v1/sessions', {
    email: 'ada@example.com',
    customer: { firstName: 'Ada', lastName: 'Lovelace', shipping: { address: '12 St James’s Square', city: 'Los Altos', state: 'CA', zipCode: '94020', country: 'US' } },
    products: [{ id: 'fitspresso-3-pack', quantity: 1 }],
  });
  const path = `/v1/sessions/${session.id}`;
  const command = (command) => ask(`${path}/commands`, { commands: [command] });
  await command({ type: 'beginProcessing' });
  const { amount } = await (await fetch(`${options.server}${path}`, { headers: { authorization: `Bearer ${token}` } })).json();
  await command({ type: 'recordPayment', transactionId: 'benchmark', amount });
  const hello = { type: 'hello', protocol: 1, sessionId: session.id, clientId: 'benchmark', knownVersion: 0, token };
  const { frames } = await ask('/v1/sync', { frames: [hello], waitMs: 0 }, undefined);
  const snapshot = frames.find(({ type }) => type === 'snapshot');
  return { sessionId: session.id, session: snapshot.state.session, answers: frames.filter(({ type }) => type !== 'token') };
}

/** Bundles each contender by itself, as an app's bundler would. */
async function bundle() {
  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, 'contenders'), { recursive: true });
  const names = [...new Set([...CHANGING, ...STARTING])];
  const common = { bundle: true, minify: true, format: 'esm', target: 'es2022', logLevel: 'warning', platform: 'browser' };
  await copyFile('page.mjs', join(folder, 'page.js'));
  for (const name of names) {
    await build({
      ...common,
      entryPoints: [`contenders/${name}.mjs`],
      outfile: join(folder, 'contenders', `${name}.js`),
      loader: { '.wasm': 'file' },
      assetNames: '[name]-[hash]',
      conditions: ['browser'],
    });
  }
  // These name their modules by their addresses, which esbuild leaves as they are.
  for (const module of ['throughline/dist/throughline_bg.wasm', 'loro-crdt/browser/loro_wasm_bg.wasm', '@automerge/automerge/dist/automerge.wasm']) {
    await copyFile(join('node_modules', module), join(folder, 'contenders', basename(module)));
  }
}

const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html; charset=utf-8' };

/** Serves the bundles, with the headers that make the page's clock fine. */
async function serve(fixture) {
  const funnel = fixture.answers.find(({ type }) => type === 'welcome');
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://page');
    const headers = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp', 'cache-control': 'no-store' };
    if (pathname === '/') {
      response.writeHead(200, { ...headers, 'content-type': TYPES['.html'] });
      return response.end('<!doctype html><meta charset="utf-8"><title>benchmark</title><script type="module" src="/page.js"></script>');
    }
    if (pathname.startsWith('/v1/funnels/')) {
      response.writeHead(200, { ...headers, 'content-type': 'application/json' });
      return response.end(JSON.stringify({ funnel: funnel.funnel, hash: funnel.funnelHash }));
    }
    try {
      const body = await readFile(join(folder, pathname));
      response.writeHead(200, { ...headers, 'content-type': TYPES[extname(pathname)] ?? 'application/octet-stream' });
      response.end(body);
    } catch {
      response.writeHead(404, headers).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

async function inPage(browser, site, name, measure, ...args) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  try {
    await page.goto(`${site.url}/?contender=${name}`);
    await page.waitForFunction(() => globalThis.measureStart !== undefined);
    return await page.evaluate(([measure, args]) => globalThis[measure](...args), [measure, args]);
  } catch (error) {
    throw new Error(`${name}, ${measure}: ${error.message} ${errors.join('; ')}`);
  } finally {
    await context.close();
  }
}

const fixture = await makeFixture();
progress('bundling');
await bundle();
const site = await serve(fixture);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
const sections = [];
try {
  const changes = Object.fromEntries(CHANGING.map((name) => [name, []]));
  const flat = { 'throughline, 1': [], 'throughline, 100': [], 'legacy-manager, 100': [] };
  for (let round = 0; round < rounds; round += 1) {
    progress(`changes, round ${round + 1} of ${rounds}`);
    for (const name of CHANGING) {
      const slower = SLOWER[name] ?? 1;
      const counts = [sessions / slower, warmUp / slower].map(Math.ceil);
      const { changesPerSecond } = await inPage(browser, site, name, 'measureChanges', fixture, ...counts);
      changes[name].push(changesPerSecond);
    }
    // As many changes, in one session that is open at a time, and in a hundred.
    for (const [name, atOnce] of [['throughline, 1', 1], ['throughline, 100', 100]]) {
      const { changesPerSecond } = await inPage(browser, site, 'throughline', 'measureChanges', fixture, 200, warmUp, undefined, atOnce);
      flat[name].push(changesPerSecond);
    }
    const legacy = await inPage(browser, site, 'legacy-manager', 'measureChanges', fixture, 20, 20, { storedSessions: 100 });
    flat['legacy-manager, 100'].push(legacy.changesPerSecond);
  }
  const ours = median(changes.throughline);
  sections.push({
    title: 'Changes a second',
    figures: [
      ...CHANGING.map((name) => ({ name, value: median(changes[name]), unit: '/s', ...(name === 'throughline' ? { atLeast: 90_000 } : {}) })),
      { name: 'beside yjs in the same run', value: ours / median(changes.yjs), unit: 'times' },
      { name: 'beside the legacy manager', value: ours / median(changes['legacy-manager']), unit: 'times' },
      { name: 'legacy-manager with 100 stored sessions', value: median(flat['legacy-manager, 100']), unit: '/s' },
      { name: 'throughline with 100 sessions beside 1', value: median(flat['throughline, 100']) / median(flat['throughline, 1']), unit: 'times', atLeast: 0.8 },
    ],
  });
  progress('calls with the usual storage');
  const { times, bytes } = await inPage(browser, site, 'throughline', 'measureCalls', fixture, quick ? 5 : 40);
  sections.push({
    title: 'Time on the main thread for each call, stored in IndexedDB',
    figures: [
      { name: 'median', value: median(times) * 1000, unit: 'µs' },
      { name: '99 of 100', value: share(times, 0.99) * 1000, unit: 'µs', atMost: 100 },
      { name: 'longest', value: Math.max(...times) * 1000, unit: 'µs' },
    ],
  });

  sections.push({ title: 'On the wire', figures: [{ name: 'a frame with one command, the longest', value: Math.max(...bytes), unit: 'bytes', atMost: 120 }] });

  const starts = Object.fromEntries(STARTING.map((name) => [name, []]));
  for (let round = 0; round < (quick ? 2 : 15); round += 1) {
    progress(`cold starts, round ${round + 1}`);
    for (const name of STARTING) starts[name].push(await inPage(browser, site, name, 'measureStart', fixture));
  }
  sections.push({
    title: 'Cold start: import, instantiate, first snapshot',
    figures: [
      ...STARTING.map((name) => ({ name, value: median(starts[name]), unit: 'ms', ...(name === 'throughline' ? { atMost: 60 } : {}) })),
      { name: 'beside the empty module in the same run', value: median(starts.throughline) / median(starts['empty-wasm']), unit: 'times' },
    ],
  });

  const compressed = async (file) =>
    brotliCompressSync(await readFile(file), { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 22 } }).length;
  const sizes = [];
  for (const name of STARTING.filter((name) => name !== 'empty-wasm')) {
    const script = join(folder, 'contenders', `${name}.js`);
    const text = await readFile(script, 'utf8');
    // What a page loads: the script, and the modules that it names.
    const modules = (await readdir(join(folder, 'contenders'))).filter((file) => file.endsWith('.wasm') && text.includes(file) && !file.startsWith('local_storage'));
    const all = await Promise.all([script, ...modules.map((file) => join(folder, 'contenders', file))].map(compressed));
    sizes.push({ name, value: all.reduce((sum, size) => sum + size, 0) / 1000, unit: 'kB', ...(name === 'throughline' ? { atMost: 60 } : {}) });
  }
  sections.push({ title: 'To download, after brotli', figures: sizes });

  process.stdout.write(JSON.stringify({ browser: `Chromium ${browser.version()}`, sections }));
} finally {
  await browser.close();
  site.stop();
}
