import { expect, test } from 'vitest';

import type { ReportedDifference } from '../../src/server.js';
import { thrownBy, useShop } from './shop.js';

const used = useShop();

/** A name that no other test has, with what has to be written otherwise in an address. */
const someRoute = () => `POST /api/${crypto.randomUUID()}/[id]?ä`;

const difference = (at = new Date().toISOString()): ReportedDifference => ({ field: 'amount', legacy: '79.1', unified: '79', sessionId: 'ws_1_a', at });

test('a route is off until its mode is set, and works so from then on', async () => {
  const route = someRoute();
  expect((await used.shop.routeModes()).map((entry) => entry.route)).not.toContain(route);
  for (const mode of ['shadow', 'compare', 'on', 'only', 'off'] as const) {
    await used.operator.setRouteMode(route, mode);
    const entry = (await used.shop.routeModes()).find((entry) => entry.route === route);
    expect(entry).toEqual({ route, mode, changedAt: expect.stringMatching(/^\d{4}-.*Z$/) });
  }
});

test('what was found is counted, told, and forgotten', async () => {
  const [route, other] = [someRoute(), someRoute()];
  const of = async (route: string) => (await used.operator.parity()).routes.find((entry) => entry.route === route);
  expect(await of(route)).toBeUndefined();
  await used.operator.setRouteMode(route, 'compare');
  for (let times = 0; times < 2; times++) {
    await used.shop.reportParity([
      { route, equal: 5, different: 1, legacyFailed: 2, unifiedFailed: 3, differences: [difference()] },
      { route: other, equal: 1 },
    ]);
  }
  expect(await of(route)).toMatchObject({ mode: 'compare', equal: 10, different: 2, legacyFailed: 4, unifiedFailed: 6 });
  expect((await of(route))!.fields).toMatchObject([{ field: 'amount', times: 2, examples: [{ legacy: '79.1', unified: '79' }, {}] }]);
  await used.operator.forgetParity(route);
  expect(await of(route)).toMatchObject({ equal: 0, fields: [] });
  expect(await of(other)).toMatchObject({ equal: 2 });
  await used.operator.forgetParity();
  expect(await of(other)).toBeUndefined();
});

test('what is told is not told again by itself, and everything else is', async () => {
  const route = someRoute();
  const before = used.between.seen.length;
  used.between.fates = ['answerLost'];
  expect(await thrownBy(used.shop.reportParity([{ route, equal: 1 }]))).toMatchObject({ code: 'unreachable' });
  expect(used.between.since(before)).toEqual(['POST /v1/parity']);
  used.between.fates = ['answerLost'];
  expect((await used.operator.parity()).routes.find((entry) => entry.route === route)).toMatchObject({ equal: 1 });
  for (const call of [() => used.shop.routeModes(), () => used.operator.setRouteMode(route, 'on'), () => used.operator.forgetParity(route)]) {
    const before = used.between.seen.length;
    used.between.fates = ['requestLost', 'answerLost'];
    await call();
    expect(used.between.since(before)).toHaveLength(3);
  }
});

test('what can be no name of a route is not asked for: it would be another address, or all routes', async () => {
  const before = used.between.seen.length;
  for (const name of ['', '.', '..', 'x'.repeat(101), 'a\nb', '\ud800']) {
    expect(await thrownBy(used.operator.setRouteMode(name, 'only')), name).toMatchObject({ code: 'invalidBody' });
    expect(await thrownBy(used.operator.forgetParity(name)), name).toMatchObject({ code: 'invalidBody' });
  }
  expect(used.between.since(before)).toEqual([]);
  await used.operator.setRouteMode('ä'.repeat(100), 'off');
});

test('what the server does not take is an error that says why', async () => {
  const differences = Array.from({ length: 201 }, () => difference());
  expect(await thrownBy(used.shop.reportParity([{ route: 'a', differences }]))).toMatchObject({ status: 422, mendableBy: 'permanent' });
  expect(await thrownBy(used.shop.reportParity([]))).toMatchObject({ status: 422 });
});
