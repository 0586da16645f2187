import { setTimeout as pass } from 'node:timers/promises';

import { expect } from '@playwright/test';

import { type Charge } from './nextjs-shops.js';

const california = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001', country: 'US' };
const texas = { address: '1 Billing Street', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };
const taxRates: Readonly<Record<string, number>> = { CA: 0.0725, TX: 0.0625 };
const threePacks = [{ id: 'fitspresso-3-pack', name: 'Fitspresso 3 Bottle Pack', price: 177, quantity: 2 }];
const sixPack = [{ id: 'fitspresso-6-pack', name: 'Fitspresso 6 Bottle Pack', price: 294, quantity: 1 }];
const relaxCalm = { productCode: 'RC12', amount: 296, bottles: 12, step: 1 };
const sleepGuard = { productCode: 'SG6', amount: 149, bottles: 6, step: 2 };

/** How long it is until the next buyer comes: the machine is not there for them alone. */
const pauseMs = 500;

/** What a buyer sends. */
interface Kind {
  name: string;
  order: { customerInfo: { state: string; [field: string]: string }; products: typeof threePacks; billingInfo?: object; couponCode?: string };
  extras: (typeof relaxCalm)[];
  /** Whether their first card is declined. The old pages begin another session for the second one. */
  isDeclinedFirst?: boolean;
}

const ada = { firstName: 'Ada', lastName: 'Lovelace' };

/** Buyers, one after the other. */
const kinds: readonly Kind[] = [
  { name: 'takes both offers', order: { customerInfo: { ...ada, ...texas }, products: threePacks }, extras: [relaxCalm, sleepGuard] },
  { name: 'has the bill sent elsewhere', order: { customerInfo: { ...ada, ...california }, billingInfo: texas, products: threePacks }, extras: [relaxCalm, sleepGuard] },
  { name: 'has a coupon', order: { customerInfo: { ...ada, ...california, phone: '555 0100' }, products: threePacks, couponCode: 'SAVE10' }, extras: [sleepGuard] },
  { name: 'is declined first', order: { customerInfo: { ...ada, ...texas }, products: threePacks }, extras: [relaxCalm, sleepGuard], isDeclinedFirst: true },
  { name: 'declines an offer', order: { customerInfo: { ...ada, ...texas }, products: threePacks }, extras: [relaxCalm] },
  { name: 'buys something else', order: { customerInfo: { ...ada, ...texas, state: 'MT' }, products: sixPack }, extras: [relaxCalm, sleepGuard] },
];

/** Somebody who has paid. */
export interface Buyer {
  id: string;
  kind: Kind;
  cookie: string;
}

/** As the old shop works it out, in dollars. */
function withTax(amount: number, { order }: Kind): number {
  return amount + Number((amount * (taxRates[order.customerInfo.state] ?? 0)).toFixed(2));
}

/** What the gateway has to be asked for: the order, then its extras. */
export function amountsOf({ kind }: Buyer): number[] {
  const subtotal = kind.order.products.reduce((sum, { price, quantity }) => sum + price * quantity, 0);
  return [subtotal, ...kind.extras.map(({ amount }) => amount)].map((amount) => withTax(amount, kind));
}

/** The codes and prices of what a buyer has taken, in cents, with the charges that were made for them. */
export function extrasOf({ kind }: Buyer, charges: readonly Charge[]): [string, number, string][] {
  return kind.extras.map(({ productCode, amount }, index) => [productCode, amount * 100, charges[index + 1]!.transactionId]);
}

/** The shop's requests, as its pages send them; every answer counts. */
export class Traffic {
  readonly failures: string[] = [];
  readonly bought: Buyer[] = [];
  /** Sessions whose card was declined. */
  readonly declined: string[] = [];
  requests = 0;
  #isOver = false;
  #flows: Promise<void>[] = [];
  #begun = 0;

  constructor(
    readonly shop: string,
    /** Sessions of before whose rows are asked for meanwhile. */
    readonly known: readonly string[],
  ) {}

  /** So many buyers at a time, one after the other, until it is over. */
  begin(count: number): void {
    this.#isOver = false;
    this.#flows = Array.from({ length: count }, () => this.#flow());
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#flows);
  }

  /** Waits until so many more buyers have gone all the way. */
  async more(count: number): Promise<void> {
    const wanted = this.bought.length + count;
    await expect.poll(() => this.bought.length, { timeout: 120_000 }).toBeGreaterThanOrEqual(wanted);
  }

  /** A buyer of each kind pays. */
  async payOfEachKind(): Promise<Buyer[]> {
    const buyers: Buyer[] = [];
    for (const _ of kinds) buyers.push(await this.#pay());
    return buyers;
  }

  /** Waits until the shop has heard that the old side of the routes that charge works as well: it has asked its database. */
  async untilBothSides(): Promise<void> {
    const counts = async (path: string, body: object) => {
      const answer = await fetch(this.shop + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
      return answer.headers.get('x-counts');
    };
    const asksTable = expect.stringMatching(/queries=[1-9]/);
    const { order } = kinds[0]!;
    const declined = () => ({ ...order, email: 'nobody@example.com', paymentToken: 'tok_declined', sessionId: `ws_n_${this.#begun++}` });
    await expect.poll(() => counts('/api/checkout/process', declined())).toEqual(asksTable);
    await expect.poll(() => counts('/api/upsell/process', { sessionId: 'ws_n', ...relaxCalm })).toEqual(asksTable);
  }

  /** Somebody who has paid asks for an offer before the old side knows of them. */
  async askTooEarly({ id, kind, cookie }: Buyer): Promise<void> {
    await this.#send('POST', '/api/upsell/process', { sessionId: id, ...kind.extras[0] }, cookie, 401);
  }

  /** Somebody who has paid goes on to the end. */
  async goOn({ id, kind, cookie }: Buyer): Promise<void> {
    for (const extra of kind.extras) await this.#send('POST', '/api/upsell/process', { sessionId: id, ...extra }, cookie);
    await this.#send('PATCH', `/api/session/${id}`, { currentStep: 'success' }, cookie);
    await this.#send('GET', `/api/session/${id}`, undefined, cookie);
    this.bought.push({ id, kind, cookie });
  }

  async #flow(): Promise<void> {
    while (!this.#isOver) {
      await this.goOn(await this.#pay());
      const known = this.known[Math.floor(Math.random() * this.known.length)];
      if (known !== undefined) await this.#send('GET', `/api/session/${known}`);
      await pass(pauseMs);
    }
  }

  async #pay(): Promise<Buyer> {
    const number = this.#begun++;
    const kind = kinds[number % kinds.length]!;
    const id = `ws_t_${number}`;
    const order = { ...kind.order, email: `${id}@example.com`, paymentToken: `tok_1_${id}` };
    if (kind.isDeclinedFirst) {
      const declined = `${id}_declined`;
      await this.#send('POST', '/api/checkout/process', { ...order, sessionId: declined, paymentToken: 'tok_declined' }, '', 402);
      await this.#send('GET', `/api/session/${declined}`);
      this.declined.push(declined);
    }
    return { id, kind, cookie: await this.#send('POST', '/api/checkout/process', { ...order, sessionId: id }) };
  }

  async #send(method: string, path: string, body?: object, cookie = '', expected = 200): Promise<string> {
    this.requests += 1;
    const headers = { 'content-type': 'application/json', cookie };
    try {
      const answer = await fetch(this.shop + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
      const text = await answer.text();
      if (answer.status !== expected) this.failures.push(`${method} ${path}: ${answer.status} ${text.slice(0, 200)}`);
      return answer.headers.getSetCookie().map((one) => one.split(';')[0]).join('; ') || cookie;
    } catch (error) {
      this.failures.push(`${method} ${path}: ${(error as Error).message}`);
      return cookie;
    }
  }
}
