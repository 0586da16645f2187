import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { expect, test } from '@playwright/test';

import { isPaid, legacySessions, type Paid, type Row } from './legacy-sessions.js';
import { amountsOf, type Buyer, extrasOf, Traffic } from './legacy-traffic.js';
import { built, routes } from './nextjs-phases.js';
import { type Charge, shopDatabase, startGateway, startPostgres, startShop } from './nextjs-shops.js';
import { asService, type Command, stored } from './sdk.js';
import { ThroughlineServer } from './server.js';

const sessions = Number(process.env.THROUGHLINE_TEST_LEGACY_SESSIONS ?? 10_000);
/** Buyers at the same time. */
const buyers = 3;
/** How many buyers go all the way in each mode. */
const buyersInEachMode = 12;

interface Session {
  amount: number;
  transactionId: string | null;
  vaultId: string | null;
  payment: { paidAt: string | null; amount: number | null };
  upsells: { offer: string; state: string; price: number; transactionId: string | null }[];
  claims: { transactionId: string | null } | null;
}

/** What is known here of a payment; nothing where there was none. */
function paidHere({ payment, transactionId, vaultId, upsells }: Session): Paid | undefined {
  if (payment.paidAt === null || payment.amount === null) return undefined;
  const extras = upsells.filter(({ state }) => state === 'charged').map(({ offer, price, transactionId }) => [offer, price, transactionId] as Paid['extras'][number]);
  return { amount: payment.amount, transaction: transactionId, vault: vaultId, extras: extras.sort() };
}

/** The same of the old table. */
function paidThere({ transaction_id, vault_id, metadata }: Row): Paid {
  const { totalAmount, upsells = [] } = metadata as { totalAmount: number; upsells?: { productCode: string; amount: number; transactionId: string }[] };
  const extras = upsells.map(({ productCode, amount, transactionId }) => [productCode, cents(amount), transactionId] as Paid['extras'][number]);
  return { amount: cents(totalAmount), transaction: transaction_id, vault: vault_id, extras: extras.sort() };
}

/** What the gateway has charged. */
function paidBy(buyer: Buyer, made: readonly Charge[]): Paid {
  const [first] = made;
  return { amount: cents(first!.amount), transaction: first!.transactionId, vault: first!.vaultId, extras: extrasOf(buyer, made).sort() };
}

const cents = (dollars: number) => Math.round(dollars * 100);

/** How far both sides of a route agreed. */
interface Parity {
  route: string;
  equal: number;
  different: number;
  legacyFailed: number;
  unifiedFailed: number;
}

test(`a shop with ${sessions} sessions in four systems moves here while buyers buy, goes back, and comes again`, async () => {
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
      COUNT_QUERIES: '1',
      SESSION_SECRET: 'a secret for this test only',
      THROUGHLINE_URL: server.url,
      THROUGHLINE_SERVICE_KEY: server.serviceKey,
    };
    const asOperator = (path: string, init: RequestInit = {}) => server.request(path, { ...init, headers: { authorization: `Bearer ${server.operatorKey}` } });
    const modes = async (mode: string) => {
      for (const route of routes) await server.setRouteMode(route, mode);
    };
    await modes('off');

    const { rows, cookies, cache, browsers, paid, claimed } = await legacySessions(sessions);
    const json = JSON.stringify(rows).replaceAll("'", "''");
    await postgres.execute(shopDatabase, `INSERT INTO funnel_sessions SELECT * FROM jsonb_populate_recordset(NULL::funnel_sessions, '${json}')`);
    const files = { cookies, cache, browsers };
    for (const [name, values] of Object.entries(files)) await writeFile(join(folder, name), values.map((value) => JSON.stringify(value)).join('\n'));
    const report = join(folder, 'report.jsonl');
    const imported = async (...more: string[]) => {
      const beside = Object.keys(files).flatMap((name) => [`--${name}`, join(folder, name)]);
      const from = ['import', '--from', postgres.url(shopDatabase), ...beside, '--report', report, '--json', ...more];
      return JSON.parse(await server.command(...from)) as { created: number; updated: number; unchanged: number; unreadable: number };
    };
    const ofBefore = new Set([rows, cookies, cache, browsers].flat().map(({ id }) => id));

    // Those about which the import has something to say are other here than there, for a reason that it names; so are those whose row does
    // not know that it was paid.
    expect(await imported('--dry-run')).toMatchObject({ created: ofBefore.size, unreadable: 0 });
    const decided = new Map((await readFile(report, 'utf8')).trim().split('\n').map((line) => [(JSON.parse(line) as { session: string }).session, line]));
    for (const id of claimed.keys()) expect(decided.get(id), id).toMatch(/"paidTwice"|"paymentUnsettled"/);
    const plain = rows.filter((row) => row.status !== 'expired' && !decided.has(row.id) && isPaid(row) === paid.has(row.id)).map(({ id }) => id);
    expect(plain.length).toBeGreaterThan(sessions / 10);

    const shop = kept(await startShop(shopFolder, env));
    const traffic = new Traffic(shop.url, plain);
    traffic.begin(buyers);
    await traffic.more(buyersInEachMode);
    expect(await imported()).toMatchObject({ unreadable: 0 });
    await modes('shadow');
    await traffic.more(buyersInEachMode);
    // Who bought while it ran.
    expect(await imported()).toMatchObject({ unreadable: 0 });
    // Who was half-way when `shadow` began was not known here: from now on everybody is.
    const forget = async () => expect((await asOperator('/v1/parity', { method: 'DELETE' })).ok).toBe(true);
    await forget();
    await modes('compare');
    await traffic.more(buyersInEachMode);
    await modes('on');
    await traffic.more(buyersInEachMode);

    /** What was charged so far, by the order. */
    const approved = async () => {
      const { charges } = (await (await fetch(`${gateway.url}/charges`)).json()) as { charges: Charge[] };
      const byOrder = new Map<string, Charge[]>();
      for (const charge of charges) if (charge.status === 'approved') byOrder.set(charge.orderId, [...(byOrder.get(charge.orderId) ?? []), charge]);
      return byOrder;
    };
    const parity = async () => {
      const { routes } = (await (await asOperator('/v1/parity')).json()) as { routes: Parity[] };
      const compared = routes.filter(({ equal, different }) => equal + different > 0);
      const sum = (name: Exclude<keyof Parity, 'route'>) => compared.reduce((total, route) => total + route[name], 0);
      const differences = { different: sum('different'), legacyFailed: sum('legacyFailed'), unifiedFailed: sum('unifiedFailed') };
      if (differences.different > 0) console.log(JSON.stringify(compared, null, 1));
      expect(traffic.failures, 'no request failed').toEqual([]);
      expect(differences).toEqual({ different: 0, legacyFailed: 0, unifiedFailed: 0 });
      return sum('equal');
    };
    // Before `only`: a shop hears of it route by route, and what one has not done any more another one would miss.
    const equal = await parity();
    expect(equal).toBeGreaterThan(2 * buyersInEachMode * 4);
    const onlySince = new Date().toISOString();
    await modes('only');
    await traffic.more(buyersInEachMode);
    await traffic.end();

    // The way back: the old side gets what it has not heard of, and sells the offers of those who have paid meanwhile.
    const inTheMiddle = await traffic.payOfEachKind();
    const exported = async () => {
      const to = ['export', '--to', postgres.url(shopDatabase), '--changed-since', onlySince, '--json'];
      return JSON.parse(await server.command(...to)) as { written: number; leftAsTheyAre: number; paidThere: string[] };
    };
    const first = await exported();
    expect(first.paidThere).toEqual([]);
    expect(first.written).toBeGreaterThanOrEqual(buyersInEachMode + inTheMiddle.length);
    // Who paid while that was written, or before the shop had heard of it.
    inTheMiddle.push(...(await traffic.payOfEachKind()));
    await modes('compare');
    await traffic.untilBothSides();
    // Nothing is charged for who has no row there yet.
    const early = inTheMiddle.pop()!;
    await traffic.askTooEarly(early);
    const second = await exported();
    expect(second).toMatchObject({ paidThere: [] });
    expect(second.written).toBeGreaterThanOrEqual((inTheMiddle.length + 1) / 2);
    const table = await postgres.rows<Row>(shopDatabase, `SELECT * FROM funnel_sessions WHERE id LIKE 'ws_t_%' AND transaction_id IS NOT NULL`);
    const inTable = new Map(table.map((row) => [row.id, paidThere(row)]));
    const soFar = await approved();
    const lostThere = traffic.bought.filter((buyer) => JSON.stringify(inTable.get(buyer.id)) !== JSON.stringify(paidBy(buyer, soFar.get(buyer.id)!)));
    expect(lostThere.map(({ id }) => [id, inTable.get(id)]), 'the old table knows every payment').toEqual([]);
    await forget();
    for (const buyer of inTheMiddle) await traffic.goOn(buyer);
    traffic.begin(buyers);
    await traffic.more(buyersInEachMode);
    // And here again.
    await modes('on');
    await traffic.more(buyersInEachMode);
    const equalAgain = await parity();
    expect(equalAgain).toBeGreaterThan(inTheMiddle.length * 4 + 2 * buyersInEachMode * 4);
    await modes('only');
    await traffic.more(buyersInEachMode);
    await traffic.end();
    // The offer can be asked for again.
    await traffic.goOn(early);
    expect(traffic.failures, 'no request failed').toEqual([]);

    // Everything is here: the sessions of before, and those of buyers meanwhile.
    const here = new Map<string, Session>();
    const ids = [...ofBefore, ...traffic.bought.map(({ id }) => id), ...traffic.declined];
    const parts = Array.from({ length: Math.ceil(ids.length / 100) }, (_, part) => ids.slice(100 * part, 100 * (part + 1)));
    const read = async () => {
      for (let part = parts.pop(); part; part = parts.pop()) {
        const answer = await server.request('/v1/sessions/batch/get', { method: 'POST', body: JSON.stringify({ ids: part }) });
        const { results } = (await answer.json()) as { results: { id: string; outcome: string; session?: Session }[] };
        for (const { id, session } of results) if (session) here.set(id, session);
        // What could not be read just now says nothing of whether it is there.
        const failed = results.filter(({ outcome }) => outcome === 'failed').map(({ id }) => id);
        if (failed.length) {
          await setTimeout(500);
          parts.push(failed);
        }
      }
    };
    await Promise.all(Array.from({ length: 4 }, read));
    expect(ids.filter((id) => !here.has(id)), 'no session is lost').toEqual([]);

    const charges = await approved();
    for (const buyer of traffic.bought) {
      const made = charges.get(buyer.id) ?? [];
      const amounts = amountsOf(buyer);
      expect(made.map(({ amount }) => amount), `${buyer.id} ${buyer.kind.name}`).toEqual(amounts.map((amount) => expect.closeTo(amount, 6)));
      paid.set(buyer.id, paidBy(buyer, made));
      expect(here.get(buyer.id)!.amount, `${buyer.id} ${buyer.kind.name}`).toBe(amounts.reduce((sum, amount) => sum + cents(amount), 0));
    }
    expect([...charges.keys()].filter((id) => !paid.has(id)), 'nobody else was charged').toEqual([]);
    const wrong = ids.filter((id) => JSON.stringify(paidHere(here.get(id)!)) !== JSON.stringify(paid.get(id)));
    const both = (id: string) => ({ id, here: paidHere(here.get(id)!), there: paid.get(id), decided: decided.get(id) });
    expect(wrong.slice(0, 20).map(both), `what was paid is paid: by the same transactions and card, of the same amounts (${wrong.length} are not)`).toEqual([]);
    const unheard = [...claimed].filter(([id, transaction]) => here.get(id)!.claims?.transactionId !== transaction);
    expect(unheard, 'what somebody has to confirm waits for it').toEqual([]);
    console.log(
      `${ofBefore.size} sessions (${[...paid.keys()].filter((id) => ofBefore.has(id)).length} paid) and ${traffic.bought.length} buyers meanwhile, ${traffic.requests} requests, failed ${traffic.failures.length}; ` +
        `compared ${equal + equalAgain}, different 0; ${first.written + second.written} rows written on the way back; lost 0, charged twice 0`,
    );
  } finally {
    for (const service of running) await service.stop();
  }
});

test('an offer that was accepted and not charged is none that was bought, in the old table and when it comes in again', async () => {
  const running: { stop(): Promise<void> }[] = [];
  const kept = <Started extends { stop(): Promise<void> }>(started: Started) => (running.unshift(started), started);
  const folder = await mkdtemp(join(tmpdir(), 'throughline-rehearsal-'));
  running.push({ stop: () => rm(folder, { recursive: true }) });
  try {
    const [postgres, server] = [kept(await startPostgres()), kept(await ThroughlineServer.start())];
    const order = { email: 'ada@example.com', customer: { firstName: 'Ada', lastName: 'Lovelace' }, products: [{ id: 'fitspresso-3-pack', quantity: 1 }] };
    const begun = await server.request('/v1/sessions', { method: 'POST', body: JSON.stringify(order) });
    const { id } = ((await begun.json()) as { session: { id: string } }).session;
    for (const command of [
      { type: 'beginProcessing' },
      { type: 'recordPayment', transactionId: 'tx-1', vaultId: 'vault-1', amount: 17_700 },
      { type: 'acceptUpsell', offer: 'RC12' },
    ]) {
      expect((await asService(server, id, command as Command)).status).toBe(200);
    }
    const states = async () => (await stored(server, id)).upsells.filter(({ offer }) => offer === 'RC12').map(({ state }) => state);
    expect(await states()).toEqual(['accepted']);
    const table = postgres.url(shopDatabase);
    await server.command('export', '--to', table, '--json');
    const [row] = await postgres.rows<Row>(shopDatabase, `SELECT * FROM funnel_sessions WHERE id = '${id}'`);
    await server.command('import', '--from', table, '--report', join(folder, 'report.jsonl'), '--json');
    expect({ inTable: row!.upsells_accepted, here: await states() }).toEqual({ inTable: [], here: ['accepted'] });
  } finally {
    for (const service of running) await service.stop();
  }
});
