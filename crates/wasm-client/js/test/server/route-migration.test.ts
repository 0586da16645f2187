import { getEventListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { afterEach, expect, test, vi } from 'vitest';

import { EffectNotAllowed, type Effects, type FailureSite, RouteMigration, type RouteMigrationOptions, type RouteOptions } from '../../src/legacy-server.js';
import { FieldNames } from '../../src/legacy/route-migration/field-names.js';
import { Masking } from '../../src/legacy/route-migration/masking.js';
import type { RouteMode, RouteReport } from '../../src/server.js';
import { thrownBy, useShop } from './shop.js';

const used = useShop();

afterEach(() => {
  vi.restoreAllMocks();
  used.between.fates = [];
});

type Options = RouteOptions;
type Handler = NonNullable<Options['legacy']>;

/** A route with a name of its own, in a mode, with modes that are asked for at each request where nothing else is said. */
async function routeIn(mode: RouteMode | undefined, options: Options, more: Partial<RouteMigrationOptions> = {}) {
  const name = `POST /api/${crypto.randomUUID()}`;
  if (mode) await used.operator.setRouteMode(name, mode);
  const failures: [unknown, FailureSite][] = [];
  const reported: RouteReport[] = [];
  const server: RouteMigrationOptions['server'] = {
    routeModes: (options) => used.shop.routeModes(options),
    reportParity: async (routes, options) => {
      await used.shop.reportParity(routes, options);
      reported.push(...structuredClone(routes));
    },
  };
  const migration = new RouteMigration({ server, refreshMs: 0, onError: (error, site) => failures.push([error, site]), ...more });
  const handler = migration.route(name, options);
  const post = (body: unknown = {}, init: RequestInit = {}) =>
    handler(new Request('https://shop.example/api?step=1', { method: 'POST', body: JSON.stringify(body), ...init }));
  /** What the server has counted. */
  const parity = async () => {
    expect(await migration.flush()).toBe(true);
    const { equal, different, legacyFailed, unifiedFailed, fields } = (await used.operator.parity()).routes.find(({ route }) => route === name) ?? {
      ...{ equal: 0, different: 0, legacyFailed: 0, unifiedFailed: 0, fields: [] },
    };
    const differing = Object.fromEntries(fields.map(({ field, examples: [example] }) => [field, [example!.legacy, example!.unified]]));
    return { counts: [equal, different, legacyFailed, unifiedFailed], fields: differing, details: fields };
  };
  return { name, migration, handler, post, parity, failures, reported };
}

/** A side that answers with this, and takes note. */
const says = (body: unknown, log: string[] = [], note = '', init: ResponseInit = {}): Handler => () => {
  log.push(note);
  return Response.json(body, init);
};

const never = () => new Promise<never>(() => undefined);

/** Gives a promise and what opens it. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

class Gateway {
  readonly charges: string[] = [];
  readonly declines: boolean;

  constructor(declines = false) {
    this.declines = declines;
  }

  async charge(card: string): Promise<{ transactionId: string }> {
    this.charges.push(card);
    await Promise.resolve();
    if (this.declines) throw new Error('card_declined');
    return { transactionId: `t-${this.charges.length}` };
  }
}

// Modes

test.each<[RouteMode, string, string[], number[]]>([
  ['off', 'legacy', ['legacy'], [0, 0, 0, 0]],
  ['shadow', 'legacy', ['legacy', 'unified'], [0, 0, 0, 0]],
  ['compare', 'legacy', ['legacy', 'unified'], [0, 1, 0, 0]],
  ['on', 'unified', ['unified', 'legacy'], [0, 1, 0, 0]],
  ['only', 'unified', ['unified'], [0, 0, 0, 0]],
])('%s: %s answers, and %j run in this order', async (mode, answers, runs, counts) => {
  const log: string[] = [];
  const { post, parity } = await routeIn(mode, { legacy: says({ by: 'legacy' }, log, 'legacy'), unified: says({ by: 'unified' }, log, 'unified') });
  expect(await (await post()).json()).toEqual({ by: answers });
  expect(log).toEqual(runs);
  expect((await parity()).counts).toEqual(counts);
});

test('a route that no mode was set for is off, and one without a legacy side is only, whatever is said', async () => {
  const log: string[] = [];
  const unset = await routeIn(undefined, { legacy: says({}, log, 'legacy'), unified: says({}, log, 'unified') });
  await unset.post();
  expect(log.splice(0)).toEqual(['legacy']);
  const before = used.between.seen.length;
  const alone = await routeIn(undefined, { unified: says({}, log, 'unified'), initialMode: 'off' });
  await alone.post();
  expect(log).toEqual(['unified']);
  expect(used.between.since(before)).toEqual([]);
});

test('a mode that is set is that of the requests to come, within the refresh time, and nobody asks more often', async () => {
  const refreshMs = 200;
  const { name, post } = await routeIn('off', { legacy: says('legacy'), unified: says('unified') }, { refreshMs });
  const answers = async (expected: string) => {
    const from = performance.now();
    await expect.poll(async () => (await post()).json(), { interval: 5 }).toBe(expected);
    return performance.now() - from;
  };
  await answers('legacy');
  for (const [mode, expected] of [['on', 'unified'], ['compare', 'legacy'], ['only', 'unified'], ['off', 'legacy']] as const) {
    const before = used.between.seen.length;
    await used.operator.setRouteMode(name, mode);
    const tookMs = await answers(expected);
    const asked = used.between.since(before).filter((seen) => seen === 'GET /v1/routes');
    expect(asked.length).toBeLessThanOrEqual(1 + Math.ceil(tookMs / refreshMs));
    // On a busy machine as well: it is the answer to the first or the second question.
    expect(asked.length).toBeLessThanOrEqual(2);
  }
  const [before, from] = [used.between.seen.length, performance.now()];
  for (let times = 0; times < 100; times++) {
    await post();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(used.between.since(before).length).toBeLessThanOrEqual(1 + Math.ceil((performance.now() - from) / refreshMs));
});

test('after a pause the mode is asked for first', async () => {
  const { name, post } = await routeIn('on', { legacy: says('legacy'), unified: says('unified') }, { refreshMs: 1_000 });
  expect(await (await post()).json()).toBe('unified');
  await used.operator.setRouteMode(name, 'off');
  const now = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => now() + 3_600_000);
  expect(await (await post()).json()).toBe('legacy');
});

test('a server that is away at first leaves the shop as it is, or as the route says; and is heard as soon as it is there', async () => {
  const lost = Array(8).fill('requestLost');
  const options = { legacy: says('legacy'), unified: says('unified') };
  const off = await routeIn('on', options);
  used.between.fates = [...lost];
  expect(await (await off.post()).json()).toBe('legacy');
  expect(off.failures).toMatchObject([[{ code: 'unreachable' }, { during: 'modes' }]]);
  used.between.fates = [];
  await expect.poll(async () => (await off.post()).json()).toBe('unified');

  const only = await routeIn('compare', { ...options, initialMode: 'only' });
  used.between.fates = [...lost];
  expect(await (await only.post()).json()).toBe('unified');
});

test('a server that is silent is waited for once, not by each request', async () => {
  const silent: RouteMigrationOptions['server'] = { routeModes: never, reportParity: never };
  const { handler } = await routeIn(undefined, { legacy: says('legacy'), unified: says('unified') }, { server: silent });
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  try {
    const first = handler(new Request('https://shop.example/'));
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await (await first).json()).toBe('legacy');
    // No time passes for the others.
    for (let times = 0; times < 3; times++) expect(await (await handler(new Request('https://shop.example/'))).json()).toBe('legacy');
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await (await handler(new Request('https://shop.example/'))).json()).toBe('legacy');
  } finally {
    vi.useRealTimers();
  }
});

test('a server that goes away later leaves the modes as they were, without a wait', async () => {
  const { name, post, failures } = await routeIn('on', { legacy: says('legacy'), unified: says('unified') });
  expect(await (await post()).json()).toBe('unified');
  await used.server.kill9();
  try {
    for (let times = 0; times < 5; times++) expect(await (await post()).json()).toBe('unified');
    await expect.poll(() => failures.map(([, { during }]) => during)).toContain('modes');
  } finally {
    await used.server.restart();
  }
  await used.operator.setRouteMode(name, 'off');
  await expect.poll(async () => (await post()).json()).toBe('legacy');
});

test('a mode of a newer server changes nothing', async () => {
  const modes: string[] = ['on', 'sometimes'];
  const name = 'a route';
  const routeModes = async () => [{ route: name, mode: modes.shift() as RouteMode, changedAt: '' }];
  const failures: unknown[] = [];
  const migration = new RouteMigration({ server: { routeModes, reportParity: async () => undefined }, refreshMs: 0, onError: (error) => failures.push(error) });
  const handler = migration.route(name, { legacy: says('legacy'), unified: says('unified') });
  for (let times = 0; times < 2; times++) expect(await (await handler(new Request('https://shop.example/'))).json()).toBe('unified');
  expect(failures).toEqual([expect.objectContaining({ message: expect.stringContaining('does not know') })]);
});

test('a name that the server would not take is refused where it is given', () => {
  const migration = new RouteMigration({ server: used.shop });
  for (const name of ['', '..', 'x'.repeat(101), 'a\nb', 'GET /buyer/jane%40example.com']) expect(() => migration.route(name, { unified: says({}) })).toThrow(TypeError);
});

// Effects

test.each<RouteMode>(['off', 'shadow', 'compare', 'on', 'only'])('%s: a card is charged once, and both sides have the same of it', async (mode) => {
  const gateway = new Gateway();
  const seen: unknown[] = [];
  const side: Handler = async (_, __, effects) => {
    const { transactionId } = await effects.once('charge', () => gateway.charge('tok'));
    const id = await effects.once('id', () => crypto.randomUUID());
    seen.push([transactionId, id, effects.now]);
    return Response.json({ transactionId, id });
  };
  const { post, parity } = await routeIn(mode, { legacy: side, unified: side });
  const { transactionId } = (await (await post()).json()) as { transactionId: string };
  expect(transactionId).toBe('t-1');
  expect(gateway.charges).toEqual(['tok']);
  expect(seen).toHaveLength(mode === 'off' || mode === 'only' ? 1 : 2);
  for (const one of seen) expect(one).toEqual(seen[0]);
  expect((await parity()).counts).toEqual([mode === 'compare' || mode === 'on' ? 1 : 0, 0, 0, 0]);
  // Another request is another charge.
  await post();
  expect(gateway.charges).toHaveLength(2);
});

test('an effect that fails does so on both sides, once', async () => {
  const gateway = new Gateway(true);
  const errors: unknown[] = [];
  const side: Handler = async (_, __, effects) => {
    const error = await thrownBy(effects.once('charge', () => gateway.charge('tok')));
    errors.push(error);
    return Response.json({ declined: true }, { status: 402 });
  };
  const { post, parity } = await routeIn('compare', { legacy: side, unified: side });
  expect((await post()).status).toBe(402);
  expect(gateway.charges).toHaveLength(1);
  expect(errors[0]).toBeInstanceOf(Error);
  expect(errors[1]).toBe(errors[0]);
  expect((await parity()).counts).toEqual([1, 0, 0, 0]);
});

test.each<RouteMode>(['shadow', 'compare', 'on'])('%s: what only the side asks for that does not answer is not done', async (mode) => {
  const gateway = new Gateway();
  const answers = new Map<string, boolean>();
  let thrown: unknown;
  const answering: Handler = async (_, __, effects) => {
    answers.set('answering', effects.answers);
    await effects.once('mail', () => 'sent');
    return Response.json({});
  };
  const other: Handler = async (_, __, effects) => {
    answers.set('other', effects.answers);
    await effects.once('mail', () => 'sent');
    thrown = await thrownBy(effects.once('charge', () => gateway.charge('tok')));
    return Response.json({});
  };
  const [legacy, unified] = mode === 'on' ? [other, answering] : [answering, other];
  const { post, parity } = await routeIn(mode, { legacy, unified });
  expect((await post()).status).toBe(200);
  expect(gateway.charges).toEqual([]);
  expect(thrown).toBeInstanceOf(EffectNotAllowed);
  expect(thrown).toMatchObject({ name: 'EffectNotAllowed', effect: 'charge' });
  expect(answers).toEqual(new Map([['answering', true], ['other', false]]));
  const { counts, fields } = await parity();
  expect(counts).toEqual([0, 1, 0, 0]);
  expect(fields).toEqual({ effects: mode === 'on' ? ['charge', 'nothing'] : ['nothing', 'charge'] });
});

test('a refused effect that ends its side is a difference, not a failure; and so is one that was not asked for', async () => {
  const asking: Handler = async (_, __, effects) => Response.json(await effects.once('charge', () => 1));
  const refused = await routeIn('compare', { legacy: says(1), unified: asking });
  await refused.post();
  expect(await refused.parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: { effects: ['nothing', 'charge'] } });
  expect(refused.failures).toMatchObject([[{ name: 'EffectNotAllowed' }, { during: 'unified', route: refused.name }]]);
  const forgotten = await routeIn('compare', { legacy: asking, unified: says(1) });
  await forgotten.post();
  expect(await forgotten.parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: { effects: ['charge', 'nothing'] } });
});

test.each<RouteMode>(['off', 'shadow', 'compare', 'on', 'only'])('%s: who charges twice charges twice, and both sides have the same of each', async (mode) => {
  const gateway = new Gateway();
  const seen: unknown[] = [];
  const side: Handler = async (_, __, effects) => {
    for (const amount of [1, 2]) seen.push(await effects.once('charge', () => gateway.charge(String(amount)), { amount }));
    return Response.json({});
  };
  const { post, parity } = await routeIn(mode, { legacy: side, unified: side });
  await post();
  expect(gateway.charges).toEqual(['1', '2']);
  const both = [{ transactionId: 't-1' }, { transactionId: 't-2' }];
  expect(seen).toEqual(mode === 'off' || mode === 'only' ? both : [...both, ...both]);
  expect((await parity()).fields).toEqual({});
});

test('what one side does more often than the other is not done, or a difference; and what was declined may be tried again', async () => {
  const charging = (...amounts: number[]): { side: Handler; gateway: Gateway } => {
    const gateway = new Gateway();
    const side: Handler = async (_, __, effects) => {
      for (const amount of amounts) await effects.once('charge', () => gateway.charge(String(amount)), { amount });
      return Response.json({});
    };
    return { side, gateway };
  };
  const [twice, once] = [charging(1, 2), charging(3)];
  const less = await routeIn('compare', { legacy: twice.side, unified: once.side });
  await less.post();
  expect(twice.gateway.charges).toEqual(['1', '2']);
  expect((await less.parity()).fields).toEqual({ effects: ['charge (2)', 'nothing'], 'effects.charge.amount': ['1', '3'] });
  const more = await routeIn('compare', { legacy: once.side, unified: twice.side });
  await more.post();
  expect([once.gateway.charges, twice.gateway.charges]).toEqual([['3'], ['1', '2']]);
  expect((await more.parity()).fields).toMatchObject({ effects: ['nothing', 'charge (2)'] });

  let tries = 0;
  const charge = () => (++tries === 1 ? Promise.reject(new Error('declined')) : Promise.resolve('charged'));
  const again: Handler = async (_, __, effects) => {
    const [first, second] = [await thrownBy(effects.once('charge', charge)), await effects.once('charge', charge)];
    return Response.json([(first as Error).message, second]);
  };
  const retried = await routeIn('compare', { legacy: again, unified: again });
  expect(await (await retried.post()).json()).toEqual(['declined', 'charged']);
  expect(tries).toBe(2);
  expect((await retried.parity()).counts).toEqual([1, 0, 0, 0]);
});

test('an effect that nobody waits for ends nothing by its failure', async () => {
  const unhandled: unknown[] = [];
  const listen = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', listen);
  try {
    const { post, parity } = await routeIn('compare', {
      legacy: (_, __, effects) => {
        void effects.once('mail', () => Promise.reject(new Error('no such address')));
        return Response.json({});
      },
      unified: (_, __, effects) => {
        void effects.once('another mail', () => 'sent');
        return Response.json({});
      },
    });
    expect((await post()).status).toBe(200);
    expect((await parity()).fields).toEqual({ effects: ['mail', '*'] });
    await new Promise((resolve) => setImmediate(resolve));
    expect(unhandled).toEqual([]);
  } finally {
    process.off('unhandledRejection', listen);
  }
});

test('what an effect is done with is compared: one charge, and of which amount', async () => {
  const side = (amount: number, details = true): Handler => async (_, __, effects) =>
    Response.json(await effects.once('charge', () => 't-1', details ? { amount, card: { holder: 'Ada Lovelace' }, at: new Date(0) } : undefined));
  for (const [mode, counts, fields] of [
    ['shadow', [0, 0, 0, 0], {}],
    ['compare', [0, 1, 0, 0], { 'effects.charge.amount': ['79.1', '79'] }],
    ['on', [0, 1, 0, 0], { 'effects.charge.amount': ['79.1', '79'] }],
  ] as const) {
    const { post, parity } = await routeIn(mode, { legacy: side(79.1), unified: side(79) });
    await post();
    expect(await parity()).toMatchObject({ counts, fields });
  }
  const same = await routeIn('compare', { legacy: side(79), unified: side(79) });
  await same.post();
  expect((await same.parity()).counts).toEqual([1, 0, 0, 0]);
  const one = await routeIn('compare', { legacy: side(79), unified: side(79, false) });
  await one.post();
  expect((await one.parity()).fields).toEqual({ 'effects.charge': ['an object', 'missing'] });
});

// The side that does not answer fails

const failing: Record<string, Handler> = {
  throws: () => {
    throw new Error('boom');
  },
  rejects: async () => Promise.reject('boom'),
  'answers 503': () => new Response('no', { status: 503 }),
  'gives no Response': () => ({ ok: true }) as unknown as Response,
  'gives nothing': () => undefined as unknown as Response,
  'never ends': never,
  'has a body that breaks': () => new Response(new ReadableStream({ pull: (stream) => stream.error(new Error('broken')) })),
  'has a body that never ends': () => new Response(new ReadableStream({ pull: never })),
};

test.each(
  Object.keys(failing).flatMap((way) => (['shadow', 'compare', 'on'] as const).map((mode) => [way, mode] as const)),
)('the side that does not answer %s, in %s: the answer stays, and it is counted', async (way, mode) => {
  const good = says({ fine: true }, [], '', { status: 201, headers: { 'x-side': 'answering' } });
  const [legacy, unified] = mode === 'on' ? [failing[way]!, good] : [good, failing[way]!];
  const { post, parity } = await routeIn(mode, { legacy, unified }, { limitMs: 20, maximumMs: 200 });
  const answer = await post();
  expect([answer.status, answer.headers.get('x-side'), await answer.json()]).toEqual([201, 'answering', { fine: true }]);
  expect(await parity()).toEqual({ counts: mode === 'on' ? [0, 0, 1, 0] : [0, 0, 0, 1], fields: {}, details: [] });
});

test('what the other side sets for the browser does not get there', async () => {
  const cookie = (name: string): Handler => () => {
    const headers = new Headers([['set-cookie', `${name}=1`], [`x-${name}`, '1'], ['set-cookie', `${name}2=1`]]);
    return Response.json({}, { headers });
  };
  for (const [mode, answering, other] of [['compare', 'legacy', 'unified'], ['on', 'unified', 'legacy'], ['shadow', 'legacy', 'unified']] as const) {
    const { post } = await routeIn(mode, { legacy: cookie('legacy'), unified: cookie('unified') });
    const { headers } = await post();
    expect(headers.getSetCookie()).toEqual([`${answering}=1`, `${answering}2=1`]);
    expect([headers.has(`x-${answering}`), headers.has(`x-${other}`)]).toEqual([true, false]);
  }
});

test('the answer waits for the other side, but not longer than the limit; what comes later is compared', async () => {
  const { opened, open } = gate();
  let isDone = false;
  const slow: Handler = async () => {
    await opened;
    isDone = true;
    return Response.json({ a: 2 });
  };
  const { post, parity, migration } = await routeIn('compare', { legacy: says({ a: 1 }), unified: slow }, { limitMs: 50 });
  expect(await (await post()).json()).toEqual({ a: 1 });
  expect(isDone).toBe(false);
  let isFlushed = false;
  const flushed = migration.flush().then(() => (isFlushed = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(isFlushed).toBe(false);
  open();
  await flushed;
  expect(await parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: { a: ['1', '2'] } });

  // One that takes a moment is done when the answer is there: the next request finds both up to date.
  isDone = false;
  const quick: Handler = async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    isDone = true;
    return Response.json({ a: 1 });
  };
  const waiting = await routeIn('compare', { legacy: says({ a: 1 }), unified: quick }, { limitMs: 20_000 });
  await waiting.post();
  expect(isDone).toBe(true);
});

test('a side that takes too long ends with its signal', async () => {
  let reason: unknown;
  const unified: Handler = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject((reason = signal.reason))));
  const { post, parity } = await routeIn('compare', { legacy: says({}), unified }, { limitMs: 0, maximumMs: 100 });
  await post();
  expect((await parity()).counts).toEqual([0, 0, 0, 1]);
  expect(reason).toMatchObject({ name: 'TimeoutError' });
});

// The side that answers fails

const broken: Record<string, Handler> = {
  throws: failing['throws']!,
  'answers 500': () => Response.json({ error: 'x' }, { status: 500 }),
  'gives no Response': failing['gives no Response']!,
  'gives an answer whose body was read': async () => {
    const answer = Response.json({ read: true });
    await answer.text();
    return answer;
  },
  'never ends': never,
};

test.each(Object.keys(broken).flatMap((way) => (['compare', 'on'] as const).map((mode) => [way, mode] as const)))(
  'the side that answers %s, in %s: the buyer gets the answer of the other, and pays once',
  async (way, mode) => {
    const gateway = new Gateway();
    const charge = (effects: Effects) => effects.once('charge', () => gateway.charge('tok'));
    const answering: Handler = async (request, context, effects) => {
      await charge(effects);
      return broken[way]!(request, context, effects);
    };
    const other: Handler = async (_, __, effects) => {
      // It answers now: it may do what is missing.
      await effects.once('mail', async () => (await charge(effects)).transactionId).catch(() => undefined);
      const { transactionId } = await charge(effects);
      const mail = await effects.once('second mail', () => 'sent');
      return Response.json({ transactionId, mail }, { headers: { 'set-cookie': 'a=1' } });
    };
    const [legacy, unified] = mode === 'on' ? [other, answering] : [answering, other];
    const { post, parity, failures } = await routeIn(mode, { legacy, unified }, { maximumMs: 1_000 });
    const answer = await post();
    expect(await answer.json()).toEqual({ transactionId: 't-1', mail: 'sent' });
    expect(answer.headers.getSetCookie()).toEqual(['a=1']);
    expect(gateway.charges).toEqual(['tok']);
    if (way === 'never ends') expect(failures).toMatchObject([[{ name: 'TimeoutError' }, { during: mode === 'on' ? 'unified' : 'legacy' }]]);
    expect((await parity()).counts).toEqual(mode === 'on' ? [0, 0, 0, 1] : [0, 0, 1, 0]);
  },
);

test('where the other side fails as well, or nobody compares, the first failure is the answer', async () => {
  const boom = new Error('boom');
  const throwing: Handler = () => Promise.reject(boom);
  for (const [mode, other] of [['compare', failing['throws']!], ['on', failing['answers 503']!], ['shadow', says({})]] as const) {
    const [legacy, unified] = mode === 'on' ? [other, throwing] : [throwing, other];
    expect(await thrownBy((await routeIn(mode, { legacy, unified })).post()), mode).toBe(boom);
  }
  const { post, parity } = await routeIn('compare', { legacy: () => Response.json({ legacy: true }, { status: 502 }), unified: failing['answers 503']! });
  const answer = await post();
  expect([answer.status, await answer.json()]).toEqual([502, { legacy: true }]);
  expect(await parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: { 'http.status': ['502', '503'] } });
  const shadow = await routeIn('shadow', { legacy: throwing, unified: says({}) });
  await thrownBy(shadow.post());
  expect((await shadow.parity()).counts).toEqual([0, 0, 1, 0]);
});

test('what the failed side has done under another name is not done again by the one that answers for it', async () => {
  const gateway = new Gateway();
  const legacy: Handler = async (_, __, effects) => {
    await effects.once('charge-card', () => gateway.charge('tok'));
    throw new Error('boom');
  };
  const unified: Handler = async (_, __, effects) => Response.json(await effects.once('charge', () => gateway.charge('tok')));
  const { post } = await routeIn('compare', { legacy, unified });
  expect(await thrownBy(post())).toMatchObject({ message: 'boom' });
  expect(gateway.charges).toEqual(['tok']);
});

test('a side that took too long to answer does nothing any more, and does not stand in the way of the one that answers', async () => {
  const gateway = new Gateway();
  const { opened, open } = gate();
  const { opened: asked, open: goOn } = gate();
  const thrown: unknown[] = [];
  const legacy: Handler = async (_, __, effects) => {
    await opened;
    thrown.push(await thrownBy(effects.once('mail', () => gateway.charge('mail'))), await thrownBy(effects.once('charge', () => gateway.charge('tok'))));
    goOn();
    return Response.json('late');
  };
  const unified: Handler = async (_, __, effects) => {
    await effects.once('charge', () => gateway.charge('tok'));
    open();
    await asked;
    return Response.json(await effects.once('receipt', () => 'sent'));
  };
  const { post, parity } = await routeIn('compare', { legacy, unified }, { maximumMs: 1_000 });
  expect(await (await post()).json()).toBe('sent');
  expect(thrown).toEqual([expect.any(EffectNotAllowed), undefined]);
  expect(gateway.charges).toEqual(['tok']);
  expect((await parity()).counts).toEqual([0, 0, 1, 0]);
});

test('where none may answer in its place, a side that takes long is waited for as without the other, and counted', async () => {
  const { opened, open } = gate();
  const slow: Handler = async (_, __, effects) => {
    await opened;
    return Response.json(await effects.once('charge', () => 'charged'));
  };
  const { post, parity, failures } = await routeIn('shadow', { legacy: slow, unified: says({}) }, { maximumMs: 50 });
  const answer = post();
  await expect.poll(() => failures.map(([, { during }]) => during)).toEqual(['legacy']);
  open();
  expect(await (await answer).json()).toBe('charged');
  expect((await parity()).counts).toEqual([0, 0, 1, 0]);
});

test('both sides that take too long end the request', async () => {
  const { post, parity } = await routeIn('on', { legacy: never, unified: never }, { maximumMs: 50 });
  expect(await thrownBy(post())).toMatchObject({ name: 'TimeoutError', message: expect.stringContaining('unified') });
  // Both have failed alike.
  expect((await parity()).counts).toEqual([1, 0, 0, 0]);
});

test.each<RouteMode>(['compare', 'on'])('%s: an answer whose body breaks off is a failure of its side', async (mode) => {
  const torn = failing['has a body that breaks']!;
  const [legacy, unified] = mode === 'on' ? [says(1), torn] : [torn, says(1)];
  const { post, parity, failures } = await routeIn(mode, { legacy, unified });
  expect(await thrownBy((await post()).text())).toBeInstanceOf(Error);
  expect((await parity()).counts).toEqual(mode === 'on' ? [0, 0, 0, 1] : [0, 0, 1, 0]);
  expect(failures).toMatchObject([[{ message: 'broken' }, { during: mode === 'on' ? 'unified' : 'legacy' }]]);
});

test('times that no timer can be set to are the longest that there are, and what is none is refused', async () => {
  for (const ms of [Infinity, 2 ** 31]) {
    const { post, parity } = await routeIn('compare', { legacy: says(1), unified: says(1) }, { limitMs: ms, maximumMs: ms });
    expect(await (await post()).json()).toBe(1);
    expect((await parity()).counts).toEqual([1, 0, 0, 0]);
  }
  for (const name of ['refreshMs', 'limitMs', 'maximumMs', 'reportMs']) {
    for (const ms of [NaN, -1, '1']) expect(() => new RouteMigration({ server: used.shop, [name]: ms })).toThrow(`\`${name}\` has to be a time`);
  }
});

test('a side that was given up does nothing any more', async () => {
  const gateway = new Gateway();
  const { opened, open } = gate();
  let thrown: unknown;
  const unified: Handler = async (_, __, effects) => {
    await opened;
    thrown = await thrownBy(effects.once('charge', () => gateway.charge('tok')));
    return Response.json({});
  };
  const { post, migration } = await routeIn('compare', { legacy: failing['throws']!, unified }, { maximumMs: 50 });
  expect(await thrownBy(post())).toMatchObject({ message: 'boom' });
  await migration.flush();
  open();
  await expect.poll(() => thrown).toBeInstanceOf(EffectNotAllowed);
  expect(gateway.charges).toEqual([]);
});

test('what Next.js throws to redirect is an answer', async () => {
  const redirect = (to: string): Handler => () => {
    throw Object.assign(new Error('NEXT_REDIRECT'), { digest: `NEXT_REDIRECT;replace;${to};303;` });
  };
  const same = await routeIn('compare', {
    legacy: redirect('/upsell-1?a=ü;1'),
    unified: () => new Response(null, { status: 303, headers: { location: '/upsell-1?a=%C3%BC;1' } }),
  });
  expect(await thrownBy(same.post())).toMatchObject({ message: 'NEXT_REDIRECT' });
  expect((await same.parity()).counts).toEqual([1, 0, 0, 0]);
  const other = await routeIn('on', {
    legacy: () => {
      throw new Response(null, { status: 303, headers: { location: '/upsell-2/ada@example.com' } });
    },
    unified: redirect('https://shop.example/upsell-1?email=ada@example.com'),
  });
  await thrownBy(other.post());
  const { counts, fields } = await other.parity();
  expect(counts).toEqual([0, 1, 0, 0]);
  expect(fields['http.location']).toEqual([expect.stringMatching(/^\/upsell-2\/\* \(#\w{4}\)$/), expect.stringMatching(/^\/upsell-1 \(#\w{4}\)$/)]);
});

// Requests

class ShopRequest extends Request {
  get step(): string | null {
    return new URL(this.url).searchParams.get('step');
  }
}

/** As the one of Next.js at the edge: not made in the way of those that it is one of. */
class HintedRequest extends ShopRequest {
  constructor({ url, init }: { url: string; init: RequestInit }) {
    super(url, init);
  }
}

test.each<RouteMode>(['shadow', 'compare', 'on'])('%s: both sides read the body, the headers and what the framework adds', async (mode) => {
  const seen: unknown[] = [];
  const side = async (request: ShopRequest, context: { params: { id: string } }) => {
    seen.push([request.step, request.method, request.headers.get('cookie'), context.params.id, await request.json()]);
    return Response.json({});
  };
  const name = `POST /${crypto.randomUUID()}`;
  await used.operator.setRouteMode(name, mode);
  const handler = new RouteMigration({ server: used.shop }).route(name, { legacy: side, unified: side });
  const init = { method: 'POST', body: '{"email":"ada@example.com"}', headers: { cookie: 'upsell_session=x' } };
  const url = 'https://shop.example/api?step=2';
  for (const request of [new ShopRequest(url, init), new HintedRequest({ url, init })]) await handler(request, { params: { id: 'ws_1' } });
  expect(seen).toEqual(Array(4).fill(['2', 'POST', 'upsell_session=x', 'ws_1', { email: 'ada@example.com' }]));
});

test('a request that cannot be read twice is answered all the same', async () => {
  const { handler, parity, failures } = await routeIn('compare', { legacy: says({ fine: true }), unified: says({ fine: true }) });
  const request = new Request('https://shop.example/', { method: 'POST', body: 'x' });
  await request.text();
  expect(await (await handler(request)).json()).toEqual({ fine: true });
  expect((await parity()).counts).toEqual([0, 0, 0, 1]);
  expect(failures).toHaveLength(1);
  const bare = await routeIn('compare', { legacy: says({}), unified: says({}) });
  await bare.handler(new Request('https://shop.example/'));
  expect((await bare.parity()).counts).toEqual([1, 0, 0, 0]);
});

/** A body of chunks of 64 KiB, as many as there are, as slowly as there are; and how much of it was asked for. */
function body(chunks: number, pauseMs = 0): { stream: ReadableStream<Uint8Array>; given: () => number; end: () => void } {
  let [given, isOver] = [0, false];
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (isOver || given >= chunks) return controller.close();
      controller.enqueue(new Uint8Array(65_536));
      given++;
    },
  });
  return { stream, given: () => given, end: () => (isOver = true) };
}

const upload = (stream: ReadableStream<Uint8Array>, headers: Record<string, string> = {}) =>
  new Request('https://shop.example/', { method: 'POST', body: stream, headers, duplex: 'half' } as RequestInit);

test('a body that is too large reaches the answering side whole; the other is left out, which is counted', async () => {
  const sizes: number[] = [];
  const legacy: Handler = async (request) => {
    sizes.push((await request.arrayBuffer()).byteLength);
    return Response.json({ fine: true });
  };
  let others = 0;
  const unified: Handler = async (request) => {
    others += (await request.arrayBuffer()).byteLength;
    return Response.json({ fine: true });
  };
  const { handler, parity, failures } = await routeIn('compare', { legacy, unified }, { maxBodyBytes: 2 * 65_536 });
  expect(await (await handler(upload(body(2).stream))).json()).toEqual({ fine: true });
  expect([sizes, others]).toEqual([[131_072], 131_072]);
  expect(await (await handler(upload(body(3).stream))).json()).toEqual({ fine: true });
  expect(await (await handler(upload(body(3).stream, { 'content-length': '196608' }))).json()).toEqual({ fine: true });
  expect([sizes, others]).toEqual([[131_072, 196_608, 196_608], 131_072]);
  expect((await parity()).counts).toEqual([1, 0, 0, 2]);
  const left = [expect.objectContaining({ name: 'RangeError', message: expect.stringContaining('maxBodyBytes') }), expect.objectContaining({ during: 'unified' })];
  expect(failures).toEqual([left, left]);
});

test('a body that nobody reads is not read any further than it may be copied', async () => {
  const refusing = () => new Response('too large', { status: 413 });
  const { handler, migration } = await routeIn('shadow', { legacy: refusing, unified: refusing });
  const large = body(10_000);
  expect((await handler(upload(large.stream))).status).toBe(413);
  await migration.flush();
  expect(large.given()).toBeGreaterThan(15);
  expect(large.given()).toBeLessThan(25);
  const told = body(10_000);
  await handler(upload(told.stream, { 'content-length': '655360000' }));
  await migration.flush();
  expect(told.given()).toBeLessThan(3);
});

test('a body that does not end is not waited for, nor read on, when the time of the other side is over', async () => {
  const { handler, parity } = await routeIn('shadow', { legacy: says({ fine: true }), unified: says({}) }, { limitMs: 10, maximumMs: 100, maxBodyBytes: Infinity });
  const endless = body(Infinity, 5);
  expect(await (await handler(upload(endless.stream))).json()).toEqual({ fine: true });
  expect((await parity()).counts).toEqual([0, 0, 0, 1]);
  const before = endless.given();
  await new Promise((resolve) => setTimeout(resolve, 200));
  // One may have been on its way.
  expect(endless.given()).toBeLessThanOrEqual(before + 2);
  endless.end();
});

test('who leaves does not wait for the other side, which ends all the same and does not hear of it', async () => {
  const { opened, open } = gate();
  const life = new AbortController();
  let isDone: boolean | undefined;
  const unified: Handler = async ({ signal }) => {
    life.abort();
    await opened;
    isDone = !signal.aborted;
    return Response.json({});
  };
  // Longer than the test may take.
  const { post, parity } = await routeIn('compare', { legacy: says({}), unified }, { limitMs: 120_000 });
  await post({}, { signal: life.signal });
  expect(isDone).toBeUndefined();
  open();
  expect((await parity()).counts).toEqual([1, 0, 0, 0]);
  expect(isDone).toBe(true);
});

test.each<RouteMode>(['shadow', 'compare', 'on'])('%s: a request that ends with its signal is no failure of a side', async (mode) => {
  const life = new AbortController();
  const log: string[] = [];
  const answering: Handler = ({ signal }) => {
    life.abort(new Error('left'));
    return Promise.reject(signal.reason);
  };
  const other = says({}, log, 'other');
  const [legacy, unified] = mode === 'on' ? [other, answering] : [answering, other];
  const { post, parity } = await routeIn(mode, { legacy, unified });
  expect(await thrownBy(post({}, { signal: life.signal }))).toMatchObject({ message: 'left' });
  expect((await parity()).counts).toEqual([0, 0, 0, 0]);
  expect(log).toEqual([]);
});

test('what a request has done outside before its buyer left is brought to the other side', async () => {
  const life = new AbortController();
  const gateway = new Gateway();
  const taken: unknown[] = [];
  const legacy: Handler = async ({ signal }, _, effects) => {
    await effects.once('charge', () => gateway.charge('tok'));
    life.abort(new Error('left'));
    throw signal.reason;
  };
  const unified: Handler = async (_, __, effects) => {
    taken.push(await effects.once('charge', () => gateway.charge('tok')));
    return Response.json({});
  };
  const { post, parity } = await routeIn('compare', { legacy, unified });
  expect(await thrownBy(post({}, { signal: life.signal }))).toMatchObject({ message: 'left' });
  expect((await parity()).counts).toEqual([0, 0, 0, 0]);
  expect(taken).toEqual([{ transactionId: 't-1' }]);
  expect(gateway.charges).toHaveLength(1);
});

test('nothing listens to the signal of a request that was answered', async () => {
  const life = new AbortController();
  const { handler, migration } = await routeIn('compare', { legacy: says({}), unified: says({}) });
  const request = new Request('https://shop.example/');
  Object.defineProperty(request, 'signal', { value: life.signal });
  await handler(request);
  await migration.flush();
  expect(getEventListeners(life.signal, 'abort')).toEqual([]);
});

// Comparison

test('answers are compared field by field, in any order of keys, and lists by field', async () => {
  const legacy = { session: { status: 'pending', amount: 79.1, ok: true, gone: 1 }, products: [{ id: 'a', price: 1 }, { id: 'b', price: 2 }, { id: 'c', price: 3 }], same: { a: 1, b: [1, 2] } };
  const unified = { same: { b: [1, 2], a: 1 }, products: [{ price: 1.5, id: 'a' }, { price: 2.5, id: 'b' }], session: { status: 'completed', amount: 79, ok: false, more: null } };
  const { post, parity } = await routeIn('compare', { legacy: says(legacy), unified: says(unified, [], '', { status: 201 }) });
  await post();
  const { counts, fields, details } = await parity();
  expect(counts).toEqual([0, 1, 0, 0]);
  expect(fields).toEqual({
    'http.status': ['200', '201'],
    'session.status': ['pending', 'completed'],
    'session.amount': ['79.1', '79'],
    'session.ok': ['true', 'false'],
    'session.gone': ['1', 'missing'],
    'session.more': ['missing', 'null'],
    'products[].price': ['1', '1.5'],
    'products[]': ['an object', 'missing'],
  });
  // Once for a request, however many of the list differ.
  expect(details.find(({ field }) => field === 'products[].price')!.times).toBe(1);
});

test.each<[string, Response, Response, object]>([
  ['the same text', new Response('a'), new Response('a'), {}],
  ['other texts', new Response('a'), new Response('bb'), { body: [expect.stringMatching(/^text of 1 char/), expect.stringMatching(/^text of 2 char/)] }],
  ['JSON and none', Response.json({ a: 1 }), new Response('{"a":1}'), { body: ['an object', expect.stringMatching(/^text of 7/)] }],
  ['two that only say they are JSON', new Response('a', { headers: { 'content-type': 'application/json' } }), new Response('a'), {}],
  ['a kind of JSON', new Response('{"a":1}', { headers: { 'content-type': 'application/problem+json' } }), Response.json({ a: 2 }), { a: ['1', '2'] }],
  ['numbers that are texts', Response.json({ price: '1' }), Response.json({ price: 1 }), { price: [expect.stringMatching(/^text of 1/), '1'] }],
  ['no bodies', new Response(null, { status: 204 }), new Response(null, { status: 204 }), {}],
])('%s', async (_, legacy, unified, expected) => {
  const { post, parity } = await routeIn('compare', { legacy: () => legacy, unified: () => unified });
  await post();
  const { counts, fields } = await parity();
  expect(fields).toEqual(expected);
  expect(counts).toEqual(Object.keys(expected).length > 0 ? [0, 1, 0, 0] : [1, 0, 0, 0]);
});

test('fields may be left out, and numbers be a little off where that is said', async () => {
  const legacy = { updatedAt: 1, session: { version: 1, updatedAt: { by: 1 }, amount: 79.004 }, products: [{ price: 1.005, name: 'A' }], version: 1 };
  const unified = { updatedAt: 2, session: { version: 2, updatedAt: null, amount: 79 }, products: [{ price: 1.01, name: 'B' }], version: 2 };
  const { post, parity } = await routeIn('compare', {
    legacy: says(legacy, [], '', { headers: { location: '/a' } }),
    unified: says(unified, [], '', { headers: { location: '/b' } }),
    ignore: ['updatedAt', 'session.version', 'products[].name', 'http.location'],
    tolerance: { price: 0.005, 'session.amount': 0.003 },
  });
  await post();
  const { fields } = await parity();
  expect(Object.keys(fields).sort()).toEqual(['session.amount', 'version']);
});

test('what both sides have stored is compared as well, after both are done', async () => {
  const stores = { legacy: {} as Record<string, unknown>, unified: {} as Record<string, unknown> };
  const side = (name: 'legacy' | 'unified', value: unknown): Handler => async (request) => {
    stores[name] = { ...((await request.json()) as object), value, at: new Date(name === 'legacy' ? 0 : 1000) };
    return Response.json({ sessionId: 'ws_mwor0dc0_0ez6uz7hc' });
  };
  const asked: unknown[] = [];
  const options: Options = {
    legacy: side('legacy', 1),
    unified: side('unified', 2),
    state: async (request, answer, context) => {
      asked.push(await request.json(), await answer.json(), context);
      return stores;
    },
  };
  const { name, post, parity, handler } = await routeIn('compare', options);
  const answer = await post({ sent: 1 });
  expect(await answer.json()).toEqual({ sessionId: 'ws_mwor0dc0_0ez6uz7hc' });
  expect(asked).toEqual([{ sent: 1 }, { sessionId: 'ws_mwor0dc0_0ez6uz7hc' }, undefined]);
  const { fields, details } = await parity();
  expect(fields).toEqual({ 'state.value': ['1', '2'], 'state.at': ['1970-01-01T00:00:00.000Z', '1970-01-01T00:00:01.000Z'] });
  expect(details[0]!.examples[0]!.sessionId).toBe('ws_mwor0dc0_0ez6uz7hc');
  await used.operator.setRouteMode(name, 'shadow');
  await handler(new Request('https://shop.example/', { method: 'POST', body: '{}' }));
  expect(asked).toHaveLength(3);
  const unreadable = await routeIn('compare', { legacy: says({}), unified: says({}), state: () => Promise.reject(new Error('no')) });
  await unreadable.post();
  expect(await unreadable.parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: { state: ['missing', 'missing'] } });
  expect(unreadable.failures).toMatchObject([[{ message: 'no' }, { during: 'state' }]]);
});

test('answers that are large, deep or endless are compared as far as it goes, and reach the buyer whole', async () => {
  const large = 'x'.repeat(3 * 1024 * 1024);
  const deep = '['.repeat(3_000) + ']'.repeat(3_000);
  const wide = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`${'abcdefghij'[index % 10]}${'klmnopqrst'[Math.floor(index / 10) % 10]}${'uvwxy'[Math.floor(index / 100)]}`, 1]));
  const body = { headers: { 'content-type': 'application/json' } };
  const first = await routeIn('compare', { legacy: () => new Response(large), unified: () => new Response(`${large}y`) });
  expect(await (await first.post()).text()).toBe(large);
  expect((await first.parity()).counts).toEqual([1, 0, 0, 0]);
  const second = await routeIn('compare', { legacy: () => new Response(deep, body), unified: () => new Response(deep.replace('[]', '[1]'), body) });
  expect(await (await second.post()).text()).toBe(deep);
  expect((await second.parity()).counts).toEqual([0, 1, 0, 0]);
  const third = await routeIn('compare', { legacy: says(wide), unified: says({}) });
  await third.post();
  expect((await third.parity()).details).toHaveLength(50);
  const stream = () => new Response(new ReadableStream({ start: (stream) => stream.enqueue(new TextEncoder().encode('first')), pull: never }));
  const fourth = await routeIn('compare', { legacy: stream, unified: () => new Response('first') }, { maximumMs: 100 });
  const reader = (await fourth.post()).body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe('first');
  expect((await fourth.parity()).counts).toEqual([0, 0, 0, 0]);
});

// Masking

test('nothing of a buyer leaves the process, in values, keys, addresses or names of effects', async () => {
  const canaries = [
    ...['ada@example.com', 'Ada Lovelace', 'Lovelace', '+49 170 1234567', '4917012345678', '4111111111111111', '4111 1111 1111 1111', '4111-1111-1111-1111'],
    ...['12 Analytical Row', 'tok_1Nabc234DEF567ghi', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl', 'vault_98765', 'Ada', 'sk_live_51H8abcDEF', '94020'],
  ];
  const numbers = { phone: 4917012345678, zipCode: 94020, cardNumber: 4111111111111111, note: 4111111111111111, amount: 4917012345678, cvv: 123456, createdAt: 4111111111111111 };
  const personal = (canary: string, index: number): object => ({
    // In fields of each kind, among them those that are shown.
    ...{ email: canary, status: canary, code: canary, id: canary, sessionId: canary, type: canary, effects: canary, body: canary, message: `to ${canary} now` },
    customer: { firstName: canary, nested: [[canary]] },
    [canary]: { [`${canary}`]: index },
    [`key of ${canary}`]: canary,
    products: [{ id: canary, [canary]: index }],
    dob: '1985-03-01T00:00:00Z',
    http: { status: canary, location: canary },
    state: { address: canary },
    shownToo: canary,
  });
  const handlers = canaries.map((canary, index): Options => {
    const side = (other: number): Handler => async (_, __, effects) => {
      // Where the names of effects agree, the field `effects` is that of the answer.
      if (other === 0 && index % 2 === 1) await effects.once(`mail to ${canary}`, () => undefined);
      await effects.once(canary, () => undefined).catch(() => undefined);
      const location = `https://${encodeURIComponent(canary)}/${encodeURIComponent(canary)}?email=${encodeURIComponent(canary)}#${encodeURIComponent(canary)}`;
      const body = other === 0 ? { ...personal(canary, index), ...numbers } : { [canary]: {}, customer: { nested: [[]] }, products: [{}] };
      return Response.json(body, { headers: { location: other === 0 ? location : '/' } });
    };
    const text = (other: number): Handler => () => new Response(other === 0 ? `Dear ${canary}` : canary);
    const fields: Pick<Options, 'shown' | 'state'> = { shown: ['shownToo'], state: () => ({ legacy: personal(canary, 0), unified: { [canary]: [canary] } }) };
    return index % 5 === 4 ? { legacy: text(0), unified: text(1) } : { legacy: side(0), unified: side(1), ...fields };
  });
  const sent: string[] = [];
  const warnings = vi.spyOn(console, 'warn').mockImplementation((...args) => void sent.push(args.join(' ')));
  for (const [index, options] of handlers.entries()) {
    for (const mode of ['compare', 'on'] as const) {
      const { post, parity, reported } = await routeIn(mode, options);
      await post();
      expect((await parity()).counts, canaries[index]).toEqual([0, 1, 0, 0]);
      sent.push(JSON.stringify(reported));
    }
  }
  const throwing = await routeIn('compare', { legacy: says({}), unified: () => Promise.reject(new Error('no such buyer: ada@example.com')) }, { onError: undefined as never });
  for (let times = 0; times < 3; times++) await throwing.post();
  await throwing.migration.flush();
  // Once for a while, and without what the error says.
  expect(warnings.mock.calls.flat()).toEqual([`throughline/legacy: unified of ${throwing.name} failed (Error)`]);
  const all = sent.join('\n');
  expect(all).toContain('an object');
  // What the shop wants to be shown is shown, but for what is plainly an address, a number of a card or a phone, or a token.
  const never = canaries.filter((canary) => /@|^eyJ/.test(canary) || canary.replace(/\D/g, '').length > 9);
  expect(never).toHaveLength(7);
  const isShown = (canary: string, field: string) => /(^|\.)shownToo$/.test(field) && !never.includes(canary);
  const reports = sent.filter((text) => text.startsWith('[')).flatMap((text) => JSON.parse(text) as RouteReport[]);
  const differences = reports.flatMap(({ differences = [] }) => differences);
  for (const difference of differences) {
    const { field, legacy, unified, sessionId } = difference;
    const text = [field, legacy, unified, sessionId].join('\n');
    for (const canary of [...canaries, ...Object.values(numbers).map(String), '1985']) {
      if (text.includes(canary)) expect(isShown(canary, field), `${canary} in ${JSON.stringify(difference)}`).toBe(true);
    }
  }
  const fields = new Set(differences.map(({ field }) => field));
  for (const field of ['http.location', 'effects', 'body', 'dob', '*', '*.*', 'products[].id', 'customer.nested[][]', 'cvv', 'amount', 'state.shownToo']) {
    expect([...fields]).toContain(field);
  }
});

test('a name, a number or a code of a buyer is not shown in a field or an address that has words of the program otherwise', async () => {
  const legacy = {
    ...{ status: 'jane', code: 'JaneDoe', source: 'Jane.Doe', type: 'jane_doe-smith', kind: 'MainStreet', outcome: 'Price', productCode: ['jane'], offer: 'Smith' },
    giftCard: { code: 'ABCD-EFGH-IJ' },
    ...{ last4: 4242, last_four: 4242, expMonth: 12, cvc2: 123, securityCode: 123, otp: 4829, verificationCode: 482913, code2: { code: 4829 } },
    ...{ taxNumber: 12345678, vat_id: 12345678, customerId: 88121, houseNumber: 221, plz: 10115, salary: 100, age: 41, userId: 12 },
    customer: { source: 'success', line: 12, at: '2026-11-20T09:00:00Z' },
  };
  const { post, parity } = await routeIn('compare', {
    legacy: says(legacy, [], '', { headers: { location: '/buyer/jane/orders/12345/Success?email=a@b.co' } }),
    unified: says({ customer: {}, giftCard: {}, code2: {}, productCode: [''] }, [], '', { headers: { location: '/jane%40example.com/checkout/ws_mwor0dc0_0ez6uz7hc' } }),
  });
  await post();
  const { fields } = await parity();
  const location = fields['http.location']!;
  expect(location).toEqual([expect.stringMatching(/^\/buyer\/\*\/orders\/\*\/\* \(#\w{4}\)$/), expect.stringMatching(/^\/\*\/checkout\/ws_mwor0dc0_0ez6uz7hc \(#\w{4}\)$/)]);
  delete fields['http.location'];
  expect(Object.keys(fields).length).toBeGreaterThan(25);
  for (const [field, [shown]] of Object.entries(fields)) expect(shown, field).toMatch(/^(text of \d+ characters|a number) \(#\w{4}\)$/);
});

test('words of the program are shown, in fields of such and in addresses: all that the server has, and codes of a catalogue', async () => {
  const openapi = await readFile(new URL('../../../../../docs/openapi.json', import.meta.url), 'utf8');
  const said = [...openapi.matchAll(/"enum": \[([^\]]*)\]/g)].flatMap(([, list]) => [...list!.matchAll(/"([^"]+)"/g)].map(([, word]) => word!));
  expect(said.length).toBeGreaterThan(100);
  const words = [...new Set([...said, 'payment_processing', 'upsell-1', 'thank-you', 'PAYMENT_DECLINED', 'card_declined', 'insufficient_funds', 'do_not_honor'])];
  const masking = new Masking();
  for (const word of words) expect(await masking.value(['error', 'code'], word, new FieldNames([]))).toBe(word);
  for (const code of ['RC6', 'RC12', 'SG-6']) {
    expect(await masking.value(['upsells_accepted', '[]'], code, new FieldNames([]))).toBe(code);
    expect(await masking.value(['code'], code, new FieldNames([]))).toMatch(/^text of/);
  }
  expect(await masking.value(['currency'], 'EUR', new FieldNames([]))).toBe('EUR');
  expect(await masking.value(['code'], 402, new FieldNames([]))).toBe('402');
  for (const [field, number] of [['lastAt', 1764340000000], ['tax', 5.04], ['total', 294]] as const) expect(await masking.value([field], number, new FieldNames([]))).toBe(String(number));
  expect(await masking.address('https://shop.example/en/checkout/upsell-1?a=b', new FieldNames([]))).toMatch(/^\/en\/checkout\/upsell-1 \(#/);
  const shown = new FieldNames([['http.location', true as const]]);
  expect(await masking.address('/funnels/bottle', shown)).toMatch(/^\/funnels\/bottle \(#/);
  expect(await masking.address('/funnels/ada%2540example.com', shown)).toMatch(/^\/\*\/\* \(#/);
});

test('what is no secret is shown, and the rest is told apart', async () => {
  const legacy = { step: 'upsell-1', currentStep: 'success', amount: 79.5, paid: true, at: '2026-11-20T09:00:00Z', createdAtMs: 1764340000000, note: 'a b', hint: 'x', other: 'x', id: 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv' };
  const unified = { step: 'upsell-2', currentStep: 'checkout', amount: 80, paid: null, at: '2026-11-20T09:00:01.5+01:00', createdAtMs: 1764340000001, note: 'a c', hint: 'y', other: 'y', id: 'ws_manual_1' };
  const { post, parity } = await routeIn('compare', { legacy: says(legacy), unified: says(unified), shown: ['note'] });
  await post();
  const { fields } = await parity();
  const { hint, other, ...rest } = fields;
  const { hint: _, other: __, ...legacyRest } = legacy;
  expect(rest).toEqual(Object.fromEntries(Object.keys(legacyRest).map((name) => [name, [legacy, unified].map((side) => String((side as Record<string, unknown>)[name]))])));
  expect(hint![0]).toMatch(/^text of 1 characters \(#[0-9a-f]{4}\)$/);
  // The same text is the same sign, and another one another.
  expect(other).toEqual(hint);
  expect(hint![0]).not.toBe(hint![1]);
  // And another process has others.
  const again = await routeIn('compare', { legacy: says(legacy), unified: says(unified) });
  await again.post();
  expect((await again.parity()).fields['hint']).not.toEqual(hint);
});

// Reports

test('many requests are reported at once', async () => {
  const reportMs = 200;
  const { post, reported, parity } = await routeIn('compare', { legacy: says(1), unified: says(1) }, { refreshMs: 60_000, reportMs });
  const [before, from] = [used.between.seen.length, performance.now()];
  for (let times = 0; times < 50; times++) {
    await post();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await expect.poll(() => reported.reduce((sum, { equal = 0 }) => sum + equal, 0)).toBe(50);
  const reports = used.between.since(before).filter((seen) => seen === 'POST /v1/parity');
  expect(reports.length).toBeLessThanOrEqual(Math.ceil((performance.now() - from) / reportMs));
  expect((await parity()).counts).toEqual([50, 0, 0, 0]);
});

test('a server that takes no reports costs bounded memory and no answer; what was kept is told when it is there again', async () => {
  const { post, migration, parity, failures } = await routeIn('compare', { legacy: says({ a: 1, b: 1 }), unified: says({ a: 2, b: 2 }) }, { refreshMs: 60_000, reportMs: 10, maxDifferences: 250 });
  await post();
  await migration.flush();
  await used.server.kill9();
  try {
    for (let times = 0; times < 200; times++) expect((await post()).status).toBe(200);
    expect(await migration.flush()).toBe(false);
    expect(migration.dropped).toBe(150);
    expect(failures.some(([, { during }]) => during === 'report')).toBe(true);
  } finally {
    await used.server.restart();
  }
  const { counts, details } = await parity();
  expect(counts).toEqual([0, 201, 0, 0]);
  expect(details.map(({ times }) => times)).toEqual([126, 126]);
  expect(migration.dropped).toBe(150);
});

test('flush waits for a report that is on its way', async () => {
  const { opened, open } = gate();
  let reports = 0;
  const reportParity = () => {
    reports++;
    return opened;
  };
  const routeModes = async () => [{ route: 'a', mode: 'compare' as const, changedAt: '' }];
  const migration = new RouteMigration({ server: { routeModes, reportParity }, reportMs: 0 });
  await migration.route('a', { legacy: says(1), unified: says(1) })(new Request('https://shop.example/'));
  await expect.poll(() => reports).toBe(1);
  let isFlushed = false;
  const flushed = migration.flush().finally(() => (isFlushed = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(isFlushed).toBe(false);
  open();
  expect(await flushed).toBe(true);
  expect(reports).toBe(1);
});

test('a report that gets lost is told again, after a pause, without anybody asking', async () => {
  const { post, reported, failures } = await routeIn('compare', { legacy: says({ a: 1 }), unified: says({ a: 2 }) }, { refreshMs: 60_000, reportMs: 20 });
  await post();
  used.between.fates = ['requestLost', { status: 503, body: '{}' }];
  await expect.poll(() => reported).toMatchObject([{ different: 1, differences: [{ field: 'a' }] }]);
  expect(failures.map(([, { during }]) => during)).toEqual(['report', 'report']);
});

test('what the server does not take is not told again, but for the counts', async () => {
  const { post, migration, parity } = await routeIn('compare', { legacy: says({ a: 1 }), unified: says({ a: 2 }) }, { refreshMs: 60_000, reportMs: 60_000 });
  await post();
  used.between.fates = [{ status: 422, body: '{"code":"invalidBody","title":"No","status":422}' }];
  expect(await migration.flush()).toBe(false);
  expect(migration.dropped).toBe(1);
  expect(await parity()).toMatchObject({ counts: [0, 1, 0, 0], fields: {} });
});

test('more than a report holds is told in several', async () => {
  const { migration, post, parity, reported } = await routeIn('compare', { legacy: says({ a: 1, b: 1 }), unified: says({}) }, { refreshMs: 60_000, reportMs: 60_000 });
  const other = migration.route('another', { legacy: says({}), unified: says({}) });
  await other(new Request('https://shop.example/'));
  await Promise.all(Array.from({ length: 150 }, () => post()));
  expect((await parity()).details.map(({ times }) => times)).toEqual([150, 150]);
  expect(reported.map(({ differences }) => differences!.length)).toEqual([200, 100]);
});

test('more than a body may hold is told in several, and nothing of it is dropped', async () => {
  const names = Array.from({ length: 40 }, (_, index) => `a-field-with-a-long-name-${'abcdefghij'[index % 10]}${'klmn'[Math.floor(index / 10)]}`);
  const fields = (of: string) => Object.fromEntries(names.map((name) => [name, of.repeat(100)]));
  const { post, migration, parity, reported } = await routeIn('compare', { legacy: says(fields('€')), unified: says(fields('ü')), shown: names }, { refreshMs: 60_000, reportMs: 60_000 });
  for (let times = 0; times < 5; times++) await post();
  const { counts, details } = await parity();
  expect(counts).toEqual([0, 5, 0, 0]);
  expect(details.map(({ times }) => times)).toEqual(Array(40).fill(5));
  expect(migration.dropped).toBe(0);
  // Of 200 differences that would be one report.
  expect(reported.length).toBeGreaterThan(1);
});

test('a report that is too large for what is in between is told in halves', async () => {
  const { post, migration, parity, reported } = await routeIn('compare', { legacy: says({ a: 1, b: 1 }), unified: says({}) }, { refreshMs: 60_000, reportMs: 60_000 });
  await Promise.all(Array.from({ length: 4 }, () => post()));
  used.between.fates = [{ status: 413, body: '' }, { status: 413, body: '' }];
  expect((await parity()).details.map(({ times }) => times)).toEqual([4, 4]);
  expect(reported.length).toBeGreaterThan(2);
  expect((await parity()).counts).toEqual([0, 4, 0, 0]);
  expect(migration.dropped).toBe(0);
});

test('where the runtime ends with its requests, all that goes on is handed over, and reported in it', async () => {
  const handed: Promise<unknown>[] = [];
  const { opened, open } = gate();
  const slow: Handler = async () => {
    await opened;
    return Response.json(2);
  };
  const waitUntil = (work: Promise<unknown>) => void handed.push(work);
  const { post, reported } = await routeIn('compare', { legacy: says(1), unified: slow }, { waitUntil, limitMs: 0, reportMs: 60_000 });
  await post();
  open();
  await Promise.all(handed);
  expect(reported).toMatchObject([{ different: 1 }]);

  const own: unknown[] = [];
  const name = `GET /${crypto.randomUUID()}`;
  await used.operator.setRouteMode(name, 'shadow');
  const broken = new RouteMigration({ server: used.shop, waitUntil: () => expect.unreachable() }).route(name, {
    legacy: says('fine'),
    unified: says('fine'),
    waitUntil: (_, context: { env: number }) => {
      own.push(context);
      throw new Error('too late');
    },
  });
  expect(await (await broken(new Request('https://shop.example/'), { env: 1 })).json()).toBe('fine');
  expect(own).toContainEqual({ env: 1 });
});

test('no timer keeps the process alive', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  const reportParity = () => Promise.reject(new Error('no'));
  const routeModes = async () => [{ route: 'a', mode: 'compare' as const, changedAt: '' }];
  const migration = new RouteMigration({ server: { routeModes, reportParity }, limitMs: 0, onError: () => undefined });
  const slow = migration.route('a', { legacy: says(1), unified: never });
  const before = timers();
  await slow(new Request('https://shop.example/'));
  expect(timers()).toBeLessThanOrEqual(before);
});

test('one who hears of failures and fails breaks nothing', async () => {
  const { post } = await routeIn('compare', { legacy: says('fine'), unified: failing['throws']! }, {
    onError: () => {
      throw new Error('boom');
    },
  });
  expect(await (await post()).json()).toBe('fine');
});
