// A payment gateway for trying the shop: in memory, gone when it ends.
//
//   POST /charges {token | vaultId, amount, orderId}   201 {transactionId, vaultId, customerId, amount, status}
//                                                      402 {error} where the card is declined
//   GET  /charges                                      {charges: [...], held}: the declined ones as well, oldest first
//   POST /fail-next                                    the next charge is answered with 500, and nothing is charged
//   POST /after-charge {action: "drop"}                the next charge is made, and the connection is cut instead of an answer
//   POST /hold, POST /release                          charges wait from now on; those that wait (`held`) go on
//
// A charge with a header `Idempotency-Key` is made once: the same key is given the same answer.
import { createServer } from 'node:http';

const declined = { token: 'tok_declined', error: 'Do Not Honor REFID:1179462' };
const maxBodyBytes = 64 * 1024;

/** @typedef {{ transactionId: string, vaultId: string, customerId: string, amount: number, orderId: string, source: 'token' | 'vault', status: 'approved' | 'declined', at: string }} Charge */
/** @typedef {{ status: number, body: unknown }} Answer */

/** @type {Charge[]} */
const charges = [];
/** @type {Map<string, { vaultId: string, customerId: string }>} by vault id */
const vault = new Map();
/** @type {Map<string, Answer>} by idempotency key */
const answers = new Map();
let failsNext = false;
let dropsNext = false;
let holds = false;
/** @type {(() => void)[]} */
const held = [];

/**
 * @param {{ token?: unknown, vaultId?: unknown, amount?: unknown, orderId?: unknown }} request
 * @returns {Answer}
 */
function charge({ token, vaultId, amount, orderId }) {
  if (typeof amount !== 'number' || !(amount > 0)) return { status: 400, body: { error: 'amount has to be more than 0' } };
  const byToken = typeof token === 'string' && token !== '';
  const known = typeof vaultId === 'string' ? vault.get(vaultId) : undefined;
  if (!byToken && !known) return { status: 404, body: { error: 'no such card: give a token, or the id of a card in the vault' } };
  const isDeclined = byToken && token === declined.token;
  const number = charges.length + 1;
  const card = known ?? { vaultId: String(1_837_402_710 + number), customerId: `CUST-${88_120 + number}` };
  /** @type {Charge} */
  const made = {
    transactionId: String(9_745_512_092 + number),
    ...(isDeclined ? { vaultId: '', customerId: '' } : card),
    amount,
    orderId: String(orderId ?? ''),
    source: byToken ? 'token' : 'vault',
    status: isDeclined ? 'declined' : 'approved',
    at: new Date().toISOString(),
  };
  charges.push(made);
  if (isDeclined) return { status: 402, body: { error: declined.error } };
  vault.set(card.vaultId, card);
  return { status: 201, body: made };
}

/**
 * @param {import('node:http').IncomingMessage} request
 * @returns {Promise<Record<string, unknown>>}
 */
async function bodyOf(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > maxBodyBytes) throw new Error('the body is too long');
  }
  const body = text === '' ? {} : JSON.parse(text);
  if (typeof body !== 'object' || body === null) throw new Error('the body has to be a JSON object');
  return body;
}

/**
 * @param {import('node:http').IncomingMessage} request
 * @returns {Promise<Answer | 'drop'>}
 */
async function answer(request) {
  const route = `${request.method} ${new URL(request.url ?? '/', 'http://gateway').pathname}`;
  if (route === 'GET /charges') return { status: 200, body: { charges, held: held.length } };
  const body = await bodyOf(request);
  switch (route) {
    case 'POST /charges': {
      if (holds) await new Promise((resolve) => held.push(() => resolve(undefined)));
      const key = request.headers['idempotency-key'];
      const known = typeof key === 'string' ? answers.get(key) : undefined;
      if (known) return known;
      if (failsNext) {
        failsNext = false;
        return { status: 500, body: { error: 'the gateway is out of order' } };
      }
      const made = charge(body);
      if (typeof key === 'string') answers.set(key, made);
      if (made.status !== 201 || !dropsNext) return made;
      dropsNext = false;
      return 'drop';
    }
    case 'POST /fail-next':
      failsNext = true;
      return { status: 200, body: {} };
    case 'POST /after-charge':
      if (body['action'] !== 'drop') return { status: 400, body: { error: 'the only action is "drop"' } };
      dropsNext = true;
      return { status: 200, body: {} };
    case 'POST /hold':
      holds = true;
      return { status: 200, body: {} };
    case 'POST /release':
      holds = false;
      for (const goOn of held.splice(0)) goOn();
      return { status: 200, body: {} };
    default:
      return { status: 404, body: { error: 'no such route' } };
  }
}

const server = createServer((request, response) => {
  answer(request)
    .catch((error) => ({ status: 400, body: { error: error instanceof Error ? error.message : String(error) } }))
    .then((given) => {
      if (given === 'drop') {
        request.socket.destroy();
        return;
      }
      response.writeHead(given.status, { 'content-type': 'application/json' }).end(JSON.stringify(given.body));
    });
});

server.listen(Number(process.env.GATEWAY_PORT ?? 0), '127.0.0.1', () => {
  const address = server.address();
  if (typeof address === 'object' && address !== null) console.log(`http://127.0.0.1:${address.port}`);
});
process.on('SIGTERM', () => {
  server.closeAllConnections();
  server.close();
});
