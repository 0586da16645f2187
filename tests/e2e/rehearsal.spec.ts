import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from '@playwright/test';

import { built, routes } from './nextjs-phases.js';
import { type Charge, shopDatabase, startGateway, startPostgres, startShop } from './nextjs-shops.js';
import { inRepository } from './repository.js';
import { ThroughlineServer } from './server.js';

const sessions = Number(process.env.THROUGHLINE_TEST_LEGACY_SESSIONS ?? 10_000);
/** Buyers at the same time. */
const buyers = 3;
/** How many buyers go all the way in each mode. */
const buyersInEachMode = 12;

/** A row of `funnel_sessions`, as the old shop wrote it. */
interface Row {
  id: string;
  email: string;
  status: string;
  current_step: string;
  customer_info: Record<string, string> | null;
  products: unknown[];
  amount: number;
  upsells_accepted: string[];
  upsells_declined: string[];
  vault_id: string | null;
  transaction_id: string | null;
  payment_token: string | null;
  coupon_code: string | null;
  metadata: Record<string, unknown> | null;
  created_at: string;
  updated_at: string;
  expires_at: string;
}

const afterPayment = ['upsell-1', 'upsell-2', 'success', 'completed'];

/** Whether the row says that it was paid; a late read may have turned it to `expired`. */
function isPaid({ status, transaction_id, current_step }: Row): boolean {
  return status === 'completed' || (transaction_id !== null && afterPayment.includes(current_step));
}

/** The recorded rows again and again, each with an id and an address of its own, as if they were of today. */
async function legacyRows(): Promise<Row[]> {
  const text = await readFile(inRepository('tests/fixtures/legacy/funnel_sessions.jsonl'), 'utf8');
  const kinds = text.trim().split('\n').map((line) => JSON.parse(line) as Row);
  const now = Date.now();
  const at = (ms: number) => new Date(now + ms).toISOString();
  return Array.from({ length: sessions }, (_, index) => {
    const kind = kinds[index % kinds.length]!;
    const times = { created_at: at(-3_600_000), updated_at: at(-1_800_000), expires_at: at(kind.status === 'expired' ? -60_000 : 23 * 3_600_000) };
    const references = kind.transaction_id === null ? {} : { transaction_id: `${kind.transaction_id}-${index}`, vault_id: `vault-${index}` };
    return { ...kind, ...times, ...references, id: `ws_r_${index.toString(36).padStart(6, '0')}`, email: `buyer-${index}@example.com` };
  });
}

/** What the cookie and the memory of a process have of an order that was paid. */
function claimsOf({ id, email, vault_id, transaction_id, customer_info, updated_at }: Row): object {
  const createdAt = Date.parse(updated_at);
  const { firstName = '', lastName = '', state } = customer_info ?? {};
  return { id, vaultId: vault_id ?? '', customerId: `CUST-${id}`, email, firstName, lastName, transactionId: transaction_id ?? '', ...(state && { state }), createdAt, expiresAt: createdAt + 1_800_000 };
}

/** What the buyer's localStorage has of it. */
function entryOf(row: Row): object {
  const { id, email, products, amount, status, created_at, updated_at, expires_at, customer_info, upsells_accepted, upsells_declined } = row;
  const step = ['checkout', 'processing', 'upsell-1', 'upsell-2', 'success'].includes(row.current_step) ? row.current_step : 'checkout';
  const names = { createdAt: created_at, updatedAt: updated_at, expiresAt: expires_at, customerInfo: customer_info ?? {}, upsellsAccepted: upsells_accepted, upsellsDeclined: upsells_declined };
  return { id, email, products, amount, status: status === 'pending' ? 'initiated' : status === 'expired' ? 'failed' : status, currentStep: step, ...names };
}

/** The shop's requests, as its pages send them; every answer counts. */
class Traffic {
  readonly failures: string[] = [];
  readonly bought: string[] = [];
  requests = 0;
  #isOver = false;
  #ended = 0;

  constructor(
    readonly shop: string,
    /** Sessions of before whose rows are asked for meanwhile. */
    readonly known: readonly string[],
  ) {}

  /** Buyers come one after the other, until it is over. */
  async flow(worker: number): Promise<void> {
    for (let count = 0; !this.#isOver; count += 1) await this.#buy(`ws_t_${worker}_${count}`);
  }

  /** Waits until so many more buyers have gone all the way. */
  async more(count: number): Promise<void> {
    const wanted = this.#ended + count;
    await expect.poll(() => this.#ended, { timeout: 120_000 }).toBeGreaterThanOrEqual(wanted);
  }

  end(): void {
    this.#isOver = true;
  }

  async #buy(id: string): Promise<void> {
    const products = [{ id: 'fitspresso-3-pack', name: 'Fitspresso 3 Bottle Pack', price: 177, quantity: 2 }];
    const customerInfo = { firstName: 'Ada', lastName: 'Lovelace', address: '1 Example Street', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };
    const order = { sessionId: id, email: `${id}@example.com`, customerInfo, products, paymentToken: `tok_1_${id}` };
    const cookie = await this.#send('POST', '/api/checkout/process', order);
    await this.#send('POST', '/api/upsell/process', { sessionId: id, productCode: 'RC12', amount: 296, bottles: 12, step: 1 }, cookie);
    await this.#send('POST', '/api/upsell/process', { sessionId: id, productCode: 'SG6', amount: 149, bottles: 6, step: 2 }, cookie);
    await this.#send('PATCH', `/api/session/${id}`, { currentStep: 'success' }, cookie);
    await this.#send('GET', `/api/session/${id}`, undefined, cookie);
    const known = this.known[Math.floor(Math.random() * this.known.length)];
    if (known !== undefined) await this.#send('GET', `/api/session/${known}`);
    this.bought.push(id);
    this.#ended += 1;
  }

  async #send(method: string, path: string, body?: object, cookie = ''): Promise<string> {
    this.requests += 1;
    const headers = { 'content-type': 'application/json', cookie };
    try {
      const answer = await fetch(this.shop + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
      const text = await answer.text();
      if (!answer.ok) this.failures.push(`${method} ${path}: ${answer.status} ${text.slice(0, 200)}`);
      return answer.headers.getSetCookie().map((one) => one.split(';')[0]).join('; ') || cookie;
    } catch (error) {
      this.failures.push(`${method} ${path}: ${(error as Error).message}`);
      return cookie;
    }
  }
}

interface Session {
  status: string;
  transactionId?: string | null;
  amount: number;
  payment: { paidAt?: string | null };
  upsells: { offer: string; state: string }[];
}

test(`a shop with ${sessions} sessions in four systems moves here while buyers buy`, async () => {
  test.setTimeout(600_000);
  const shopFolder = await built('2-routes');
  const folder = await mkdtemp(join(tmpdir(), 'throughline-rehearsal-'));
  const running: { stop(): Promise<void> }[] = [{ stop: () => rm(folder, { recursive: true }) }];
  const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
  try {
    const postgres = kept(await startPostgres());
    await postgres.execute('postgres', 'CREATE DATABASE throughline');
    const server = kept(await ThroughlineServer.start({ databaseUrl: postgres.url('throughline') }));
    const gateway = kept(await startGateway());
    const env = {
      DATABASE_URL: postgres.url(shopDatabase),
      GATEWAY_URL: gateway.url,
      SESSION_SECRET: 'a secret for this test only',
      THROUGHLINE_URL: server.url,
      THROUGHLINE_SERVICE_KEY: server.serviceKey,
    };
    const asOperator = (path: string, init: RequestInit = {}) => server.request(path, { ...init, headers: { authorization: `Bearer ${server.operatorKey}` } });
    const modes = async (mode: string) => {
      for (const route of routes) await server.setRouteMode(route, mode);
    };
    await modes('off');

    const rows = await legacyRows();
    const json = JSON.stringify(rows).replaceAll("'", "''");
    await postgres.execute(shopDatabase, `INSERT INTO funnel_sessions SELECT * FROM jsonb_populate_recordset(NULL::funnel_sessions, '${json}')`);
    const paid = rows.filter(isPaid);
    const lines = (values: object[]) => values.map((value) => JSON.stringify(value)).join('\n');
    const files = { cookies: lines(paid.map(claimsOf)), cache: lines(paid.map(claimsOf)), browsers: lines(rows.map(entryOf)) };
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    const report = join(folder, 'report.jsonl');
    const imported = async (...more: string[]) => {
      const beside = Object.keys(files).flatMap((name) => [`--${name}`, join(folder, name)]);
      const from = ['import', '--from', postgres.url(shopDatabase), ...beside, '--report', report, '--json', ...more];
      return JSON.parse(await server.command(...from)) as { created: number; updated: number; unchanged: number; unreadable: number };
    };

    // Those about which the import has something to say are other here than there, for a reason that it names.
    expect(await imported('--dry-run')).toMatchObject({ created: sessions, unreadable: 0 });
    const decided = new Set((await readFile(report, 'utf8')).trim().split('\n').map((line) => (JSON.parse(line) as { session: string }).session));
    const plain = rows.filter(({ id, status }) => status !== 'expired' && !decided.has(id)).map(({ id }) => id);
    expect(plain.length).toBeGreaterThan(sessions / 10);

    const shop = kept(await startShop(shopFolder, env));
    const traffic = new Traffic(shop.url, plain);
    const flows = Array.from({ length: buyers }, (_, worker) => traffic.flow(worker));
    await traffic.more(buyersInEachMode);
    expect(await imported()).toMatchObject({ unreadable: 0 });
    await modes('shadow');
    await traffic.more(buyersInEachMode);
    // Who bought while it ran.
    expect(await imported()).toMatchObject({ unreadable: 0 });
    // Who was half-way when `shadow` began was not known here: from now on everybody is.
    expect((await asOperator('/v1/parity', { method: 'DELETE' })).ok).toBe(true);
    await modes('compare');
    await traffic.more(buyersInEachMode);
    await modes('on');
    await traffic.more(buyersInEachMode);

    const parity = async () => {
      const answer = await asOperator('/v1/parity');
      const all = (await answer.json()) as { routes: { route: string; equal: number; different: number; legacyFailed: number; unifiedFailed: number }[] };
      return all.routes.filter(({ equal, different }) => equal + different > 0);
    };
    await modes('only');
    await traffic.more(buyersInEachMode);
    traffic.end();
    await Promise.all(flows);
    const compared = await parity();
    const sum = (name: 'equal' | 'different' | 'legacyFailed' | 'unifiedFailed') => compared.reduce((total, route) => total + route[name], 0);
    expect(traffic.failures, 'no request failed').toEqual([]);
    if (sum('different') > 0) console.log(JSON.stringify(compared, null, 1));
    expect({ different: sum('different'), legacyFailed: sum('legacyFailed'), unifiedFailed: sum('unifiedFailed') }).toEqual({ different: 0, legacyFailed: 0, unifiedFailed: 0 });
    expect(sum('equal')).toBeGreaterThan(2 * buyersInEachMode * 4);

    // Everything is here: the sessions of before, and those of buyers meanwhile.
    const here = new Map<string, Session>();
    const ids = [...rows.map(({ id }) => id), ...traffic.bought];
    for (let from = 0; from < ids.length; from += 100) {
      const body = JSON.stringify({ ids: ids.slice(from, from + 100) });
      const answer = await server.request('/v1/sessions/batch/get', { method: 'POST', body });
      const { results } = (await answer.json()) as { results: { id: string; outcome: string; session?: Session }[] };
      for (const { id, session } of results) if (session) here.set(id, session);
    }
    expect(ids.filter((id) => !here.has(id)), 'no session is lost').toEqual([]);
    const facts = (row: Row) => ({ paid: isPaid(row), transaction: isPaid(row) ? row.transaction_id : null });
    const wrong = rows.filter((row) => {
      const { payment, transactionId } = here.get(row.id)!;
      const isHere = { paid: payment.paidAt != null, transaction: payment.paidAt != null ? (transactionId ?? null) : null };
      return JSON.stringify(isHere) !== JSON.stringify(facts(row));
    });
    expect(wrong.map((row) => [row.id, facts(row), here.get(row.id)!.transactionId]), 'what was paid is paid, by the same transaction').toEqual([]);

    const { charges } = (await (await fetch(`${gateway.url}/charges`)).json()) as { charges: Charge[] };
    const byOrder = new Map<string, Charge[]>();
    for (const charge of charges) byOrder.set(charge.orderId, [...(byOrder.get(charge.orderId) ?? []), charge]);
    for (const id of traffic.bought) {
      const made = byOrder.get(id) ?? [];
      expect(made.map(({ amount }) => amount), id).toEqual([376.13, 314.5, 158.31]);
      const { amount, transactionId } = here.get(id)!;
      expect([amount, transactionId], id).toEqual([84_894, made[0]!.transactionId]);
    }
    console.log(
      `${rows.length} sessions (${paid.length} paid) and ${traffic.bought.length} buyers meanwhile, ${traffic.requests} requests, failed ${traffic.failures.length}; ` +
        `compared ${sum('equal')}, different ${sum('different')}; lost 0, charged twice 0`,
    );
  } finally {
    for (const service of running) await service.stop();
  }
});
