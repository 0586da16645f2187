import { createHmac } from 'node:crypto';

import { afterAll, beforeAll, vi } from 'vitest';

import { ThroughlineServer as RealServer } from '../../../../../tests/e2e/server.js';
import { ThroughlineServer, type ServerOptions } from '../../src/server.js';
import { Between } from './between.js';

/** The secret of the old shop, which signed its cookies with it. */
export const legacySecret = 'a-secret-of-the-old-shop-0123456789';

/** The value of the old shop's cookie with these claims. */
export function legacyCookie(claims: object, secret = legacySecret): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** The real server with something in between, for the tests of a file. */
export interface Shop {
  server: RealServer;
  between: Between;
  /** The SDK, which talks to what is in between. */
  shop: ThroughlineServer;
  /** The same with the key of an operator. */
  operator: ThroughlineServer;
  /** The SDK, set up otherwise. */
  with(options: Partial<ServerOptions>): ThroughlineServer;
}

export function useShop(): Shop {
  // A real server on a busy machine.
  vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });
  const used = {} as Shop;
  beforeAll(async () => {
    used.server = await RealServer.start({ env: { THROUGHLINE_LEGACY_COOKIE_SECRET: legacySecret } });
    used.between = await Between.of(used.server.url);
    used.with = (options) => new ThroughlineServer({ url: used.between.url, serviceKey: used.server.serviceKey, ...options });
    used.shop = used.with({});
    used.operator = used.with({ serviceKey: used.server.operatorKey });
  });
  afterAll(async () => {
    await used.between?.stop();
    await used.server?.stop();
  });
  return used;
}

/** An address that no other test has. */
export function someEmail(): string {
  return `ada-${crypto.randomUUID()}@example.com`;
}

/** What is thrown, if anything is. */
export async function thrownBy(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}
