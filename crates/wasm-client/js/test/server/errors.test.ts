import { inspect } from 'node:util';
import { expect, test } from 'vitest';

import { ThroughlineError, ThroughlineServer, type ThroughlineErrorCode } from '../../src/server.js';
import { thrownBy, useShop } from './shop.js';

const used = useShop();

test('an error says what the server said, with its id', async () => {
  const error = await thrownBy(used.shop.updateSession('ws_nobody', {}));
  expect(error).toBeInstanceOf(ThroughlineError);
  const { name, status, code, mendableBy, detail, message, requestId, retryAfterMs, problem } = error as ThroughlineError;
  expect([name, status, code, retryAfterMs]).toEqual(['ThroughlineError', 404, 'sessionNotFound', undefined]);
  expect(mendableBy).toBe('permanent');
  expect(detail).toBe(message);
  expect(problem).toMatchObject({ status: 404, code, detail, requestId, type: '/docs/problems#sessionNotFound' });
  expect(requestId).toBeTruthy();
});

test('the facts of a kind of problem are there', async () => {
  const { session } = await used.shop.createSession();
  const numbered = { type: 'revokeAccess', clientId: 'payments', seq: 7 } as const;
  const error = (await thrownBy(used.shop.commands(session.id, [numbered]))) as ThroughlineError;
  expect([error.code, error.status]).toEqual(['sequenceGap', 409]);
  const code: ThroughlineErrorCode = error.code;
  expect(code).toBe('sequenceGap');
  expect(error.problem!['expectedSeq'] ?? error.problem!['expected']).toBe(1);
});

test.each([
  [{ status: 404, body: '<html>nothing here</html>' }, 404],
  [{ status: 200, body: '<html>please sign in</html>' }, 200],
  [{ status: 401, body: '{"error":"no"}' }, 401],
  [{ status: 302, headers: { location: 'http://127.0.0.1:9/' } }, 302],
])('what is no Throughline server is told apart from a session that is not there: %j', async (fate, status) => {
  used.between.fates = [fate];
  const error = (await thrownBy(used.shop.getSession('ws_a'))) as ThroughlineError;
  expect([error.code, error.status]).toEqual(['answerUnreadable', status]);
  expect(error.message).not.toContain('html');
});

test('a server that is not there is unreachable', async () => {
  const error = await thrownBy(used.with({ url: 'http://127.0.0.1:9', retries: 1 }).getSession('ws_a'));
  expect(error).toMatchObject({ code: 'unreachable', status: undefined, mendableBy: 'retry', cause: expect.any(Error) });
});

test('neither errors nor the SDK itself show the service key or a token', async () => {
  const { token, session } = await used.shop.createSession();
  const secrets = [used.server.serviceKey, token];
  const wrongKey = `tls_${'A'.repeat(43)}`;
  const stranger = used.with({ serviceKey: wrongKey });
  used.between.fates = [];
  const shown: unknown[] = [
    used.shop,
    used.shop.forRequest(),
    await thrownBy(stranger.verifyToken(token)),
    await thrownBy(stranger.getSession(session.id)),
    await thrownBy(used.with({ url: 'http://127.0.0.1:9', retries: 0 }).verifyToken(token)),
    await thrownBy(used.shop.exchangeLegacyCookie(token)),
    await thrownBy(used.shop.command(session.id, { type: 'setCoupon', code: token })),
    await thrownBy(used.shop.createSession({ funnel: { id: 'none' } })),
  ];
  // It would be refused by an error that shows it.
  for (const serviceKey of [`${wrongKey}\n`, `${wrongKey} `, '', undefined as unknown as string]) {
    let thrown: unknown;
    try {
      new ThroughlineServer({ url: used.between.url, serviceKey });
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(TypeError);
    shown.push(thrown);
  }
  for (const [index, one] of shown.entries()) {
    if (index > 1) expect(one, `${index}`).toBeInstanceOf(Error);
    const text = `${inspect(one, { depth: null, showHidden: true })} ${JSON.stringify(one)} ${String(one)}`;
    for (const secret of [...secrets, wrongKey]) expect(text.includes(secret), `${index}`).toBe(false);
  }
});

test.each(['', 'checkout.shop.example', 'ftp://checkout.shop.example', undefined as unknown as string])('%s is no address', (url) => {
  expect(() => new ThroughlineServer({ url, serviceKey: 'tls_a' })).toThrow(/`url` has to be/);
});
