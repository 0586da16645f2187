import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect, test } from '@playwright/test';

import { DemoGateway } from '../../web-demo/payment-service/gateway.mjs';
import { Payments } from '../../web-demo/payment-service/payments.mjs';
import { type Command, type Session, ThroughlineApi } from '../../web-demo/payment-service/throughline-api.mjs';

const id = 'ws_mwor0dc0_0123456789abcdefghijklmno';
const workingCard = '4242 4242 4242 4242';
const declinedCard = '4000 0000 0000 0002';

/** One session, changed by commands as the server would change it. */
class OneSession {
  readonly commands: Command[] = [];
  /** Commands that the server applies, but whose answer is lost. */
  answersToLose = 0;
  /** Commands that never reach the server. */
  requestsToLose = 0;
  readonly keys = new Set<string>();
  session: Session = {
    id,
    status: 'processing',
    amount: 17_700,
    payment: { paidAt: null, attempts: 1 },
    upsells: [],
  };

  async read(): Promise<Session> {
    return structuredClone(this.session);
  }

  async issue(_: string, command: Command, key: string): Promise<void> {
    if (this.requestsToLose > 0) {
      this.requestsToLose -= 1;
      throw new Error(`the request was lost: ${String(command['transactionId'])}`);
    }
    if (this.keys.has(key)) return;
    this.keys.add(key);
    this.commands.push(command);
    const { session } = this;
    switch (command.type) {
      case 'recordPayment':
        session.payment.paidAt = '2026-11-20T09:12:16.662Z';
        break;
      case 'failPayment':
        session.status = 'failed';
        break;
      case 'recordUpsellCharge':
        for (const upsell of session.upsells) if (upsell.offer === command['offer']) upsell.state = 'charged';
        break;
    }
    if (this.answersToLose > 0) {
      this.answersToLose -= 1;
      throw new Error('the answer was lost');
    }
  }

  payments(): Payments {
    const api = { session: () => this.read(), issue: this.issue.bind(this) };
    return new Payments(api as unknown as ThroughlineApi, new DemoGateway(5));
  }

  types(): string[] {
    return this.commands.map(({ type }) => type);
  }
}

test('a payment asked for by two tabs at once is charged once', async () => {
  const one = new OneSession();
  const payments = one.payments();
  const outcomes = await Promise.all([payments.pay(id, workingCard), payments.pay(id, workingCard)]);
  expect(outcomes).toEqual([{ outcome: 'paid' }, { outcome: 'paid' }]);
  expect(one.types()).toEqual(['recordPayment']);
  expect(one.commands[0]).toMatchObject({ amount: 17_700 });
});

test('a payment whose record was not acknowledged is not charged again', async () => {
  const one = new OneSession();
  one.answersToLose = 1;
  const payments = one.payments();
  await expect(payments.pay(id, workingCard)).rejects.toThrow('the answer was lost');
  expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
  expect(one.types()).toEqual(['recordPayment']);
});

test('a record that never arrived is sent again with the same transaction', async () => {
  const one = new OneSession();
  const payments = one.payments();
  one.requestsToLose = 1;
  const first = await payments.pay(id, workingCard).catch((error: Error) => error.message);
  expect(one.commands).toEqual([]);
  await payments.pay(id, workingCard);
  expect(first).toBe(`the request was lost: ${String(one.commands[0]?.['transactionId'])}`);
  expect(one.types()).toEqual(['recordPayment']);
});

test('a declined card is told, and the next attempt may use another', async () => {
  const one = new OneSession();
  const payments = one.payments();
  expect(await payments.pay(id, declinedCard)).toMatchObject({ outcome: 'declined' });
  expect(one.types()).toEqual(['failPayment']);
  one.session.status = 'processing';
  one.session.payment.attempts = 2;
  expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
});

test('an order that is not to be paid yet is not charged', async () => {
  const one = new OneSession();
  one.session.status = 'pending';
  expect(await one.payments().pay(id, workingCard)).toEqual({ outcome: 'notYet' });
  expect(one.commands).toEqual([]);
});

test('accepted offers are charged once, with their tax, and others are not', async () => {
  const one = new OneSession();
  one.session.upsells = [
    { offer: 'RC6', price: 19_900, tax: 1443, state: 'accepted' },
    { offer: 'RC12', price: 29_600, tax: 2146, state: 'declined' },
  ];
  const payments = one.payments();
  await Promise.all([payments.chargeOffers(id), payments.chargeOffers(id)]);
  expect(one.types()).toEqual(['recordUpsellCharge']);
  expect(one.commands[0]).toMatchObject({ offer: 'RC6', amount: 21_343 });
});

/** The server's REST interface for one session, which answers commands as a test wants. */
class Rest {
  readonly one = new OneSession();
  readonly requests: { key: string; command: Command }[] = [];
  /** What the next commands are answered with; after that they are accepted. */
  answers: [status: number, body: unknown][] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(): Promise<Rest> {
    const rest = new Rest();
    rest.#server.listen(0, '127.0.0.1');
    await once(rest.#server, 'listening');
    return rest;
  }

  async #answer(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse): Promise<void> {
    const send = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify(body));
    };
    if (request.method === 'GET') return send(200, this.one.session);
    let text = '';
    for await (const chunk of request) text += String(chunk);
    const [command] = (JSON.parse(text) as { commands: [Command] }).commands;
    const key = String(request.headers['idempotency-key']);
    this.requests.push({ key, command });
    const answer = this.answers.shift();
    if (answer) return send(...answer);
    await this.one.issue(id, command, key);
    send(200, { results: [{ outcome: 'accepted' }] });
  }

  payments(gateway = new DemoGateway(5)): Payments {
    const { port } = this.#server.address() as AddressInfo;
    return new Payments(new ThroughlineApi(`http://127.0.0.1:${port}`, 'key'), gateway);
  }

  stop(): void {
    this.#server.close();
  }
}

class CountingGateway extends DemoGateway {
  charged = 0;

  override decide(cardNumber: string) {
    this.charged += 1;
    return super.decide(cardNumber);
  }
}

const unavailable: [number, unknown] = [503, { code: 'storeUnavailable', detail: 'the server cannot reach its database' }];
const refused: [number, unknown] = [
  200,
  { results: [{ outcome: 'rejected', reason: { code: 'amountMismatch', message: 'the session owes another amount' } }] },
];

test('over a short outage the record is sent again under the same key, and the next command goes through', async () => {
  const rest = await Rest.start();
  try {
    const gateway = new CountingGateway(5);
    const payments = rest.payments(gateway);
    rest.answers = [unavailable, unavailable, unavailable];
    expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
    expect(gateway.charged).toBe(1);
    expect(rest.one.types()).toEqual(['recordPayment']);
    expect(rest.requests).toHaveLength(4);
    expect(new Set(rest.requests.map(({ key }) => key)).size).toBe(1);
    for (const { command } of rest.requests) expect(Object.keys(command)).not.toContain('seq');

    rest.one.session.upsells = [{ offer: 'RC6', price: 19_900, tax: 1443, state: 'accepted' }];
    await payments.chargeOffers(id);
    expect(rest.one.types()).toEqual(['recordPayment', 'recordUpsellCharge']);
  } finally {
    rest.stop();
  }
});

test('an outage that lasts leaves nothing behind that the next try stumbles over', async () => {
  test.setTimeout(30_000);
  const rest = await Rest.start();
  try {
    const gateway = new CountingGateway(5);
    const payments = rest.payments(gateway);
    rest.answers = Array.from({ length: 5 }, () => unavailable);
    await expect(payments.pay(id, workingCard)).rejects.toThrow('recordPayment was answered with 503');
    await payments.recordUnrecorded();
    expect(rest.one.types(), 'without the buyer').toEqual(['recordPayment']);
    expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
    expect(gateway.charged).toBe(1);
    expect(rest.requests).toHaveLength(6);
    expect(new Set(rest.requests.map(({ key }) => key)).size).toBe(1);
  } finally {
    rest.stop();
  }
});

test('a payment whose record is refused is not reported as paid, is told in the log, and is kept', async () => {
  const rest = await Rest.start();
  const told: string[] = [];
  const { error } = console;
  console.error = (line: string) => told.push(line);
  try {
    const gateway = new CountingGateway(5);
    const payments = rest.payments(gateway);
    rest.answers = [refused];
    await expect(payments.pay(id, workingCard)).rejects.toThrow('the session owes another amount');
    const transaction = String(rest.requests[0]?.command['transactionId']);
    expect(told).toHaveLength(1);
    expect(told[0]).toContain('MONEY WAS TAKEN BUT IS NOT RECORDED');
    expect(told[0]).toContain(transaction);

    expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
    expect(gateway.charged).toBe(1);
    expect(rest.requests.map(({ command }) => command['transactionId'])).toEqual([transaction, transaction]);
    expect(rest.requests[1]?.key, 'the server repeats its first answer for a key').not.toBe(rest.requests[0]?.key);
  } finally {
    console.error = error;
    rest.stop();
  }
});
