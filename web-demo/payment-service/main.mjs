// The demo payment service: a small back end of the shop, as it would stand beside a real payment gateway.
// It charges nobody. It holds the service key; the page never sees it.

import { createServer } from 'node:http';

import { DemoGateway } from './gateway.mjs';
import { Payments } from './payments.mjs';
import { Refused, ThroughlineApi } from './throughline-api.mjs';

const bodyLimitBytes = 4096;
const recordEveryMs = 30_000;

const { host, port } = listenAddress(process.env.PAYMENT_LISTEN ?? '127.0.0.1:8788');
const origins = allowedOrigins();
const payments = new Payments(
  new ThroughlineApi(process.env.THROUGHLINE_URL ?? 'http://127.0.0.1:8787', serviceKey()),
  new DemoGateway(),
);

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(`payment service: ${error instanceof Error ? error.message : error}`);
    if (error instanceof Refused) send(response, 409, { error: error.message });
    else send(response, 502, { error: 'the session could not be reached' });
  });
});
server.listen(port, host, () => console.log(`demo payment service on http://${host}:${port}`));
setInterval(() => void payments.recordUnrecorded(), recordEveryMs).unref();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}

/**
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:http').ServerResponse} response
 */
async function answer(request, response) {
  const { origin } = request.headers;
  if (origin !== undefined) {
    if (!origins.has(origin)) return send(response, 403, { error: 'this page may not pay here' });
    response.setHeader('access-control-allow-origin', origin);
    response.setHeader('access-control-allow-headers', 'content-type');
    response.setHeader('vary', 'origin');
  }
  if (request.method === 'OPTIONS') return void response.writeHead(204).end();
  if (request.method === 'GET' && request.url === '/livez') return send(response, 200, { status: 'ok' });
  if (request.method !== 'POST') return send(response, 405, { error: 'only POST' });

  const body = await readJson(request);
  const sessionId = body?.['sessionId'];
  // The id becomes part of an address.
  if (typeof sessionId !== 'string' || !/^[\w.-]{1,128}$/.test(sessionId)) {
    return send(response, 400, { error: 'a sessionId is needed' });
  }
  switch (request.url) {
    case '/payments': {
      const card = body?.['cardNumber'];
      if (typeof card !== 'string') return send(response, 400, { error: 'a cardNumber is needed' });
      return send(response, 200, await payments.pay(sessionId, card));
    }
    case '/offers':
      await payments.chargeOffers(sessionId);
      return send(response, 200, {});
    default:
      return send(response, 404, { error: 'unknown path' });
  }
}

/**
 * @param {import('node:http').IncomingMessage} request
 * @returns {Promise<Record<string, unknown> | undefined>}
 */
async function readJson(request) {
  /** @type {Buffer[]} */
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > bodyLimitBytes) return undefined;
    chunks.push(chunk);
  }
  try {
    const value = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param {import('node:http').ServerResponse} response
 * @param {number} status
 * @param {object} body
 */
function send(response, status, body) {
  if (response.headersSent) return;
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

/** @param {string} text */
function listenAddress(text) {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}

/** The shop's own addresses, or those that `SHOP_ORIGINS` lists with commas. */
function allowedOrigins() {
  const listed = process.env.SHOP_ORIGINS;
  if (listed !== undefined) return new Set(listed.split(',').map((origin) => origin.trim()));
  return new Set(['localhost', '127.0.0.1'].map((name) => `http://${name}:5173`));
}

function serviceKey() {
  const key = process.env.THROUGHLINE_SERVICE_KEY;
  if (key === undefined || key === '') {
    console.error('payment service: THROUGHLINE_SERVICE_KEY is missing');
    process.exit(1);
  }
  return key;
}
